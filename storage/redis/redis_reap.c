#include "base/alloc.h"
#include "base/log.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>

/* Reaping walks the instance's set of names in steps of about STEP. A step removes each session that still
 * belongs to the instance, then takes it from its user, and only then takes the names from the set: whoever
 * continues after a crash finds what is left. */
enum { STEP = 200 };

struct reap {
    struct list link; /* in storage->reaps */
    struct redis_storage *storage;
    bool own;
    void (*on_end)(struct redis_storage *storage, int error);
    struct storage_request *leaving; /* the request of storage_leave() */
    char cursor[24];                 /* of SSCAN */
    size_t waiting;                  /* replies of this step */
    int error;                       /* of this step: then names stay in the set */
    size_t removed;                  /* sessions in all */
    struct buffer names;             /* of this step's SREM, formatted */
    size_t name_count;
    size_t id_len;
    char id[ADDRESS_NAME_MAX];
};

/* One session's removal. */
struct removal {
    struct reap *reap;
    size_t name_len;
    char name[];
};

static void reap_free(struct reap *reap)
{
    list_remove(&reap->link);
    buffer_close(&reap->names);
    mem_free(reap);
}

static struct slice reap_id(const struct reap *reap)
{
    return slice_from(reap->id, reap->id_len);
}

static void end(struct reap *reap, int error)
{
    struct redis_storage *storage = reap->storage;
    struct storage_request *leaving = reap->leaving;
    void (*on_end)(struct redis_storage *, int) = reap->on_end;

    if (!error && reap->own && reap->removed)
        log_info("leftovers removed", log_int("sessions", (int64_t)reap->removed));
    if (!error && !reap->own && !leaving)
        storage->events.on_reaped(storage->events.data, reap_id(reap), reap->removed);
    reap_free(reap);
    if (leaving)
        redis_done(leaving, error, NULL);
    else if (on_end)
        on_end(storage, error);
}

static void step(struct reap *reap);

static void replied(struct reap *reap, int error, void (*next)(struct reap *reap))
{
    if (error && !reap->error)
        reap->error = error;
    if (--reap->waiting)
        return;
    if (reap->error)
        end(reap, reap->error);
    else
        next(reap);
}

/* ---- the end: the instance itself ---- */

static void finished(struct reap *reap)
{
    end(reap, 0);
}

static void on_finish_reply(void *data, const struct redis_reply *reply, int error)
{
    (void)reply;
    replied(data, error, finished);
}

static void sent(struct reap *reap, int error)
{
    if (!error)
        reap->waiting++;
    else if (!reap->error)
        reap->error = error;
}

static void send_command(struct reap *reap, const struct slice *args, size_t count, redis_on_reply *on_reply)
{
    int error = redis_conn_command(redis_topology_pick(&reap->storage->topology, args[1]), args, count,
                                   on_reply, reap);

    sent(reap, error);
}

static void finish(struct reap *reap)
{
    struct redis_key members, patterns, instance, instances;

    if (reap->own && !reap->leaving) {
        end(reap, 0);
        return;
    }
    redis_key_patterns(reap->storage, &patterns, reap_id(reap));
    redis_key_members(reap->storage, &members, reap_id(reap));
    redis_key_address(reap->storage, &instance, ADDRESS_INSTANCE, reap_id(reap));
    redis_key_instances(reap->storage, &instances);
    const struct slice drop_members[] = {slice_text("DEL"), redis_key_slice(&members)};
    const struct slice drop_patterns[] = {slice_text("DEL"), redis_key_slice(&patterns)};
    const struct slice drop_instance[] = {slice_text("DEL"), redis_key_slice(&instance)};
    const struct slice drop_lease[] = {slice_text("ZREM"), redis_key_slice(&instances), reap_id(reap)};
    reap->waiting = 1;
    send_command(reap, drop_members, 2, on_finish_reply);
    send_command(reap, drop_patterns, 2, on_finish_reply);
    /* Told after they are gone: whoever hears it and asks finds nothing. */
    sent(reap, redis_interest_tell_gone(reap->storage, reap_id(reap), on_finish_reply, reap));
    send_command(reap, drop_instance, 2, on_finish_reply);
    send_command(reap, drop_lease, 3, on_finish_reply);
    replied(reap, 0, finished);
}

/* ---- a step ---- */

static void step_done(struct reap *reap)
{
    if (strcmp(reap->cursor, "0") == 0)
        finish(reap);
    else
        step(reap);
}

static void on_names_removed(void *data, const struct redis_reply *reply, int error)
{
    (void)reply;
    replied(data, error, step_done);
}

/* Every session of the step is dealt with: now the names may go. */
static void remove_names(struct reap *reap)
{
    reap->waiting = 1;
    if (reap->name_count) {
        struct redis_conn *conn = redis_topology_pick(&reap->storage->topology, reap_id(reap));
        int error = reap->names.failed
                        ? ERROR_NO_MEMORY
                        : redis_conn_command_raw(conn, slice_from(reap->names.data, reap->names.len),
                                                 2 + reap->name_count, on_names_removed, reap);
        if (!error)
            reap->waiting++;
        else
            reap->error = error;
    }
    replied(reap, 0, step_done);
}

static void on_forgotten(void *data, const struct redis_reply *reply, int error)
{
    (void)reply;
    replied(data, error, remove_names);
}

static void leave_topics(struct reap *reap, struct slice topics, struct slice name, struct slice user)
{
    struct slice topic;

    while (redis_presence_next(&topics, &topic)) {
        int error = redis_presence_remove(reap->storage, topic, name, user, on_forgotten, reap);
        if (error != ERROR_BAD_REQUEST) /* what isn't a topic's name has no presence */
            sent(reap, error);
    }
}

static void on_removed(void *data, const struct redis_reply *reply, int error)
{
    struct removal *removal = data;
    struct reap *reap = removal->reap;
    struct redis_storage *storage = reap->storage;

    if (!error && reply->type == REDIS_TYPE_ARRAY) {
        struct slice name = slice_from(removal->name, removal->name_len);
        struct slice user = redis_reply_text(reply, 0);
        reap->removed++;
        if (address_is_key(user)) {
            const struct slice args[] = {name, reap_id(reap)};
            struct redis_key key;
            redis_key_address(storage, &key, ADDRESS_USER, user);
            sent(reap, redis_script_call(&storage->scripts, REDIS_SCRIPT_FORGET, redis_key_slice(&key), args,
                                         2, on_forgotten, reap));
        }
        leave_topics(reap, redis_reply_text(reply, 1), name, user);
    }
    mem_free(removal);
    replied(reap, error, remove_names);
}

static void remove_session(struct reap *reap, struct slice name)
{
    struct redis_storage *storage = reap->storage;
    struct removal *removal = mem_alloc(sizeof *removal + name.len);
    const struct slice id = reap_id(reap);
    struct redis_key key;

    if (!removal) {
        reap->error = ERROR_NO_MEMORY;
        return;
    }
    *removal = (struct removal){.reap = reap, .name_len = name.len};
    memcpy(removal->name, name.data, name.len);
    redis_key_address(storage, &key, ADDRESS_SESSION, name);
    int error = redis_script_call(&storage->scripts, REDIS_SCRIPT_REAP, redis_key_slice(&key), &id, 1,
                                  on_removed, removal);
    if (!error) {
        reap->waiting++;
        return;
    }
    reap->error = error;
    mem_free(removal);
}

static void on_scanned(void *data, const struct redis_reply *reply, int error)
{
    struct reap *reap = data;
    struct redis_key members;
    struct slice cursor = redis_reply_text(reply, 0);

    if (error || reply->type != REDIS_TYPE_ARRAY || reply->count != 2 || cursor.len >= sizeof reap->cursor) {
        end(reap, error ? error : ERROR_INTERNAL);
        return;
    }
    memcpy(reap->cursor, cursor.data, cursor.len);
    reap->cursor[cursor.len] = '\0';
    buffer_clear(&reap->names);
    reap->name_count = 0;
    redis_key_members(reap->storage, &members, reap_id(reap));
    redis_bulk_append(&reap->names, slice_text("SREM"));
    redis_bulk_append(&reap->names, redis_key_slice(&members));
    reap->waiting = 1;
    for (size_t i = 0; i < reply->elements[1].count && !reap->error; i++) {
        struct slice name = redis_reply_text(&reply->elements[1], i);
        /* A name registered after this goes out later over the same connection, so it is safe from here. */
        if (reap->own && !reap->leaving && redis_registry_holds(reap->storage, name))
            continue;
        redis_bulk_append(&reap->names, name);
        reap->name_count++;
        if (address_is_key(name))
            remove_session(reap, name);
    }
    replied(reap, 0, remove_names);
}

static int scan(struct reap *reap)
{
    char count[8];
    struct redis_key members;

    redis_key_members(reap->storage, &members, reap_id(reap));
    snprintf(count, sizeof count, "%d", STEP);
    const struct slice args[] = {slice_text("SSCAN"), redis_key_slice(&members), slice_text(reap->cursor),
                                 slice_text("COUNT"), slice_text(count)};
    return redis_conn_command(redis_topology_pick(&reap->storage->topology, args[1]), args, 5, on_scanned,
                              reap);
}

static void step(struct reap *reap)
{
    int error = scan(reap);

    if (error)
        end(reap, error);
}

/* ---- beginning ---- */

static struct reap *reap_create(struct redis_storage *storage, struct slice id, bool own)
{
    struct reap *reap = address_check_name(id) == NULL ? mem_calloc(1, sizeof *reap) : NULL;

    if (!reap)
        return NULL;
    reap->storage = storage;
    reap->own = own;
    reap->cursor[0] = '0';
    reap->id_len = id.len;
    memcpy(reap->id, id.data, id.len);
    buffer_init(&reap->names, 0);
    list_append(&storage->reaps, &reap->link);
    return reap;
}

static bool is_reaping(struct redis_storage *storage, struct slice id)
{
    list_for_each (node, &storage->reaps) {
        if (slice_equal(reap_id(container_of(node, struct reap, link)), id))
            return true;
    }
    return false;
}

void redis_reap_start(struct redis_storage *storage, struct slice id, bool own,
                      void (*on_end)(struct redis_storage *storage, int error))
{
    struct reap *reap = reap_create(storage, id, own);

    if (reap) {
        reap->on_end = on_end;
        step(reap);
    } else if (on_end) {
        on_end(storage, ERROR_NO_MEMORY);
    }
}

static void on_claimed(void *data, const struct redis_reply *reply, int error)
{
    struct reap *reap = data;

    if (error || reply->integer != 1) {
        reap_free(reap);
        return;
    }
    log_info("instance lost its lease", log_bytes("lost", reap->id, reap->id_len));
    step(reap);
}

void redis_reap_claim(struct redis_storage *storage, struct slice id)
{
    char lease[16];
    struct redis_key key;
    struct reap *reap = is_reaping(storage, id) ? NULL : reap_create(storage, id, false);

    if (!reap)
        return;
    redis_key_instances(storage, &key);
    snprintf(lease, sizeof lease, "%" PRIu32, storage->instance.lease_ms);
    const struct slice args[] = {id, slice_text(lease)};
    if (redis_script_call(&storage->scripts, REDIS_SCRIPT_CLAIM, redis_key_slice(&key), args, 2, on_claimed,
                          reap) != 0)
        reap_free(reap);
}

void redis_reap_leave(struct storage *base, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct reap *reap;
    int error = 0;

    if (base->state != STORAGE_UP)
        error = storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE;
    redis_lease_on_down(storage);
    storage->left = true;
    storage->registry.count_known = false;
    storage->topology.stopped = true;
    reap = error ? NULL : reap_create(storage, slice_text(storage->instance.id), true);
    if (!error)
        error = reap ? scan(reap) : ERROR_NO_MEMORY;
    if (!error) {
        reap->leaving = request;
        return;
    }
    if (reap)
        reap_free(reap);
    redis_later(storage, request, error);
}
