/* Storage on Redis 7 or later, shared by all instances. */
#ifndef STORAGE_REDIS_H
#define STORAGE_REDIS_H

#include <stddef.h>
#include <stdint.h>

struct event_base;
struct storage;

struct storage_redis_options {
    const char *url;         /* redis://[user:pass@]host[:port][/db] or unix://path[?db=N] */
    const char *prefix;      /* before every key and channel; usually "sb:" */
    uint32_t timeout_ms;     /* a command's deadline */
    uint32_t backoff_max_ms; /* the longest pause between two attempts to connect */
};

/* NULL when the URL is bad or memory is short; `error` then says why. `base` must outlive it; `options` are copied. Nothing
 * is connected before storage_start(). */
struct storage *storage_redis_create(struct event_base *base, const struct storage_redis_options *options, char *error,
                                     size_t error_size);

#endif
