#include "storage/redis/redis_topology.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/errors.h"

#include <event2/event.h>
#include <event2/util.h>
#include <stdio.h>
#include <string.h>

enum { BACKOFF_FIRST_MS = 50, BACKOFF_DOUBLINGS = 16 };

static void retry_in(struct redis_topology *topology, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};

    event_add(topology->retry, &tv);
}

/* Half of the pause is left to chance, so that the instances don't all come at once. */
static uint64_t backoff(struct redis_topology *topology)
{
    unsigned doublings = topology->backoffs++;
    uint64_t pause = (uint64_t)BACKOFF_FIRST_MS
                     << (doublings < BACKOFF_DOUBLINGS ? doublings : BACKOFF_DOUBLINGS);
    uint16_t chance;

    if (pause > topology->backoff_max_ms)
        pause = topology->backoff_max_ms;
    evutil_secure_rng_get_bytes(&chance, sizeof chance);
    return pause / 2 + pause / 2 * chance / UINT16_MAX + 1;
}

/* An episode is logged when it begins, when its reason changes, and at its 10th, 100th, … attempt. */
static void report(struct redis_topology *topology, const char *why)
{
    unsigned power = 1;

    while (power * 10 <= topology->attempts)
        power *= 10;
    if (topology->serving) {
        log_warn("redis lost", log_str("server", topology->server_text), log_str("why", why));
        topology->lost_at_ms = clock_monotonic_ms();
        topology->attempts = 0;
    } else if (strcmp(topology->why, why) != 0 || topology->attempts == power) {
        log_warn("redis reconnecting", log_str("server", topology->server_text), log_str("why", why),
                 log_int("attempts", topology->attempts),
                 log_int("down_ms", (int64_t)(clock_monotonic_ms() - topology->lost_at_ms)));
    }
    snprintf(topology->why, sizeof topology->why, "%s", why);
    topology->serving = false;
}

static void shut(struct redis_topology *topology, int error)
{
    topology->active = false;
    topology->events.on_down(topology->events.data);
    redis_conn_close(&topology->commands, error);
    redis_conn_close(&topology->subscriptions, error);
}

void redis_topology_drop(struct redis_topology *topology, const char *why)
{
    if (!topology->active)
        return;
    report(topology, why);
    shut(topology, ERROR_UNAVAILABLE);
    if (!topology->stopped)
        retry_in(topology, backoff(topology));
}

void redis_topology_pause(struct redis_topology *topology, uint32_t pause_ms)
{
    if (!topology->active)
        return;
    shut(topology, ERROR_UNAVAILABLE);
    if (!topology->stopped)
        retry_in(topology, pause_ms);
}

static void on_conn_down(void *data, const char *why)
{
    redis_topology_drop(data, why);
}

static void on_conn_ready(void *data)
{
    struct redis_topology *topology = data;

    if (topology->commands.state == REDIS_CONN_READY && topology->subscriptions.state == REDIS_CONN_READY)
        topology->events.on_ready(topology->events.data);
}

static void on_retry(evutil_socket_t fd, short what, void *data)
{
    struct redis_topology *topology = data;

    (void)fd, (void)what;
    if (topology->stopped)
        return;
    topology->active = true;
    topology->attempts++;
    redis_conn_open(&topology->commands);
    redis_conn_open(&topology->subscriptions);
}

static void ignore_turn(void *data)
{
    (void)data;
}

/* The connections report to the topology; the rest of their events go where the storage wants them. */
static bool conn_init(struct redis_topology *topology, struct redis_conn *conn, struct event_base *loop,
                      uint32_t timeout_ms, const struct redis_conn_events *given)
{
    struct redis_conn_events events = *given;

    events.on_ready = on_conn_ready;
    events.on_down = on_conn_down;
    events.data = topology;
    if (!events.on_turn_end)
        events.on_turn_end = ignore_turn;
    return redis_conn_init(conn, loop, &topology->server, "", timeout_ms, &events);
}

bool redis_topology_init(struct redis_topology *topology, struct event_base *loop,
                         struct redis_server *server, uint32_t timeout_ms, uint32_t backoff_max_ms,
                         const struct redis_topology_events *events, const struct redis_conn_events *commands,
                         const struct redis_conn_events *subscriptions)
{
    *topology = (struct redis_topology){
        .server = *server, .events = *events, .backoff_max_ms = backoff_max_ms, .stopped = true};
    *server = (struct redis_server){0};
    redis_server_text(&topology->server, topology->server_text);
    topology->retry = evtimer_new(loop, on_retry, topology);
    bool first = conn_init(topology, &topology->commands, loop, timeout_ms, commands);
    bool second = conn_init(topology, &topology->subscriptions, loop, timeout_ms, subscriptions);
    return first && second && topology->retry;
}

void redis_topology_close(struct redis_topology *topology)
{
    redis_conn_destroy(&topology->commands);
    redis_conn_destroy(&topology->subscriptions);
    if (topology->retry)
        event_free(topology->retry);
    redis_server_close(&topology->server);
}

void redis_topology_start(struct redis_topology *topology, const char *commands_name,
                          const char *subscriptions_name)
{
    topology->commands.name = commands_name;
    topology->subscriptions.name = subscriptions_name;
    topology->stopped = false;
    topology->lost_at_ms = clock_monotonic_ms();
    retry_in(topology, 0);
}

void redis_topology_stop(struct redis_topology *topology, int error)
{
    topology->stopped = true;
    if (topology->retry)
        event_del(topology->retry);
    if (topology->active)
        shut(topology, error);
}

void redis_topology_serving(struct redis_topology *topology, size_t channels)
{
    log_info("redis connected", log_str("server", topology->server_text),
             log_int("attempts", topology->attempts), log_int("channels", (int64_t)channels),
             log_int("took_ms", (int64_t)(clock_monotonic_ms() - topology->lost_at_ms)));
    topology->serving = true;
    topology->attempts = 0;
    topology->why[0] = '\0';
}

void redis_topology_stable(struct redis_topology *topology)
{
    topology->backoffs = 0;
}
