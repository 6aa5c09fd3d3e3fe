/* What heads of HTTP requests ask of the API; most of what they may be is tried over sockets in
 * tests/integration/test_api_port.py. */
#include "broker/api_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char text[4096];
static struct api_head head;

/* The status that it is refused with; 0: it is read. */
static unsigned parse(const char *request)
{
    struct http_problem problem;
    size_t len = strlen(request);

    assert_true(len < sizeof text);
    memcpy(text, request, len + 1);
    return api_head_parse(text, len, &head, &problem) ? 0 : problem.status;
}

static void a_head_says_what_is_wanted(void **state)
{
    (void)state;
    assert_int_equal(
        parse("POST /v1/a%2Fb?x=1&y HTTP/1.1\r\nhost: \t localhost:80 \r\nContent-LENGTH: 007\r\n"
              "Expect: 100-Continue\r\nConnection: keep-alive , Close\r\nORIGIN:\r\n\r\n"),
        0);
    assert_int_equal(head.method, METHOD_POST);
    assert_true(slice_is(head.path, "/v1/a%2Fb") && slice_is(head.query, "x=1&y"));
    assert_string_equal(head.host, "localhost:80");
    assert_true(head.length == 7 && !head.chunked);
    assert_true(head.expects_continue && head.close && !head.old);
    assert_string_equal(api_head_field(&head, "origin"), "");
    assert_string_equal(api_head_field(&head, "content-length"), "007");
    assert_null(api_head_field(&head, "authorization"));

    assert_int_equal(parse("PUT HTTP://Localhost?a HTTP/1.1\r\nHost: localhost\r\n\r\n"), 0);
    assert_int_equal(head.method, METHOD_OTHER);
    assert_true(slice_is(head.path, "/") && slice_is(head.query, "a"));
    assert_false(head.close || head.chunked || head.length || head.expects_continue);

    assert_int_equal(parse("HEAD /x HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n"), 0);
    assert_true(head.old && head.close && !head.host && !head.expects_continue);

    assert_int_equal(parse("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n"), 0);
    assert_true(head.chunked && !head.length);
}

static void lengths_beyond_every_number_are_refused(void **state)
{
    (void)state;
    assert_int_equal(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
                     413);
    assert_int_equal(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
                     413);
    assert_int_equal(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n"), 0);
    assert_true(head.length == UINT64_C(999999999999999999));
}

static void every_field_that_must_be_alone_is(void **state)
{
    static const char *const names[] = {"Host",   "content-length", "Transfer-Encoding", "authorization",
                                        "Expect", "Content-Type",   "Idempotency-Key",   "ORIGIN"};
    char request[200];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(request, sizeof request, "POST / HTTP/1.1\r\n%s: 1\r\nX: y\r\n%s: 1\r\n\r\n", names[i],
                 names[i]);
        assert_int_equal(parse(request), 400);
    }
    assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nAccept: a\r\nAccept: b\r\n\r\n"), 0);
}

static void hosts(void **state)
{
    (void)state;
    assert_true(api_host_is_known("a.example", "a.example"));
    assert_true(api_host_is_known("A.Example:80", "x , a.example"));
    assert_true(api_host_is_known("[::1]", "") && api_host_is_known("10.0.0.1:1", "") &&
                api_host_is_known("x.LOCALHOST", ""));
    assert_false(api_host_is_known("a.example", "") ||
                 api_host_is_known("a.example", "b.a.example,a.example.b"));
    assert_false(api_host_is_known("", "a") || api_host_is_known(":80", "a") ||
                 api_host_is_known("a:b", "a"));
    assert_false(api_host_is_known("[10.0.0.1]", "") || api_host_is_known("::1", "") ||
                 api_host_is_known("10.1", ""));
    assert_false(api_host_is_known("[::1", "") || api_host_is_known("[::1]x", "") ||
                 api_host_is_known("[]", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_says_what_is_wanted),
        cmocka_unit_test(lengths_beyond_every_number_are_refused),
        cmocka_unit_test(every_field_that_must_be_alone_is),
        cmocka_unit_test(hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
