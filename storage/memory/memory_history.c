/* Stored messages: a list for each channel that has some, bounded by count, bytes and age. A history is gone, and its
 * epoch with it, when its newest message has reached the age. */
#include "base/alloc.h"
#include "base/clock.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"
#include "storage/offset.h"

#include <inttypes.h>
#include <stdio.h>

enum { FIELD_EPOCH, FIELD_FROM, FIELD_ID, FIELD_TIME, FIELD_CONTENT, FIELD_PAYLOAD, FIELD_COUNT };

struct entry {
    struct list link; /* in history->entries, the oldest first */
    unsigned refs;    /* one by the history, one by every page */
    struct storage_offset offset;
    uint64_t expires_ms; /* wall time; 0: never */
    struct share *share; /* whose it is, while the history holds it */
    size_t bytes;        /* as it counts */
    char key[OFFSET_MAX + 1];
    struct storage_field fields[FIELD_COUNT];
    char text[]; /* what the fields' values point to */
};

struct history {
    struct map_node node; /* in memory->histories by channel */
    struct list by_age;
    uint64_t expires_ms;
    struct list entries; /* never empty */
    size_t count, bytes;
    char epoch[STORAGE_EPOCH_LEN + 1];
    char channel[];
};

static struct entry *entry_at(struct list *link)
{
    return container_of(link, struct entry, link);
}

static void entry_unref(void *data)
{
    struct entry *entry = data;

    if (--entry->refs == 0)
        mem_free(entry);
}

/* The message, stored nowhere yet. NULL when memory is short. */
static struct entry *entry_create(const struct storage_publication *publication, const char *epoch)
{
    static const char *const names[FIELD_COUNT] = {"epoch", "from", "id", "time", "content", "payload"};
    static const char *const contents[CONTENT_COUNT] = {
        [CONTENT_TEXT] = "text", [CONTENT_BINARY] = "binary", [CONTENT_JSON] = "json"};
    const struct message_fields *message = publication->fields;
    char time[24];
    size_t len = 0;

    snprintf(time, sizeof time, "%" PRIu64, message->time_ms);
    const struct slice values[FIELD_COUNT] = {[FIELD_EPOCH] = slice_text(epoch),
                                              [FIELD_FROM] = message->from,
                                              [FIELD_ID] = message->id,
                                              [FIELD_TIME] = slice_text(time),
                                              [FIELD_CONTENT] = slice_text(contents[message->content]),
                                              [FIELD_PAYLOAD] = message->payload};
    for (size_t i = 0; i < FIELD_COUNT; i++)
        len += values[i].len;
    struct entry *entry = mem_alloc(sizeof *entry + len);
    if (!entry)
        return NULL;
    *entry = (struct entry){.refs = 1};
    char *at = entry->text;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (values[i].len)
            memcpy(at, values[i].data, values[i].len);
        entry->fields[i] = (struct storage_field){slice_text(names[i]), slice_from(at, values[i].len)};
        at += values[i].len;
    }
    return entry;
}

static void history_drop_first(struct memory *memory, struct history *history)
{
    struct entry *entry = entry_at(list_pop(&history->entries));

    history->count--;
    history->bytes -= entry->bytes;
    memory_stored_remove(memory, entry->share, entry->bytes);
    entry_unref(entry);
}

static void history_free(struct memory *memory, struct history *history)
{
    map_remove(&memory->histories, &history->node);
    list_remove(&history->by_age);
    while (history->count)
        history_drop_first(memory, history);
    mem_free(history);
}

/* What is too old goes. */
static void history_trim(struct memory *memory, struct history *history, uint64_t now_ms)
{
    while (history->count > 1 &&
           entry_at(history->entries.next)->offset.ms + memory->instance.history_age_ms <= now_ms)
        history_drop_first(memory, history);
}

/* How many of the oldest go for a message of so many bytes, and what that changes; `own` is its sender's share. */
static size_t history_outgrown(const struct memory *memory, struct history *history, const struct share *own,
                               struct memory_growth *growth)
{
    uint64_t most = memory->instance.limits.history_bytes;
    size_t dropped = 0;

    for (struct list *at = history->entries.next; at != &history->entries; at = at->next, dropped++) {
        bool room = !most || history->bytes - growth->dropped + growth->added <= most;
        if (history->count - dropped < memory->instance.history_count && room)
            break;
        growth->dropped += entry_at(at)->bytes;
        growth->own_dropped += entry_at(at)->share == own ? entry_at(at)->bytes : 0;
    }
    return dropped;
}

/* The channel's history, without what is too old. NULL: it has none. */
static struct history *history_find(struct memory *memory, struct slice channel, uint64_t now_ms)
{
    while (!list_empty(&memory->histories_by_age)) {
        struct history *oldest = container_of(memory->histories_by_age.next, struct history, by_age);
        if (oldest->expires_ms > now_ms)
            break;
        history_free(memory, oldest);
    }
    struct map_node *node = map_find(&memory->histories, channel.data, channel.len);
    if (!node)
        return NULL;
    struct history *history = container_of(node, struct history, node);
    history_trim(memory, history, now_ms);
    return history;
}

static struct history *history_create(struct memory *memory, struct slice channel)
{
    struct history *history = mem_alloc(sizeof *history + channel.len);

    if (!history)
        return NULL;
    *history = (struct history){.count = 0};
    list_init(&history->by_age);
    list_init(&history->entries);
    storage_epoch_create(history->epoch);
    memcpy(history->channel, channel.data, channel.len);
    if (map_insert(&memory->histories, &history->node, history->channel, channel.len))
        return history;
    mem_free(history);
    return NULL;
}

void memory_history_init(struct memory *memory)
{
    map_init(&memory->histories);
    list_init(&memory->histories_by_age);
}

void memory_history_close(struct memory *memory)
{
    list_for_each_safe (pos, &memory->histories_by_age)
        history_free(memory, container_of(pos, struct history, by_age));
    map_close(&memory->histories);
}

/* The bytes that a message counts for. */
static size_t weight(const struct message_fields *message)
{
    return STORAGE_MESSAGE_OVERHEAD + message->from.len + message->payload.len;
}

int memory_history_add(struct memory *memory, struct slice channel,
                       const struct storage_publication *publication, struct outcome *outcome,
                       const char **why)
{
    uint64_t now_ms = clock_wall_ms(), most = memory->instance.limits.history_bytes;
    struct history *history = history_find(memory, channel, now_ms);
    struct memory_growth growth = {.begins = !history, .added = weight(publication->fields)};
    size_t outgrown = 0;

    if (most && growth.added > most) {
        *why = "history_bytes";
        return ERROR_TOO_LARGE;
    }
    if (history)
        outgrown = history_outgrown(memory, history, memory_stored_find(memory, channel, publication->sender),
                                    &growth);
    struct share *share = memory_stored_add(memory, channel, publication->sender, &growth, why);
    if (!share)
        return *why ? ERROR_LIMIT : ERROR_NO_MEMORY;
    if (!history)
        history = history_create(memory, channel);
    struct entry *entry = history ? entry_create(publication, history->epoch) : NULL;
    if (!entry) {
        memory_stored_remove(memory, share, growth.added);
        if (history && !history->count)
            history_free(memory, history);
        return ERROR_NO_MEMORY;
    }
    entry->share = share;
    entry->bytes = growth.added;
    struct storage_offset last = {0};
    if (history->count)
        last = entry_at(history->entries.prev)->offset;
    entry->offset = (struct storage_offset){.ms = now_ms > last.ms ? now_ms : last.ms, .n = last.n + 1};
    storage_offset_format(&entry->offset, entry->key);
    entry->expires_ms = publication->ttl_ms ? now_ms + publication->ttl_ms : 0;
    while (outgrown--)
        history_drop_first(memory, history);
    list_append(&history->entries, &entry->link);
    history->count++;
    history->bytes += entry->bytes;
    history->expires_ms = now_ms + memory->instance.history_age_ms;
    list_remove(&history->by_age);
    list_append(&memory->histories_by_age, &history->by_age);
    snprintf(outcome->offset, sizeof outcome->offset, "%s", entry->key);
    snprintf(outcome->epoch, sizeof outcome->epoch, "%s", history->epoch);
    return ERROR_NONE;
}

/* ---- reading ---- */

/* The first entry to read: the one after `offset`, or before it; NULL for the offset: the outermost. */
static struct list *read_start(struct history *history, const struct storage_offset *offset, bool reverse)
{
    struct list *at = history->entries.prev;

    if (!offset)
        return reverse ? at : history->entries.next;
    while (at != &history->entries) {
        int order = storage_offset_compare(&entry_at(at)->offset, offset);
        if (order < 0 || (order == 0 && !reverse))
            break;
        at = at->prev;
    }
    return reverse ? at : at->next;
}

static struct page *read_page(struct history *history, const struct storage_offset *after,
                              const struct storage_history_query *query, uint64_t now_ms)
{
    size_t room = query->limit < history->count ? query->limit : history->count;
    struct page *page = memory_page_create(room, entry_unref);

    if (!page)
        return NULL;
    struct list *at = read_start(history, after, query->reverse);
    for (size_t bytes = 0;
         at != &history->entries && page->count < room && (!query->bytes || bytes < query->bytes);
         at = query->reverse ? at->prev : at->next) {
        struct entry *entry = entry_at(at);
        if (entry->expires_ms && entry->expires_ms <= now_ms)
            continue;
        entry->refs++;
        bytes += entry->fields[FIELD_PAYLOAD].value.len;
        memory_page_add(page, (struct storage_record){slice_text(entry->key), entry->fields, FIELD_COUNT},
                        entry);
    }
    if (at != &history->entries && page->count)
        snprintf(page->cursor, sizeof page->cursor, "%.*s", (int)page->records[page->count - 1].key.len,
                 page->records[page->count - 1].key.data);
    snprintf(page->offset, sizeof page->offset, "%s", entry_at(history->entries.prev)->key);
    snprintf(page->epoch, sizeof page->epoch, "%s", history->epoch);
    return page;
}

void memory_history(struct storage *storage, struct slice channel, const struct storage_history_query *query,
                    struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);
    struct storage_offset offset, *after = query->offset.len ? &offset : NULL;
    uint64_t now_ms = clock_wall_ms();

    if (!item)
        return;
    if (after && !storage_offset_parse(query->offset, after)) {
        item->error = ERROR_BAD_REQUEST;
        memory_enqueue(memory, item, request);
        return;
    }
    struct history *history = history_find(memory, channel, now_ms);
    struct slice epoch = slice_text(history ? history->epoch : NULL);
    const struct storage_offset none = {0};
    item->number = storage_history_reaches(query, after, epoch,
                                           history ? &entry_at(history->entries.next)->offset : &none,
                                           history ? &entry_at(history->entries.prev)->offset : &none);
    if (history) {
        bool same = storage_epoch_matches(query, epoch);
        item->page = read_page(history, same ? after : NULL, query, now_ms);
        if (!item->page)
            item->error = ERROR_NO_MEMORY;
    }
    memory_enqueue(memory, item, request);
}
