/* The parts of the Redis storage, and what they share. Private to storage/redis/.
 *
 * From below: redis_conn (a connection), redis_topology (which one, and when again), redis_scripts (Lua);
 * on them redis_bus and redis_probe (channels), redis_publish and redis_history (stored messages),
 * redis_registry, redis_lists and redis_presence (who is connected), redis_lease and redis_reap (who is
 * alive); redis_setup brings them up in order after each connect. */
#ifndef STORAGE_REDIS_PRIVATE_H
#define STORAGE_REDIS_PRIVATE_H

#include "base/map.h"
#include "proto/address.h"
#include "storage/redis/redis_scripts.h"
#include "storage/redis/redis_topology.h"
#include "storage/storage.h"

enum {
    REDIS_PREFIX_MAX = 64,
    REDIS_KEY_MAX = REDIS_PREFIX_MAX + CHANNEL_MAX + 16,
    REDIS_BATCH_MAX = 512, /* channels a SUBSCRIBE */
};

struct redis_channel;
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

enum redis_verb { REDIS_SUBSCRIBE, REDIS_UNSUBSCRIBE, REDIS_PSUBSCRIBE, REDIS_PUNSUBSCRIBE };

struct redis_bus {
    struct map channels; /* struct redis_channel by channel, without the prefix */
    struct map patterns; /* the same by pattern, as subscribed to */
    struct buffer batch; /* channels of the next command, formatted */
    size_t batch_count;
    enum redis_verb batch_verb;
    size_t restore_slot;      /* where the walk through `channels`, then `patterns`, goes on */
    size_t restore_in_flight; /* unconfirmed */
    bool restoring, restoring_patterns;
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
    uint64_t quiet_until_ms; /* monotonic: after an outage of all, nobody is reaped for a lease */
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
    uint32_t timeout_ms;
    char own_channel[CHANNEL_MAX]; /* instance:{ID} */
    size_t own_channel_len;
    char names[2][96]; /* of the connections */
    struct redis_topology topology;
    struct redis_scripts scripts;
    struct redis_bus bus;
    struct redis_probe probe;
    struct redis_registry registry;
    struct redis_lease lease;
    struct redis_counting counting;
    struct list reaps;
    struct list later[REDIS_LATER_COUNT];
    struct event *later_event;
    bool claimed, was_up, left, destroyed;
    bool setting_up, setup_beaten, setup_probed;
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

/* The key of an address: PREFIX session:{NAME}. The name must have passed address_check_name(). */
void redis_key_address(const struct redis_storage *storage, struct redis_key *key, enum address_kind kind,
                       struct slice name);
void redis_key_members(const struct redis_storage *storage, struct redis_key *key, struct slice instance);
void redis_key_instances(const struct redis_storage *storage, struct redis_key *key);
/* PREFIX and a channel; false when the channel is too long to be one. */
bool redis_key_channel(const struct redis_storage *storage, struct redis_key *key, struct slice channel);

/* ---- redis_glob.c ---- */

struct redis_glob {
    size_t len;
    char text[2 * REDIS_KEY_MAX];
};

/* Writes the text so that it matches itself, at most twice as long; returns its length. */
size_t redis_glob_escape(struct slice text, char *out);

/* PREFIX and a topic's pattern, as Redis matches them; false when the pattern is too long to be one. */
bool redis_glob_encode(const struct redis_storage *storage, struct slice pattern, struct redis_glob *glob);

/* Writes PREFIX and pattern as they were before, no longer than `glob`; returns the length. */
size_t redis_glob_decode(struct slice glob, char *out);

/* ---- redis_task.c ---- */

void redis_done(struct storage_request *request, int error, const struct storage_result *result);
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
void redis_bus_subscribe_pattern(struct storage *base, struct slice pattern, struct storage_request *request);
void redis_bus_unsubscribe_pattern(struct storage *base, struct slice pattern);
/* Subscribes everything held over the new connection, then calls redis_setup_restored(). */
void redis_bus_restore(struct redis_storage *storage);
void redis_bus_on_down(struct redis_storage *storage);
void redis_bus_on_message(void *topology, struct slice channel, struct slice bytes);
void redis_bus_on_pattern_message(void *topology, struct slice glob, struct slice channel,
                                  struct slice bytes);
void redis_bus_on_turn_end(void *topology);

/* ---- redis_probe.c ---- */

bool redis_probe_init(struct redis_storage *storage);
void redis_probe_close(struct redis_storage *storage);
void redis_probe_request(struct storage *base, struct storage_request *request);
void redis_probe_send(struct redis_storage *storage); /* unless one is under way */
/* Takes a message on the instance's own channel if it is a probe, whoever sent it. */
bool redis_probe_take(struct redis_storage *storage, struct slice bytes);
void redis_probe_on_down(struct redis_storage *storage, int error);
/* An envelope that the instance's holder ignores, to see whether it has one. False when memory is short. */
bool redis_probe_encode(struct redis_storage *storage, const char *correlation, struct buffer *out);

/* ---- redis_publish.c ---- */

void redis_publish_with(struct storage *base, struct slice channel,
                        const struct storage_publication *publication, struct storage_request *request);

/* ---- redis_history.c ---- */

/* sb:history:{ADDRESS}; false when the channel is too long to be one. */
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
void redis_lease_on_down(struct redis_storage *storage);

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
void redis_lists_instances(struct storage *base, struct storage_request *request);

/* ---- redis_setup.c ---- */

void redis_setup_on_ready(void *storage);
void redis_setup_on_down(void *storage);
void redis_setup_restored(struct redis_storage *storage);
void redis_setup_beaten(struct redis_storage *storage); /* a heartbeat went through */
void redis_setup_probed(struct redis_storage *storage); /* a probe came back */
/* Ends the attempt, unless the connection is gone already. `reply` may be NULL. */
void redis_setup_fail(struct redis_storage *storage, const char *step, const struct redis_reply *reply);

#endif
