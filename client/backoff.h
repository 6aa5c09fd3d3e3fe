/* How long to wait before connecting again: docs/protocol.md, Reconnect rule. */
#ifndef CLIENT_BACKOFF_H
#define CLIENT_BACKOFF_H

#include <stdint.h>

enum { BACKOFF_FIRST_MS = 500, BACKOFF_MAX_MS = 20000 };

struct backoff {
    unsigned tries; /* since the last success */
};

/* The delay before the next try: between half and the whole of what is due, as `random` (any number) says. */
unsigned backoff_next(struct backoff *backoff, uint32_t random);

#endif
