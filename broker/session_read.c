/* What a structured client reads from the storage: history, presence, how many are online.
 *
 * These are the commands whose answers are large, so each waits for its turn (reads.h), is asked for no more than one answer may
 * hold, and only while there is room for that in the client's outbox. */
#include "base/alloc.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/push.h"
#include "proto/writer.h"

#include <string.h>

enum {
    HISTORY_DEFAULT = 100,
    HISTORY_MAX = 1000,
    PRESENCE_MAX = 1000,
    PRESENCE_BYTES = 64 * 1024, /* of so many sessions, about */
};

/* A command that waits for its turn, then for the storage. Holds the session in memory. */
struct reading {
    struct read read;
    struct storage_request request;
    struct session *session;
    void (*ask)(struct reading *reading, struct storage *storage);
    int64_t command; /* the id to answer; 0: none */
    size_t bytes;    /* that the answer may have, about */
    size_t limit;    /* of a history, as are the next three */
    bool reverse;
    size_t epoch_len;
    char epoch[EPOCH_MAX + 1], offset[OFFSET_MAX + 1];
    struct address address; /* its name is below */
    char name[ADDRESS_NAME_MAX];
};

static void reading_end(struct reading *reading)
{
    struct session *session = reading->session;
    size_t bytes = reading->bytes;

    read_done(&reading->read);
    session->extra->reading_count--;
    mem_free(reading);
    session_inflight_end(session, 1, bytes);
    session->ops--;
    session_maybe_free(session);
}

bool session_has_room(struct session *session, size_t bytes)
{
    if (!session->outbox.count ||
        session->outbox.bytes + bytes <= session->sessions->options.outbox_limit / 2)
        return true;
    session->wants_room = true;
    return false;
}

size_t session_read_size(const struct session *session)
{
    size_t size = session->config->read_size, room = session->sessions->options.outbox_limit / 4;

    if (size > session->config->max_message / 2)
        size = session->config->max_message / 2;
    return size < room ? size : room;
}

static bool on_turn(struct read *read)
{
    struct reading *reading = container_of(read, struct reading, read);
    struct session *session = reading->session;

    if (session->state != SESSION_ONLINE) {
        reading_end(reading);
        return true;
    }
    if (!session_has_room(session, reading->bytes))
        return false;
    reading->ask(reading, session->sessions->options.storage);
    return true;
}

/* A command that is ready to be asked with session_reading_ask(); NULL when memory is short (answered). */
static struct reading *reading_create(struct session *session, const struct command *command,
                                      void (*ask)(struct reading *, struct storage *),
                                      void (*on_done)(struct storage_request *, int,
                                                      const struct storage_result *))
{
    struct session_extra *extra = session_extra(session);
    struct reading *reading = extra ? mem_calloc(1, sizeof *reading) : NULL;

    if (!reading) {
        session_error(session, command->id, ERROR_NO_MEMORY, slice_from(NULL, 0));
        return NULL;
    }
    reading->session = session;
    reading->ask = ask;
    reading->command = command->id;
    reading->read.start = on_turn;
    reading->request.on_done = on_done;
    return reading;
}

static void reading_keep_address(struct reading *reading, const struct address *address)
{
    memcpy(reading->name, address->name.data, address->name.len);
    reading->address =
        (struct address){.kind = address->kind, .name = slice_from(reading->name, address->name.len)};
}

static void reading_ask(struct reading *reading, size_t bytes)
{
    struct session *session = reading->session;

    reading->bytes = bytes;
    session->ops++;
    session->extra->reading_count++;
    session_inflight_begin(session, 1, bytes);
    read_ask(&session->extra->reader, &reading->read);
}

/* Begins the answer to one; false when there is nothing to write, and then it is over. */
static bool answer_begin(struct reading *reading, int error, size_t count, struct writer *writer)
{
    /* Of all that the storage is asked, only a history's offset can be malformed. */
    if (error == ERROR_BAD_REQUEST)
        session_error(reading->session, reading->command, error, slice_text("\"since\": no offset of ours"));
    else if (error)
        session_error(reading->session, reading->command, error, slice_from(NULL, 0));
    else if (session_ok_begin(reading->session, writer, reading->command, count))
        return true;
    reading_end(reading);
    return false;
}

static void answer_end(struct reading *reading, struct writer *writer)
{
    session_ok_end(reading->session, writer);
    reading_end(reading);
}

static struct slice record_field(const struct storage_record *record, const char *name)
{
    for (size_t i = 0; i < record->field_count; i++)
        if (slice_is(record->fields[i].name, name))
            return record->fields[i].value;
    return slice_from(NULL, 0);
}

/* Whether one more element, just written behind `count` others, can stay: what would not fit one message is left for
 * the next question. One alone may be as large as a push. */
static bool fits_answer(const struct session *session, const struct writer *writer, size_t count)
{
    size_t most = count ? session->config->max_message : router_max_frame(session->sessions->options.router);

    return writer->out->len + 64 <= most; /* with what closes it, and the frame's header */
}

/* ---- history ---- */

static void on_history(struct storage_request *request, int error, const struct storage_result *result)
{
    struct reading *reading = container_of(request, struct reading, request);
    bool stored = result->offset.len > 0;
    size_t count = 0;
    struct writer writer;
    char to[ADDRESS_MAX + 1];

    if (!answer_begin(reading, error, stored ? 3 : 1, &writer))
        return;
    if (stored) {
        writer_pair_str(&writer, "epoch", result->epoch);
        writer_pair_str(&writer, "offset", result->offset);
    }
    writer_key(&writer, "messages");
    size_t array = writer_array_begin(&writer);
    for (size_t i = 0; i < result->record_count; i++) {
        struct writer_mark before = writer_mark(&writer);
        struct message_fields fields;
        session_history_fields(&result->records[i], &fields);
        fields.to = slice_from(to, address_format(&reading->address, to));
        push_write_message(&writer, &fields);
        if (fits_answer(reading->session, &writer, count)) {
            count++;
            continue;
        }
        writer_rewind(&writer, before);
        if (count)
            break;
        session_log_oversized(reading->session, &fields);
    }
    writer_array_end(&writer, array, count);
    answer_end(reading, &writer);
}

static void ask_history(struct reading *reading, struct storage *storage)
{
    char channel[CHANNEL_MAX];
    const struct storage_history_query query = {
        .offset = slice_text(reading->offset),
        .epoch = slice_from(reading->epoch, reading->epoch_len),
        .limit = reading->limit,
        .bytes = reading->bytes,
        .reverse = reading->reverse,
    };

    storage_history(storage, slice_from(channel, address_channel(&reading->address, channel)), &query,
                    &reading->request);
}

void session_read_history(struct session *session, const struct command *command)
{
    bool limited = command->present & FIELD_LIMIT;
    struct slice epoch = command->since_epoch, offset = command->since_offset;
    struct address address;

    if (limited && (command->limit < 1 || command->limit > HISTORY_MAX)) {
        session_error(session, command->id, ERROR_BAD_REQUEST,
                      slice_text("\"limit\" must be from 1 to 1000"));
        return;
    }
    if (!session_read_address(session, command, "address", command->address, &address))
        return;
    if (offset.len > OFFSET_MAX) {
        session_error(session, command->id, ERROR_BAD_REQUEST, slice_text("\"since\": no offset of ours"));
        return;
    }
    struct reading *reading = reading_create(session, command, ask_history, on_history);
    if (!reading)
        return;
    reading_keep_address(reading, &address);
    reading->limit = limited ? (size_t)command->limit : HISTORY_DEFAULT;
    reading->reverse = command->reverse;
    if (offset.len)
        memcpy(reading->offset, offset.data, offset.len);
    /* One too long is no epoch of ours: what is kept of it is one byte too long, too. */
    reading->epoch_len = epoch.len < sizeof reading->epoch ? epoch.len : sizeof reading->epoch;
    if (epoch.len)
        memcpy(reading->epoch, epoch.data, reading->epoch_len);
    reading_ask(reading, session_read_size(session));
}

/* ---- presence, online ---- */

static void write_presence(struct storage_request *request, int error, const struct storage_result *result,
                           int64_t total, struct slice user)
{
    struct reading *reading = container_of(request, struct reading, request);
    size_t most = result->record_count < PRESENCE_MAX ? result->record_count : PRESENCE_MAX, listed = 0;
    struct writer writer;

    if (!answer_begin(reading, error, 3, &writer))
        return;
    writer_pair_bool(&writer, "online", total > 0);
    writer_pair_int(&writer, "count", total);
    writer_key(&writer, "sessions");
    size_t array = writer_array_begin(&writer);
    for (; listed < most; listed++) {
        struct writer_mark before = writer_mark(&writer);
        const struct storage_record *record = &result->records[listed];
        struct slice of = user.len ? user : record_field(record, "user");
        writer_map(&writer, 1u + (of.len > 0));
        writer_pair_str(&writer, "session", record->key);
        if (of.len)
            writer_pair_str(&writer, "user", of);
        writer_end(&writer);
        if (!fits_answer(reading->session, &writer, listed)) {
            writer_rewind(&writer, before);
            break;
        }
    }
    writer_array_end(&writer, array, listed);
    answer_end(reading, &writer);
}

static void on_topic_presence(struct storage_request *request, int error, const struct storage_result *result)
{
    write_presence(request, error, result, result->number, slice_from(NULL, 0));
}

static void on_session_presence(struct storage_request *request, int error,
                                const struct storage_result *result)
{
    write_presence(request, error, result, (int64_t)result->record_count, slice_from(NULL, 0));
}

static void on_user_presence(struct storage_request *request, int error, const struct storage_result *result)
{
    struct reading *reading = container_of(request, struct reading, request);

    write_presence(request, error, result, result->number, reading->address.name);
}

static void ask_presence(struct reading *reading, struct storage *storage)
{
    char channel[CHANNEL_MAX];

    switch (reading->address.kind) {
    case ADDRESS_TOPIC:
        reading->request.on_done = on_topic_presence;
        storage_presence_list(storage, slice_from(channel, address_channel(&reading->address, channel)),
                              PRESENCE_MAX, &reading->request);
        break;
    case ADDRESS_USER:
        reading->request.on_done = on_user_presence;
        storage_peek_user(storage, reading->address.name, PRESENCE_MAX, &reading->request);
        break;
    default:
        reading->request.on_done = on_session_presence;
        storage_find_session(storage, reading->address.name, &reading->request);
        break;
    }
}

void session_read_presence(struct session *session, const struct command *command)
{
    struct address address;

    if (!session_read_address(session, command, "address", command->address, &address))
        return;
    struct reading *reading = reading_create(session, command, ask_presence, NULL);
    if (!reading)
        return;
    reading_keep_address(reading, &address);
    reading_ask(reading, address.kind == ADDRESS_SESSION ? 0 : PRESENCE_BYTES);
}

static void on_counted(struct storage_request *request, int error, const struct storage_result *result)
{
    struct reading *reading = container_of(request, struct reading, request);
    struct writer writer;

    if (!answer_begin(reading, error, 1, &writer))
        return;
    writer_pair_int(&writer, "count", result->number);
    answer_end(reading, &writer);
}

static void ask_count(struct reading *reading, struct storage *storage)
{
    storage_count(storage, &reading->request);
}

void session_read_online(struct session *session, const struct command *command)
{
    struct reading *reading = reading_create(session, command, ask_count, on_counted);

    if (reading)
        reading_ask(reading, 0);
}
