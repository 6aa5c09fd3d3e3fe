#include "base/alloc.h"
#include "proto/address.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"

static const struct slice topic_prefix = {"topic:{", 7};

void memory_bus_init(struct memory *memory)
{
    map_init(&memory->subscriptions);
    map_init(&memory->patterns);
}

void memory_subscription_unref(struct subscription *subscription)
{
    if (subscription && --subscription->refs == 0)
        mem_free(subscription);
}

static struct subscription *find(const struct map *map, struct slice channel)
{
    struct map_node *node = map_find(map, channel.data, channel.len);

    return node ? container_of(node, struct subscription, node) : NULL;
}

/* True when it is subscribed; false when memory is short. */
static bool add(struct map *map, struct slice channel)
{
    if (find(map, channel))
        return true;
    struct subscription *subscription = mem_alloc(sizeof *subscription + channel.len);
    if (!subscription)
        return false;
    *subscription = (struct subscription){.refs = 1, .live = true, .len = channel.len};
    memcpy(subscription->channel, channel.data, channel.len);
    if (map_insert(map, &subscription->node, subscription->channel, channel.len))
        return true;
    mem_free(subscription);
    return false;
}

static void end(struct map *map, struct subscription *subscription)
{
    if (!subscription)
        return;
    map_remove(map, &subscription->node);
    subscription->live = false;
    memory_subscription_unref(subscription);
}

static void end_all(struct map *map)
{
    for (struct map_node *node = map_next(map, NULL), *next; node; node = next) {
        next = map_next(map, node);
        end(map, container_of(node, struct subscription, node));
    }
    map_close(map);
}

void memory_bus_close(struct memory *memory)
{
    end_all(&memory->subscriptions);
    end_all(&memory->patterns);
}

bool memory_bus_hold(struct memory *memory, struct slice channel)
{
    return add(&memory->subscriptions, channel);
}

/* ---- subscriptions ---- */

static void subscribe(struct memory *memory, struct map *map, struct slice channel,
                      struct storage_request *request)
{
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    if (!add(map, channel))
        item->error = ERROR_NO_MEMORY;
    memory_enqueue(memory, item, request);
}

void memory_subscribe(struct storage *storage, struct slice channel, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);

    subscribe(memory, &memory->subscriptions, channel, request);
}

void memory_unsubscribe(struct storage *storage, struct slice channel)
{
    struct memory *memory = memory_of(storage);

    end(&memory->subscriptions, find(&memory->subscriptions, channel));
}

void memory_subscribe_pattern(struct storage *storage, struct slice pattern, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);

    subscribe(memory, &memory->patterns, pattern, request);
}

void memory_unsubscribe_pattern(struct storage *storage, struct slice pattern)
{
    struct memory *memory = memory_of(storage);

    end(&memory->patterns, find(&memory->patterns, pattern));
}

/* ---- patterns ---- */

void memory_audience_free(struct audience *audience)
{
    for (size_t i = 0; audience && i < audience->count; i++)
        memory_subscription_unref(audience->patterns[i]);
    mem_free(audience);
}

/* Takes the text up to the next dot from the front of `rest`. False when there is none left. */
static bool next_token(struct slice *rest, struct slice *token)
{
    if (!rest->data)
        return false;
    const char *dot = rest->len ? memchr(rest->data, '.', rest->len) : NULL;
    *token = slice_from(rest->data, dot ? (size_t)(dot - rest->data) : rest->len);
    *rest = dot ? slice_from(dot + 1, rest->len - token->len - 1) : slice_from(NULL, 0);
    return true;
}

/* Both are channels of topics, compared as they are written: the encoding leaves dots and wildcards alone. */
static bool matches(struct slice pattern, struct slice channel)
{
    struct slice left = slice_from(pattern.data + topic_prefix.len, pattern.len - topic_prefix.len - 1);
    struct slice right = slice_from(channel.data + topic_prefix.len, channel.len - topic_prefix.len - 1);
    struct slice wanted, token;

    while (next_token(&left, &wanted)) {
        if (!next_token(&right, &token))
            return false;
        if (slice_is(wanted, ">") && !left.data)
            return true;
        if (!slice_is(wanted, "*") && !slice_equal(wanted, token))
            return false;
    }
    return right.data == NULL;
}

static bool is_topic(struct slice channel)
{
    return channel.len > topic_prefix.len && memcmp(channel.data, topic_prefix.data, topic_prefix.len) == 0;
}

/* Writes the patterns that match, referenced, to `found` (NULL: only counts them). */
static size_t match_all(const struct memory *memory, struct slice channel, struct subscription **found)
{
    size_t count = 0;

    if (!memory->patterns.count || !is_topic(channel))
        return 0;
    for (struct map_node *node = map_next(&memory->patterns, NULL); node;
         node = map_next(&memory->patterns, node)) {
        struct subscription *pattern = container_of(node, struct subscription, node);
        if (!is_topic(slice_from(pattern->channel, pattern->len)) ||
            !matches(slice_from(pattern->channel, pattern->len), channel))
            continue;
        if (found) {
            pattern->refs++;
            found[count] = pattern;
        }
        count++;
    }
    return count;
}

/* ---- messages ---- */

bool memory_address_item(struct memory *memory, struct item *item, struct slice channel, struct slice bytes)
{
    size_t count = match_all(memory, channel, NULL);

    if (count) {
        struct audience *audience =
            mem_alloc(sizeof *audience + count * sizeof(struct subscription *) + channel.len);
        if (!audience)
            return false;
        char *text = (char *)&audience->patterns[count];
        memcpy(text, channel.data, channel.len);
        *audience = (struct audience){.channel = slice_from(text, channel.len), .count = count};
        match_all(memory, channel, audience->patterns);
        item->audience = audience;
    }
    item->to = find(&memory->subscriptions, channel);
    if (item->to)
        item->to->refs++;
    if (bytes.len && (item->to || item->audience))
        memcpy(item->bytes, bytes.data, bytes.len);
    return true;
}

void memory_publish(struct storage *storage, struct slice channel, struct slice bytes,
                    struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, bytes.len);

    if (!item)
        return;
    item->counts_receiver = true;
    if (!memory_address_item(memory, item, channel, bytes))
        item->error = ERROR_NO_MEMORY;
    memory_enqueue(memory, item, request);
}

void memory_probe(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (item)
        memory_enqueue(memory, item, request);
}

/* ---- topics ---- */

static struct page *list_topics(const struct memory *memory, size_t limit, int64_t *total)
{
    static const struct storage_field fields[] = {{{"instances", 9}, {"1", 1}}};
    const struct map *map = &memory->subscriptions;
    size_t room = limit < map->count ? limit : map->count;
    struct page *page = memory_page_create(room, NULL);

    if (!page)
        return NULL;
    char *at = page->text = mem_alloc(room * (ADDRESS_NAME_MAX + 1));
    if (!at) {
        mem_free(page);
        return NULL;
    }
    for (struct map_node *node = map_next(map, NULL); node; node = map_next(map, node)) {
        const struct subscription *subscription = container_of(node, struct subscription, node);
        struct address address;
        char name[ADDRESS_NAME_MAX + 1];
        if (!address_from_channel(slice_from(subscription->channel, subscription->len), &address, name) ||
            address.kind != ADDRESS_TOPIC)
            continue;
        ++*total;
        if (page->count == room)
            continue;
        memcpy(at, name, address.name.len);
        memory_page_add(page, (struct storage_record){slice_from(at, address.name.len), fields, 1}, NULL);
        at += address.name.len;
    }
    return page;
}

void memory_list_topics(struct storage *storage, size_t limit, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    item->page = list_topics(memory, limit, &item->number);
    if (!item->page)
        item->error = ERROR_NO_MEMORY;
    memory_enqueue(memory, item, request);
}
