/* A session that comes online: in which order, under which name, and what its messages do. */
#include "broker/outbox.h"
#include "broker/router.h"
#include "proto/envelope.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct session_fixture fixture;

static int open_memory(void **state)
{
    *state = &fixture;
    session_fixture_open(&fixture, NULL, true);
    return 0;
}

static int open_fake(void **state)
{
    *state = &fixture;
    session_fixture_open(&fixture, NULL, false);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    session_fixture_close(&fixture);
    return 0;
}

static void assert_received(struct client *client, const char *expected)
{
    assert_string_equal(client_take(client), expected);
}

static void assert_name(const struct client *client, const char *name)
{
    if (!slice_is(session_name(client->session), name))
        fail_msg("named %.*s", (int)session_name(client->session).len, session_name(client->session).data);
}

static bool answer(enum fake_kind kind, int error, int64_t number)
{
    return fake_storage_answer_next(fixture.fake, kind, error, number);
}

/* ---- coming online ---- */

static void subscription_then_registration_then_online(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");

    (void)state;
    assert_non_null(c->session);
    assert_null(session_outbox(c->session));
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_SUBSCRIBE), 2); /* the user's channel and its own */
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    assert_int_equal(fixture.fake->made[FAKE_REGISTER], 0);
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    struct fake_call *call = fake_storage_next(fixture.fake, FAKE_REGISTER);
    assert_non_null(call);
    assert_string_equal(call->user, "bob");
    assert_int_equal(call->len, 0); /* a shared address has no takeover */
    assert_false(call->restore);
    assert_false(c->reading);
    assert_int_equal(sessions_online(fixture.sessions), 0);
    fake_storage_answer(call, ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_true(c->reading);
    assert_int_equal(sessions_online(fixture.sessions), 1);
    assert_int_equal(fixture.metrics.sessions_opened, 1);
    assert_non_null(session_outbox(c->session));
}

static void anonymous_session_subscribes_to_itself_only(void **state)
{
    struct client *c = client_open(&fixture, "/echo");

    (void)state;
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_SUBSCRIBE), 1);
    client_bring_online(c);
    assert_int_equal(sessions_online(fixture.sessions), 1);
    assert_memory_equal(session_name(c->session).data, "anonymous~", 10);
    char channel[CHANNEL_MAX];
    snprintf(channel, sizeof channel, "session:{%.*s}", (int)session_name(c->session).len,
             session_name(c->session).data);
    fixture_message(&fixture, channel, "reached");
    session_fixture_turn(&fixture);
    assert_received(c, "reached|");
}

static void early_messages_are_delivered_when_online(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");

    (void)state;
    fixture_message(&fixture, "user:{bob}", "one");
    while (answer(FAKE_SUBSCRIBE, ERROR_NONE, 0))
        ;
    fixture_message(&fixture, "user:{bob}", "two");
    session_fixture_turn(&fixture);
    assert_false(c->wanted);
    assert_received(c, "");
    answer(FAKE_REGISTER, ERROR_NONE, 0);
    fixture_message(&fixture, "user:{bob}", "three");
    session_fixture_turn(&fixture);
    assert_received(c, "one|two|three|");
}

static void second_of_a_user_comes_online_without_subscribing_again(void **state)
{
    struct client *a = client_open(&fixture, "/users/bob");

    (void)state;
    client_bring_online(a);
    struct client *b = client_open(&fixture, "/users/bob");
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_SUBSCRIBE), 1); /* its own */
    client_bring_online(b);
    fixture_message(&fixture, "user:{bob}", "both");
    session_fixture_turn(&fixture);
    assert_received(a, "both|");
    assert_received(b, "both|");
    client_lose(a, 1000);
    session_fixture_turn(&fixture);
    fixture_message(&fixture, "user:{bob}", "one");
    session_fixture_turn(&fixture);
    assert_received(b, "one|");
}

static void failed_subscription_ends_it(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct client *c = client_open(&fixture, "/users/bob");
        if (which)
            answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
        answer(FAKE_SUBSCRIBE, ERROR_TIMEOUT, 0);
        assert_int_equal(c->close_code, CLOSE_UNAVAILABLE);
        assert_true(session_fixture_gone(&fixture));
        assert_int_equal(c->closes, 1);
        assert_received(c, "#4000");
    }
    assert_int_equal(fixture.fake->made[FAKE_REGISTER], 0);
}

static void failed_registration_ends_it(void **state)
{
    static const int errors[] = {ERROR_UNAVAILABLE, ERROR_TIMEOUT, ERROR_NO_MEMORY};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct client *c = client_open(&fixture, "/users/bob");
        while (answer(FAKE_SUBSCRIBE, ERROR_NONE, 0))
            ;
        answer(FAKE_REGISTER, errors[i], 0);
        assert_int_equal(c->close_code, CLOSE_UNAVAILABLE);
        session_fixture_turn(&fixture);
        /* It may have been registered all the same. */
        assert_int_equal(fake_storage_open(fixture.fake, FAKE_UNREGISTER), 1);
        assert_true(session_fixture_gone(&fixture));
        assert_received(c, "#4000");
    }
    assert_int_equal(fixture.metrics.sessions_opened, 0);
    assert_int_equal(fixture.metrics.sessions_closed, 0);
}

/* ---- names ---- */

static void exclusive_name_is_the_address(void **state)
{
    struct client *c = client_open(&fixture, "/names/user Sever_8080");

    (void)state;
    assert_name(c, "user Sever_8080");
    assert_string_equal(fake_storage_next(fixture.fake, FAKE_SUBSCRIBE)->channel,
                        "session:{user%20Sever_8080}");
    client_lose(c, 0);
    assert_true(session_fixture_gone(&fixture));
}

static void shared_name_carries_the_conn(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");
    char name[64];

    (void)state;
    snprintf(name, sizeof name, "bob~%.*s", (int)client_conn(c).len, client_conn(c).data);
    assert_name(c, name);
    c = client_open(&fixture, "/topics/bob");
    snprintf(name, sizeof name, "bob~%.*s", (int)client_conn(c).len, client_conn(c).data);
    assert_name(c, name);
    client_bring_online(c);
}

static void long_shared_name_is_cut_at_a_character(void **state)
{
    (void)state;
    /* 255 bytes, of characters of 1 to 4 bytes: wherever the cut falls, none is halved. */
    static const char *const characters[] = {"a", "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80"};
    for (size_t i = 0; i < 4; i++) {
        for (size_t shift = 0; shift < 4; shift++) {
            char path[320] = "/users/";
            size_t width = strlen(characters[i]), len = shift;
            strcat(path, &"xxx"[3 - shift]);
            for (; len + width <= 255; len += width)
                strcat(path, characters[i]);
            for (; len < 255; len++)
                strcat(path, "z");
            struct client *c = client_open(&fixture, path);
            assert_non_null(c->session);
            struct slice name = session_name(c->session), conn = client_conn(c);
            assert_true(name.len <= ADDRESS_NAME_MAX && name.len > ADDRESS_NAME_MAX - 4);
            assert_null(address_check_name(name));
            assert_memory_equal(name.data + name.len - conn.len, conn.data, conn.len);
            assert_int_equal(name.data[name.len - conn.len - 1], '~');
            assert_memory_equal(name.data, path + strlen("/users/"), name.len - conn.len - 1);
            client_bring_online(c);
        }
    }
}

static void long_exclusive_name_is_whole(void **state)
{
    char path[320] = "/names/";

    (void)state;
    for (int i = 0; i < 85; i++)
        strcat(path, "\xe4\xb8\xad");
    struct client *c = client_open(&fixture, path);
    assert_name(c, path + strlen("/names/"));
    assert_int_equal(session_name(c->session).len, 255);
    client_bring_online(c);
}

static void conns_are_unique(void **state)
{
    enum { COUNT = 200 };
    static char seen[COUNT][32];

    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        struct client *c = client_open(&fixture, "/echo");
        snprintf(seen[i], sizeof seen[i], "%.*s", (int)client_conn(c).len, client_conn(c).data);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(seen[i], seen[j]);
    }
    /* Another process, or the same one started anew, has other ones. */
    struct sessions_options options = {.loop = fixture.loop,
                                       .storage = fixture.storage,
                                       .router = fixture.router,
                                       .metrics = &fixture.metrics,
                                       .budget = &fixture.budget,
                                       .outbox_limit = 100};
    struct sessions *others = sessions_create(&options), *own = fixture.sessions;
    fixture.sessions = others;
    struct client *c = client_open(&fixture, "/echo");
    assert_int_not_equal(memcmp(client_conn(c).data, seen[0], 10), 0);
    client_lose(c, 0);
    session_fixture_turn(&fixture);
    while (answer(FAKE_SUBSCRIBE, ERROR_CANCELLED, 0))
        ;
    fixture.sessions = own;
    sessions_destroy(others);
    session_fixture_settle(&fixture);
}

static void agent_is_cut_at_a_character(void **state)
{
    struct session_params params;
    struct client *c = client_open(&fixture, "/names/x");
    struct route_match match;
    char agent[128] = "";

    (void)state;
    client_bring_online(c);
    for (int i = 0; i < 30; i++)
        strcat(agent, "\xe4\xb8\xad");
    assert_true(client_match(&fixture, "/names/y", &match, &params));
    params.agent = slice_text(agent);
    struct client *d = client_open_with(&fixture, &params);
    answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
    struct fake_call *call = fake_storage_of(fixture.fake, FAKE_REGISTER, client_conn(d));
    assert_int_equal(strlen(call->agent), 63);
    assert_memory_equal(call->agent, agent, 63);
    params.agent = slice_text("");
    params.remote = slice_text("");
    struct client *e = client_open_with(&fixture, &params);
    assert_non_null(e->session);
}

/* ---- what messages do ---- */

static void echo_sends_back_what_came(void **state)
{
    struct client *c = client_open(&fixture, "/echo");

    (void)state;
    session_fixture_settle(&fixture);
    client_send(c, "hello");
    client_send(c, "");
    client_send_binary(c, "\1\2", 2);
    client_send_binary(c, NULL, 0);
    session_fixture_turn(&fixture);
    assert_received(c, "hello||<\1\2>|<>|");
    assert_int_equal(fixture.metrics.messages_received, 4);
    assert_int_equal(fixture.metrics.bytes_received, 7);
    assert_int_equal(fixture.metrics.published, 0);
}

static void ignore_sends_nothing(void **state)
{
    struct client *c = client_open(&fixture, "/ignore");

    (void)state;
    session_fixture_settle(&fixture);
    client_send(c, "hello");
    session_fixture_settle(&fixture);
    assert_received(c, "");
    assert_int_equal(fixture.metrics.messages_received, 1);
    assert_int_equal(fixture.metrics.published, 0);
}

static void publish_reaches_all_of_a_user_the_sender_included(void **state)
{
    struct client *a = client_open(&fixture, "/users/bob"), *b = client_open(&fixture, "/users/bob"),
                  *c = client_open(&fixture, "/users/bobby");

    (void)state;
    session_fixture_settle(&fixture);
    client_send(a, "hi \xe4\xb8\xad");
    client_send(b, "");
    session_fixture_settle(&fixture);
    assert_received(a, "bob:hi \xe4\xb8\xad|bob:|");
    assert_received(b, "bob:hi \xe4\xb8\xad|bob:|");
    assert_received(c, "");
    assert_int_equal(fixture.metrics.published, 2);
    assert_int_equal(fixture.metrics.published_absent, 0);
}

static void binary_passes_without_template_and_reply(void **state)
{
    struct client *a = client_open(&fixture, "/users/bob"), *b = client_open(&fixture, "/names/target");

    (void)state;
    session_fixture_settle(&fixture);
    client_send_binary(a, "\xff\xfe", 2);
    client_send_binary(a, NULL, 0);
    client_send_binary(b, "{message}", 9);
    session_fixture_settle(&fixture);
    assert_received(a, "<\xff\xfe>|<>|");
    assert_received(b, "<{message}>|");
}

static void large_message_passes_whole(void **state)
{
    enum { SIZE = 70 * 1024 };
    static char text[SIZE + 1], expected[SIZE + 16];
    struct client *c = client_open(&fixture, "/users/bob");

    (void)state;
    memset(text, 'x', SIZE);
    snprintf(expected, sizeof expected, "bob:%s|", text);
    session_fixture_settle(&fixture);
    client_send(c, text);
    session_fixture_settle(&fixture);
    assert_received(c, expected);
}

static void forward_reaches_the_target_and_replies_to_the_sender(void **state)
{
    struct client *a = client_open(&fixture, "/names/a"), *target = client_open(&fixture, "/names/target");

    (void)state;
    session_fixture_settle(&fixture);
    client_send(a, "one");
    client_send(a, "");
    client_send(a, "{message}");
    session_fixture_settle(&fixture);
    assert_received(target, "one||{message}|");
    assert_received(a, "Got your message (one).Thanks !|Got your message ().Thanks !|"
                       "Got your message ({message}).Thanks !|");
}

static void topic_is_pub_sub_by_url(void **state)
{
    struct client *a = client_open(&fixture, "/topics/news"), *b = client_open(&fixture, "/topics/news");

    (void)state;
    session_fixture_settle(&fixture);
    client_send(a, "1");
    client_send(b, "2");
    session_fixture_settle(&fixture);
    assert_received(a, "1|2|");
    assert_received(b, "1|2|");
}

static void messages_keep_their_order(void **state)
{
    struct client *a = client_open(&fixture, "/to/target"), *target = client_open(&fixture, "/names/target");
    char text[16], expected[4096] = "";

    (void)state;
    session_fixture_settle(&fixture);
    for (int i = 0; i < 300; i++) {
        snprintf(text, sizeof text, "%d", i);
        client_send(a, text);
        strcat(strcat(expected, text), "|");
        if (i % 7 == 0)
            session_fixture_turn(&fixture);
    }
    session_fixture_settle(&fixture);
    assert_received(target, expected);
}

/* ---- what the bus answers ---- */

static void reply_follows_the_bus_in_order(void **state)
{
    struct client *c = client_open_online(&fixture, "/names/a");

    (void)state;
    client_send(c, "one");
    client_send(c, "two");
    session_fixture_turn(&fixture);
    assert_received(c, "");
    answer(FAKE_PUBLISH, ERROR_NONE, 1);
    session_fixture_turn(&fixture);
    assert_received(c, "Got your message (one).Thanks !|");
    answer(FAKE_PUBLISH, ERROR_NONE, 1);
    session_fixture_turn(&fixture);
    assert_received(c, "Got your message (two).Thanks !|");
}

static void absent_target_is_counted_and_the_reply_unchanged(void **state)
{
    struct client *c = client_open_online(&fixture, "/names/a");

    (void)state;
    client_send(c, "one");
    answer(FAKE_PUBLISH, ERROR_NONE, 0);
    session_fixture_turn(&fixture);
    assert_received(c, "Got your message (one).Thanks !|");
    assert_int_equal(fixture.metrics.published, 1);
    assert_int_equal(fixture.metrics.published_absent, 1);
    assert_int_equal(fixture.metrics.publish_failed, 0);
}

static void unavailable_bus_is_counted_and_not_thanked_for(void **state)
{
    struct client *c = client_open_online(&fixture, "/names/a");

    (void)state;
    client_send(c, "one");
    answer(FAKE_PUBLISH, ERROR_UNAVAILABLE, 0);
    client_send(c, "two");
    answer(FAKE_PUBLISH, ERROR_TIMEOUT, 0);
    client_send(c, "three");
    answer(FAKE_PUBLISH, ERROR_NONE, 1);
    session_fixture_turn(&fixture);
    assert_received(c, "Got your message (three).Thanks !|");
    assert_int_equal(fixture.metrics.publish_failed, 2);
    assert_int_equal(fixture.metrics.published_absent, 0);
    assert_int_equal(c->closes, 0);
}

static void envelope_says_who_sent_what_where(void **state)
{
    struct client *c = client_open_online(&fixture, "/names/a");
    struct message_fields fields;

    (void)state;
    client_send(c, "one");
    struct fake_call *call = fake_storage_next(fixture.fake, FAKE_PUBLISH);
    assert_string_equal(call->channel, "session:{target}");
    assert_null(envelope_decode(slice_from(call->bytes, call->len), &fields));
    assert_true(slice_is(fields.from, "session:a"));
    assert_true(slice_is(fields.to, "session:target"));
    assert_true(slice_is(fields.payload, "one"));
    assert_int_equal(fields.time_ms, fixture.now_us / 1000);
    assert_int_equal(fields.content, CONTENT_TEXT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define FAKE_TEST(name)   cmocka_unit_test_setup_teardown(name, open_fake, close_all)
#define MEMORY_TEST(name) cmocka_unit_test_setup_teardown(name, open_memory, close_all)
        FAKE_TEST(subscription_then_registration_then_online),
        FAKE_TEST(anonymous_session_subscribes_to_itself_only),
        FAKE_TEST(early_messages_are_delivered_when_online),
        FAKE_TEST(second_of_a_user_comes_online_without_subscribing_again),
        FAKE_TEST(failed_subscription_ends_it),
        FAKE_TEST(failed_registration_ends_it),
        FAKE_TEST(exclusive_name_is_the_address),
        FAKE_TEST(shared_name_carries_the_conn),
        FAKE_TEST(long_shared_name_is_cut_at_a_character),
        FAKE_TEST(long_exclusive_name_is_whole),
        FAKE_TEST(conns_are_unique),
        FAKE_TEST(agent_is_cut_at_a_character),
        MEMORY_TEST(echo_sends_back_what_came),
        MEMORY_TEST(ignore_sends_nothing),
        MEMORY_TEST(publish_reaches_all_of_a_user_the_sender_included),
        MEMORY_TEST(binary_passes_without_template_and_reply),
        MEMORY_TEST(large_message_passes_whole),
        MEMORY_TEST(forward_reaches_the_target_and_replies_to_the_sender),
        MEMORY_TEST(topic_is_pub_sub_by_url),
        MEMORY_TEST(messages_keep_their_order),
        FAKE_TEST(reply_follows_the_bus_in_order),
        FAKE_TEST(absent_target_is_counted_and_the_reply_unchanged),
        FAKE_TEST(unavailable_bus_is_counted_and_not_thanked_for),
        FAKE_TEST(envelope_says_who_sent_what_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
