/* The load generator's parts: connections, the dialects spoken on them, and the run that they are part of.
 *
 * One thread, one epoll. A scenario is written as one function that takes turns of the loop until what it waits for
 * came; the dialects call it back through `struct hooks`. The generator gives up with a message at what it can't go on
 * after (fail()): a measurement is repeated, not repaired. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "base/buffer.h"
#include "bench/histogram.h"
#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load;
struct connection;

enum {
    PORTS_MAX = 16,
    DIALECTS_MAX = 4,
    SERVERS_MAX = 64,
    SLOTS_MAX = 4096, /* messages in flight */
    PAYLOAD_MIN = 16, /* sender, sequence and time, see scenario.h */
    PAYLOAD_MAX = 1 << 20,
    FRAME_ROOM = 14,    /* of a WebSocket header with its mask */
    COMMAND_ROOM = 512, /* what a dialect puts around a payload */
    READ_SIZE = 256 * 1024,
};

enum role {
    ROLE_SUBSCRIBER, /* of topic t<topic> */
    ROLE_PUBLISHER,  /* to it */
    ROLE_SESSION,    /* s<number>, sends and receives */
    ROLE_IDLE,       /* i<number>, or subscriber of topic i<topic>; does nothing */
    ROLE_REQUESTER,
    ROLE_RESPONDER, /* s<number>, answers each request with the request's own payload */
};

enum state { STATE_CLOSED, STATE_CONNECTING, STATE_HANDSHAKE, STATE_OPENING, STATE_READY };

struct dialect {
    const char *name;
    const char *subprotocol; /* NULL: none */
    bool binary;             /* which WebSocket messages the client sends */
    bool stream;             /* what is inside does not keep to WebSocket messages */
    bool addressed;          /* each message names its receiver; otherwise the sender's URL did */
    bool http;               /* no WebSocket at all: requests over HTTP, to the API's ports */
    void (*path)(const struct connection *conn, char *out, size_t size);
    void (*on_open)(struct load *load, struct connection *conn); /* the handshake is done */
    /* Returns how much it took: all of it, unless `stream` or `http`. */
    size_t (*on_data)(struct load *load, struct connection *conn, const char *data, size_t len);
    void (*send)(struct load *load, struct connection *conn, uint32_t target, struct slice payload);
    void (*request)(struct load *load, struct connection *conn, uint32_t target, uint32_t id,
                    struct slice payload); /* NULL: has no requests */
};

struct connection {
    const struct dialect *dialect;
    enum role role;
    enum state state;
    int fd; /* -1: none */
    uint32_t number, topic, target;
    unsigned port;    /* index of options.ports */
    uint32_t request; /* over HTTP: the one in flight */
    uint64_t started; /* ns: when it was opened, or lost */
    bool want_write;
    struct buffer in, stream, out;
};

struct hooks {
    void (*on_ready)(struct load *load, struct connection *conn);
    void (*on_message)(struct load *load, struct connection *conn, struct slice payload);
    /* payload.data NULL: the request failed */
    void (*on_reply)(struct load *load, struct connection *conn, uint32_t id, struct slice payload);
    void (*on_lost)(struct load *load, struct connection *conn);
};

struct options {
    const char *scenario;
    const struct dialect *dialects[DIALECTS_MAX], *responders[DIALECTS_MAX];
    unsigned dialect_count, responder_count;
    uint16_t ports[PORTS_MAX], api_ports[PORTS_MAX];
    unsigned port_count, api_port_count;
    uint32_t sessions; /* subscribers, sessions or connections */
    uint32_t requesters;
    uint32_t idle, idle_topics;
    uint32_t inflight;       /* messages, or connections being made */
    uint32_t payload;        /* bytes */
    uint32_t rate;           /* messages a second; 0: as fast as `inflight` lets */
    double duration, warmup; /* seconds */
    enum {
        TARGET_ANY,
        TARGET_SAME,
        TARGET_OTHER
    } where; /* instance of the receiver, seen from the sender's */
    struct {
        const char *name;
        int pid;
    } servers[SERVERS_MAX]; /* whose CPU time is measured; several may share a name */
    unsigned server_count;
};

struct violations {
    uint64_t gaps;    /* messages that a later one of the same sender overtook, or that never came */
    uint64_t late;    /* came twice, or after a later one */
    uint64_t missing; /* had not come when nothing came any more */
    uint64_t wrong;   /* not what was sent, or not for this receiver */
    uint64_t failed;  /* requests that were answered with an error */
    uint64_t lost;    /* connections that the server closed */
    bool stalled;     /* nothing came for seconds */
};

struct load {
    struct options options;
    const struct hooks *hooks;
    void *scenario; /* the scenario's own state */
    int epoll;
    uint64_t epoch; /* ns of the monotonic clock: where the times in messages begin */
    uint64_t now;   /* ns since then, when the data in hand was read */
    uint64_t random;
    struct connection *connections;
    uint32_t count;
    uint32_t ready;              /* connections in STATE_READY */
    uint32_t next, end, pending; /* still to open are [next, end); pending are on the way */
    uint64_t others;             /* messages that are no deliveries: greetings, acknowledgements */
    struct violations violations;
    struct histogram latency, lateness, connecting;
    char *filler;  /* `payload` bytes, what each message ends like */
    char *scratch; /* the frame being written */
    char *received;
};

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t load_now(const struct load *load); /* ns since the epoch */
uint32_t load_random(struct load *load, uint32_t below);

/* One turn of the loop: waits until something came or `until` (ns since the epoch) has passed. */
void load_turn(struct load *load, uint64_t until);

/* ---- connections */

void connection_open(struct load *load, struct connection *conn);
void connection_close(struct load *load, struct connection *conn);
void connection_ready(struct load *load,
                      struct connection *conn); /* for dialects: what was to be set up is confirmed */

/* A frame is written into frame_room() and sent from there. */
char *frame_room(struct load *load);
void frame_send(struct load *load, struct connection *conn, size_t len);
void frame_print(struct load *load, struct connection *conn, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void connection_write(struct load *load, struct connection *conn, const char *data, size_t len);

/* ---- dialects */

const struct dialect *dialect_find(const char *name); /* NULL: none of that name */

extern const struct dialect dialect_plain, dialect_json, dialect_msgpack, dialect_http;
extern const struct dialect dialect_nats, dialect_mqtt, dialect_socketio;

#endif
