/* How a session is held to its limits, and how it leaves: at any step, by whoever ends it. */
#include "broker/outbox.h"
#include "broker/router.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct session_fixture fixture;

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

static bool answer(enum fake_kind kind, int error, int64_t number)
{
    return fake_storage_answer_next(fixture.fake, kind, error, number);
}

/* ---- limits ---- */

static int open_limited(void **state)
{
    const struct sessions_options options = {.outbox_limit = 64, .inflight_limit = 4, .inflight_bytes = 100};

    *state = &fixture;
    session_fixture_open(&fixture, &options, false);
    return 0;
}

static void many_messages_in_flight_pause_reading(void **state)
{
    struct client *c = client_open_online(&fixture, "/to/x");

    (void)state;
    for (int i = 0; i < 3; i++)
        client_send(c, "x");
    assert_true(c->reading);
    client_send(c, "x");
    assert_false(c->reading);
    client_send(c, "y"); /* was read already: it waits */
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_PUBLISH), 4);
    answer(FAKE_PUBLISH, ERROR_NONE, 1);
    assert_false(c->reading);
    answer(FAKE_PUBLISH, ERROR_NONE, 1); /* half the limit: what waited goes on at the end of the turn */
    assert_false(c->reading);
    session_fixture_turn(&fixture);
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_PUBLISH), 3);
    assert_true(c->reading);
    assert_int_equal(c->pauses, 1);
    client_send(c, "x");
    assert_false(c->reading);
    while (answer(FAKE_PUBLISH, ERROR_UNAVAILABLE, 0))
        ;
    assert_true(c->reading);
}

static void many_bytes_in_flight_pause_reading(void **state)
{
    static const char fifty[] = "12345678901234567890123456789012345678901234567890";
    struct client *c = client_open_online(&fixture, "/to/x");

    (void)state;
    client_send(c, fifty);
    assert_true(c->reading);
    client_send(c, fifty);
    assert_false(c->reading);
    answer(FAKE_PUBLISH, ERROR_NONE, 1);
    assert_true(c->reading);
}

static void paused_client_still_receives(void **state)
{
    struct client *c = client_open_online(&fixture, "/users/bob");

    (void)state;
    for (int i = 0; i < 4; i++)
        client_send(c, "x");
    assert_false(c->reading);
    fixture_message(&fixture, "user:{bob}", "hello");
    session_fixture_turn(&fixture);
    assert_received(c, "hello|");
}

static void slow_reader_is_cut_and_nobody_else_notices(void **state)
{
    static const char thirty[] = "123456789012345678901234567890";
    struct client *slow = client_open_online(&fixture, "/users/bob"),
                  *quick = client_open_online(&fixture, "/users/bob");

    (void)state;
    slow->stalled = true;
    slow->lingering = true;
    fixture_message(&fixture, "user:{bob}", thirty);
    session_fixture_turn(&fixture);
    fixture_message(&fixture, "user:{bob}", thirty);
    session_fixture_turn(&fixture);
    assert_int_equal(slow->closes, 0); /* 64 bytes with their headers */
    fixture_message(&fixture, "user:{bob}", "z");
    session_fixture_turn(&fixture);
    assert_int_equal(slow->closes, 1);
    assert_int_equal(slow->close_code, CLOSE_SLOW_READER);
    assert_int_equal(session_outbox(slow->session)->count, 0); /* its memory is given back at once */
    fixture_message(&fixture, "user:{bob}", "y");
    session_fixture_turn(&fixture);
    assert_int_equal(strlen(client_take(quick)), 2 * 31 + 4);
    assert_int_equal(quick->closes, 0);
    assert_int_equal(session_outbox(slow->session)->count, 0);
    assert_int_equal(fixture.metrics.sessions_slow, 1);
    assert_int_equal(sessions_online(fixture.sessions), 1);
    client_lose(slow, 1006);
    client_lose(quick, 1000);
    assert_true(session_fixture_gone(&fixture));
}

static void cut_while_registering_closes_it(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");

    (void)state;
    for (int i = 0; i < 30; i++)
        fixture_message(&fixture, "user:{bob}", "123456789");
    assert_int_equal(c->closes, 1);
    assert_int_equal(c->close_code, CLOSE_SLOW_READER);
    assert_true(session_fixture_gone(&fixture));
    assert_received(c, "#4008");
}

static void own_reply_may_cut_its_sender(void **state)
{
    struct client *c = client_open_online(&fixture, "/names/a");

    (void)state;
    c->stalled = true;
    for (int i = 0; i < 4; i++)
        client_send(c, "12345678901234567890");
    assert_false(c->reading);
    while (answer(FAKE_PUBLISH, ERROR_NONE, 1))
        ;
    assert_int_equal(c->close_code, CLOSE_SLOW_READER);
    assert_true(session_fixture_gone(&fixture));
}

/* ---- leaving ---- */

static void detach_at_every_step(void **state)
{
    static const char *const paths[] = {"/echo", "/users/bob", "/names/bob"};

    (void)state;
    for (size_t path = 0; path < 3; path++) {
        for (int step = 0; step < 6; step++) {
            struct client *c = client_open(&fixture, paths[path]);
            struct slice conn = client_conn(c);
            char name[300], conn_text[32];
            snprintf(name, sizeof name, "%.*s", (int)session_name(c->session).len,
                     session_name(c->session).data);
            snprintf(conn_text, sizeof conn_text, "%.*s", (int)conn.len, conn.data);
            if (step >= 1)
                answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
            if (step >= 2)
                answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
            if (step >= 3)
                fixture_notice(&fixture, name, slice_text(conn_text));
            if (step >= 4)
                answer(FAKE_REGISTER, ERROR_NONE, 0);
            if (step >= 5)
                client_send(c, "on its way");
            client_lose(c, step % 2 ? 1000 : 0);
            assert_int_equal(sessions_online(fixture.sessions), 0);
            assert_true(session_fixture_gone(&fixture));
            assert_int_equal(c->closes, 0);
        }
    }
    assert_int_equal(fixture.idle, 18);
    assert_int_equal(fixture.fake->made[FAKE_REGISTER], fixture.fake->made[FAKE_UNREGISTER]);
}

static void ended_while_registering_unregisters_after_the_answer(void **state)
{
    static const int errors[] = {ERROR_NONE, ERROR_UNAVAILABLE, ERROR_CANCELLED};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct client *c = client_open(&fixture, "/names/a");
        answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
        assert_int_equal(fake_storage_open(fixture.fake, FAKE_REGISTER), 1);
        session_end(c->session, CLOSE_RESTART);
        session_end(c->session, CLOSE_KICKED); /* the first counts */
        session_fixture_turn(&fixture);
        assert_received(c, "#1012");
        assert_int_equal(c->closes, 1);
        assert_int_equal(fake_storage_open(fixture.fake, FAKE_UNREGISTER), 0);
        answer(FAKE_REGISTER, errors[i], STORAGE_REPLACED_SOMEBODY);
        assert_int_equal(fake_storage_open(fixture.fake, FAKE_UNREGISTER), 1);
        assert_int_equal(sessions_total(fixture.sessions), 1);
        assert_true(session_fixture_gone(&fixture));
    }
    assert_int_equal(fixture.metrics.sessions_opened, 0);
}

static void message_in_flight_outlives_the_connection(void **state)
{
    struct client *c = client_open_online(&fixture, "/names/a");

    (void)state;
    client_send(c, "one");
    client_send(c, "two");
    client_lose(c, 0);
    session_fixture_turn(&fixture);
    answer(FAKE_UNREGISTER, ERROR_NONE, 1);
    answer(FAKE_COUNT, ERROR_NONE, 0);
    answer(FAKE_PUBLISH, ERROR_NONE, 1);
    assert_int_equal(sessions_total(fixture.sessions), 1);
    assert_int_equal(fixture.idle, 0);
    answer(FAKE_PUBLISH, ERROR_UNAVAILABLE, 0);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(fixture.idle, 1);
}

static void leaving_client_receives_what_was_queued_and_no_more(void **state)
{
    struct client *c = client_open_online(&fixture, "/users/bob");

    (void)state;
    c->lingering = true;
    fixture_message(&fixture, "user:{bob}", "before");
    session_end(c->session, CLOSE_RESTART);
    fixture_message(&fixture, "user:{bob}", "after");
    session_receive(c->session, CONTENT_TEXT, slice_text("ignored"));
    session_fixture_turn(&fixture);
    fixture_message(&fixture, "user:{bob}", "later");
    session_fixture_turn(&fixture);
    client_lose(c, CLOSE_RESTART);
    assert_received(c, "before|#1012");
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_PUBLISH), 0);
    assert_true(session_fixture_gone(&fixture));
}

static void connection_outlives_the_registry_entry(void **state)
{
    struct client *c = client_open_online(&fixture, "/users/bob");

    (void)state;
    c->lingering = true;
    session_end(c->session, CLOSE_KICKED);
    session_fixture_turn(&fixture);
    while (!list_empty(&fixture.fake->open))
        fake_storage_answer(container_of(fixture.fake->open.next, struct fake_call, link), ERROR_NONE, 1);
    assert_int_equal(sessions_total(fixture.sessions), 1);
    client_lose(c, CLOSE_KICKED);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(fixture.idle, 1);
    assert_int_equal(fixture.metrics.sessions_closed, 1);
}

static void ending_in_portions_takes_the_oldest_first(void **state)
{
    struct client *clients[5];

    (void)state;
    assert_int_equal(sessions_end_some(fixture.sessions, 10, CLOSE_RESTART), 0);
    for (int i = 0; i < 4; i++)
        clients[i] = client_open_online(&fixture, "/users/bob");
    clients[4] = client_open(&fixture, "/users/bob");
    assert_int_equal(sessions_end_some(fixture.sessions, 0, CLOSE_RESTART), 5);
    assert_int_equal(sessions_end_some(fixture.sessions, 2, CLOSE_RESTART), 3);
    session_fixture_turn(&fixture);
    assert_int_equal(clients[0]->closes + clients[1]->closes, 2);
    assert_int_equal(clients[2]->closes + clients[3]->closes + clients[4]->closes, 0);
    assert_int_equal(sessions_end_some(fixture.sessions, 0, CLOSE_RESTART), 3);
    assert_int_equal(sessions_end_some(fixture.sessions, 10, CLOSE_RESTART), 0);
    session_fixture_turn(&fixture);
    for (int i = 0; i < 5; i++)
        assert_received(clients[i], "#1012");
    assert_int_equal(fixture.idle, 0);
    assert_true(session_fixture_gone(&fixture));
    assert_int_equal(fixture.idle, 1);
    assert_int_equal(fixture.metrics.sessions_closed, fixture.metrics.sessions_opened);
}

static void everything_ends_when_the_storage_is_destroyed(void **state)
{
    struct client *a = client_open_online(&fixture, "/names/a"), *b = client_open(&fixture, "/users/b"),
                  *c = client_open(&fixture, "/names/c");

    (void)state;
    client_send(a, "on its way");
    answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
    (void)b;
    client_lose(c, 0);
    /* session_fixture_close() does the rest. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define FAKE_TEST(name)    cmocka_unit_test_setup_teardown(name, open_fake, close_all)
#define LIMITED_TEST(name) cmocka_unit_test_setup_teardown(name, open_limited, close_all)
        LIMITED_TEST(many_messages_in_flight_pause_reading),
        LIMITED_TEST(many_bytes_in_flight_pause_reading),
        LIMITED_TEST(paused_client_still_receives),
        LIMITED_TEST(slow_reader_is_cut_and_nobody_else_notices),
        LIMITED_TEST(cut_while_registering_closes_it),
        LIMITED_TEST(own_reply_may_cut_its_sender),
        FAKE_TEST(detach_at_every_step),
        FAKE_TEST(ended_while_registering_unregisters_after_the_answer),
        FAKE_TEST(message_in_flight_outlives_the_connection),
        FAKE_TEST(leaving_client_receives_what_was_queued_and_no_more),
        FAKE_TEST(connection_outlives_the_registry_entry),
        FAKE_TEST(ending_in_portions_takes_the_oldest_first),
        FAKE_TEST(everything_ends_when_the_storage_is_destroyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
