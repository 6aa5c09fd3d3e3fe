#include "tests/lib/fake_storage.h"

#include "proto/errors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake_storage *fake_of(struct storage *storage)
{
    return container_of(storage, struct fake_storage, storage);
}

static void *or_abort(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

static struct fake_call *record(struct storage *storage, enum fake_kind kind, struct storage_request *request)
{
    struct fake_storage *fake = fake_of(storage);
    struct fake_call *call = or_abort(calloc(1, sizeof *call));

    call->kind = kind;
    call->request = request;
    fake->made[kind]++;
    list_append(&fake->open, &call->link);
    return call;
}

static void copy_text(char *out, size_t size, struct slice text)
{
    if (text.len >= size)
        abort();
    if (text.len)
        memcpy(out, text.data, text.len);
    out[text.len] = '\0';
}

static void copy_bytes(struct fake_call *call, struct slice bytes)
{
    call->bytes = or_abort(malloc(bytes.len + 1));
    call->len = bytes.len;
    if (bytes.len)
        memcpy(call->bytes, bytes.data, bytes.len);
}

/* ---- what the broker calls ---- */

static void fake_start(struct storage *storage, const struct storage_events *events,
                       const struct storage_instance *instance)
{
    (void)instance;
    fake_of(storage)->events = *events;
    storage->state = STORAGE_UP;
}

static void fake_leave(struct storage *storage, struct storage_request *request)
{
    record(storage, FAKE_LEAVE, request);
}

static void fake_destroy(struct storage *storage)
{
    struct fake_storage *fake = fake_of(storage);

    storage->state = STORAGE_DOWN;
    while (!list_empty(&fake->open))
        fake_storage_answer(container_of(fake->open.next, struct fake_call, link), ERROR_CANCELLED, 0);
    free(fake);
}

static void fake_subscribe(struct storage *storage, struct slice channel, struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_SUBSCRIBE, request);

    copy_text(call->channel, sizeof call->channel, channel);
}

static void fake_unsubscribe(struct storage *storage, struct slice channel)
{
    (void)channel;
    fake_of(storage)->unsubscribed++;
}

static void fake_publish(struct storage *storage, struct slice channel, struct slice bytes,
                         struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_PUBLISH, request);

    copy_text(call->channel, sizeof call->channel, channel);
    copy_bytes(call, bytes);
}

static void fake_probe(struct storage *storage, struct storage_request *request)
{
    record(storage, FAKE_PROBE, request);
}

static void copy_session(struct fake_call *call, const struct storage_session *session)
{
    copy_text(call->name, sizeof call->name, session->name);
    copy_text(call->conn, sizeof call->conn, session->conn);
    copy_text(call->user, sizeof call->user, session->user);
    copy_text(call->agent, sizeof call->agent, session->agent);
}

static void fake_register(struct storage *storage, const struct storage_session *session, struct slice notice,
                          bool restore, struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_REGISTER, request);

    copy_session(call, session);
    copy_bytes(call, notice);
    call->restore = restore;
}

static void fake_unregister(struct storage *storage, const struct storage_session *session,
                            struct storage_request *request)
{
    copy_session(record(storage, FAKE_UNREGISTER, request), session);
}

static void fake_count(struct storage *storage, struct storage_request *request)
{
    record(storage, FAKE_COUNT, request);
}

static void fake_list_sessions(struct storage *storage, struct slice cursor, size_t limit,
                               struct storage_request *request)
{
    (void)cursor;
    (void)limit;
    record(storage, FAKE_LIST, request);
}

static void fake_list_by_name(struct storage *storage, struct slice name, struct storage_request *request)
{
    (void)name;
    record(storage, FAKE_LIST, request);
}

static void fake_peek_user(struct storage *storage, struct slice name, size_t limit,
                           struct storage_request *request)
{
    (void)limit;
    fake_list_by_name(storage, name, request);
}

static void fake_list_instances(struct storage *storage, struct storage_request *request)
{
    record(storage, FAKE_LIST, request);
}

static void record_channel(struct storage *storage, enum fake_kind kind, struct slice channel,
                           struct storage_request *request)
{
    struct fake_call *call = record(storage, kind, request);

    copy_text(call->channel, sizeof call->channel, channel);
}

static void fake_subscribe_pattern(struct storage *storage, struct slice pattern,
                                   struct storage_request *request)
{
    record_channel(storage, FAKE_SUBSCRIBE_PATTERN, pattern, request);
}

static void fake_unsubscribe_pattern(struct storage *storage, struct slice pattern)
{
    (void)pattern;
    fake_of(storage)->unsubscribed_patterns++;
}

static void fake_publish_with(struct storage *storage, struct slice channel,
                              const struct storage_publication *publication, struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_PUBLISH_WITH, request);

    copy_text(call->channel, sizeof call->channel, channel);
    copy_text(call->key, sizeof call->key, publication->key);
    copy_bytes(call, publication->bytes);
    call->ttl_ms = publication->ttl_ms;
    call->store = publication->store;
}

static void fake_history(struct storage *storage, struct slice channel,
                         const struct storage_history_query *query, struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_HISTORY, request);

    copy_text(call->channel, sizeof call->channel, channel);
    copy_text(call->offset, sizeof call->offset, query->offset);
    copy_text(call->epoch, sizeof call->epoch, query->epoch);
    call->limit = query->limit;
}

static void fake_presence_join(struct storage *storage, struct slice channel,
                               const struct storage_session *session, struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_PRESENCE_JOIN, request);

    copy_text(call->channel, sizeof call->channel, channel);
    copy_session(call, session);
}

static void fake_presence_leave(struct storage *storage, struct slice channel,
                                const struct storage_session *session, struct storage_request *request)
{
    struct fake_call *call = record(storage, FAKE_PRESENCE_LEAVE, request);

    copy_text(call->channel, sizeof call->channel, channel);
    copy_session(call, session);
}

static void fake_presence_list(struct storage *storage, struct slice channel, size_t limit,
                               struct storage_request *request)
{
    (void)limit;
    record_channel(storage, FAKE_PRESENCE_LIST, channel, request);
}

static void fake_list_topics(struct storage *storage, size_t limit, struct storage_request *request)
{
    (void)limit;
    record(storage, FAKE_LIST_TOPICS, request);
}

static const struct storage_ops ops = {
    .name = "fake",
    .start = fake_start,
    .leave = fake_leave,
    .destroy = fake_destroy,
    .subscribe = fake_subscribe,
    .unsubscribe = fake_unsubscribe,
    .publish = fake_publish,
    .probe = fake_probe,
    .register_session = fake_register,
    .unregister_session = fake_unregister,
    .count = fake_count,
    .list_sessions = fake_list_sessions,
    .find_session = fake_list_by_name,
    .list_user = fake_list_by_name,
    .peek_user = fake_peek_user,
    .list_instances = fake_list_instances,
    .subscribe_pattern = fake_subscribe_pattern,
    .unsubscribe_pattern = fake_unsubscribe_pattern,
    .publish_with = fake_publish_with,
    .history = fake_history,
    .presence_join = fake_presence_join,
    .presence_leave = fake_presence_leave,
    .presence_list = fake_presence_list,
    .list_topics = fake_list_topics,
};

struct fake_storage *fake_storage_create(void)
{
    struct fake_storage *fake = or_abort(calloc(1, sizeof *fake));

    fake->storage = (struct storage){.ops = &ops, .state = STORAGE_DOWN};
    list_init(&fake->open);
    return fake;
}

/* ---- what the test does ---- */

struct fake_call *fake_storage_next(const struct fake_storage *fake, enum fake_kind kind)
{
    list_for_each (link, &fake->open) {
        struct fake_call *call = container_of(link, struct fake_call, link);
        if (call->kind == kind)
            return call;
    }
    return NULL;
}

struct fake_call *fake_storage_of(const struct fake_storage *fake, enum fake_kind kind, struct slice conn)
{
    list_for_each (link, &fake->open) {
        struct fake_call *call = container_of(link, struct fake_call, link);
        if (call->kind == kind && slice_is(conn, call->conn))
            return call;
    }
    return NULL;
}

size_t fake_storage_open(const struct fake_storage *fake, enum fake_kind kind)
{
    size_t count = 0;

    list_for_each (link, &fake->open)
        count += container_of(link, struct fake_call, link)->kind == kind;
    return count;
}

bool fake_storage_answer_with(struct fake_call *call, int error, const struct storage_result *result)
{
    if (!call)
        return false;
    struct storage_request *request = call->request;
    list_remove(&call->link);
    free(call->bytes);
    free(call);
    request->on_done(request, error, result);
    return true;
}

bool fake_storage_answer(struct fake_call *call, int error, int64_t number)
{
    const struct storage_result result = {.number = error ? 0 : number};

    return fake_storage_answer_with(call, error, &result);
}

bool fake_storage_answer_next(struct fake_storage *fake, enum fake_kind kind, int error, int64_t number)
{
    return fake_storage_answer(fake_storage_next(fake, kind), error, number);
}

size_t fake_storage_answer_all(struct fake_storage *fake, enum fake_kind kind, int error, int64_t number)
{
    size_t count = fake_storage_open(fake, kind);

    for (size_t i = 0; i < count; i++)
        fake_storage_answer_next(fake, kind, error, number);
    return count;
}

void fake_storage_message(struct fake_storage *fake, const char *channel, struct slice bytes)
{
    fake->events.on_message(fake->events.data, slice_text(channel), bytes);
}

void fake_storage_down(struct fake_storage *fake)
{
    struct list open;

    fake->storage.state = STORAGE_DOWN;
    fake->events.on_state(fake->events.data, STORAGE_DOWN);
    list_init(&open);
    list_splice(&open, &fake->open);
    while (!list_empty(&open))
        fake_storage_answer(container_of(open.next, struct fake_call, link), ERROR_UNAVAILABLE, 0);
}

void fake_storage_up(struct fake_storage *fake)
{
    fake->storage.state = STORAGE_UP;
    fake->events.on_state(fake->events.data, STORAGE_UP);
}

void fake_storage_lose_registry(struct fake_storage *fake)
{
    fake->events.on_registry_lost(fake->events.data);
}
