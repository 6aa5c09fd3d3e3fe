#include "tests/lib/storage_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned calls_inside;
static size_t calls_ended;

static void *or_abort(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

static char *copy_text(struct slice slice)
{
    char *copy = or_abort(malloc(slice.len + 1));

    if (slice.len)
        memcpy(copy, slice.data, slice.len);
    copy[slice.len] = '\0';
    return copy;
}

/* ---- peers ---- */

static struct seen_message *grow(struct seen_message **messages, size_t *count, size_t *capacity)
{
    if (*count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 64;
        *messages = or_abort(realloc(*messages, *capacity * sizeof(struct seen_message)));
    }
    return &(*messages)[(*count)++];
}

static void on_message(void *data, struct slice channel, struct slice bytes)
{
    struct peer *peer = data;

    *grow(&peer->messages, &peer->message_count, &peer->message_capacity) =
        (struct seen_message){.channel = copy_text(channel), .bytes = copy_text(bytes), .len = bytes.len};
}

static void on_stray(void *data, struct slice bytes)
{
    struct peer *peer = data;

    peer->stray_count += slice_is(bytes, "stray");
}

static void on_pattern_message(void *data, struct slice channel, const struct slice *patterns, size_t count,
                               struct slice bytes)
{
    struct peer *peer = data;

    for (size_t i = 0; i < count; i++)
        *grow(&peer->matches, &peer->match_count, &peer->match_capacity) =
            (struct seen_message){.pattern = copy_text(patterns[i]),
                                  .channel = copy_text(channel),
                                  .bytes = copy_text(bytes),
                                  .len = bytes.len};
}

static void on_state(void *data, enum storage_state state)
{
    struct peer *peer = data;

    if (state == STORAGE_UP)
        peer->up_count++;
    else
        peer->down_count++;
}

static void on_registry_lost(void *data)
{
    struct peer *peer = data;

    peer->lost_count++;
}

static void on_reaped(void *data, struct slice instance, size_t session_count)
{
    struct peer *peer = data;

    peer->reaped_count++;
    peer->reaped_sessions = session_count;
    snprintf(peer->reaped_instance, sizeof peer->reaped_instance, "%.*s", (int)instance.len, instance.data);
}

void peer_start_as(struct peer *peer, struct event_base *base, struct storage *storage,
                   const struct storage_instance *instance)
{
    *peer = (struct peer){.base = base, .storage = storage};
    const struct storage_events events = {.on_message = on_message,
                                          .on_stray = on_stray,
                                          .on_pattern_message = on_pattern_message,
                                          .on_state = on_state,
                                          .on_registry_lost = on_registry_lost,
                                          .on_reaped = on_reaped,
                                          .data = peer};
    storage_start(storage, &events, instance);
}

void peer_start(struct peer *peer, struct event_base *base, struct storage *storage, const char *id,
                uint32_t heartbeat_ms, uint32_t lease_ms)
{
    const struct storage_instance instance = {.id = id,
                                              .host = "broker.example",
                                              .listen = "127.0.0.1:8080",
                                              .version = "1.2.3",
                                              .pid = getpid(),
                                              .started_at_ms = UINT64_C(1700000000123),
                                              .heartbeat_ms = heartbeat_ms,
                                              .lease_ms = lease_ms};
    peer_start_as(peer, base, storage, &instance);
}

static void messages_free(struct seen_message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(messages[i].pattern);
        free(messages[i].channel);
        free(messages[i].bytes);
    }
    free(messages);
}

void peer_close(struct peer *peer)
{
    storage_destroy(peer->storage);
    messages_free(peer->messages, peer->message_count);
    messages_free(peer->matches, peer->match_count);
    *peer = (struct peer){.base = peer->base};
}

size_t peer_count(const struct peer *peer, const char *channel, const struct seen_message **last)
{
    size_t count = 0;

    for (size_t i = 0; i < peer->message_count; i++) {
        if (strcmp(peer->messages[i].channel, channel) != 0)
            continue;
        count++;
        if (last)
            *last = &peer->messages[i];
    }
    return count;
}

bool seen_is(const struct seen_message *message, const char *channel, const char *bytes)
{
    return strcmp(message->channel, channel) == 0 && message->len == strlen(bytes) &&
           memcmp(message->bytes, bytes, message->len) == 0;
}

/* ---- calls ---- */

static void on_done(struct storage_request *request, int error, const struct storage_result *result)
{
    struct call *call = container_of(request, struct call, request);

    if (call->done++)
        return;
    call->inside = call->inside || calls_inside > 0;
    call->error = error;
    call->number = result->number;
    call->rank = ++calls_ended;
    call->cursor = copy_text(result->cursor);
    call->offset = copy_text(result->offset);
    call->epoch = copy_text(result->epoch);
    call->why = copy_text(result->why);
    call->repeated = result->repeated;
    call->records = or_abort(calloc(result->record_count + 1, sizeof(struct seen_record)));
    call->record_count = result->record_count;
    for (size_t i = 0; i < result->record_count; i++) {
        const struct storage_record *from = &result->records[i];
        struct seen_record *to = &call->records[i];
        to->key = copy_text(from->key);
        to->fields = or_abort(calloc(from->field_count + 1, sizeof(struct seen_field)));
        to->field_count = from->field_count;
        for (size_t j = 0; j < from->field_count; j++)
            to->fields[j] =
                (struct seen_field){copy_text(from->fields[j].name), copy_text(from->fields[j].value)};
    }
    if (call->then)
        call->then(call);
}

struct storage_request *call_begin(struct call *call)
{
    calls_inside++;
    return &call->request;
}

void call_end(void)
{
    calls_inside--;
}

struct call *call_new(struct list *calls)
{
    struct call *call = or_abort(calloc(1, sizeof *call));

    call->request.on_done = on_done;
    list_append(calls, &call->link);
    return call;
}

static void call_free(struct call *call)
{
    for (size_t i = 0; i < call->record_count; i++) {
        struct seen_record *record = &call->records[i];
        for (size_t j = 0; j < record->field_count; j++) {
            free(record->fields[j].name);
            free(record->fields[j].value);
        }
        free(record->fields);
        free(record->key);
    }
    free(call->records);
    free(call->cursor);
    free(call->offset);
    free(call->epoch);
    free(call->why);
    free(call);
}

void calls_free(struct list *calls)
{
    for (struct list *link = list_pop(calls); link; link = list_pop(calls))
        call_free(container_of(link, struct call, link));
}

const char *seen_value(const struct seen_record *record, const char *field)
{
    for (size_t i = 0; record && i < record->field_count; i++)
        if (strcmp(record->fields[i].name, field) == 0)
            return record->fields[i].value;
    return NULL;
}

const struct seen_record *call_record(const struct call *call, const char *key)
{
    for (size_t i = 0; i < call->record_count; i++)
        if (strcmp(call->records[i].key, key) == 0)
            return &call->records[i];
    return NULL;
}

struct storage_session make_session(const char *name, const char *conn, const char *user,
                                    uint64_t connected_at_ms)
{
    return (struct storage_session){.name = slice_text(name),
                                    .conn = slice_text(conn),
                                    .user = slice_text(user),
                                    .route = slice_text("/websocket/{uid}"),
                                    .face = slice_text("plain"),
                                    .remote = slice_text("192.0.2.1:50000"),
                                    .agent = slice_text("Mozilla/5.0 (test)"),
                                    .connected_at_ms = connected_at_ms};
}
