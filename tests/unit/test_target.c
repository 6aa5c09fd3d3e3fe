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

/* NULL as `expected`: there is none. */
static void assert_argument(const char *target, const char *name, const char *expected, const char *problem)
{
    char out[8];
    struct slice value;
    const char *wrong = target_argument(slice_text(target), name, out, sizeof out, &value);

    if (problem)
        assert_string_equal(wrong, problem);
    else
        assert_null(wrong);
    assert_int_equal(value.data != NULL, expected != NULL);
    if (expected)
        assert_true(slice_is(value, expected));
}

static void test_arguments(void **state)
{
    (void)state;
    assert_argument("/a?user=b", "user", "b", NULL);
    assert_argument("/a?x&user=b+c;d&user=e", "user", "b+c;d", NULL);
    assert_argument("/a?user=%26%2B&", "user", "&+", NULL);
    assert_argument("/a?user=", "user", "", NULL);
    assert_argument("/a?user", "user", NULL, NULL);
    assert_argument("/a?&&user=b", "user", "b", NULL);
    assert_argument("/a?xuser=b&users=c", "user", NULL, NULL);
    assert_argument("/user=b", "user", NULL, NULL);
    assert_argument("/a?", "user", NULL, NULL);
    assert_argument("", "user", NULL, NULL);
    assert_argument("/a?user=b?c=d", "user", "b?c=d", NULL);
    assert_argument("/a?user=12345678", "user", "12345678", NULL);
    assert_argument("/a?user=123456789", "user", "12345678", "is too long");
    assert_argument("/a?user=%zz", "user", "%zz", "has a broken percent-escape");
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
