/* Storage on Redis 7 or later, shared by all instances. */
#ifndef STORAGE_REDIS_H
#define STORAGE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct storage;

/* Where the server is and how to log in. Read from the URL by whoever has one (the broker's configuration
 * does). */
struct storage_redis_options {
    const char *host; /* TCP: a name or an address; NULL: a unix socket */
    const char *path; /* the unix socket; NULL: TCP */
    uint16_t port;
    const char *username; /* NULL: the default user */
    const char *password; /* NULL: none */
    uint32_t database;
    const char *prefix;      /* before every key and channel; usually "sb:" */
    uint32_t timeout_ms;     /* a command's deadline */
    uint32_t backoff_max_ms; /* the longest pause between two attempts to connect */
    bool always_through_redis; /* messages for this process's own sessions too */
};

/* NULL when memory is short. `base` must outlive it; `options` are copied. Nothing is connected before
 * storage_start(). */
struct storage *storage_redis_create(struct event_base *base, const struct storage_redis_options *options);

#endif
