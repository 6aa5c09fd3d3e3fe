/* Connections rather than messages: many at once, many idle, and many that lost their broker. */
#include "bench/scenario.h"

#include "base/alloc.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static const struct hooks counting = {hook_ready, hook_message, hook_reply, hook_lost};

/* As many as `sessions` says, `inflight` at a time. The window lasts until the servers rest again, so that registering
 * behind the handshake counts too; "ready_seconds" until the last client was ready. */
json_t *scenario_connect(struct load *load)
{
    struct window window;
    const struct options *options = &load->options;
    load->hooks = &counting;
    struct connection *sessions =
        connections_add(load, ROLE_SESSION, options->sessions, options->dialects, options->dialect_count);
    for (uint32_t i = 0; i < options->sessions; i++) {
        sessions[i].target = i;
    }
    servers_settle(load);
    window_open(load, &window, 0);
    connections_open(load, sessions, options->sessions, options->inflight);
    double ready = (double)(load_now(load) - window.start) / 1e9;
    servers_settle(load);
    window_close(load, &window, options->sessions);
    json_t *result = window_json(load, &window);
    json_object_set_new(result, "ready_seconds", json_real(ready));
    json_object_set_new(result, "rate", json_real((double)options->sessions / ready));
    return result;
}

/* Tells who runs it that all is set up, which then lets it go on with a line. */
static void announce(const char *what)
{
    printf("{\"event\": \"%s\"}\n", what);
    fflush(stdout);
}

/* Holds `idle` connections until a line, or the end, comes on standard input. */
json_t *scenario_idle(struct load *load)
{
    struct window window;
    load->hooks = &counting;
    struct connection *idle = connections_add_idle(load);
    connections_open(load, idle, load->options.idle, 64);
    servers_settle(load);
    announce("ready");
    window_open(load, &window, 0);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (poll(&input, 1, 0) == 0) {
        load_turn(load, load_now(load) + seconds_ns(0.2));
    }
    window_close(load, &window, load->options.idle);
    return window_json(load, &window);
}

/* ---- reconnect storm */

struct storm {
    struct connection **lost; /* a ring of those to open again */
    uint32_t first, count, size;
    bool opened;     /* all had been ready */
    uint64_t began;  /* ns: the first loss after that; 0: none */
    uint32_t ever;   /* connections lost */
    uint32_t doomed; /* connections to the first port, which all will be */
};

/* A connection's `request` tells that it is being opened again. */
static void storm_ready(struct load *load, struct connection *conn)
{
    const struct storm *storm = load->scenario;
    if (!storm->opened) {
        hook_ready(load, conn);
        return;
    }
    load->pending--;
    conn->request = 0;
    histogram_add(&load->latency, load_now(load) - conn->started);
}

static void storm_lost(struct load *load, struct connection *conn)
{
    struct storm *storm = load->scenario;
    if (!storm->opened) {
        hook_lost(load, conn);
        return;
    }
    if (conn->request) {
        load->pending--;
        conn->request = 0;
    } else {
        conn->started = load_now(load);
        storm->began = storm->began ? storm->began : conn->started;
        storm->ever++;
    }
    conn->port = (conn->port + 1) % load->options.port_count;
    storm->lost[(storm->first + storm->count++) % storm->size] = conn;
}

static void storm_reopen(struct load *load, struct storm *storm)
{
    for (uint32_t left = storm->count; left > 0 && load->pending < load->options.inflight; left--) {
        struct connection *conn = storm->lost[storm->first];
        storm->first = (storm->first + 1) % storm->size;
        storm->count--;
        load->pending++;
        conn->request = 1;
        connection_open(load, conn);
    }
}

/* Announces "ready", expects the server of the first port to be killed then, and brings every client back on the next port. Latency is the time
 * from each one's loss until it was registered again. */
json_t *scenario_storm(struct load *load)
{
    static const struct hooks hooks = {storm_ready, hook_message, hook_reply, storm_lost};
    const struct options *options = &load->options;
    struct storm storm = {.size = options->sessions,
                          .lost = mem_calloc(options->sessions, sizeof *storm.lost)};
    struct window window;
    if (!storm.lost) {
        fail("out of memory");
    }
    load->hooks = &hooks;
    load->scenario = &storm;
    struct connection *sessions =
        connections_add(load, ROLE_SESSION, options->sessions, options->dialects, options->dialect_count);
    for (uint32_t i = 0; i < options->sessions; i++) {
        sessions[i].target = i;
        storm.doomed += sessions[i].port == 0;
    }
    connections_open(load, sessions, options->sessions, 64);
    servers_settle(load);
    storm.opened = true;
    window_open(load, &window, 0);
    announce("ready");
    uint64_t deadline = load_now(load) + seconds_ns(60);
    while ((storm.ever < storm.doomed || load->ready < options->sessions) && load_now(load) < deadline) {
        storm_reopen(load, &storm);
        load_turn(load, load_now(load) + seconds_ns(storm.count > 0 ? 0.001 : 0.5));
    }
    double back = (double)(load_now(load) - storm.began) / 1e9;
    load->violations.missing = options->sessions - load->ready;
    servers_settle(load);
    window_close(load, &window, storm.ever);
    json_t *result = window_json(load, &window);
    json_object_set_new(result, "ready_seconds", json_real(back));
    mem_free(storm.lost);
    return result;
}
