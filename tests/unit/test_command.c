/* Commands, read from frames of both faces. What frames mean in general is in tests/fixtures/frames.json, and test_fixtures.c
 * reads that; here is what only shows from within. */
#include "base/utf8.h"
#include "proto/command.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct command_reader reader;
static struct command command;

static int install(void **state)
{
    (void)state;
    alloc_fixture_install();
    return 0;
}

static int check_leaks(void **state)
{
    (void)state;
    command_reader_close(&reader);
    return alloc_fixture_remove() ? -1 : 0;
}

static void begin(enum face face, const void *bytes, size_t len)
{
    command_reader_close(&reader);
    command_reader_init(&reader, face, slice_from(bytes, len));
}

static void begin_json(const char *text)
{
    begin(FACE_JSON, text, strlen(text));
}

static enum command_status read_json(const char *text)
{
    begin_json(text);
    return command_read(&reader, &command);
}

static enum command_status read_mp(const void *bytes, size_t len)
{
    begin(FACE_MSGPACK, bytes, len);
    return command_read(&reader, &command);
}

static void test_every_field(void **state)
{
    (void)state;
    assert_int_equal(
        read_json("{\"id\":7,\"cmd\":\"c\",\"to\":\"t\",\"topic\":\"o\",\"address\":\"a\",\"request\":\"r\","
                  "\"refuse\":\"f\",\"key\":\"k\",\"store\":true,\"ttl\":1,\"timeout\":-2,\"limit\":3,"
                  "\"reverse\":true,\"presence\":true,\"events\":false,\"since\":{\"epoch\":\"e\","
                  "\"offset\":\"1-2\",\"x\":1},\"text\":\"p\"}"),
        COMMAND_READ);
    assert_int_equal(command.present, 2 * FIELD_PAYLOAD - 1);
    assert_int_equal(command.id, 7);
    assert_true(slice_is(command.cmd, "c") && slice_is(command.to, "t") && slice_is(command.topic, "o"));
    assert_true(slice_is(command.address, "a") && slice_is(command.request, "r") &&
                slice_is(command.refuse, "f"));
    assert_true(slice_is(command.key, "k") && slice_is(command.since_epoch, "e"));
    assert_true(slice_is(command.since_offset, "1-2") && slice_is(command.payload, "p"));
    assert_true(command.store && command.reverse && command.presence && !command.events);
    assert_true(command.ttl == 1 && command.timeout == -2 && command.limit == 3);
    assert_int_equal(command.content, CONTENT_TEXT);
}

static void test_nothing_stays_from_the_frame_before(void **state)
{
    (void)state;
    begin_json(
        "{\"id\":7,\"cmd\":\"c\",\"store\":true,\"binary\":\"AP8=\",\"since\":\"1-2\"}\n{\"cmd\":\"d\"}\n");
    assert_int_equal(command_read(&reader, &command), COMMAND_READ);
    assert_true(slice_equal(command.payload, slice_from("\0\xff", 2)));
    assert_int_equal(command_read(&reader, &command), COMMAND_READ);
    assert_int_equal(command.present, FIELD_CMD);
    assert_true(command.id == 0 && !command.store && !command.payload.len && !command.since_offset.len);
    assert_int_equal(command.content, CONTENT_TEXT);
    assert_int_equal(command_read(&reader, &command), COMMAND_END);
    assert_int_equal(command_read(&reader, &command), COMMAND_END);
}

static void test_messages_without_frames(void **state)
{
    (void)state;
    assert_int_equal(read_json(""), COMMAND_END);
    assert_int_equal(read_json("\n\n \r\n\t"), COMMAND_END);
    assert_int_equal(read_mp(NULL, 0), COMMAND_END);
    begin(FACE_JSON, NULL, 0);
    assert_int_equal(command_read(&reader, &command), COMMAND_END);
}

static void test_several_frames(void **state)
{
    static const char mp[] = "\x81\xa3"
                             "cmd\xa1"
                             "a\x82\xa2id\x05\xa3"
                             "cmd\xa1"
                             "b";

    (void)state;
    begin_json("\n{\"cmd\":\"a\"}\n\n{\"id\":5,\"cmd\":\"b\"}");
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        assert_int_equal(command_read(&reader, &command), COMMAND_READ);
        assert_true(slice_is(command.cmd, "a") && command.id == 0);
        assert_int_equal(command_read(&reader, &command), COMMAND_READ);
        assert_true(slice_is(command.cmd, "b") && command.id == 5);
        assert_int_equal(command_read(&reader, &command), COMMAND_END);
        begin(FACE_MSGPACK, mp, sizeof mp - 1);
    }
}

/* A bad frame is one frame: the next is read as if nothing had been. */
static void test_going_on_after_a_bad_frame(void **state)
{
    static const char mp[] = "\x82\xa2id\x07\xa3"
                             "cmd\x05\x81\xa3"
                             "cmd\xa1"
                             "a";

    (void)state;
    begin_json("{\"id\":7,\"cmd\":5}\n{\"cmd\":\"a\"}");
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        assert_int_equal(command_read(&reader, &command), COMMAND_BAD);
        assert_int_equal(command.id, 7);
        assert_string_equal(reader.problem, "\"cmd\" must be a string");
        assert_int_equal(command_read(&reader, &command), COMMAND_READ);
        assert_true(slice_is(command.cmd, "a"));
        assert_string_equal(reader.problem, "");
        begin(FACE_MSGPACK, mp, sizeof mp - 1);
    }
}

/* The value stands in the middle of the frame as the client wrote it, only without blanks. */
static void test_data_is_kept_as_written(void **state)
{
    static const struct {
        const char *frame, *data;
    } rows[] = {
        {"{\"cmd\":\"a\",\"data\":1.10}", "1.10"},
        {"{\"data\" : [ 1 , 2.50 ,\"a b\\\" c\" ] , \"cmd\":\"a\"}", "[1,2.50,\"a b\\\" c\"]"},
        {"{\"x\":\"\\\"data\\\":5\",\"data\":1e2,\"cmd\":\"a\"}", "1e2"},
        {"{\"x\":{\"data\":5},\"data\":\"\\u00fc\\u0000\",\"cmd\":\"a\"}", "\"\\u00fc\\u0000\""},
        {"{\"d\\u0061ta\":1,\"cmd\":\"a\"}", "1"},
        {" {\"x\":[[{}]],\"data\":{ },\"cmd\":\"a\"}", "{}"},
        {"{\"cmd\":\"a\",\"data\":null }", "null"},
        {"{\"cmd\":\"a\",\"data\":true}", "true"},
        {"{\"cmd\":\"a\",\"data\":\"\\\\\"}", "\"\\\\\""},
        {"{\"data2\":5,\"cmd\":\"a\",\"data\":-0}", "-0"},
        {"{\"cmd\":\"data\",\"data\":7}", "7"},
        {"\n{\n\"cmd\"\n:\n\"a\"\n,\n\"data\"\n:\n[\n]\n}\n", "[]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (read_json(rows[i].frame) != COMMAND_READ || !slice_is(command.payload, rows[i].data))
            fail_msg("%s gave %.*s", rows[i].frame, (int)command.payload.len, command.payload.data);
        assert_int_equal(command.content, CONTENT_JSON);
        assert_int_equal(command_read(&reader, &command), COMMAND_END);
    }
}

static void test_numbers_of_messagepack_are_short(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *data;
    } rows[] = {
        {"\x82\xa3"
         "cmd\xa1"
         "a\xa4"
         "data\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a",
         21, "0.1"},
        {"\x82\xa3"
         "cmd\xa1"
         "a\xa4"
         "data\xcb\x3f\xf0\0\0\0\0\0\0",
         21, "1.0"},
        {"\x82\xa3"
         "cmd\xa1"
         "a\xa4"
         "data\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
         21, "9223372036854775807"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(read_mp(rows[i].bytes, rows[i].len), COMMAND_READ);
        if (!slice_is(command.payload, rows[i].data))
            fail_msg("%.*s", (int)command.payload.len, command.payload.data);
    }
}

/* JSON objects that the parser can't hold are frames all the same: they are answered, with their id. */
static void test_objects_that_go_too_far(void **state)
{
    static const char *const frames[] = {
        "{\"id\":7,\"cmd\":\"send\",\"data\":18446744073709551616}",
        "{\"id\":7,\"cmd\":\"send\",\"data\":[-9223372036854775809,\"}\"]}",
        "{\"cmd\":\"send\",\"data\":1e999,\"id\":7}",
        "{ \"x\" : {\"id\":8} , \"id\" : 7 , \"id2\":9, \"data\":{\"a\":1,\"a\":2}}",
        "{\"data\":{\"\\u0000\":1},\"text\":\"\\\"id\\\":8\",\"id\":7}",
        "{\"id\":7,\"cmd\":\"ping\",\"cmd\":\"ping\"}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        char message[160];
        snprintf(message, sizeof message, "%s\n{\"cmd\":\"next\"}", frames[i]);
        if (read_json(message) != COMMAND_BAD || command.id != 7)
            fail_msg("%s: %s", frames[i], reader.problem);
        assert_true(strlen(reader.problem) > 10);
        assert_int_equal(command_read(&reader, &command), COMMAND_READ);
        assert_true(slice_is(command.cmd, "next"));
    }
    assert_int_equal(read_json("{\"id\":18446744073709551616,\"cmd\":\"ping\"}"), COMMAND_BAD);
    assert_int_equal(command.id, 0);
    assert_int_equal(read_json("{\"id\":\"7\",\"cmd\":1e999}"), COMMAND_BAD);
    assert_int_equal(command.id, 0);
    assert_int_equal(read_json("{\"id\":7,\"data\":1e999"), COMMAND_FATAL);
    assert_int_equal(read_json("{\"id\":7,\"data\":1e999]"), COMMAND_FATAL);
}

/* What is said of a frame goes to the client, so it must be text even where the frame is quoted and cut. */
static void test_problems_are_text(void **state)
{
    char text[160];

    (void)state;
    for (size_t shift = 0; shift < 100; shift++) {
        size_t len = (size_t)snprintf(text, sizeof text, "{\"%0*d", (int)shift, 0);
        while (len + 4 < sizeof text)
            len += (size_t)snprintf(text + len, sizeof text - len, "\xe6\x96\xb0");
        assert_int_equal(read_json(text), COMMAND_FATAL);
        assert_true(utf8_valid(reader.problem, strlen(reader.problem)));
        text[0] = '\xf0', text[1] = '\x9f', text[2] = '\x97', text[3] = '\x9e';
        assert_int_equal(read_json(text), COMMAND_FATAL);
        assert_true(utf8_valid(reader.problem, strlen(reader.problem)));
    }
}

static void test_depth(void **state)
{
    char text[200];

    (void)state;
    for (int depth = 25; depth < 40; depth++) {
        int len = snprintf(text, sizeof text, "{\"cmd\":\"a\",\"data\":");
        memset(text + len, '[', (size_t)depth);
        memset(text + len + depth, ']', (size_t)depth);
        memcpy(text + len + 2 * depth, "}", 2);
        /* The frame itself is the first level. */
        assert_int_equal(read_json(text), depth < 32 ? COMMAND_READ : COMMAND_FATAL);
        memcpy(text,
               "\x82\xa3"
               "cmd\xa1"
               "a\xa4"
               "data",
               12);
        memset(text + 12, '\x91', (size_t)depth - 1);
        text[12 + depth - 1] = '\x90';
        enum command_status status = read_mp(text, 12 + (size_t)depth);
        assert_int_equal(status, depth < 32 ? COMMAND_READ : COMMAND_FATAL);
    }
    /* Brackets in strings don't count. */
    int len = snprintf(text, sizeof text, "{\"cmd\":\"");
    memset(text + len, '[', 100);
    memcpy(text + len + 100, "\\\"[\"}", 6);
    assert_int_equal(read_json(text), COMMAND_READ);
}

/* Cut anywhere, a frame is no frame; and nothing past the end is looked at (the sanitizers see to that). */
static void test_frames_that_are_cut(void **state)
{
    static const char json[] =
        "{\"id\":7,\"cmd\":\"send\",\"to\":\"user:a\",\"data\":{\"a\":[1,\"b\\\"c\",null]}}";
    static const char mp[] = "\x84\xa2id\x07\xa3"
                             "cmd\xa4send\xa2to\xa6user:a\xa4"
                             "data\x81\xa1"
                             "a\x93\x01\xa1"
                             "b\xc0";

    (void)state;
    for (size_t len = 1; len < sizeof json - 1; len++) {
        char *copy = malloc(len);
        memcpy(copy, json, len);
        begin(FACE_JSON, copy, len);
        assert_int_equal(command_read(&reader, &command), COMMAND_FATAL);
        assert_true(reader.problem[0]);
        free(copy);
    }
    for (size_t len = 1; len < sizeof mp - 1; len++) {
        char *copy = malloc(len);
        memcpy(copy, mp, len);
        begin(FACE_MSGPACK, copy, len);
        assert_int_equal(command_read(&reader, &command), COMMAND_FATAL);
        assert_true(reader.problem[0]);
        free(copy);
    }
    assert_int_equal(read_mp(mp, sizeof mp - 1), COMMAND_READ);
}

static void test_memory_is_short(void **state)
{
    static const char json[] =
        "{\"id\":7,\"cmd\":\"send\",\"binary\":\"AP8=\"}\n{\"id\":8,\"cmd\":\"send\",\"data\":[1,2]}";
    bool failed = true;

    (void)state;
    for (size_t n = 1; failed; n++) {
        alloc_fixture_fail(n);
        begin_json(json);
        for (int i = 7; i < 9; i++) {
            enum command_status status = command_read(&reader, &command);
            assert_true(status == COMMAND_READ || status == COMMAND_BAD);
            assert_int_equal(command.id, i);
        }
        command_reader_close(&reader);
        failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, install, check_leaks)
        TEST(test_every_field),
        TEST(test_nothing_stays_from_the_frame_before),
        TEST(test_messages_without_frames),
        TEST(test_several_frames),
        TEST(test_going_on_after_a_bad_frame),
        TEST(test_data_is_kept_as_written),
        TEST(test_numbers_of_messagepack_are_short),
        TEST(test_objects_that_go_too_far),
        TEST(test_problems_are_text),
        TEST(test_depth),
        TEST(test_frames_that_are_cut),
        TEST(test_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
