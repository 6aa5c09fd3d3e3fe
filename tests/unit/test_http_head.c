#include "broker/http_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LIMIT = 16384 };

static struct http_head head;
static struct http_problem problem;

static bool parse(const char *text)
{
    return http_head_parse(slice_text(text), &head, &problem);
}

static void assert_refused(const char *text, unsigned status)
{
    assert_false(parse(text));
    assert_int_equal(problem.status, status);
    assert_non_null(problem.text);
}

static void test_a_request_is_taken_apart(void **state)
{
    bool repeated;

    (void)state;
    assert_true(parse("GET /a%20b?c HTTP/1.1\r\nHost: x:80\r\nX:\r\nAccept: \t a, b \r\n\r\nrest"));
    assert_true(slice_is(head.method, "GET"));
    assert_true(slice_is(head.target, "/a%20b?c"));
    assert_int_equal(head.minor_version, 1);
    assert_int_equal(head.len, strlen("GET /a%20b?c HTTP/1.1\r\nHost: x:80\r\nX:\r\nAccept: \t a, b \r\n\r\n"));
    assert_true(slice_is(http_head_field(&head, "accept", &repeated), "a, b"));
    assert_false(repeated);
    assert_non_null(http_head_field(&head, "x", &repeated).data);
    assert_null(http_head_field(&head, "y", &repeated).data);
    assert_false(head.has_body);
}

static void test_names_that_begin_alike_are_different(void **state)
{
    bool repeated;

    (void)state;
    assert_true(parse("GET / HTTP/1.1\r\nX-Auth: 1\r\nX: 2\r\nHost: h\r\nX-Auth-Token: 3\r\n\r\n"));
    assert_true(slice_is(http_head_field(&head, "x-auth", &repeated), "1"));
    assert_true(slice_is(http_head_field(&head, "x", &repeated), "2"));
    assert_true(slice_is(http_head_field(&head, "host", &repeated), "h"));
}

static void test_lists_are_one_over_several_lines(void **state)
{
    struct http_list_cursor cursor = {0};
    struct slice member;

    (void)state;
    assert_true(parse("GET / HTTP/1.1\r\nHost: x\r\nConnection: a,, \tB\r\nOther: c\r\nconnection: d\r\n\r\n"));
    assert_true(http_head_lists(&head, "connection", "b"));
    assert_true(http_head_lists(&head, "connection", "d"));
    assert_false(http_head_lists(&head, "connection", "c"));
    for (const char *expected = "aBd"; *expected; expected++) {
        assert_true(http_head_next_member(&head, "connection", &cursor, &member));
        assert_int_equal(member.data[0], *expected);
    }
    assert_false(http_head_next_member(&head, "connection", &cursor, &member));
}

static void test_first_lines(void **state)
{
    static const char *const bad[] = {"",           "GET",          "GET /",           "GET  / HTTP/1.1", " GET / HTTP/1.1",
                                      "GET / HTTP", "GET / http/1.1", "GET / HTTP/1.1 ", "GE(T / HTTP/1.1", "GET / HTTP/11",
                                      "GET /a b HTTP/1.1", "GET\t/ HTTP/1.1"};
    char text[128];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "%s\r\nHost: x\r\n\r\n", bad[i]);
        assert_refused(text, 400);
    }
    assert_refused("PRI * HTTP/2.0\r\n\r\n", 505);
}

static void test_fields(void **state)
{
    static const char *const bad[] = {"X : 1", " X: 1", "X", ": 1", "X(: 1", "X: 1\r\n folded", "X\t: 1"};
    char text[128];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", bad[i]);
        assert_refused(text, 400);
    }
}

static void test_hosts(void **state)
{
    static const char *const good[] = {"x", "x:80", "127.0.0.1:8000", "[::1]", "[::1]:80", "a%20b", "x:"};
    static const char *const bad[] = {"", "a b", "a/b", "[::1", "::1", "a:b", "a:99999", "a@b", "[]", "[x]", "%zz", "a#"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(http_is_host(slice_text(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(http_is_host(slice_text(bad[i])));
    assert_refused("GET / HTTP/1.1\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400);
    assert_true(parse("GET / HTTP/1.0\r\n\r\n"));
}

static void test_bodies(void **state)
{
    (void)state;
    assert_true(parse("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
    assert_false(head.has_body);
    assert_true(parse("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"));
    assert_true(head.has_body);
    assert_true(parse("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
    assert_true(head.has_body);
    assert_refused("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400);
    assert_refused("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

/* What became of the head in steps of one byte. */
static enum http_head_result find(const char *text, size_t len, size_t *seen)
{
    enum http_head_result result = HTTP_HEAD_INCOMPLETE;

    *seen = 0;
    for (size_t i = 1; i <= len && result == HTTP_HEAD_INCOMPLETE; i++)
        result = http_head_find_end(slice_from(text, i), LIMIT, seen, &problem);
    return result;
}

static void test_the_end_is_found_in_pieces(void **state)
{
    size_t seen;

    (void)state;
    assert_int_equal(find("GET / HTTP/1.1\r\nA: b\r\n\r\nrest", 28, &seen), HTTP_HEAD_WHOLE);
    assert_int_equal(seen, 24);
    assert_int_equal(find("GET / HTTP/1.1\r\nA: b\r\n\r", 23, &seen), HTTP_HEAD_INCOMPLETE);
}

static void test_what_can_be_no_head_is_bad_at_once(void **state)
{
    size_t seen;

    (void)state;
    assert_int_equal(find("\x16\x03\x01", 3, &seen), HTTP_HEAD_BAD);
    assert_int_equal(find("GET / HTTP/1.1\n", 15, &seen), HTTP_HEAD_BAD);
    assert_int_equal(find("GET / HTTP/1.1\rX", 16, &seen), HTTP_HEAD_BAD);
    assert_int_equal(find("GET /\0 HTTP/1.1", 15, &seen), HTTP_HEAD_BAD);
    assert_int_equal(problem.status, 400);
}

static void test_long_heads(void **state)
{
    static char text[LIMIT + 1];
    size_t seen = 0;

    (void)state;
    memset(text, 'a', sizeof text);
    assert_int_equal(http_head_find_end(slice_from(text, 8000), LIMIT, &seen, &problem), HTTP_HEAD_INCOMPLETE);
    assert_int_equal(http_head_find_end(slice_from(text, 9000), LIMIT, &seen, &problem), HTTP_HEAD_BAD);
    assert_int_equal(problem.status, 414);
    memcpy(text, "GET / HTTP/1.1\r\n", 16);
    seen = 0;
    assert_int_equal(http_head_find_end(slice_from(text, LIMIT - 1), LIMIT, &seen, &problem), HTTP_HEAD_INCOMPLETE);
    assert_int_equal(http_head_find_end(slice_from(text, LIMIT), LIMIT, &seen, &problem), HTTP_HEAD_BAD);
    assert_int_equal(problem.status, 431);
    memcpy(text + LIMIT - 4, "\r\n\r\n", 4);
    seen = 0;
    assert_int_equal(http_head_find_end(slice_from(text, LIMIT), LIMIT, &seen, &problem), HTTP_HEAD_WHOLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_taken_apart),
        cmocka_unit_test(test_names_that_begin_alike_are_different),
        cmocka_unit_test(test_lists_are_one_over_several_lines),
        cmocka_unit_test(test_first_lines),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_the_end_is_found_in_pieces),
        cmocka_unit_test(test_what_can_be_no_head_is_bad_at_once),
        cmocka_unit_test(test_long_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
