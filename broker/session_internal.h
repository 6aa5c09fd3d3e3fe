/* What the session*.c files share; nobody else includes this.
 *
 *   sessions.c          the set of all: counts, the pool of operations, outages, ending many
 *   session.c           one session: its strings and parts, opening
 *   session_life.c      registering, coming online, leaving
 *   session_deliver.c   from the bus to the client: messages, takeover, requests
 *   session_intake.c    what the client sends, carried out by turns
 *   session_route.c     from a plain client: what its route does with a message
 *   session_command.c   from a structured client: the commands
 *   session_read.c      and those that read: history, presence
 *   session_memory.c    what is kept for a session, and ending those for which it is too much
 *   session_topic.c     topics: subscribe, unsubscribe
 *   session_recover.c   stored messages that were missed
 *   session_request.c   requests asked by the session, and requests it is to answer */
#ifndef BROKER_SESSION_INTERNAL_H
#define BROKER_SESSION_INTERNAL_H

#include "base/buffer.h"
#include "base/log.h"
#include "broker/budget.h"
#include "broker/keys.h"
#include "broker/loop.h"
#include "broker/offenders.h"
#include "broker/outbox.h"
#include "broker/reads.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "broker/session.h"
#include "proto/address.h"
#include "proto/command.h"
#include "storage/storage.h"

enum {
    CLOSE_REASON_MAX = 123, /* what a close frame has room for: RFC 6455 section 5.5 */
    SCRIPT_COST = 4,        /* what counts for so many messages in flight: a script at the storage */
    WAIT_OWN = 1,           /* the subscription of the session's own channel */
    WAIT_GROUP = 2,         /* and of the address it shares */
    WAIT_REGISTER = 4,      /* the registry's answer */
    WAIT_NOTICE = 8,        /* the takeover notice */
};

enum session_state { SESSION_REGISTERING, SESSION_ONLINE, SESSION_LEAVING, SESSION_STATE_COUNT };

/* Why a feed recovers, and so how the client is told what came of it. */
enum recover_cause { RECOVER_HELLO, RECOVER_SUBSCRIBE, RECOVER_OUTAGE };

/* How far a feed got in the history of its address, and a recovery that is under way. */
struct feed_memory {
    struct feed *feed;
    struct read read; /* waits for its turn while `reading` */
    char epoch[EPOCH_MAX + 1], offset[OFFSET_MAX + 1]; /* of the last stored message delivered; empty: none */
    struct storage_request request;                    /* open while `reading` */
    struct list held;                                  /* live messages that wait until it has recovered */
    size_t held_bytes;
    bool begun;      /* feed_recover() was called */
    bool recovering; /* live messages are held */
    bool reading;
    bool waiting;    /* for the outbox to drain */
    bool announced;  /* the client was told whether anything is missing */
    int64_t command; /* the subscribe that waits for its answer; 0: no answer is wanted */
    enum recover_cause cause;
};

/* Something a session receives from: its own channel, the address it shares, a topic or a pattern. */
struct feed {
    struct subscriber subscriber;
    struct session *session;
    struct feed_memory *memory; /* owned; NULL until it received a stored message or recovers */
};

/* A message that came too early to be delivered. */
struct held_message {
    struct list link;
    struct feed *feed;
    struct message *message; /* a reference */
};

/* A topic or pattern that a structured session subscribed to. */
struct subscription {
    struct feed feed;
    struct list link;            /* in session->extra->subscriptions; alone when dropped */
    struct storage_request join; /* open while `joining` */
    bool joining;
    bool pattern, presence, events;
    bool since;      /* recover before going live */
    bool confirmed;  /* the subscription works */
    bool dropped;    /* only waits for the storage to let go of it */
    int64_t command; /* the subscribe that waits for its answer */
    size_t topic_len;
    char topic[];
};

/* A request that this session is to answer; or that a plain one answered, in case the answer comes back as too late. */
struct asked {
    struct list link;     /* in extra->asked or extra->answered */
    uint64_t deadline_ms; /* monotonic; of an answered one, when it is forgotten */
    size_t id_len, from_len;
    char text[]; /* id, from */
};

/* A request that this session asked. */
struct asking {
    struct list link;
    struct session *session;
    struct request *request;
    int64_t command;
};

/* What only structured sessions, and plain ones that are asked or recover, have. */
struct session_extra {
    struct list subscriptions; /* struct subscription */
    size_t subscription_count, pattern_count; /* patterns are counted in both */
    struct list asked, answered, asking;
    size_t asked_count, answered_count, asking_count;
    struct reader reader; /* of what recovers, and of what the client reads */
    size_t reading_count; /* the client's reads that wait or are open */
    uint64_t request_count;
    struct keys_count keys;
    char close_reason[CLOSE_REASON_MAX + 1]; /* an operator's; empty: the code's name */
};

struct session {
    struct list link; /* in sessions->states[state], or in sessions->restoring while ONLINE */
    struct sessions *sessions;
    struct session_transport *transport; /* NULL once the connection is gone */
    struct config *config;               /* a reference */
    struct route_params *params;         /* owned */
    struct feed own, group;
    struct outbox outbox;
    struct budget_holder holder;
    size_t unsent_bytes, assembly_bytes; /* what the transport keeps for it */
    size_t held_bytes; /* of the messages in `pending`, in the memories of its feeds and in `input` */
    struct storage_request registry; /* open while `asking` */
    struct session_extra *extra;     /* owned; NULL until needed */
    uint64_t connected_at_ms;
    size_t inflight_bytes;
    uint32_t inflight;   /* messages handed to the bus, not answered yet; some count for more */
    uint32_t ops;        /* operations that point here */
    struct list queue;   /* in sessions->resting, in sessions->crowded, or alone */
    struct list input;   /* struct input: what was received and is not carried out yet */
    size_t turn_bytes;   /* carried out in the turn of that number */
    uint32_t turn_commands, turn;
    struct list pending; /* struct held_message: what came while REGISTERING */
    size_t pending_bytes;
    uint32_t pending_count;
    uint32_t before_notice; /* how many of them came before the takeover notice */
    uint16_t close_code;
    uint16_t name_len, remote_len, agent_len;
    uint8_t conn_len;
    uint8_t state; /* enum session_state */
    uint8_t waits; /* WAIT_…: what is missing until it is online */
    uint8_t face;
    bool exclusive : 1;
    bool succeeds : 1;   /* the registry says that somebody held the name before */
    bool asking : 1;     /* the registry request is open */
    bool registered : 1; /* the registry may hold it: set when asked, cleared when told to forget */
    bool restore_again : 1;
    bool reading : 1;    /* what its transport was told */
    bool paused : 1;     /* nothing is carried out because too much is in flight */
    bool crowded : 1;    /* in sessions->crowded */
    bool complained : 1; /* a failed or absent message was logged; cleared by one that arrived */
    bool wants_room : 1; /* a recovery waits for the outbox to drain */
    bool opened : 1;     /* it was online, so it counts when it closes */
    bool greeted : 1;    /* the client knows that it is online; until then what comes for it waits in `pending` */
    bool outage : 1; /* the storage was lost since it came online, and what was missed is not recovered yet */
    char strings[];  /* name, conn, remote, agent */
};

struct sessions {
    struct sessions_options options;
    struct list states[SESSION_STATE_COUNT];
    struct list restoring; /* ONLINE, to be registered anew */
    struct list ended;     /* LEAVING, to be torn down at the end of the turn */
    struct list resting; /* ONLINE, their turn was used up: by turns */
    struct list crowded; /* ONLINE, `paused` because all together have too much in flight */
    size_t resting_count;
    struct loop_task turn_task;
    size_t inflight; /* of all */
    struct list op_pool;
    size_t op_pool_count;
    size_t online, total;
    size_t restores_open;
    struct offenders offenders;
    struct loop_task teardown_task, restore_task;
    struct event *retry;                   /* for those whom the registry did not forget */
    struct buffer address, payload, frame; /* scratch */
    char conn_prefix[12];
    uint64_t conn_count;
};

/* A question to the storage for a session: a message on its way to the bus, or a command that waits for its answer. Holds the
 * session in memory until op_free(). */
struct session_op {
    struct storage_request request;
    struct list pool_link;
    struct session *session;
    struct frame *reply; /* owned; sent to the client when the message was handed on; NULL: none */
    size_t cost, bytes; /* what it counts for while it is in flight */
    int64_t command;    /* the id to answer; 0: none */
    char *kept;         /* owned: a plain session's answer, `bytes` long; NULL: none */
    enum message_content kept_content;
};

/* ---- sessions.c ---- */

void session_set_state(struct session *session, enum session_state state);

/* Errors after which the storage reports when it is back, and all is told to it again. */
bool session_is_outage(int error);

void session_restore_later(struct session *session); /* registers it anew */
void sessions_retry_later(
    struct sessions *sessions); /* tells the registry once more to forget those that left */

struct session_op *session_op_create(struct session *session); /* NULL when memory is short */
void session_op_free(struct session_op *op);                   /* may free the session */

/* ---- session.c ---- */

/* The longest start of `text` that is whole characters and fits `max` bytes. */
size_t session_cut_text(struct slice text, size_t max);

struct slice session_remote(const struct session *session);
struct slice session_agent(const struct session *session);
void session_free(struct session *session);

/* Frees the session when nothing holds it any more. */
void session_maybe_free(struct session *session);

/* The extra part, made on first use; NULL when memory is short. */
struct session_extra *session_extra(struct session *session);

/* "session:NAME"; returns the length. */
size_t session_address(const struct session *session, char out[static ADDRESS_MAX + 1]);

/* The address that the route gave it. False for anonymous sessions. Points into a scratch buffer. */
bool session_route_address(struct session *session, struct address *address, struct slice *text);

struct storage_session session_storage_view(struct session *session);

/* Sets what session_close_reason() says; NULL leaves it. */
void session_set_close_reason(struct session *session, const char *reason);

/* ---- session_life.c ---- */

/* Asks the registry to hold the session; false, and the session ends, when memory is short. */
bool session_register(struct session *session, bool restore,
                      void (*on_done)(struct storage_request *, int, const struct storage_result *))
    __attribute__((warn_unused_result));

/* Tells the registry to forget the session, if it may hold it and isn't being asked about it already. */
void session_leave_registry(struct session *session);

void session_on_own_subscribed(struct subscriber *subscriber, int error);
void session_on_group_subscribed(struct subscriber *subscriber, int error);
void sessions_on_teardown(struct loop_task *task);

/* Online when nothing is waited for any more. */
void session_maybe_online(struct session *session);

/* The client knows that it is online: from now on it is read, and gets what waited for it. */
void session_greet(struct session *session);

static inline struct log_field log_slice(const char *key, struct slice value)
{
    return log_bytes(key, value.data, value.len);
}

/* ---- session_deliver.c ---- */

void feed_init(struct feed *feed, struct session *session,
               void (*on_subscribed)(struct subscriber *subscriber, int error));

/* Queues a frame to the client; a client that is over its limit is cut. */
void session_push(struct session *session, struct frame *frame);
/* Whose sender was not bound by this broker's limits: an operator, or another broker. */
void session_log_oversized(struct session *session, const struct message_fields *fields);

void session_push_message(struct session *session, struct message *message);

/* A message for an online session that is not to be held any more. */
void session_take(struct feed *feed, struct message *message);

/* ---- session_memory.c ---- */

/* Keeps a message for later; false when memory is short or the client's limit is reached, and then the session ends. */
bool held_append(struct list *list, size_t *bytes, struct feed *feed, struct message *message);
void held_drop(struct list *list, size_t count); /* the first `count` */

/* Charges what is kept for a session alone, BUDGET_INPUT. */
void session_hold(struct session *session, enum budget_kind kind, size_t bytes);
void session_release(struct session *session, enum budget_kind kind, size_t bytes);

extern const struct budget_ops session_budget_ops;

/* ---- session_intake.c ---- */

/* Whether a command may be carried out now; each that is, is charged. */
bool session_has_turn(const struct session *session);
void session_charge_turn(struct session *session, size_t bytes);

/* Reads from the client, or waits, as things stand. */
void session_settle(struct session *session);

/* Counts something as in flight, or as answered; what the client sends waits and goes on by that. */
void session_inflight_begin(struct session *session, size_t cost, size_t bytes);
void session_inflight_end(struct session *session, size_t cost, size_t bytes);

void session_leave_queue(struct session *session);
void session_drop_input(struct session *session); /* not while it is carried out */
void sessions_on_turn(struct loop_task *task);

/* ---- session_route.c ---- */

void session_receive_plain(struct session *session, enum message_content content, struct slice payload);

/* What the route does with a message that answers nothing. */
void session_act(struct session *session, enum message_content content, struct slice payload);

/* ---- session_command.c ---- */

/* Carries commands out while the session has its turn; returns how many bytes are dealt with. */
size_t session_receive_frames(struct session *session, enum message_content content, struct slice payload);

/* The address in a field; false, and the error is sent, when it isn't one. */
bool session_read_address(struct session *session, const struct command *command, const char *field,
                          struct slice value, struct address *address);

/* What came of a recovery, for the client; NULL stands for "there was none". */
struct recovery_outcome {
    bool recovered;
    struct slice epoch, offset; /* the newest stored message's; empty: none */
};

void session_push_hello(struct session *session, const struct recovery_outcome *outcome);
void session_push_recovered(struct session *session, const struct feed *feed,
                            const struct recovery_outcome *outcome);
void session_push_disconnect(struct session *session, int code);

/* Answers a subscribe. */
void session_subscribed(struct session *session, const struct subscription *subscription,
                        const struct recovery_outcome *outcome);

struct writer;

/* Begins a frame in the scratch buffer; session_frame_end() sends it. A client whose frame memory is too short for is
 * disconnected: it can come back, but it can't wait for an answer that never comes. */
void session_frame_begin(struct session *session, struct writer *writer);
void session_frame_end(struct session *session, struct writer *writer);

/* Begins {"id":…,"ok":{…}} with `count` fields to follow; session_ok_end() closes and sends it. Nothing may be written when the
 * client wants no answer (id 0): false. */
bool session_ok_begin(struct session *session, struct writer *writer, int64_t id, size_t count);
void session_ok_end(struct session *session, struct writer *writer);
void session_ok_empty(struct session *session, int64_t id);

/* Answers with an error; `text` NULL: the list's own. */
void session_error(struct session *session, int64_t id, int code, struct slice text);

/* Closes with 4500 for what can't be a frame. */
void session_refuse_frame(struct session *session, const char *why);

/* An operator's order, a MESSAGE_CONTROL. */
void session_order(struct session *session, const struct message *message);

/* ---- session_read.c ---- */

void session_read_history(struct session *session, const struct command *command);
void session_read_presence(struct session *session, const struct command *command);
void session_read_online(struct session *session, const struct command *command);

/* How many bytes of stored messages are asked for at a time. */
size_t session_read_size(const struct session *session);

/* Whether an answer of so many bytes may be asked for; otherwise the session goes on when its outbox has drained. */
bool session_has_room(struct session *session, size_t bytes);

/* ---- session_topic.c ---- */

void session_subscribe(struct session *session, const struct command *command);
void session_unsubscribe(struct session *session, const struct command *command);
void session_topics_rejoin(struct session *session); /* the registry lost the presence */
void session_topics_drop(struct session *session); /* the session is leaving; not from a router's callback */
void subscription_fail(struct subscription *subscription, int code);
void subscription_maybe_free(struct subscription *subscription);
struct subscription *subscription_of(struct feed *feed); /* NULL when it is the session's own feed */

/* ---- session_recover.c ---- */

/* A record of storage_history() as a message; `to` is left empty. The slices are the record's. */
void session_history_fields(const struct storage_record *record, struct message_fields *fields);

/* The place to go on from; made on first use. False when memory is short. */
bool feed_remember(struct feed *feed, struct slice epoch, struct slice offset);

/* Holds the feed's live messages from now on, until feed_recover() is through. */
void feed_hold(struct feed *feed);

/* Reads what was stored after the remembered place, tells the client whether that is all, delivers it, then what was held. */
void feed_recover(struct feed *feed, enum recover_cause cause, int64_t command);

/* Whether a live message is taken care of already: held, or a double of one that was recovered. Remembers how far the feed got. */
bool feed_absorb(struct feed *feed, struct message *message);

/* The address a feed receives from, as text in `out` or a scratch buffer. */
struct slice feed_address(const struct feed *feed, char out[static ADDRESS_MAX + 1]);

/* Forgets all of it; the feed's request must not be open. */
void feed_close(struct feed *feed);

void session_recover_hold(struct session *session);     /* the storage was lost */
void session_recover_start(struct session *session);    /* it is back, and the session registered */
void session_recover_continue(struct session *session); /* the outbox has drained */
void session_recover_forget(struct session *session);   /* the session ends: what is held back is dropped */

/* ---- session_request.c ---- */

void session_ask(struct session *session, const struct command *command, const struct address *to);
void session_reply(struct session *session, const struct command *command);
void session_asked(struct session *session, struct message *message);
void session_answer_returned(struct session *session, const struct message *message); /* a MESSAGE_LATE */
void session_asked_cancelled(struct session *session, struct message *message);

/* A plain client's message answers the oldest open request, if there is one. */
bool session_answer_next(struct session *session, enum message_content content, struct slice payload);

/* Tells the bus that `session` is gone, to whoever waits for its answer, and forgets what it asked. */
void session_requests_drop(struct session *session);
void session_requests_gone(struct session *session);

#endif
