#include "tests/lib/api_fixture.h"

#include "broker/api.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/requests.h"
#include "broker/router.h"

#include <arpa/inet.h>
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

struct session_fixture fixture;
struct fake_storage *fake;
struct requests *api_requests;
struct api *api;

void api_fixture_create(void)
{
    const struct api_options options = {.loop = fixture.loop,
                                        .config = fixture.config,
                                        .storage = fixture.storage,
                                        .sessions = fixture.sessions,
                                        .router = fixture.router,
                                        .requests = api_requests,
                                        .reads = &fixture.reads,
                                        .keys = &fixture.keys,
                                        .metrics = &fixture.metrics,
                                        .budget = &fixture.budget,
                                        .instance = "a1",
                                        .started_at_ms = fixture.now_us / 1000,
                                        .max_connections = 1234,
                                        .api_connections = 1024};
    api = api_create(&options);
    assert_non_null(api);
}

int api_fixture_open(void **state)
{
    *state = &fixture;
    session_fixture_open(&fixture, NULL, false);
    fake = fixture.fake;
    const struct requests_options options = {.loop = fixture.loop,
                                             .storage = fixture.storage,
                                             .router = fixture.router,
                                             .metrics = &fixture.metrics};
    api_requests = requests_create(&options);
    assert_non_null(api_requests);
    api_fixture_create();
    return 0;
}

/* The storage goes first, as api_destroy() asks for. */
int api_fixture_close(void **state)
{
    (void)state;
    list_for_each (link, &fixture.clients)
        client_lose(container_of(link, struct client, link), 0);
    session_fixture_turn(&fixture);
    while (!list_empty(&fake->open))
        fake_storage_answer(container_of(fake->open.next, struct fake_call, link), ERROR_CANCELLED, 0);
    api_destroy(api);
    requests_destroy(api_requests);
    session_fixture_close(&fixture);
    return 0;
}

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

int http_send(const char *text)
{
    int fd = dial();

    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    return fd;
}

int http_ask(const char *method, const char *path)
{
    char text[512];

    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", method, path);
    return http_send(text);
}

void await_call(enum fake_kind kind)
{
    for (int i = 0; i < POLLS_MAX && !fake_storage_next(fake, kind); i++) {
        session_fixture_turn(&fixture);
        poll(NULL, 0, 1);
    }
    assert_non_null(fake_storage_next(fake, kind));
}

/* Reads until the server closes. */
struct response http_read(int fd)
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

struct response http_get(const char *path)
{
    return http_read(http_ask("GET", path));
}

void assert_header(const struct response *response, const char *line)
{
    char wanted[256];

    snprintf(wanted, sizeof wanted, "\r\n%s\r\n", line);
    if (!strcasestr(response->head, wanted))
        fail_msg("no \"%s\" in:\n%s", line, response->head);
}

void expect_text(struct response response, int status, const char *body)
{
    assert_int_equal(response.status, status);
    assert_string_equal(buffer_text(&response.body), body);
    assert_header(&response, "Content-Type: text/plain; charset=utf-8");
    assert_header(&response, "Cache-Control: no-store");
    buffer_close(&response.body);
}

json_t *parse_json(struct response *response, const char *type)
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

void quiet_turns(void)
{
    for (int turn = 0; turn < QUIET_TURNS; turn++) {
        session_fixture_turn(&fixture);
        poll(NULL, 0, 1);
    }
}

void http_post_on(int fd, const char *method, const char *path, const char *headers, const char *body)
{
    char text[4096];

    snprintf(text, sizeof text,
             "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
             method, path, headers, strlen(body), body);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

int http_post(const char *method, const char *path, const char *headers, const char *body)
{
    int fd = dial();

    http_post_on(fd, method, path, headers, body);
    return fd;
}

void expect_json(struct response response, int status, const char *body)
{
    assert_string_equal(buffer_text(&response.body), body);
    assert_int_equal(response.status, status);
    assert_header(&response, "Content-Type: application/json");
    buffer_close(&response.body);
}

void expect_problem(struct response response, int status, const char *name)
{
    assert_int_equal(response.status, status);
    json_t *json = parse_json(&response, "application/problem+json");
    assert_string_equal(json_string_value(json_object_get(json, "type")), "about:blank");
    assert_true(json_is_string(json_object_get(json, "title")));
    assert_int_equal(json_integer_value(json_object_get(json, "status")), status);
    assert_int_equal(json_integer_value(json_object_get(json, "code")), status);
    assert_string_equal(json_string_value(json_object_get(json, "name")), name);
    assert_true(json_is_boolean(json_object_get(json, "retry")));
    assert_true(json_is_string(json_object_get(json, "detail")));
    json_decref(json);
}
