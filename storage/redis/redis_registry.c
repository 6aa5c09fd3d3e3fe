#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>

/* A registration touches keys of several Cluster slots, so no script can do all of it. The order of its steps
 * makes every prefix of them harmless: the name is in the instance's set before the session exists, so
 * whatever is left by a crash in between is found and reaped; a session is removed before its name leaves the
 * set. All steps go out in one pipeline, in the order in which requests were made. */

/* A session that this process registered. It tells a late removal of a replaced connection from that of the
 * name's holder without asking Redis. */
struct held {
    struct map_node node;
    uint16_t conn_len, user_len;
    char bytes[]; /* name, conn, user */
};

struct registration {
    struct redis_task task;
    bool restore, retook; /* another conn of this process held the name */
    struct list contest;  /* in registry->contests while it isn't known whether a restored conn gets the name
                             that another conn of this process holds */
    struct slice name, conn, user;
    char bytes[]; /* theirs */
};

static struct slice held_conn(const struct held *held)
{
    return slice_from(held->bytes + held->node.key_len, held->conn_len);
}

static struct slice held_user(const struct held *held)
{
    return slice_from(held->bytes + held->node.key_len + held->conn_len, held->user_len);
}

static struct held *held_find(const struct redis_storage *storage, struct slice name)
{
    struct map_node *node = map_find(&storage->registry.held, name.data, name.len);

    return node ? container_of(node, struct held, node) : NULL;
}

bool redis_registry_holds(const struct redis_storage *storage, struct slice name)
{
    return held_find(storage, name);
}

bool redis_registry_is_held_by(const struct redis_storage *storage, struct slice name, struct slice conn)
{
    const struct held *held = held_find(storage, name);

    return held && slice_equal(held_conn(held), conn);
}

static void count_changed(struct redis_storage *storage)
{
    redis_conn_want_turn(&storage->topology.commands);
}

static void held_remove(struct redis_storage *storage, struct held *held)
{
    map_remove(&storage->registry.held, &held->node);
    mem_free(held);
    count_changed(storage);
}

static char *copy(char *at, struct slice from)
{
    if (from.len)
        memcpy(at, from.data, from.len);
    return at + from.len;
}

static bool held_add(struct redis_storage *storage, struct slice name, struct slice conn, struct slice user)
{
    struct held *old = held_find(storage, name);
    struct held *held = mem_alloc(sizeof *held + name.len + conn.len + user.len);

    if (!held)
        return false;
    *held = (struct held){.conn_len = (uint16_t)conn.len, .user_len = (uint16_t)user.len};
    copy(copy(copy(held->bytes, name), conn), user);
    if (old)
        held_remove(storage, old);
    if (map_insert(&storage->registry.held, &held->node, held->bytes, name.len)) {
        count_changed(storage);
        return true;
    }
    mem_free(held);
    return false;
}

static struct slice own_id(const struct redis_storage *storage)
{
    return slice_text(storage->instance.id);
}

/* ---- the instance's own entry ---- */

void redis_registry_describe(struct redis_storage *storage)
{
    const struct storage_instance *instance = &storage->instance;
    char pid[24], sessions[24], started[CLOCK_ISO8601_SIZE], now[CLOCK_ISO8601_SIZE];
    struct redis_key key;

    redis_key_address(storage, &key, ADDRESS_INSTANCE, own_id(storage));
    snprintf(pid, sizeof pid, "%" PRId64, instance->pid);
    snprintf(sessions, sizeof sessions, "%zu", storage->registry.held.count);
    clock_iso8601(instance->started_at_ms, started);
    clock_iso8601(clock_wall_ms(), now);
    const struct slice args[] = {slice_text("HSET"),         redis_key_slice(&key),
                                 slice_text("host"),         slice_text(instance->host),
                                 slice_text("pid"),          slice_text(pid),
                                 slice_text("listen"),       slice_text(instance->listen),
                                 slice_text("version"),      slice_text(instance->version),
                                 slice_text("started_at"),   slice_text(started),
                                 slice_text("sessions"),     slice_text(sessions),
                                 slice_text("heartbeat_at"), slice_text(now)};
    redis_send(storage, args, sizeof args / sizeof *args);
    storage->registry.written_count = storage->registry.held.count;
    storage->registry.count_known = true;
}

void redis_registry_refresh(struct redis_storage *storage)
{
    char sessions[24], now[CLOCK_ISO8601_SIZE];
    struct redis_key key;

    redis_key_address(storage, &key, ADDRESS_INSTANCE, own_id(storage));
    snprintf(sessions, sizeof sessions, "%zu", storage->registry.held.count);
    clock_iso8601(clock_wall_ms(), now);
    const struct slice args[] = {slice_text("HSET"),   redis_key_slice(&key),      slice_text("sessions"),
                                 slice_text(sessions), slice_text("heartbeat_at"), slice_text(now)};
    redis_send(storage, args, sizeof args / sizeof *args);
    storage->registry.written_count = storage->registry.held.count;
}

void redis_registry_on_turn_end(void *topology)
{
    struct redis_storage *storage = container_of(topology, struct redis_storage, topology);

    if (storage->registry.count_known && storage->registry.written_count != storage->registry.held.count)
        redis_registry_refresh(storage);
}

void redis_registry_forget(struct redis_storage *storage, struct redis_task *task, struct slice user,
                           struct slice name, struct slice instance)
{
    struct redis_key key;
    const struct slice args[] = {name, instance};

    if (!address_is_key(user))
        return;
    redis_key_address(storage, &key, ADDRESS_USER, user);
    if (task)
        redis_task_script(task, REDIS_SCRIPT_FORGET, redis_key_slice(&key), args, 2, redis_task_on_reply);
    else if (redis_script_call(&storage->scripts, REDIS_SCRIPT_FORGET, redis_key_slice(&key), args, 2,
                               redis_ignore, NULL) != 0)
        return;
}

static void change_members(struct redis_storage *storage, struct redis_task *task, const char *verb,
                           struct slice name)
{
    struct redis_key key;

    redis_key_members(storage, &key, own_id(storage));
    const struct slice args[] = {slice_text(verb), redis_key_slice(&key), name};
    redis_task_command(task, args, 3, redis_task_on_reply);
}

/* ---- registering ---- */

static void add_to_user(struct registration *registration)
{
    struct redis_storage *storage = registration->task.storage;
    struct redis_key key;

    if (!registration->user.len)
        return;
    redis_key_address(storage, &key, ADDRESS_USER, registration->user);
    const struct slice args[] = {slice_text("HSET"), redis_key_slice(&key), registration->name,
                                 own_id(storage)};
    redis_task_command(&registration->task, args, 4, redis_task_on_reply);
}

/* The registration came to nothing: the name isn't held, unless by another conn of this process. */
static bool let_go(struct registration *registration)
{
    struct redis_storage *storage = registration->task.storage;
    struct held *held = held_find(storage, registration->name);
    bool ours = held && slice_equal(held_conn(held), registration->conn);

    if (ours)
        held_remove(storage, held);
    return ours;
}

/* Whether a contest of the session was still open; it is closed now. */
static bool contest_end(struct registration *registration)
{
    bool open = !list_empty(&registration->contest);

    list_remove(&registration->contest);
    return open;
}

static void on_register_end(struct redis_task *task)
{
    struct registration *registration = (struct registration *)task;

    if (task->error)
        let_go(registration);
    contest_end(registration);
    task->on_end = NULL;
    task->waiting = 1;
    redis_task_replied(task, 0);
}

static void on_registered(void *data, const struct redis_reply *reply, int error)
{
    struct registration *registration = data;
    struct redis_task *task = &registration->task;
    struct slice conn = redis_reply_text(reply, 1), instance = redis_reply_text(reply, 2);
    struct slice user = redis_reply_text(reply, 3), topics = redis_reply_text(reply, 5);

    if (error) {
        redis_task_replied(task, error);
        return;
    }
    if (redis_reply_integer(reply, 0) == 1) {
        if (let_go(registration))
            change_members(task->storage, task, "SREM", registration->name);
        redis_task_replied(task, ERROR_CONFLICT);
        return;
    }
    if (redis_reply_integer(reply, 0) == 2) {
        let_go(registration);
        redis_task_replied(task, ERROR_BAD_REQUEST);
        return;
    }
    if (contest_end(registration) &&
        !held_add(task->storage, registration->name, registration->conn, registration->user))
        task->error = ERROR_NO_MEMORY;
    bool replaced = conn.len && !slice_equal(conn, registration->conn);
    bool was_ours = slice_equal(instance, own_id(task->storage));
    if (replaced && (redis_reply_integer(reply, 4) >= 2 || (was_ours && registration->retook)))
        task->number = STORAGE_REPLACED_SOMEBODY;
    if (registration->restore)
        add_to_user(registration);
    if (conn.len && user.len && !slice_equal(user, registration->user))
        redis_registry_forget(task->storage, task, user, registration->name, instance);
    redis_presence_remove_all(task, topics, registration->name, user);
    /* Unless this process is registering the name for yet another connection. */
    if (redis_registry_is_held_by(task->storage, registration->name, registration->conn))
        redis_direct_allow(task->storage, ADDRESS_SESSION, registration->name, true);
    redis_task_replied(task, 0);
}

static struct registration *registration_create(struct redis_storage *storage,
                                                const struct storage_session *session, bool restore,
                                                struct storage_request *request)
{
    size_t texts = session->name.len + session->conn.len + session->user.len;
    struct registration *registration = redis_task_create(storage, request, sizeof *registration + texts);

    if (!registration)
        return NULL;
    char *at = registration->bytes;
    char *conn = copy(at, session->name), *user = copy(conn, session->conn);
    copy(user, session->user);
    list_init(&registration->contest);
    registration->task.on_end = on_register_end;
    registration->restore = restore;
    registration->name = slice_from(at, session->name.len);
    registration->conn = slice_from(conn, session->conn.len);
    registration->user = slice_from(user, session->user.len);
    return registration;
}

static void send_registration(struct registration *registration, const struct storage_session *session,
                              struct slice notice)
{
    struct redis_storage *storage = registration->task.storage;
    char connected_at[CLOCK_ISO8601_SIZE];
    struct redis_key key;

    clock_iso8601(session->connected_at_ms, connected_at);
    redis_key_address(storage, &key, ADDRESS_SESSION, session->name);
    const struct slice args[] = {notice,         slice_text(registration->restore ? "1" : "0"),
                                 session->conn,  own_id(storage),
                                 session->route, session->user,
                                 session->face,  session->remote,
                                 session->agent, slice_text(connected_at)};
    redis_direct_allow(storage, ADDRESS_SESSION, session->name, false);
    change_members(storage, &registration->task, "SADD", session->name);
    redis_task_script(&registration->task, REDIS_SCRIPT_REGISTER, redis_key_slice(&key), args,
                      sizeof args / sizeof *args, on_registered);
    if (!registration->restore)
        add_to_user(registration);
}

/* 0, or why the session can't be registered at all. */
static int check(struct redis_storage *storage, const struct storage_session *session)
{
    if (storage->destroyed)
        return ERROR_CANCELLED;
    if (address_check_name(session->name) != NULL || !session->conn.len || session->conn.len > UINT16_MAX ||
        (session->user.len && address_check_name(session->user) != NULL))
        return ERROR_BAD_REQUEST;
    return storage->storage.state == STORAGE_UP ? 0 : ERROR_UNAVAILABLE;
}

/* The same for a session that is to be registered. */
static int check_new(struct redis_storage *storage, const struct storage_session *session)
{
    int error = check(storage, session);

    return error || storage_may_bear(session) ? error : ERROR_BAD_REQUEST;
}

void redis_registry_register(struct storage *base, const struct storage_session *session, struct slice notice,
                             bool restore, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    int error = check_new(storage, session);
    struct held *old = held_find(storage, session->name);
    bool retook = old && !slice_equal(held_conn(old), session->conn);
    bool contest = retook && restore;
    struct registration *registration =
        error ? NULL : registration_create(storage, session, restore, request);

    if (!error &&
        (!registration || (!contest && !held_add(storage, session->name, session->conn, session->user)))) {
        mem_free(registration);
        error = ERROR_NO_MEMORY;
    }
    if (error) {
        redis_later(storage, request, error);
        return;
    }
    registration->retook = retook;
    if (contest)
        list_append(&storage->registry.contests, &registration->contest);
    send_registration(registration, session, notice);
    redis_task_made(&registration->task);
}

/* ---- unregistering ---- */

/* A session that goes while its restoring isn't answered must not be held by the answer. */
static void give_up_contests(struct redis_storage *storage, const struct storage_session *session)
{
    list_for_each_safe (link, &storage->registry.contests) {
        struct registration *registration = container_of(link, struct registration, contest);
        if (slice_equal(registration->name, session->name) && slice_equal(registration->conn, session->conn))
            list_remove(link);
    }
}

struct unregistration {
    struct redis_task task;
    struct slice name, user;
    char bytes[]; /* theirs */
};

static struct unregistration *unregistration_create(struct redis_storage *storage,
                                                    const struct storage_session *session,
                                                    struct storage_request *request)
{
    struct unregistration *unregistration =
        redis_task_create(storage, request, sizeof *unregistration + session->name.len + session->user.len);

    if (!unregistration)
        return NULL;
    char *user = copy(unregistration->bytes, session->name);
    copy(user, session->user);
    unregistration->name = slice_from(unregistration->bytes, session->name.len);
    unregistration->user = slice_from(user, session->user.len);
    return unregistration;
}

static void on_unregistered(void *data, const struct redis_reply *reply, int error)
{
    struct unregistration *unregistration = data;
    struct redis_task *task = &unregistration->task;

    if (!error && reply->type == REDIS_TYPE_STRING) {
        task->number = 1;
        redis_presence_remove_all(task, reply->text, unregistration->name, unregistration->user);
    }
    redis_task_replied(task, error);
}

void redis_registry_unregister(struct storage *base, const struct storage_session *session,
                               struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct held *held = held_find(storage, session->name);
    bool holder = held && slice_equal(held_conn(held), session->conn);
    /* With a successor on this instance, name and instance stay; only the user may be another. */
    bool same_user = held && !holder && slice_equal(held_user(held), session->user);
    int error = check(storage, session);
    struct unregistration *unregistration = error ? NULL : unregistration_create(storage, session, request);
    struct redis_key key;

    give_up_contests(storage, session);
    if (holder) /* even when Redis is out of reach: what is not held is removed after the reconnect */
        held_remove(storage, held);
    if (!unregistration) {
        redis_later(storage, request, error ? error : ERROR_NO_MEMORY);
        return;
    }
    struct redis_task *task = &unregistration->task;
    redis_key_address(storage, &key, ADDRESS_SESSION, session->name);
    redis_task_script(task, REDIS_SCRIPT_UNREGISTER, redis_key_slice(&key), &session->conn, 1,
                      on_unregistered);
    if (session->user.len && !same_user)
        redis_registry_forget(storage, task, session->user, session->name, own_id(storage));
    if (!held || holder)
        change_members(storage, task, "SREM", session->name);
    redis_task_made(task);
}

void redis_registry_close(struct redis_storage *storage)
{
    struct map *held = &storage->registry.held;
    struct map_node *node = map_next(held, NULL);

    while (node) {
        struct map_node *next = map_next(held, node);
        map_remove(held, node);
        mem_free(container_of(node, struct held, node));
        node = next;
    }
    map_close(held);
}
