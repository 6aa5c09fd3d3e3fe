/* tests/fixtures/frames.json: frames that clients and server read alike. */
#include "proto/base64.h"
#include "proto/command.h"
#include "proto/mp_json.h"
#include "proto/push.h"
#include "proto/writer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static json_t *fixtures;

static int load(void **state)
{
    (void)state;
    fixtures = json_load_file(FIXTURES, JSON_ALLOW_NUL, NULL);
    return fixtures ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    json_decref(fixtures);
    return 0;
}

static const char *const face_keys[] = {[FACE_JSON] = "json", [FACE_MSGPACK] = "msgpack"};

static const char *about(const json_t *entry)
{
    return json_string_value(json_object_get(entry, "about"));
}

static unsigned hex_digit(char c)
{
    assert_non_null(strchr("0123456789abcdef", c));
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The bytes of a frame; false when that face can't say it. */
static bool frame_bytes(const json_t *text, enum face face, struct buffer *out)
{
    const char *at = json_string_value(text);

    buffer_clear(out);
    if (!at)
        return false;
    if (face == FACE_JSON)
        return buffer_append(out, at, json_string_length(text));
    for (; *at; at += 2) {
        unsigned char byte = (unsigned char)(hex_digit(at[0]) << 4 | hex_digit(at[1]));
        assert_true(buffer_append(out, &byte, 1));
    }
    return true;
}

/* ---- commands ---- */

static void expect_text(const json_t *frame, const char *key, struct slice got, bool present)
{
    const json_t *value = json_object_get(frame, key);

    assert_true(present == (value != NULL));
    if (value)
        assert_true(slice_equal(got, slice_from(json_string_value(value), json_string_length(value))));
}

static void expect_int(const json_t *frame, const char *key, int64_t got, bool present)
{
    const json_t *value = json_object_get(frame, key);

    assert_true(present == (value != NULL));
    assert_true(got == json_integer_value(value));
}

static void expect_bool(const json_t *frame, const char *key, bool got, bool present)
{
    const json_t *value = json_object_get(frame, key);

    assert_true(present == (value != NULL));
    assert_true(got == json_is_true(value));
}

static void expect_since(const json_t *frame, const struct command *command)
{
    const json_t *since = json_object_get(frame, "since");

    if (json_is_object(since)) {
        expect_text(since, "epoch", command->since_epoch, command->since_epoch.len > 0);
        expect_text(since, "offset", command->since_offset, command->since_offset.len > 0);
    } else {
        expect_text(frame, "since", command->since_offset, command->present & FIELD_SINCE);
    }
}

static void expect_payload(const json_t *frame, const struct command *command)
{
    const json_t *text = json_object_get(frame, "text"), *binary = json_object_get(frame, "binary");
    const json_t *data = json_object_get(frame, "data");
    struct buffer bytes;

    buffer_init(&bytes, 0);
    assert_true((command->present & FIELD_PAYLOAD) == (text || binary || data ? FIELD_PAYLOAD : 0));
    if (data) {
        json_t *value =
            json_loadb(command->payload.data, command->payload.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_int_equal(command->content, CONTENT_JSON);
        assert_true(json_equal(value, data));
        json_decref(value);
    } else if (binary) {
        assert_int_equal(command->content, CONTENT_BINARY);
        assert_true(base64_encode(command->payload, &bytes));
        assert_true(slice_is(slice_from(bytes.data, bytes.len), json_string_value(binary)));
    } else {
        assert_int_equal(command->content, CONTENT_TEXT);
        expect_text(frame, "text", command->payload, text != NULL);
        assert_true(text || !command->payload.len);
    }
    buffer_close(&bytes);
}

static void expect_command(const json_t *frame, const struct command *command)
{
    unsigned present = command->present;

    expect_int(frame, "id", command->id, present & FIELD_ID);
    expect_text(frame, "cmd", command->cmd, present & FIELD_CMD);
    expect_text(frame, "to", command->to, present & FIELD_TO);
    expect_text(frame, "topic", command->topic, present & FIELD_TOPIC);
    expect_text(frame, "address", command->address, present & FIELD_ADDRESS);
    expect_text(frame, "request", command->request, present & FIELD_REQUEST);
    expect_text(frame, "refuse", command->refuse, present & FIELD_REFUSE);
    expect_text(frame, "key", command->key, present & FIELD_KEY);
    expect_bool(frame, "store", command->store, present & FIELD_STORE);
    expect_int(frame, "ttl", command->ttl, present & FIELD_TTL);
    expect_int(frame, "timeout", command->timeout, present & FIELD_TIMEOUT);
    expect_int(frame, "limit", command->limit, present & FIELD_LIMIT);
    expect_bool(frame, "reverse", command->reverse, present & FIELD_REVERSE);
    expect_bool(frame, "presence", command->presence, present & FIELD_PRESENCE);
    expect_bool(frame, "events", command->events, present & FIELD_EVENTS);
    expect_since(frame, command);
    expect_payload(frame, command);
}

/* Reads the one frame of a message; `check` sees what came of it. */
static void read_entry(const json_t *entry, enum face face,
                       void (*check)(const json_t *entry, enum command_status status,
                                     const struct command_reader *reader, const struct command *command))
{
    struct command_reader reader;
    struct command command;
    struct buffer bytes;
    const json_t *text = json_is_string(entry) ? entry : json_object_get(entry, face_keys[face]);

    buffer_init(&bytes, 0);
    if (frame_bytes(text, face, &bytes)) {
        print_message("%s: %s\n", face_keys[face], about(entry) ? about(entry) : json_string_value(text));
        command_reader_init(&reader, face, slice_from(bytes.data, bytes.len));
        enum command_status status = command_read(&reader, &command);
        check(entry, status, &reader, &command);
        if (status != COMMAND_FATAL)
            assert_int_equal(command_read(&reader, &command), COMMAND_END);
        command_reader_close(&reader);
    }
    buffer_close(&bytes);
}

static void check_good(const json_t *entry, enum command_status status, const struct command_reader *reader,
                       const struct command *command)
{
    assert_string_equal(reader->problem, "");
    assert_int_equal(status, COMMAND_READ);
    expect_command(json_object_get(entry, "frame"), command);
}

static void check_bad(const json_t *entry, enum command_status status, const struct command_reader *reader,
                      const struct command *command)
{
    assert_int_equal(status, COMMAND_BAD);
    assert_true(command->id == json_integer_value(json_object_get(entry, "id")));
    assert_non_null(strstr(reader->problem, json_string_value(json_object_get(entry, "names"))));
}

static void check_fatal(const json_t *entry, enum command_status status, const struct command_reader *reader,
                        const struct command *command)
{
    (void)entry;
    (void)command;
    assert_int_equal(status, COMMAND_FATAL);
    assert_true(reader->problem[0]);
}

static void test_commands(void **state)
{
    const json_t *entry;
    size_t i;

    (void)state;
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        json_array_foreach(json_object_get(fixtures, "commands"), i, entry)
            read_entry(entry, (enum face)face, check_good);
        json_array_foreach(json_object_get(fixtures, "bad_commands"), i, entry)
            read_entry(entry, (enum face)face, check_bad);
        json_array_foreach(json_object_get(json_object_get(fixtures, "no_frames"), face_keys[face]), i, entry)
            read_entry(entry, (enum face)face, check_fatal);
    }
}

/* ---- pushes ---- */

static struct slice text_of(const json_t *frame, const char *key)
{
    const json_t *value = json_object_get(frame, key);

    return slice_from(json_string_value(value), json_string_length(value));
}

static const struct {
    const char *name;
    enum message_kind kind;
} push_kinds[] = {{"message", MESSAGE_DATA},
                  {"request", MESSAGE_REQUEST},
                  {"cancel", MESSAGE_CANCEL},
                  {"join", MESSAGE_JOIN},
                  {"leave", MESSAGE_LEAVE}};

/* The message that the push stands for; `scratch` holds what the frame doesn't. */
static void message_of(const json_t *frame, struct message_fields *fields, struct buffer *scratch)
{
    bool presence = json_object_get(frame, "session");
    const json_t *data = json_object_get(frame, "data"), *binary = json_object_get(frame, "binary");

    *fields = (struct message_fields){
        .time_ms = (uint64_t)json_integer_value(json_object_get(frame, "time")),
        .timeout_ms = (uint64_t)json_integer_value(json_object_get(frame, "timeout")),
        .from = text_of(frame, "from"),
        .to = text_of(frame, "to"),
        .correlation = text_of(frame, "request"),
        .offset = text_of(frame, "offset"),
        .epoch = text_of(frame, "epoch"),
        .payload = text_of(frame, presence ? "user" : "text"),
    };
    for (size_t i = 0; i < sizeof push_kinds / sizeof *push_kinds; i++)
        if (slice_is(text_of(frame, "push"), push_kinds[i].name))
            fields->kind = push_kinds[i].kind;
    buffer_clear(scratch);
    if (presence) {
        assert_true(buffer_printf(scratch, "session:%stopic:%s", text_of(frame, "session").data,
                                  text_of(frame, "topic").data));
        size_t from = strlen("session:") + text_of(frame, "session").len;
        fields->from = slice_from(scratch->data, from);
        fields->to = slice_from(scratch->data + from, scratch->len - from);
    } else if (data) {
        char *text = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);
        assert_true(buffer_append_text(scratch, text));
        free(text);
        fields->content = CONTENT_JSON;
        fields->payload = slice_from(scratch->data, scratch->len);
    } else if (binary) {
        assert_true(base64_decode(text_of(frame, "binary"), scratch));
        fields->content = CONTENT_BINARY;
        fields->payload = slice_from(scratch->data, scratch->len);
    }
}

/* The fixtures' frames are written as the server writes them, byte for byte. */
static void test_pushes(void **state)
{
    struct buffer expected, got, scratch;
    const json_t *entry;
    size_t i;

    (void)state;
    buffer_init(&expected, 0);
    buffer_init(&got, 0);
    buffer_init(&scratch, 0);
    json_array_foreach(json_object_get(fixtures, "pushes"), i, entry)
    {
        for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
            struct message_fields fields;
            print_message("%s: %s\n", face_keys[face], about(entry));
            message_of(json_object_get(entry, "frame"), &fields, &scratch);
            buffer_clear(&got);
            assert_true(push_write(&fields, (enum face)face, &got));
            assert_true(frame_bytes(json_object_get(entry, face_keys[face]), (enum face)face, &expected));
            assert_true(slice_equal(slice_from(got.data, got.len), slice_from(expected.data, expected.len)));
        }
    }
    buffer_close(&expected);
    buffer_close(&got);
    buffer_close(&scratch);
}

/* ---- answers, through the writer ---- */

static void write_value(struct writer *writer, const json_t *value);

static void write_object(struct writer *writer, const json_t *value)
{
    const json_t *item;
    const char *key;
    struct buffer bytes;

    writer_map(writer, json_object_size(value));
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        if (strcmp(key, "binary") == 0) {
            buffer_init(&bytes, 0);
            assert_true(base64_decode(text_of(value, key), &bytes));
            writer_payload(writer, CONTENT_BINARY, slice_from(bytes.data, bytes.len));
            buffer_close(&bytes);
        } else {
            writer_key(writer, key);
            write_value(writer, item);
        }
    }
    writer_end(writer);
}

static void write_value(struct writer *writer, const json_t *value)
{
    const json_t *item;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(writer, value);
        break;
    case JSON_ARRAY:
        writer_array(writer, json_array_size(value));
        json_array_foreach(value, i, item) write_value(writer, item);
        writer_end(writer);
        break;
    case JSON_STRING:
        writer_str(writer, slice_from(json_string_value(value), json_string_length(value)));
        break;
    case JSON_INTEGER:
        writer_int(writer, json_integer_value(value));
        break;
    default:
        assert_true(json_is_boolean(value));
        writer_bool(writer, json_is_true(value));
    }
}

static void test_answers(void **state)
{
    struct buffer expected, got;
    const json_t *entry;
    size_t i;

    (void)state;
    buffer_init(&expected, 0);
    buffer_init(&got, 0);
    json_array_foreach(json_object_get(fixtures, "answers"), i, entry)
    {
        for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
            struct writer writer;
            print_message("%s: %s\n", face_keys[face], about(entry));
            buffer_clear(&got);
            writer_begin(&writer, (enum face)face, &got);
            write_value(&writer, json_object_get(entry, "frame"));
            assert_true(frame_bytes(json_object_get(entry, face_keys[face]), (enum face)face, &expected));
            assert_true(slice_equal(slice_from(got.data, got.len), slice_from(expected.data, expected.len)));
        }
    }
    buffer_close(&expected);
    buffer_close(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_pushes),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
