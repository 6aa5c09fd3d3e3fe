/* How many idempotency keys the storage remembers for this instance. Each costs the storage memory for STORAGE_KEY_LIFE_MS,
 * stored or not, so they are counted, by the minute, and bounded: for one session, for all sessions, and for HTTP callers. */
#ifndef BROKER_KEYS_H
#define BROKER_KEYS_H

#include "storage/storage.h"

#include <stddef.h>
#include <stdint.h>

struct metrics;

/* The minute that is not over yet, and those that a key of it may outlast. */
enum { KEYS_MINUTE_MS = 60000, KEYS_MINUTES = STORAGE_KEY_LIFE_MS / KEYS_MINUTE_MS + 1 };

/* The keys of one who sends; all zero at first. */
struct keys_count {
    uint64_t minute;              /* monotonic; the last one that is counted */
    uint32_t taken[KEYS_MINUTES]; /* in a minute, at its number modulo KEYS_MINUTES */
};

struct keys {
    struct metrics *metrics;
    size_t limit;         /* of all sessions together, and as many again of HTTP callers */
    size_t session_limit; /* of one session */
    struct keys_count sessions, callers;
};

void keys_init(struct keys *keys, struct metrics *metrics, size_t limit, size_t session_limit);
void keys_set_limits(struct keys *keys, size_t limit, size_t session_limit);

/* A message with a key is about to be sent, for a session or (NULL) an HTTP caller: counts it. Otherwise a constant text
 * that says which limit is reached, and nothing is counted: the message is to be refused with ERROR_LIMIT. */
const char *keys_take(struct keys *keys, struct keys_count *session);

/* How many may be alive. */
size_t keys_alive(struct keys_count *count);

#endif
