/* What ws.c and the files ws_*.c share. */
#ifndef BROKER_WS_INTERNAL_H
#define BROKER_WS_INTERNAL_H

#include "base/list.h"
#include "broker/config.h"
#include "broker/connect.h"
#include "broker/loop.h"
#include "broker/lws_loop.h"
#include "broker/route.h"
#include "broker/session.h"
#include "broker/ws.h"

#include <libwebsockets.h>

#define WS_PROTOCOL_JSON    "switchboard.json.v1"
#define WS_PROTOCOL_MSGPACK "switchboard.msgpack.v1"

enum {
    ARGUMENT_MAX = 1024,     /* of one argument of a query */
    WS_HEADER_MAX = 4096,    /* of all headers of a request, and of its first line */
    WS_SCRATCH_SIZE = 65536, /* of libwebsockets' buffer, too */
    WS_EARLY_DATA_MAX = 2048 /* an answer to an upgrade begins and ends well within */
};

/* See ws_early_data.c. */
struct ws_early_data {
    unsigned char *buffer;    /* libwebsockets'; NULL until known */
    int probe_fd, probe_peer; /* 0: none */
    unsigned char saved[WS_EARLY_DATA_MAX];
};

struct ws_server {
    struct ws_options options;
    struct config *config; /* a reference; options.config is not used after creation */
    struct lws_loop *lws;
    struct lws_vhost *vhost;
    struct listener *listener;
    struct list newcomers; /* connections that are no sessions yet, the oldest first */
    size_t newcomer_count;
    bool crowded;      /* the last newcomer pushed another one out: said once an episode */
    struct list dirty; /* connections to be flushed at the end of the turn */
    struct loop_task flush_task;
    struct list quiet;  /* connections by when their next ping is due */
    struct list pinged; /* connections by when their pong is overdue */
    struct event *ping_timer;
    struct frame *ping_frame;
    struct lws *upgrading;    /* whose upgrade was confirmed last */
    struct route_match route; /* and what its path matched */
    bool full; /* the last newcomer met max_connections: said once an episode */
    struct ws_early_data early;
    unsigned char scratch[WS_SCRATCH_SIZE];
};

/* ---- ws_early_data.c: what a client sent right behind its request ---- */

bool ws_early_data_start(struct ws_server *server); /* false: logged */
void ws_early_data_close(struct ws_server *server);
bool ws_early_data_is_probe(const struct ws_server *server, struct lws *wsi);
void ws_early_data_learn(struct ws_server *server, const struct lws_process_html_args *room);
void ws_early_data_save(struct ws_server *server);    /* before the answer to an upgrade is built */
void ws_early_data_restore(struct ws_server *server); /* once it was sent */

/* The opaque data of each wsi that came from the listener: part of a struct ws_head until its upgrade, of a struct ws
 * from then on. */
struct ws_peer {
    bool is_session;
};

/* ---- ws_head.c: a connection until it becomes a session ---- */

/* Takes over a socket that was just accepted. */
void ws_head_accept(struct ws_server *server, int fd, const struct sockaddr *address, socklen_t address_len);

enum lws_loop_input ws_head_on_input(struct lws *wsi);

/* The target of the request that is being handled, as the client sent it; {NULL, 0} when only libwebsockets read it. */
struct slice ws_head_target(struct lws *wsi);
void ws_head_forget_target(struct lws *wsi); /* the connection goes on to another request */

/* Where the client is, as of listener_format(). */
size_t ws_head_address(struct lws *wsi, char *out, size_t size);

/* The connection has become a session, or is gone. No-op when this was said before. */
void ws_head_close(struct lws *wsi);

/* ---- ws_connection.c: one WebSocket ---- */

/* The upgrade was answered: a session begins. -1: libwebsockets is to close the connection. */
int ws_connection_open(struct ws_server *server, struct lws *wsi);
int ws_connection_receive(struct lws *wsi, const void *data, size_t len);
int ws_connection_writable(struct lws *wsi);
void ws_connection_pong(struct lws *wsi);

/* -1: libwebsockets is to close the connection. */
int ws_connection_peer_close(struct lws *wsi, const unsigned char *payload, size_t len);
void ws_connection_closed(struct lws *wsi);

/* Pings whom it is due, and closes whose pong is overdue. */
void ws_connections_tick(struct ws_server *server);

/* The configuration has changed: no ping and no pong is due later than it says now. */
void ws_connections_reschedule_pings(struct ws_server *server);

void ws_connections_on_flush(struct loop_task *task);

/* ---- ws_http.c: everything before the upgrade ---- */

/* A request without upgrade: the page, or an error. What libwebsockets' callback returns. */
int ws_http_request(struct ws_server *server, struct lws *wsi, const char *path);

/* Whether an upgrade may go on: 0 yes, 1 a refusal was sent. */
int ws_http_confirm_upgrade(struct ws_server *server, struct lws *wsi);

/* The face that the handshake agreed on. */
enum face ws_http_face(struct lws *wsi);

/* An argument of the query, as of target_argument(). */
const char *ws_http_argument(struct lws *wsi, const char *name, char out[static ARGUMENT_MAX],
                             struct slice *value);

#endif
