/* libswitchboard: a client of the Switchboard message broker (docs/protocol.md), over WebSocket.
 *
 * Two faces on one client:
 *
 * - Non-blocking, on the caller's libevent base: swb_client_create(), swb_client_connect(), swb_begin_…().
 *   Everything happens on the thread that runs the base; only swb_client_stop() may be called from elsewhere.
 * - Blocking: swb_open(), swb_client_request(), swb_client_send(), swb_client_publish(), swb_close(). The client
 *   runs a base of its own inside these calls; it may be used by any thread, by one at a time.
 *
 * Strings are UTF-8 and NUL-terminated. What a callback is given lives until the callback returns; what a function
 * is given is copied. Callbacks may call anything here, swb_client_destroy() included (but not swb_close()). Times are
 * milliseconds since 1970-01-01 UTC, durations are milliseconds.
 *
 * The library starts no thread, takes no lock, writes nothing to standard error and installs no signal handler. As
 * every program with sockets, one with this library should ignore SIGPIPE. */
#ifndef SWITCHBOARD_H
#define SWITCHBOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_base;
struct swb_client;
struct swb_request;

/* ---- errors -------------------------------------------------------------------------------------------- */

/* How a call ended. Those below 900 are the broker's (docs/protocol.md, Errors), the others come from here. */
enum swb_error {
    SWB_OK = 0,
    SWB_BAD_REQUEST = 400,     /* an argument or a field is missing, malformed or out of range */
    SWB_UNAUTHORIZED = 401,    /* valid credentials are required */
    SWB_FORBIDDEN = 403,       /* the credentials do not allow this */
    SWB_ABSENT = 404,          /* nobody holds this address */
    SWB_UNKNOWN_COMMAND = 405, /* the broker is older than this library */
    SWB_CONFLICT = 409,        /* the name or id is in use */
    SWB_GONE = 410,            /* the other side disconnected before it answered */
    SWB_TOO_LARGE = 413,       /* larger than the broker's limit */
    SWB_REFUSED = 422,         /* the other side refused to answer */
    SWB_LIMIT = 429,           /* a limit of the broker is reached */
    SWB_INTERNAL = 500,        /* an internal error */
    SWB_UNAVAILABLE = 503,     /* the broker's storage is out of reach */
    SWB_TIMEOUT = 504,         /* no answer before the deadline */
    SWB_NO_MEMORY = 507,       /* memory is short, here or there */
    SWB_OFFLINE = 901,         /* not connected before the deadline: it was never sent */
    SWB_LOST = 902,            /* sent, but the connection was lost before the answer: it may have happened */
    SWB_QUEUE_FULL = 903,      /* max_calls or max_queue_bytes is reached: it was not taken */
    SWB_CANCELLED = 904,       /* the client was stopped or destroyed, or the subscription ended */
};

/* The name for machines ("absent", "queue_full"; "unknown" for a code that isn't in the list) and a sentence for
 * people. Constants, never NULL. */
const char *swb_error_name(int error);
const char *swb_error_text(int error);

/* ---- messages ------------------------------------------------------------------------------------------ */

enum swb_kind {
    SWB_TEXT,   /* UTF-8 */
    SWB_BINARY, /* any bytes */
    SWB_JSON,   /* UTF-8, one JSON value */
};

/* A message's payload. What the library hands out has a NUL after its last byte, which `len` does not count. */
struct swb_payload {
    enum swb_kind kind;
    const void *data; /* may be NULL when len is 0 */
    size_t len;       /* bytes */
};

/* A payload of a NUL-terminated text, of bytes, of a JSON value's text. */
struct swb_payload swb_text(const char *text);
struct swb_payload swb_binary(const void *data, size_t len);
struct swb_payload swb_json(const char *json);

struct swb_message {
    const char *to;     /* the address it was sent to: "session:…", "user:…" or "topic:…" */
    const char *from;   /* the sender's address; NULL when it is no session */
    uint64_t time;      /* when it was sent */
    const char *epoch;  /* where it stands in the address's history; NULL when it was not stored */
    const char *offset; /* "; compare offsets for equality only */
    struct swb_payload payload;
};

/* ---- the client's life --------------------------------------------------------------------------------- */

enum swb_state {
    SWB_CONNECTING, /* a connection is being made */
    SWB_ONLINE,     /* hello came: what is sent to this session from now on reaches it */
    SWB_DOWN,       /* no connection; `reconnect` says whether another is made by itself */
    SWB_STOPPED,    /* after swb_client_stop(): nothing happens any more */
};

/* What the broker said first; see docs/protocol.md, hello. */
struct swb_hello {
    const char *session; /* others reach it at "session:" + this */
    const char *conn;
    const char *address; /* NULL for anonymous sessions */
    const char *instance;
    const char *version;
    uint64_t time;
    unsigned ping_interval, ping_timeout;
    struct {
        size_t message, name;
        unsigned subscriptions, requests, timeout;
    } limits;
};

struct swb_status {
    enum swb_state state;
    const struct swb_hello *hello; /* only when online */
    /* Only when down: */
    int close_code;     /* of the WebSocket; 0 when there was none (refused, lost, silent) */
    int http_status;    /* when the handshake was refused with one; else 0 */
    const char *reason; /* for people, never NULL */
    bool reconnect;     /* another connection will be tried, */
    unsigned delay;     /* after this long */
};

/* How a subscription, or the session's own address, came through an interruption. */
struct swb_recovery {
    const char *address;
    bool recovered; /* false: messages may be missing */
    int error;      /* SWB_OK, or why a topic could not be subscribed again: that subscription is over */
    const char *text;
};

struct swb_presence_event {
    bool joined; /* false: left */
    const char *topic;
    const char *session;
    const char *user; /* NULL for sessions without one */
};

/* Initialise with SWB_OPTIONS, then set what should differ; zero and NULL mean the default. */
struct swb_options {
    size_t size;         /* of this structure; SWB_OPTIONS sets it */
    const char *token;   /* sent as a bearer token in the handshake */
    const char *ca_file; /* PEM: what wss:// trusts instead of the system's certificates */
    const char *agent;   /* the User-Agent header; default "libswitchboard/VERSION" */

    bool no_reconnect; /* stay down after the connection is lost or could not be made */
    bool no_recovery;  /* do not ask for messages of the own address that were missed */
    bool insecure;     /* wss:// without verifying certificate and host name; for tests */
    unsigned
        connect_timeout;    /* for resolving, connecting, TLS, handshake and hello together; default 10,000 */
    unsigned call_timeout;  /* for calls without one of their own; default 10,000 */
    unsigned max_calls;     /* that wait to be sent or answered; default 4,096 */
    size_t max_queue_bytes; /* of calls that wait to be sent; default 8 MiB */
    size_t max_message;     /* largest message received, in bytes; default 16 MiB */

    void *data; /* given to the callbacks below, each of which may be NULL */
    void (*on_state)(struct swb_client *client, const struct swb_status *status, void *data);
    void (*on_message)(struct swb_client *client, const struct swb_message *message, void *data);
    void (*on_recovery)(struct swb_client *client, const struct swb_recovery *recovery, void *data);
    void (*on_presence)(struct swb_client *client, const struct swb_presence_event *event, void *data);
};

/* clang-format off */
#define SWB_OPTIONS {.size = sizeof(struct swb_options)}
/* clang-format on */

/* A client that is not connected yet. `base` is borrowed and must outlive it; as long as the client exists,
 * event_base_dispatch() does not return for want of events. NULL when memory or file descriptors are short, when `options`
 * (NULL: all defaults) has no size, or when its token or agent holds control characters. */
struct swb_client *swb_client_create(struct event_base *base, const struct swb_options *options);

/* Begins to connect to a ws:// or wss:// URL, and keeps connected: see SWB_DOWN. Any route serves; without a path,
 * /connect is meant. NULL: the environment's SWITCHBOARD_URL. While connected, or about to reconnect, it drops that
 * connection first. SWB_BAD_REQUEST when the URL is none, SWB_CANCELLED after a stop, SWB_NO_MEMORY. */
int swb_client_connect(struct swb_client *client, const char *url);

/* Ends the client in good order: closes the connection, and all pending calls end as SWB_CANCELLED. Returns at once;
 * on_state reports SWB_STOPPED, from the thread that runs the base, after which the client can only be destroyed. It
 * may be called from any thread and from a signal handler, any number of times, as long as the client exists. */
void swb_client_stop(struct swb_client *client);

/* Frees the client, on the thread of its base (or while no thread runs it). Pending calls end as SWB_CANCELLED before
 * this returns; no callback comes afterwards. A connection that is still open is dropped: stop first where the broker
 * should be told. NULL is allowed. */
void swb_client_destroy(struct swb_client *client);

enum swb_state swb_client_state(const struct swb_client *client); /* SWB_DOWN before the first connect */

/* Of the connection, or of the last one; NULL before the first. Valid until the next connection's. */
const struct swb_hello *swb_client_hello(const struct swb_client *client);

/* ---- calls --------------------------------------------------------------------------------------------- */

/* Each swb_begin_…() has exactly one result. When it returns SWB_OK, that comes through the callback, later, from the
 * base's loop. When it returns anything else, the call was not taken and the callback is never run: SWB_BAD_REQUEST
 * (text that is not UTF-8, JSON that is none, …), SWB_QUEUE_FULL, SWB_NO_MEMORY, SWB_OFFLINE (down, and no reconnect to
 * come), SWB_CANCELLED (stopped).
 *
 * A call made while offline waits for the connection until its deadline, in order with others. When the connection is
 * lost under a call that was sent, the call is repeated if that can not do harm (queries, subscriptions, sends with a
 * key), else it ends as SWB_LOST. A NULL callback is allowed; for send and publish it saves the broker's answer. */

enum swb_receipt {
    SWB_NO_RECEIPT,
    SWB_DELIVERED, /* an instance that holds the address took it */
    SWB_STORED,    /* nobody holds it now, but it is kept */
    SWB_NOBODY,    /* nobody holds it, nothing was kept */
};

struct swb_present {
    const char *session;
    const char *user; /* NULL for sessions without one */
};

struct swb_result {
    int error;                  /* SWB_OK or an enum swb_error; then only `text` means something */
    const char *text;           /* for people, never NULL; the broker's where it gave one */
    enum swb_receipt receipt;   /* send, publish */
    const char *epoch, *offset; /* send, publish: of the stored message; history and subscribe with recovery:
                                          of the newest stored; else NULL */
    bool recovered;             /* subscribe with recovery: nothing is missing */
    struct swb_message reply;   /* request: `from` and `payload` */
    const struct swb_message *messages; /* history */
    size_t message_count;
    bool online;                       /* presence */
    uint64_t count;                    /* presence, online: the whole number */
    const struct swb_present *present; /* presence: at most 1,000 */
    size_t present_count;
    uint64_t time; /* ping: the broker's */
};

typedef void swb_on_result(struct swb_client *client, const struct swb_result *result, void *data);

struct swb_send_options {
    bool store;   /* keep the message in the address's history */
    uint64_t ttl; /* how long the stored message is worth keeping; 0: as long as the history */
    const char
        *key; /* idempotency key, 1 to 64 bytes: repeated within 5 minutes by the same user, or without one by a session
               * of the same name, it is not delivered again */
    unsigned timeout; /* 0: call_timeout */
};

/* Sends to "session:NAME", "user:UID" or "topic:NAME". `options` may be NULL. */
int swb_begin_send(struct swb_client *client, const char *address, struct swb_payload payload,
                   const struct swb_send_options *options, swb_on_result *on_result, void *data);

/* The same to a topic, given by its name alone. */
int swb_begin_publish(struct swb_client *client, const char *topic, struct swb_payload payload,
                      const struct swb_send_options *options, swb_on_result *on_result, void *data);

/* Asks a session, or a user: whichever session answers first. `timeout` (0: 5,000) covers the wait for a connection
 * too. */
int swb_begin_request(struct swb_client *client, const char *address, struct swb_payload payload,
                      unsigned timeout, swb_on_result *on_result, void *data);

struct swb_subscribe_options {
    const char *epoch, *offset; /* recover what came after this; both or none */
    bool everything;            /* recover all that is kept */
    bool presence;              /* appear in the topic's presence; not for patterns */
    bool events;                /* report join and leave to on_presence; not for patterns */
    bool no_recovery;           /* after an interruption go on with live messages only */
};

/* Subscribes to a topic or a pattern ("orders.*", "orders.>"). Once confirmed, the subscription lasts until it is
 * unsubscribed or the client ends: after each reconnect it is made anew and on_recovery tells how that went. Unless
 * no_recovery is set, stored messages of a topic that were missed are delivered then, in order and once: the position
 * is known from the beginning on, so none is missed. Patterns can't be recovered. The same topic again replaces the
 * former subscription. `options` may be NULL. */
int swb_begin_subscribe(struct swb_client *client, const char *topic,
                        const struct swb_subscribe_options *options, swb_on_result *on_result, void *data);

/* After its result no message of the subscription comes. Unsubscribing what is not subscribed is no error. */
int swb_begin_unsubscribe(struct swb_client *client, const char *topic, swb_on_result *on_result, void *data);

struct swb_history_options {
    const char *since; /* an offset: only messages after it (with reverse: before it) */
    unsigned limit;    /* 0: 100; at most 1,000 */
    bool reverse;      /* newest first */
};

/* The stored messages of an address; fewer than `limit` also when they would not fit. `options` may be NULL. */
int swb_begin_history(struct swb_client *client, const char *address,
                      const struct swb_history_options *options, swb_on_result *on_result, void *data);

int swb_begin_presence(struct swb_client *client, const char *address, swb_on_result *on_result, void *data);
int swb_begin_online(struct swb_client *client, swb_on_result *on_result, void *data);
int swb_begin_ping(struct swb_client *client, swb_on_result *on_result, void *data);

/* ---- answering requests -------------------------------------------------------------------------------- */

/* `request` must be given back by exactly one swb_request_reply() or swb_request_refuse(), now or later. */
typedef void swb_on_request(struct swb_client *client, struct swb_request *request, void *data);

/* From now on requests to this session go to `handler`; NULL (as at first): they are refused. */
void swb_client_serve(struct swb_client *client, swb_on_request *handler, void *data);

/* What was asked, and by whom. Valid until the request is given back. */
const struct swb_message *swb_request_message(const struct swb_request *request);
unsigned
swb_request_timeout(const struct swb_request *request); /* how long the asker waits, from its arrival on */

/* Nobody waits for the answer any more (the deadline passed, the connection or the client is gone). The request must be
 * given back all the same. */
bool swb_request_cancelled(const struct swb_request *request);

/* Called once when that happens before the request is given back. */
void swb_request_on_cancel(struct swb_request *request,
                           void (*on_cancel)(struct swb_request *request, void *data), void *data);

/* Answers, or says no and why, and frees the request (even when it fails). SWB_GONE: it was cancelled. SWB_BAD_REQUEST:
 * the payload can't be sent; the asker is told of a refusal. SWB_NO_MEMORY: the asker runs into its timeout. */
int swb_request_reply(struct swb_request *request, struct swb_payload payload);
int swb_request_refuse(struct swb_request *request, const char *why);

/* ---- the blocking face --------------------------------------------------------------------------------- */

/* Connects and waits until the session is online, at most 10 seconds. The client reconnects by itself, but only inside
 * the calls below: between them it can't even answer pings, so after a long pause the next call connects anew.
 * `url` as for swb_client_connect(). SWB_OK: `*client` is to be closed by swb_close(). SWB_OFFLINE: no connection. */
int swb_open(const char *url, struct swb_client **client);

/* The same with options; its callbacks are run inside the calls below. */
int swb_open_with(const char *url, const struct swb_options *options, struct swb_client **client);

/* A reply, or what is received otherwise, in memory of its own. */
struct swb_reply {
    struct swb_payload payload;
    char *from; /* the address of the one who answered; NULL when unknown */
};

void swb_reply_free(struct swb_reply *reply); /* NULL is allowed */

/* Asks a session or user and waits for its answer. SWB_OK: `*reply` (may be NULL: not wanted) is to be released by
 * swb_reply_free(). Everything else, SWB_BAD_REQUEST for clients that swb_open() did not make included: it is empty. */
int swb_client_request(struct swb_client *client, const char *address, struct swb_payload payload,
                       unsigned timeout, struct swb_reply *reply);

/* Sends and waits for the receipt (may be NULL: not wanted). That nobody was there is no error: it is SWB_NOBODY. */
int swb_client_send(struct swb_client *client, const char *address, struct swb_payload payload,
                    const struct swb_send_options *options, enum swb_receipt *receipt);
int swb_client_publish(struct swb_client *client, const char *topic, struct swb_payload payload,
                       const struct swb_send_options *options, enum swb_receipt *receipt);

/* Why the last blocking call of this client failed, for people. Never NULL; valid until the next call. */
const char *swb_client_problem(const struct swb_client *client);

/* Says goodbye to the broker, waiting for it at most a second, and frees the client. NULL is allowed. */
void swb_close(struct swb_client *client);

#ifdef __cplusplus
}
#endif

#endif
