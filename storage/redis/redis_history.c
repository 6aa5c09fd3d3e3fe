#include "base/alloc.h"
#include "proto/errors.h"
#include "proto/message.h"
#include "storage/offset.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>

/* More than this ends a part of a history; the cursor says where the next one begins. */
enum { PART_BYTES = 8 << 20, LIMIT_MAX = 10000, HEAD = 4 };

struct reading {
    struct redis_task task;
    struct storage_offset after;
    bool has_offset;
    size_t epoch_len;
    char epoch[EPOCH_MAX];
};

/* What is known of a field's name in a stream's entry, in the order of storage.h. */
static const char *const field_names[] = {"epoch", "from", "id", "time", "content", "payload"};

enum { FIELD_COUNT = sizeof field_names / sizeof *field_names };

bool redis_history_key(const struct redis_storage *storage, struct redis_key *key, struct slice channel)
{
    if (channel.len >= CHANNEL_MAX)
        return false;
    key->len = (size_t)snprintf(key->text, sizeof key->text, "%shistory:%.*s", storage->prefix,
                                (int)channel.len, channel.data);
    return true;
}

static void read_fields(const struct redis_reply *entry, struct storage_field *fields)
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        fields[i] = (struct storage_field){.name = slice_text(field_names[i])};
    for (size_t i = 0; i + 1 < entry->count; i += 2)
        for (size_t j = 0; j < FIELD_COUNT; j++)
            if (slice_equal(redis_reply_text(entry, i), fields[j].name))
                fields[j].value = redis_reply_text(entry, i + 1);
}

static int answer(const struct reading *reading, const struct redis_reply *reply)
{
    struct storage_history_query query = {.epoch = slice_from(reading->epoch, reading->epoch_len)};
    struct storage_result result = {.offset = redis_reply_text(reply, 1),
                                    .epoch = redis_reply_text(reply, 2),
                                    .cursor = redis_reply_text(reply, 3)};
    struct storage_offset first = {0}, last = {0};
    size_t count = reply->count > HEAD ? reply->count - HEAD : 0;

    if (result.offset.len && (!storage_offset_parse(redis_reply_text(reply, 0), &first) ||
                              !storage_offset_parse(result.offset, &last)))
        return ERROR_INTERNAL;
    result.number = storage_history_reaches(&query, reading->has_offset ? &reading->after : NULL,
                                            result.epoch, &first, &last);
    struct storage_record *records =
        mem_alloc(count * (sizeof *records + FIELD_COUNT * sizeof(struct storage_field)));
    if (!records)
        return ERROR_NO_MEMORY;
    struct storage_field *fields = (struct storage_field *)(void *)&records[count];
    for (size_t i = 0; i < count; i++, fields += FIELD_COUNT) {
        const struct redis_reply *entry = &reply->elements[HEAD + i];
        records[i] = (struct storage_record){redis_reply_text(entry, 0), fields, FIELD_COUNT};
        if (entry->count == 2)
            read_fields(&entry->elements[1], fields);
        else
            records[i].field_count = 0;
    }
    result.records = records;
    result.record_count = count;
    redis_done(reading->task.request, ERROR_NONE, &result);
    mem_free(records);
    return ERROR_NONE;
}

static void on_read(void *data, const struct redis_reply *reply, int error)
{
    struct reading *reading = data;

    if (!error)
        error = answer(reading, reply);
    if (!error)
        reading->task.request = NULL; /* answered */
    redis_task_replied(&reading->task, error);
}

static void send_reading(struct reading *reading, const struct redis_key *key,
                         const struct storage_history_query *query)
{
    struct redis_storage *storage = reading->task.storage;
    char offset[OFFSET_MAX + 1] = "", limit[24], age[24], bytes[24];

    if (reading->has_offset)
        storage_offset_format(&reading->after, offset);
    snprintf(limit, sizeof limit, "%zu", query->limit < LIMIT_MAX ? query->limit : LIMIT_MAX);
    snprintf(age, sizeof age, "%" PRIu64, storage->instance.history_age_ms);
    snprintf(bytes, sizeof bytes, "%zu",
             query->bytes && query->bytes < PART_BYTES ? query->bytes : PART_BYTES);
    const struct slice args[] = {slice_text(offset), query->epoch,
                                 slice_text(limit),  slice_text(query->reverse ? "1" : "0"),
                                 slice_text(age),    slice_text(bytes)};
    redis_task_script(&reading->task, REDIS_SCRIPT_HISTORY, redis_key_slice(key), args,
                      sizeof args / sizeof *args, on_read);
}

void redis_history_read(struct storage *base, struct slice channel, const struct storage_history_query *query,
                        struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct storage_offset after = {0};
    struct reading *reading = NULL;
    struct redis_key key;
    int error = 0;

    if (base->state != STORAGE_UP)
        error = storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE;
    else if (!redis_history_key(storage, &key, channel) ||
             (query->offset.len && !storage_offset_parse(query->offset, &after)))
        error = ERROR_BAD_REQUEST;
    else if (!(reading = redis_task_create(storage, request, sizeof *reading)))
        error = ERROR_NO_MEMORY;
    if (error) {
        redis_later(storage, request, error);
        return;
    }
    reading->after = after;
    reading->has_offset = query->offset.len > 0;
    /* One too long is no epoch of ours: kept just different enough from all of them. */
    reading->epoch_len = query->epoch.len < sizeof reading->epoch ? query->epoch.len : sizeof reading->epoch;
    if (query->epoch.len)
        memcpy(reading->epoch, query->epoch.data, reading->epoch_len);
    send_reading(reading, &key, query);
    redis_task_made(&reading->task);
}
