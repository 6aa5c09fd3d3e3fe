/* What is kept for sessions, as the budget sees it, and how a session ends that holds too much of it. */
#include "broker/outbox.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct session_fixture fixture;
static const char hundred[] =
    "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890";

static int open_fake(void **state)
{
    *state = &fixture;
    session_fixture_open(&fixture, NULL, false);
    return 0;
}

/* Whatever a test did, nothing stays charged. */
static int close_all(void **state)
{
    bool gone;

    (void)state;
    list_for_each (link, &fixture.clients)
        client_lose(container_of(link, struct client, link), 1000);
    gone = session_fixture_gone(&fixture);
    size_t left = budget_used(&fixture.budget);
    bool nobody = list_empty(&fixture.budget.holders);
    session_fixture_close(&fixture);
    return gone && !left && nobody ? 0 : -1;
}

static void a_frame_that_many_wait_for_is_charged_once(void **state)
{
    struct client *clients[10];

    (void)state;
    for (size_t i = 0; i < 10; i++) {
        clients[i] = client_open_online(&fixture, "/users/bob");
        clients[i]->stalled = true;
    }
    fixture_message(&fixture, "user:{bob}", hundred);
    session_fixture_turn(&fixture);
    size_t used = fixture.budget.bytes[BUDGET_OUTBOX];
    assert_in_range(used, 100, 100 + 10 * 4 * sizeof(void *) + 64);
    for (size_t i = 0; i < 10; i++)
        clients[i]->stalled = false;
    session_fixture_turn(&fixture);
    assert_in_range(fixture.budget.bytes[BUDGET_OUTBOX], 0, 10 * 4 * sizeof(void *));
}

static void what_is_held_while_registering_is_charged_once_too(void **state)
{
    struct client *one = client_open(&fixture, "/users/bob"), *two = client_open(&fixture, "/users/bob");

    (void)state;
    for (int i = 0; i < 10; i++)
        fixture_message(&fixture, "user:{bob}", hundred);
    size_t used = fixture.budget.bytes[BUDGET_HELD];
    assert_true(used > 10 * 100 && used < 2 * 10 * 2 * 100 + 10 * 400);
    client_bring_online(one);
    assert_true(fixture.budget.bytes[BUDGET_HELD] < used && fixture.budget.bytes[BUDGET_HELD] > 10 * 100);
    client_bring_online(two);
    assert_int_equal(fixture.budget.bytes[BUDGET_HELD], 0);
    assert_true(list_empty(&fixture.budget.holders));
}

static void what_the_storage_has_not_answered_is_charged(void **state)
{
    struct client *c = client_open_online(&fixture, "/to/x");

    (void)state;
    client_send(c, hundred);
    client_send(c, hundred);
    assert_int_equal(fixture.budget.bytes[BUDGET_INFLIGHT], 200);
    fake_storage_answer_next(fixture.fake, FAKE_PUBLISH, ERROR_NONE, 1);
    assert_int_equal(fixture.budget.bytes[BUDGET_INFLIGHT], 100);
    fake_storage_answer_next(fixture.fake, FAKE_PUBLISH, ERROR_UNAVAILABLE, 0);
    assert_int_equal(fixture.budget.bytes[BUDGET_INFLIGHT], 0);
}

static void above_the_budget_clients_are_read_one_message_at_a_time(void **state)
{
    struct client *c = client_open_online(&fixture, "/to/x");

    (void)state;
    fixture.budget.limit = budget_used(&fixture.budget) + 150;
    client_send(c, hundred);
    assert_true(c->reading);
    client_send(c, hundred);
    assert_false(c->reading);
    while (fake_storage_answer_next(fixture.fake, FAKE_PUBLISH, ERROR_NONE, 1))
        ;
    assert_true(c->reading);
    client_send(c, hundred);
    assert_true(c->reading);
}

static void the_budget_cuts_who_takes_nothing_and_drops_what_is_kept(void **state)
{
    struct client *still = client_open_online(&fixture, "/users/bob"),
                  *moving = client_open_online(&fixture, "/users/amy");

    (void)state;
    still->lingering = moving->lingering = true;
    still->stalled = moving->stalled = true;
    still->still_ms = 5000;
    fixture_message(&fixture, "user:{bob}", hundred);
    for (int i = 0; i < 3; i++)
        fixture_message(&fixture, "user:{amy}", hundred);
    session_keeps(still->session, BUDGET_UNSENT, 1000);
    session_keeps(moving->session, BUDGET_UNSENT, 5000);
    fixture.budget.limit = budget_used(&fixture.budget) + 100;
    session_keeps(moving->session, BUDGET_UNSENT, 5101);
    assert_int_equal(still->closes, 0); /* not at once: somebody may be in use */
    session_fixture_turn(&fixture);
    assert_int_equal(still->close_code, CLOSE_SLOW_READER);
    assert_int_equal(still->drops, 1);
    assert_int_equal(moving->closes, 0);
    assert_int_equal(session_outbox(still->session)->count, 0);
    assert_int_equal(fixture.metrics.sessions_shed, 1);
    session_keeps(still->session, BUDGET_UNSENT, 0);
    session_keeps(moving->session, BUDGET_UNSENT, 0);
}

static void who_is_cut_for_an_unfinished_message_is_told_so(void **state)
{
    struct client *c = client_open_online(&fixture, "/echo"), *d = client_open_online(&fixture, "/echo");

    (void)state;
    c->lingering = d->lingering = true;
    session_keeps(c->session, BUDGET_ASSEMBLY, 1000);
    session_cut(c->session, CUT_UNFINISHED);
    session_keeps(c->session, BUDGET_ASSEMBLY, 0);
    assert_int_equal(c->close_code, CLOSE_SLOW_SENDER);
    assert_int_equal(fixture.metrics.sessions_unfinished, 1);
    session_keeps(d->session, BUDGET_ASSEMBLY, 1000);
    fixture.budget.limit = 100;
    budget_check(&fixture.budget);
    session_fixture_turn(&fixture);
    assert_int_equal(d->close_code, CLOSE_SLOW_SENDER);
    assert_int_equal(fixture.metrics.sessions_shed, 1);
    session_keeps(d->session, BUDGET_ASSEMBLY, 0);
}

static void who_registers_can_be_cut_as_well(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");

    (void)state;
    fixture.budget.limit = 500;
    for (int i = 0; i < 10; i++)
        fixture_message(&fixture, "user:{bob}", hundred);
    session_fixture_turn(&fixture);
    assert_int_equal(c->close_code, CLOSE_SLOW_READER);
    assert_int_equal(fixture.budget.bytes[BUDGET_HELD], 0);
}

static void a_cut_is_counted_by_its_reason_and_once(void **state)
{
    struct client *c = client_open_online(&fixture, "/echo");

    (void)state;
    c->lingering = true;
    session_cut(c->session, CUT_STALL);
    session_cut(c->session, CUT_STALL);
    session_cut(c->session, CUT_MEMORY);
    assert_int_equal(c->closes, 1);
    assert_int_equal(c->close_code, CLOSE_SLOW_READER);
    assert_int_equal(fixture.metrics.sessions_stalled, 1);
    assert_int_equal(fixture.metrics.sessions_shed + fixture.metrics.sessions_slow, 0);
}

static void reconnecting_makes_no_new_offender(void **state)
{
    struct client *first = client_open_online(&fixture, "/users/bob"),
                  *again = client_open_online(&fixture, "/users/bob"), *other = client_open_online(&fixture, "/users/amy");
    uint64_t left_out;

    (void)state;
    assert_true(session_may_log(first->session, &left_out));
    assert_false(session_may_log(again->session, &left_out));
    assert_true(session_may_log(other->session, &left_out));
    fixture.now_us += 60000000;
    assert_true(session_may_log(again->session, &left_out));
    assert_int_equal(left_out, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MEMORY_TEST(name) cmocka_unit_test_setup_teardown(name, open_fake, close_all)
        MEMORY_TEST(a_frame_that_many_wait_for_is_charged_once),
        MEMORY_TEST(what_is_held_while_registering_is_charged_once_too),
        MEMORY_TEST(what_the_storage_has_not_answered_is_charged),
        MEMORY_TEST(above_the_budget_clients_are_read_one_message_at_a_time),
        MEMORY_TEST(the_budget_cuts_who_takes_nothing_and_drops_what_is_kept),
        MEMORY_TEST(who_is_cut_for_an_unfinished_message_is_told_so),
        MEMORY_TEST(who_registers_can_be_cut_as_well),
        MEMORY_TEST(a_cut_is_counted_by_its_reason_and_once),
        MEMORY_TEST(reconnecting_makes_no_new_offender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
