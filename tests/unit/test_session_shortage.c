/* Sessions when allocations fail: whatever fails, every session ends, nothing crashes and nothing is left behind. */
#include "base/log.h"
#include "broker/router.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct session_fixture fixture;

static int open_memory(void **state)
{
    *state = &fixture;
    alloc_fixture_install();
    session_fixture_open(&fixture, NULL, true);
    return 0;
}

static int open_fake(void **state)
{
    *state = &fixture;
    alloc_fixture_install();
    session_fixture_open(&fixture, NULL, false);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    alloc_fixture_fail(0);
    session_fixture_close(&fixture);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

/* Ends all sessions; none may be left, whatever failed before. */
static void expect_all_gone(void)
{
    alloc_fixture_fail(0);
    list_for_each (link, &fixture.clients)
        client_lose(container_of(link, struct client, link), 0);
    session_fixture_settle(&fixture);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(sessions_online(fixture.sessions), 0);
    assert_int_equal(router_channel_count(fixture.router), 0);
}

/* A session is refused, or ends, or is online; nothing in between lasts. */
static void assert_settled(const struct client *client)
{
    assert_true(!client->session || client->reading || client->closes);
}

static void live_through(const char *path)
{
    struct client *first = client_open(&fixture, path), *second = client_open(&fixture, path);

    session_fixture_settle(&fixture);
    assert_settled(first);
    assert_settled(second);
    client_send(second, "hello");
    client_send_binary(second, "hello", 5);
    session_fixture_settle(&fixture);
    client_lose(first, 1000);
    session_fixture_settle(&fixture);
    client_send(second, "hello again");
    session_fixture_settle(&fixture);
}

static void sweep(const char *path, void (*arm)(size_t))
{
    bool failed = true;

    for (size_t n = 1; failed; n++) {
        arm(n);
        live_through(path);
        failed = alloc_fixture_failed();
        expect_all_gone();
        assert_true(n < 1000);
    }
}

static void each_allocation_fails_once(void **state)
{
    static const char *const paths[] = {"/users/bob",   "/names/target", "/names/bob",
                                        "/topics/news", "/echo",         "/to/nobody"};

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        sweep(paths[i], alloc_fixture_fail);
}

static void all_allocations_fail_from_some_point_on(void **state)
{
    (void)state;
    sweep("/users/bob", alloc_fixture_fail_from);
    sweep("/names/target", alloc_fixture_fail_from);
    sweep("/echo", alloc_fixture_fail_from);
}

/* The steps one by one, and memory short for one of them only. */
static void opening_refuses_or_ends_the_one_session(void **state)
{
    struct client *other = client_open(&fixture, "/users/bob");
    bool failed = true;

    (void)state;
    client_bring_online(other);
    for (size_t n = 1; failed; n++) {
        alloc_fixture_fail(n);
        struct client *c = client_open(&fixture, "/names/target");
        fake_storage_answer_all(fixture.fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
        failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        assert_true(!failed || !c->session || c->close_code == CLOSE_UNAVAILABLE);
        client_lose(c, 0);
        for (int i = 0; i < 3; i++) {
            fake_storage_answer_all(fixture.fake, FAKE_REGISTER, ERROR_NONE, 0);
            session_fixture_turn(&fixture);
            fake_storage_answer_all(fixture.fake, FAKE_UNREGISTER, ERROR_NONE, 1);
        }
        assert_int_equal(sessions_total(fixture.sessions), 1);
        assert_int_equal(router_channel_count(fixture.router), 2);
    }
    fixture_message(&fixture, "user:{bob}", "undisturbed");
    session_fixture_turn(&fixture);
    assert_string_equal(client_take(other), "undisturbed|");
}

/* A message that memory is too short for is lost; the session and later ones are not. */
static void receiving_loses_one_message_at_most(void **state)
{
    struct client *c = client_open(&fixture, "/names/bob");
    bool failed = true;
    size_t sent;

    (void)state;
    client_bring_online(c);
    for (size_t n = 1; failed; n++) {
        sent = fixture.fake->made[FAKE_PUBLISH];
        alloc_fixture_fail(n);
        client_send(c, "one");
        failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        client_send(c, "two");
        sent = fixture.fake->made[FAKE_PUBLISH] - sent;
        assert_true(sent >= 1 && sent <= 2);
        while (fake_storage_answer_next(fixture.fake, FAKE_PUBLISH, ERROR_NONE, 1))
            ;
        session_fixture_turn(&fixture);
        const char *got = client_take(c);
        assert_non_null(strstr(got, "Got your message (two).Thanks !|"));
        /* Thanked for exactly when it was handed on. */
        assert_int_equal(strstr(got, "(one)") != NULL, sent == 2);
        assert_int_equal(c->closes, 0);
    }
}

static void delivering_loses_one_message_at_most(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob"), *d = client_open(&fixture, "/users/bob");
    bool failed = true;

    (void)state;
    client_bring_online(c);
    client_bring_online(d);
    for (size_t n = 1; failed; n++) {
        alloc_fixture_fail(n);
        fixture_message(&fixture, "user:{bob}", "one");
        failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        session_fixture_turn(&fixture);
        if (!failed)
            assert_string_equal(client_take(c), "one|");
        client_take(c);
        if (c->closes) { /* no place in its outbox: cut, as one that does not read */
            c = client_open(&fixture, "/users/bob");
            client_bring_online(c);
        }
        assert_int_equal(d->closes, 0);
    }
}

static void no_sessions_without_memory(void **state)
{
    const struct sessions_options options = {.loop = fixture.loop};

    (void)state;
    alloc_fixture_fail(1);
    assert_null(sessions_create(&options));
    sessions_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define FAKE_TEST(name)   cmocka_unit_test_setup_teardown(name, open_fake, close_all)
#define MEMORY_TEST(name) cmocka_unit_test_setup_teardown(name, open_memory, close_all)
        MEMORY_TEST(each_allocation_fails_once),
        MEMORY_TEST(all_allocations_fail_from_some_point_on),
        FAKE_TEST(opening_refuses_or_ends_the_one_session),
        FAKE_TEST(receiving_loses_one_message_at_most),
        FAKE_TEST(delivering_loses_one_message_at_most),
        FAKE_TEST(no_sessions_without_memory),
    };
    /* A sweep would fill the screen. */
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
