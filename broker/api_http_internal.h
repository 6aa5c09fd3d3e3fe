/* What the server's list of connections and the connections themselves share. */
#ifndef BROKER_API_HTTP_INTERNAL_H
#define BROKER_API_HTTP_INTERNAL_H

#include "base/list.h"
#include "broker/api_http.h"
#include "broker/loop.h"

#include <event2/event_struct.h>

/* A state is a list of its pool, the longest there first; api_conn_enter() changes it. */
enum api_conn_state {
    CONN_FRESH,     /* has said nothing yet */
    CONN_IDLE,      /* between two requests */
    CONN_HEAD,      /* the head comes */
    CONN_BODY,      /* the body comes */
    CONN_SERVED,    /* somebody has it to answer */
    CONN_ANSWERING, /* the answer goes */
    CONN_LINGERING, /* what still comes is dropped, so that the answer isn't lost in a reset */
    CONN_STATES
};

struct api_pool {
    struct list states[CONN_STATES];
    size_t count;
};

struct api_server {
    struct api_server_options options;
    struct api_server_limits limits;
    struct listener *listener;
    struct api_pool regular, surplus;
    size_t memory;             /* in use */
    int spare;                 /* a descriptor for when there is no other; -1: in use */
    struct api_conn *on_spare; /* who uses it; NULL: nobody */
    uint64_t full_logged_ms;   /* monotonic; 0: never */
};

/* What may be wrong with a request behind its head. X(symbol, status, text) */
#define API_PROBLEMS(X)                                                                                      \
    X(PROBLEM_NONE, 0, NULL)                                                                                 \
    X(BODY_CHUNK, 400, "the body's chunks are malformed")                                                    \
    X(BODY_TOO_LARGE, 413, "the body is larger than what is taken here")                                     \
    X(BODY_NO_ROOM, 429, "bodies and answers take all that there is for them (api_memory)")                  \
    X(BODY_NO_MEMORY, 507, "memory is short")                                                                \
    X(REQUEST_TOO_SLOW, 408, "the request was not complete in time (api_timeout)")                           \
    X(REQUEST_CUT, 400, "the request ended before it was complete")

enum api_problem {
#define PROBLEM(symbol, status, text) symbol,
    API_PROBLEMS(PROBLEM)
#undef PROBLEM
};

struct api_body {
    struct buffer bytes;
    size_t max;
    uint64_t left; /* of the body, or of the chunk */
    enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER } part;
    size_t overhead; /* bytes of extensions and trailers */
};

struct api_http {
    struct api_conn *conn;
    struct api_head head;
    struct api_body body;
    struct buffer fields; /* of the answer, each with its CRLF */
    bool close, probe;
    void (*on_gone)(void *data);
    void *gone_data;
    void (*on_sent)(void *data);
    void *sent_data;
    char text[]; /* the head */
};

struct api_conn {
    struct api_server *server;
    struct api_pool *pool;
    struct list link; /* in its pool's list of its state */
    enum api_conn_state state;
    uint64_t since_ms; /* when it entered the state; monotonic */
    evutil_socket_t fd;
    struct event readable, writable, timer;
    struct loop_task task; /* goes on after an answer */
    struct buffer in;
    size_t scanned;                               /* of a head */
    bool skipped;                                 /* an empty line before it */
    struct api_http *http;                        /* from the end of the head until it is answered */
    struct buffer head, body;                     /* of the answer */
    size_t sent, charged, discarded, discard_max; /* bytes */
    bool ended;                                   /* the client says no more */
    bool probed;                                  /* and was asked whether it listens */
    bool close;
    bool broken;  /* nothing can be written any more */
    bool starved; /* of memory */
    bool unread;  /* of the request that was answered something was not read */
    void (*on_sent)(void *data);
    void *sent_data;
};

/* NULL when memory is short: the socket is still the caller's. */
struct api_conn *api_conn_create(struct api_server *server, struct api_pool *pool, evutil_socket_t fd);
void api_conn_destroy(struct api_conn *conn);

/* Reads what is there and does what can be done. False: it is gone. */
bool api_conn_read(struct api_conn *conn);

/* The connection on the spare descriptor has ended. */
void api_server_take_back_spare(struct api_server *server);

/* Memory for bodies and answers. */
bool api_memory_take(struct api_server *server, size_t bytes) __attribute__((warn_unused_result));
void api_memory_give(struct api_server *server, size_t bytes);

/* ---- the body (api_http_body.c) ---- */

/* Begins with what the head says. PROBLEM_NONE, or why it can't be taken. */
enum api_problem api_body_begin(struct api_body *body, const struct api_head *head, size_t max);

/* Takes bytes off `in`; `*done` when nothing more belongs to it. */
enum api_problem api_body_feed(struct api_body *body, struct api_server *server, const struct api_head *head,
                               struct slice *in, bool *done);
void api_body_close(struct api_body *body, struct api_server *server);

#endif
