#include "broker/pulse.h"

#include <string.h>

/* The edge moves by a few bytes without the client's doing when a ping or the like arrives: windows are told in rounded steps. */
enum { EDGE_ROUNDING = 256 };

void pulse_ping(struct pulse *pulse, uint64_t nonce, struct socket_progress progress)
{
    pulse->nonce = nonce;
    pulse->edge = progress.edge;
    pulse->heard = false;
    pulse->held_back = false;
}

bool pulse_pong(struct pulse *pulse, const void *payload, size_t len)
{
    if (!pulse->nonce || len != PULSE_NONCE_SIZE || memcmp(payload, &pulse->nonce, len) != 0)
        return false;
    pulse->nonce = 0;
    return true;
}

void pulse_hold_back(struct pulse *pulse)
{
    pulse->held_back = true;
}

enum pulse_verdict pulse_judge(struct pulse *pulse, struct socket_progress progress, bool held_back)
{
    bool waits = held_back || pulse->held_back;

    bool reads = progress.edge > pulse->edge + EDGE_ROUNDING;

    pulse->edge = progress.edge;
    pulse->held_back = held_back;
    if (pulse->heard) {
        pulse->nonce = 0;
        return PULSE_ALIVE;
    }
    return waits || reads ? PULSE_WAIT : PULSE_DEAD;
}

void pulse_stall(struct pulse *pulse, uint64_t now_ms, struct socket_progress progress)
{
    pulse->acked = progress.acked;
    pulse->moved_ms = now_ms;
}

uint64_t pulse_still_ms(struct pulse *pulse, uint64_t now_ms, struct socket_progress progress)
{
    if (progress.acked > pulse->acked)
        pulse_stall(pulse, now_ms, progress);
    return now_ms - pulse->moved_ms;
}
