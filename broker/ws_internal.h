/* What ws.c and the files ws_*.c share.
 *
 *   ws.c              the server: libwebsockets, the listening socket, timers
 *   ws_newcomer.c     a connection until it is a session or was answered: bytes, deadline, answer
 *   ws_admission.c    what becomes of a request: the page, a refusal, a session
 *   ws_stream.c       the bytes between a client and libwebsockets
 *   ws_gate.c         what frames must keep
 *   ws_connection.c   one WebSocket between libwebsockets and its session */
#ifndef BROKER_WS_INTERNAL_H
#define BROKER_WS_INTERNAL_H

#include "base/list.h"
#include "broker/address_limit.h"
#include "broker/config.h"
#include "broker/connect.h"
#include "broker/http_head.h"
#include "broker/loop.h"
#include "broker/lws_loop.h"
#include "broker/route.h"
#include "broker/session.h"
#include "broker/ws.h"

#include <event2/util.h>
#include <libwebsockets.h>
#include <openssl/ssl.h>

#define WS_PROTOCOL_JSON    "switchboard.json.v1"
#define WS_PROTOCOL_MSGPACK "switchboard.msgpack.v1"

struct web_asset;

enum {
    WS_SCRATCH_SIZE = 65536, /* of libwebsockets' buffer, too; and the most that head_limit can be */
    WS_KEY_LEN = 24,         /* of a Sec-WebSocket-Key: 16 bytes in base64 */
};

/* A newcomer is in one of these. */
enum newcomer_list { NEWCOMERS_SILENT, NEWCOMERS_SPEAKING, NEWCOMERS_ANSWERED, NEWCOMERS_LINGERING, NEWCOMER_LISTS };

struct ws_server {
    struct ws_options options;
    struct config *config; /* a reference; options.config is not used after creation */
    struct lws_loop *lws;
    struct lws_vhost *vhost;
    struct listener *listener;
    SSL_CTX *tls;                          /* NULL: plain */
    struct list newcomers[NEWCOMER_LISTS]; /* connections that are no sessions, by when their time is over */
    size_t newcomer_count;
    struct event *newcomer_timer; /* when the first of them has taken too long */
    struct address_limit *addresses;
    struct ws *admitting; /* whose request libwebsockets reads at this moment */
    struct list dirty;    /* connections to be flushed at the end of the turn */
    struct loop_task flush_task;
    struct list quiet;  /* connections by when their next ping is due */
    struct list pinged; /* connections by when their pong is overdue */
    struct list closing; /* connections by when the client's close frame is overdue */
    struct list full_sockets; /* connections whose sockets are full, by when they are looked at */
    struct list assembling;   /* messages that are not complete, by when they must be */
    uint64_t now_ms;          /* monotonic, as of the last tick: within a second */
    size_t kept_at_most;      /* of the budget, as far as ticks saw it since memory was last given back */
    struct event *ping_timer;
    bool full;     /* the last newcomer met max_connections: said once an episode */
    bool crowded;  /* the last newcomer met handshakes_limit: the same */
    bool stopped;
    unsigned char scratch[WS_SCRATCH_SIZE];
};

/* ---- ws_newcomer.c ---- */

/* Takes over a socket that was just accepted. */
void ws_newcomer_accept(struct ws_server *server, int fd, const struct sockaddr *address, socklen_t address_len);

/* Takes over a socket on which all is said: it is read until the client has ended, for a moment at most. */
void ws_newcomer_linger(struct ws_server *server, int fd);

/* Drops whoever has taken too long. */
void ws_newcomers_on_timer(evutil_socket_t fd, short what, void *server);

void ws_newcomers_drop_all(struct ws_server *server);

/* ---- ws_admission.c ---- */

/* What becomes of a request. Everything points into the request's head, into `match`, or is static. */
struct ws_verdict {
    unsigned status; /* 101: it becomes a session */

    /* For all others: the answer. */
    const char *text;               /* one sentence, or NULL for an asset */
    const struct web_asset *asset;  /* the body, unless the status is 304 */
    const char *headers;            /* further lines of the answer's head, each with CR LF; static */
    bool only_head;                 /* the body is not sent */

    /* For a session. */
    struct route_match match;
    enum face face;
    struct slice target, key, agent;
    struct connect_arguments arguments;
};

void ws_admission_judge(struct ws_server *server, const struct http_head *head, struct ws_verdict *verdict);

/* What is answered to a head that is none, or comes too late. */
void ws_admission_refuse(struct ws_server *server, const struct http_problem *problem, struct ws_verdict *verdict);

/* The subprotocol that stands for a face in the answer; NULL for plain. */
const char *ws_admission_subprotocol(enum face face);

/* ---- ws_connection.c: one WebSocket ---- */

/* Makes a session of an admitted request: answers it, by libwebsockets, and opens the session. Takes over `fd`, `tls` and
 * `share` in any case. `early` is what the client sent behind its request; `remote` where it is, as HOST:PORT. */
void ws_connection_start(struct ws_server *server, const struct ws_verdict *verdict, int fd, SSL *tls,
                         struct address_share *share, struct slice early, struct slice remote);

/* libwebsockets' callbacks. What returns int: -1 makes it close the connection. */
int ws_connection_confirm(struct ws_server *server, struct lws *wsi);
int ws_connection_established(struct ws_server *server, struct lws *wsi);
int ws_connection_receive(struct lws *wsi, const void *data, size_t len);
int ws_connection_writable(struct lws *wsi);
void ws_connection_pong(struct lws *wsi, const void *payload, size_t len);
int ws_connection_peer_close(struct lws *wsi, const unsigned char *payload, size_t len);
void ws_connection_closed(struct lws *wsi);
void ws_connection_gone(struct lws *wsi);

enum lws_loop_input ws_connection_input_of(struct lws *wsi);

/* Pings whom it is due, and ends who gave no sign of life, took nothing, or didn't finish a message in time. */
void ws_connections_tick(struct ws_server *server);

/* The configuration has changed: nothing is due later than it says now. */
void ws_connections_reschedule(struct ws_server *server);

void ws_connections_on_flush(struct loop_task *task);

#endif
