/* Who is connected, kept in this process's memory: sessions by name, by user and in the order they came.
 *
 * Nothing here is asynchronous. A session's record never changes; a listing that outlives the session holds a
 * reference. */
#ifndef STORAGE_MEMORY_REGISTRY_H
#define STORAGE_MEMORY_REGISTRY_H

#include "base/list.h"
#include "base/map.h"
#include "storage/storage.h"

/* A session's record in the order of its fields. */
enum registry_field {
    REGISTRY_CONN,
    REGISTRY_INSTANCE,
    REGISTRY_ROUTE,
    REGISTRY_USER,
    REGISTRY_FACE,
    REGISTRY_REMOTE,
    REGISTRY_AGENT,
    REGISTRY_CONNECTED_AT,
    REGISTRY_FIELD_COUNT
};

struct registry_session {
    unsigned refs;
    struct map_node by_name;
    struct list in_order;
    struct list of_user;        /* in user->sessions */
    struct list presences;      /* the memory storage's: the topics whose presence it is in */
    struct registry_user *user; /* NULL: none */
    uint64_t sequence;          /* its place in the order; a successor inherits it */
    uint64_t connected_at_ms;
    struct slice name;
    struct storage_field fields[REGISTRY_FIELD_COUNT];
    char text[]; /* what the slices above point to */
};

struct registry_user {
    struct map_node by_name;
    struct list sessions;
    size_t session_count;
    char name[];
};

struct registry {
    struct map sessions, users;
    struct list order;
    uint64_t last_sequence;
};

void registry_init(struct registry *registry);
void registry_close(struct registry *registry); /* gives up its reference to every session */

/* NULL: there is no such session. Borrowed. */
struct registry_session *registry_find(const struct registry *registry, struct slice name);

/* NULL: nobody of that name is connected. Borrowed. */
struct registry_user *registry_find_user(const struct registry *registry, struct slice name);

/* The first session after place `sequence` in the order; NULL at the end. Borrowed. */
struct registry_session *registry_after(const struct registry *registry, uint64_t sequence);

/* Enters the session, in the place of `old` (the holder of its name, or NULL). Everything is copied. False
 * when memory is short: nothing was changed. */
bool registry_put(struct registry *registry, const struct storage_session *session, const char *instance,
                  struct registry_session *old) __attribute__((warn_unused_result));

void registry_remove(struct registry *registry, struct registry_session *session);

struct registry_session *registry_session_ref(struct registry_session *session);
void registry_session_unref(struct registry_session *session);

#endif
