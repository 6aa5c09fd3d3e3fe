/* Takeover of an exclusive name: every order in which notice, answer and messages can come. Whatever the
 * order, each message goes to one holder, and a late close removes nothing of a successor. */
#include "broker/router.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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
    session_fixture_turn(&fixture);
    assert_string_equal(client_take(client), expected);
}

static void say(const char *text)
{
    fixture_message(&fixture, "session:{bob}", text);
}

/* A connection that was subscribed and asks to be registered. */
static struct client *registering(void)
{
    struct client *client = client_open(&fixture, "/names/bob");

    fake_storage_answer_next(fixture.fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
    assert_non_null(fake_storage_of(fixture.fake, FAKE_REGISTER, client_conn(client)));
    return client;
}

static void notice(const struct client *client)
{
    fixture_notice(&fixture, "bob", client_conn(client));
}

static void registered(const struct client *client, int64_t replaced)
{
    assert_true(fake_storage_answer(fake_storage_of(fixture.fake, FAKE_REGISTER, client_conn(client)),
                                    ERROR_NONE, replaced));
}

/* ---- from the newcomer's side, the former holder elsewhere ---- */

static void answer_then_notice_with_predecessor(void **state)
{
    struct client *c = registering();

    (void)state;
    say("his");
    registered(c, STORAGE_REPLACED_SOMEBODY);
    say("still his");
    assert_int_equal(sessions_online(fixture.sessions), 0);
    assert_received(c, "");
    notice(c);
    say("mine");
    assert_int_equal(sessions_online(fixture.sessions), 1);
    assert_true(c->reading);
    assert_received(c, "mine|");
}

static void notice_then_answer_with_predecessor(void **state)
{
    struct client *c = registering();

    (void)state;
    say("his");
    say("still his");
    notice(c);
    say("mine");
    assert_int_equal(sessions_online(fixture.sessions), 0);
    registered(c, STORAGE_REPLACED_SOMEBODY);
    say("mine too");
    assert_received(c, "mine|mine too|");
}

static void answer_then_notice_without_predecessor(void **state)
{
    struct client *c = registering();

    (void)state;
    say("one");
    registered(c, STORAGE_REPLACED_NOBODY);
    say("two");
    assert_received(c, "");
    notice(c);
    say("three");
    assert_received(c, "one|two|three|");
}

static void notice_then_answer_without_predecessor(void **state)
{
    struct client *c = registering();

    (void)state;
    say("one");
    notice(c);
    say("two");
    assert_received(c, "");
    registered(c, STORAGE_REPLACED_NOBODY);
    assert_received(c, "one|two|");
}

static void many_held_messages_are_dropped(void **state)
{
    struct client *c = registering();

    (void)state;
    for (int i = 0; i < 100; i++)
        say("his");
    notice(c);
    say("mine");
    registered(c, STORAGE_REPLACED_SOMEBODY);
    assert_received(c, "mine|");
}

static void earlier_takeovers_do_not_concern_the_newcomer(void **state)
{
    struct client *c = registering();

    (void)state;
    fixture_notice(&fixture, "bob", slice_text("someone-before"));
    say("someone's");
    registered(c, STORAGE_REPLACED_SOMEBODY);
    fixture_notice(&fixture, "bob", slice_text("another-before"));
    assert_int_equal(c->closes, 0);
    notice(c);
    say("mine");
    assert_received(c, "mine|");
    assert_int_equal(fixture.metrics.sessions_replaced, 0);
}

/* ---- from the former holder's side ---- */

static struct client *online(void)
{
    struct client *client = registering();

    notice(client);
    registered(client, STORAGE_REPLACED_NOBODY);
    return client;
}

static void holder_closes_at_anothers_notice(void **state)
{
    struct client *c = online();

    (void)state;
    say("mine");
    fixture_notice(&fixture, "bob", slice_text("another"));
    say("his");
    assert_int_equal(c->close_code, CLOSE_REPLACED);
    assert_received(c, "mine|#4501");
    assert_int_equal(fixture.metrics.sessions_replaced, 1);
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_UNREGISTER), 1);
}

static void own_notice_again_changes_nothing(void **state)
{
    struct client *c = online();

    (void)state;
    notice(c);
    say("mine");
    assert_received(c, "mine|");
    assert_int_equal(c->closes, 0);
}

static void notices_mean_nothing_on_shared_addresses(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");
    char channel[64];

    (void)state;
    client_bring_online(c);
    snprintf(channel, sizeof channel, "%.*s", (int)session_name(c->session).len,
             session_name(c->session).data);
    fixture_notice(&fixture, channel, slice_text("another"));
    assert_int_equal(c->closes, 0);
}

static void replaced_between_notice_and_answer(void **state)
{
    struct client *c = registering();

    (void)state;
    say("his");
    notice(c);
    fixture_notice(&fixture, "bob", slice_text("another"));
    say("another's");
    assert_int_equal(c->close_code, CLOSE_REPLACED);
    assert_received(c, "#4501");
    assert_int_equal(fixture.metrics.sessions_opened, 0);
    assert_true(fake_storage_answer_next(fixture.fake, FAKE_REGISTER, ERROR_NONE, STORAGE_REPLACED_SOMEBODY));
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_UNREGISTER), 1);
}

/* ---- both here ---- */

static void both_in_one_process(void **state)
{
    struct client *a = online();
    struct client *b = client_open(&fixture, "/names/bob");

    (void)state;
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_SUBSCRIBE), 0);
    say("a's");
    registered(b, STORAGE_REPLACED_SOMEBODY);
    say("a's too");
    notice(b);
    say("b's");
    assert_received(a, "a's|a's too|#4501");
    assert_received(b, "b's|");
    /* Only a's own entry is asked to go. */
    assert_null(fake_storage_of(fixture.fake, FAKE_UNREGISTER, client_conn(b)));
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_UNREGISTER), 1);
    assert_int_equal(sessions_online(fixture.sessions), 1);
}

static void chain_of_takeovers(void **state)
{
    enum { COUNT = 5 };
    struct client *clients[COUNT];
    static const char *const received[COUNT] = {"0|#4501", "1|#4501", "2|#4501", "3|#4501", "4|"};
    static const char *const texts[COUNT] = {"0", "1", "2", "3", "4"};

    (void)state;
    /* All ask before any is told; answers late, early and mixed with the notices. */
    for (int i = 0; i < COUNT; i++)
        clients[i] = registering();
    say("nobody's");
    registered(clients[3], STORAGE_REPLACED_SOMEBODY);
    for (int i = 0; i < COUNT; i++) {
        notice(clients[i]);
        if (i != 3)
            registered(clients[i], STORAGE_REPLACED_SOMEBODY);
        say(texts[i]);
    }
    for (int i = 0; i < COUNT; i++)
        assert_received(clients[i], received[i]);
    assert_int_equal(fixture.metrics.sessions_replaced, COUNT - 1);
    assert_int_equal(sessions_online(fixture.sessions), 1);
}

/* The messages until its notice are the former holder's, so a newcomer that fails must not write them. */
static void failing_newcomer_receives_none_of_the_holders(void **state)
{
    struct client *a = online();

    (void)state;
    for (int with_notice = 0; with_notice < 2; with_notice++) {
        struct client *b = client_open(&fixture, "/names/bob");
        say("a's");
        if (with_notice) {
            notice(b);
            say("b's");
        }
        fake_storage_answer(fake_storage_of(fixture.fake, FAKE_REGISTER, client_conn(b)), ERROR_UNAVAILABLE,
                            0);
        assert_received(b, with_notice ? "b's|#4000" : "#4000");
    }
    assert_received(a, "a's|a's|#4501");
}

/* ---- with a real storage ---- */

static void newest_holds_the_name(void **state)
{
    struct client *sender = client_open(&fixture, "/to/bob"), *holders[4];

    (void)state;
    session_fixture_settle(&fixture);
    for (int i = 0; i < 4; i++) {
        holders[i] = client_open(&fixture, "/names/bob");
        session_fixture_settle(&fixture);
        client_send(sender, "hello");
        session_fixture_settle(&fixture);
        assert_string_equal(client_take(holders[i]), "hello|");
        if (i)
            assert_string_equal(client_take(holders[i - 1]), "#4501");
    }
    assert_int_equal(sessions_online(fixture.sessions), 2);
    assert_int_equal(fixture.metrics.published_absent, 0);
}

static void send_number(struct client *client, unsigned number)
{
    char text[16];

    snprintf(text, sizeof text, "%u", number);
    client_send(client, text);
}

static void takeover_under_load_neither_loses_nor_doubles(void **state)
{
    enum { ROUNDS = 40 };
    struct client *sender = client_open(&fixture, "/to/bob"), *holders[ROUNDS];
    unsigned sent = 0, next = 0;
    size_t received = 0;

    (void)state;
    holders[0] = client_open(&fixture, "/names/bob");
    session_fixture_settle(&fixture);
    for (int round = 1; round < ROUNDS; round++) {
        for (int i = 0; i < round % 5; i++)
            send_number(sender, sent++);
        holders[round] = client_open(&fixture, "/names/bob");
        for (int i = 0; i < 3; i++)
            send_number(sender, sent++);
        for (int i = 0; i < round % 3; i++)
            session_fixture_turn(&fixture);
    }
    session_fixture_settle(&fixture);
    for (int i = 0; i < ROUNDS; i++) {
        received += holders[i]->messages;
        assert_int_equal(holders[i]->closes, i < ROUNDS - 1);
        for (const char *at = client_take(holders[i]); *at && *at != '#'; next++) {
            char *end;
            assert_int_equal(strtoul(at, &end, 10), next);
            at = end + 1;
        }
    }
    assert_int_equal(received, sent);
}

static void newcomer_that_vanishes_leaves_nothing(void **state)
{
    struct client *a = client_open(&fixture, "/names/bob");

    (void)state;
    session_fixture_settle(&fixture);
    for (int turns = 0; turns < 4; turns++) {
        struct client *b = client_open(&fixture, "/names/bob");
        for (int i = 0; i < turns; i++)
            session_fixture_turn(&fixture);
        client_lose(b, 0);
        session_fixture_settle(&fixture);
    }
    assert_int_equal(a->close_code, CLOSE_REPLACED);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(router_channel_count(fixture.router), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define FAKE_TEST(name)   cmocka_unit_test_setup_teardown(name, open_fake, close_all)
#define MEMORY_TEST(name) cmocka_unit_test_setup_teardown(name, open_memory, close_all)
        FAKE_TEST(answer_then_notice_with_predecessor),
        FAKE_TEST(notice_then_answer_with_predecessor),
        FAKE_TEST(answer_then_notice_without_predecessor),
        FAKE_TEST(notice_then_answer_without_predecessor),
        FAKE_TEST(many_held_messages_are_dropped),
        FAKE_TEST(earlier_takeovers_do_not_concern_the_newcomer),
        FAKE_TEST(holder_closes_at_anothers_notice),
        FAKE_TEST(own_notice_again_changes_nothing),
        FAKE_TEST(notices_mean_nothing_on_shared_addresses),
        FAKE_TEST(replaced_between_notice_and_answer),
        FAKE_TEST(both_in_one_process),
        FAKE_TEST(chain_of_takeovers),
        FAKE_TEST(failing_newcomer_receives_none_of_the_holders),
        MEMORY_TEST(newest_holds_the_name),
        MEMORY_TEST(takeover_under_load_neither_loses_nor_doubles),
        MEMORY_TEST(newcomer_that_vanishes_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
