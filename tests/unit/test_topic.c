/* Topics as subjects, and the patterns they match. */
#include "proto/topic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_what_is_a_pattern(void **state)
{
    static const char *const patterns[] = {"*",   ">",   "a.*",  "*.a", "a.*.b", "a.>",
                                           "*.>", "*.*", "a..*", ".>",  ".*"};
    static const char *const names[] = {"a",  "a.b", "a*", "*a", "a.b*", "a.>.b", ">.a",
                                        "a>", "",    ".",  "..", "a.**", ">>"};

    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        assert_true(topic_is_pattern(slice_text(patterns[i])));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_false(topic_is_pattern(slice_text(names[i])));
}

static void test_matching(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } rows[] = {
        {"a.*", "a.b", true},
        {"a.*", "a", false},
        {"a.*", "a.b.c", false},
        {"a.*", "b.b", false},
        {"a.*", "a.", false},
        {"*", "a", true},
        {"*", "a.b", false},
        {"*", "", false},
        {"*.b", "a.b", true},
        {"*.b", ".b", false},
        {"a.*.c", "a.b.c", true},
        {"a.*.c", "a.c", false},
        {"a.*.c", "a.b.b.c", false},
        {"a.>", "a.b", true},
        {"a.>", "a.b.c.d", true},
        {"a.>", "a", false},
        {"a.>", "a.", false},
        {"a.>", "ab", false},
        {"a.>", "ab.c", false},
        {">", "a", true},
        {">", "a.b", true},
        {">", "", false},
        {"*.>", "a.b", true},
        {"*.>", "a", false},
        {"*.*", "a.b", true},
        {"*.*", "a.b.c", false},
        {"a.b", "a.b", true},
        {"a.b", "a.c", false},
        {"a.>.b", "a.>.b", true},
        {"a.>.b", "a.x.b", false},
        {"a*", "a*", true},
        {"a*", "ab", false},
        {"*.a.>", "x.a.y.z", true},
        {"*.a.>", "x.b.y.z", false},
        {"a..*", "a..b", true},
        {"a..*", "a.x.b", false},
        {"\xe6\x96\xb0.*", "\xe6\x96\xb0.x", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (topic_matches(slice_text(rows[i].pattern), slice_text(rows[i].name)) != rows[i].matches)
            fail_msg("%s and %s", rows[i].pattern, rows[i].name);
}

static void test_parts(void **state)
{
    struct slice name;

    (void)state;
    assert_true(topic_begins_wild(slice_text("*")) && topic_begins_wild(slice_text(">")) &&
                topic_begins_wild(slice_text("*.a")));
    assert_false(topic_begins_wild(slice_text(">.a")) || topic_begins_wild(slice_text("a.*")) ||
                 topic_begins_wild(slice_text("")) || topic_begins_wild(slice_text("**")));
    assert_int_equal(topic_token_count(slice_text("")), 1);
    assert_int_equal(topic_token_count(slice_text("a.*.>")), 3);
    assert_int_equal(topic_token_count(slice_text("..")), 3);
    assert_true(topic_of_channel(slice_text("topic:{a.b}"), &name) && slice_is(name, "a.b"));
    assert_false(topic_of_channel(slice_text("user:{a.b}"), &name) || topic_of_channel(slice_text("topic:{}"), &name) ||
                 topic_of_channel(slice_text("topic:{a"), &name) || topic_of_channel(slice_text(""), &name));
}

static void test_bytes_are_not_text(void **state)
{
    (void)state;
    assert_true(topic_matches(slice_from("a\0b.*", 5), slice_from("a\0b.c", 5)));
    assert_false(topic_matches(slice_from("a\0b.*", 5), slice_from("a\0d.c", 5)));
    assert_false(topic_is_pattern(slice_from(NULL, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_a_pattern),
        cmocka_unit_test(test_matching),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_bytes_are_not_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
