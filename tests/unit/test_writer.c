/* Frames written in JSON and in MessagePack by the same calls. */
#include "proto/writer.h"
#include "tests/lib/alloc_fixture.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct buffer out;
static struct writer writer;

static int install(void **state)
{
    (void)state;
    alloc_fixture_install();
    buffer_init(&out, 0);
    return 0;
}

static int check_leaks(void **state)
{
    (void)state;
    buffer_close(&out);
    return alloc_fixture_remove() ? -1 : 0;
}

static void begin(enum face face)
{
    buffer_clear(&out);
    writer_begin(&writer, face, &out);
}

static void expect(const void *bytes, size_t len)
{
    assert_false(out.failed);
    assert_int_equal(out.len, len);
    assert_memory_equal(out.data, bytes, len);
}

static void expect_json(const char *text)
{
    assert_string_equal(buffer_text(&out), text);
}

static void write_all_kinds(void)
{
    writer_map(&writer, 4);
    writer_key(&writer, "list");
    writer_array(&writer, 3);
    writer_int(&writer, -5);
    writer_str(&writer, slice_text("a"));
    writer_map(&writer, 0);
    writer_end(&writer);
    writer_end(&writer);
    writer_pair_bool(&writer, "yes", true);
    writer_pair_bool(&writer, "no", false);
    writer_pair_int(&writer, "n", INT64_MIN);
    writer_end(&writer);
}

static void test_all_kinds(void **state)
{
    static const char packed[] = "\x84\xa4list\x93\xfb\xa1"
                                 "a\x80\xa3yes\xc3\xa2no\xc2\xa1n\xd3\x80\0\0\0\0\0\0\0";

    (void)state;
    begin(FACE_JSON);
    write_all_kinds();
    expect_json("{\"list\":[-5,\"a\",{}],\"yes\":true,\"no\":false,\"n\":-9223372036854775808}");
    begin(FACE_MSGPACK);
    write_all_kinds();
    expect(packed, sizeof packed - 1);
}

static void test_several_frames_in_a_row(void **state)
{
    (void)state;
    begin(FACE_JSON);
    for (int i = 0; i < 2; i++) {
        writer_array(&writer, 2);
        writer_int(&writer, i);
        writer_int(&writer, i);
        writer_end(&writer);
        writer_begin(&writer, FACE_JSON, &out);
    }
    expect_json("[0,0][1,1]");
}

/* Whatever bytes a text has, JSON readers get them back. */
static void test_escapes(void **state)
{
    char text[256 + 4] = "";
    size_t len = 0;

    (void)state;
    for (int c = 0; c < 0x80; c++)
        text[len++] = (char)c;
    memcpy(text + len, "\xc3\xbc\xf0\x9f\x97\x9e\xe2\x80\xa8", 9);
    len += 9;
    begin(FACE_JSON);
    writer_str(&writer, slice_from(text, len));
    json_t *value = json_loadb(out.data, out.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    assert_int_equal(json_string_length(value), len);
    assert_memory_equal(json_string_value(value), text, len);
    json_decref(value);
    for (size_t i = 0; i < out.len; i++)
        assert_true((unsigned char)out.data[i] >= 0x20);
}

static void test_lengths_of_strings(void **state)
{
    static const size_t lengths[] = {0, 31, 32, 255, 256, 65535, 65536};
    char *text = malloc(65536);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', 65536);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t head = lengths[i] < 32 ? 1 : lengths[i] < 256 ? 2 : lengths[i] < 65536 ? 3 : 5;
        begin(FACE_MSGPACK);
        writer_str(&writer, slice_from(text, lengths[i]));
        assert_int_equal(out.len, lengths[i] + head);
    }
    free(text);
}

static void payload(enum face face, enum message_content content, const void *bytes, size_t len)
{
    begin(face);
    writer_map(&writer, 1);
    writer_payload(&writer, content, slice_from(bytes, len));
    writer_end(&writer);
}

static void test_payloads(void **state)
{
    (void)state;
    payload(FACE_JSON, CONTENT_TEXT, "hi\n", 3);
    expect_json("{\"text\":\"hi\\n\"}");
    payload(FACE_JSON, CONTENT_TEXT, NULL, 0);
    expect_json("{\"text\":\"\"}");
    payload(FACE_JSON, CONTENT_BINARY, "\0\xff", 2);
    expect_json("{\"binary\":\"AP8=\"}");
    payload(FACE_JSON, CONTENT_BINARY, NULL, 0);
    expect_json("{\"binary\":\"\"}");
    payload(FACE_JSON, CONTENT_JSON, "{\"a\":1.10}", 10);
    expect_json("{\"data\":{\"a\":1.10}}");
    payload(FACE_MSGPACK, CONTENT_TEXT, "hi", 2);
    expect("\x81\xa4text\xa2hi", 9);
    payload(FACE_MSGPACK, CONTENT_BINARY, "\0\xff", 2);
    expect("\x81\xa6"
           "binary\xc4\x02\0\xff",
           12);
    payload(FACE_MSGPACK, CONTENT_JSON, "[null,\"\\u0000\"]", 15);
    expect("\x81\xa4"
           "data\x92\xc0\xa1\0",
           10);
}

/* An array of which elements were taken back: the count is that of what stayed. */
static void test_arrays_of_unknown_length(void **state)
{
    static const char *const items[] = {"a", "bb", "c"};

    (void)state;
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        for (size_t kept = 0; kept <= 3; kept++) {
            begin((enum face)face);
            writer_map(&writer, 2);
            writer_key(&writer, "list");
            size_t begun = writer_array_begin(&writer);
            for (size_t i = 0; i < 3; i++) {
                struct writer_mark mark = writer_mark(&writer);
                writer_str(&writer, slice_text(items[i]));
                if (i >= kept)
                    writer_rewind(&writer, mark);
            }
            writer_array_end(&writer, begun, kept);
            writer_pair_int(&writer, "x", 1);
            writer_end(&writer);
            if (face == FACE_JSON) {
                static const char *const texts[] = {"[]", "[\"a\"]", "[\"a\",\"bb\"]",
                                                    "[\"a\",\"bb\",\"c\"]"};
                char text[64];
                snprintf(text, sizeof text, "{\"list\":%s,\"x\":1}", texts[kept]);
                expect_json(text);
            } else {
                static const char all[] = "\xa1"
                                          "a\xa2"
                                          "bb\xa1"
                                          "c";
                static const size_t lens[] = {0, 2, 5, 7};
                char bytes[64] = "\x82\xa4list\xdd\0\0\0";
                bytes[10] = (char)kept;
                memcpy(bytes + 11, all, lens[kept]);
                memcpy(bytes + 11 + lens[kept], "\xa1x\x01", 3);
                expect(bytes, 14 + lens[kept]);
            }
        }
    }
}

/* What claims to be JSON but isn't must not break the frame around it. */
static void test_a_payload_that_is_no_json(void **state)
{
    static const char *const texts[] = {"", "{", "1 2", "\"", "nul", "1}", "{\"a\":1,\"a\"}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
            payload((enum face)face, CONTENT_JSON, texts[i], strlen(texts[i]));
            assert_memory_equal(out.data + 2, "text", 4);
        }
        payload(FACE_JSON, CONTENT_JSON, texts[i], strlen(texts[i]));
        json_t *value = json_loadb(out.data, out.len, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(value, "text")), texts[i]);
        json_decref(value);
    }
}

static void test_memory_is_short(void **state)
{
    (void)state;
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        bool failed = true;
        for (size_t n = 1; failed; n++) {
            buffer_close(&out);
            buffer_init(&out, 0);
            alloc_fixture_fail(n);
            begin((enum face)face);
            writer_map(&writer, 3);
            writer_pair_int(&writer, "id", 7);
            writer_key(&writer, "ok");
            writer_map(&writer, 1);
            writer_payload(&writer, CONTENT_BINARY,
                           slice_text("a longer payload, so that the buffer has to grow more than once"));
            writer_end(&writer);
            writer_pair_str(&writer, "text",
                            slice_text("and more of it, which takes its place as well, as it must"));
            writer_end(&writer);
            failed = alloc_fixture_failed();
            alloc_fixture_fail(0);
            assert_true(out.failed == failed);
        }
    }
}

static void what_is_no_utf8_is_repaired(void **state)
{
    (void)state;
    begin(FACE_JSON);
    writer_str(&writer, slice_from("a\xff\xfe" "b", 4));
    expect_json("\"a\xef\xbf\xbd\xef\xbf\xbd" "b\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, install, check_leaks)
        TEST(test_all_kinds),       TEST(test_several_frames_in_a_row),
        TEST(test_escapes),         TEST(test_lengths_of_strings),
        TEST(test_payloads),        TEST(test_a_payload_that_is_no_json),
        TEST(test_memory_is_short), TEST(test_arrays_of_unknown_length),
        TEST(what_is_no_utf8_is_repaired),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
