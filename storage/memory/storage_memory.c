#include "storage/memory/storage_memory.h"

#include "base/alloc.h"
#include "base/log.h"
#include "proto/address.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"

#include <event2/event.h>

static void on_turn(evutil_socket_t fd, short what, void *data)
{
    struct memory *memory = data;

    (void)fd;
    (void)what;
    if (memory->starting) {
        memory->starting = false;
        memory->storage.state = STORAGE_UP;
        memory->events.on_state(memory->events.data, STORAGE_UP);
    }
    memory_run_turn(memory);
}

static bool copy_instance(struct memory *memory, const struct storage_instance *instance)
{
    const char **texts[] = {&memory->instance.id, &memory->instance.host, &memory->instance.listen,
                            &memory->instance.version};

    memory->instance = *instance;
    if (!memory->instance.history_count)
        memory->instance.history_count = STORAGE_HISTORY_COUNT;
    if (!memory->instance.history_age_ms)
        memory->instance.history_age_ms = STORAGE_HISTORY_AGE_MS;
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

    return memory_bus_hold(memory, slice_from(channel, len)) &&
           memory_bus_hold(memory, slice_text("control"));
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
    memory_schedule_turn(memory);
}

static void memory_leave(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    memory->registered = false;
    memory_enqueue(memory, item, request);
}

static void memory_destroy(struct storage *storage)
{
    struct memory *memory = memory_of(storage);

    memory_cancel_all(memory);
    event_free(memory->turn);
    memory_presence_close(memory);
    memory_history_close(memory);
    memory_stored_close(memory);
    memory_publish_close(memory);
    registry_close(&memory->registry);
    memory_bus_close(memory);
    for (struct list *link = list_pop(&memory->pool); link; link = list_pop(&memory->pool))
        mem_free(container_of(link, struct item, link));
    for (size_t i = 0; i < sizeof memory->texts / sizeof *memory->texts; i++)
        mem_free(memory->texts[i]);
    mem_free(memory);
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
    .subscribe_pattern = memory_subscribe_pattern,
    .unsubscribe_pattern = memory_unsubscribe_pattern,
    .publish_with = memory_publish_with,
    .history = memory_history,
    .presence_join = memory_presence_join,
    .presence_leave = memory_presence_leave,
    .presence_list = memory_presence_list,
    .list_topics = memory_list_topics,
    .register_session = memory_register,
    .unregister_session = memory_unregister,
    .count = memory_count,
    .list_sessions = memory_list_sessions,
    .find_session = memory_find_session,
    .list_user = memory_list_user,
    .peek_user = memory_peek_user,
    .list_instances = memory_list_instances,
};

struct storage *storage_memory_create(struct event_base *base)
{
    struct memory *memory = mem_calloc(1, sizeof *memory);

    if (!memory)
        return NULL;
    memory->storage = (struct storage){.ops = &ops, .state = STORAGE_DOWN};
    memory_bus_init(memory);
    memory_stored_init(memory);
    memory_history_init(memory);
    memory_publish_init(memory);
    memory_presence_init(memory);
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
