#include "broker/broker.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/api.h"
#include "broker/budget.h"
#include "broker/config.h"
#include "broker/connect.h"
#include "broker/keys.h"
#include "broker/listener.h"
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/reads.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "broker/session.h"
#include "broker/ws.h"
#include "proto/address.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "storage/memory/storage_memory.h"
#include "storage/redis/storage_redis.h"
#include "storage/storage.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    SPARE_DESCRIPTORS = 128,  /* kept from clients: for Redis, the API and ourselves */
    OTHER_DESCRIPTORS = 2048, /* what these may use, and a reload add, where the hard limit allows it */
    DRAIN_TICK_MS = 100,
    HOST_MAX = 48,
};

struct broker {
    struct loop *loop;
    struct config *config; /* a reference */
    struct metrics metrics;
    struct budget budget;
    struct storage *storage;
    struct router *router;
    struct reads reads;
    struct keys keys;
    struct requests *requests;
    struct sessions *sessions;
    struct connect_routes *connect;
    struct ws_server *ws;
    struct api *api; /* NULL: switched off */
    unsigned worker;
    size_t descriptors; /* the limit of open files */
    char instance[80], host[HOST_MAX];
    uint64_t started_at_ms; /* wall time */

    struct log_pause strays; /* lines about what is no message on this instance's channel */

    bool draining, leaving;
    struct event *drain_timer;
    uint64_t drain_ends_ms, drain_gives_up_ms; /* monotonic */
    struct storage_request leave;
};

/* ---- what the storage reports ---- */

/* What comes on this instance's own channel: answers to what HTTP callers asked, and orders. */
static void on_instance_message(struct broker *broker, struct slice bytes)
{
    struct message_fields fields;
    const char *wrong = envelope_decode(bytes, &fields);
    uint64_t left_out;

    if (wrong) {
        broker->metrics.bus_invalid++;
        if (log_pause_is_over(&broker->strays, &left_out))
            log_warn("bus message dropped", log_str("channel", "instance"), log_str("reason", wrong),
                     log_int("left_out", (int64_t)left_out));
        return;
    }
    switch (fields.kind) {
    case MESSAGE_REPLY:
    case MESSAGE_REFUSED:
    case MESSAGE_GONE:
        requests_on_answer(broker->requests, &fields);
        break;
    case MESSAGE_CONTROL:
        if (slice_is(fields.payload, ORDER_DRAIN)) {
            log_info("ordered to drain", log_bytes("from", fields.from.data, fields.from.len));
            broker_drain(broker);
        }
        break;
    default:
        break;
    }
}

static void on_message(void *data, struct slice channel, struct slice bytes)
{
    struct broker *broker = data;
    struct address address;
    char name[ADDRESS_NAME_MAX + 1];
    static const char prefix[] = "instance:";

    if (channel.len > sizeof prefix && memcmp(channel.data, prefix, sizeof prefix - 1) == 0) {
        if (address_from_channel(channel, &address, name) && slice_is(address.name, broker->instance))
            on_instance_message(broker, bytes);
    } else {
        router_on_message(broker->router, channel, bytes);
    }
}

/* A reply crossed with the end of the one who asked: its sender counts on its having arrived. */
static void on_stray(void *data, struct slice bytes)
{
    struct broker *broker = data;
    struct message_fields fields;

    if (envelope_kind(bytes) == MESSAGE_REPLY && !envelope_decode(bytes, &fields))
        requests_return_answer(broker->requests, &fields);
}

static void on_pattern_message(void *data, struct slice channel, const struct slice *patterns, size_t count,
                               struct slice bytes)
{
    struct broker *broker = data;

    router_on_pattern_message(broker->router, channel, patterns, count, bytes);
}

static void on_state(void *data, enum storage_state state)
{
    struct broker *broker = data;

    if (state == STORAGE_UP) {
        log_info("storage up", log_str("storage", storage_name(broker->storage)));
        return;
    }
    broker->metrics.storage_outages++;
    log_warn("storage down", log_str("storage", storage_name(broker->storage)));
    sessions_on_storage_down(broker->sessions);
}

static void on_registry_lost(void *data)
{
    struct broker *broker = data;

    sessions_on_registry_lost(broker->sessions);
}

static void on_reaped(void *data, struct slice instance, size_t session_count)
{
    struct broker *broker = data;

    broker->metrics.reaped += session_count;
    log_warn("instance reaped", log_bytes("dead", instance.data, instance.len),
             log_int("sessions", (int64_t)session_count));
}

/* ---- draining ---- */

static void on_left(struct storage_request *request, int error, const struct storage_result *result)
{
    struct broker *broker = container_of(request, struct broker, leave);

    (void)result;
    if (error == ERROR_CANCELLED)
        return;
    log_info("drained", log_int("sessions_left", (int64_t)sessions_total(broker->sessions)));
    loop_stop(broker->loop);
}

static void leave(struct broker *broker)
{
    if (broker->leaving)
        return;
    broker->leaving = true;
    broker->leave.on_done = on_left;
    event_del(broker->drain_timer);
    storage_leave(broker->storage, &broker->leave);
}

static void on_idle(void *data)
{
    struct broker *broker = data;

    if (broker->draining)
        leave(broker);
}

static void on_drain_tick(evutil_socket_t fd, short what, void *data)
{
    struct broker *broker = data;
    uint64_t now = clock_monotonic_ms();
    size_t left = sessions_end_some(broker->sessions, 0, CLOSE_RESTART);

    (void)fd;
    (void)what;
    if (sessions_total(broker->sessions) == 0 || now >= broker->drain_gives_up_ms) {
        leave(broker);
        return;
    }
    uint64_t ticks = now < broker->drain_ends_ms ? (broker->drain_ends_ms - now) / DRAIN_TICK_MS + 1 : 1;
    sessions_end_some(broker->sessions, (left + ticks - 1) / ticks, CLOSE_RESTART);
}

void broker_drain(struct broker *broker)
{
    const struct config *config = broker->config;
    struct timeval tick = {.tv_usec = DRAIN_TICK_MS * 1000};

    if (broker->draining)
        return;
    broker->draining = true;
    log_info("draining", log_int("sessions", (int64_t)sessions_online(broker->sessions)),
             log_int("drain_time_ms", (int64_t)config->drain_time));
    if (broker->api)
        api_set_draining(broker->api);
    ws_server_stop(broker->ws);
    broker->drain_ends_ms = clock_monotonic_ms() + config->drain_time;
    broker->drain_gives_up_ms = broker->drain_ends_ms + config->close_timeout + config->redis_timeout;
    event_add(broker->drain_timer, &tick);
    on_drain_tick(-1, 0, broker);
}

/* Over this instance's own API. */
static void on_drain_ordered(void *data)
{
    struct broker *broker = data;

    log_info("ordered to drain", log_str("from", "api"));
    broker_drain(broker);
}

/* ---- life ---- */

/* Connections in their handshake may use an eighth of the descriptors. */
static size_t handshake_limit(const struct broker *broker, const struct config *config)
{
    size_t possible = broker->descriptors / 8;

    return config->handshakes_limit <= possible ? (size_t)config->handshakes_limit : possible;
}

/* At most what the descriptors allow that there were at the start: libwebsockets has room for no more. */
static size_t connection_limit(const struct broker *broker, const struct config *config)
{
    size_t descriptors = broker->descriptors;
    size_t others = SPARE_DESCRIPTORS + handshake_limit(broker, config);
    size_t possible = descriptors > 2 * others ? descriptors - others : descriptors / 2;

    if (config->max_connections <= possible)
        return (size_t)config->max_connections;
    log_info("max_connections lowered to what descriptors allow",
             log_int("max_connections", (int64_t)possible), log_int("descriptors", (int64_t)descriptors));
    return possible;
}

/* Half of what is left beside the clients: the rest is for Redis and for clients that are refused. */
static size_t api_limit(const struct broker *broker, const struct config *config, size_t max_connections)
{
    size_t clients = max_connections + handshake_limit(broker, config);
    size_t possible = broker->descriptors > clients + 2 ? (broker->descriptors - clients) / 2 : 1;

    if (config->api_connections <= possible)
        return (size_t)config->api_connections;
    if (!config->api.off)
        log_info("api_connections lowered to what descriptors allow",
                 log_int("api_connections", (int64_t)possible),
                 log_int("descriptors", (int64_t)broker->descriptors));
    return possible;
}

/* A message may become twice as large in another encoding: so any binary fits, and any text without control characters.
 * What a route's text adds must pass as well; and all of it must pass the outbox. */
static size_t payload_limit(const struct config *config)
{
    size_t twice = 2 * config->max_message + CONFIG_OUTBOX_SLACK / 2;
    size_t room = config->outbox_limit - CONFIG_OUTBOX_SLACK / 2;

    return twice < room ? twice : room;
}

void broker_reload(struct broker *broker)
{
    struct config *config = config_reload(broker->config);

    if (!config)
        return;
    log_set_level(config->log_level);
    log_set_format(config->log_format);
    size_t max_connections = connection_limit(broker, config);
    ws_server_reload(broker->ws, config, max_connections, handshake_limit(broker, config));
    if (broker->api)
        api_reload(broker->api, config, max_connections, api_limit(broker, config, max_connections));
    broker->budget.limit = config->memory_budget;
    sessions_set_limits(broker->sessions, config->outbox_limit, config->inflight_limit, config->max_message);
    sessions_set_shares(broker->sessions, config->turn_commands, config->turn_bytes, config->inflight_total,
                        config->session_reads);
    reads_set_limit(&broker->reads, config->reads_limit);
    keys_set_limits(&broker->keys, config->keys_limit, config->session_keys);
    requests_set_checks(broker->requests, config->target_checks);
    router_set_max_message(broker->router, payload_limit(config));
    router_set_max_patterns(broker->router, (size_t)config->max_patterns);
    config_unref(broker->config);
    broker->config = config;
    log_info("configuration reloaded", log_int("routes", (int64_t)config->route_count));
}

/* The configured id, or the host's name with something random behind it. */
static void choose_instance(struct broker *broker)
{
    char host[HOST_MAX] = "";
    uint32_t random = 0;

    gethostname(host, sizeof host - 1);
    snprintf(broker->host, sizeof broker->host, "%s", host);
    const char *id = broker->config->instance;
    if (id && *id && broker->config->workers > 1) {
        snprintf(broker->instance, sizeof broker->instance, "%s-%u", id, broker->worker + 1);
        return;
    }
    if (id && *id) {
        snprintf(broker->instance, sizeof broker->instance, "%s", id);
        return;
    }
    for (char *c = host; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c))
            *c = '-';
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint32_t)getpid();
    snprintf(broker->instance, sizeof broker->instance, "%s-%08x", *host ? host : "switchboard", random);
}

static struct storage *create_storage(struct broker *broker)
{
    const struct config *config = broker->config;

    if (config->storage != CONFIG_STORAGE_REDIS)
        return storage_memory_create(loop_base(broker->loop));
    struct storage_redis_options options = {
        .host = config->redis.host,
        .port = config->redis.port,
        .path = config->redis.path,
        .username = config->redis.username,
        .password = config->redis.password,
        .database = config->redis.database,
        .prefix = config->prefix,
        .timeout_ms = (uint32_t)config->redis_timeout,
        .backoff_max_ms = (uint32_t)config->redis_backoff_max,
        .always_through_redis = !config->direct_delivery,
    };
    return storage_redis_create(loop_base(broker->loop), &options);
}

/* Each worker's API has a port of its own, one after the other. */
static void write_api_address(const struct broker *broker, char out[static CONFIG_ADDRESS_SIZE])
{
    const struct config_address *api = &broker->config->api;
    const char *colon = strrchr(api->text, ':');
    unsigned port = api->port ? api->port + broker->worker : 0;

    snprintf(out, CONFIG_ADDRESS_SIZE, "%.*s:%u", (int)(colon - api->text), api->text, port);
}

static bool create_parts(struct broker *broker)
{
    struct config *config = broker->config;
    broker->descriptors = listener_set_fd_limit(config->max_connections + config->handshakes_limit + OTHER_DESCRIPTORS);
    size_t max_connections = connection_limit(broker, config);

    broker->storage = create_storage(broker);
    if (!broker->storage)
        return false;
    reads_init(&broker->reads, broker->loop, &broker->metrics, config->reads_limit);
    keys_init(&broker->keys, &broker->metrics, config->keys_limit, config->session_keys);
    broker->router = router_create(broker->storage, &broker->metrics, payload_limit(config));
    if (broker->router)
        router_set_max_patterns(broker->router, (size_t)config->max_patterns);
    broker->drain_timer = event_new(loop_base(broker->loop), -1, EV_PERSIST, on_drain_tick, broker);
    broker->connect = connect_routes_create();
    struct requests_options requests = {
        .loop = broker->loop,
        .storage = broker->storage,
        .router = broker->router,
        .metrics = &broker->metrics,
        .check_ms = config->heartbeat,
        .checks_limit = config->target_checks,
    };
    broker->requests = requests_create(&requests);
    if (!broker->router || !broker->drain_timer || !broker->connect || !broker->requests)
        return false;
    struct sessions_options sessions = {
        .loop = broker->loop,
        .storage = broker->storage,
        .router = broker->router,
        .metrics = &broker->metrics,
        .requests = broker->requests,
        .budget = &broker->budget,
        .instance = broker->instance,
        .outbox_limit = config->outbox_limit,
        .inflight_limit = config->inflight_limit,
        .inflight_bytes = config->max_message,
        .inflight_total = config->inflight_total,
        .turn_commands = config->turn_commands,
        .turn_bytes = config->turn_bytes,
        .session_reads = config->session_reads,
        .reads = &broker->reads,
        .keys = &broker->keys,
        .on_idle = on_idle,
        .data = broker,
    };
    broker->sessions = sessions_create(&sessions);
    if (!broker->sessions)
        return false;
    struct ws_options ws = {
        .loop = broker->loop,
        .config = config,
        .connect = broker->connect,
        .sessions = broker->sessions,
        .storage = broker->storage,
        .metrics = &broker->metrics,
        .budget = &broker->budget,
        .max_connections = max_connections,
        .max_handshakes = handshake_limit(broker, config),
    };
    broker->ws = ws_server_create(&ws);
    if (!broker->ws)
        return false;
    if (config->api.off)
        return true;
    char api_address[CONFIG_ADDRESS_SIZE];
    write_api_address(broker, api_address);
    struct api_options api = {
        .loop = broker->loop,
        .config = config,
        .address = api_address,
        .storage = broker->storage,
        .sessions = broker->sessions,
        .router = broker->router,
        .requests = broker->requests,
        .reads = &broker->reads,
        .keys = &broker->keys,
        .metrics = &broker->metrics,
        .budget = &broker->budget,
        .instance = broker->instance,
        .started_at_ms = broker->started_at_ms,
        .max_connections = max_connections,
        .api_connections = api_limit(broker, config, max_connections),
        .on_drain = on_drain_ordered,
        .data = broker,
    };
    broker->api = api_create(&api);
    return broker->api != NULL;
}

static void start_storage(struct broker *broker)
{
    struct storage_events events = {
        .on_message = on_message,
        .on_stray = on_stray,
        .on_pattern_message = on_pattern_message,
        .on_state = on_state,
        .on_registry_lost = on_registry_lost,
        .on_reaped = on_reaped,
        .data = broker,
    };
    struct storage_instance instance = {
        .id = broker->instance,
        .host = broker->host,
        .listen = ws_server_address(broker->ws),
        .version = SWITCHBOARD_VERSION,
        .pid = getpid(),
        .started_at_ms = broker->started_at_ms,
        .heartbeat_ms = (uint32_t)broker->config->heartbeat,
        .lease_ms = (uint32_t)broker->config->lease,
        .history_count = (uint32_t)broker->config->history_count,
        .history_age_ms = broker->config->history_age,
        .limits = {.history_bytes = broker->config->history_bytes,
                   .stored_addresses = broker->config->stored_addresses,
                   .stored_bytes = broker->config->stored_bytes,
                   .sender_addresses = broker->config->sender_addresses,
                   .sender_bytes = broker->config->sender_bytes},
    };
    storage_start(broker->storage, &events, &instance);
}

struct broker *broker_create(struct loop *loop, struct config *config, unsigned worker)
{
    struct broker *broker = mem_calloc(1, sizeof *broker);

    if (!broker)
        return NULL;
    broker->loop = loop;
    broker->config = config_ref(config);
    budget_init(&broker->budget, loop, config->memory_budget);
    broker->started_at_ms = clock_wall_ms();
    broker->worker = worker;
    choose_instance(broker);
    log_set_instance(broker->instance);
    if (!create_parts(broker)) {
        log_error("the broker can't start", log_str("instance", broker->instance));
        broker_destroy(broker);
        return NULL;
    }
    start_storage(broker);
    log_info("started", log_str("version", SWITCHBOARD_VERSION), log_int("pid", getpid()),
             log_str("listen", ws_server_address(broker->ws)),
             log_str("api", broker->api ? api_address(broker->api) : "off"),
             log_str("storage", storage_name(broker->storage)),
             log_int("routes", (int64_t)config->route_count));
    return broker;
}

void broker_destroy(struct broker *broker)
{
    if (!broker)
        return;
    /* Connections first: their sessions still talk to the storage. Then the storage, whose last callbacks end
     * what still waits for it: sessions, API calls, channels. */
    ws_server_destroy(broker->ws);
    if (broker->storage)
        reads_close(&broker->reads);
    storage_destroy(broker->storage);
    api_destroy(broker->api);
    requests_destroy(broker->requests);
    sessions_destroy(broker->sessions);
    connect_routes_destroy(broker->connect);
    router_destroy(broker->router);
    budget_close(&broker->budget);
    if (broker->drain_timer)
        event_free(broker->drain_timer);
    config_unref(broker->config);
    mem_free(broker);
}
