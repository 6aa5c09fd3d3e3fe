/* The API listener over real sockets, on a storage whose every answer the test gives; and a little HTTP client. */
#ifndef TESTS_LIB_API_FIXTURE_H
#define TESTS_LIB_API_FIXTURE_H

#include "base/buffer.h"
#include "tests/lib/session_fixture.h"

#include <jansson.h>

struct api;
struct requests;

extern struct session_fixture fixture;
extern struct fake_storage *fake; /* its storage */
extern struct requests *api_requests;
extern struct api *api;

/* For cmocka: everything up and down again. */
int api_fixture_open(void **state);
int api_fixture_close(void **state);

/* Creates the API alone, with fixture.config, after an api_destroy(). */
void api_fixture_create(void);

struct response {
    int status;
    char head[4096]; /* with the status line */
    struct buffer body;
};

/* Each opens a connection, writes, and returns its socket. */
int http_send(const char *text);
int http_ask(const char *method, const char *path);
int http_post(const char *method, const char *path, const char *headers, const char *body);
void http_post_on(int fd, const char *method, const char *path, const char *headers, const char *body);

/* Reads until the server closes, and closes; the body is the caller's. */
struct response http_read(int fd);
struct response http_get(const char *path);

void await_call(enum fake_kind kind); /* turns until the storage is asked */
void quiet_turns(void);               /* turns enough for everything that is under way on sockets */

/* Each takes the response. */
void expect_text(struct response response, int status, const char *body);
void expect_json(struct response response, int status, const char *body);
void expect_problem(struct response response, int status, const char *name);
json_t *parse_json(struct response *response, const char *type);

void assert_header(const struct response *response, const char *line);

#endif
