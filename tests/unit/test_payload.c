/* The largest encoding of a payload: compared with what the faces really write. */
#include "proto/payload.h"

#include "proto/command.h"
#include "proto/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a face makes of the payload alone. */
static size_t written(enum face face, enum message_content content, struct slice payload)
{
    struct buffer with, without;
    struct writer writer;

    buffer_init(&with, 0);
    buffer_init(&without, 0);
    writer_begin(&writer, face, &with);
    writer_map(&writer, 1);
    writer_payload(&writer, content, payload);
    writer_end(&writer);
    writer_begin(&writer, face, &without);
    writer_map(&writer, 1);
    writer_key(&writer, content == CONTENT_BINARY ? "binary" : content == CONTENT_JSON ? "data" : "text");
    writer_end(&writer);
    assert_false(with.failed || without.failed);
    size_t len = with.len - without.len;
    buffer_close(&with);
    buffer_close(&without);
    return len;
}

/* Never less than the truth, and never much more. */
static void check(enum message_content content, struct slice payload)
{
    size_t json = written(FACE_JSON, content, payload), mp = written(FACE_MSGPACK, content, payload);
    size_t most = json > mp ? json : mp, largest = payload_largest(content, payload);

    assert_true(largest >= most && largest >= payload.len);
    assert_true(largest <= most + 8 + most / 6);
    assert_true(payload_fits(content, payload, largest));
    assert_true(payload_fits(content, payload, SIZE_MAX));
    assert_int_equal(payload_fits(content, payload, largest - 1), false);
    assert_int_equal(payload_fits(content, payload, 1), false);
}

static void test_texts(void **state)
{
    char all[128];

    (void)state;
    for (size_t i = 0; i < sizeof all; i++) {
        all[i] = (char)i;
        check(CONTENT_TEXT, slice_from(&all[i], 1));
    }
    check(CONTENT_TEXT, slice_from(all, sizeof all));
    check(CONTENT_TEXT, slice_from(NULL, 0));
    check(CONTENT_TEXT, slice_text("ü \"quoted\" \\ and \b\t\n\v\f\r\x1f\x7f"));
}

static void test_binaries(void **state)
{
    static const char bytes[100000];

    (void)state;
    for (size_t len = 0; len < 10; len++)
        check(CONTENT_BINARY, slice_from(bytes, len));
    check(CONTENT_BINARY, slice_from(bytes, sizeof bytes));
}

static void test_json(void **state)
{
    static const char *const values[] = {
        "0.1",
        "1e1",
        "-0.5",
        "1E-5",
        "0",
        "-1",
        "127",
        "128",
        "255",
        "256",
        "-129",
        "65535",
        "65536",
        "-32769",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "-9223372036854775808",
        "1.1754943508222875e-38",
        "true",
        "null",
        "\"\"",
        "\"0.1 1e1 -2.5 \\\" 3.5\"",
        "[]",
        "{}",
        "[0.1,1e1,-2.5]",
        "{\"1.5\":1.5,\"b\":[{}]}",
        "[1.25,\"\\\\\",0.5]",
        "[[[[0.1]]],0.2]",
        "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
        "\"\\u0000\\ud83d\\ude00\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        check(CONTENT_JSON, slice_text(values[i]));
}

/* Values as an attacker would choose them. */
static void test_random_json(void **state)
{
    static const char *const parts[] = {"0.1",     "1e1",   "1",           "\"\\\"\"", "\"\"",
                                        "-1.5e-7", "[0.5]", "{\"a\":0.5}", "70000"};
    struct buffer text;

    (void)state;
    srandom(1);
    buffer_init(&text, 0);
    for (int round = 0; round < 300; round++) {
        buffer_clear(&text);
        buffer_append_text(&text, "[0");
        for (long i = random() % 2000; i > 0; i--)
            buffer_printf(&text, ",%s", parts[(size_t)random() % (sizeof parts / sizeof *parts)]);
        buffer_append_text(&text, "]");
        check(CONTENT_JSON, slice_from(text.data, text.len));
    }
    buffer_close(&text);
}

static void test_long_strings_and_arrays(void **state)
{
    struct buffer text;

    (void)state;
    buffer_init(&text, 0);
    buffer_append_text(&text, "[\"");
    for (int i = 0; i < 70000; i++)
        buffer_append_text(&text, i == 69999 ? "x\"" : "x");
    for (int i = 0; i < 70000; i++)
        buffer_append_text(&text, ",0");
    buffer_append_text(&text, "]");
    check(CONTENT_JSON, slice_from(text.data, text.len));
    buffer_close(&text);
}

/* ---- the reader's limit ---- */

static void expect_read(enum face face, const char *bytes, size_t len, size_t limit, bool too_large)
{
    struct command_reader reader;
    struct command command;

    command_reader_init(&reader, face, slice_from(bytes, len));
    reader.limit = limit;
    assert_int_equal(command_read(&reader, &command), COMMAND_READ);
    assert_int_equal(command.too_large, too_large);
    assert_int_equal(command.id, 7);
    assert_int_equal(command_read(&reader, &command), COMMAND_END);
    command_reader_close(&reader);
}

static void test_commands(void **state)
{
    /* {"cmd": "send", "data": [1.1754943508222875e-38, the same], "id": 7} */
    static const char floats[] = "\x83\xa3"
                                 "cmd\xa4send\xa4"
                                 "data\x92\xca\x00\x80\x00\x00\xca\x00\x80\x00\x00\xa2"
                                 "id\x07";
    static const char text[] = "{\"cmd\":\"send\",\"text\":\"\\u0001\\u0001\",\"id\":7}";
    static const char refusal[] = "{\"cmd\":\"reply\",\"refuse\":\"\\u0001\\u0001\",\"id\":7}";
    size_t json = 2 * strlen("1.1754943508222875e-38") + 3;

    (void)state;
    expect_read(FACE_MSGPACK, floats, sizeof floats - 1, 0, false);
    expect_read(FACE_MSGPACK, floats, sizeof floats - 1, json + 8, false);
    expect_read(FACE_MSGPACK, floats, sizeof floats - 1, json - 1, true);
    expect_read(FACE_MSGPACK, floats, sizeof floats - 1, 10, true);
    expect_read(FACE_JSON, text, sizeof text - 1, 20, false);
    expect_read(FACE_JSON, text, sizeof text - 1, 16, true);
    expect_read(FACE_JSON, refusal, sizeof refusal - 1, 20, false);
    expect_read(FACE_JSON, refusal, sizeof refusal - 1, 16, true);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_binaries),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_random_json),
        cmocka_unit_test(test_long_strings_and_arrays),
        cmocka_unit_test(test_commands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
