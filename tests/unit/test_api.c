/* The API listener over real sockets: what each path answers, and clients that misbehave or leave. */
#include "base/buffer.h"
#include "broker/api.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/router.h"
#include "tests/lib/session_fixture.h"

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

enum { POLL_MS = 5, POLLS_MAX = 2000, QUIET_TURNS = 20 };

static struct session_fixture fixture;
static struct fake_storage *fake;
static struct api *api;

static void create_api(void)
{
    const struct api_options options = {.loop = fixture.loop,
                                        .config = fixture.config,
                                        .storage = fixture.storage,
                                        .sessions = fixture.sessions,
                                        .router = fixture.router,
                                        .metrics = &fixture.metrics,
                                        .instance = "a1",
                                        .started_at_ms = fixture.now_us / 1000,
                                        .max_connections = 1234};
    api = api_create(&options);
    assert_non_null(api);
}

static int open_api(void **state)
{
    *state = &fixture;
    session_fixture_open(&fixture, NULL, false);
    fake = fixture.fake;
    create_api();
    return 0;
}

/* The storage goes first, as api_destroy() asks for. */
static int close_api(void **state)
{
    (void)state;
    list_for_each (link, &fixture.clients)
        client_lose(container_of(link, struct client, link), 0);
    session_fixture_turn(&fixture);
    while (!list_empty(&fake->open))
        fake_storage_answer(container_of(fake->open.next, struct fake_call, link), ERROR_CANCELLED, 0);
    api_destroy(api);
    session_fixture_close(&fixture);
    return 0;
}

/* ---- a little HTTP client ---- */

struct response {
    int status;
    char head[4096]; /* with the status line */
    struct buffer body;
};

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_memory_equal(api_address(api), "127.0.0.1:", 10);
    address.sin_port = htons((uint16_t)atoi(strrchr(api_address(api), ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int send_raw(const char *text)
{
    int fd = dial();

    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    return fd;
}

static int ask(const char *method, const char *path)
{
    char text[512];

    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", method, path);
    return send_raw(text);
}

static void await_call(enum fake_kind kind)
{
    for (int i = 0; i < POLLS_MAX && !fake_storage_next(fake, kind); i++) {
        session_fixture_turn(&fixture);
        poll(NULL, 0, 1);
    }
    assert_non_null(fake_storage_next(fake, kind));
}

/* Reads until the server closes. */
static struct response read_response(int fd)
{
    struct response response = {0};
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    struct buffer all;
    char bytes[4096];
    ssize_t got = -1;

    buffer_init(&all, 0);
    for (int i = 0; i < POLLS_MAX && got != 0; i++) {
        session_fixture_turn(&fixture);
        if (poll(&readable, 1, POLL_MS) != 1)
            continue;
        got = recv(fd, bytes, sizeof bytes, 0);
        assert_true(got >= 0);
        assert_true(buffer_append(&all, bytes, (size_t)got));
    }
    close(fd);
    assert_int_equal(got, 0);
    const char *text = buffer_text(&all), *end = strstr(text, "\r\n\r\n");
    assert_non_null(end);
    snprintf(response.head, sizeof response.head, "%.*s\r\n", (int)(end - text), text);
    assert_int_equal(sscanf(response.head, "HTTP/1.1 %d", &response.status), 1);
    buffer_init(&response.body, 0);
    assert_true(buffer_append(&response.body, end + 4, all.len - (size_t)(end + 4 - text)));
    buffer_close(&all);
    return response;
}

static struct response get(const char *path)
{
    return read_response(ask("GET", path));
}

static void assert_header(const struct response *response, const char *line)
{
    char wanted[256];

    snprintf(wanted, sizeof wanted, "\r\n%s\r\n", line);
    if (!strcasestr(response->head, wanted))
        fail_msg("no \"%s\" in:\n%s", line, response->head);
}

static void expect_text(struct response response, int status, const char *body)
{
    assert_int_equal(response.status, status);
    assert_string_equal(buffer_text(&response.body), body);
    assert_header(&response, "Content-Type: text/plain; charset=utf-8");
    assert_header(&response, "Cache-Control: no-store");
    buffer_close(&response.body);
}

static json_t *parse_json(struct response *response, const char *type)
{
    char line[128];
    json_error_t error;

    snprintf(line, sizeof line, "Content-Type: %s", type);
    assert_header(response, line);
    json_t *json = json_loadb(response->body.data, response->body.len, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        fail_msg("%s in %s", error.text, buffer_text(&response->body));
    buffer_close(&response->body);
    return json;
}

/* ---- health and readiness ---- */

static void healthz_is_ok(void **state)
{
    (void)state;
    expect_text(get("/healthz"), 200, "ok\n");
    expect_text(get("/healthz?verbose=1"), 200, "ok\n");
    fake_storage_down(fake);
    expect_text(get("/healthz"), 200, "ok\n");
}

static void head_has_no_body(void **state)
{
    (void)state;
    struct response response = read_response(ask("HEAD", "/healthz"));
    assert_int_equal(response.status, 200);
    assert_header(&response, "Content-Length: 3");
    assert_int_equal(response.body.len, 0);
    buffer_close(&response.body);
}

static void readyz_waits_for_the_bus(void **state)
{
    (void)state;
    int fd = ask("GET", "/readyz");
    await_call(FAKE_PROBE);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    expect_text(read_response(fd), 200, "ready\n");
}

static void readyz_tells_that_the_storage_is_down(void **state)
{
    static const int errors[] = {ERROR_UNAVAILABLE, ERROR_TIMEOUT};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char expected[64];
        int fd = ask("GET", "/readyz");
        await_call(FAKE_PROBE);
        fake_storage_answer_next(fake, FAKE_PROBE, errors[i], 0);
        struct response response = read_response(fd);
        assert_header(&response, "Retry-After: 1");
        snprintf(expected, sizeof expected, "not ready: %s\n", error_name(errors[i]));
        expect_text(response, 503, expected);
    }
}

static void readyz_is_red_while_draining(void **state)
{
    (void)state;
    int fd = ask("GET", "/readyz");
    await_call(FAKE_PROBE);
    api_set_draining(api);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    expect_text(read_response(fd), 503, "not ready: draining\n");
    expect_text(get("/readyz"), 503, "not ready: draining\n");
    assert_int_equal(fake->made[FAKE_PROBE], 1);
    expect_text(get("/healthz"), 200, "ok\n");
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
    int fd = ask("GET", "/v1/stats");

    await_call(FAKE_COUNT);
    fake_storage_answer_next(fake, FAKE_COUNT, error, online);
    struct response response = read_response(fd);
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
    struct response response = get("/metrics");
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
        else if (slice_is(names[i], "switchboard_max_connections"))
            assert_true(value == 1234);
        else if (slice_is(names[i], "switchboard_storage_up"))
            assert_true(value == 1);
        else if (slice_is(names[i], "switchboard_start_time_seconds"))
            assert_true(value == 1.7e9);
        else
            assert_true(value == 0);
    }
    assert_int_equal(counters, sizeof(struct metrics) / sizeof(uint64_t));
    assert_true(gauges >= 5);
    buffer_close(&response.body);
}

/* ---- refusals ---- */

static void expect_problem(struct response response, int status, const char *title)
{
    assert_int_equal(response.status, status);
    json_t *json = parse_json(&response, "application/problem+json");
    assert_string_equal(json_string_value(json_object_get(json, "type")), "about:blank");
    assert_string_equal(json_string_value(json_object_get(json, "title")), title);
    assert_integer(json, "status", status);
    assert_true(json_is_string(json_object_get(json, "detail")));
    json_decref(json);
}

static void unknown_paths_are_404(void **state)
{
    static const char *const paths[] = {"/",   "/healthz/",   "/HEALTHZ",  "//healthz",
                                        "/v1", "/v1/stats/x", "/%68ealthz"};

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        expect_problem(get(paths[i]), 404, "not_found");
}

static void other_methods_are_405(void **state)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE"};

    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "%s /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                 methods[i]);
        struct response response = read_response(send_raw(text));
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
        int fd = send_raw(requests[i]);
        for (int turn = 0; turn < QUIET_TURNS; turn++) {
            session_fixture_turn(&fixture);
            poll(NULL, 0, 1);
        }
        close(fd);
    }
    expect_text(get("/healthz"), 200, "ok\n");
}

/* ---- clients that leave ---- */

static void turns_until_noticed(void)
{
    for (int turn = 0; turn < QUIET_TURNS; turn++) {
        session_fixture_turn(&fixture);
        poll(NULL, 0, 1);
    }
}

static void client_that_leaves_while_it_waits(void **state)
{
    static const char *const paths[] = {"/readyz", "/v1/stats"};
    static const enum fake_kind kinds[] = {FAKE_PROBE, FAKE_COUNT};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        for (int hard = 0; hard < 2; hard++) {
            struct linger reset = {.l_onoff = 1, .l_linger = 0};
            int fd = ask("GET", paths[i]);
            await_call(kinds[i]);
            if (hard)
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(fd);
            turns_until_noticed();
            assert_true(fake_storage_answer_next(fake, kinds[i], ERROR_NONE, 7));
            turns_until_noticed();
        }
    }
    expect_text(get("/healthz"), 200, "ok\n");
}

static void answer_that_comes_before_the_departure_is_noticed(void **state)
{
    (void)state;
    int fd = ask("GET", "/readyz");
    await_call(FAKE_PROBE);
    close(fd);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    turns_until_noticed();
    expect_text(get("/healthz"), 200, "ok\n");
}

static void one_connection_serves_many_requests(void **state)
{
    (void)state;
    int fd = send_raw("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/stats HTTP/1.1\r\nHost: a\r\n\r\n"
                      "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    await_call(FAKE_PROBE);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    await_call(FAKE_COUNT);
    fake_storage_answer_next(fake, FAKE_COUNT, ERROR_NONE, 0);
    struct response response = read_response(fd);
    assert_non_null(strstr(buffer_text(&response.body), "ok\n"));
    buffer_close(&response.body);
}

static void client_that_leaves_between_requests(void **state)
{
    (void)state;
    int fd = send_raw("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    await_call(FAKE_PROBE);
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    turns_until_noticed();
    assert_true(send(fd, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", 33, MSG_NOSIGNAL) > 0);
    await_call(FAKE_PROBE);
    close(fd);
    turns_until_noticed();
    fake_storage_answer_next(fake, FAKE_PROBE, ERROR_NONE, 0);
    turns_until_noticed();
}

static void waiting_requests_end_with_the_storage(void **state)
{
    (void)state;
    int a = ask("GET", "/readyz"), b = ask("GET", "/v1/stats");
    await_call(FAKE_PROBE);
    await_call(FAKE_COUNT);
    fake_storage_answer_all(fake, FAKE_PROBE, ERROR_CANCELLED, 0);
    fake_storage_answer_all(fake, FAKE_COUNT, ERROR_CANCELLED, 0);
    api_destroy(api); /* its connections are dropped, written to or not */
    create_api();
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
#define API_TEST(name) cmocka_unit_test_setup_teardown(name, open_api, close_api)
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
