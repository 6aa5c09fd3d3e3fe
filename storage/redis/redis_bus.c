#include "base/alloc.h"
#include "base/log.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "proto/topic.h"
#include "storage/redis/redis_storage.h"

/* Channels subscribed again at a time after a reconnect: enough to keep the server busy, little enough that
 * the loop goes on turning. */
enum { RESTORE_WINDOW = 4 * REDIS_BATCH_MAX };

static struct redis_storage *storage_of(void *topology)
{
    return container_of(topology, struct redis_storage, topology);
}

/* ---- batches ---- */

static void send_batch(struct redis_storage *storage)
{
    static const char *const verbs[] = {[REDIS_SUBSCRIBE] = "SUBSCRIBE",
                                        [REDIS_UNSUBSCRIBE] = "UNSUBSCRIBE"};
    struct redis_bus *bus = &storage->bus;

    if (!bus->batch_count)
        return;
    struct slice channels = slice_from(bus->batch.data, bus->batch.len);
    struct redis_conn *conn = redis_topology_bus(&storage->topology, channels);
    if (bus->batch.failed)
        redis_conn_fail(conn, "memory is short");
    else
        redis_conn_subscription(conn, verbs[bus->batch_verb], channels, bus->batch_count);
    bus->batch_count = 0;
    buffer_clear(&bus->batch);
}

static int add_to_batch(struct redis_storage *storage, struct slice channel, enum redis_verb verb,
                        redis_on_reply *on_reply, void *data)
{
    struct redis_bus *bus = &storage->bus;
    struct redis_key key;

    if (bus->batch_verb != verb || bus->batch_count == REDIS_BATCH_MAX)
        send_batch(storage);
    bus->batch_verb = verb;
    if (!redis_key_channel(storage, &key, channel))
        return ERROR_BAD_REQUEST;
    int error = redis_conn_announce(redis_topology_bus(&storage->topology, channel), on_reply, data);
    if (error)
        return error;
    redis_bulk_append(&bus->batch, redis_key_slice(&key));
    bus->batch_count++;
    return 0;
}

void redis_bus_on_turn_end(void *topology)
{
    send_batch(storage_of(topology));
}

/* ---- subscriptions ---- */

struct redis_channel *redis_bus_find(const struct redis_storage *storage, struct slice name)
{
    struct map_node *node = map_find(&storage->bus.channels, name.data, name.len);

    return node ? container_of(node, struct redis_channel, node) : NULL;
}

/* Not in the map yet. */
static struct redis_channel *channel_create(struct redis_storage *storage, struct slice name)
{
    static const char interest[] = "pattern"; /* pattern:{FIRST}, patterns */
    struct redis_channel *channel = mem_alloc(sizeof *channel + name.len);

    if (!channel)
        return NULL;
    *channel = (struct redis_channel){.storage = storage};
    channel->interest = name.len >= sizeof interest && memcmp(name.data, interest, sizeof interest - 1) == 0;
    memcpy(channel->name, name.data, name.len);
    return channel;
}

static bool channel_hold(struct redis_channel *channel, size_t name_len)
{
    channel->wanted = map_insert(&channel->storage->bus.channels, &channel->node, channel->name, name_len);
    return channel->wanted;
}

void redis_channel_release(struct redis_channel *channel)
{
    if (!channel->wanted && !channel->in_flight && !channel->copies)
        mem_free(channel);
}

static void channel_drop(struct redis_channel *channel)
{
    if (channel->wanted)
        map_remove(&channel->storage->bus.channels, &channel->node);
    channel->wanted = false;
    redis_channel_release(channel);
}

static void restore_more(struct redis_storage *storage);

static void on_restored(struct redis_storage *storage, const struct redis_reply *reply, int error)
{
    struct redis_bus *bus = &storage->bus;

    bus->restore_in_flight--;
    if (error && reply)
        redis_setup_fail(storage, "SUBSCRIBE", reply);
    else if (!error && bus->restoring)
        restore_more(storage);
}

static void on_subscribed(void *data, const struct redis_reply *reply, int error)
{
    struct redis_channel *channel = data;
    struct redis_storage *storage = channel->storage;
    struct storage_request *request = channel->request;

    channel->in_flight = false;
    channel->request = NULL;
    if (channel->wanted && error && request)
        channel_drop(channel);
    else
        redis_channel_release(channel);
    if (request)
        redis_done(request, error, NULL);
    else
        on_restored(storage, reply, error);
}

void redis_bus_subscribe(struct storage *base, struct slice name, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct redis_channel *channel;
    int error;

    if (storage->storage.state != STORAGE_UP) {
        redis_later(storage, request, storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE);
        return;
    }
    /* A channel held already is asked for once more, for the sake of the confirmation, and not held twice. */
    bool held = redis_bus_find(storage, name);
    channel = channel_create(storage, name);
    error = channel && (held || channel_hold(channel, name.len)) ? 0 : ERROR_NO_MEMORY;
    if (!error)
        error = add_to_batch(storage, name, REDIS_SUBSCRIBE, on_subscribed, channel);
    if (error) {
        if (channel)
            channel_drop(channel);
        redis_later(storage, request, error);
        return;
    }
    channel->request = request;
    channel->sent = channel->in_flight = true;
}

void redis_bus_unsubscribe(struct storage *base, struct slice name)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct redis_channel *channel = redis_bus_find(storage, name);

    if (!channel)
        return;
    /* Where the connection is gone, so is the subscription. */
    if (channel->sent &&
        add_to_batch(storage, name, REDIS_UNSUBSCRIBE, redis_ignore, NULL) == ERROR_NO_MEMORY)
        redis_conn_fail(redis_topology_bus(&storage->topology, name), "memory is short");
    channel_drop(channel);
}

bool redis_bus_hold(struct redis_storage *storage, struct slice name)
{
    struct redis_channel *channel;

    if (redis_bus_find(storage, name))
        return true;
    channel = channel_create(storage, name);
    if (channel && channel_hold(channel, name.len))
        return true;
    mem_free(channel);
    return false;
}

/* ---- after a reconnect ---- */

static bool restore_channel(struct redis_storage *storage, struct redis_channel *channel)
{
    int error =
        add_to_batch(storage, redis_channel_name(channel), REDIS_SUBSCRIBE, on_subscribed, channel);

    if (error) {
        redis_conn_fail(redis_topology_bus(&storage->topology, redis_channel_name(channel)), "memory is short");
        return false;
    }
    channel->sent = channel->in_flight = true;
    storage->bus.restore_in_flight++;
    return true;
}

/* While channels are restored none is added, so the table doesn't grow and slots are a safe place to pause.
 */
static void restore_more(struct redis_storage *storage)
{
    struct redis_bus *bus = &storage->bus;

    if (bus->restore_in_flight > RESTORE_WINDOW / 2)
        return;
    const struct map *map = &bus->channels;
    while (bus->restore_slot < map->slot_count && bus->restore_in_flight < RESTORE_WINDOW) {
        struct map_node *node = map->slots[bus->restore_slot++];
        for (; node; node = node->next)
            if (!restore_channel(storage, container_of(node, struct redis_channel, node)))
                return;
    }
    if (bus->restore_slot < map->slot_count || bus->restore_in_flight)
        return;
    bus->restoring = false;
    redis_setup_restored(storage);
}

void redis_bus_restore(struct redis_storage *storage)
{
    struct redis_bus *bus = &storage->bus;

    bus->restore_slot = bus->restore_in_flight = 0;
    bus->restoring = true;
    restore_more(storage);
}

void redis_bus_on_down(struct redis_storage *storage)
{
    struct redis_bus *bus = &storage->bus;

    bus->restoring = false;
    bus->batch_count = 0;
    buffer_clear(&bus->batch);
    for (struct map_node *node = map_next(&bus->channels, NULL); node; node = map_next(&bus->channels, node)) {
        struct redis_channel *channel = container_of(node, struct redis_channel, node);
        channel->sent = channel->allowed = channel->returned = false;
    }
}

/* ---- messages ---- */

/* Takes the prefix from the front; false when it isn't there. */
static bool strip(const struct redis_storage *storage, struct slice name, struct slice *rest)
{
    if (name.len < storage->prefix_len || memcmp(name.data, storage->prefix, storage->prefix_len) != 0)
        return false;
    *rest = slice_from(name.data + storage->prefix_len, name.len - storage->prefix_len);
    return true;
}

/* A copy was delivered already, or will be. */
static void on_stray(struct redis_storage *storage, struct slice bytes)
{
    struct envelope_mark mark;

    if (storage->events.on_stray && !(envelope_read_mark(bytes, &mark) && mark.copy))
        storage->events.on_stray(storage->events.data, bytes);
}

void redis_bus_on_message(void *topology, struct slice name, struct slice bytes)
{
    struct redis_storage *storage = storage_of(topology);
    struct slice channel;

    if (!strip(storage, name, &channel))
        return;
    if (slice_equal(channel, slice_from(storage->own_channel, storage->own_channel_len)) &&
        (redis_probe_take(storage, bytes) || redis_interest_take_heard(storage, bytes)))
        return;
    struct redis_channel *held = redis_bus_find(storage, channel);
    if (!held)
        on_stray(storage, bytes);
    else if (held->interest)
        redis_pattern_on_message(storage, channel, bytes);
    else if (redis_direct_take(storage, held, bytes))
        storage->events.on_message(storage->events.data, channel, bytes);
}

void redis_bus_on_published(void *data, const struct redis_reply *reply, int error)
{
    struct storage_result result = {.number = reply ? reply->integer : 0};

    redis_done(data, error, &result);
}

int redis_bus_send(struct redis_storage *storage, struct slice channel, struct slice bytes,
                   redis_on_reply *on_reply, void *data)
{
    struct redis_key key;

    if (!redis_key_channel(storage, &key, channel))
        return ERROR_BAD_REQUEST;
    const struct slice args[] = {slice_from("PUBLISH", 7), redis_key_slice(&key), bytes};
    return redis_conn_command(redis_topology_pick(&storage->topology, args[1]), args, 3, on_reply, data);
}

void redis_bus_publish(struct storage *base, struct slice channel, struct slice bytes,
                       struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct redis_channel *held = redis_bus_find(storage, channel);
    struct redis_key interested[INTEREST_CHANNELS];
    struct slice topic;
    size_t count;
    int error = ERROR_UNAVAILABLE;

    if (storage->destroyed)
        error = ERROR_CANCELLED;
    else if (topic_of_channel(channel, &topic) && redis_lease_lapsed(storage))
        error = ERROR_UNAVAILABLE;
    else if (base->state == STORAGE_UP && held && redis_direct_wants(held))
        error = redis_direct_publish(storage, held, bytes, request);
    else if (base->state == STORAGE_UP && redis_interest_any(storage) &&
             (count = redis_interest_channels(storage, channel, interested)) > 0)
        error = redis_interest_publish(storage, channel, bytes, interested, count, request);
    else if (base->state == STORAGE_UP)
        error = redis_bus_send(storage, channel, bytes, redis_bus_on_published, request);
    if (error)
        redis_later(storage, request, error);
}

void redis_bus_init(struct redis_storage *storage)
{
    map_init(&storage->bus.channels);
    buffer_init(&storage->bus.batch, 0);
}

void redis_bus_close(struct redis_storage *storage)
{
    struct map *channels = &storage->bus.channels;

    for (struct map_node *node; (node = map_next(channels, NULL));) {
        map_remove(channels, node);
        mem_free(container_of(node, struct redis_channel, node));
    }
    map_close(channels);
    buffer_close(&storage->bus.batch);
}
