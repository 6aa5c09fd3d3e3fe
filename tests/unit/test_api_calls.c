/* Calls of the API that wait: answers of the storage in any order, callers that leave, the end of the broker, memory that runs
 * out. */
#include "base/log.h"
#include "broker/api.h"
#include "broker/config.h"
#include "broker/requests.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/api_fixture.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* What the storage was last asked to publish. */
static struct message_fields decode(const struct fake_call *call)
{
    struct message_fields fields;

    assert_non_null(call);
    assert_null(envelope_decode(slice_from(call->bytes, call->len), &fields));
    return fields;
}

/* Answers the open question with `text`. */
static void answer_question(enum message_kind kind, const char *text)
{
    struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH);
    struct message_fields question = decode(call);
    const struct message_fields answer = {.kind = kind,
                                          .from = question.to,
                                          .to = question.from,
                                          .correlation = question.correlation,
                                          .payload = slice_text(text)};

    assert_int_equal(question.kind, MESSAGE_REQUEST);
    assert_true(slice_is(question.from, "instance:a1"));
    requests_on_answer(api_requests, &answer);
    fake_storage_answer(call, ERROR_NONE, 1);
}

/* ---- sending ---- */

static void a_receipt_says_what_became_of_it(void **state)
{
    static const struct {
        int64_t receivers;
        const char *json;
    } cases[] = {{2, "{\"receipt\":\"delivered\"}\n"}, {0, "{\"receipt\":\"absent\"}\n"}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int fd = http_post("POST", "/v1/send/user:b%7Db", "", "hi");
        await_call(FAKE_PUBLISH);
        struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH);
        struct message_fields fields = decode(call);
        assert_string_equal(call->channel, "user:{b%7Db}");
        assert_true(slice_is(fields.to, "user:b}b"));
        assert_int_equal(fields.from.len, 0);
        assert_true(slice_is(fields.payload, "hi"));
        fake_storage_answer(call, ERROR_NONE, cases[i].receivers);
        expect_json(http_read(fd), 200, cases[i].json);
    }
    assert_int_equal(fixture.metrics.published_absent, 1);
    assert_int_equal(fixture.metrics.api_answered, 2);
}

static void a_stored_message_has_an_offset(void **state)
{
    const struct storage_result stored = {.offset = slice_text("1-1"), .epoch = slice_text("e")};

    (void)state;
    int fd = http_post("POST", "/v1/publish/news?store&ttl=2s", "Idempotency-Key: k\r\n", "hi");
    await_call(FAKE_PUBLISH_WITH);
    struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH_WITH);
    assert_true(call->store && call->ttl_ms == 2000);
    assert_string_equal(call->key, "k");
    fake_storage_answer_with(call, ERROR_NONE, &stored);
    expect_json(http_read(fd), 200, "{\"receipt\":\"stored\",\"offset\":\"1-1\",\"epoch\":\"e\"}\n");
}

static void callers_have_so_many_keys(void **state)
{
    (void)state;
    keys_set_limits(&fixture.keys, 2, 1);
    int fd = http_post("POST", "/v1/batch", "",
                       "{\"cmd\":\"send\",\"to\":\"user:a\",\"text\":\"1\",\"key\":\"k\"}\n"
                       "{\"cmd\":\"send\",\"to\":\"user:a\",\"text\":\"2\",\"key\":\"k\"}\n"
                       "{\"cmd\":\"send\",\"to\":\"user:a\",\"text\":\"3\",\"key\":\"k\"}");
    await_call(FAKE_PUBLISH_WITH);
    quiet_turns();
    assert_int_equal(fake_storage_answer_all(fake, FAKE_PUBLISH_WITH, ERROR_NONE, 1), 2);
    struct response response = http_read(fd);
    assert_string_equal(buffer_text(&response.body),
                        "{\"ok\":{\"receipt\":\"delivered\"}}\n{\"ok\":{\"receipt\":\"delivered\"}}\n"
                        "{\"error\":{\"code\":429,\"name\":\"limit\",\"text\":\"too many idempotency keys "
                        "within five minutes (keys_limit)\",\"retry\":true}}\n");
    buffer_close(&response.body);
    expect_problem(http_read(http_post("POST", "/v1/send/user:a", "Idempotency-Key: k\r\n", "hi")), 429, "limit");
    expect_problem(http_read(http_post("POST", "/v1/publish/t?store", "Idempotency-Key: k\r\n", "hi")), 429,
                   "limit");
    assert_int_equal(fake_storage_open(fake, FAKE_PUBLISH_WITH), 0);
    assert_int_equal(fixture.metrics.keys_refused, 3);
    fixture.now_us += (STORAGE_KEY_LIFE_MS + KEYS_MINUTE_MS) * UINT64_C(1000);
    fd = http_post("POST", "/v1/send/user:a", "Idempotency-Key: k\r\n", "hi");
    await_call(FAKE_PUBLISH_WITH);
    fake_storage_answer_next(fake, FAKE_PUBLISH_WITH, ERROR_NONE, 1);
    expect_json(http_read(fd), 200, "{\"receipt\":\"delivered\"}\n");
}

static void errors_of_the_storage_are_problems(void **state)
{
    static const struct {
        int error, status;
        const char *name;
    } cases[] = {{ERROR_UNAVAILABLE, 503, "unavailable"},
                 {ERROR_TIMEOUT, 504, "timeout"},
                 {ERROR_CANCELLED, 503, "unavailable"},
                 {ERROR_NO_MEMORY, 507, "no_memory"}};
    static const struct {
        const char *method, *path;
        enum fake_kind kind;
    } calls[] = {{"POST", "/v1/send/user:x", FAKE_PUBLISH},
                 {"GET", "/v1/sessions", FAKE_LIST},
                 {"GET", "/v1/sessions?user=x", FAKE_LIST},
                 {"GET", "/v1/sessions/x", FAKE_LIST},
                 {"GET", "/v1/users/x", FAKE_LIST},
                 {"GET", "/v1/topics", FAKE_LIST_TOPICS},
                 {"GET", "/v1/topics/x/presence", FAKE_PRESENCE_LIST},
                 {"GET", "/v1/topics/x/history", FAKE_HISTORY},
                 {"GET", "/v1/instances", FAKE_LIST},
                 {"DELETE", "/v1/sessions/x", FAKE_PUBLISH},
                 {"POST", "/v1/instances/b/drain", FAKE_PUBLISH},
                 {"POST", "/v1/request/user:x", FAKE_PUBLISH}};

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) {
            int fd = http_post(calls[i].method, calls[i].path, "", "");
            await_call(calls[i].kind);
            fake_storage_answer_next(fake, calls[i].kind, cases[j].error, 0);
            expect_problem(http_read(fd), cases[j].status, cases[j].name);
        }
    }
}

/* Also when the caller has left before the answer: each kind of call ends without it. */
static void callers_that_leave(void **state)
{
    static const struct {
        const char *method, *path;
        enum fake_kind kind;
    } calls[] = {{"POST", "/v1/send/user:x", FAKE_PUBLISH},   {"GET", "/v1/sessions?route=/x", FAKE_LIST},
                 {"GET", "/v1/sessions?user=x", FAKE_LIST},   {"GET", "/v1/users/x", FAKE_LIST},
                 {"GET", "/v1/history/user:x", FAKE_HISTORY}, {"DELETE", "/v1/sessions/x", FAKE_PUBLISH}};

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (int error = 0; error <= ERROR_UNAVAILABLE; error += ERROR_UNAVAILABLE) {
            int fd = http_post(calls[i].method, calls[i].path, "", "");
            await_call(calls[i].kind);
            close(fd);
            quiet_turns();
            fake_storage_answer_next(fake, calls[i].kind, error, 1);
            quiet_turns();
            assert_true(list_empty(&fake->open));
        }
    }
    expect_text(http_get("/healthz"), 200, "ok\n");
}

/* ---- asking ---- */

static void a_reply_is_the_response(void **state)
{
    (void)state;
    int fd = http_post("POST", "/v1/request/session:x?timeout=7s", "", "?");
    await_call(FAKE_PUBLISH);
    assert_int_equal(decode(fake_storage_next(fake, FAKE_PUBLISH)).timeout_ms, 7000);
    answer_question(MESSAGE_REPLY, "!");
    struct response response = http_read(fd);
    expect_text(response, 200, "!");
    assert_int_equal(requests_open(api_requests), 0);
}

static void a_refusal_says_why(void **state)
{
    (void)state;
    int fd = http_post("POST", "/v1/request/session:x", "", "?");
    await_call(FAKE_PUBLISH);
    answer_question(MESSAGE_REFUSED, "not today");
    struct response response = http_read(fd);
    assert_non_null(strstr(buffer_text(&response.body), "\"detail\":\"not today\""));
    expect_problem(response, 422, "refused");
    fd = http_post("POST", "/v1/request/session:x", "", "?");
    await_call(FAKE_PUBLISH);
    answer_question(MESSAGE_GONE, "");
    expect_problem(http_read(fd), 410, "gone");
}

static void ids_are_never_used_twice(void **state)
{
    char first[CORRELATION_MAX] = "";

    (void)state;
    for (int i = 0; i < 2; i++) {
        int fd = http_post("POST", "/v1/request/session:x", "", "?");
        await_call(FAKE_PUBLISH);
        struct slice id = decode(fake_storage_next(fake, FAKE_PUBLISH)).correlation;
        assert_true(id.len > 3 && memcmp(id.data, "a1.", 3) == 0 && !slice_is(id, first));
        snprintf(first, sizeof first, "%.*s", (int)id.len, id.data);
        answer_question(MESSAGE_REPLY, "");
        expect_text(http_read(fd), 200, "");
        /* The same instance, started again. */
        fixture.now_us += 1000000;
        api_destroy(api);
        api_fixture_create();
    }
}

static void a_caller_that_leaves_cancels_its_request(void **state)
{
    static const struct {
        const char *path, *body;
    } calls[] = {
        {"/v1/request/session:x?timeout=5m", "?"},
        {"/v1/batch", "{\"cmd\":\"request\",\"to\":\"session:x\",\"timeout\":300000}\n{\"cmd\":\"dance\"}"}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int fd = http_post("POST", calls[i].path, "", calls[i].body);
        await_call(FAKE_PUBLISH);
        fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_NONE, 1);
        assert_int_equal(requests_open(api_requests), 1);
        close(fd);
        await_call(FAKE_PUBLISH);
        assert_int_equal(decode(fake_storage_next(fake, FAKE_PUBLISH)).kind, MESSAGE_CANCEL);
        fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_NONE, 1);
        assert_int_equal(requests_open(api_requests), 0);
    }
}

static void the_end_comes_while_requests_wait(void **state)
{
    (void)state;
    int one = http_post("POST", "/v1/request/session:x", "", "?");
    await_call(FAKE_PUBLISH);
    fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_NONE, 1);
    int two = http_post("POST", "/v1/batch", "",
                        "{\"cmd\":\"request\",\"to\":\"session:x\"}\n{\"cmd\":\"send\",\"to\":\"user:x\"}");
    await_call(FAKE_PUBLISH);
    fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_NONE, 1);
    fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_CANCELLED, 0);
    assert_int_equal(requests_open(api_requests), 2);
    close(one);
    close(two);
    /* api_fixture_close() destroys it all in this state. */
}

/* ---- batches ---- */

static void a_batch_answers_in_its_own_order(void **state)
{
    (void)state;
    int fd = http_post("POST", "/v1/batch", "",
                       "{\"id\":1,\"cmd\":\"send\",\"to\":\"user:a\",\"text\":\"1\"}\r\n\n  \n"
                       "{\"cmd\":\"publish\",\"topic\":\"t\",\"text\":\"2\"}\nnonsense\n"
                       "{\"id\":4,\"cmd\":\"request\",\"to\":\"session:s\"}");
    await_call(FAKE_PUBLISH);
    quiet_turns();
    assert_int_equal(fake_storage_open(fake, FAKE_PUBLISH), 3);
    struct fake_call *first = fake_storage_next(fake, FAKE_PUBLISH);
    struct fake_call *second = container_of(first->link.next, struct fake_call, link);
    struct fake_call *third = container_of(second->link.next, struct fake_call, link);
    fake_storage_answer(third, ERROR_NONE, 0);
    fake_storage_answer(second, ERROR_TIMEOUT, 0);
    fake_storage_answer(first, ERROR_NONE, 1);
    struct response response = http_read(fd);
    assert_string_equal(buffer_text(&response.body), "{\"id\":1,\"ok\":{\"receipt\":\"delivered\"}}\n"
                                                     "{\"error\":{\"code\":504,\"name\":\"timeout\",\"text\":"
                                                     "\"no answer before the deadline\",\"retry\":true}}\n"
                                                     "{\"error\":{\"code\":400,\"name\":\"bad_request\","
                                                     "\"text\":\"not a JSON object: '[' or '{' expected near "
                                                     "'nonsense'\",\"retry\":false}}\n"
                                                     "{\"id\":4,\"error\":{\"code\":404,\"name\":\"absent\","
                                                     "\"text\":\"nobody holds this address and nothing was "
                                                     "stored\",\"retry\":true}}\n");
    assert_header(&response, "Content-Type: application/x-ndjson");
    buffer_close(&response.body);
}

static void a_cancelled_batch_starts_nothing_more(void **state)
{
    char body[4000] = "";
    size_t lines = 0;

    (void)state;
    for (size_t len = 0; len < 3900; lines++)
        len += (size_t)sprintf(body + len, "%s", "{\"cmd\":\"send\",\"to\":\"u\"}\n");
    int fd = http_post("POST", "/v1/batch", "", body);
    expect_text(http_get("/healthz"), 200, "ok\n");
    struct response response = http_read(fd);
    assert_int_equal(response.status, 200);
    buffer_close(&response.body);
    fd = http_post("POST", "/v1/batch", "", "{\"cmd\":\"send\",\"to\":\"user:u\"}\n");
    await_call(FAKE_PUBLISH);
    fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_CANCELLED, 0);
    expect_problem(http_read(fd), 503, "unavailable");
}

/* ---- lists ---- */

static void filters_go_through_the_pages(void **state)
{
    const struct storage_field here[] = {{slice_text("instance"), slice_text("a1")}};
    const struct storage_field there[] = {{slice_text("instance"), slice_text("b1")}};
    const struct storage_record records[] = {{slice_text("x"), there, 1}, {slice_text("y"), here, 1}};
    struct storage_result page = {.records = records, .record_count = 1, .cursor = slice_text("c\xc3\xbc")};

    (void)state;
    int fd = http_ask("GET", "/v1/sessions?instance=a1&limit=4");
    await_call(FAKE_LIST);
    fake_storage_answer_with(fake_storage_next(fake, FAKE_LIST), ERROR_NONE, &page);
    await_call(FAKE_LIST);
    page = (struct storage_result){.records = records, .record_count = 2};
    fake_storage_answer_with(fake_storage_next(fake, FAKE_LIST), ERROR_NONE, &page);
    expect_json(http_read(fd), 200, "{\"sessions\":[{\"session\":\"y\",\"instance\":\"a1\"}]}\n");
    fd = http_ask("GET", "/v1/sessions?limit=2");
    await_call(FAKE_LIST);
    page.cursor = slice_text("c\xc3\xbc");
    fake_storage_answer_with(fake_storage_next(fake, FAKE_LIST), ERROR_NONE, &page);
    expect_json(
        http_read(fd), 200,
        "{\"sessions\":[{\"session\":\"x\",\"instance\":\"b1\"},{\"session\":\"y\",\"instance\":\"a1\"}],"
        "\"cursor\":\"63c3bc\"}\n");
}

static void a_scan_that_finds_nothing_comes_back(void **state)
{
    const struct storage_result page = {.cursor = slice_text("c")};
    size_t pages = 0;

    (void)state;
    int fd = http_ask("GET", "/v1/sessions?instance=none");
    await_call(FAKE_LIST);
    for (; fake_storage_next(fake, FAKE_LIST); pages++)
        fake_storage_answer_with(fake_storage_next(fake, FAKE_LIST), ERROR_NONE, &page);
    assert_true(pages > 1 && pages <= 100);
    expect_json(http_read(fd), 200, "{\"sessions\":[],\"cursor\":\"63\"}\n");
}

static void what_is_not_utf8_is_shown_as_far_as_it_is(void **state)
{
    const struct storage_field fields[] = {{slice_text("agent"), slice_text("cut \xc3")}};
    const struct storage_record record = {slice_text("x"), fields, 1};
    const struct storage_result found = {.records = &record, .record_count = 1};

    (void)state;
    int fd = http_ask("GET", "/v1/sessions/x");
    await_call(FAKE_LIST);
    fake_storage_answer_with(fake_storage_next(fake, FAKE_LIST), ERROR_NONE, &found);
    expect_json(http_read(fd), 200, "{\"session\":\"x\",\"agent\":\"cut \xef\xbf\xbd\"}\n");
}

/* ---- memory ---- */

static int open_counted(void **state)
{
    alloc_fixture_install();
    return api_fixture_open(state);
}

static int close_counted(void **state)
{
    alloc_fixture_fail(0);
    api_fixture_close(state);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static void answer_everything(void)
{
    const struct storage_field fields[] = {{slice_text("instance"), slice_text("a1")}};
    const struct storage_record record = {slice_text("x"), fields, 1};
    const struct storage_result result = {.number = 0, .records = &record, .record_count = 1};

    while (!list_empty(&fake->open))
        fake_storage_answer_with(container_of(fake->open.next, struct fake_call, link), ERROR_NONE, &result);
}

static void one_request_suffers_when_memory_is_short(void **state)
{
    static const struct {
        const char *method, *path, *body;
    } calls[] = {{"POST", "/v1/send/user:x?store=1", "hi"},
                 {"POST", "/v1/send/user:x", "{\"a\":1}"},
                 {"POST", "/v1/request/session:x?timeout=1s", "?"},
                 {"GET", "/v1/sessions?user=x&instance=a1", ""},
                 {"GET", "/v1/sessions?route=/&limit=1", ""},
                 {"GET", "/v1/topics/x/history?since=1-1", ""},
                 {"DELETE", "/v1/sessions/x?reason=why", ""},
                 {"GET", "/v1/stats", ""},
                 {"POST", "/v1/batch",
                  "{\"cmd\":\"send\",\"to\":\"user:x\",\"text\":\"1\"}\n{\"cmd\":\"request\",\"to\":"
                  "\"session:x\"}\n{}\n"}};

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool failed = true;
        for (size_t n = 1; failed; n++) {
            int fd = http_send("");
            struct pollfd readable = {.fd = fd, .events = POLLIN};
            quiet_turns(); /* the connection itself has its memory */
            http_post_on(fd, calls[i].method, calls[i].path,
                         *calls[i].body == '{' ? "Content-Type: application/json\r\n" : "", calls[i].body);
            alloc_fixture_fail(n);
            for (int turn = 0; turn < 2000 && poll(&readable, 1, 1) == 0; turn++) {
                session_fixture_turn(&fixture);
                answer_everything();
            }
            failed = alloc_fixture_failed();
            alloc_fixture_fail(0);
            struct response response = http_read(fd);
            if (!failed)
                assert_true(response.status == 200 || response.status == 404);
            else if (response.status != 507 && response.status != 200 && response.status != 404)
                fail_msg("%s without its allocation %zu: %d", calls[i].path, n, response.status);
            buffer_close(&response.body);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define API_TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_open, api_fixture_close)
        API_TEST(a_receipt_says_what_became_of_it),
        API_TEST(a_stored_message_has_an_offset),
        API_TEST(callers_have_so_many_keys),
        API_TEST(errors_of_the_storage_are_problems),
        API_TEST(callers_that_leave),
        API_TEST(a_reply_is_the_response),
        API_TEST(a_refusal_says_why),
        API_TEST(ids_are_never_used_twice),
        API_TEST(a_caller_that_leaves_cancels_its_request),
        API_TEST(the_end_comes_while_requests_wait),
        API_TEST(a_batch_answers_in_its_own_order),
        API_TEST(a_cancelled_batch_starts_nothing_more),
        API_TEST(filters_go_through_the_pages),
        API_TEST(a_scan_that_finds_nothing_comes_back),
        API_TEST(what_is_not_utf8_is_shown_as_far_as_it_is),
        cmocka_unit_test_setup_teardown(one_request_suffers_when_memory_is_short, open_counted,
                                        close_counted),
    };
    log_threshold = LOG_LEVEL_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
