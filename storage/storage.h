/* Storage: the bus between instances and the registry of who is connected. Everything is asynchronous.
 *
 * The broker knows only this header; storage/redis/ and storage/memory/ implement it. Rules for every
 * implementation:
 *
 * - A request calls back exactly once: with its result, with ERROR_TIMEOUT at its deadline, with
 * ERROR_UNAVAILABLE as soon as the storage is known to be out of reach (at once while it is), with
 * ERROR_CANCELLED when the storage is destroyed. Never from inside the call that made it. Its struct stays
 * the caller's and must live until then.
 * - Bytes given in are copied before the call returns; bytes given out live until the callback returns.
 * - Requests on one channel take effect in the order made. A request's callback may make further requests.
 * - Channels are as proto/address.h writes them ("user:{admin}"), without the storage's prefix. */
#ifndef STORAGE_STORAGE_H
#define STORAGE_STORAGE_H

#include "base/list.h"
#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct storage;
struct storage_session;

/* ---- requests ---- */

/* One name and value of a record; both as the registry holds them. */
struct storage_field {
    struct slice name, value;
};

/* A session, an instance or a user's session, as rows of text (design.md, "Redis: a public interface"). */
struct storage_record {
    struct slice key; /* the session's name or the instance's id */
    const struct storage_field *fields;
    size_t field_count;
};

struct storage_result {
    int64_t number; /* what each call below says */
    const struct storage_record *records;
    size_t record_count;
    struct slice cursor;        /* lists and history: where to go on; empty at the end */
    struct slice offset, epoch; /* history: see there */
    bool repeated;              /* storage_publish_with(): the key was known */
    struct slice why; /* may come with an error: the limit that was reached, or what the storage says */
};

struct storage_request {
    /* `error` is 0 or from proto/errors.h; `result` is never NULL, and after an error empty but for `why`. */
    void (*on_done)(struct storage_request *request, int error, const struct storage_result *result);
    struct list link; /* the storage's, until on_done */
};

/* ---- what the storage tells the broker ---- */

enum storage_state {
    STORAGE_DOWN, /* requests answer ERROR_UNAVAILABLE; what is published meanwhile may be missed */
    STORAGE_UP,   /* reachable, and every subscription that was held is confirmed again */
};

struct storage_events {
    /* A message on a subscribed channel, or on this instance's own ("instance:{ID}") or "control". */
    void (*on_message)(void *data, struct slice channel, struct slice bytes);

    /* A message on a topic's channel that `patterns` match: all of those subscribed here, each as given to
     * storage_subscribe_pattern(), or on Redis those that begin with a wildcard and the others apart. None may be
     * unsubscribed from inside. */
    void (*on_pattern_message)(void *data, struct slice channel, const struct slice *patterns, size_t count,
                               struct slice bytes);

    /* A message on a channel that was unsubscribed while it was on its way: whoever sent it was told that it was
     * received. May be NULL. */
    void (*on_stray)(void *data, struct slice bytes);

    /* The state changed. The first change is to STORAGE_UP, from inside no call. */
    void (*on_state)(void *data, enum storage_state state);

    /* The registry no longer knows this instance (it lost its data, or the lease ran out and others reaped
     * it), or a reconnect makes that possible: register every online session again, with `restore` set. */
    void (*on_registry_lost)(void *data);

    /* Another instance's `session_count` sessions were removed because its lease ran out. */
    void (*on_reaped)(void *data, struct slice instance, size_t session_count);

    void *data;
};

/* How much may be stored, all instances together; 0: no such limit. A message counts with its payload, its
 * sender, and STORAGE_MESSAGE_OVERHEAD bytes. */
struct storage_limits {
    uint64_t history_bytes;    /* at one address: the oldest go for a new one */
    uint64_t stored_addresses; /* that have stored messages */
    uint64_t stored_bytes;
    uint64_t sender_addresses; /* where one sender has stored messages */
    uint64_t sender_bytes;
};

/* Who this process is; copied. */
struct storage_instance {
    const char *id;
    const char *host;
    const char *listen; /* HOST:PORT of the WebSocket listener */
    const char *version;
    int64_t pid;
    uint64_t started_at_ms;  /* wall time */
    uint32_t heartbeat_ms;   /* one heartbeat and one bus probe each */
    uint32_t lease_ms;       /* without a heartbeat for so long, others reap this instance's sessions */
    uint32_t history_count;  /* stored messages that an address's history keeps; 0: STORAGE_HISTORY_COUNT */
    uint64_t history_age_ms; /* and for how long at most; 0: STORAGE_HISTORY_AGE_MS */
    struct storage_limits limits;
};

enum { STORAGE_HISTORY_COUNT = 1000, STORAGE_HISTORY_AGE_MS = 24 * 60 * 60 * 1000 };

/* ---- life ---- */

/* Connects, claims the instance's id and begins the heartbeat; on_state tells when it serves. An id held by a
 * living instance is logged and tried again until its lease runs out, then on_state never comes up. */
void storage_start(struct storage *storage, const struct storage_events *events,
                   const struct storage_instance *instance);

/* Gives up the lease and removes the instance from the registry; sessions must be unregistered before.
 * number: 0. */
void storage_leave(struct storage *storage, struct storage_request *request);

/* Cancels what is open (each request calls back) and frees everything. Not from inside a callback of this
 * storage. NULL is allowed. */
void storage_destroy(struct storage *storage);

enum storage_state storage_state(const struct storage *storage);

/* How many messages were given to on_message without having gone over the bus. */
uint64_t storage_direct_count(const struct storage *storage);

/* "redis" or "memory", for logs and /v1/stats. */
const char *storage_name(const struct storage *storage);

/* ---- bus ---- */

/* Receives the channel's messages through on_message; called back when confirmed. A subscription made while
 * the storage is down fails; one that was confirmed is restored by itself after an outage. One subscription
 * per channel and process. */
void storage_subscribe(struct storage *storage, struct slice channel, struct storage_request *request);

/* Ends it, at once as far as on_message goes. A pending storage_subscribe() of the channel still calls back.
 */
void storage_unsubscribe(struct storage *storage, struct slice channel);

/* number: how many instances (this one included) received it; 0 is ERROR_NONE too. What others receive may be
 * the envelope with a mark appended (envelope_mark()). */
void storage_publish(struct storage *storage, struct slice channel, struct slice bytes,
                     struct storage_request *request);

/* Sends this instance a probe over the bus and calls back when it arrived, a real round trip, and a write has
 * been tried. ERROR_UNAVAILABLE with `why`: writes are refused. */
void storage_probe(struct storage *storage, struct storage_request *request);

/* Topics by pattern: `pattern` is the channel of a topic whose name has wildcards as in NATS subjects
 * ("topic:{orders.*}": one token, "topic:{orders.>}": one or more at the end). As storage_subscribe() and
 * storage_unsubscribe(): once it is confirmed, no instance publishes past it. Of what is published, patterns see what
 * storage_publish() and storage_publish_with() send, and no presence. */
void storage_subscribe_pattern(struct storage *storage, struct slice pattern,
                               struct storage_request *request);
void storage_unsubscribe_pattern(struct storage *storage, struct slice pattern);

/* What to tell whoever's request ended so, from result->why; empty when the error's own text says it all. */
enum { STORAGE_WORDS_MAX = 160 };
struct slice storage_words(int error, const struct storage_result *result,
                           char out[static STORAGE_WORDS_MAX]);

/* ---- history ---- */

struct message_fields;

enum { STORAGE_KEY_MAX = 64, STORAGE_KEY_LIFE_MS = 300000, STORAGE_MESSAGE_OVERHEAD = 512 };

struct storage_publication {
    struct slice
        bytes; /* an envelope; with `store` an open one (envelope_encode_open()), completed by the storage */
    const struct message_fields
        *fields; /* the same message; with `store` its history entry is made from it */
    bool store;
    uint64_t ttl_ms;  /* with `store`: history leaves it out afterwards; 0: no such limit */
    struct slice key; /* idempotency key, at most STORAGE_KEY_MAX bytes; empty: none */
    /* Whose the key is, and whom what is stored counts for: user:UID, session:NAME, or a word of the broker's
     * own; at most ADDRESS_MAX bytes. */
    struct slice sender;
};

/* As storage_publish(); in the same step it adds the message to the channel's history (`store`) and remembers
 * the outcome under `key` for STORAGE_KEY_LIFE_MS: the same key of the same
 * sender to the same channel within that time publishes nothing and gets the first outcome, with `repeated`.
 * number: receivers; offset and epoch: those of the stored message. ERROR_LIMIT: what is stored has reached
 * the limit that `why` names as storage_limits does; ERROR_TOO_LARGE: the message alone passes history_bytes;
 * ERROR_NO_MEMORY: the storage has no memory left. Nothing was published then, nor stored. */
void storage_publish_with(struct storage *storage, struct slice channel,
                          const struct storage_publication *publication, struct storage_request *request);

struct storage_history_query {
    struct slice offset; /* messages after it (`reverse`: before it); empty: from the beginning (the end) */
    struct slice epoch;  /* the one `offset` is of; empty: not known, taken to be right */
    size_t limit;        /* at most so many records */
    size_t bytes;        /* no more records once their payloads reach this; 0: as many as the storage likes */
    bool reverse;        /* newest first */
};

/* records: stored messages that have not outlived their ttl; key: the offset; fields: epoch, from, id, time
 * (ms), content (text, binary, json), payload. offset and epoch: the newest stored message's, empty when
 * there is none. cursor: empty when these are all; otherwise there may be more (fewer than `limit` come where
 * messages are large or outlived), and it is the offset to ask for next. number: 1 when nothing that was
 * stored after query->offset is missing (`limit` aside); 0 when the epoch is another one (the offset means
 * nothing then, and the messages come as if without it) or the history no longer reaches back. An offset that
 * is no offset is ERROR_BAD_REQUEST. */
void storage_history(struct storage *storage, struct slice channel, const struct storage_history_query *query,
                     struct storage_request *request);

/* ---- presence ---- */

/* Adds a registered session to the presence of the topic whose channel this is, and publishes a MESSAGE_JOIN
 * there (from: the session, payload: its user) if it was not in it. It leaves, with a MESSAGE_LEAVE, through
 * storage_presence_leave(), when it is unregistered, when another conn takes its name over, or when it is
 * reaped. number of join: 1 it is new, 0 it was there; of leave: 1 it was there. To join, a session must be
 * registered (ERROR_ABSENT) by this conn (ERROR_CONFLICT); to leave for a conn whose successor has joined
 * does nothing. */
void storage_presence_join(struct storage *storage, struct slice channel,
                           const struct storage_session *session, struct storage_request *request);
void storage_presence_leave(struct storage *storage, struct slice channel,
                            const struct storage_session *session, struct storage_request *request);

/* records: up to `limit` sessions; key: the name; one field: user. number: how many there are. */
void storage_presence_list(struct storage *storage, struct slice channel, size_t limit,
                           struct storage_request *request);

/* records: up to `limit` topics that somebody is subscribed to, patterns aside; key: the name; one field:
 * instances (how many instances subscribe). number: how many there are. */
void storage_list_topics(struct storage *storage, size_t limit, struct storage_request *request);

/* ---- registry ---- */

struct storage_session {
    struct slice name;  /* the NAME of session:NAME */
    struct slice conn;  /* unique for ever */
    struct slice user;  /* empty: none */
    struct slice route; /* the route's pattern */
    struct slice face;
    struct slice remote;      /* the client's HOST:PORT */
    struct slice agent;       /* User-Agent; may be empty */
    uint64_t connected_at_ms; /* wall time */
};

enum { STORAGE_REPLACED_NOBODY = 0, STORAGE_REPLACED_SOMEBODY = 1 };

/* A name with a ~ belongs for ever to the connection behind its last ~, whose shared session it is: nobody else may
 * register it, and nothing that stands in the registry can make that connection lose it. */
bool storage_may_bear(const struct storage_session *session);

/* Registers a session whose channel is already subscribed, and publishes `notice` (an envelope) on that
 * channel in the same script; an empty notice is not published. number: STORAGE_REPLACED_SOMEBODY when a
 * living subscriber other than this process, or another conn registered by this process, held the name. With
 * `restore`, a newer holder (by connected_at) is left alone: ERROR_CONFLICT; and nothing is published when
 * the entry was still ours. ERROR_BAD_REQUEST: the name can't be this connection's. */
void storage_register(struct storage *storage, const struct storage_session *session, struct slice notice,
                      bool restore, struct storage_request *request);

/* Removes the session if it is still `session->conn` that holds the name. number: 1 removed, 0 it had a
 * successor. */
void storage_unregister(struct storage *storage, const struct storage_session *session,
                        struct storage_request *request);

/* number: sessions on all living instances. An instance that crashed is not counted from the moment the bus
 * notices. */
void storage_count(struct storage *storage, struct storage_request *request);

/* records: up to about `limit` sessions after `cursor` (empty: from the start); key: the name; fields: as
 * registered. */
void storage_list_sessions(struct storage *storage, struct slice cursor, size_t limit,
                           struct storage_request *request);

/* records: one, or none when there is no such session. */
void storage_find_session(struct storage *storage, struct slice name, struct storage_request *request);

/* records: the user's sessions; one field: instance. */
void storage_list_user(struct storage *storage, struct slice user, struct storage_request *request);

/* records: up to `limit` of the user's sessions; one field: instance. number: how many there are. */
void storage_peek_user(struct storage *storage, struct slice user, size_t limit,
                       struct storage_request *request);

/* records: the instances with a lease. */
void storage_list_instances(struct storage *storage, struct storage_request *request);

/* ---- for implementations ---- */

/* The head of every implementation's structure; the functions above call through it. */
struct storage_ops {
    const char *name;
    void (*start)(struct storage *, const struct storage_events *, const struct storage_instance *);
    void (*leave)(struct storage *, struct storage_request *);
    void (*destroy)(struct storage *);
    void (*subscribe)(struct storage *, struct slice, struct storage_request *);
    void (*unsubscribe)(struct storage *, struct slice);
    void (*publish)(struct storage *, struct slice, struct slice, struct storage_request *);
    void (*probe)(struct storage *, struct storage_request *);
    void (*subscribe_pattern)(struct storage *, struct slice, struct storage_request *);
    void (*unsubscribe_pattern)(struct storage *, struct slice);
    void (*publish_with)(struct storage *, struct slice, const struct storage_publication *,
                         struct storage_request *);
    void (*history)(struct storage *, struct slice, const struct storage_history_query *,
                    struct storage_request *);
    void (*presence_join)(struct storage *, struct slice, const struct storage_session *,
                          struct storage_request *);
    void (*presence_leave)(struct storage *, struct slice, const struct storage_session *,
                           struct storage_request *);
    void (*presence_list)(struct storage *, struct slice, size_t, struct storage_request *);
    void (*list_topics)(struct storage *, size_t, struct storage_request *);
    void (*register_session)(struct storage *, const struct storage_session *, struct slice, bool,
                             struct storage_request *);
    void (*unregister_session)(struct storage *, const struct storage_session *, struct storage_request *);
    void (*count)(struct storage *, struct storage_request *);
    void (*list_sessions)(struct storage *, struct slice, size_t, struct storage_request *);
    void (*find_session)(struct storage *, struct slice, struct storage_request *);
    void (*list_user)(struct storage *, struct slice, struct storage_request *);
    void (*peek_user)(struct storage *, struct slice, size_t, struct storage_request *);
    void (*list_instances)(struct storage *, struct storage_request *);
};

struct storage {
    const struct storage_ops *ops;
    enum storage_state state; /* changed by the implementation, just before on_state */
    uint64_t direct_count;    /* counted by the implementation */
};

#endif
