#include "base/alloc.h"
#include "base/clock.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    POOLED_BYTES = 512, /* items with room for so many bytes are reused, larger ones freed */
    POOL_MAX = 1024,
    TURN_MAX = 10000, /* items run before sockets and timers are looked at again */
};

void memory_schedule_turn(struct memory *memory)
{
    if (memory->turn_pending)
        return;
    memory->turn_pending = true;
    event_active(memory->turn, EV_TIMEOUT, 0);
}

/* ---- items ---- */

struct item *memory_item_create(struct memory *memory, size_t len)
{
    struct item *item;

    if (len <= POOLED_BYTES && memory->pool_count) {
        item = container_of(list_pop(&memory->pool), struct item, link);
        memory->pool_count--;
    } else {
        size_t capacity = len < POOLED_BYTES ? POOLED_BYTES : len;
        item = len < SIZE_MAX - sizeof *item ? mem_alloc(sizeof *item + capacity) : NULL;
        if (!item)
            return NULL;
        item->capacity = capacity;
    }
    *item = (struct item){.capacity = item->capacity, .len = len};
    list_init(&item->link);
    return item;
}

static void page_free(struct page *page)
{
    if (!page)
        return;
    for (size_t i = 0; i < page->count; i++)
        if (page->held[i])
            page->unref(page->held[i]);
    mem_free(page->text);
    mem_free(page);
}

void memory_item_free(struct memory *memory, struct item *item)
{
    memory_subscription_unref(item->to);
    memory_audience_free(item->audience);
    memory_outcome_unref(item->outcome);
    page_free(item->page);
    if (item->capacity == POOLED_BYTES && memory->pool_count < POOL_MAX) {
        list_prepend(&memory->pool, &item->link);
        memory->pool_count++;
    } else {
        mem_free(item);
    }
}

void memory_enqueue(struct memory *memory, struct item *item, struct storage_request *request)
{
    item->request = request;
    list_append(&memory->queue, &item->link);
    memory_schedule_turn(memory);
}

struct item *memory_item_for(struct memory *memory, struct storage_request *request, size_t len)
{
    bool up = memory->storage.state == STORAGE_UP;
    struct item *item = memory_item_create(memory, up ? len : 0);

    list_init(&request->link);
    if (!item) {
        list_append(&memory->starved, &request->link);
        memory_schedule_turn(memory);
        return NULL;
    }
    if (up)
        return item;
    item->error = ERROR_UNAVAILABLE;
    memory_enqueue(memory, item, request);
    return NULL;
}

/* ---- pages ---- */

struct page *memory_page_create(size_t count, void (*unref)(void *held))
{
    size_t each = sizeof(struct storage_record) + sizeof(void *);

    if (count > (SIZE_MAX - sizeof(struct page)) / each)
        return NULL;
    struct page *page = mem_alloc(sizeof *page + count * each);
    if (!page)
        return NULL;
    *page = (struct page){.held = (void **)(void *)&page->records[count], .unref = unref};
    return page;
}

void memory_page_add(struct page *page, struct storage_record record, void *held)
{
    page->records[page->count] = record;
    page->held[page->count++] = held;
}

static void unref_session(void *session)
{
    registry_session_unref(session);
}

struct page *memory_session_page_create(size_t count)
{
    return memory_page_create(count, unref_session);
}

void memory_page_add_session(struct page *page, struct registry_session *session, enum registry_field first,
                             size_t field_count)
{
    const struct storage_record record = {
        .key = session->name, .fields = &session->fields[first], .field_count = field_count};

    memory_page_add(page, record, registry_session_ref(session));
}

/* ---- turns ---- */

static void call_back(struct storage_request *request, int error, const struct storage_result *result)
{
    const struct storage_result empty = {.why = error && result ? result->why : slice_from(NULL, 0)};

    if (request)
        request->on_done(request, error, error ? &empty : result);
}

/* This instance's row, as of now. */
static void call_back_instance(struct memory *memory, struct item *item)
{
    const struct storage_instance *instance = &memory->instance;
    char pid[24], sessions[24], started_at[CLOCK_ISO8601_SIZE], heartbeat_at[CLOCK_ISO8601_SIZE];

    snprintf(pid, sizeof pid, "%" PRId64, instance->pid);
    snprintf(sessions, sizeof sessions, "%zu", memory->registry.sessions.count);
    clock_iso8601(instance->started_at_ms, started_at);
    clock_iso8601(clock_wall_ms(), heartbeat_at);
    const struct storage_field fields[] = {
        {slice_text("host"), slice_text(instance->host)},
        {slice_text("pid"), slice_text(pid)},
        {slice_text("listen"), slice_text(instance->listen)},
        {slice_text("version"), slice_text(instance->version)},
        {slice_text("started_at"), slice_text(started_at)},
        {slice_text("sessions"), slice_text(sessions)},
        {slice_text("heartbeat_at"), slice_text(heartbeat_at)},
    };
    const struct storage_record record = {slice_text(instance->id), fields, sizeof fields / sizeof *fields};
    const struct storage_result result = {.records = &record, .record_count = 1};
    call_back(item->request, ERROR_NONE, &result);
}

/* True when somebody received the item's message. */
static bool deliver(struct memory *memory, const struct item *item)
{
    const struct storage_events *events = &memory->events;
    const struct audience *audience = item->audience;
    struct slice bytes = slice_from(item->bytes, item->len);
    bool received = item->to && item->to->live;

    if (received)
        events->on_message(events->data, slice_from(item->to->channel, item->to->len), bytes);
    size_t live = 0;
    for (size_t i = 0; audience && i < audience->count; i++) {
        const struct subscription *pattern = audience->patterns[i];
        if (pattern->live)
            audience->live[live++] = slice_from(pattern->channel, pattern->len);
    }
    if (live)
        events->on_pattern_message(events->data, audience->channel, audience->live, live, bytes);
    return received || live;
}

static void run_item(struct memory *memory, struct item *item)
{
    bool received = deliver(memory, item);
    struct storage_result result = {.number = item->counts_receiver ? received : item->number,
                                    .why = slice_text(item->why)};
    const struct page *page = item->page;
    struct outcome *outcome = item->outcome;

    if (item->lists_instance) {
        call_back_instance(memory, item);
        memory_item_free(memory, item);
        return;
    }
    if (page) {
        result.records = page->records;
        result.record_count = page->count;
        result.cursor = slice_text(page->cursor);
        result.offset = slice_text(page->offset);
        result.epoch = slice_text(page->epoch);
    }
    if (outcome) {
        if (!item->repeats)
            outcome->number = received;
        result.number = outcome->number;
        result.offset = slice_text(outcome->offset);
        result.epoch = slice_text(outcome->epoch);
        result.repeated = item->repeats;
    }
    call_back(item->request, item->error, &result);
    memory_item_free(memory, item);
}

/* Only those there now: one that asks again at once must wait for the next turn. */
static void run_starved(struct memory *memory)
{
    struct list starved;

    list_init(&starved);
    list_splice(&starved, &memory->starved);
    for (struct list *link = list_pop(&starved); link; link = list_pop(&starved))
        call_back(container_of(link, struct storage_request, link), ERROR_NO_MEMORY, NULL);
}

void memory_run_turn(struct memory *memory)
{
    static const struct timeval at_once = {0};

    for (size_t i = 0; i < TURN_MAX && !list_empty(&memory->queue); i++)
        run_item(memory, container_of(list_pop(&memory->queue), struct item, link));
    run_starved(memory);
    memory->turn_pending = !list_empty(&memory->queue) || !list_empty(&memory->starved);
    if (memory->turn_pending)
        event_add(memory->turn, &at_once);
}

void memory_cancel_all(struct memory *memory)
{
    memory->storage.state = STORAGE_DOWN;
    for (;;) {
        struct list *link = list_pop(&memory->queue);
        if (link) {
            struct item *item = container_of(link, struct item, link);
            call_back(item->request, ERROR_CANCELLED, NULL);
            memory_item_free(memory, item);
        } else if ((link = list_pop(&memory->starved))) {
            call_back(container_of(link, struct storage_request, link), ERROR_CANCELLED, NULL);
        } else {
            return;
        }
    }
}
