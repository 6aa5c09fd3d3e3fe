/* Which connection serves which channel or key, and when to connect again.
 *
 * Today there is one server, with one connection for commands and one for subscriptions. Everything that is
 * keyed asks redis_topology_pick() or redis_topology_bus() with its key, so that Sentinel and Cluster need to
 * change nothing but this. Both connections live and die together: half a connection is no storage. */
#ifndef STORAGE_REDIS_TOPOLOGY_H
#define STORAGE_REDIS_TOPOLOGY_H

#include "storage/redis/redis_conn.h"

struct redis_topology_events {
    void (*on_ready)(void *data); /* every connection stands */
    /* They are about to be closed; called once after each start of an attempt that fails or ends. */
    void (*on_down)(void *data);
    void *data;
};

struct redis_topology {
    struct redis_server server;
    char server_text[REDIS_SERVER_TEXT_MAX];
    struct redis_conn commands, subscriptions;
    struct redis_topology_events events;
    uint32_t backoff_max_ms;
    struct event *retry;
    bool active;         /* connections are open or being opened */
    bool stopped;        /* no further attempts */
    bool serving;        /* since redis_topology_serving() */
    unsigned attempts;   /* since it served last */
    unsigned backoffs;   /* since it was stable last: the exponent */
    uint64_t lost_at_ms; /* monotonic */
    char why[200];       /* the last failure that was logged */
};

/* False when memory is short; redis_topology_close() is allowed then too. `server` is taken over. The
 * connections' on_message and on_turn_end come from `commands` and `subscriptions`, with the topology as
 * their data. */
bool redis_topology_init(struct redis_topology *topology, struct event_base *loop,
                         struct redis_server *server, uint32_t timeout_ms, uint32_t backoff_max_ms,
                         const struct redis_topology_events *events, const struct redis_conn_events *commands,
                         const struct redis_conn_events *subscriptions);
void redis_topology_close(struct redis_topology *topology);

/* Names both connections in logs and CLIENT LIST; the names are the caller's. */
void redis_topology_start(struct redis_topology *topology, const char *commands_name,
                          const char *subscriptions_name);

/* Closes the connections; what waits on them calls back with `error`. */
void redis_topology_stop(struct redis_topology *topology, int error);

/* Drops all connections because of `why` and connects again after a pause. Not from inside a request. */
void redis_topology_drop(struct redis_topology *topology, const char *why);

/* As redis_topology_drop(), after `pause_ms` instead of the backoff and without a log line. */
void redis_topology_pause(struct redis_topology *topology, uint32_t pause_ms);

/* Tells that the storage serves now, for the log; and later, that it has been serving well for a while, so
 * that the next outage begins with short pauses again. */
void redis_topology_serving(struct redis_topology *topology, size_t channels);
void redis_topology_stable(struct redis_topology *topology);

static inline struct redis_conn *redis_topology_pick(struct redis_topology *topology, struct slice key)
{
    (void)key;
    return &topology->commands;
}

static inline struct redis_conn *redis_topology_bus(struct redis_topology *topology, struct slice channel)
{
    (void)channel;
    return &topology->subscriptions;
}

#endif
