#include "base/alloc.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Sessions are listed through the instances: for each living one, in the order of the ids, its set of names
 * is scanned. A cursor says where to go on: the instance, SSCAN's cursor, and the last name given of that
 * scan's step, whose names are taken in their order so that it can be continued in the middle. */
enum { SCAN_COUNT = 100, CURSOR_TEXT_MAX = 32, PEEK_MAX = 100000 };

struct rows {
    struct redis_task task; /* `waiting` counts replies of the step under way */
    void (*on_step)(struct rows *rows);
    struct redis_arena arena; /* everything below */
    struct storage_record *records;
    size_t count, capacity;
    struct slice *keys; /* of the hashes being fetched, in order */
    size_t key_count, next_key;
    enum address_kind kind;
    /* list_sessions only */
    size_t limit;
    struct slice *ids;
    size_t id_count, id_index;
    struct slice at_id, last_name;
    char at_scan[CURSOR_TEXT_MAX], next_scan[CURSOR_TEXT_MAX];
    bool truncated;
};

static void rows_end(struct redis_task *task)
{
    struct rows *rows = (struct rows *)task;
    struct storage_request *request = task->request;
    struct storage_result result = {
        .number = task->number, .records = rows->records, .record_count = rows->count};
    struct slice cursor = {0};

    if (rows->id_index < rows->id_count && rows->limit && !task->error) {
        char head[CURSOR_TEXT_MAX + 32];
        int len = snprintf(head, sizeof head, "%s:%zu:", rows->at_scan, rows->at_id.len);
        char *text = redis_arena_alloc(&rows->arena, (size_t)len + rows->at_id.len + rows->last_name.len);
        if (text) {
            memcpy(text, head, (size_t)len);
            memcpy(text + len, rows->at_id.data, rows->at_id.len);
            if (rows->last_name.len)
                memcpy(text + (size_t)len + rows->at_id.len, rows->last_name.data, rows->last_name.len);
            cursor = slice_from(text, (size_t)len + rows->at_id.len + rows->last_name.len);
        } else {
            task->error = ERROR_NO_MEMORY;
        }
    }
    result.cursor = cursor;
    if (request)
        redis_done(request, task->error, &result);
    redis_arena_close(&rows->arena);
    mem_free(rows);
}

static struct rows *rows_create(struct redis_storage *storage, struct storage_request *request)
{
    struct rows *rows = NULL;
    int error = ERROR_UNAVAILABLE;

    if (storage->destroyed) {
        error = ERROR_CANCELLED;
    } else if (storage->storage.state == STORAGE_UP) {
        rows = redis_task_create(storage, request, sizeof *rows);
        error = ERROR_NO_MEMORY;
    }
    if (!rows) {
        redis_later(storage, request, error);
        return NULL;
    }
    redis_arena_init(&rows->arena);
    rows->task.on_end = rows_end;
    return rows;
}

static bool rows_add(struct rows *rows, struct slice key, const struct storage_field *fields, size_t count)
{
    if (rows->count == rows->capacity) {
        size_t capacity = rows->capacity ? rows->capacity * 2 : 16;
        struct storage_record *records = redis_arena_alloc(&rows->arena, capacity * sizeof *records);
        if (!records)
            return false;
        if (rows->count)
            memcpy(records, rows->records, rows->count * sizeof *records);
        rows->records = records;
        rows->capacity = capacity;
    }
    rows->records[rows->count++] =
        (struct storage_record){.key = key, .fields = fields, .field_count = count};
    return true;
}

static bool rows_add_hash(struct rows *rows, struct slice key, const struct redis_reply *hash)
{
    size_t count = hash->count / 2;
    struct storage_field *fields = redis_arena_alloc(&rows->arena, count * sizeof *fields);

    if (!fields)
        return false;
    for (size_t i = 0; i < count; i++) {
        fields[i].name = redis_arena_copy(&rows->arena, redis_reply_text(hash, 2 * i));
        fields[i].value = redis_arena_copy(&rows->arena, redis_reply_text(hash, 2 * i + 1));
        if (!fields[i].name.data || !fields[i].value.data)
            return false;
        /* A session that has moved is listed with the instance that has it. */
        if (rows->limit && slice_is(fields[i].name, "instance") && !slice_equal(fields[i].value, rows->at_id))
            return true;
    }
    return rows_add(rows, key, fields, count);
}

static void rows_replied(struct rows *rows, int error)
{
    if (error && !rows->task.error)
        rows->task.error = error;
    if (rows->task.waiting == 1 && !rows->task.error && rows->on_step) {
        rows->on_step(rows);
        return;
    }
    redis_task_replied(&rows->task, 0);
}

static void on_hash(void *data, const struct redis_reply *reply, int error)
{
    struct rows *rows = data;
    struct slice key = rows->keys[rows->next_key++];

    if (!error && reply->count && !rows_add_hash(rows, key, reply))
        error = ERROR_NO_MEMORY;
    rows_replied(rows, error);
}

/* Reads the hashes of rows->keys; on_step or the end follows. Keeps one count until all are sent. */
static void rows_fetch(struct rows *rows)
{
    struct redis_key key;

    rows->next_key = 0;
    for (size_t i = 0; i < rows->key_count && !rows->task.error; i++) {
        redis_key_address(rows->task.storage, &key, rows->kind, rows->keys[i]);
        const struct slice args[] = {slice_text("HGETALL"), redis_key_slice(&key)};
        redis_task_command(&rows->task, args, 2, on_hash);
    }
}

/* Copies the texts of a reply's elements that can be names; every `stride`-th. */
static struct slice *copy_names(struct redis_arena *arena, const struct redis_reply *reply, size_t stride,
                                size_t *count)
{
    struct slice *names = redis_arena_alloc(arena, (reply->count + 1) * sizeof *names);

    *count = 0;
    for (size_t i = 0; names && i < reply->count; i += stride) {
        struct slice name = redis_reply_text(reply, i);
        if (address_check_name(name) != NULL)
            continue;
        names[*count] = redis_arena_copy(arena, name);
        if (!names[(*count)++].data)
            return NULL;
    }
    return names;
}

/* Calls `on_reply` with the ids of living instances, each followed by the rest of its lease. */
static void ask_living(struct redis_task *task, redis_on_reply *on_reply)
{
    struct redis_key key;
    char lease[16];

    redis_key_instances(task->storage, &key);
    snprintf(lease, sizeof lease, "%" PRIu32, task->storage->instance.lease_ms);
    const struct slice arg = slice_text(lease);
    redis_task_script(task, REDIS_SCRIPT_LEASE, redis_key_slice(&key), &arg, 1, on_reply);
}

/* ---- one session, a user, the instances ---- */

void redis_lists_find(struct storage *base, struct slice name, struct storage_request *request)
{
    struct rows *rows = rows_create(redis_storage_of(base), request);

    if (!rows)
        return;
    rows->kind = ADDRESS_SESSION;
    rows->keys = redis_arena_alloc(&rows->arena, sizeof *rows->keys);
    if (rows->keys)
        rows->keys[0] = redis_arena_copy(&rows->arena, name);
    if (!rows->keys || !rows->keys[0].data)
        rows->task.error = ERROR_NO_MEMORY;
    else if (address_check_name(name) != NULL)
        rows->task.error = ERROR_BAD_REQUEST;
    rows->key_count = 1;
    rows_fetch(rows);
    redis_task_made(&rows->task);
}

static void on_user(void *data, const struct redis_reply *reply, int error)
{
    struct rows *rows = data;

    for (size_t i = 0; !error && i + 1 < reply->count; i += 2) {
        struct storage_field *field = redis_arena_alloc(&rows->arena, sizeof *field);
        /* The reply outlives the answer, so its texts need no copy. */
        if (field)
            *field = (struct storage_field){slice_text("instance"), redis_reply_text(reply, i + 1)};
        if (!field || !rows_add(rows, redis_reply_text(reply, i), field, 1))
            error = ERROR_NO_MEMORY;
    }
    rows_replied(rows, error);
}

void redis_lists_user(struct storage *base, struct slice user, struct storage_request *request)
{
    struct rows *rows = rows_create(redis_storage_of(base), request);
    struct redis_key key;

    if (!rows)
        return;
    if (address_check_name(user) == NULL) {
        redis_key_address(rows->task.storage, &key, ADDRESS_USER, user);
        const struct slice args[] = {slice_text("HGETALL"), redis_key_slice(&key)};
        redis_task_command(&rows->task, args, 2, on_user);
    } else {
        rows->task.error = ERROR_BAD_REQUEST;
    }
    redis_task_made(&rows->task);
}

static void on_user_counted(void *data, const struct redis_reply *reply, int error)
{
    struct rows *rows = data;

    if (!error)
        rows->task.number = reply->integer;
    rows_replied(rows, error);
}

void redis_lists_peek_user(struct storage *base, struct slice user, size_t limit,
                           struct storage_request *request)
{
    struct rows *rows = rows_create(redis_storage_of(base), request);
    struct redis_key key;
    char most[24];

    if (!rows)
        return;
    if (address_check_name(user) == NULL) {
        redis_key_address(rows->task.storage, &key, ADDRESS_USER, user);
        snprintf(most, sizeof most, "%zu", limit < PEEK_MAX ? limit : PEEK_MAX);
        const struct slice count[] = {slice_text("HLEN"), redis_key_slice(&key)};
        const struct slice list[] = {slice_text("HRANDFIELD"), redis_key_slice(&key), slice_text(most),
                                     slice_text("WITHVALUES")};
        redis_task_command(&rows->task, count, 2, on_user_counted);
        redis_task_command(&rows->task, list, 4, on_user);
    } else {
        rows->task.error = ERROR_BAD_REQUEST;
    }
    redis_task_made(&rows->task);
}

static void on_instances(void *data, const struct redis_reply *reply, int error)
{
    struct rows *rows = data;

    if (!error) {
        rows->keys = copy_names(&rows->arena, reply, 2, &rows->key_count);
        if (rows->keys)
            rows_fetch(rows);
        else
            error = ERROR_NO_MEMORY;
    }
    rows_replied(rows, error);
}

void redis_lists_instances(struct storage *base, struct storage_request *request)
{
    struct rows *rows = rows_create(redis_storage_of(base), request);

    if (!rows)
        return;
    rows->kind = ADDRESS_INSTANCE;
    ask_living(&rows->task, on_instances);
    redis_task_made(&rows->task);
}

/* ---- all sessions ---- */

static int slice_order(const void *left, const void *right)
{
    const struct slice *a = left, *b = right;
    int order = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);

    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static void enter_instance(struct rows *rows)
{
    if (rows->id_index < rows->id_count)
        rows->at_id = rows->ids[rows->id_index];
    strcpy(rows->at_scan, "0");
    rows->last_name = (struct slice){0};
}

/* The names just read are dealt with: steps on to what comes after them. */
static void advance(struct rows *rows)
{
    if (rows->truncated) {
        rows->last_name = rows->keys[rows->key_count - 1];
    } else if (strcmp(rows->next_scan, "0") == 0) {
        rows->id_index++;
        enter_instance(rows);
    } else {
        strcpy(rows->at_scan, rows->next_scan);
        rows->last_name = (struct slice){0};
    }
}

static void scan_more(struct rows *rows);

static void on_fetched(struct rows *rows)
{
    advance(rows);
    scan_more(rows);
}

static void on_names(void *data, const struct redis_reply *reply, int error)
{
    struct rows *rows = data;
    struct slice scan = redis_reply_text(reply, 0);
    size_t count = 0, kept = 0;

    if (!error && (!reply->count || reply->count != 2 || scan.len >= sizeof rows->next_scan))
        error = ERROR_INTERNAL;
    struct slice *names = error ? NULL : copy_names(&rows->arena, &reply->elements[1], 1, &count);
    if (!error && !names)
        error = ERROR_NO_MEMORY;
    if (!error) {
        memcpy(rows->next_scan, scan.data, scan.len);
        rows->next_scan[scan.len] = '\0';
        qsort(names, count, sizeof *names, slice_order);
        while (kept < count && rows->last_name.len && slice_order(&names[kept], &rows->last_name) <= 0)
            kept++;
        rows->keys = names + kept;
        rows->key_count = count - kept;
        rows->truncated = rows->key_count > rows->limit - rows->count;
        if (rows->truncated)
            rows->key_count = rows->limit - rows->count;
        rows_fetch(rows);
    }
    rows_replied(rows, error);
}

/* Called with one count held; gives it back when there is nothing more to ask. */
static void scan_more(struct rows *rows)
{
    char count[8];
    struct redis_key key;

    if (rows->id_index < rows->id_count && rows->count < rows->limit) {
        redis_key_members(rows->task.storage, &key, rows->at_id);
        snprintf(count, sizeof count, "%d", SCAN_COUNT);
        const struct slice args[] = {slice_text("SSCAN"), redis_key_slice(&key), slice_text(rows->at_scan),
                                     slice_text("COUNT"), slice_text(count)};
        redis_task_command(&rows->task, args, 5, on_names);
    }
    redis_task_replied(&rows->task, 0);
}

static void on_ids(void *data, const struct redis_reply *reply, int error)
{
    struct rows *rows = data;

    if (!error && !(rows->ids = copy_names(&rows->arena, reply, 2, &rows->id_count)))
        error = ERROR_NO_MEMORY;
    if (error) {
        rows_replied(rows, error);
        return;
    }
    qsort(rows->ids, rows->id_count, sizeof *rows->ids, slice_order);
    while (rows->id_index < rows->id_count && slice_order(&rows->ids[rows->id_index], &rows->at_id) < 0)
        rows->id_index++;
    /* Where the cursor's instance is gone, the next one is listed from its start. */
    if (rows->id_index == rows->id_count || !slice_equal(rows->ids[rows->id_index], rows->at_id))
        enter_instance(rows);
    rows->on_step = on_fetched;
    scan_more(rows);
}

/* "SCAN:LEN:ID" and the last name. */
static bool read_cursor(struct rows *rows, struct slice cursor)
{
    struct slice text = redis_arena_copy(&rows->arena, cursor);
    size_t scan_len = text.data ? strspn(text.data, "0123456789") : 0;
    char *end;

    if (!scan_len || scan_len >= sizeof rows->at_scan || text.data[scan_len] != ':')
        return false;
    memcpy(rows->at_scan, text.data, scan_len);
    unsigned long id_len = strtoul(text.data + scan_len + 1, &end, 10);
    if (*end != ':' || id_len > (size_t)(text.data + text.len - (end + 1)))
        return false;
    rows->at_id = slice_from(end + 1, id_len);
    rows->last_name = slice_from(end + 1 + id_len, (size_t)(text.data + text.len - (end + 1 + id_len)));
    return true;
}

void redis_lists_sessions(struct storage *base, struct slice cursor, size_t limit,
                          struct storage_request *request)
{
    struct rows *rows = rows_create(redis_storage_of(base), request);

    if (!rows)
        return;
    rows->kind = ADDRESS_SESSION;
    rows->limit = limit ? limit : 1;
    rows->at_id = slice_from("", 0);
    strcpy(rows->at_scan, "0");
    if (cursor.len && !read_cursor(rows, cursor))
        rows->task.error = ERROR_BAD_REQUEST;
    else
        ask_living(&rows->task, on_ids);
    redis_task_made(&rows->task);
}

/* ---- the count ---- */

struct count {
    struct redis_task task;
    size_t instance_count, next;
    bool *alive; /* something is subscribed to the instance's channel */
};

static void count_start(struct redis_storage *storage);

static void count_end(struct redis_task *task)
{
    struct count *count = (struct count *)task;
    struct redis_storage *storage = task->storage;
    struct storage_result result = {.number = task->number};
    int error = task->error;
    struct list ready, *node;

    mem_free(count->alive);
    mem_free(count);
    storage->counting.running = false;
    list_init(&ready);
    list_splice(&ready, &storage->counting.current);
    while ((node = list_pop(&ready)))
        redis_done(container_of(node, struct storage_request, link), error, &result);
    if (!storage->counting.running && !list_empty(&storage->counting.next))
        count_start(storage);
}

static void on_count_field(void *data, const struct redis_reply *reply, int error)
{
    struct count *count = data;

    if (!error && count->alive[count->next++] && reply->type == REDIS_TYPE_STRING)
        count->task.number += strtoll(reply->text.data, NULL, 10);
    redis_task_replied(&count->task, error);
}

static void on_subscribers(void *data, const struct redis_reply *reply, int error)
{
    struct count *count = data;

    for (size_t i = 0; !error && i < count->instance_count; i++)
        count->alive[i] = redis_reply_integer(reply, 2 * i + 1) > 0;
    redis_task_replied(&count->task, error);
}

/* PUBSUB NUMSUB with every instance's channel: a crashed instance has no subscriber any more. */
static void ask_subscribers(struct count *count, const struct slice *ids)
{
    struct redis_storage *storage = count->task.storage;
    struct buffer bulks;
    struct redis_key key;

    buffer_init(&bulks, 0);
    redis_bulk_append(&bulks, slice_text("PUBSUB"));
    redis_bulk_append(&bulks, slice_text("NUMSUB"));
    for (size_t i = 0; i < count->instance_count; i++) {
        redis_key_address(storage, &key, ADDRESS_INSTANCE, ids[i]);
        redis_bulk_append(&bulks, redis_key_slice(&key));
    }
    int error = bulks.failed
                    ? ERROR_NO_MEMORY
                    : redis_conn_command_raw(&storage->topology.commands, slice_from(bulks.data, bulks.len),
                                             2 + count->instance_count, on_subscribers, count);
    if (!error)
        count->task.waiting++;
    else
        count->task.error = error;
    buffer_close(&bulks);
}

static void on_counted_ids(void *data, const struct redis_reply *reply, int error)
{
    struct count *count = data;
    struct redis_arena arena;
    struct redis_key key;

    redis_arena_init(&arena);
    struct slice *ids = error ? NULL : copy_names(&arena, reply, 2, &count->instance_count);
    count->alive = ids ? mem_calloc(count->instance_count, sizeof *count->alive) : NULL;
    if (!error && !count->alive)
        error = ERROR_NO_MEMORY;
    if (!error && count->instance_count)
        ask_subscribers(count, ids);
    for (size_t i = 0; !error && i < count->instance_count; i++) {
        redis_key_address(count->task.storage, &key, ADDRESS_INSTANCE, ids[i]);
        const struct slice args[] = {slice_text("HGET"), redis_key_slice(&key), slice_text("sessions")};
        redis_task_command(&count->task, args, 3, on_count_field);
    }
    redis_arena_close(&arena);
    redis_task_replied(&count->task, error);
}

static void refuse_all(struct redis_storage *storage, struct list *requests, int error)
{
    struct list *node;

    while ((node = list_pop(requests)))
        redis_later(storage, container_of(node, struct storage_request, link), error);
}

static void count_start(struct redis_storage *storage)
{
    struct redis_counting *counting = &storage->counting;
    struct count *count = redis_task_create(storage, NULL, sizeof *count);
    int error = ERROR_NO_MEMORY;

    if (count) {
        ask_living(&count->task, on_counted_ids);
        error = count->task.error;
    }
    if (error) {
        mem_free(count);
        refuse_all(storage, &counting->next, error);
        return;
    }
    count->task.on_end = count_end;
    count->task.waiting--;
    counting->running = true;
    list_splice(&counting->current, &counting->next);
}

void redis_lists_count(struct storage *base, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);

    if (base->state != STORAGE_UP) {
        redis_later(storage, request, storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE);
        return;
    }
    list_append(&storage->counting.next, &request->link);
    if (!storage->counting.running)
        count_start(storage);
}
