/* A message for a session of this very process need not wait until Redis sends it back.
 *
 * Everybody else's way is PUBLISH, and the message's coming back on the bus. For one's own sessions that is
 * two wake-ups of Redis and this process for nothing, as long as nobody can tell the difference:
 *
 * - Order. A message must not overtake one that was sent through Redis before it. So each message of the
 *   ordinary way bears a mark; when the latest one's mark comes back over the bus, all that were sent before it have
 *   come too. When PUBLISH is answered as well, so that receipts stay in order, the channel is settled. Whatever then
 *   goes through Redis again (a stored message) unsettles it.
 * - Takeover. Who holds a name is decided by a notice on the channel. So only the channel of a session that is
 *   registered by this process is used, not before the registry's answer and one mark's return (which thus comes
 *   after the notice), and not after somebody else's notice. What is queued then goes through Redis after all.
 * - Receipts. The subscription is confirmed, so one instance receives it: this one.
 * - Whoever watches (redis-cli SUBSCRIBE). A message that is delivered here is published as well, marked as a copy, which
 *   brokers ignore, unless PUBLISH's answer said within the last ALONE_MS that nobody else listens.
 *
 * Delivery is at the end of the turn, because a request never calls back from inside the call that made it. */
#include "base/alloc.h"
#include "base/clock.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <event2/event.h>
#include <event2/util.h>

enum {
    ALONE_MS = 250,
    QUEUE_MAX = 64 * 1024 * 1024, /* bytes queued in a turn beyond which a message is refused, as in redis_conn.c */
    BUFFER_KEEP = 1 << 20,        /* an emptied buffer larger than this is given back */
};

/* Followed by the channel's name and the message, not aligned. */
struct queued {
    struct storage_request *request;
    size_t name_len, bytes_len;
    uint32_t number; /* direct->number when it was queued */
    bool settled;    /* it need not go through Redis, unless the channel is revoked before the turn ends */
};

/* ---- through Redis ---- */

static bool is_settled(struct redis_storage *storage, const struct redis_channel *channel)
{
    return channel->returned &&
           redis_topology_pick(&storage->topology, redis_channel_name(channel))->answered >= channel->answered_at;
}

void redis_direct_unsettle(struct redis_storage *storage, struct redis_channel *channel)
{
    channel->returned = false;
    channel->last = ++storage->direct.number;
}

/* Who holds the name changes, or may: what is queued must not be delivered here any more. */
static void revoke(struct redis_storage *storage, struct redis_channel *channel)
{
    redis_direct_unsettle(storage, channel);
    channel->revoked = channel->last;
}

/* `bytes` with a mark, in a scratch buffer; unchanged when they can't be marked. */
static struct slice mark(struct redis_storage *storage, struct slice bytes, uint32_t number, bool copy)
{
    struct redis_direct *direct = &storage->direct;
    const struct envelope_mark mark = {.origin = direct->origin, .number = number, .copy = copy};

    buffer_recycle(&direct->marked, BUFFER_KEEP);
    return envelope_mark(bytes, &mark, &direct->marked) ? slice_from(direct->marked.data, direct->marked.len)
                                                        : bytes;
}

static int send_marked(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes,
                       struct storage_request *request)
{
    redis_direct_unsettle(storage, channel);
    /* Before the registry's answer a mark would prove nothing. */
    if (channel->allowed)
        bytes = mark(storage, bytes, channel->last, false);
    int error = redis_bus_send(storage, redis_channel_name(channel), bytes, redis_bus_on_published, request);
    const struct redis_conn *conn = redis_topology_pick(&storage->topology, redis_channel_name(channel));
    channel->answered_at = conn->answered + conn->pending_count;
    return error;
}

static void on_copied(void *data, const struct redis_reply *reply, int error)
{
    struct redis_channel *channel = data;

    channel->copies--;
    channel->alone_until_ms = !error && reply->integer <= 1 ? clock_monotonic_ms() + ALONE_MS : 0;
    redis_channel_release(channel);
}

static void copy(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes)
{
    if (clock_monotonic_ms() < channel->alone_until_ms)
        return;
    struct slice marked = mark(storage, bytes, 0, true);
    if (marked.data != bytes.data &&
        redis_bus_send(storage, redis_channel_name(channel), marked, on_copied, channel) == 0)
        channel->copies++;
}

/* ---- the queue ---- */

static bool enqueue(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes,
                    struct storage_request *request)
{
    struct buffer *queue = &storage->direct.queue;
    struct slice name = redis_channel_name(channel);
    const struct queued queued = {.request = request, .name_len = name.len, .bytes_len = bytes.len,
                                  .number = storage->direct.number, .settled = is_settled(storage, channel)};

    if (!buffer_reserve(queue, sizeof queued + name.len + bytes.len))
        return false;
    buffer_append(queue, &queued, sizeof queued);
    buffer_append(queue, name.data, name.len);
    buffer_append(queue, bytes.data, bytes.len);
    channel->queued++;
    event_active(storage->direct.event, 0, 0);
    return true;
}

/* False at the queue's end. */
static bool next(const struct buffer *queue, size_t *at, struct queued *queued, struct slice *name,
                 struct slice *bytes)
{
    if (*at == queue->len)
        return false;
    memcpy(queued, queue->data + *at, sizeof *queued);
    *name = slice_from(queue->data + *at + sizeof *queued, queued->name_len);
    *bytes = slice_from(name->data + name->len, queued->bytes_len);
    *at += sizeof *queued + name->len + bytes->len;
    return true;
}

static void deliver(struct redis_storage *storage, const struct queued *queued, struct slice name,
                    struct slice bytes)
{
    struct redis_channel *channel = redis_bus_find(storage, name);
    bool up = storage->storage.state == STORAGE_UP;
    int error = ERROR_UNAVAILABLE;

    if (channel && channel->queued)
        channel->queued--;
    if (up && channel && queued->settled && (int32_t)(queued->number - channel->revoked) >= 0) {
        const struct storage_result result = {.number = 1};
        storage->storage.direct_count++;
        storage->events.on_message(storage->events.data, name, bytes);
        redis_done(queued->request, 0, &result);
        return;
    }
    if (up)
        error = channel ? send_marked(storage, channel, bytes, queued->request)
                        : redis_bus_send(storage, name, bytes, redis_bus_on_published, queued->request);
    if (error)
        redis_done(queued->request, error, NULL);
}

/* Empties the queue into `running`, which its messages' callbacks can't grow. */
static struct buffer *take_queue(struct redis_direct *direct)
{
    struct buffer taken = direct->queue;

    direct->queue = direct->running;
    direct->running = taken;
    buffer_clear(&direct->queue);
    return &direct->running;
}

static void on_turn_end(evutil_socket_t fd, short what, void *data)
{
    struct redis_storage *storage = data;
    struct buffer *running = take_queue(&storage->direct);
    struct queued queued;
    struct slice name, bytes;

    (void)fd, (void)what;
    for (size_t at = 0; next(running, &at, &queued, &name, &bytes);)
        deliver(storage, &queued, name, bytes);
    buffer_recycle(running, BUFFER_KEEP);
}

void redis_direct_cancel(struct redis_storage *storage)
{
    struct queued queued;
    struct slice name, bytes;

    while (storage->direct.queue.len) {
        struct buffer *running = take_queue(&storage->direct);
        for (size_t at = 0; next(running, &at, &queued, &name, &bytes);)
            redis_done(queued.request, ERROR_CANCELLED, NULL);
    }
}

/* ---- what the others ask ---- */

int redis_direct_publish(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes,
                         struct storage_request *request)
{
    bool settled = is_settled(storage, channel);

    if (!settled && !channel->queued)
        return send_marked(storage, channel, bytes, request);
    if (storage->direct.queue.len > QUEUE_MAX)
        return ERROR_LIMIT;
    if (!enqueue(storage, channel, bytes, request))
        return ERROR_NO_MEMORY;
    if (settled)
        copy(storage, channel, bytes);
    return 0;
}

/* The notice says who holds the name from here on: a connection of this process, or somebody else. */
static void on_notice(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes)
{
    struct message_fields notice;
    struct address holder;
    char name[ADDRESS_NAME_MAX + 1];

    revoke(storage, channel);
    if (envelope_decode(bytes, &notice) != NULL ||
        !address_from_channel(redis_channel_name(channel), &holder, name) ||
        !redis_registry_is_held_by(storage, holder.name, notice.correlation))
        channel->allowed = false;
}

bool redis_direct_take(struct redis_storage *storage, struct redis_channel *channel, struct slice bytes)
{
    struct envelope_mark mark;

    if (envelope_read_mark(bytes, &mark)) {
        if (mark.copy)
            return false;
        if (channel->allowed && mark.origin == storage->direct.origin && mark.number == channel->last)
            channel->returned = true;
    } else if (channel->allowed && envelope_kind(bytes) == MESSAGE_TAKEOVER) {
        on_notice(storage, channel, bytes);
    }
    return true;
}

void redis_direct_allow(struct redis_storage *storage, enum address_kind kind, struct slice name, bool allowed)
{
    const struct address address = {.kind = kind, .name = name};
    char text[CHANNEL_MAX];
    struct redis_channel *channel = redis_bus_find(storage, slice_from(text, address_channel(&address, text)));

    if (!channel)
        return;
    channel->allowed = allowed && storage->direct.enabled;
    revoke(storage, channel);
}

bool redis_direct_init(struct redis_storage *storage, bool enabled)
{
    struct redis_direct *direct = &storage->direct;

    direct->enabled = enabled;
    evutil_secure_rng_get_bytes(&direct->origin, sizeof direct->origin);
    buffer_init(&direct->queue, 0);
    buffer_init(&direct->running, 0);
    buffer_init(&direct->marked, 0);
    direct->event = event_new(storage->loop, -1, 0, on_turn_end, storage);
    return direct->event;
}

void redis_direct_close(struct redis_storage *storage)
{
    struct redis_direct *direct = &storage->direct;

    buffer_close(&direct->queue);
    buffer_close(&direct->running);
    buffer_close(&direct->marked);
    if (direct->event)
        event_free(direct->event);
}
