#include "storage/redis/storage_redis.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <event2/event.h>
#include <stdio.h>

static void on_later(evutil_socket_t fd, short what, void *data)
{
    (void)fd, (void)what;
    redis_later_run(data);
}

static bool copy_instance(struct redis_storage *storage, const struct storage_instance *instance)
{
    struct storage_instance *own = &storage->instance;

    *own = *instance;
    if (!own->history_count)
        own->history_count = STORAGE_HISTORY_COUNT;
    if (!own->history_age_ms)
        own->history_age_ms = STORAGE_HISTORY_AGE_MS;
    own->id = mem_strdup(instance->id);
    own->host = mem_strdup(instance->host ? instance->host : "");
    own->listen = mem_strdup(instance->listen ? instance->listen : "");
    own->version = mem_strdup(instance->version ? instance->version : "");
    return own->id && own->host && own->listen && own->version;
}

/* CLIENT SETNAME takes no spaces or control characters. */
static void name_connection(char out[static 96], const char *id, const char *what)
{
    snprintf(out, 96, "switchboard:%.60s:%s", id, what);
    for (char *at = out; *at; at++)
        if (*at <= ' ' || *at > '~')
            *at = '_';
}

static void redis_start(struct storage *base, const struct storage_events *events,
                        const struct storage_instance *instance)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct address own = {.kind = ADDRESS_INSTANCE, .name = slice_text(instance->id)};

    storage->events = *events;
    if (address_check_name(own.name) != NULL || !copy_instance(storage, instance)) {
        log_error("the storage can not start", log_str("id", instance->id),
                  log_str("why", "the instance id is not a valid name, or memory is short"));
        return;
    }
    storage->own_channel_len = address_channel(&own, storage->own_channel);
    if (!redis_bus_hold(storage, slice_from(storage->own_channel, storage->own_channel_len)) ||
        !redis_bus_hold(storage, slice_text("patterns")) || !redis_bus_hold(storage, slice_text("control"))) {
        log_error("the storage can not start", log_str("why", "memory is short"));
        return;
    }
    name_connection(storage->names[0], instance->id, "commands");
    name_connection(storage->names[1], instance->id, "bus");
    redis_topology_start(&storage->topology, storage->names[0], storage->names[1]);
}

static void storage_free(struct redis_storage *storage)
{
    redis_topology_close(&storage->topology);
    redis_direct_close(storage);
    redis_interest_close(storage);
    redis_bus_close(storage);
    redis_probe_close(storage);
    redis_lease_close(storage);
    redis_registry_close(storage);
    if (storage->later_event)
        event_free(storage->later_event);
    mem_free((char *)storage->instance.id);
    mem_free((char *)storage->instance.host);
    mem_free((char *)storage->instance.listen);
    mem_free((char *)storage->instance.version);
    mem_free(storage->prefix);
    mem_free(storage);
}

static void redis_destroy(struct storage *base)
{
    struct redis_storage *storage = redis_storage_of(base);

    storage->destroyed = true;
    redis_topology_stop(&storage->topology, ERROR_CANCELLED);
    redis_direct_cancel(storage);
    redis_later_cancel(storage);
    storage_free(storage);
}

static const struct storage_ops redis_ops = {.name = "redis",
                                             .start = redis_start,
                                             .leave = redis_reap_leave,
                                             .destroy = redis_destroy,
                                             .subscribe = redis_bus_subscribe,
                                             .unsubscribe = redis_bus_unsubscribe,
                                             .publish = redis_bus_publish,
                                             .subscribe_pattern = redis_pattern_subscribe,
                                             .unsubscribe_pattern = redis_pattern_unsubscribe,
                                             .publish_with = redis_publish_with,
                                             .history = redis_history_read,
                                             .presence_join = redis_presence_join,
                                             .presence_leave = redis_presence_leave,
                                             .presence_list = redis_presence_list,
                                             .list_topics = redis_presence_topics,
                                             .probe = redis_probe_request,
                                             .register_session = redis_registry_register,
                                             .unregister_session = redis_registry_unregister,
                                             .count = redis_lists_count,
                                             .list_sessions = redis_lists_sessions,
                                             .find_session = redis_lists_find,
                                             .list_user = redis_lists_user,
                                             .peek_user = redis_lists_peek_user,
                                             .list_instances = redis_lists_instances};

static bool storage_init(struct redis_storage *storage, struct redis_server *server,
                         const struct storage_redis_options *options)
{
    const struct redis_topology_events events = {
        .on_ready = redis_setup_on_ready, .on_down = redis_setup_on_down, .data = storage};
    const struct redis_conn_events commands = {.on_turn_end = redis_registry_on_turn_end};
    const struct redis_conn_events subscriptions = {.on_message = redis_bus_on_message,
                                                    .on_turn_end = redis_bus_on_turn_end};

    list_init(&storage->reaps);
    list_init(&storage->counting.current);
    list_init(&storage->counting.next);
    for (size_t i = 0; i < REDIS_LATER_COUNT; i++)
        list_init(&storage->later[i]);
    map_init(&storage->registry.held);
    list_init(&storage->registry.contests);
    redis_bus_init(storage);
    bool topology = redis_topology_init(&storage->topology, storage->loop, server, options->timeout_ms,
                                        options->backoff_max_ms, &events, &commands, &subscriptions);
    redis_scripts_init(&storage->scripts, &storage->topology.commands);
    storage->later_event = event_new(storage->loop, -1, 0, on_later, storage);
    storage->prefix = mem_strdup(options->prefix);
    storage->prefix_len = strlen(options->prefix);
    storage->timeout_ms = options->timeout_ms;
    bool parts = redis_interest_init(storage) && redis_probe_init(storage) && redis_lease_init(storage) &&
                 redis_direct_init(storage, !options->always_through_redis);
    return topology && parts && storage->later_event && storage->prefix;
}

struct storage *storage_redis_create(struct event_base *base, const struct storage_redis_options *options)
{
    struct redis_server server;
    struct redis_storage *storage = NULL;

    if (redis_server_init(&server, options) && strlen(options->prefix) <= REDIS_PREFIX_MAX)
        storage = mem_calloc(1, sizeof *storage);
    if (storage) {
        storage->storage = (struct storage){.ops = &redis_ops, .state = STORAGE_DOWN};
        storage->loop = base;
        if (storage_init(storage, &server, options))
            return &storage->storage;
        storage_free(storage);
    }
    redis_server_close(&server);
    return NULL;
}
