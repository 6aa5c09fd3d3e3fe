/* Requests over the bus: whatever comes first decides, once. */
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/await.h"
#include "tests/lib/fake_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct loop *loop;
static struct fake_storage *fake;
static struct router *router;
static struct requests *requests;
static struct metrics metrics;

/* What became of a request. */
static struct outcome {
    unsigned calls;
    int error;
    char text[64];
} outcome;

static int open_all(void **state)
{
    (void)state;
    alloc_fixture_install();
    metrics = (struct metrics){0};
    outcome = (struct outcome){0};
    loop = loop_create();
    fake = fake_storage_create();
    fake->storage.state = STORAGE_UP;
    router = router_create(&fake->storage, &metrics, 1 << 20);
    const struct requests_options options = {
        .loop = loop, .storage = &fake->storage, .router = router, .metrics = &metrics};
    requests = requests_create(&options);
    return loop && router && requests ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    alloc_fixture_fail(0);
    storage_destroy(&fake->storage);
    requests_destroy(requests);
    router_destroy(router);
    loop_destroy(loop);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static void on_done(void *data, int error, const struct message_fields *answer)
{
    struct outcome *result = data;

    result->calls++;
    result->error = error;
    snprintf(result->text, sizeof result->text, "%.*s", answer ? (int)answer->payload.len : 0,
             answer ? answer->payload.data : "");
}

static struct request *ask_for(enum address_kind kind, uint64_t timeout_ms)
{
    const struct request_question question = {
        .id = slice_text("k.1"),
        .from = slice_text("session:asker"),
        .to = {.kind = kind, .name = slice_text("bob")},
        .payload = slice_text("ready?"),
        .timeout_ms = timeout_ms,
        .on_done = on_done,
        .data = &outcome,
    };

    return request_ask(requests, &question);
}

static void ask(enum address_kind kind)
{
    assert_non_null(ask_for(kind, 60000));
    assert_int_equal(outcome.calls, 0);
}

static void say(enum message_kind kind, const char *from, const char *text)
{
    const struct message_fields fields = {.kind = kind,
                                          .from = slice_text(from),
                                          .correlation = slice_text("k.1"),
                                          .payload = slice_text(text)};

    requests_on_answer(requests, &fields);
}

static bool published(int error, int64_t receivers)
{
    return fake_storage_answer_next(fake, FAKE_PUBLISH, error, receivers);
}

/* Answers the look-up with the user's sessions, NULL at the end. */
static bool listed(const char *first, const char *second)
{
    struct storage_record records[] = {{.key = slice_text(first)}, {.key = slice_text(second)}};
    const struct storage_result result = {.records = records, .record_count = first ? second ? 2 : 1 : 0};

    return fake_storage_answer_with(fake_storage_next(fake, FAKE_LIST), ERROR_NONE, &result);
}

static void expect(int error, const char *text)
{
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.error, error);
    assert_string_equal(outcome.text, text);
    assert_int_equal(requests_open(requests), 0);
}

/* What was published last, as fields; the slices are the call's. */
static void expect_published(enum message_kind kind, const char *channel)
{
    struct message_fields fields;
    const struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH);

    assert_non_null(call);
    assert_string_equal(call->channel, channel);
    assert_null(envelope_decode(slice_from(call->bytes, call->len), &fields));
    assert_int_equal(fields.kind, kind);
    assert_true(slice_is(fields.correlation, "k.1"));
    assert_true(slice_is(fields.from, "session:asker"));
}

static void test_the_question(void **state)
{
    struct message_fields fields;

    (void)state;
    ask(ADDRESS_USER);
    expect_published(MESSAGE_REQUEST, "user:{bob}");
    const struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH);
    assert_null(envelope_decode(slice_from(call->bytes, call->len), &fields));
    assert_true(slice_is(fields.payload, "ready?") && slice_is(fields.to, "user:bob"));
    assert_int_equal(fields.timeout_ms, 60000);
    assert_int_equal(metrics.requests_asked, 1);
    assert_int_equal(requests_open(requests), 1);
}

static void test_answers_of_a_session(void **state)
{
    static const struct {
        enum message_kind kind;
        int error;
        const char *text;
    } rows[] = {{MESSAGE_REPLY, ERROR_NONE, "x"},
                {MESSAGE_REFUSED, ERROR_REFUSED, "x"},
                {MESSAGE_GONE, ERROR_GONE, ""}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int late = 0; late < 2; late++) {
            outcome = (struct outcome){0};
            ask(ADDRESS_SESSION);
            if (!late)
                assert_true(published(ERROR_NONE, 1));
            say(rows[i].kind, "session:bob", "x");
            expect(rows[i].error, rows[i].text);
            if (late)
                assert_true(published(ERROR_NONE, 0));
            say(MESSAGE_REPLY, "session:bob", "again");
            expect(rows[i].error, rows[i].text);
            assert_true(list_empty(&fake->open));
        }
    }
}

static void test_nobody_there(void **state)
{
    static const int errors[] = {ERROR_NONE, ERROR_UNAVAILABLE, ERROR_TIMEOUT, ERROR_NO_MEMORY};

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        outcome = (struct outcome){0};
        ask(ADDRESS_SESSION);
        assert_true(published(errors[i], 0));
        expect(errors[i] ? errors[i] : ERROR_ABSENT, "");
    }
}

static void test_the_deadline(void **state)
{
    (void)state;
    assert_non_null(ask_for(ADDRESS_SESSION, 1));
    assert_true(published(ERROR_NONE, 1));
    AWAIT(loop_base(loop), outcome.calls);
    expect(ERROR_TIMEOUT, "");
    expect_published(MESSAGE_CANCEL, "session:{bob}");
    say(MESSAGE_REPLY, "session:bob", "late");
    assert_int_equal(outcome.calls, 1);
}

static void test_cancelled(void **state)
{
    (void)state;
    for (int early = 0; early < 2; early++) {
        struct request *request = ask_for(ADDRESS_USER, 60000);
        if (!early)
            assert_true(published(ERROR_NONE, 1));
        request_cancel(request);
        say(MESSAGE_REPLY, "session:bob~1", "late");
        if (early)
            assert_true(published(ERROR_NONE, 1));
        expect_published(MESSAGE_CANCEL, "user:{bob}");
        assert_true(published(ERROR_UNAVAILABLE, 0));
        assert_int_equal(outcome.calls, 0);
        assert_int_equal(requests_open(requests), 0);
    }
}

static void test_the_first_reply_of_a_user_wins(void **state)
{
    (void)state;
    ask(ADDRESS_USER);
    assert_true(published(ERROR_NONE, 1));
    say(MESSAGE_REFUSED, "session:bob~1", "no");
    say(MESSAGE_REPLY, "session:bob~2", "yes");
    say(MESSAGE_REPLY, "session:bob~3", "me too");
    expect(ERROR_NONE, "yes");
    expect_published(MESSAGE_CANCEL, "user:{bob}");
    /* The look-up for the refusal comes back to nobody. */
    assert_true(listed("bob~2", NULL));
    assert_int_equal(outcome.calls, 1);
}

static void test_all_of_a_user_refuse(void **state)
{
    (void)state;
    ask(ADDRESS_USER);
    assert_true(published(ERROR_NONE, 1));
    say(MESSAGE_REFUSED, "session:bob~1", "no");
    assert_true(listed("bob~1", "bob~2"));
    assert_int_equal(outcome.calls, 0);
    say(MESSAGE_REFUSED, "session:bob~2", "never");
    assert_true(listed("bob~1", "bob~2"));
    expect(ERROR_REFUSED, "never");
}

/* Only who refused counts as having refused, also when that one is gone. */
static void test_one_refused_and_left_another_may_reply(void **state)
{
    (void)state;
    ask(ADDRESS_USER);
    assert_true(published(ERROR_NONE, 1));
    say(MESSAGE_REFUSED, "session:bob~1", "no");
    assert_true(listed("bob~1", "bob~2"));
    say(MESSAGE_GONE, "session:bob~3", "");
    assert_true(listed("bob~2", NULL));
    assert_int_equal(outcome.calls, 0);
    say(MESSAGE_REPLY, "session:bob~2", "yes");
    expect(ERROR_NONE, "yes");
}

static void test_all_of_a_user_leave(void **state)
{
    (void)state;
    ask(ADDRESS_USER);
    assert_true(published(ERROR_NONE, 1));
    say(MESSAGE_GONE, "session:bob~1", "");
    say(MESSAGE_GONE, "session:bob~2", "");
    /* The first look-up was asked before the second left. */
    assert_int_equal(fake_storage_open(fake, FAKE_LIST), 1);
    assert_true(listed("bob~2", NULL));
    assert_int_equal(outcome.calls, 0);
    assert_true(listed(NULL, NULL));
    expect(ERROR_GONE, "");
}

static void test_a_look_up_that_fails_decides_nothing(void **state)
{
    (void)state;
    ask(ADDRESS_USER);
    assert_true(published(ERROR_NONE, 1));
    say(MESSAGE_GONE, "session:bob~1", "");
    assert_true(fake_storage_answer_next(fake, FAKE_LIST, ERROR_UNAVAILABLE, 0));
    assert_int_equal(outcome.calls, 0);
    say(MESSAGE_REPLY, "session:bob~2", "yes");
    expect(ERROR_NONE, "yes");
}

static void test_answers_to_nothing(void **state)
{
    const struct message_fields other = {.kind = MESSAGE_REPLY, .correlation = slice_text("k.2")};
    const struct message_fields none = {.kind = MESSAGE_REPLY};

    (void)state;
    ask(ADDRESS_SESSION);
    requests_on_answer(requests, &other);
    requests_on_answer(requests, &none);
    assert_int_equal(outcome.calls, 0);
    assert_int_equal(requests_open(requests), 1);
}

static void test_an_end_with_open_requests(void **state)
{
    (void)state;
    ask(ADDRESS_USER);
    say(MESSAGE_GONE, "session:bob~1", "");
    assert_int_equal(requests_open(requests), 1);
}

static void test_memory_is_short(void **state)
{
    bool failed = true;

    (void)state;
    for (size_t n = 1; failed; n++) {
        outcome = (struct outcome){0};
        alloc_fixture_fail(n);
        struct request *request = ask_for(ADDRESS_USER, 60000);
        if (request) {
            published(ERROR_NONE, 1);
            say(MESSAGE_REFUSED, "session:bob~1", "no");
            listed("bob~1", NULL);
            /* Without memory for the refusal the deadline decides. */
            if (!outcome.calls)
                request_cancel(request);
            else
                assert_true(outcome.error == ERROR_REFUSED || outcome.error == ERROR_GONE ||
                            outcome.error == ERROR_NO_MEMORY);
        }
        failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        assert_true(request || failed);
        while (published(ERROR_NONE, 1))
            ;
        assert_int_equal(requests_open(requests), 0);
        assert_true(list_empty(&fake->open));
    }
    assert_int_equal(outcome.error, ERROR_REFUSED);
}

/* A plain session's answer that nobody waits for goes back to it. */
static void a_late_answer_goes_back(void **state)
{
    struct message_fields fields = {.kind = MESSAGE_REPLY,
                                    .content = CONTENT_BINARY,
                                    .from = slice_text("session:bob"),
                                    .to = slice_text("session:asker"),
                                    .correlation = slice_text("k.1"),
                                    .payload = slice_text("late"),
                                    .timeout_ms = 1},
                          sent;

    (void)state;
    ask(ADDRESS_SESSION);
    assert_true(published(ERROR_NONE, 1));
    requests_on_answer(requests, &fields);
    expect(ERROR_NONE, "late");
    assert_null(fake_storage_next(fake, FAKE_PUBLISH));
    requests_on_answer(requests, &fields);
    struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH);
    assert_non_null(call);
    assert_string_equal(call->channel, "session:{bob}");
    assert_null(envelope_decode(slice_from(call->bytes, call->len), &sent));
    assert_int_equal(sent.kind, MESSAGE_LATE);
    assert_int_equal(sent.content, CONTENT_BINARY);
    assert_true(slice_is(sent.payload, "late") && slice_is(sent.correlation, "k.1"));
    assert_true(published(ERROR_NONE, 0));
    /* Nothing else does. */
    fields.kind = MESSAGE_REFUSED;
    requests_on_answer(requests, &fields);
    fields.kind = MESSAGE_REPLY;
    fields.timeout_ms = 0;
    requests_on_answer(requests, &fields);
    fields.timeout_ms = 1;
    fields.from = slice_text("nobody");
    requests_on_answer(requests, &fields);
    assert_null(fake_storage_next(fake, FAKE_PUBLISH));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)
        TEST(test_the_question),
        TEST(test_answers_of_a_session),
        TEST(test_nobody_there),
        TEST(test_the_deadline),
        TEST(test_cancelled),
        TEST(test_the_first_reply_of_a_user_wins),
        TEST(test_all_of_a_user_refuse),
        TEST(test_one_refused_and_left_another_may_reply),
        TEST(test_all_of_a_user_leave),
        TEST(test_a_look_up_that_fails_decides_nothing),
        TEST(test_answers_to_nothing),
        TEST(a_late_answer_goes_back),
        TEST(test_an_end_with_open_requests),
        TEST(test_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
