#include "broker/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_found(const char *input, const char *expected)
{
    struct slice target;

    assert_true(target_find(slice_text(input), &target));
    assert_non_null(target.data);
    assert_int_equal(target.len, strlen(expected));
    assert_memory_equal(target.data, expected, target.len);
}

static void test_target_is_found(void **state)
{
    (void)state;
    assert_found("GET /a+b%2F?c=d HTTP/1.1\r\nHost: x\r\n", "/a+b%2F?c=d");
    assert_found("GET /a\r\n", "/a");
    assert_found("GET /a\n", "/a");
    assert_found("HEAD http://h/a HTTP/1.1\n", "http://h/a");
    assert_found("GET  /a HTTP/1.1\r\n", "");
    assert_found("GET\r\n", "");
    assert_found("\r\nGET /a HTTP/1.1\r\n", "");
    assert_found("\n", "");
}

static void test_half_a_line_has_none(void **state)
{
    static const char line[] = "GET /a HTTP/1.1\r\n";
    struct slice target;

    (void)state;
    for (size_t len = 0; len < sizeof line - 1; len++)
        assert_false(target_find(slice_from(line, len), &target));
    assert_false(target_find(slice_from(NULL, 0), &target));
}

static void test_path(void **state)
{
    (void)state;
    assert_true(slice_is(target_path(slice_text("/a/b?c?d")), "/a/b"));
    assert_true(slice_is(target_path(slice_text("//a//b")), "/a//b"));
    assert_true(slice_is(target_path(slice_text("///a")), "//a"));
    assert_true(slice_is(target_path(slice_text("/")), "/"));
    assert_true(slice_is(target_path(slice_text("?x")), ""));
    assert_true(slice_is(target_path(slice_text("")), ""));
}

static void assert_decoded(const char *text, const char *expected, bool expect_broken)
{
    char copy[64];
    bool broken = false;

    strcpy(copy, text);
    size_t len = target_decode(copy, strlen(copy), &broken);
    assert_true(slice_is(slice_from(copy, len), expected));
    assert_int_equal(broken, expect_broken);
}

static void test_only_escapes_are_decoded(void **state)
{
    (void)state;
    assert_decoded("a%20b+c;d&e", "a b+c;d&e", false);
    assert_decoded("%2f%2F%41", "//A", false);
    assert_decoded("%252F", "%2F", false);
    assert_decoded("", "", false);
    assert_decoded("a%", "a%", true);
    assert_decoded("a%4", "a%4", true);
    assert_decoded("%zz%41", "%zzA", true);
}

static void assert_next(struct slice *query, const char *name, const char *value)
{
    struct target_argument argument;

    assert_true(target_next_argument(query, &argument));
    assert_true(slice_is(argument.name, name));
    assert_int_equal(argument.value.data != NULL, value != NULL);
    if (value)
        assert_true(slice_is(argument.value, value));
}

static void test_arguments(void **state)
{
    struct target_argument argument;
    struct slice query = target_query(slice_text("/a?x&user=b+c;d&&=v&y==z&s=b?c=%26&t="));

    (void)state;
    assert_next(&query, "x", NULL);
    assert_next(&query, "user", "b+c;d");
    assert_next(&query, "", NULL);
    assert_next(&query, "", "v");
    assert_next(&query, "y", "=z");
    assert_next(&query, "s", "b?c=%26");
    assert_next(&query, "t", "");
    assert_false(target_next_argument(&query, &argument));

    query = target_query(slice_text("/a?x&"));
    assert_next(&query, "x", NULL);
    assert_next(&query, "", NULL);
    assert_false(target_next_argument(&query, &argument));
    query = target_query(slice_text("/a?"));
    assert_int_equal(query.len, 0);
    assert_next(&query, "", NULL);
    assert_false(target_next_argument(&query, &argument));
    query = target_query(slice_text("/a=b&c"));
    assert_false(target_next_argument(&query, &argument));
    query = target_query(slice_text(""));
    assert_false(target_next_argument(&query, &argument));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target_is_found),
        cmocka_unit_test(test_half_a_line_has_none),
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_only_escapes_are_decoded),
        cmocka_unit_test(test_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
