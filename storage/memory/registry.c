#include "storage/memory/registry.h"

#include "base/alloc.h"
#include "base/clock.h"

static const char *const field_names[REGISTRY_FIELD_COUNT] = {
    [REGISTRY_CONN] = "conn",   [REGISTRY_INSTANCE] = "instance",
    [REGISTRY_ROUTE] = "route", [REGISTRY_USER] = "user",
    [REGISTRY_FACE] = "face",   [REGISTRY_REMOTE] = "remote",
    [REGISTRY_AGENT] = "agent", [REGISTRY_CONNECTED_AT] = "connected_at"};

void registry_init(struct registry *registry)
{
    *registry = (struct registry){.last_sequence = 0};
    map_init(&registry->sessions);
    map_init(&registry->users);
    list_init(&registry->order);
}

void registry_close(struct registry *registry)
{
    list_for_each_safe (pos, &registry->order)
        registry_remove(registry, container_of(pos, struct registry_session, in_order));
    map_close(&registry->sessions);
    map_close(&registry->users);
}

struct registry_session *registry_find(const struct registry *registry, struct slice name)
{
    struct map_node *node = map_find(&registry->sessions, name.data, name.len);

    return node ? container_of(node, struct registry_session, by_name) : NULL;
}

struct registry_user *registry_find_user(const struct registry *registry, struct slice name)
{
    struct map_node *node = map_find(&registry->users, name.data, name.len);

    return node ? container_of(node, struct registry_user, by_name) : NULL;
}

struct registry_session *registry_after(const struct registry *registry, uint64_t sequence)
{
    list_for_each (pos, &registry->order) {
        struct registry_session *session = container_of(pos, struct registry_session, in_order);
        if (session->sequence > sequence)
            return session;
    }
    return NULL;
}

static struct slice copy_text(struct slice from, char **at)
{
    struct slice copy = slice_from(*at, from.len);

    if (from.len)
        memcpy(*at, from.data, from.len);
    *at += from.len;
    return copy;
}

/* A record of its own, linked nowhere. NULL when memory is short. */
static struct registry_session *session_create(const struct storage_session *from, const char *instance)
{
    char connected_at[CLOCK_ISO8601_SIZE];
    const struct slice values[REGISTRY_FIELD_COUNT] = {
        [REGISTRY_CONN] = from->conn,
        [REGISTRY_INSTANCE] = slice_text(instance),
        [REGISTRY_ROUTE] = from->route,
        [REGISTRY_USER] = from->user,
        [REGISTRY_FACE] = from->face,
        [REGISTRY_REMOTE] = from->remote,
        [REGISTRY_AGENT] = from->agent,
        [REGISTRY_CONNECTED_AT] = slice_text(clock_iso8601(from->connected_at_ms, connected_at))};
    size_t len = from->name.len;

    for (size_t i = 0; i < REGISTRY_FIELD_COUNT; i++)
        len += values[i].len;
    struct registry_session *session = mem_alloc(sizeof *session + len);
    if (!session)
        return NULL;
    *session = (struct registry_session){.refs = 1, .connected_at_ms = from->connected_at_ms};
    list_init(&session->in_order);
    list_init(&session->of_user);
    list_init(&session->presences);
    char *at = session->text;
    session->name = copy_text(from->name, &at);
    for (size_t i = 0; i < REGISTRY_FIELD_COUNT; i++)
        session->fields[i] =
            (struct storage_field){.name = slice_text(field_names[i]), .value = copy_text(values[i], &at)};
    return session;
}

struct registry_session *registry_session_ref(struct registry_session *session)
{
    session->refs++;
    return session;
}

void registry_session_unref(struct registry_session *session)
{
    if (--session->refs == 0)
        mem_free(session);
}

static struct registry_user *user_create(struct registry *registry, struct slice name)
{
    struct registry_user *user = mem_alloc(sizeof *user + name.len);

    if (!user)
        return NULL;
    *user = (struct registry_user){.session_count = 0};
    list_init(&user->sessions);
    memcpy(user->name, name.data, name.len);
    if (map_insert(&registry->users, &user->by_name, user->name, name.len))
        return user;
    mem_free(user);
    return NULL;
}

static void user_drop_if_empty(struct registry *registry, struct registry_user *user)
{
    if (!user || user->session_count)
        return;
    map_remove(&registry->users, &user->by_name);
    mem_free(user);
}

bool registry_put(struct registry *registry, const struct storage_session *from, const char *instance,
                  struct registry_session *old)
{
    struct registry_session *session = session_create(from, instance);

    if (!session)
        return false;
    if (from->user.len) {
        session->user = registry_find_user(registry, from->user);
        if (!session->user)
            session->user = user_create(registry, from->user);
        if (!session->user)
            goto free_session;
    }
    /* Two entries of one name for a moment; the removal below goes by the node. */
    if (!map_insert(&registry->sessions, &session->by_name, session->name.data, session->name.len))
        goto drop_user;
    session->sequence = old ? old->sequence : ++registry->last_sequence;
    list_append(old ? &old->in_order : &registry->order, &session->in_order);
    if (session->user) {
        list_append(&session->user->sessions, &session->of_user);
        session->user->session_count++;
    }
    if (old)
        registry_remove(registry, old);
    return true;

drop_user:
    user_drop_if_empty(registry, session->user);
free_session:
    mem_free(session);
    return false;
}

void registry_remove(struct registry *registry, struct registry_session *session)
{
    map_remove(&registry->sessions, &session->by_name);
    list_remove(&session->in_order);
    if (session->user) {
        list_remove(&session->of_user);
        session->user->session_count--;
        user_drop_if_empty(registry, session->user);
        session->user = NULL;
    }
    registry_session_unref(session);
}
