/* The HTTP/1.1 server below the API: connections, requests and answers, each of them bounded in number, bytes and time.
 *
 * Whoever serves is asked twice about a request: at its head, before one byte of its body is kept, and when the body is there.
 * It may answer at once or later, but once. Beyond the bound for connections, and when no descriptor is left, newcomers are still
 * read for a moment, marked as surplus: enough to be asked how one is. */
#ifndef BROKER_API_HTTP_H
#define BROKER_API_HTTP_H

#include "base/buffer.h"
#include "broker/api_head.h"

#include <event2/util.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_http; /* a request and its answer */
struct api_server;
struct loop;
struct metrics;

struct api_server_limits {
    size_t connections;
    size_t head;         /* bytes, of one */
    size_t memory;       /* bytes, of all bodies and answers together */
    uint64_t timeout_ms; /* for a whole request, and again to take its answer */
    uint64_t idle_ms;    /* of a connection between requests */
};

/* Each is called with the request still unanswered; the head and the body stay valid until it is answered. */
struct api_server_ops {
    /* The head is here. Answers, or says how long the body may be. */
    void (*on_head)(void *data, struct api_http *http, size_t *body_max);
    void (*on_request)(void *data, struct api_http *http); /* the body is here, too */
    /* Answers with what is wrong. The request may have no more than this. */
    void (*on_problem)(void *data, struct api_http *http, const struct http_problem *problem);
};

struct api_server_options {
    struct loop *loop;
    const char *address; /* NULL: none, api_server_take() alone brings connections */
    struct metrics *metrics;
    struct api_server_limits limits;
    const struct api_server_ops *ops;
    void *data;
};

/* NULL on failure (logged). */
struct api_server *api_server_create(const struct api_server_options *options);
void api_server_destroy(struct api_server *server); /* drops what is open */
const char *api_server_address(const struct api_server *server);
void api_server_set_limits(struct api_server *server, const struct api_server_limits *limits);

/* Serves on a connected, non-blocking socket, which is the server's from here on. */
void api_server_take(struct api_server *server, evutil_socket_t fd);

size_t api_server_connections(const struct api_server *server); /* the surplus ones included */
size_t api_server_memory(const struct api_server *server);

/* ---- a request ---- */

const struct api_head *api_http_head(const struct api_http *http);
struct slice api_http_body(const struct api_http *http);
void api_http_drop_body(struct api_http *http); /* frees its memory; nothing may point there */
bool api_http_is_surplus(const struct api_http *http);

/* `on_gone` is called when the connection is lost before the answer; the request is gone when it returns. With `probe` a client
 * that says no more is asked whether it still listens: for what may take long. */
void api_http_watch(struct api_http *http, bool probe, void (*on_gone)(void *data), void *data);

/* ---- its answer ---- */

void api_http_add_field(struct api_http *http, const char *name, const char *value);
void api_http_close_after(struct api_http *http); /* the connection ends with the answer */

/* Called when the answer was handed to the network, or can't be. */
void api_http_on_sent(struct api_http *http, void (*on_sent)(void *data), void *data);

/* Whether an answer so large may wait for its taker now; if not, say so instead. */
bool api_http_has_room(const struct api_http *http, size_t len);

/* Sends it; takes what `body` holds, and leaves it empty. A HEAD gets its length only. Nothing may be done with `http` afterwards. */
void api_http_answer(struct api_http *http, int status, const char *phrase, const char *type,
                     struct buffer *body);

#endif
