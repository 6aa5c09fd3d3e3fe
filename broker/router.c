/* A channel's life: the first subscriber creates it and asks the storage for the subscription (SUBSCRIBING);
 * confirmed, it is SUBSCRIBED until its last subscriber leaves, which ends the subscription and frees it.
 *
 * The storage's request lives inside the channel, so a channel that everybody left while SUBSCRIBING stays,
 * empty, until the answer is in; someone who comes meanwhile simply joins it again. */
#include "broker/router.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "broker/metrics.h"
#include "broker/offenders.h"
#include "proto/address.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "storage/storage.h"

#include <string.h>

struct router_channel {
    struct map_node node;
    struct list subscribers;
    struct router *router;
    struct storage_request request;
    bool subscribing; /* the request is open */
    bool pattern;     /* its name is a pattern */
    char name[];
};

struct router {
    struct storage *storage;
    struct metrics *metrics;
    struct map channels, patterns;
    struct buffer envelope; /* scratch for publishing */
    size_t max_message, max_patterns;
    struct offenders offenders; /* by what is wrong: who wrote it to Redis is not known */
};

static void channel_free(struct router_channel *channel)
{
    struct router *router = channel->router;

    map_remove(channel->pattern ? &router->patterns : &router->channels, &channel->node);
    mem_free(channel);
}

struct router *router_create(struct storage *storage, struct metrics *metrics, size_t max_message)
{
    struct router *router = mem_calloc(1, sizeof *router);

    if (!router)
        return NULL;
    router->storage = storage;
    router->metrics = metrics;
    router->max_message = max_message;
    router->max_patterns = SIZE_MAX;
    map_init(&router->channels);
    map_init(&router->patterns);
    buffer_init(&router->envelope, 0);
    return router;
}

void router_set_max_message(struct router *router, size_t max_message)
{
    router->max_message = max_message;
}

void router_set_max_patterns(struct router *router, size_t max_patterns)
{
    router->max_patterns = max_patterns;
}

size_t router_max_payload(const struct router *router)
{
    return router->max_message;
}

size_t router_max_frame(const struct router *router)
{
    enum { ENVELOPE_MAX = 32 << 10 }; /* what a push has besides its payload, generously */

    return router->max_message + ENVELOPE_MAX;
}

void router_destroy(struct router *router)
{
    if (!router)
        return;
    for (struct map_node *node; (node = map_next(&router->channels, NULL));)
        channel_free(container_of(node, struct router_channel, node));
    for (struct map_node *node; (node = map_next(&router->patterns, NULL));)
        channel_free(container_of(node, struct router_channel, node));
    map_close(&router->channels);
    map_close(&router->patterns);
    buffer_close(&router->envelope);
    mem_free(router);
}

size_t router_channel_count(const struct router *router)
{
    return router->channels.count + router->patterns.count;
}

size_t router_pattern_count(const struct router *router)
{
    return router->patterns.count;
}

void subscriber_init(struct subscriber *subscriber)
{
    list_init(&subscriber->link);
    subscriber->channel = NULL;
}

static struct slice channel_name(const struct router_channel *channel)
{
    return slice_from(channel->node.key, channel->node.key_len);
}

static void channel_unsubscribe(struct router *router, struct router_channel *channel)
{
    if (channel->pattern)
        storage_unsubscribe_pattern(router->storage, channel_name(channel));
    else
        storage_unsubscribe(router->storage, channel_name(channel));
    channel_free(channel);
}

static void on_subscribe_done(struct storage_request *request, int error, const struct storage_result *result)
{
    struct router_channel *channel = container_of(request, struct router_channel, request);

    (void)result;
    channel->subscribing = false;
    if (list_empty(&channel->subscribers)) {
        if (error)
            channel_free(channel);
        else
            channel_unsubscribe(channel->router, channel);
        return;
    }
    if (error) {
        for (struct list *link; (link = list_pop(&channel->subscribers));) {
            struct subscriber *subscriber = container_of(link, struct subscriber, link);
            subscriber->channel = NULL;
            subscriber->on_subscribed(subscriber, error);
        }
        channel_free(channel);
        return;
    }
    list_for_each (link, &channel->subscribers) {
        struct subscriber *subscriber = container_of(link, struct subscriber, link);
        subscriber->on_subscribed(subscriber, ERROR_NONE);
    }
}

static struct router_channel *channel_create(struct router *router, struct slice name, bool pattern)
{
    struct router_channel *channel = mem_alloc(sizeof *channel + name.len);

    if (!channel)
        return NULL;
    memcpy(channel->name, name.data, name.len);
    if (!map_insert(pattern ? &router->patterns : &router->channels, &channel->node, channel->name,
                    name.len)) {
        mem_free(channel);
        return NULL;
    }
    list_init(&channel->subscribers);
    channel->router = router;
    channel->pattern = pattern;
    channel->subscribing = true;
    channel->request.on_done = on_subscribe_done;
    if (pattern)
        storage_subscribe_pattern(router->storage, name, &channel->request);
    else
        storage_subscribe(router->storage, name, &channel->request);
    return channel;
}

static void subscribe(struct router *router, struct slice name, bool pattern, struct subscriber *subscriber)
{
    struct map_node *node = map_find(pattern ? &router->patterns : &router->channels, name.data, name.len);

    if (!node && pattern && router->patterns.count >= router->max_patterns) {
        router->metrics->patterns_refused_full++;
        subscriber->on_subscribed(subscriber, ERROR_LIMIT);
        return;
    }
    struct router_channel *channel =
        node ? container_of(node, struct router_channel, node) : channel_create(router, name, pattern);

    if (!channel) {
        subscriber->on_subscribed(subscriber, ERROR_NO_MEMORY);
        return;
    }
    list_append(&channel->subscribers, &subscriber->link);
    subscriber->channel = channel;
    if (!channel->subscribing)
        subscriber->on_subscribed(subscriber, ERROR_NONE);
}

void router_subscribe(struct router *router, struct slice channel, struct subscriber *subscriber)
{
    subscribe(router, channel, false, subscriber);
}

void router_subscribe_pattern(struct router *router, struct slice pattern, struct subscriber *subscriber)
{
    subscribe(router, pattern, true, subscriber);
}

void router_unsubscribe(struct router *router, struct subscriber *subscriber)
{
    struct router_channel *channel = subscriber->channel;

    if (!channel)
        return;
    list_remove(&subscriber->link);
    subscriber->channel = NULL;
    if (!list_empty(&channel->subscribers) || channel->subscribing)
        return;
    channel_unsubscribe(router, channel);
}

/* A large message leaves no large scratch buffer behind. */
static void shrink_scratch(struct router *router)
{
    enum { KEPT_CAPACITY = 1 << 20 };

    if (router->envelope.capacity > KEPT_CAPACITY)
        buffer_close(&router->envelope);
}

bool router_publish(struct router *router, struct slice channel, const struct message_fields *fields,
                    struct storage_request *request)
{
    buffer_clear(&router->envelope);
    if (!envelope_encode(fields, &router->envelope))
        return false;
    router->metrics->published++;
    storage_publish(router->storage, channel, slice_from(router->envelope.data, router->envelope.len),
                    request);
    shrink_scratch(router);
    return true;
}

bool router_publish_with(struct router *router, struct slice channel, const struct message_fields *fields,
                         const struct router_extras *extras, struct storage_request *request)
{
    buffer_clear(&router->envelope);
    if (extras->store ? !envelope_encode_open(fields, &router->envelope)
                      : !envelope_encode(fields, &router->envelope))
        return false;
    struct storage_publication publication = {
        .bytes = slice_from(router->envelope.data, router->envelope.len),
        .fields = fields,
        .store = extras->store,
        .ttl_ms = extras->ttl_ms,
        .key = extras->key,
        .sender = extras->sender,
    };
    router->metrics->published++;
    storage_publish_with(router->storage, channel, &publication, request);
    shrink_scratch(router);
    return true;
}

/* An operator's plain text says neither where it went nor when. */
static void complete_plain(struct slice channel, struct message_fields *fields,
                           char to[static ADDRESS_MAX + 1])
{
    struct address address;
    char decoded[ADDRESS_NAME_MAX + 1];

    fields->time_ms = clock_wall_ms();
    if (address_from_channel(channel, &address, decoded))
        fields->to = slice_from(to, address_format(&address, to));
}

static void call_subscribers(struct router_channel *const *channels, size_t count, struct message *message)
{
    for (size_t i = 0; i < count; i++) {
        list_for_each (link, &channels[i]->subscribers) {
            struct subscriber *subscriber = container_of(link, struct subscriber, link);
            subscriber->deliver(subscriber, message);
        }
    }
}

/* Decodes what came on the channel `name` and gives it to the subscribers of all `channels`: one message. */
static void deliver(struct router *router, struct router_channel *const *channels, size_t count,
                    struct slice name, struct slice bytes)
{
    struct message_fields fields;
    char to[ADDRESS_MAX + 1];
    uint64_t left_out;

    const char *wrong = envelope_decode(bytes, &fields);
    if (!wrong && fields.payload.len > router->max_message)
        wrong = "the payload is larger than any sender may send";
    if (wrong) {
        router->metrics->bus_invalid++;
        if (offenders_may_log(&router->offenders, slice_text(wrong), slice_text(""), clock_monotonic_ms(), &left_out))
            log_warn("bus message dropped", log_bytes("channel", name.data, name.len), log_str("reason", wrong),
                     log_int("bytes", (int64_t)bytes.len), log_int("left_out", (int64_t)left_out));
        return;
    }
    if (!fields.to.len)
        complete_plain(name, &fields, to);
    struct message *message = message_create(&fields);
    if (!message && fields.kind == MESSAGE_TAKEOVER) {
        /* Nobody keeps it, and it must not be lost: a name would have two holders, or a newcomer wait for ever. */
        struct message unkept = {.refs = 1, .fields = fields};
        call_subscribers(channels, count, &unkept);
        return;
    }
    if (!message) {
        log_error("bus message dropped", log_bytes("channel", name.data, name.len),
                  log_str("reason", error_name(ERROR_NO_MEMORY)));
        return;
    }
    call_subscribers(channels, count, message);
    message_unref(message);
}

void router_on_message(struct router *router, struct slice name, struct slice bytes)
{
    struct map_node *node = map_find(&router->channels, name.data, name.len);

    router->metrics->bus_messages++;
    if (!node)
        return;
    struct router_channel *channel = container_of(node, struct router_channel, node);
    deliver(router, &channel, 1, name, bytes);
}

void router_on_pattern_message(struct router *router, struct slice name, const struct slice *patterns,
                               size_t count, struct slice bytes)
{
    struct router_channel **channels = mem_alloc(count * sizeof(struct router_channel *));
    size_t found = 0;

    router->metrics->bus_messages++;
    router->metrics->pattern_messages++;
    if (!channels) {
        log_error("bus message dropped", log_bytes("channel", name.data, name.len),
                  log_str("reason", error_name(ERROR_NO_MEMORY)));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct map_node *node = map_find(&router->patterns, patterns[i].data, patterns[i].len);
        if (node)
            channels[found++] = container_of(node, struct router_channel, node);
    }
    if (found)
        deliver(router, channels, found, name, bytes);
    mem_free(channels);
}
