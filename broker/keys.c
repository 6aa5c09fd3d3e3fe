#include "broker/keys.h"

#include "base/clock.h"
#include "broker/metrics.h"

#include <string.h>

void keys_init(struct keys *keys, struct metrics *metrics, size_t limit, size_t session_limit)
{
    *keys = (struct keys){.metrics = metrics, .limit = limit, .session_limit = session_limit};
}

void keys_set_limits(struct keys *keys, size_t limit, size_t session_limit)
{
    keys->limit = limit;
    keys->session_limit = session_limit;
}

/* Forgets the minutes whose keys are gone. */
static void advance(struct keys_count *count)
{
    uint64_t now = clock_monotonic_ms() / KEYS_MINUTE_MS;

    if (now - count->minute >= KEYS_MINUTES) {
        memset(count->taken, 0, sizeof count->taken);
        count->minute = now;
    }
    while (count->minute < now)
        count->taken[++count->minute % KEYS_MINUTES] = 0;
}

size_t keys_alive(struct keys_count *count)
{
    size_t sum = 0;

    advance(count);
    for (size_t i = 0; i < KEYS_MINUTES; i++)
        sum += count->taken[i];
    return sum;
}

static void add(struct keys_count *count)
{
    count->taken[count->minute % KEYS_MINUTES]++;
}

const char *keys_take(struct keys *keys, struct keys_count *session)
{
    struct keys_count *all = session ? &keys->sessions : &keys->callers;

    if (session && keys_alive(session) >= keys->session_limit) {
        keys->metrics->keys_refused++;
        return "too many idempotency keys within five minutes (session_keys)";
    }
    if (keys_alive(all) >= keys->limit) {
        keys->metrics->keys_refused++;
        return "too many idempotency keys within five minutes (keys_limit)";
    }
    if (session)
        add(session);
    add(all);
    return NULL;
}
