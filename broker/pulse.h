/* Whether a client lives, and whether it takes what waits for it: two questions.
 *
 * Silence. A ping carries a number that can't be guessed, and only the pong with that number answers it. Instead of the answer
 * a message counts, and that the client goes on reading what was sent before the ping: then the ping has not reached it yet.
 * Whoever gives none of these signs within the ping's timeout is dead.
 *
 * Stalling. While the client's socket is full, what its kernel acknowledges is progress, and nothing else: not what it sends.
 *
 * Time and what the socket tells are handed in, so this needs neither. */
#ifndef BROKER_PULSE_H
#define BROKER_PULSE_H

#include "broker/socket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PULSE_NONCE_SIZE = sizeof(uint64_t) };

struct pulse {
    uint64_t nonce;    /* of the ping that is out; 0: none */
    uint64_t edge;     /* struct socket_progress's, when it was sent or looked at last */
    uint64_t acked;    /* the same's, at the last look while the socket is full */
    uint64_t moved_ms; /* when that last grew; monotonic */
    bool heard;        /* a message, or a piece of one, came since the ping */
    bool held_back;    /* at some time since the ping, or since it was judged last: see pulse_judge() */
};

enum pulse_verdict {
    PULSE_ALIVE, /* it answered in some way: ping again after the interval */
    PULSE_WAIT,  /* nothing can be told yet: look again after the timeout */
    PULSE_DEAD,
};

/* A ping goes out. */
void pulse_ping(struct pulse *pulse, uint64_t nonce, struct socket_progress progress);

/* Whether a pong answers it. */
bool pulse_pong(struct pulse *pulse, const void *payload, size_t len);

/* The client isn't read for now, or its socket is full: an answer can't come, or the ping not go. */
void pulse_hold_back(struct pulse *pulse);

/* The ping's timeout is over. `held_back`: it is at this moment. One that was has the whole timeout from then on; one whose socket
 * stays full is judged by pulse_still_ms(). */
enum pulse_verdict pulse_judge(struct pulse *pulse, struct socket_progress progress, bool held_back);

/* The client's socket is full from now on. */
void pulse_stall(struct pulse *pulse, uint64_t now_ms, struct socket_progress progress);

/* For how long nothing was acknowledged, as far as it was looked at. */
uint64_t pulse_still_ms(struct pulse *pulse, uint64_t now_ms, struct socket_progress progress);

#endif
