/* A request takes effect inside its call; what it leads to (messages, then its on_done) waits in one queue
 * that runs from an event on the base, in the order made. So everything on a channel is in order by
 * construction, and a publish costs one look-up and one copy.
 *
 * When memory is too short even for a place in the queue, the request itself waits in `starved` and is told
 * ERROR_NO_MEMORY; nothing of it took effect. */
#include "storage/memory/storage_memory.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/address.h"
#include "proto/errors.h"
#include "storage/memory/registry.h"
#include "storage/storage.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    POOLED_BYTES = 512, /* items with room for so many bytes are reused, larger ones freed */
    POOL_MAX = 1024,
    TURN_MAX = 10000, /* items run before sockets and timers are looked at again */
};

struct subscription {
    struct map_node node;
    unsigned refs; /* one by the map while `live`, one by every queued message */
    bool live;
    size_t len;
    char channel[];
};

/* A page of sessions, held until it was delivered. */
struct page {
    struct registry_session **held; /* behind the records */
    size_t count;
    char cursor[24];
    struct storage_record records[];
};

/* What the queue holds: a message, the end of a request, or both, delivered in that order. */
struct item {
    struct list link;
    struct storage_request *request; /* NULL: nobody waits */
    struct subscription *to;         /* who receives `bytes`; NULL: nobody. A reference */
    bool counts_receiver;            /* the request's number is whether the message was received */
    bool lists_instance;
    int error;
    int64_t number;
    struct page *page; /* owned; NULL: none */
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
    struct registry registry;
    struct list queue;
    struct list starved;
    struct list pool;
    size_t pool_count;
};

static struct memory *memory_of(struct storage *storage)
{
    return container_of(storage, struct memory, storage);
}

/* ---- the queue ---- */

static void schedule_turn(struct memory *memory)
{
    if (memory->turn_pending)
        return;
    memory->turn_pending = true;
    event_active(memory->turn, EV_TIMEOUT, 0);
}

static struct item *item_create(struct memory *memory, size_t len)
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

static void subscription_unref(struct subscription *subscription)
{
    if (subscription && --subscription->refs == 0)
        mem_free(subscription);
}

static void page_free(struct page *page)
{
    for (size_t i = 0; page && i < page->count; i++)
        registry_session_unref(page->held[i]);
    mem_free(page);
}

static void item_free(struct memory *memory, struct item *item)
{
    subscription_unref(item->to);
    page_free(item->page);
    if (item->capacity == POOLED_BYTES && memory->pool_count < POOL_MAX) {
        list_prepend(&memory->pool, &item->link);
        memory->pool_count++;
    } else {
        mem_free(item);
    }
}

static void refuse_starved(struct memory *memory, struct storage_request *request)
{
    list_append(&memory->starved, &request->link);
    schedule_turn(memory);
}

static void enqueue(struct memory *memory, struct item *item, struct storage_request *request)
{
    item->request = request;
    list_append(&memory->queue, &item->link);
    schedule_turn(memory);
}

/* An item for the request; NULL when the storage is down or memory is short, and then the request is seen
 * to. */
static struct item *item_for(struct memory *memory, struct storage_request *request, size_t len)
{
    bool up = memory->storage.state == STORAGE_UP;
    struct item *item = item_create(memory, up ? len : 0);

    list_init(&request->link);
    if (!item) {
        refuse_starved(memory, request);
        return NULL;
    }
    if (up)
        return item;
    item->error = ERROR_UNAVAILABLE;
    enqueue(memory, item, request);
    return NULL;
}

static void call_back(struct storage_request *request, int error, const struct storage_result *result)
{
    static const struct storage_result empty = {.number = 0};

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

static void run_item(struct memory *memory, struct item *item)
{
    bool received = item->to && item->to->live;

    if (received)
        memory->events.on_message(memory->events.data, slice_from(item->to->channel, item->to->len),
                                  slice_from(item->bytes, item->len));
    if (item->lists_instance) {
        call_back_instance(memory, item);
    } else {
        struct storage_result result = {.number = item->counts_receiver ? received : item->number};
        if (item->page) {
            result.records = item->page->records;
            result.record_count = item->page->count;
            result.cursor = slice_text(item->page->cursor);
        }
        call_back(item->request, item->error, &result);
    }
    item_free(memory, item);
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

static void on_turn(evutil_socket_t fd, short what, void *data)
{
    static const struct timeval at_once = {0};
    struct memory *memory = data;

    (void)fd;
    (void)what;
    if (memory->starting) {
        memory->starting = false;
        memory->storage.state = STORAGE_UP;
        memory->events.on_state(memory->events.data, STORAGE_UP);
    }
    for (size_t i = 0; i < TURN_MAX && !list_empty(&memory->queue); i++)
        run_item(memory, container_of(list_pop(&memory->queue), struct item, link));
    run_starved(memory);
    memory->turn_pending = !list_empty(&memory->queue) || !list_empty(&memory->starved);
    if (memory->turn_pending)
        event_add(memory->turn, &at_once);
}

/* ---- life ---- */

static struct subscription *subscription_find(const struct memory *memory, struct slice channel)
{
    struct map_node *node = map_find(&memory->subscriptions, channel.data, channel.len);

    return node ? container_of(node, struct subscription, node) : NULL;
}

/* True when the channel is subscribed; false when memory is short. */
static bool subscription_add(struct memory *memory, struct slice channel)
{
    if (subscription_find(memory, channel))
        return true;
    struct subscription *subscription = mem_alloc(sizeof *subscription + channel.len);
    if (!subscription)
        return false;
    *subscription = (struct subscription){.refs = 1, .live = true, .len = channel.len};
    memcpy(subscription->channel, channel.data, channel.len);
    if (map_insert(&memory->subscriptions, &subscription->node, subscription->channel, channel.len))
        return true;
    mem_free(subscription);
    return false;
}

static void subscription_end(struct memory *memory, struct subscription *subscription)
{
    map_remove(&memory->subscriptions, &subscription->node);
    subscription->live = false;
    subscription_unref(subscription);
}

static bool copy_instance(struct memory *memory, const struct storage_instance *instance)
{
    const char **texts[] = {&memory->instance.id, &memory->instance.host, &memory->instance.listen,
                            &memory->instance.version};

    memory->instance = *instance;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        memory->texts[i] = mem_strdup(*texts[i]);
        if (*texts[i] && !memory->texts[i])
            return false;
        *texts[i] = memory->texts[i];
    }
    return true;
}

static bool subscribe_own(struct memory *memory)
{
    struct address own = {.kind = ADDRESS_INSTANCE, .name = slice_text(memory->instance.id)};
    char channel[CHANNEL_MAX];
    size_t len = address_channel(&own, channel);

    return subscription_add(memory, slice_from(channel, len)) &&
           subscription_add(memory, slice_text("control"));
}

static void memory_start(struct storage *storage, const struct storage_events *events,
                         const struct storage_instance *instance)
{
    struct memory *memory = memory_of(storage);

    memory->events = *events;
    const char *wrong = address_check_name(slice_text(instance->id));
    if (!wrong && (!copy_instance(memory, instance) || !subscribe_own(memory)))
        wrong = error_find(ERROR_NO_MEMORY)->text;
    if (wrong) {
        log_error("the storage can not start", log_str("id", instance->id), log_str("why", wrong));
        return;
    }
    memory->registered = true;
    memory->starting = true;
    schedule_turn(memory);
}

static void memory_leave(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    memory->registered = false;
    enqueue(memory, item, request);
}

/* Requests made by the callbacks end up in the same lists, and are cancelled too. */
static void cancel_all(struct memory *memory)
{
    memory->storage.state = STORAGE_DOWN;
    for (;;) {
        struct list *link = list_pop(&memory->queue);
        if (link) {
            struct item *item = container_of(link, struct item, link);
            call_back(item->request, ERROR_CANCELLED, NULL);
            item_free(memory, item);
        } else if ((link = list_pop(&memory->starved))) {
            call_back(container_of(link, struct storage_request, link), ERROR_CANCELLED, NULL);
        } else {
            return;
        }
    }
}

static void memory_destroy(struct storage *storage)
{
    struct memory *memory = memory_of(storage);

    cancel_all(memory);
    event_free(memory->turn);
    registry_close(&memory->registry);
    for (struct map_node *node = map_next(&memory->subscriptions, NULL), *next; node; node = next) {
        next = map_next(&memory->subscriptions, node);
        subscription_end(memory, container_of(node, struct subscription, node));
    }
    map_close(&memory->subscriptions);
    for (struct list *link = list_pop(&memory->pool); link; link = list_pop(&memory->pool))
        mem_free(container_of(link, struct item, link));
    for (size_t i = 0; i < sizeof memory->texts / sizeof *memory->texts; i++)
        mem_free(memory->texts[i]);
    mem_free(memory);
}

/* ---- bus ---- */

static void memory_subscribe(struct storage *storage, struct slice channel, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    if (!subscription_add(memory, channel))
        item->error = ERROR_NO_MEMORY;
    enqueue(memory, item, request);
}

static void memory_unsubscribe(struct storage *storage, struct slice channel)
{
    struct memory *memory = memory_of(storage);
    struct subscription *subscription = subscription_find(memory, channel);

    if (subscription)
        subscription_end(memory, subscription);
}

/* Makes the item carry `bytes`, for which it has room, to the channel's subscriber, if there is one. */
static void address_item(struct memory *memory, struct item *item, struct slice channel, struct slice bytes)
{
    item->to = subscription_find(memory, channel);
    if (!item->to)
        return;
    item->to->refs++;
    if (bytes.len)
        memcpy(item->bytes, bytes.data, bytes.len);
}

static void memory_publish(struct storage *storage, struct slice channel, struct slice bytes,
                           struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, bytes.len);

    if (!item)
        return;
    item->counts_receiver = true;
    address_item(memory, item, channel, bytes);
    enqueue(memory, item, request);
}

static void memory_probe(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (item)
        enqueue(memory, item, request);
}

/* ---- registry ---- */

static bool holds(const struct registry_session *session, struct slice conn)
{
    return session && slice_equal(session->fields[REGISTRY_CONN].value, conn);
}

static bool valid(const struct storage_session *session)
{
    return address_check_name(session->name) == NULL && session->conn.len &&
           (!session->user.len || address_check_name(session->user) == NULL);
}

static void memory_register(struct storage *storage, const struct storage_session *session,
                            struct slice notice, bool restore, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, notice.len);

    if (!item)
        return;
    struct registry_session *old = registry_find(&memory->registry, session->name);
    bool ours = holds(old, session->conn);
    if (!valid(session)) {
        item->error = ERROR_BAD_REQUEST;
    } else if (restore && old && !ours && old->connected_at_ms > session->connected_at_ms) {
        item->error = ERROR_CONFLICT;
    } else if (!registry_put(&memory->registry, session, memory->instance.id, old)) {
        item->error = ERROR_NO_MEMORY;
    } else {
        item->number = old && !ours ? STORAGE_REPLACED_SOMEBODY : STORAGE_REPLACED_NOBODY;
        if (notice.len && !(restore && ours)) {
            struct address address = {.kind = ADDRESS_SESSION, .name = session->name};
            char channel[CHANNEL_MAX];
            size_t len = address_channel(&address, channel);
            address_item(memory, item, slice_from(channel, len), notice);
        }
    }
    enqueue(memory, item, request);
}

static void memory_unregister(struct storage *storage, const struct storage_session *session,
                              struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_session *held = registry_find(&memory->registry, session->name);
    if (holds(held, session->conn)) {
        registry_remove(&memory->registry, held);
        item->number = 1;
    }
    enqueue(memory, item, request);
}

static void memory_count(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    item->number = (int64_t)memory->registry.sessions.count;
    enqueue(memory, item, request);
}

/* Room for `count` sessions; an empty page. NULL when memory is short. */
static struct page *page_create(size_t count)
{
    size_t each = sizeof(struct storage_record) + sizeof(struct registry_session *);

    if (count > (SIZE_MAX - sizeof(struct page)) / each)
        return NULL;
    struct page *page = mem_alloc(sizeof *page + count * each);
    if (!page)
        return NULL;
    *page = (struct page){.held = (struct registry_session **)(void *)&page->records[count]};
    return page;
}

static void page_add(struct page *page, struct registry_session *session, enum registry_field first,
                     size_t field_count)
{
    page->records[page->count] = (struct storage_record){
        .key = session->name, .fields = &session->fields[first], .field_count = field_count};
    page->held[page->count++] = registry_session_ref(session);
}

static void memory_list_sessions(struct storage *storage, struct slice cursor, size_t limit,
                                 struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct registry *registry = &memory->registry;
    char digits[24] = "";
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    if (cursor.len && cursor.len < sizeof digits)
        memcpy(digits, cursor.data, cursor.len);
    if (limit > registry->sessions.count)
        limit = registry->sessions.count;
    item->page = page_create(limit);
    if (!item->page) {
        item->error = ERROR_NO_MEMORY;
        enqueue(memory, item, request);
        return;
    }
    struct registry_session *session = registry_after(registry, strtoull(digits, NULL, 10));
    struct list *at = session ? &session->in_order : &registry->order;
    for (; at != &registry->order && item->page->count < limit; at = at->next) {
        session = container_of(at, struct registry_session, in_order);
        page_add(item->page, session, REGISTRY_CONN, REGISTRY_FIELD_COUNT);
    }
    if (at != &registry->order && item->page->count)
        snprintf(item->page->cursor, sizeof item->page->cursor, "%" PRIu64, session->sequence);
    enqueue(memory, item, request);
}

static void memory_find_session(struct storage *storage, struct slice name, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_session *session = registry_find(&memory->registry, name);
    if (session) {
        item->page = page_create(1);
        if (item->page)
            page_add(item->page, session, REGISTRY_CONN, REGISTRY_FIELD_COUNT);
        else
            item->error = ERROR_NO_MEMORY;
    }
    enqueue(memory, item, request);
}

static void memory_list_user(struct storage *storage, struct slice name, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_user *user = registry_find_user(&memory->registry, name);
    if (user) {
        item->page = page_create(user->session_count);
        if (!item->page)
            item->error = ERROR_NO_MEMORY;
    }
    if (item->page) {
        list_for_each (pos, &user->sessions)
            page_add(item->page, container_of(pos, struct registry_session, of_user), REGISTRY_INSTANCE, 1);
    }
    enqueue(memory, item, request);
}

static void memory_list_instances(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = item_for(memory, request, 0);

    if (!item)
        return;
    item->lists_instance = memory->registered;
    enqueue(memory, item, request);
}

static const struct storage_ops ops = {
    .name = "memory",
    .start = memory_start,
    .leave = memory_leave,
    .destroy = memory_destroy,
    .subscribe = memory_subscribe,
    .unsubscribe = memory_unsubscribe,
    .publish = memory_publish,
    .probe = memory_probe,
    .register_session = memory_register,
    .unregister_session = memory_unregister,
    .count = memory_count,
    .list_sessions = memory_list_sessions,
    .find_session = memory_find_session,
    .list_user = memory_list_user,
    .list_instances = memory_list_instances,
};

struct storage *storage_memory_create(struct event_base *base)
{
    struct memory *memory = mem_calloc(1, sizeof *memory);

    if (!memory)
        return NULL;
    memory->storage = (struct storage){.ops = &ops, .state = STORAGE_DOWN};
    map_init(&memory->subscriptions);
    registry_init(&memory->registry);
    list_init(&memory->queue);
    list_init(&memory->starved);
    list_init(&memory->pool);
    memory->turn = event_new(base, -1, 0, on_turn, memory);
    if (memory->turn)
        return &memory->storage;
    mem_free(memory);
    return NULL;
}
