/* Messages and the frames made of them. */
#include "proto/frame.h"
#include "proto/message.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static int install(void **state)
{
    (void)state;
    alloc_fixture_install();
    return 0;
}

static int check_leaks(void **state)
{
    (void)state;
    return alloc_fixture_remove() ? -1 : 0;
}

static void test_message_owns_its_bytes(void **state)
{
    char id[] = "7", from[] = "session:bob", to[] = "user:u", payload[] = "hi\0there", correlation[] = "c9";
    struct message_fields fields = {.kind = MESSAGE_REQUEST,
                                    .content = CONTENT_BINARY,
                                    .time_ms = 123,
                                    .id = slice_text(id),
                                    .from = slice_text(from),
                                    .to = slice_text(to),
                                    .payload = slice_from(payload, sizeof payload),
                                    .correlation = slice_text(correlation)};
    struct message *message = message_create(&fields);

    (void)state;
    assert_non_null(message);
    id[0] = from[0] = to[0] = payload[0] = correlation[0] = 'X';
    assert_int_equal(message->fields.kind, MESSAGE_REQUEST);
    assert_int_equal(message->fields.content, CONTENT_BINARY);
    assert_int_equal(message->fields.time_ms, 123);
    assert_true(slice_is(message->fields.id, "7"));
    assert_true(slice_is(message->fields.from, "session:bob"));
    assert_true(slice_is(message->fields.to, "user:u"));
    assert_true(slice_equal(message->fields.payload, slice_from("hi\0there", 9)));
    assert_true(slice_is(message->fields.correlation, "c9"));
    assert_ptr_equal(message_ref(message), message);
    message_unref(message);
    assert_true(slice_is(message->fields.to, "user:u"));
    message_unref(message);
    message_unref(NULL);
}

static void test_empty_message(void **state)
{
    struct message_fields fields = {.kind = MESSAGE_DATA};
    struct message *message = message_create(&fields);

    (void)state;
    assert_int_equal(message->len, 0);
    struct frame *frame = frame_of(message, FACE_PLAIN);
    assert_int_equal(frame->len, 2);
    assert_memory_equal(frame->bytes, "\x81\x00", 2);
    message_unref(message);
}

static void test_frame_headers(void **state)
{
    static const struct {
        size_t payload;
        size_t len;
        unsigned char header[FRAME_HEADER_MAX];
    } rows[] = {
        {0, 2, {0x82, 0}},
        {1, 2, {0x82, 1}},
        {125, 2, {0x82, 125}},
        {126, 4, {0x82, 126, 0, 126}},
        {127, 4, {0x82, 126, 0, 127}},
        {256, 4, {0x82, 126, 1, 0}},
        {65535, 4, {0x82, 126, 0xff, 0xff}},
        {65536, 10, {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
        {0x12345678, 10, {0x82, 127, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char header[FRAME_HEADER_MAX];
        assert_int_equal(frame_write_header(FRAME_BINARY, rows[i].payload, header), rows[i].len);
        assert_memory_equal(header, rows[i].header, rows[i].len);
    }
}

static void test_frames_hold_the_payload(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 1 << 20};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *payload = malloc(sizes[i] + 1);
        unsigned char header[FRAME_HEADER_MAX];
        memset(payload, 'x', sizes[i]);
        struct frame *frame = frame_create(FRAME_TEXT, slice_from(payload, sizes[i]));
        size_t header_len = frame_write_header(FRAME_TEXT, sizes[i], header);
        assert_int_equal(frame->len, header_len + sizes[i]);
        assert_memory_equal(frame->bytes, header, header_len);
        if (sizes[i])
            assert_memory_equal(frame->bytes + header_len, payload, sizes[i]);
        frame_unref(frame);
        free(payload);
    }
    frame_unref(NULL);
}

static void test_opcodes(void **state)
{
    static const enum frame_opcode opcodes[] = {FRAME_TEXT, FRAME_BINARY, FRAME_CLOSE, FRAME_PING,
                                                FRAME_PONG};
    static const unsigned char first[] = {0x81, 0x82, 0x88, 0x89, 0x8a};

    (void)state;
    for (size_t i = 0; i < sizeof first; i++) {
        unsigned char header[FRAME_HEADER_MAX];
        frame_write_header(opcodes[i], 0, header);
        assert_int_equal(header[0], first[i]);
    }
}

static void test_frame_is_made_once_and_shared(void **state)
{
    struct message_fields fields = {.content = CONTENT_BINARY, .payload = slice_text("abc")};
    struct message *message = message_create(&fields);

    (void)state;
    struct frame *frame = frame_ref(frame_of(message, FACE_PLAIN));
    assert_ptr_equal(frame_of(message, FACE_PLAIN), frame);
    assert_memory_equal(frame->bytes,
                        "\x82\x03"
                        "abc",
                        5);
    message_unref(message);
    assert_memory_equal(frame->bytes + 2, "abc", 3); /* outlives its message */
    frame_unref(frame);
}

static void test_memory_is_short(void **state)
{
    struct message_fields fields = {.payload = slice_text("abc")};

    (void)state;
    alloc_fixture_fail(1);
    assert_null(message_create(&fields));
    alloc_fixture_fail(1);
    assert_null(frame_create(FRAME_TEXT, fields.payload));
    struct message *message = message_create(&fields);
    alloc_fixture_fail(1);
    assert_null(frame_of(message, FACE_PLAIN));
    assert_non_null(frame_of(message, FACE_PLAIN)); /* a later attempt succeeds */
    message_unref(message);
}

static void test_face_names(void **state)
{
    (void)state;
    assert_string_equal(face_name(FACE_PLAIN), "plain");
    assert_string_equal(face_name(FACE_JSON), "json");
    assert_string_equal(face_name(FACE_MSGPACK), "msgpack");
}

#define LEAK_TEST(function) cmocka_unit_test_setup_teardown(function, install, check_leaks)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        LEAK_TEST(test_message_owns_its_bytes),
        LEAK_TEST(test_empty_message),
        LEAK_TEST(test_frame_headers),
        LEAK_TEST(test_frames_hold_the_payload),
        LEAK_TEST(test_opcodes),
        LEAK_TEST(test_frame_is_made_once_and_shared),
        LEAK_TEST(test_memory_is_short),
        LEAK_TEST(test_face_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
