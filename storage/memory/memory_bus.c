#include "base/alloc.h"
#include "proto/address.h"
#include "proto/errors.h"
#include "proto/topic.h"
#include "storage/memory/memory_storage.h"

void memory_bus_init(struct memory *memory)
{
    map_init(&memory->subscriptions);
    topic_trie_init(&memory->patterns);
    list_init(&memory->pattern_list);
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

/* Not in any map yet. NULL when memory is short. */
static struct subscription *create(struct slice channel)
{
    struct subscription *subscription = mem_alloc(sizeof *subscription + channel.len);

    if (!subscription)
        return NULL;
    *subscription = (struct subscription){.refs = 1, .live = true, .len = channel.len};
    memcpy(subscription->channel, channel.data, channel.len);
    return subscription;
}

/* True when it is subscribed; false when memory is short. */
static bool add(struct map *map, struct slice channel)
{
    if (find(map, channel))
        return true;
    struct subscription *subscription = create(channel);
    if (subscription && map_insert(map, &subscription->node, subscription->channel, channel.len))
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

bool memory_bus_hold(struct memory *memory, struct slice channel)
{
    return add(&memory->subscriptions, channel);
}

/* ---- subscriptions ---- */

void memory_subscribe(struct storage *storage, struct slice channel, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    if (!add(&memory->subscriptions, channel))
        item->error = ERROR_NO_MEMORY;
    memory_enqueue(memory, item, request);
}

void memory_unsubscribe(struct storage *storage, struct slice channel)
{
    struct memory *memory = memory_of(storage);

    end(&memory->subscriptions, find(&memory->subscriptions, channel));
}

/* ---- patterns ---- */

void memory_audience_free(struct audience *audience)
{
    for (size_t i = 0; audience && i < audience->count; i++)
        memory_subscription_unref(audience->patterns[i]);
    mem_free(audience);
}

static struct subscription *find_pattern(const struct memory *memory, struct slice topic)
{
    struct topic_trie_entry *entry = topic_trie_find(&memory->patterns, topic);

    return entry ? container_of(entry, struct subscription, entry) : NULL;
}

static int add_pattern(struct memory *memory, struct slice channel)
{
    struct slice topic;

    if (!topic_of_channel(channel, &topic))
        return ERROR_BAD_REQUEST;
    if (find_pattern(memory, topic))
        return ERROR_NONE;
    struct subscription *pattern = create(channel);
    if (pattern && topic_trie_insert(&memory->patterns, topic, &pattern->entry)) {
        list_append(&memory->pattern_list, &pattern->of_patterns);
        return ERROR_NONE;
    }
    mem_free(pattern);
    return ERROR_NO_MEMORY;
}

static void end_pattern(struct memory *memory, struct subscription *pattern)
{
    topic_trie_remove(&memory->patterns, &pattern->entry);
    list_remove(&pattern->of_patterns);
    pattern->live = false;
    memory_subscription_unref(pattern);
}

void memory_subscribe_pattern(struct storage *storage, struct slice pattern, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    item->error = add_pattern(memory, pattern);
    memory_enqueue(memory, item, request);
}

void memory_unsubscribe_pattern(struct storage *storage, struct slice pattern)
{
    struct memory *memory = memory_of(storage);
    struct slice topic;
    struct subscription *found = topic_of_channel(pattern, &topic) ? find_pattern(memory, topic) : NULL;

    if (found)
        end_pattern(memory, found);
}

void memory_bus_close(struct memory *memory)
{
    end_all(&memory->subscriptions);
    list_for_each_safe (pos, &memory->pattern_list)
        end_pattern(memory, container_of(pos, struct subscription, of_patterns));
    topic_trie_close(&memory->patterns);
}

/* Where the patterns that match are counted, and with `to` also written down, referenced. */
struct matches {
    size_t count;
    struct subscription **to;
};

static bool add_match(void *data, struct topic_trie_entry *entry)
{
    struct matches *matches = data;

    if (matches->to) {
        matches->to[matches->count] = container_of(entry, struct subscription, entry);
        matches->to[matches->count]->refs++;
    }
    matches->count++;
    return false;
}

static size_t match_all(const struct memory *memory, struct slice channel, struct subscription **to)
{
    struct matches matches = {.to = to};
    struct slice topic;

    if (memory->patterns.count && topic_of_channel(channel, &topic))
        topic_trie_match(&memory->patterns, topic, add_match, &matches);
    return matches.count;
}

/* ---- messages ---- */

bool memory_address_item(struct memory *memory, struct item *item, struct slice channel, struct slice bytes,
                         bool to_patterns)
{
    size_t count = to_patterns ? match_all(memory, channel, NULL) : 0;

    if (count) {
        struct audience *audience =
            mem_alloc(sizeof *audience + count * (sizeof(struct slice) + sizeof(struct subscription *)) +
                      channel.len);
        if (!audience)
            return false;
        audience->live = (struct slice *)(void *)&audience->patterns[count];
        char *text = (char *)&audience->live[count];
        memcpy(text, channel.data, channel.len);
        audience->channel = slice_from(text, channel.len);
        audience->count = count;
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
    if (!memory_address_item(memory, item, channel, bytes, true))
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
