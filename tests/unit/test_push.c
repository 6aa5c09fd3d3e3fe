/* Messages from the bus as the pushes that structured clients receive. */
#include "proto/push.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct buffer out;

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

static const char *json_of(const struct message_fields *fields)
{
    buffer_clear(&out);
    assert_true(push_write(fields, FACE_JSON, &out));
    return buffer_text(&out);
}

static struct message_fields message(void)
{
    return (struct message_fields){.kind = MESSAGE_DATA,
                                   .time_ms = 1767225600000,
                                   .from = slice_text("session:amy"),
                                   .to = slice_text("user:bob"),
                                   .payload = slice_text("hi")};
}

static void test_messages(void **state)
{
    struct message_fields fields = message();

    (void)state;
    assert_string_equal(json_of(&fields),
                        "{\"push\":\"message\",\"to\":\"user:bob\",\"from\":\"session:amy\","
                        "\"time\":1767225600000,\"text\":\"hi\"}");
    fields.offset = slice_text("1-2");
    fields.epoch = slice_text("e");
    fields.content = CONTENT_JSON;
    fields.payload = slice_text("{\"n\":7}");
    assert_string_equal(
        json_of(&fields),
        "{\"push\":\"message\",\"to\":\"user:bob\",\"from\":\"session:amy\",\"time\":1767225600000,"
        "\"offset\":\"1-2\",\"epoch\":\"e\",\"data\":{\"n\":7}}");
}

/* Only sessions can be answered, so only they are named. */
static void test_senders(void **state)
{
    static const char *const others[] = {"", "instance:a1", "user:bob", "topic:t", "nonsense", "session:"};

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct message_fields fields = message();
        fields.from = slice_text(others[i]);
        assert_string_equal(
            json_of(&fields),
            "{\"push\":\"message\",\"to\":\"user:bob\",\"time\":1767225600000,\"text\":\"hi\"}");
    }
}

static void test_requests_and_their_end(void **state)
{
    struct message_fields fields = message();

    (void)state;
    fields.kind = MESSAGE_REQUEST;
    fields.correlation = slice_text("k.7");
    fields.timeout_ms = 5000;
    assert_string_equal(
        json_of(&fields),
        "{\"push\":\"request\",\"request\":\"k.7\",\"to\":\"user:bob\",\"from\":\"session:amy\","
        "\"time\":1767225600000,\"timeout\":5000,\"text\":\"hi\"}");
    fields.kind = MESSAGE_CANCEL;
    assert_string_equal(json_of(&fields), "{\"push\":\"cancel\",\"request\":\"k.7\"}");
}

static void test_presence(void **state)
{
    struct message_fields fields = {.kind = MESSAGE_JOIN,
                                    .from = slice_text("session:bob~k"),
                                    .to = slice_text("topic:orders.eu"),
                                    .payload = slice_text("bob")};

    (void)state;
    assert_string_equal(json_of(&fields),
                        "{\"push\":\"join\",\"topic\":\"orders.eu\",\"session\":\"bob~k\",\"user\":\"bob\"}");
    fields.kind = MESSAGE_LEAVE;
    fields.payload = slice_from(NULL, 0);
    assert_string_equal(json_of(&fields),
                        "{\"push\":\"leave\",\"topic\":\"orders.eu\",\"session\":\"bob~k\"}");
}

static void test_in_a_list(void **state)
{
    struct message_fields fields = message();
    struct writer writer;

    (void)state;
    buffer_clear(&out);
    writer_begin(&writer, FACE_JSON, &out);
    writer_array(&writer, 2);
    push_write_message(&writer, &fields);
    fields.from = slice_from(NULL, 0);
    push_write_message(&writer, &fields);
    writer_end(&writer);
    assert_string_equal(
        buffer_text(&out),
        "[{\"to\":\"user:bob\",\"from\":\"session:amy\",\"time\":1767225600000,\"text\":\"hi\"},"
        "{\"to\":\"user:bob\",\"time\":1767225600000,\"text\":\"hi\"}]");
}

static void test_memory_is_short(void **state)
{
    (void)state;
    for (int face = FACE_JSON; face <= FACE_MSGPACK; face++) {
        bool failed = true;
        for (size_t n = 1; failed; n++) {
            struct message_fields fields = message();
            buffer_close(&out);
            buffer_init(&out, 0);
            alloc_fixture_fail(n);
            bool written = push_write(&fields, (enum face)face, &out);
            failed = alloc_fixture_failed();
            alloc_fixture_fail(0);
            assert_true(written == !failed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, install, check_leaks)
        TEST(test_messages), TEST(test_senders),   TEST(test_requests_and_their_end),
        TEST(test_presence), TEST(test_in_a_list), TEST(test_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
