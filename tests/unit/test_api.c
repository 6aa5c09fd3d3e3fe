/* The API listener over real sockets: what each path answers, and clients that misbehave or leave. */
#include "base/buffer.h"
#include "broker/api.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/router.h"
#include "tests/lib/api_fixture.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- health and readiness ---- */

static void healthz_is_ok(void **state)
{
    (void)state;
    expect_text(http_get("/healthz"), 200, "ok\n");
    expect_text(http_get("/healthz?verbose=1"), 200, "ok\n");
    fake_storage_down(fake);
    expect_text(http_get("/healthz"), 200, "ok\n");
}

static void head_has_no_body(void **state)
{
    (void)state;
    struct response response = http_read(http_ask("HEAD", "/healthz"));
    assert_int_equal(response.status, 200);
    assert_header(&response, "Content-Length: 3");
    assert_int_equal(response.body.len, 0);
    buffer_close(&response.body);
}

static void readyz_waits_for_the_bus(void **state)
{
    (void)state;
    int fd = http_ask("GET", "/readyz");
    await_call(FAKE_PROBE);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    expect_text(http_read(fd), 200, "ready\n");
}

static void readyz_tells_that_the_storage_is_down(void **state)
{
    static const int errors[] = {ERROR_UNAVAILABLE, ERROR_TIMEOUT};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char expected[64];
        int fd = http_ask("GET", "/readyz");
        await_call(FAKE_PROBE);
        fake_storage_answer_next(fake, FAKE_PROBE, errors[i], 0);
        struct response response = http_read(fd);
        assert_header(&response, "Retry-After: 1");
        snprintf(expected, sizeof expected, "not ready: %s\n", error_name(errors[i]));
        expect_text(response, 503, expected);
    }
}

static void readyz_is_red_while_draining(void **state)
{
    (void)state;
    int fd = http_ask("GET", "/readyz");
    await_call(FAKE_PROBE);
    api_set_draining(api);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    expect_text(http_read(fd), 503, "not ready: draining\n");
    expect_text(http_get("/readyz"), 503, "not ready: draining\n");
    assert_int_equal(fake->made[FAKE_PROBE], 1);
    expect_text(http_get("/healthz"), 200, "ok\n");
}

/* ---- statistics ---- */

static void assert_integer(const json_t *json, const char *key, json_int_t value)
{
    const json_t *field = json_object_get(json, key);

    if (!json_is_integer(field))
        fail_msg("%s is missing or no integer", key);
    assert_int_equal(json_integer_value(field), value);
}

static json_t *get_stats(int error, int64_t online)
{
    int fd = http_ask("GET", "/v1/stats");

    await_call(FAKE_COUNT);
    fake_storage_answer_next(fake, FAKE_COUNT, error, online);
    struct response response = http_read(fd);
    assert_int_equal(response.status, 200);
    return parse_json(&response, "application/json");
}

static void stats_show_what_there_is(void **state)
{
    struct client *c = client_open(&fixture, "/users/bob");

    (void)state;
    client_bring_online(c);
    fake_storage_answer_all(fake, FAKE_COUNT, ERROR_NONE, 1);
    client_send(c, "hello");
    fixture.now_us += 1500 * 1000;
    json_t *json = get_stats(ERROR_NONE, 41);
    assert_string_equal(json_string_value(json_object_get(json, "instance")), "a1");
    assert_string_equal(json_string_value(json_object_get(json, "version")), SWITCHBOARD_VERSION);
    assert_string_equal(json_string_value(json_object_get(json, "started_at")), "2023-11-14T22:13:20.000Z");
    assert_integer(json, "uptime_ms", 1500);
    assert_integer(json, "online", 41);
    assert_integer(json, "sessions", 1);
    assert_integer(json, "channels", 2);
    assert_integer(json, "max_connections", 1234);
    const json_t *storage = json_object_get(json, "storage");
    assert_string_equal(json_string_value(json_object_get(storage, "name")), "fake");
    assert_true(json_is_true(json_object_get(storage, "up")));
    assert_true(json_is_false(json_object_get(json, "draining")));
    const json_t *counters = json_object_get(json, "counters");
    assert_integer(counters, "messages_received", 1);
    assert_integer(counters, "sessions_opened", 1);
    assert_integer(counters, "published", 1);
    assert_integer(counters, "storage_outages", 0);
    json_decref(json);
}

static void stats_are_served_during_an_outage(void **state)
{
    (void)state;
    fake_storage_down(fake);
    api_set_draining(api);
    json_t *json = get_stats(ERROR_UNAVAILABLE, 0);
    assert_true(json_is_null(json_object_get(json, "online")));
    assert_true(json_is_false(json_object_get(json_object_get(json, "storage"), "up")));
    assert_true(json_is_true(json_object_get(json, "draining")));
    json_decref(json);
}

/* ---- metrics ---- */

static size_t name_length(const char *text)
{
    size_t len = 0;

    while (isalpha((unsigned char)text[len]) || text[len] == '_' || text[len] == ':' ||
           (len && isdigit((unsigned char)text[len])))
        len++;
    return len;
}

/* Steps over `prefix` and the metric's name, then one space. */
static const char *expect_name(const char *line, const char *prefix, struct slice name)
{
    size_t len = strlen(prefix);

    assert_memory_equal(line, prefix, len);
    if (name_length(line + len) != name.len || memcmp(line + len, name.data, name.len) != 0)
        fail_msg("%.*s expected in: %.80s", (int)name.len, name.data, line);
    assert_int_equal(line[len + name.len], ' ');
    return line + len + name.len + 1;
}

static const char *line_end(const char *line)
{
    const char *end = strchr(line, '\n');

    assert_non_null(end);
    return end;
}

/* One metric as the text format wants it: HELP, TYPE, then its one sample. Returns what follows. */
static const char *expect_metric(const char *text, double *value, struct slice *name, bool *counter)
{
    char *end;

    *name = slice_from(text + 7, name_length(text + 7));
    const char *help = expect_name(text, "# HELP ", *name);
    assert_true(line_end(help) > help);
    text = line_end(help) + 1;
    const char *type = expect_name(text, "# TYPE ", *name);
    *counter = strncmp(type, "counter\n", 8) == 0;
    assert_true(*counter || strncmp(type, "gauge\n", 6) == 0);
    assert_true(*counter == (name->len > 6 && memcmp(name->data + name->len - 6, "_total", 6) == 0));
    text = line_end(type) + 1;
    const char *number = expect_name(text, "", *name);
    assert_true(isdigit((unsigned char)*number) || *number == '-');
    *value = strtod(number, &end);
    assert_int_equal(*end, '\n');
    return end + 1;
}

static void metrics_are_prometheus_text(void **state)
{
    enum { METRICS_MAX = 200 };
    struct slice names[METRICS_MAX];
    size_t counters = 0, gauges = 0;

    (void)state;
    fixture.metrics.messages_received = UINT64_C(12345678901);
    struct response response = http_get("/metrics");
    assert_int_equal(response.status, 200);
    assert_header(&response, "Content-Type: text/plain; version=0.0.4; charset=utf-8");
    for (const char *text = buffer_text(&response.body); *text;) {
        size_t i = counters + gauges;
        double value;
        bool counter;
        assert_true(i < METRICS_MAX);
        text = expect_metric(text, &value, &names[i], &counter);
        counter ? counters++ : gauges++;
        for (size_t j = 0; j < i; j++)
            assert_false(slice_equal(names[i], names[j]));
        if (slice_is(names[i], "switchboard_messages_received_total"))
            assert_true(value == 12345678901.0);
        else if (slice_is(names[i], "switchboard_memory_budget_bytes"))
            assert_true(value == (double)fixture.budget.limit);
        else if (slice_is(names[i], "switchboard_max_connections"))
            assert_true(value == 1234);
        else if (slice_is(names[i], "switchboard_storage_up"))
            assert_true(value == 1);
        else if (slice_is(names[i], "switchboard_start_time_seconds"))
            assert_true(value == 1.7e9);
        else if (slice_is(names[i], "switchboard_api_connections") ||
                 slice_is(names[i], "switchboard_api_connections_accepted_total"))
            assert_true(value == 1);
        else
            assert_true(value == 0);
    }
    assert_int_equal(counters, sizeof(struct metrics) / sizeof(uint64_t));
    assert_true(gauges >= 5);
    buffer_close(&response.body);
}

/* ---- refusals ---- */

static void unknown_paths_are_404(void **state)
{
    static const char *const paths[] = {"/",   "/healthz/",   "/HEALTHZ",  "//healthz",
                                        "/v1", "/v1/stats/x", "/%68ealthz"};

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        expect_problem(http_get(paths[i]), 404, "not_found");
}

static void other_methods_are_405(void **state)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE"};

    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "%s /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                 methods[i]);
        struct response response = http_read(http_send(text));
        assert_header(&response, "Allow: GET, HEAD");
        expect_problem(response, 405, "method_not_allowed");
    }
}

static void malformed_requests_do_no_harm(void **state)
{
    static const char *const requests[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET * HTTP/1.1\r\n\r\n",
        "GET http:// HTTP/1.1\r\n\r\n",
        "GET ? HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nConnection: close\r\n\r\n",
        "POST /healthz HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /healthz HTTP/1.1\r\nno colon here\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        int fd = http_send(requests[i]);
        quiet_turns();
        close(fd);
    }
    expect_text(http_get("/healthz"), 200, "ok\n");
}

/* ---- clients that leave ---- */

static void client_that_leaves_while_it_waits(void **state)
{
    static const char *const paths[] = {"/readyz", "/v1/stats"};
    static const enum fake_kind kinds[] = {FAKE_PROBE, FAKE_COUNT};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        for (int hard = 0; hard < 2; hard++) {
            struct linger reset = {.l_onoff = 1, .l_linger = 0};
            int fd = http_ask("GET", paths[i]);
            await_call(kinds[i]);
            if (hard)
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(fd);
            quiet_turns();
            assert_true(fake_storage_answer_next(fake, kinds[i], ERROR_NONE, 7));
            quiet_turns();
        }
    }
    expect_text(http_get("/healthz"), 200, "ok\n");
}

static void answer_that_comes_before_the_departure_is_noticed(void **state)
{
    (void)state;
    int fd = http_ask("GET", "/readyz");
    await_call(FAKE_PROBE);
    close(fd);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    quiet_turns();
    expect_text(http_get("/healthz"), 200, "ok\n");
}

static void one_connection_serves_many_requests(void **state)
{
    (void)state;
    int fd = http_send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"
                       "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    await_call(FAKE_PROBE);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    await_call(FAKE_COUNT);
    fake_storage_answer_next(fake, FAKE_COUNT, ERROR_NONE, 0);
    struct response response = http_read(fd);
    assert_non_null(strstr(buffer_text(&response.body), "ok\n"));
    buffer_close(&response.body);
}

static void client_that_leaves_between_requests(void **state)
{
    (void)state;
    int fd = http_send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await_call(FAKE_PROBE);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    quiet_turns();
    static const char again[] = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_true(send(fd, again, sizeof again - 1, MSG_NOSIGNAL) > 0);
    await_call(FAKE_PROBE);
    close(fd);
    quiet_turns();
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    quiet_turns();
}

static void waiting_requests_end_with_the_storage(void **state)
{
    (void)state;
    int a = http_ask("GET", "/readyz"), b = http_ask("GET", "/v1/stats");
    await_call(FAKE_PROBE);
    await_call(FAKE_COUNT);
    fake_storage_answer_all(fake, FAKE_PROBE, ERROR_CANCELLED, 0);
    fake_storage_answer_all(fake, FAKE_COUNT, ERROR_CANCELLED, 0);
    api_destroy(api); /* its connections are dropped, written to or not */
    api_fixture_create();
    close(a);
    close(b);
}

static void port_in_use_is_refused(void **state)
{
    struct config config = *fixture.config;
    const struct api_options options = {.loop = fixture.loop, .config = &config};

    (void)state;
    snprintf(config.api.text, sizeof config.api.text, "%s", api_address(api));
    assert_null(api_create(&options));
    api_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define API_TEST(name) cmocka_unit_test_setup_teardown(name, api_fixture_open, api_fixture_close)
        API_TEST(healthz_is_ok),
        API_TEST(head_has_no_body),
        API_TEST(readyz_waits_for_the_bus),
        API_TEST(readyz_tells_that_the_storage_is_down),
        API_TEST(readyz_is_red_while_draining),
        API_TEST(stats_show_what_there_is),
        API_TEST(stats_are_served_during_an_outage),
        API_TEST(metrics_are_prometheus_text),
        API_TEST(unknown_paths_are_404),
        API_TEST(other_methods_are_405),
        API_TEST(malformed_requests_do_no_harm),
        API_TEST(client_that_leaves_while_it_waits),
        API_TEST(answer_that_comes_before_the_departure_is_noticed),
        API_TEST(one_connection_serves_many_requests),
        API_TEST(client_that_leaves_between_requests),
        API_TEST(waiting_requests_end_with_the_storage),
        API_TEST(port_in_use_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
