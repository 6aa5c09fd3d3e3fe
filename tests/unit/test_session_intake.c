/* What clients send, carried out by turns: how much at a time, in what order, and what waits meanwhile. */
#include "base/log.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/outbox.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct session_fixture fixture;

static void write_nothing(const char *line, size_t len)
{
    (void)line;
    (void)len;
}

static void open_with(struct sessions_options options)
{
    alloc_fixture_install();
    session_fixture_open(&fixture, &options, false);
}

static int close_all(void **state)
{
    (void)state;
    alloc_fixture_fail(0);
    session_fixture_close(&fixture);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static struct client *online(const char *path, enum face face)
{
    struct route_match match;
    struct session_params params;

    assert_true(client_match(&fixture, path, &match, &params));
    params.face = face;
    struct client *client = client_open_with(&fixture, &params);
    client_bring_online(client);
    fake_storage_answer_all(fixture.fake, FAKE_COUNT, ERROR_NONE, 1);
    session_fixture_turn(&fixture);
    client_take(client);
    return client;
}

/* One message with `count` commands, whose ids begin with `first`. */
static void send_packed(struct client *client, unsigned first, unsigned count, const char *command)
{
    char *text = calloc(count, 200), *at = text;

    assert_non_null(text);
    for (unsigned i = 0; i < count; i++)
        at += sprintf(at, "{\"id\":%u,\"cmd\":%s}\n", first + i, command);
    client_send(client, text);
    free(text);
}

/* How many answers came since the last call; they must be in order. */
static unsigned answers(struct client *client, unsigned first)
{
    unsigned count = 0, id;

    for (const char *at = client_take(client); at && *at; at = strchr(at, '|'), at += at != NULL) {
        if (sscanf(at, "{\"id\":%u,", &id) != 1)
            continue;
        assert_int_equal(id, first + count);
        count++;
    }
    return count;
}

static size_t open_calls(enum fake_kind kind)
{
    return fake_storage_open(fixture.fake, kind);
}

static bool answer(enum fake_kind kind, int64_t number)
{
    return fake_storage_answer_next(fixture.fake, kind, ERROR_NONE, number);
}

/* ---- turns ---- */

static void a_message_is_carried_out_over_several_turns(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_commands = 10});
    struct client *c = online("/echo", FACE_JSON);

    send_packed(c, 1, 35, "\"ping\"");
    assert_false(c->reading);
    session_fixture_turn(&fixture); /* what was carried out at once, and the turn after it */
    assert_int_equal(answers(c, 1), 20);
    assert_false(c->reading);
    session_fixture_turn(&fixture);
    session_fixture_turn(&fixture);
    assert_int_equal(answers(c, 21), 15);
    assert_true(c->reading);
    assert_int_equal(c->pauses, 1);
    assert_true(fixture.metrics.turns_used_up > 0);
}

static void bytes_count_too(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_bytes = 100});
    struct client *c = online("/to/x", FACE_PLAIN);
    char text[200];

    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    client_send(c, text); /* the one that reaches the limit is still carried out */
    assert_int_equal(open_calls(FAKE_PUBLISH), 1);
    assert_false(c->reading);
    session_fixture_turn(&fixture);
    assert_true(c->reading);
}

static void what_comes_behind_the_rest_waits_for_it(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_commands = 4});
    struct client *c = online("/echo", FACE_JSON);

    send_packed(c, 1, 9, "\"ping\"");
    send_packed(c, 10, 2, "\"ping\""); /* was read already */
    for (int i = 0; i < 5; i++)
        session_fixture_turn(&fixture);
    assert_int_equal(answers(c, 1), 11);
    assert_true(c->reading);
}

static void a_plain_client_waits_for_its_turn(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_commands = 3});
    struct client *c = online("/to/x", FACE_PLAIN);

    for (int i = 0; i < 5; i++)
        client_send(c, "x");
    assert_int_equal(open_calls(FAKE_PUBLISH), 3);
    assert_false(c->reading);
    session_fixture_turn(&fixture);
    session_fixture_turn(&fixture);
    assert_int_equal(open_calls(FAKE_PUBLISH), 5);
    assert_true(c->reading);
}

static void many_that_wait_go_on_by_turns(void **state)
{
    struct client *clients[12];
    size_t before;

    (void)state;
    open_with((struct sessions_options){.turn_commands = 2});
    for (size_t i = 0; i < 12; i++)
        clients[i] = online("/echo", FACE_JSON);
    for (size_t i = 0; i < 12; i++)
        send_packed(clients[i], 1, 20, "\"ping\"");
    for (int turn = 0; turn < 9; turn++) {
        before = fixture.metrics.commands;
        session_fixture_turn(&fixture);
        /* The fixture's turn runs what was put off twice. */
        assert_true(fixture.metrics.commands - before <= 2 * 2 * 4);
    }
    /* Nobody is far ahead of anybody. */
    for (size_t i = 0; i < 12; i++)
        assert_in_range(answers(clients[i], 1), 10, 16);
}

/* ---- too much open ---- */

static void a_message_waits_until_enough_is_answered(void **state)
{
    (void)state;
    open_with((struct sessions_options){.inflight_limit = 4});
    struct client *c = online("/echo", FACE_JSON);

    send_packed(c, 1, 10, "\"publish\",\"topic\":\"t\"");
    assert_int_equal(open_calls(FAKE_PUBLISH), 4);
    assert_false(c->reading);
    session_fixture_turn(&fixture);
    assert_int_equal(open_calls(FAKE_PUBLISH), 4);
    answer(FAKE_PUBLISH, 1);
    answer(FAKE_PUBLISH, 1);
    assert_int_equal(open_calls(FAKE_PUBLISH), 2); /* not from inside the answer */
    session_fixture_turn(&fixture);
    assert_int_equal(open_calls(FAKE_PUBLISH), 4);
    for (int i = 0; i < 20; i++) {
        answer(FAKE_PUBLISH, 1);
        session_fixture_turn(&fixture);
    }
    assert_int_equal(answers(c, 1), 10);
    assert_true(c->reading);
}

static void a_stored_message_counts_for_four(void **state)
{
    (void)state;
    open_with((struct sessions_options){.inflight_limit = 8});
    struct client *c = online("/echo", FACE_JSON);

    send_packed(c, 1, 10, "\"publish\",\"topic\":\"t\",\"store\":true");
    assert_int_equal(open_calls(FAKE_PUBLISH_WITH), 2);
}

static void when_all_have_much_open_those_with_little_go_on(void **state)
{
    (void)state;
    open_with((struct sessions_options){.inflight_total = 10});
    struct client *much = online("/echo", FACE_JSON), *more = online("/echo", FACE_JSON),
                  *little = online("/echo", FACE_JSON);

    send_packed(much, 1, 50, "\"publish\",\"topic\":\"t\"");
    assert_int_equal(open_calls(FAKE_PUBLISH), 10);
    assert_false(much->reading);
    send_packed(more, 1, 50, "\"publish\",\"topic\":\"t\"");
    assert_int_equal(open_calls(FAKE_PUBLISH), 14);
    assert_int_equal(fixture.metrics.sessions_crowded, 2);
    for (int i = 0; i < 3; i++)
        send_packed(little, 1, 1, "\"publish\",\"topic\":\"t\"");
    assert_int_equal(open_calls(FAKE_PUBLISH), 17);
    assert_true(little->reading);
    for (int i = 0; i < 400; i++) {
        answer(FAKE_PUBLISH, 1);
        session_fixture_turn(&fixture);
        assert_true(open_calls(FAKE_PUBLISH) <= 17);
    }
    assert_int_equal(answers(much, 1), 50);
    assert_int_equal(answers(more, 1), 50);
    assert_true(much->reading && more->reading);
}

/* ---- reads ---- */

#define HISTORY "\"history\",\"address\":\"topic:t\""

static void two_reads_are_open_for_a_session(void **state)
{
    (void)state;
    open_with((struct sessions_options){.session_reads = 2});
    struct client *c = online("/echo", FACE_JSON);

    send_packed(c, 1, 5, HISTORY);
    assert_int_equal(open_calls(FAKE_HISTORY), 2);
    assert_false(c->reading);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(answer(FAKE_HISTORY, 1));
        session_fixture_turn(&fixture);
        assert_true(open_calls(FAKE_HISTORY) <= 2);
    }
    assert_int_equal(answers(c, 1), 5);
    assert_true(c->reading);
    send_packed(c, 6, 3, "\"presence\",\"address\":\"user:u\"");
    assert_int_equal(open_calls(FAKE_LIST), 2);
}

static void all_together_take_turns_at_reading(void **state)
{
    (void)state;
    open_with((struct sessions_options){.session_reads = 2});
    reads_set_limit(&fixture.reads, 3);
    struct client *first = online("/echo", FACE_JSON), *second = online("/echo", FACE_JSON),
                  *third = online("/echo", FACE_JSON);

    send_packed(first, 1, 20, HISTORY);
    send_packed(second, 1, 20, HISTORY);
    send_packed(third, 1, 1, HISTORY);
    assert_int_equal(open_calls(FAKE_HISTORY), 3);
    for (int i = 0; i < 5; i++) {
        answer(FAKE_HISTORY, 1);
        session_fixture_turn(&fixture);
        session_fixture_turn(&fixture);
        assert_int_equal(open_calls(FAKE_HISTORY), 3);
    }
    assert_int_equal(answers(third, 1), 1);
    unsigned of_first = answers(first, 1), of_second = answers(second, 1);
    assert_true(of_first >= 1 && of_second >= 1);
    assert_int_equal(of_first + of_second, 4);
}

static void a_read_waits_for_room(void **state)
{
    (void)state;
    open_with((struct sessions_options){.outbox_limit = 64 * 1024});
    struct client *c = online("/users/u", FACE_JSON);
    char text[40000];

    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    c->stalled = true;
    fixture_message(&fixture, "user:{u}", text);
    send_packed(c, 1, 1, HISTORY);
    session_fixture_turn(&fixture);
    assert_int_equal(open_calls(FAKE_HISTORY), 0);
    c->stalled = false;
    session_fixture_turn(&fixture);
    session_drained(c->session);
    session_fixture_turn(&fixture);
    assert_int_equal(open_calls(FAKE_HISTORY), 1);
    client_take(c);
    answer(FAKE_HISTORY, 1);
    session_fixture_turn(&fixture);
    assert_int_equal(answers(c, 1), 1);
}

/* ---- ends ---- */

static void a_session_that_ends_leaves_the_rest(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_commands = 3, .session_reads = 1});
    reads_set_limit(&fixture.reads, 1);
    struct client *c = online("/echo", FACE_JSON), *other = online("/echo", FACE_JSON);

    send_packed(other, 1, 1, HISTORY);
    send_packed(c, 1, 1, HISTORY); /* waits for its turn */
    send_packed(c, 2, 10, "\"ping\"");
    client_lose(c, 0);
    assert_int_equal(open_calls(FAKE_HISTORY), 1);
    answer(FAKE_HISTORY, 1);
    session_fixture_turn(&fixture);
    assert_int_equal(open_calls(FAKE_HISTORY), 0); /* nobody wants it any more */
    client_lose(other, 0);
    assert_true(session_fixture_gone(&fixture));
    assert_int_equal(fixture.reads.open, 0);
    assert_int_equal(fixture.reads.waiting, 0);
}

static void a_frame_that_is_none_ends_it_in_the_middle(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_commands = 2});
    struct client *c = online("/echo", FACE_JSON);

    log_set_sink(write_nothing);
    client_send(
        c, "{\"id\":1,\"cmd\":\"ping\"}\n{\"id\":2,\"cmd\":\"ping\"}\n{\"id\":3,\"cmd\":\"ping\"}\nnone\n"
           "{\"id\":4,\"cmd\":\"ping\"}");
    for (int i = 0; i < 4; i++)
        session_fixture_turn(&fixture);
    assert_int_equal(c->closes, 1);
    assert_int_equal(c->close_code, CLOSE_BAD_FRAME);
    assert_int_equal(answers(c, 1), 3);
    log_set_sink(NULL);
}

static void without_memory_for_the_rest_it_ends(void **state)
{
    (void)state;
    open_with((struct sessions_options){.turn_commands = 2});
    struct client *c = online("/to/x", FACE_PLAIN);

    log_set_sink(write_nothing);
    client_send(c, "x");
    client_send(c, "x");
    alloc_fixture_fail(1);
    client_send(c, "x");
    alloc_fixture_fail(0);
    assert_int_equal(c->closes, 1);
    assert_int_equal(c->close_code, CLOSE_INTERNAL);
    log_set_sink(NULL);
}

#define INTAKE_TEST(function) cmocka_unit_test_teardown(function, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        INTAKE_TEST(a_message_is_carried_out_over_several_turns),
        INTAKE_TEST(bytes_count_too),
        INTAKE_TEST(what_comes_behind_the_rest_waits_for_it),
        INTAKE_TEST(a_plain_client_waits_for_its_turn),
        INTAKE_TEST(many_that_wait_go_on_by_turns),
        INTAKE_TEST(a_message_waits_until_enough_is_answered),
        INTAKE_TEST(a_stored_message_counts_for_four),
        INTAKE_TEST(when_all_have_much_open_those_with_little_go_on),
        INTAKE_TEST(two_reads_are_open_for_a_session),
        INTAKE_TEST(all_together_take_turns_at_reading),
        INTAKE_TEST(a_read_waits_for_room),
        INTAKE_TEST(a_session_that_ends_leaves_the_rest),
        INTAKE_TEST(a_frame_that_is_none_ends_it_in_the_middle),
        INTAKE_TEST(without_memory_for_the_rest_it_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
