/* What scenarios share: the stamp that every message carries, what is known of messages sent and received, and the
 * measured window. */
#ifndef BENCH_SCENARIO_H
#define BENCH_SCENARIO_H

#include "bench/load.h"

#include <jansson.h>

/* The first PAYLOAD_MIN bytes of each payload, in letters and digits that no dialect has to escape. */
struct stamp {
    uint32_t sender;   /* below SENDERS_MAX */
    uint32_t sequence; /* of this sender to this receiver, from 0; or SEQUENCE_PROBE */
    uint64_t time;     /* ns since load.epoch: when it was, or in an open loop should have been, sent */
};

enum { SENDERS_MAX = 1 << 18, SEQUENCE_PROBE = (1 << 30) - 1 };

/* The payload that bears the stamp; lives until the next call. */
struct slice stamp_payload(struct load *load, struct stamp stamp);

/* False when it isn't a payload of this run; what the server says of its own is counted in load.others then, what is ours
 * but damaged in violations.wrong. */
bool stamp_read(struct load *load, struct slice payload, struct stamp *stamp);

/* Notes that `sequence` came where `*next` was expected. False: it came before. */
bool sequence_check(struct load *load, uint32_t *next, uint32_t sequence);

/* ---- connections */

/* Appends `count` connections of a role, spread over the ports; returns the first. All are to be added before the first is
 * connected. */
struct connection *connections_add(struct load *load, enum role role, uint32_t count,
                                   const struct dialect *const *dialects, unsigned dialect_count);
struct connection *connections_add_idle(struct load *load); /* options.idle of them */

/* Opens them, at most `at_once` at a time, and returns when all are ready. */
void connections_open(struct load *load, struct connection *first, uint32_t count, uint32_t at_once);
void connections_close(struct load *load);

void hook_ready(struct load *load, struct connection *conn); /* hooks of a scenario that only counts */
void hook_lost(struct load *load, struct connection *conn);
void hook_message(struct load *load, struct connection *conn, struct slice payload);
void hook_reply(struct load *load, struct connection *conn, uint32_t id, struct slice payload);

/* ---- time */

static inline uint64_t seconds_ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

struct window {
    uint64_t start, end;     /* ns since the epoch */
    double cpu[SERVERS_MAX]; /* seconds that each server used in it */
    double generator;        /* likewise, the generator itself */
    uint64_t operations;     /* what happened in it */
};

void window_open(struct load *load, struct window *window, uint64_t operations); /* operations up to now */
void window_close(struct load *load, struct window *window, uint64_t operations);

/* Returns when the servers have had next to nothing to do for some time: what they do behind the clients' backs is done. */
void servers_settle(struct load *load);

/* Takes turns until `*count` reaches `goal` or has not grown for some seconds, which is a violation. */
void drain(struct load *load, const uint64_t *count, uint64_t goal);

/* {"seconds", "operations", "rate", "cpu": {NAME: seconds}, "cpu_us": all servers' per operation, ...} */
json_t *window_json(const struct load *load, const struct window *window);

/* ---- the scenarios: each returns what is particular to it, an object that the caller owns */

json_t *scenario_fanout(struct load *load);
json_t *scenario_unicast(struct load *load); /* paced, where options.rate is set */
json_t *scenario_request(struct load *load);
json_t *scenario_connect(struct load *load);
json_t *scenario_idle(struct load *load);
json_t *scenario_storm(struct load *load);

#endif
