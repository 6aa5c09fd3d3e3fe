/* The parts of the Redis storage, and what they share. Private to storage/redis/.
 *
 * From below: redis_conn (a connection), redis_topology (which one, and when again), redis_scripts (Lua);
 * on them redis_bus, redis_direct and redis_probe (channels), redis_interest and redis_pattern (patterns of topics),
 * redis_publish and redis_history (stored messages),
 * redis_registry, redis_lists and redis_presence (who is connected), redis_lease and redis_reap (who is
 * alive); redis_setup brings them up in order after each connect. */
#ifndef STORAGE_REDIS_PRIVATE_H
#define STORAGE_REDIS_PRIVATE_H

#include "base/log.h"
#include "base/map.h"
#include "proto/address.h"
#include "proto/topic_trie.h"
#include "storage/redis/redis_scripts.h"
#include "storage/redis/redis_topology.h"
#include "storage/storage.h"

enum {
    REDIS_PREFIX_MAX = 64,
    REDIS_KEY_MAX = REDIS_PREFIX_MAX + CHANNEL_MAX + 16,
    REDIS_BATCH_MAX = 512, /* channels a SUBSCRIBE */
};

struct redis_storage;

/* Answers given from the loop, because a request never calls back from inside the call that made it. */
enum redis_later {
    REDIS_LATER_UNAVAILABLE,
    REDIS_LATER_NO_MEMORY,
    REDIS_LATER_LIMIT,
    REDIS_LATER_BAD_REQUEST,
    REDIS_LATER_CANCELLED,
    REDIS_LATER_COUNT
};

enum redis_verb { REDIS_SUBSCRIBE, REDIS_UNSUBSCRIBE };

/* A wanted channel. There may be 100,000 of them, so it is one small block. An unsubscribe takes it out of
 * the map at once; it then lives until its own confirmation has come, while a new subscription of the same
 * channel is another structure with another confirmation. */
struct redis_channel {
    struct map_node node;
    struct redis_storage *storage;
    struct storage_request *request; /* waits for the first confirmation */
    /* redis_direct.c: */
    uint64_t alone_until_ms; /* monotonic; 0: others may listen */
    uint64_t answered_at;    /* redis_conn.answered when that of the latest such message has come */
    uint32_t last;           /* number of the latest message that this process sent through Redis */
    uint32_t revoked;        /* what was queued before this number goes through Redis */
    uint32_t queued;         /* messages to be delivered at the end of the turn */
    uint32_t copies;         /* unanswered; it is not freed before they are */
    bool allowed;            /* this process alone receives from it */
    bool returned;           /* and has received all that it ever sent there through Redis */

    bool interest;  /* sb:pattern:{FIRST} or sb:patterns */
    bool wanted;    /* in the map */
    bool sent;      /* over this connection */
    bool in_flight; /* sent, and not confirmed yet */
    char name[];
};

struct redis_direct {
    bool enabled;
    uint64_t origin;              /* this process, in marks */
    uint32_t number;              /* of the latest mark */
    struct buffer queue, running; /* messages to be delivered; those of them being delivered */
    struct buffer marked;         /* scratch */
    struct event *event;          /* active while the queue isn't empty */
};

struct redis_bus {
    struct map channels; /* struct redis_channel by channel, without the prefix */
    struct buffer batch; /* channels of the next command, formatted */
    size_t batch_count;
    enum redis_verb batch_verb;
    size_t restore_slot;      /* where the walk through `channels` goes on */
    size_t restore_in_flight; /* unconfirmed */
    bool restoring;
};

/* redis_interest.h */
struct redis_interest {
    struct topic_trie tries[2]; /* struct redis_pattern: those that begin with a literal token; with a wildcard */
    struct list patterns;       /* all of them */
    struct map holders;         /* struct holder: the other instances, by id as in channels */
    struct list due;            /* those of them that are to be told what was heard */
    size_t loads;               /* sets being read */
    bool listing, loaded;       /* the instances are being asked for; their sets have been read */

    struct map firsts;             /* struct redis_first: interest channels that this process listens to */
    struct list changed;           /* patterns that this process holds, or holds no more */
    struct list announcements;     /* not heard by everybody yet, in the order told */
    struct announcement *next;     /* with what is subscribed in this turn */
    uint64_t serial, heard, asked; /* of the latest told; heard by this process itself; asked after */
    bool querying;                 /* whose lease runs */
    bool announced;                /* what is held was told since the connect, and heard by everybody */
    struct event *event;           /* active while a turn has something to tell */
    struct buffer text, bulks, copy, found; /* scratch */
};

struct redis_probe {
    char nonce[20]; /* tells this process's probes from those of another with the same id */
    uint64_t sequence;
    bool in_flight;
    uint64_t received;      /* of the subscribed connection, when last looked at */
    struct list sent, next; /* requests that wait for the probe in flight; for the one after it */
    struct event *deadline;
};

struct redis_registry {
    struct map held;      /* struct held by session name: what this process registered */
    struct list contests; /* registrations; see redis_registry.c */
    size_t written_count; /* as sb:instance:{ID} says */
    bool count_known;
};

struct redis_lease {
    struct event *beat;  /* the next heartbeat */
    struct event *check; /* another instance's lease runs out before that */
    bool in_flight;
    bool beating;            /* no beat otherwise */
    char refused[96];        /* what Redis said to the latest beat, if it refuses writes; else empty */
    uint64_t quiet_until_ms; /* monotonic: after an outage of all, nobody is reaped for a lease */
    uint64_t beat_ms;        /* monotonic: when the last heartbeat went out */
    uint64_t proof;          /* the probe that shows that the bus has been read up to now; 0: none is wanted */
};

struct redis_counting {
    bool running;
    struct list current, next; /* requests; `next` wait for a query that starts after they were made */
};

struct redis_storage {
    struct storage storage;
    struct event_base *loop;
    struct storage_events events;
    struct storage_instance instance; /* texts are owned */
    char *prefix;
    size_t prefix_len;
    struct log_pause strays; /* lines about what is no message on an interest channel */
    uint32_t timeout_ms;
    char own_channel[CHANNEL_MAX]; /* instance:{ID} */
    size_t own_channel_len;
    char names[2][96]; /* of the connections */
    struct redis_topology topology;
    struct redis_scripts scripts;
    struct redis_bus bus;
    struct redis_direct direct;
    struct redis_interest interest;
    struct redis_probe probe;
    struct redis_registry registry;
    struct redis_lease lease;
    struct redis_counting counting;
    struct list reaps;
    struct list later[REDIS_LATER_COUNT];
    struct event *later_event;
    bool claimed, was_up, left, destroyed;
    bool setting_up, setup_beaten, setup_probed, setup_interested;
    bool id_in_use_logged;
    int64_t id_listeners; /* who received a probe before this process was subscribed */
};

static inline struct redis_storage *redis_storage_of(struct storage *storage)
{
    return container_of(storage, struct redis_storage, storage);
}

/* ---- redis_keys.c ---- */

struct redis_key {
    size_t len;
    char text[REDIS_KEY_MAX];
};

static inline struct slice redis_key_slice(const struct redis_key *key)
{
    return slice_from(key->text, key->len);
}

/* The key of an address: PREFIX session:{NAME}. The name must have passed address_is_key(). */
void redis_key_address(const struct redis_storage *storage, struct redis_key *key, enum address_kind kind,
                       struct slice name);
void redis_key_members(const struct redis_storage *storage, struct redis_key *key, struct slice instance);
void redis_key_instances(const struct redis_storage *storage, struct redis_key *key);
/* PREFIX and a channel; false when the channel is too long to be one. */
bool redis_key_channel(const struct redis_storage *storage, struct redis_key *key, struct slice channel);

/* ---- redis_glob.c ---- */

/* Writes the text so that it matches itself, at most twice as long; returns its length. */
size_t redis_glob_escape(struct slice text, char *out);

/* ---- redis_task.c ---- */

void redis_done(struct storage_request *request, int error, const struct storage_result *result);
/* An error with words: storage_result.why. */
void redis_done_why(struct storage_request *request, int error, struct slice why);
void redis_later(struct redis_storage *storage, struct storage_request *request, int error);
void redis_later_run(struct redis_storage *storage);
void redis_later_cancel(struct redis_storage *storage); /* those made by the callbacks too */

/* A request that takes several commands: it is done when the last is answered, with the first error. Embed it
 * at the front of what the request needs besides. */
struct redis_task {
    struct redis_storage *storage;
    struct storage_request *request; /* NULL: nobody waits */
    unsigned waiting;
    int error;
    int64_t number;
    void (*on_end)(struct redis_task *task); /* instead of answering and freeing; may be NULL */
};

/* Allocates `size` bytes, zeroed, with the task at the front; holds one count, which redis_task_made() gives
 * back. NULL: memory is short. */
void *redis_task_create(struct redis_storage *storage, struct storage_request *request, size_t size);

/* Each sends a command of the task; its failure to go out is the task's error. `on_reply` gets the task and
 * ends with redis_task_replied(). */
void redis_task_command(struct redis_task *task, const struct slice *args, size_t count,
                        redis_on_reply *on_reply);
void redis_task_script(struct redis_task *task, enum redis_script script, struct slice key,
                       const struct slice *args, size_t count, redis_on_reply *on_reply);

/* A reply that only matters when it is an error. */
void redis_task_on_reply(void *data, const struct redis_reply *reply, int error);

void redis_task_replied(struct redis_task *task, int error);

/* All commands of the call that made the request are out; never calls back from inside. */
void redis_task_made(struct redis_task *task);

/* For commands nobody waits for. */
void redis_ignore(void *data, const struct redis_reply *reply, int error);
void redis_send(struct redis_storage *storage, const struct slice *args, size_t count);

/* ---- redis_bus.c ---- */

void redis_bus_init(struct redis_storage *storage);
void redis_bus_close(struct redis_storage *storage);
/* Holds a channel of the storage's own; subscribed with all others. False when memory is short. */
bool redis_bus_hold(struct redis_storage *storage, struct slice channel);
void redis_bus_subscribe(struct storage *base, struct slice channel, struct storage_request *request);
void redis_bus_unsubscribe(struct storage *base, struct slice channel);
void redis_bus_publish(struct storage *base, struct slice channel, struct slice bytes,
                       struct storage_request *request);
/* Subscribes everything held over the new connection, then calls redis_setup_restored(). */
void redis_bus_restore(struct redis_storage *storage);
void redis_bus_on_down(struct redis_storage *storage);
void redis_bus_on_message(void *topology, struct slice channel, struct slice bytes);
void redis_bus_on_turn_end(void *topology);

/* NULL when it isn't wanted. */
struct redis_channel *redis_bus_find(const struct redis_storage *storage, struct slice name);
static inline struct slice redis_channel_name(const struct redis_channel *channel)
{
    return slice_from(channel->node.key, channel->node.key_len);
}
/* Frees it once it is neither wanted nor awaits an answer. */
void redis_channel_release(struct redis_channel *channel);
/* As redis_conn_command(): PUBLISH. */
int redis_bus_send(struct redis_storage *storage, struct slice channel, struct slice bytes,
                   redis_on_reply *on_reply, void *data) __attribute__((warn_unused_result));
void redis_bus_on_published(void *request, const struct redis_reply *reply, int error);

/* ---- redis_direct.c ---- */

bool redis_direct_init(struct redis_storage *storage, bool enabled);
void redis_direct_close(struct redis_storage *storage);
void redis_direct_cancel(struct redis_storage *storage); /* what is queued calls back with ERROR_CANCELLED */
/* Whether this process alone receives from the channel, as far as the registry knows. */
void redis_direct_allow(struct redis_storage *storage, enum address_kind kind, struct slice name, bool allowed);
/* Something goes to the channel through Redis: until a later message has come back, nothing may overtake it. */
void redis_direct_unsettle(struct redis_storage *storage, struct redis_channel *channel);
/* Whether redis_direct_publish() has to be asked. */
static inline bool redis_direct_wants(const struct redis_channel *channel)
{
    return channel->allowed || channel->queued;
}
/* Publishes, one way or the other. 0, or an error and then the request doesn't call back. */
int redis_direct_publish(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes,
                         struct storage_request *request) __attribute__((warn_unused_result));
/* A message came over the bus; false: it is not to be delivered. */
bool redis_direct_take(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes);

/* ---- redis_interest.c, redis_pattern.c: see redis_interest.h ---- */

bool redis_interest_init(struct redis_storage *storage);
void redis_interest_close(struct redis_storage *storage);
/* Reads what others hold and tells what this process holds; then calls redis_setup_interested(). */
void redis_interest_begin(struct redis_storage *storage);
void redis_interest_on_down(struct redis_storage *storage, int error);
/* Takes a message on the instance's own channel if it says what somebody heard. */
bool redis_interest_take_heard(struct redis_storage *storage, struct slice bytes);
void redis_interest_on_change(struct redis_storage *storage, struct slice bytes); /* on sb:patterns */
/* What everybody is told when an instance is gone; as redis_conn_command(). */
int redis_interest_tell_gone(struct redis_storage *storage, struct slice id, redis_on_reply *on_reply, void *data)
    __attribute__((warn_unused_result));
void redis_key_patterns(const struct redis_storage *storage, struct redis_key *key, struct slice instance);

/* The interest channels to which a message for this channel goes too; returns how many. */
enum { INTEREST_CHANNELS = 2 };
size_t redis_interest_channels(const struct redis_storage *storage, struct slice channel,
                               struct redis_key out[static INTEREST_CHANNELS]);
static inline bool redis_interest_any(const struct redis_storage *storage)
{
    return storage->interest.tries[0].count || storage->interest.tries[1].count;
}
/* Publishes to the channel and to `count` interest channels; the answer counts them once. As redis_direct_publish(). */
int redis_interest_publish(struct redis_storage *storage, struct slice channel, struct slice bytes,
                           const struct redis_key *to, size_t count, struct storage_request *request)
    __attribute__((warn_unused_result));

void redis_pattern_subscribe(struct storage *base, struct slice pattern, struct storage_request *request);
void redis_pattern_unsubscribe(struct storage *base, struct slice pattern);
void redis_pattern_announce_all(struct redis_storage *storage); /* the registry lost this instance */
void redis_pattern_on_beat(struct redis_storage *storage);
void redis_pattern_on_message(struct redis_storage *storage, struct slice channel, struct slice bytes);

/* ---- redis_probe.c ---- */

bool redis_probe_init(struct redis_storage *storage);
void redis_probe_close(struct redis_storage *storage);
void redis_probe_request(struct storage *base, struct storage_request *request);
void redis_probe_send(struct redis_storage *storage); /* unless one is under way */
/* Takes a message on the instance's own channel if it is a probe, whoever sent it. */
bool redis_probe_take(struct redis_storage *storage, struct slice bytes);
void redis_probe_on_down(struct redis_storage *storage, int error);
void redis_probe_beaten(struct redis_storage *storage); /* a heartbeat was answered */
/* An envelope that the instance's holder ignores, to see whether it has one. False when memory is short. */
bool redis_probe_encode(struct redis_storage *storage, const char *correlation, struct buffer *out);

/* ---- redis_publish.c ---- */

void redis_publish_with(struct storage *base, struct slice channel,
                        const struct storage_publication *publication, struct storage_request *request);

/* ---- redis_history.c ---- */

/* sb:history:CHANNEL; false when the channel is too long to be one. */
bool redis_history_key(const struct redis_storage *storage, struct redis_key *key, struct slice channel);
void redis_history_read(struct storage *base, struct slice channel, const struct storage_history_query *query,
                        struct storage_request *request);

/* ---- redis_presence.c ---- */

void redis_presence_join(struct storage *base, struct slice channel, const struct storage_session *session,
                         struct storage_request *request);
void redis_presence_leave(struct storage *base, struct slice channel, const struct storage_session *session,
                          struct storage_request *request);
void redis_presence_list(struct storage *base, struct slice channel, size_t limit,
                         struct storage_request *request);
void redis_presence_topics(struct storage *base, size_t limit, struct storage_request *request);

/* Takes the next name, as in a channel's braces, from what a session's hash says about its presences. */
bool redis_presence_next(struct slice *topics, struct slice *topic);

/* Removes a session from the presence of a topic so named; as redis_script_call(). */
int redis_presence_remove(struct redis_storage *storage, struct slice topic, struct slice session,
                          struct slice user, redis_on_reply *on_reply, void *data)
    __attribute__((warn_unused_result));

/* The same for all of `topics`, counted by the task. */
void redis_presence_remove_all(struct redis_task *task, struct slice topics, struct slice session,
                               struct slice user);

/* ---- redis_registry.c ---- */

void redis_registry_register(struct storage *base, const struct storage_session *session, struct slice notice,
                             bool restore, struct storage_request *request);
void redis_registry_unregister(struct storage *base, const struct storage_session *session,
                               struct storage_request *request);
bool redis_registry_holds(const struct redis_storage *storage, struct slice name);
bool redis_registry_is_held_by(const struct redis_storage *storage, struct slice name, struct slice conn);
void redis_registry_on_turn_end(void *topology);
void redis_registry_close(struct redis_storage *storage);
/* Writes all of sb:instance:{ID}. */
void redis_registry_describe(struct redis_storage *storage);
/* Writes what a heartbeat changes. */
void redis_registry_refresh(struct redis_storage *storage);
/* Takes a session from its user's hash while it stands there with that instance; `task` may be NULL. */
void redis_registry_forget(struct redis_storage *storage, struct redis_task *task, struct slice user,
                           struct slice name, struct slice instance);

/* ---- redis_lease.c ---- */

bool redis_lease_init(struct redis_storage *storage);
void redis_lease_close(struct redis_storage *storage);
void redis_lease_begin(struct redis_storage *storage); /* the first heartbeat of a connection */
void redis_lease_beat(struct redis_storage *storage);  /* one more, unless one is under way */
void redis_lease_on_down(struct redis_storage *storage);
/* This process was stopped for so long that others may have stopped counting on it: until it has read what the bus holds
 * for it, it can't know who is to get what it publishes. */
bool redis_lease_lapsed(const struct redis_storage *storage);
void redis_lease_proved(struct redis_storage *storage, uint64_t sequence); /* this probe came back */

/* ---- redis_reap.c ---- */

/* Removes what the registry holds of `id`. With `own`, only sessions that this process doesn't hold, and the
 * instance stays. on_end may be NULL. */
void redis_reap_start(struct redis_storage *storage, struct slice id, bool own,
                      void (*on_end)(struct redis_storage *storage, int error));
/* Claims a dead instance first. */
void redis_reap_claim(struct redis_storage *storage, struct slice id);
void redis_reap_leave(struct storage *base, struct storage_request *request);

/* ---- redis_lists.c ---- */

void redis_lists_count(struct storage *base, struct storage_request *request);
void redis_lists_sessions(struct storage *base, struct slice cursor, size_t limit,
                          struct storage_request *request);
void redis_lists_find(struct storage *base, struct slice name, struct storage_request *request);
void redis_lists_user(struct storage *base, struct slice user, struct storage_request *request);
void redis_lists_peek_user(struct storage *base, struct slice user, size_t limit,
                           struct storage_request *request);
void redis_lists_instances(struct storage *base, struct storage_request *request);

/* ---- redis_setup.c ---- */

void redis_setup_on_ready(void *storage);
void redis_setup_on_down(void *storage);
void redis_setup_restored(struct redis_storage *storage);
void redis_setup_beaten(struct redis_storage *storage); /* a heartbeat went through */
void redis_setup_probed(struct redis_storage *storage); /* a probe came back */
void redis_setup_interested(struct redis_storage *storage); /* patterns are known, and those of this process told */
/* Ends the attempt, unless the connection is gone already. `reply` may be NULL. */
void redis_setup_fail(struct redis_storage *storage, const char *step, const struct redis_reply *reply);

#endif
