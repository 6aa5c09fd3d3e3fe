/* Publishing with a history entry, an idempotency key, or both. */
#include "base/alloc.h"
#include "base/clock.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"

#include <stdio.h>

enum { TAIL_MAX = OFFSET_MAX + EPOCH_MAX + 3 }; /* what completes an open envelope */

void memory_publish_init(struct memory *memory)
{
    map_init(&memory->outcomes);
    list_init(&memory->outcomes_by_age);
}

void memory_outcome_unref(struct outcome *outcome)
{
    if (outcome && --outcome->refs == 0)
        mem_free(outcome);
}

static void forget(struct memory *memory, struct outcome *outcome)
{
    map_remove(&memory->outcomes, &outcome->node);
    list_remove(&outcome->by_age);
    memory_outcome_unref(outcome);
}

void memory_publish_close(struct memory *memory)
{
    list_for_each_safe (pos, &memory->outcomes_by_age)
        forget(memory, container_of(pos, struct outcome, by_age));
    map_close(&memory->outcomes);
}

size_t memory_join(struct slice first, struct slice second, char *out)
{
    if (first.len)
        memcpy(out, first.data, first.len);
    out[first.len] = '\0';
    if (second.len)
        memcpy(out + first.len + 1, second.data, second.len);
    return first.len + 1 + second.len;
}

/* An outcome known by its key, or a new one under the key if there is one, with one reference for the caller.
 * NULL when memory is short. */
static struct outcome *outcome_get(struct memory *memory, struct slice channel,
                                   const struct storage_publication *publication, bool *known)
{
    struct slice key = publication->key, sender = publication->sender;
    uint64_t now_ms = clock_monotonic_ms();
    struct outcome *outcome = mem_alloc(sizeof *outcome + channel.len + 1 + sender.len + 1 + key.len);

    *known = false;
    if (!outcome)
        return NULL;
    *outcome = (struct outcome){.refs = 1, .expires_ms = now_ms + STORAGE_KEY_LIFE_MS};
    list_init(&outcome->by_age);
    if (!key.len)
        return outcome;
    while (!list_empty(&memory->outcomes_by_age)) {
        struct outcome *oldest = container_of(memory->outcomes_by_age.next, struct outcome, by_age);
        if (oldest->expires_ms > now_ms)
            break;
        forget(memory, oldest);
    }
    size_t len = memory_join(channel, sender, outcome->key) + 1;
    outcome->key[len - 1] = '\0';
    memcpy(outcome->key + len, key.data, key.len);
    len += key.len;
    struct map_node *node = map_find(&memory->outcomes, outcome->key, len);
    if (node) {
        mem_free(outcome);
        outcome = container_of(node, struct outcome, node);
        *known = true;
    } else if (map_insert(&memory->outcomes, &outcome->node, outcome->key, len)) {
        list_append(&memory->outcomes_by_age, &outcome->by_age);
    } else {
        mem_free(outcome);
        return NULL;
    }
    outcome->refs++;
    return outcome;
}

/* Appends offset and epoch to the open envelope that the item carries, each a short MessagePack str. */
static void complete(struct item *item, const struct outcome *outcome)
{
    const char *const texts[] = {outcome->offset, outcome->epoch};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t len = strlen(texts[i]);
        item->bytes[item->len++] = (char)(0xa0 | len);
        memcpy(item->bytes + item->len, texts[i], len);
        item->len += len;
    }
}

static int publish(struct memory *memory, struct item *item, struct slice channel,
                   const struct storage_publication *publication)
{
    int error = ERROR_NO_MEMORY;

    if (publication->key.len > STORAGE_KEY_MAX || publication->sender.len > ADDRESS_MAX)
        return ERROR_BAD_REQUEST;
    item->outcome = outcome_get(memory, channel, publication, &item->repeats);
    if (!item->outcome)
        return ERROR_NO_MEMORY;
    if (item->repeats)
        return ERROR_NONE;
    if (!memory_address_item(memory, item, channel, publication->bytes, true))
        goto undo;
    item->len = publication->bytes.len;
    if (publication->store) {
        error = memory_history_add(memory, channel, publication, item->outcome, &item->why);
        if (error)
            goto undo;
        complete(item, item->outcome);
    }
    return ERROR_NONE;

undo:
    if (publication->key.len)
        forget(memory, item->outcome);
    memory_subscription_unref(item->to);
    memory_audience_free(item->audience);
    item->to = NULL;
    item->audience = NULL;
    return error;
}

void memory_publish_with(struct storage *storage, struct slice channel,
                         const struct storage_publication *publication, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, publication->bytes.len + TAIL_MAX);

    if (!item)
        return;
    item->error = publish(memory, item, channel, publication);
    memory_enqueue(memory, item, request);
}
