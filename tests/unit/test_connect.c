#include "broker/connect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* NULL: not given. */
static void assert_slice(struct slice slice, const char *expected)
{
    assert_int_equal(slice.data != NULL, expected != NULL);
    if (expected)
        assert_true(slice_is(slice, expected));
}

static void test_good_queries(void **state)
{
    static const struct {
        const char *query, *user, *session;
        bool since;
        const char *epoch, *offset;
    } rows[] = {
        {"", NULL, NULL, false, NULL, NULL},
        {"user=bob", "bob", NULL, false, NULL, NULL},
        {"user=a+b", "a+b", NULL, false, NULL, NULL},
        {"session=a%20b;%26", NULL, "a b;&", false, NULL, NULL},
        {"user=a=b", "a=b", NULL, false, NULL, NULL},
        {"user=a?b", "a?b", NULL, false, NULL, NULL},
        {"%75ser=bob", "bob", NULL, false, NULL, NULL},
        {"user=bob~k1", "bob~k1", NULL, false, NULL, NULL}, /* a user is no session */
        {"user=%e7%8e%8b", "\xe7\x8e\x8b", NULL, false, NULL, NULL},
        {"since=", NULL, NULL, true, NULL, NULL},
        {"since=&user=b", "b", NULL, true, NULL, NULL},
        {"session=b&since=mgz3k1a7:1767225600000-1", NULL, "b", true, "mgz3k1a7", "1767225600000-1"},
        {"since=e%3A5%2D6", NULL, NULL, true, "e", "5-6"},
    };
    struct connect_arguments got;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_null(connect_parse(slice_text(rows[i].query), &got));
        assert_slice(got.user, rows[i].user);
        assert_slice(got.session, rows[i].session);
        assert_int_equal(got.since, rows[i].since);
        assert_slice(got.since_epoch, rows[i].epoch);
        assert_slice(got.since_offset, rows[i].offset);
    }
    assert_null(connect_parse(slice_from(NULL, 0), &got));
}

/* What is wrong with each, and that the sentence names the argument. */
static const struct {
    const char *query, *problem;
} wrong[] = {
    {"user=", "query argument \"user\": the name is empty"},
    {"session=", "query argument \"session\": the name is empty"},
    {"user", "query argument \"user\": has no value"},
    {"since", "query argument \"since\": has no value"},
    {"user=a&user=a", "query argument \"user\": is given twice"},
    {"since=&s%69nce=", "query argument \"since\": is given twice"},
    {"user=a&session=b", "query argument \"session\": give user or session, not both"},
    {"x=1", "query argument \"x\": is unknown here"},
    {"User=a", "query argument \"User\": is unknown here"},
    {"user=a&sinc=", "query argument \"sinc\": is unknown here"},
    {"a%20b=1", "query argument \"a%20b\": is unknown here"},
    {"a\x01=1", "a query argument: is unknown here"},
    {"%FF=1", "query argument \"%FF\": is unknown here"},
    {"an-argument-of-more-than-32-characters=1", "a query argument: is unknown here"},
    {"user=a&", "a query argument: is empty"},
    {"&user=a", "a query argument: is empty"},
    {"=a", "a query argument: is empty"},
    {"user=%zz", "query argument \"user\": has a broken percent-escape"},
    {"user=%4", "query argument \"user\": has a broken percent-escape"},
    {"us%er=a", "query argument \"us%er\": has a broken percent-escape"},
    {"user=%00", "query argument \"user\": the name holds a control character"},
    {"user=a%0d%0ab", "query argument \"user\": the name holds a control character"},
    {"user=a%C2%85b", "query argument \"user\": the name holds a control character"},
    {"user=%ff", "query argument \"user\": the name is not valid UTF-8"},
    {"session=bob%E2%80%AE", "query argument \"session\": the name holds an invisible character"},
    {"session=bob~k1", "query argument \"session\": ~ is reserved"},
    {"session=%7E", "query argument \"session\": ~ is reserved"},
    {"since=abc", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=:5-1", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=e:", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=e:5", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=e:5-x", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=e:5-1:6", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=e%20f:5-1", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=e:5-1%00", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=99999999999999999999:5-1&since", "query argument \"since\": is given twice"},
    {"since=e:99999999999999999999-1", "query argument \"since\": must be EPOCH:OFFSET"},
    {"since=eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee:5-1", "query argument \"since\": must be EPOCH:OFFSET"},
};

static void test_wrong_queries(void **state)
{
    struct connect_arguments got;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *problem = connect_parse(slice_text(wrong[i].query), &got);
        if (!problem || strncmp(problem, wrong[i].problem, strlen(wrong[i].problem)) != 0)
            fail_msg("%s: \"%s\" instead of \"%s\"", wrong[i].query, problem ? problem : "", wrong[i].problem);
    }
}

static void test_long_values(void **state)
{
    enum { LIMIT = 3 * ADDRESS_NAME_MAX };
    char *query = malloc(LIMIT + 64);
    struct connect_arguments got;

    (void)state;
    for (size_t len = ADDRESS_NAME_MAX - 1; len < LIMIT + 8; len++) {
        strcpy(query, "user=");
        memset(query + 5, 'u', len);
        bool good = len <= ADDRESS_NAME_MAX;
        const char *problem = connect_parse(slice_from(query, 5 + len), &got);
        assert_int_equal(problem == NULL, good);
        if (!good)
            assert_string_equal(problem, "query argument \"user\": is longer than 255 bytes");
    }
    strcpy(query, "session=");
    for (size_t i = 0; i < ADDRESS_NAME_MAX; i++)
        strcpy(query + 8 + 3 * i, "%41");
    assert_null(connect_parse(slice_text(query), &got));
    assert_int_equal(got.session.len, ADDRESS_NAME_MAX);
    strcpy(query, "since=");
    memset(query + 6, '%', 300);
    assert_non_null(connect_parse(slice_from(query, 306), &got));
    free(query);
}

/* Old clients send what they like to other routes; only `since` is ours. */
static void test_other_routes(void **state)
{
    static const char *const good[] = {"",      "x=1",          "&&=&%zz=%zz&user=&user=a&session=b~c", "since=",
                                       "sinc=", "x=since=abc", "since=e:1-1&xsince=abc"};
    static const char *const bad[] = {"since",   "since=abc",       "x=1&since=%zz",
                                      "since=&since=", "%73ince=abc", "x&y&since=e:1"};
    struct connect_arguments got;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_null(connect_parse_since(slice_text(good[i]), &got));
    assert_null(connect_parse_since(slice_from(NULL, 0), &got));
    assert_false(got.since);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(strstr(connect_parse_since(slice_text(bad[i]), &got), "\"since\""));
    assert_null(connect_parse_since(slice_text("a=b&since=e:1-2&c"), &got));
    assert_true(got.since);
    assert_slice(got.since_epoch, "e");
    assert_slice(got.since_offset, "1-2");
    assert_null(got.user.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_queries),
        cmocka_unit_test(test_wrong_queries),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_other_routes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
