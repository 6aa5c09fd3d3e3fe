/* Sessions while the storage is out of reach, and when it is back or has lost what it knew. */
#include "broker/router.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct session_fixture fixture;
static struct fake_storage *fake;

static int open_fake(void **state)
{
    *state = &fixture;
    session_fixture_open(&fixture, NULL, false);
    fake = fixture.fake;
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

static struct client *online(const char *path)
{
    struct client *client = client_open(&fixture, path);

    client_bring_online(client);
    fake_storage_answer_all(fake, FAKE_COUNT, ERROR_NONE, 1);
    return client;
}

static struct fake_call *restoring(const struct client *client)
{
    struct fake_call *call = fake_storage_of(fake, FAKE_REGISTER, client_conn(client));

    assert_non_null(call);
    assert_true(call->restore);
    return call;
}

/* ---- the outage ---- */

static void online_sessions_stay_and_their_messages_fail(void **state)
{
    struct client *c = online("/names/bob");

    (void)state;
    client_send(c, "in flight");
    fake_storage_down(fake);
    assert_int_equal(fixture.metrics.publish_failed, 1);
    client_send(c, "during");
    fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_UNAVAILABLE, 0);
    assert_int_equal(fixture.metrics.publish_failed, 2);
    assert_received(c, "");
    assert_int_equal(c->closes, 0);
    assert_true(c->reading);
    fake_storage_up(fake);
    client_send(c, "after");
    fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_NONE, 1);
    assert_received(c, "Got your message (after).Thanks !|");
}

static void registering_sessions_are_told_to_reconnect(void **state)
{
    struct client *subscribing = client_open(&fixture, "/names/a"), *asking, *noticed, *answered;

    (void)state;
    asking = client_open(&fixture, "/names/b");
    noticed = client_open(&fixture, "/names/c");
    answered = client_open(&fixture, "/names/d");
    for (int i = 0; i < 4; i++) {
        struct fake_call *call = fake_storage_next(fake, FAKE_SUBSCRIBE);
        fake_storage_answer(call, i ? ERROR_NONE : ERROR_NO_MEMORY, 0);
    }
    assert_int_equal(subscribing->close_code, CLOSE_UNAVAILABLE);
    subscribing = client_open(&fixture, "/users/a");
    fixture_notice(&fixture, "c", client_conn(noticed));
    fake_storage_answer(fake_storage_of(fake, FAKE_REGISTER, client_conn(answered)), ERROR_NONE, 0);
    assert_int_equal(sessions_online(fixture.sessions), 0);
    fake_storage_down(fake);
    assert_received(subscribing, "#4000");
    assert_received(asking, "#4000");
    assert_received(noticed, "#4000");
    assert_received(answered, "#4000");
    assert_int_equal(subscribing->closes + asking->closes + noticed->closes + answered->closes, 4);
    /* Those that may be registered are unregistered once that is possible. */
    assert_int_equal(fake_storage_answer_all(fake, FAKE_UNREGISTER, ERROR_UNAVAILABLE, 0), 3);
    assert_int_equal(sessions_total(fixture.sessions), 3);
    fake_storage_up(fake);
    fake_storage_lose_registry(fake);
    assert_int_equal(fake_storage_answer_all(fake, FAKE_UNREGISTER, ERROR_NONE, 1), 3);
    session_fixture_turn(&fixture);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(router_channel_count(fixture.router), 0);
}

static void closed_during_an_outage_is_unregistered_afterwards(void **state)
{
    static const int errors[] = {ERROR_UNAVAILABLE, ERROR_TIMEOUT};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct client *c = online("/names/bob");
        char conn[64];
        snprintf(conn, sizeof conn, "%.*s", (int)client_conn(c).len, client_conn(c).data);
        fake_storage_down(fake);
        client_lose(c, 1001);
        session_fixture_turn(&fixture);
        assert_true(fake_storage_answer_next(fake, FAKE_UNREGISTER, errors[i], 0));
        session_fixture_settle(&fixture);
        assert_int_equal(fake_storage_open(fake, FAKE_UNREGISTER), 0); /* no hammering */
        assert_int_equal(sessions_total(fixture.sessions), 1);
        assert_int_equal(sessions_online(fixture.sessions), 0);
        assert_int_equal(fixture.idle, i);
        fake_storage_up(fake);
        fake_storage_lose_registry(fake);
        session_fixture_turn(&fixture);
        assert_int_equal(fake_storage_open(fake, FAKE_REGISTER), 0);
        assert_true(
            fake_storage_answer(fake_storage_of(fake, FAKE_UNREGISTER, slice_text(conn)), ERROR_NONE, 1));
        fake_storage_answer_all(fake, FAKE_COUNT, ERROR_NONE, 0);
        assert_int_equal(sessions_total(fixture.sessions), 0);
        assert_int_equal(fixture.idle, i + 1);
    }
}

static void unregistering_survives_several_outages(void **state)
{
    struct client *c = online("/names/bob");

    (void)state;
    client_lose(c, 1001);
    session_fixture_turn(&fixture);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fake_storage_open(fake, FAKE_UNREGISTER), 1);
        fake_storage_down(fake);
        session_fixture_turn(&fixture);
        assert_int_equal(fake_storage_open(fake, FAKE_UNREGISTER), 0);
        fake_storage_up(fake);
        fake_storage_lose_registry(fake);
        fake_storage_lose_registry(fake); /* twice: asked once */
    }
    assert_int_equal(fake_storage_open(fake, FAKE_UNREGISTER), 1);
    fake_storage_answer_next(fake, FAKE_UNREGISTER, ERROR_NONE, 0);
    fake_storage_answer_all(fake, FAKE_COUNT, ERROR_NONE, 0);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(fixture.metrics.sessions_closed, 1);
}

/* A broker that is stopped during an outage can't unregister any more. */
static void storage_destroyed_during_an_outage(void **state)
{
    struct client *c = online("/names/bob"), *d = online("/users/bob");

    (void)state;
    client_send(d, "on its way");
    fake_storage_down(fake);
    client_lose(c, 0);
    client_lose(d, 0);
    session_fixture_turn(&fixture);
    while (fake_storage_answer_next(fake, FAKE_UNREGISTER, ERROR_UNAVAILABLE, 0))
        ;
    assert_int_equal(sessions_total(fixture.sessions), 2);
    /* session_fixture_close() destroys the storage: nothing may leak. */
}

/* ---- the restoration ---- */

static void every_session_is_registered_again(void **state)
{
    struct client *a = online("/names/a"), *b = online("/users/b");

    (void)state;
    fake_storage_down(fake);
    fake_storage_up(fake);
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    struct fake_call *call = restoring(a);
    assert_true(call->len > 0); /* the notice, in case somebody else took the name */
    assert_string_equal(restoring(b)->user, "b");
    assert_int_equal(sessions_online(fixture.sessions), 2);
    /* Messages flow all the while. */
    fixture_message(&fixture, "session:{a}", "hello");
    assert_received(a, "hello|");
    fake_storage_answer_all(fake, FAKE_REGISTER, ERROR_NONE, STORAGE_REPLACED_NOBODY);
    session_fixture_settle(&fixture);
    assert_int_equal(fake_storage_open(fake, FAKE_REGISTER), 0);
    assert_int_equal(a->closes + b->closes, 0);
    assert_int_equal(fixture.metrics.sessions_opened, 2);
}

static void newer_holder_wins(void **state)
{
    struct client *c = online("/names/bob");

    (void)state;
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    fake_storage_answer(restoring(c), ERROR_CONFLICT, 0);
    assert_int_equal(c->close_code, CLOSE_REPLACED);
    assert_int_equal(fixture.metrics.sessions_replaced, 1);
    assert_received(c, "#4501");
}

static void own_notice_of_the_restoration_is_harmless(void **state)
{
    struct client *c = online("/names/bob");

    (void)state;
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    fixture_notice(&fixture, "bob", client_conn(c));
    fake_storage_answer(restoring(c), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(c->closes, 0);
    assert_int_equal(sessions_online(fixture.sessions), 1);
}

static void thousands_are_restored_in_bounded_batches(void **state)
{
    enum { COUNT = 2500, AT_ONCE_MAX = 512 };
    size_t open, restored = 0;

    (void)state;
    for (int i = 0; i < COUNT; i++)
        online("/users/bob");
    fake->made[FAKE_REGISTER] = 0;
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    while ((open = fake_storage_open(fake, FAKE_REGISTER)) > 0) {
        assert_true(open <= AT_ONCE_MAX);
        /* One answer after the other: the next ones are asked before all are in. */
        for (size_t i = 0; i < 300 && fake_storage_answer_next(fake, FAKE_REGISTER, ERROR_NONE, 0); i++)
            restored++;
        session_fixture_turn(&fixture);
    }
    assert_int_equal(restored, COUNT);
    assert_int_equal(fake->made[FAKE_REGISTER], COUNT);
    assert_int_equal(sessions_online(fixture.sessions), COUNT);
}

static void leaving_while_being_restored(void **state)
{
    enum { COUNT = 1200 };
    struct client *clients[COUNT];

    (void)state;
    for (int i = 0; i < COUNT; i++)
        clients[i] = online("/users/bob");
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    /* Some are asked about, others still wait. */
    for (int i = 0; i < COUNT; i += 2)
        client_lose(clients[i], 1000);
    assert_int_equal(sessions_online(fixture.sessions), COUNT / 2);
    for (int i = 0; i < 20; i++) {
        session_fixture_turn(&fixture);
        fake_storage_answer_all(fake, FAKE_REGISTER, ERROR_NONE, 0);
        fake_storage_answer_all(fake, FAKE_UNREGISTER, ERROR_NONE, 1);
        fake_storage_answer_all(fake, FAKE_COUNT, ERROR_NONE, 1);
    }
    assert_int_equal(sessions_total(fixture.sessions), COUNT / 2);
    assert_int_equal(fake->made[FAKE_UNREGISTER], COUNT / 2);
}

static void lost_again_while_being_restored(void **state)
{
    struct client *a = online("/names/a"), *b = online("/names/b");

    (void)state;
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    assert_int_equal(fake_storage_open(fake, FAKE_REGISTER), 2);
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    assert_int_equal(fake_storage_open(fake, FAKE_REGISTER), 2); /* one question at a time */
    fake_storage_answer_all(fake, FAKE_REGISTER, ERROR_NONE, 0);
    session_fixture_turn(&fixture);
    fake_storage_answer(restoring(a), ERROR_NONE, 0);
    fake_storage_answer(restoring(b), ERROR_NONE, 0);
    session_fixture_settle(&fixture);
    assert_int_equal(fake_storage_open(fake, FAKE_REGISTER), 0);
}

static void outage_in_the_middle_of_the_restoration(void **state)
{
    enum { COUNT = 1100 };

    (void)state;
    for (int i = 0; i < COUNT; i++)
        online("/users/bob");
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    fake_storage_down(fake);
    for (int i = 0; i < 20; i++) {
        session_fixture_turn(&fixture);
        fake_storage_answer_all(fake, FAKE_REGISTER, ERROR_UNAVAILABLE, 0);
    }
    assert_int_equal(sessions_online(fixture.sessions), COUNT);
    fake_storage_up(fake);
    fake_storage_lose_registry(fake);
    fake->made[FAKE_REGISTER] = 0;
    for (int i = 0; i < 20; i++) {
        session_fixture_turn(&fixture);
        fake_storage_answer_all(fake, FAKE_REGISTER, ERROR_NONE, 0);
    }
    assert_int_equal(fake->made[FAKE_REGISTER], COUNT);
    assert_int_equal(sessions_online(fixture.sessions), COUNT);
}

/* The answer says that it was registered, but what it was registered in is gone. */
static void registry_lost_while_coming_online(void **state)
{
    struct client *before = client_open(&fixture, "/names/before"),
                  *after = client_open(&fixture, "/names/after");

    (void)state;
    fake_storage_answer_all(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
    fake_storage_answer(fake_storage_of(fake, FAKE_REGISTER, client_conn(before)), ERROR_NONE, 0);
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    fake_storage_answer(fake_storage_of(fake, FAKE_REGISTER, client_conn(after)), ERROR_NONE, 0);
    fixture_notice(&fixture, "before", client_conn(before));
    fixture_notice(&fixture, "after", client_conn(after));
    assert_int_equal(sessions_online(fixture.sessions), 2);
    session_fixture_turn(&fixture);
    restoring(before);
    restoring(after);
}

static void draining_while_being_restored(void **state)
{
    enum { COUNT = 1000 };

    (void)state;
    for (int i = 0; i < COUNT; i++)
        online("/users/bob");
    fake_storage_lose_registry(fake);
    session_fixture_turn(&fixture);
    assert_int_equal(sessions_end_some(fixture.sessions, 400, CLOSE_RESTART), COUNT - 400);
    session_fixture_turn(&fixture);
    assert_int_equal(sessions_end_some(fixture.sessions, COUNT, CLOSE_RESTART), 0);
    for (int i = 0; i < 20; i++) {
        session_fixture_turn(&fixture);
        fake_storage_answer_all(fake, FAKE_REGISTER, ERROR_NONE, 0);
        fake_storage_answer_all(fake, FAKE_UNREGISTER, ERROR_NONE, 1);
        fake_storage_answer_all(fake, FAKE_COUNT, ERROR_NONE, 1);
    }
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(fixture.idle, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define OUTAGE_TEST(name) cmocka_unit_test_setup_teardown(name, open_fake, close_all)
        OUTAGE_TEST(online_sessions_stay_and_their_messages_fail),
        OUTAGE_TEST(registering_sessions_are_told_to_reconnect),
        OUTAGE_TEST(closed_during_an_outage_is_unregistered_afterwards),
        OUTAGE_TEST(unregistering_survives_several_outages),
        OUTAGE_TEST(storage_destroyed_during_an_outage),
        OUTAGE_TEST(every_session_is_registered_again),
        OUTAGE_TEST(newer_holder_wins),
        OUTAGE_TEST(own_notice_of_the_restoration_is_harmless),
        OUTAGE_TEST(thousands_are_restored_in_bounded_batches),
        OUTAGE_TEST(leaving_while_being_restored),
        OUTAGE_TEST(lost_again_while_being_restored),
        OUTAGE_TEST(outage_in_the_middle_of_the_restoration),
        OUTAGE_TEST(registry_lost_while_coming_online),
        OUTAGE_TEST(draining_while_being_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
