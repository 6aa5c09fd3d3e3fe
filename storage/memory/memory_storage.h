/* The parts of the memory storage, and what they share. Private to storage/memory/.
 *
 * A request takes effect inside its call; what it leads to (messages, then its on_done) waits in one queue
 * that runs from an event on the base, in the order made. So everything on a channel is in order by
 * construction, and a publish costs one look-up and one copy.
 *
 * When memory is too short even for a place in the queue, the request itself waits in `starved` and is told
 * ERROR_NO_MEMORY; nothing of it took effect. */
#ifndef STORAGE_MEMORY_PRIVATE_H
#define STORAGE_MEMORY_PRIVATE_H

#include "base/list.h"
#include "base/map.h"
#include "proto/address.h"
#include "proto/message.h"
#include "proto/topic_trie.h"
#include "storage/memory/registry.h"
#include "storage/storage.h"

struct event;

/* A channel or a pattern that this process subscribed to. */
struct subscription {
    struct map_node node;          /* a channel's */
    struct topic_trie_entry entry; /* a pattern's */
    struct list of_patterns;
    unsigned refs; /* one by its map or trie while `live`, one by every queued message */
    bool live;
    size_t len;
    char channel[];
};

/* The patterns that a message's channel matched when it was published. */
struct audience {
    struct slice channel; /* behind the subscriptions */
    struct slice *live;   /* room for the names of those that still are when it is delivered */
    size_t count;
    struct subscription *patterns[]; /* references */
};

/* What a publication came to; kept under its key for a while, if it has one. */
struct outcome {
    unsigned refs;
    struct map_node node; /* in memory->outcomes by channel, NUL, sender, NUL, key */
    struct list by_age;
    uint64_t expires_ms;
    int64_t number; /* known once the message was delivered */
    char offset[OFFSET_MAX + 1];
    char epoch[EPOCH_MAX + 1];
    char key[];
};

/* Records to deliver, and what keeps them alive until then. */
struct page {
    void **held; /* references, one a record, behind the records; given back by `unref` */
    void (*unref)(void *held);
    char *text; /* owned; NULL: none */
    size_t count;
    char cursor[OFFSET_MAX + 1];
    char offset[OFFSET_MAX + 1];
    char epoch[EPOCH_MAX + 1];
    struct storage_record records[];
};

/* What the queue holds: a message, the end of a request, or both, delivered in that order. */
struct item {
    struct list link;
    struct storage_request *request; /* NULL: nobody waits */
    struct subscription *to;         /* who receives `bytes`; NULL: nobody. A reference */
    struct audience *audience;       /* who else does; NULL: nobody. Owned */
    bool counts_receiver;            /* the request's number is whether the message was received */
    bool lists_instance;
    bool repeats; /* its outcome is another item's */
    int error;
    const char *why; /* storage_result.why, constant; NULL: none */
    int64_t number;
    struct outcome *outcome; /* a reference; NULL: none */
    struct page *page;       /* owned; NULL: none */
    size_t capacity, len;
    char bytes[];
};

struct memory {
    struct storage storage;
    struct event *turn;
    bool turn_pending;
    bool starting;   /* on_state(STORAGE_UP) is due */
    bool registered; /* this instance has its lease */
    struct storage_events events;
    struct storage_instance instance; /* its texts are owned, in `texts` */
    char *texts[4];
    struct map subscriptions;
    struct topic_trie patterns;
    struct list pattern_list;
    struct map histories, outcomes; /* and the same in the order in which they run out: */
    struct list histories_by_age, outcomes_by_age;
    struct map accounts, shares; /* memory_stored.c */
    uint64_t stored_bytes;
    struct map presences;
    struct registry registry;
    struct list queue;
    struct list starved;
    struct list pool;
    size_t pool_count;
};

static inline struct memory *memory_of(struct storage *storage)
{
    return container_of(storage, struct memory, storage);
}

/* ---- memory_queue.c ---- */

/* An item for the request; NULL when the storage is down or memory is short, and then the request is seen
 * to. */
struct item *memory_item_for(struct memory *memory, struct storage_request *request, size_t len);

/* An item with room for `len` bytes. NULL when memory is short. */
struct item *memory_item_create(struct memory *memory, size_t len);
void memory_item_free(struct memory *memory, struct item *item);

void memory_enqueue(struct memory *memory, struct item *item, struct storage_request *request);
void memory_schedule_turn(struct memory *memory);
void memory_run_turn(struct memory *memory);
void memory_cancel_all(struct memory *memory); /* what the callbacks ask for meanwhile too */

/* Room for `count` records, none yet. NULL when memory is short. */
struct page *memory_page_create(size_t count, void (*unref)(void *held));
/* Adds a record; `held` is a reference that the page takes over, or NULL. */
void memory_page_add(struct page *page, struct storage_record record, void *held);
void memory_page_add_session(struct page *page, struct registry_session *session, enum registry_field first,
                             size_t field_count);
struct page *memory_session_page_create(size_t count);

/* ---- memory_bus.c ---- */

void memory_bus_init(struct memory *memory);
void memory_bus_close(struct memory *memory);
bool memory_bus_hold(struct memory *memory, struct slice channel); /* false when memory is short */
void memory_subscription_unref(struct subscription *subscription); /* NULL is allowed */
void memory_audience_free(struct audience *audience);              /* NULL is allowed */

/* Makes the item carry the bytes, for which it has room, to the channel's subscribers, and to those of the patterns
 * that match. False when memory is short. */
bool memory_address_item(struct memory *memory, struct item *item, struct slice channel, struct slice bytes,
                         bool to_patterns)
    __attribute__((warn_unused_result));

void memory_subscribe(struct storage *storage, struct slice channel, struct storage_request *request);
void memory_unsubscribe(struct storage *storage, struct slice channel);
void memory_publish(struct storage *storage, struct slice channel, struct slice bytes,
                    struct storage_request *request);
void memory_probe(struct storage *storage, struct storage_request *request);
void memory_subscribe_pattern(struct storage *storage, struct slice pattern, struct storage_request *request);
void memory_unsubscribe_pattern(struct storage *storage, struct slice pattern);
void memory_list_topics(struct storage *storage, size_t limit, struct storage_request *request);

/* ---- memory_history.c ---- */

void memory_history_init(struct memory *memory);
void memory_history_close(struct memory *memory);

/* Stores the message under the offset and epoch that it writes to `outcome`. 0, or an error and then nothing was
 * changed; `why` is the limit that was reached, or NULL. */
int memory_history_add(struct memory *memory, struct slice channel,
                       const struct storage_publication *publication, struct outcome *outcome,
                       const char **why) __attribute__((warn_unused_result));

void memory_history(struct storage *storage, struct slice channel, const struct storage_history_query *query,
                    struct storage_request *request);

/* ---- memory_stored.c ---- */

struct share;

/* What one more message changes. */
struct memory_growth {
    bool begins;                 /* the channel has no history yet */
    size_t added;                /* bytes */
    size_t dropped, own_dropped; /* those of the messages that go for it; of the same sender's among them */
};

void memory_stored_init(struct memory *memory);
void memory_stored_close(struct memory *memory); /* after the histories */

/* NULL: the sender has stored nothing there. */
struct share *memory_stored_find(const struct memory *memory, struct slice channel, struct slice sender);

/* Enters a message. NULL: it would pass the limit `why`, or, without one, memory is short. */
struct share *memory_stored_add(struct memory *memory, struct slice channel, struct slice sender,
                                const struct memory_growth *growth, const char **why);
void memory_stored_remove(struct memory *memory, struct share *share, size_t bytes);

/* Both texts with a NUL between, which neither has; returns the length. */
size_t memory_join(struct slice first, struct slice second, char *out);

/* ---- memory_publish.c ---- */

void memory_publish_init(struct memory *memory);
void memory_publish_close(struct memory *memory);
void memory_outcome_unref(struct outcome *outcome); /* NULL is allowed */
void memory_publish_with(struct storage *storage, struct slice channel,
                         const struct storage_publication *publication, struct storage_request *request);

/* ---- memory_presence.c ---- */

void memory_presence_init(struct memory *memory);
void memory_presence_close(struct memory *memory); /* before the registry */

/* Takes the session from every topic's presence; where memory is short, nobody is told. */
void memory_presence_leave_all(struct memory *memory, struct registry_session *session);
/* `to` takes the place of `from`, which is the same connection. */
void memory_presence_move(struct registry_session *from, struct registry_session *to);

void memory_presence_join(struct storage *storage, struct slice channel,
                          const struct storage_session *session, struct storage_request *request);
void memory_presence_leave(struct storage *storage, struct slice channel,
                           const struct storage_session *session, struct storage_request *request);
void memory_presence_list(struct storage *storage, struct slice channel, size_t limit,
                          struct storage_request *request);

/* ---- memory_registry.c ---- */

bool memory_session_holds(const struct registry_session *session, struct slice conn);
void memory_register(struct storage *storage, const struct storage_session *session, struct slice notice,
                     bool restore, struct storage_request *request);
void memory_unregister(struct storage *storage, const struct storage_session *session,
                       struct storage_request *request);
void memory_count(struct storage *storage, struct storage_request *request);
void memory_list_sessions(struct storage *storage, struct slice cursor, size_t limit,
                          struct storage_request *request);
void memory_find_session(struct storage *storage, struct slice name, struct storage_request *request);
void memory_list_user(struct storage *storage, struct slice name, struct storage_request *request);
void memory_peek_user(struct storage *storage, struct slice name, size_t limit,
                      struct storage_request *request);
void memory_list_instances(struct storage *storage, struct storage_request *request);

#endif
