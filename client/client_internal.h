/* What the parts of libswitchboard share.
 *
 *     client.c        life, connection, reconnect          command.c  swb_begin_…(): what a call says
 *     call.c          queue, sending, deadlines, results   reply.c    what the broker answered
 *     subscription.c  subscriptions and positions          push.c     what the broker says by itself
 *     request.c       requests to this session             blocking.c the blocking face
 *
 * Callbacks of the user are run only from the loop, between client_enter() and client_leave(), and from
 * swb_client_destroy(). Each may destroy the client: then `doomed` is set, all lists are empty, and client_leave()
 * frees the structure. */
#ifndef CLIENT_CLIENT_INTERNAL_H
#define CLIENT_CLIENT_INTERNAL_H

#include "base/buffer.h"
#include "base/list.h"
#include "base/map.h"
#include "client/backoff.h"
#include "client/switchboard.h"
#include "client/url.h"
#include "client/ws_client.h"
#include "proto/slice.h"

#include <jansson.h>

struct event;

enum {
    REPLY_GRACE_MS = 2000
}; /* how long after a request's deadline the broker's own word on it is awaited */

/* The last stored message of an address that was handled. */
struct position {
    bool known;
    char *epoch, *offset; /* owned; both NULL when known: there was none yet */
};

bool position_set(struct position *position, const char *epoch,
                  const char *offset); /* NULLs: there is none */
void position_close(struct position *position);

enum call_kind {
    CALL_SEND,
    CALL_REQUEST,
    CALL_SUBSCRIBE,
    CALL_UNSUBSCRIBE,
    CALL_HISTORY,
    CALL_PRESENCE,
    CALL_ONLINE,
    CALL_PING,
    CALL_REPLY,    /* to a request to this session */
    CALL_POSITION, /* history, to learn where an address stands */
};

/* One command on its way. It is in `queue` until it is sent, then in `sent` (and in `open` under its id) until its reply
 * came, in `ending` when its result is about to be told. */
struct call {
    struct list link;
    struct map_node node;
    struct swb_client *client;
    uint64_t id;
    enum call_kind kind;
    bool repeatable; /* sending it twice does no harm */
    bool sent;
    bool counted;      /* among max_calls */
    uint64_t deadline; /* monotonic ms; UINT64_MAX: none */
    struct buffer
        body; /* the command's members behind the id, written as `,"cmd":…`; empty for CALL_SUBSCRIBE */
    struct subscription *sub; /* CALL_SUBSCRIBE and its CALL_POSITION; NULL: the session's own address */
    int error;                /* in `ending`: how it ended */
    swb_on_result *on_result;
    void *data;
};

struct subscription {
    struct list link;
    struct swb_client *client;
    char *topic; /* owned */
    bool pattern, presence, events, recovery;
    bool since;     /* the caller gave a position */
    bool confirmed; /* at least once */
    struct position position;
    struct call *call; /* the subscribe on its way, or NULL */
};

struct swb_client {
    struct swb_options options; /* its strings are owned */
    struct ws_shared own_shared;
    struct ws_shared *shared;    /* usually own_shared */
    struct event_base *own_base; /* made by swb_open(), or NULL */
    struct url url;
    bool has_url;
    bool wanted; /* a connection is there or to come */
    bool moved;  /* the URL is new: connect there at once */
    enum swb_state state;
    struct ws_client *ws;
    struct event *timer;    /* connecting again; while connecting: it takes too long */
    struct event *deadline; /* of calls: fires no later than the first */
    uint64_t deadline_at;   /* monotonic ms; UINT64_MAX: not armed */
    struct event *stopper;  /* on stop_fd */
    int stop_fd;            /* an eventfd, written by swb_client_stop() */
    struct backoff backoff;
    json_t *hello_root; /* owns hello's strings */
    struct swb_hello hello;
    unsigned hint;  /* the delay of a disconnect push; */
    bool hinted;    /* it came on this connection, */
    bool hint_stop; /* and said not to reconnect */
    bool bad_frame; /* the broker sent what is no frame, and was closed on */

    struct list queue, sent, ending; /* struct call */
    struct map open;
    size_t call_count, queue_bytes;
    uint64_t last_id;
    struct buffer frame; /* scratch: the frame being written */

    struct list subscriptions;
    struct position own; /* of hello.address */

    struct list requests; /* struct swb_request, given to the handler */
    swb_on_request *handler;
    void *handler_data;

    char *problem; /* of the last blocking call; owned or NULL */
    unsigned busy;
    bool doomed;
};

/* client.c */
void client_enter(struct swb_client *client);
void client_leave(struct swb_client *client); /* may free the client */
void client_hello(struct swb_client *client, json_t *root);
void client_bad_frame(struct swb_client *client, const char *what); /* gives this connection up */

/* The same client, but with name resolution and TLS shared with others. */
struct swb_client *client_create_shared(struct ws_shared *shared, const struct swb_options *options);

/* call.c */
/* NULL when the client can't take it; `*error` then says why. timeout 0: call_timeout. */
struct call *call_create(struct swb_client *client, enum call_kind kind, unsigned timeout,
                         swb_on_result *on_result, void *data, int *error);
struct call *call_create_internal(struct swb_client *client, enum call_kind kind);
int call_submit(struct call *call);               /* takes the call over, also when it fails */
void call_requeue(struct call *call, bool first); /* a call in no list waits (again) to be sent */
void call_end(struct call *call, const struct swb_result *result); /* tells the result, frees the call */
void call_fail(struct call *call, int error);
void call_end_soon(struct call *call, int error); /* from the loop */
void call_destroy(struct call *call);             /* without a result */
void calls_flush(struct swb_client *client);
struct call *calls_take(struct swb_client *client, uint64_t id); /* unlinked; NULL: unknown id */
void calls_lost(struct swb_client *client);                      /* the connection is gone */
void calls_fail_all(struct swb_client *client, int error);
void calls_on_deadline(struct swb_client *client);

/* command.c */
bool write_payload(struct buffer *out,
                   const struct swb_payload *payload); /* false: SWB_BAD_REQUEST or out->failed */

/* reply.c */
void reply_handle(struct swb_client *client, json_t *root, struct slice text);

/* Reads a message's fields; the payload goes to `storage`, to which `message` points. False: it is none. */
bool read_message(json_t *root, struct slice text, struct swb_message *message, struct buffer *storage);
bool read_payload(json_t *root, struct slice text, struct swb_payload *payload, struct buffer *storage);
const char *json_text(json_t *root, const char *key); /* NULL: missing, or no text without NULs */
uint64_t json_number(json_t *root, const char *key);  /* 0: missing, or no number that is not negative */

/* push.c */
void frame_handle(struct swb_client *client, struct slice text);

/* subscription.c */
void subscription_write(const struct subscription *sub, struct buffer *out);
void subscription_reply(struct call *call, const struct swb_result *result);
void subscription_position(struct call *call, const struct swb_result *result); /* of CALL_POSITION */
void subscription_destroy(struct subscription *sub);
void subscriptions_restore(struct swb_client *client); /* after hello */
void subscriptions_note(struct swb_client *client, const struct swb_message *message);

/* request.c */
void request_arrived(struct swb_client *client, json_t *root, struct slice text);
void request_cancel(struct swb_client *client, const char *id);
void requests_cancel_all(struct swb_client *client);
void requests_orphan(struct swb_client *client); /* the client goes, the requests stay with the user */

#endif
