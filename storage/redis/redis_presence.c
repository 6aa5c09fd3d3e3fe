#include "base/alloc.h"
#include "proto/errors.h"
#include "storage/presence_event.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>

/* Who is on a topic: sb:presence:{TOPIC}. Each session's hash has a field with the topics in whose presence it
 * is, so that whoever removes the session (its instance, its successor, the reaper of a dead instance) knows
 * what to leave. It is written before the session joins and changed before it leaves: what a crash in between
 * leaves behind is a topic too many in the field, never a session that nobody removes. */

enum { LIMIT_MAX = 100000 };

struct change {
    struct redis_task task;
    struct slice channel, name, user; /* point into `bytes` */
    char bytes[];
};

static char *copy(char *at, struct slice from)
{
    if (from.len)
        memcpy(at, from.data, from.len);
    return at + from.len;
}

/* ---- keys ---- */

/* The encoded name in a topic's channel; false when it isn't one. */
static bool topic_of(struct slice channel, struct slice *topic)
{
    static const char head[] = "topic:{";
    const size_t len = sizeof head - 1;

    if (channel.len >= CHANNEL_MAX || channel.len <= len + 1 || memcmp(channel.data, head, len) != 0 ||
        channel.data[channel.len - 1] != '}')
        return false;
    *topic = slice_from(channel.data + len, channel.len - len - 1);
    return true;
}

static void presence_key(const struct redis_storage *storage, struct redis_key *key, struct slice topic)
{
    key->len = (size_t)snprintf(key->text, sizeof key->text, "%spresence:{%.*s}", storage->prefix,
                                (int)topic.len, topic.data);
}

/* ---- the presence's side ---- */

bool redis_presence_next(struct slice *topics, struct slice *topic)
{
    size_t len = 0;

    while (topics->len && topics->data[0] == ' ')
        *topics = slice_from(topics->data + 1, topics->len - 1);
    while (len < topics->len && topics->data[len] != ' ')
        len++;
    *topic = slice_from(topics->data, len);
    *topics = slice_from(topics->data + len, topics->len - len);
    return len > 0;
}

/* Calls join.lua or leave.lua; `user` is the message's, and what joining writes down. */
static int tell(struct redis_storage *storage, enum message_kind kind, struct slice channel,
                struct slice session, struct slice user, redis_on_reply *on_reply, void *data)
{
    bool joins = kind == MESSAGE_JOIN;
    struct redis_key presence, target;
    struct slice topic;
    struct buffer envelope;

    if (!topic_of(channel, &topic) || !redis_key_channel(storage, &target, channel))
        return ERROR_BAD_REQUEST;
    presence_key(storage, &presence, topic);
    buffer_init(&envelope, 0);
    int error = storage_presence_encode(kind, channel, session, user, &envelope);
    if (!error) {
        struct slice bytes = slice_from(envelope.data, envelope.len);
        const struct slice args[] = {redis_key_slice(&presence), redis_key_slice(&target), session,
                                     joins ? user : bytes, bytes};
        error = redis_script_call_keys(&storage->scripts, joins ? REDIS_SCRIPT_JOIN : REDIS_SCRIPT_LEAVE, 2,
                                       args, joins ? 5 : 4, on_reply, data);
    }
    buffer_close(&envelope);
    return error;
}

int redis_presence_remove(struct redis_storage *storage, struct slice topic, struct slice session,
                          struct slice user, redis_on_reply *on_reply, void *data)
{
    char channel[CHANNEL_MAX];

    if (topic.len > 3 * ADDRESS_NAME_MAX)
        return ERROR_BAD_REQUEST;
    size_t len = (size_t)snprintf(channel, sizeof channel, "topic:{%.*s}", (int)topic.len, topic.data);
    return tell(storage, MESSAGE_LEAVE, slice_from(channel, len), session, user, on_reply, data);
}

void redis_presence_remove_all(struct redis_task *task, struct slice topics, struct slice session,
                               struct slice user)
{
    struct slice topic;

    while (redis_presence_next(&topics, &topic)) {
        int error = redis_presence_remove(task->storage, topic, session, user, redis_task_on_reply, task);
        if (!error)
            task->waiting++;
        else if (error != ERROR_BAD_REQUEST && !task->error) /* what isn't a topic's name has no presence */
            task->error = error;
    }
}

/* ---- joining and leaving ---- */

static void on_changed(void *data, const struct redis_reply *reply, int error)
{
    struct redis_task *task = data;

    if (!error)
        task->number = reply->integer;
    redis_task_replied(task, error);
}

static void change_presence(struct change *change, enum message_kind kind)
{
    struct redis_task *task = &change->task;
    int error = tell(task->storage, kind, change->channel, change->name, change->user, on_changed, change);

    if (!error)
        task->waiting++;
    redis_task_replied(task, error);
}

static void on_added(void *data, const struct redis_reply *reply, int error)
{
    struct change *change = data;

    if (!error && reply->integer != 1)
        error = reply->integer == 0 ? ERROR_ABSENT : ERROR_CONFLICT;
    if (error)
        redis_task_replied(&change->task, error);
    else
        change_presence(change, MESSAGE_JOIN);
}

static void on_dropped(void *data, const struct redis_reply *reply, int error)
{
    struct change *change = data;

    if (error || reply->integer != 1)
        redis_task_replied(&change->task, error);
    else
        change_presence(change, MESSAGE_LEAVE);
}

static void begin(struct redis_storage *storage, struct slice channel, const struct storage_session *session,
                  enum redis_script script, redis_on_reply *on_reply, struct storage_request *request)
{
    size_t texts = channel.len + session->name.len + session->user.len;
    struct change *change = NULL;
    struct slice topic;
    struct redis_key key;
    int error = 0;

    if (storage->storage.state != STORAGE_UP)
        error = storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE;
    else if (!topic_of(channel, &topic) || address_check_name(session->name) != NULL)
        error = ERROR_BAD_REQUEST;
    else if (!(change = redis_task_create(storage, request, sizeof *change + texts)))
        error = ERROR_NO_MEMORY;
    if (error) {
        redis_later(storage, request, error);
        return;
    }
    char *name = copy(change->bytes, channel), *user = copy(name, session->name);
    copy(user, session->user);
    change->channel = slice_from(change->bytes, channel.len);
    change->name = slice_from(name, session->name.len);
    change->user = slice_from(user, session->user.len);
    redis_key_address(storage, &key, ADDRESS_SESSION, session->name);
    const struct slice args[] = {session->conn, topic};
    redis_task_script(&change->task, script, redis_key_slice(&key), args, 2, on_reply);
    redis_task_made(&change->task);
}

void redis_presence_join(struct storage *base, struct slice channel, const struct storage_session *session,
                         struct storage_request *request)
{
    begin(redis_storage_of(base), channel, session, REDIS_SCRIPT_PRESENCE_ADD, on_added, request);
}

void redis_presence_leave(struct storage *base, struct slice channel, const struct storage_session *session,
                          struct storage_request *request)
{
    begin(redis_storage_of(base), channel, session, REDIS_SCRIPT_PRESENCE_DROP, on_dropped, request);
}

/* ---- lists ---- */

static void answer(struct redis_task *task, const struct storage_record *records, size_t count)
{
    const struct storage_result result = {.number = task->number, .records = records, .record_count = count};
    struct storage_request *request = task->request;

    task->request = NULL;
    redis_done(request, ERROR_NONE, &result);
}

/* A task for a list; NULL when its request is seen to. */
static struct redis_task *list_create(struct redis_storage *storage, struct storage_request *request)
{
    struct redis_task *task = NULL;
    int error = ERROR_NO_MEMORY;

    if (storage->storage.state != STORAGE_UP)
        error = storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE;
    else
        task = redis_task_create(storage, request, sizeof *task);
    if (!task)
        redis_later(storage, request, error);
    return task;
}

static void on_counted(void *data, const struct redis_reply *reply, int error)
{
    struct redis_task *task = data;

    if (!error)
        task->number = reply->integer;
    redis_task_replied(task, error);
}

static void on_members(void *data, const struct redis_reply *reply, int error)
{
    struct redis_task *task = data;
    size_t count = error ? 0 : reply->count / 2;
    struct storage_record *records = NULL;

    if (!error && !task->error) {
        records = mem_alloc(count * (sizeof *records + sizeof(struct storage_field)));
        error = records ? ERROR_NONE : ERROR_NO_MEMORY;
    }
    if (records) {
        struct storage_field *users = (struct storage_field *)(void *)&records[count];
        for (size_t i = 0; i < count; i++) {
            users[i] = (struct storage_field){slice_text("user"), redis_reply_text(reply, 2 * i + 1)};
            records[i] = (struct storage_record){redis_reply_text(reply, 2 * i), &users[i], 1};
        }
        answer(task, records, count);
        mem_free(records);
    }
    redis_task_replied(task, error);
}

void redis_presence_list(struct storage *base, struct slice channel, size_t limit,
                         struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct redis_task *task = list_create(storage, request);
    struct slice topic;
    struct redis_key key;
    char most[24];

    if (!task)
        return;
    if (topic_of(channel, &topic)) {
        presence_key(storage, &key, topic);
        snprintf(most, sizeof most, "%zu", limit < LIMIT_MAX ? limit : LIMIT_MAX);
        const struct slice count[] = {slice_text("HLEN"), redis_key_slice(&key)};
        const struct slice list[] = {slice_text("HRANDFIELD"), redis_key_slice(&key), slice_text(most),
                                     slice_text("WITHVALUES")};
        redis_task_command(task, count, 2, on_counted);
        redis_task_command(task, list, 4, on_members);
    } else {
        task->error = ERROR_BAD_REQUEST;
    }
    redis_task_made(task);
}

/* A topic's row, with room for what its slices point to. */
struct topic_row {
    struct storage_field field;
    char name[ADDRESS_NAME_MAX + 1];
    char instances[24];
};

static void on_topics(void *data, const struct redis_reply *reply, int error)
{
    struct redis_task *task = data;
    size_t room = error ? 0 : reply->count / 2, count = 0;
    struct storage_record *records = NULL;

    if (!error) {
        records = mem_alloc(room * (sizeof *records + sizeof(struct topic_row)));
        error = records ? ERROR_NONE : ERROR_NO_MEMORY;
    }
    if (records) {
        struct topic_row *rows = (struct topic_row *)(void *)&records[room];
        size_t prefix_len = task->storage->prefix_len;
        task->number = redis_reply_integer(reply, 0);
        for (size_t i = 0; i < room; i++) {
            struct slice channel = redis_reply_text(reply, 1 + 2 * i);
            struct topic_row *row = &rows[count];
            struct address address;
            if (channel.len <= prefix_len ||
                !address_from_channel(slice_from(channel.data + prefix_len, channel.len - prefix_len),
                                      &address, row->name))
                continue;
            snprintf(row->instances, sizeof row->instances, "%" PRId64,
                     redis_reply_integer(reply, 2 + 2 * i));
            row->field = (struct storage_field){slice_text("instances"), slice_text(row->instances)};
            records[count++] = (struct storage_record){address.name, &row->field, 1};
        }
        answer(task, records, count);
        mem_free(records);
    }
    redis_task_replied(task, error);
}

void redis_presence_topics(struct storage *base, size_t limit, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct redis_task *task = list_create(storage, request);
    char begin_text[REDIS_PREFIX_MAX + 8], pattern[2 * sizeof begin_text], most[24];

    if (!task)
        return;
    int len = snprintf(begin_text, sizeof begin_text, "%stopic:{", storage->prefix);
    struct slice head = slice_from(begin_text, (size_t)len);
    size_t pattern_len = redis_glob_escape(head, pattern);
    pattern[pattern_len++] = '*';
    snprintf(most, sizeof most, "%zu", limit < LIMIT_MAX ? limit : LIMIT_MAX);
    const struct slice args[] = {slice_from(pattern, pattern_len), slice_text(most)};
    redis_task_script(task, REDIS_SCRIPT_TOPICS, head, args, 2, on_topics);
    redis_task_made(task);
}
