/* The trie of patterns: finds what topic_matches() says, among many, and leaves nothing behind. */
#include "proto/topic_trie.h"

#include "base/list.h"
#include "proto/topic.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct held {
    struct topic_trie_entry entry;
    char pattern[64];
    bool in, found;
};

static struct topic_trie trie;

static int open_trie(void **state)
{
    (void)state;
    alloc_fixture_install();
    topic_trie_init(&trie);
    return 0;
}

static int close_trie(void **state)
{
    (void)state;
    topic_trie_close(&trie);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static bool hold(struct held *held, const char *pattern)
{
    snprintf(held->pattern, sizeof held->pattern, "%s", pattern);
    held->in = topic_trie_insert(&trie, slice_text(held->pattern), &held->entry);
    return held->in;
}

static void let_go(struct held *held)
{
    topic_trie_remove(&trie, &held->entry);
    held->in = false;
}

static bool on_found(void *data, struct topic_trie_entry *entry)
{
    struct held *held = container_of(entry, struct held, entry);

    assert_false(held->found); /* none twice */
    held->found = true;
    ++*(size_t *)data;
    return false;
}

static bool first_found(void *data, struct topic_trie_entry *entry)
{
    (void)entry;
    ++*(size_t *)data;
    return true;
}

/* Each of them against the plain comparison. */
static void expect_same(struct held *all, size_t count, const char *name)
{
    size_t found = 0, first = 0;

    for (size_t i = 0; i < count; i++)
        all[i].found = false;
    assert_false(topic_trie_match(&trie, slice_text(name), on_found, &found));
    for (size_t i = 0; i < count; i++) {
        bool wanted = all[i].in && topic_matches(slice_text(all[i].pattern), slice_text(name));
        if (all[i].found != wanted)
            fail_msg("%s and %s: %d", all[i].pattern, name, all[i].found);
    }
    assert_int_equal(topic_trie_match(&trie, slice_text(name), first_found, &first), found > 0);
    assert_int_equal(first, found > 0);
}

/* Few tokens, empty ones and stars among them, so that much matches. */
static void make_topic(char out[static 64], bool wild)
{
    static const char *const tokens[] = {"a", "b", "", "a*", ">", "*"};
    size_t count = (size_t)(1 + rand() % 5), len = 0;

    for (size_t i = 0; i < count; i++) {
        const char *token = tokens[(size_t)rand() % (wild ? 6 : 4)];
        len += (size_t)snprintf(out + len, 64 - len, "%s%s", i ? "." : "", token);
    }
}

static void test_as_the_plain_comparison(void **state)
{
    enum { COUNT = 200, ROUNDS = 3000 };
    static struct held all[COUNT];
    char text[64];

    (void)state;
    srand(1);
    memset(all, 0, sizeof all);
    for (size_t round = 0; round < ROUNDS; round++) {
        struct held *one = &all[(size_t)rand() % COUNT];
        make_topic(text, true);
        struct topic_trie_entry *known = topic_trie_find(&trie, slice_text(text));
        assert_true(!known || strcmp(container_of(known, struct held, entry)->pattern, text) == 0);
        if (one->in)
            let_go(one);
        else if (!known)
            assert_true(hold(one, text));
        make_topic(text, round % 4 == 0);
        expect_same(all, COUNT, text);
    }
    size_t in = 0;
    for (size_t i = 0; i < COUNT; i++)
        in += all[i].in;
    assert_int_equal(trie.count, in);
    for (size_t i = 0; i < COUNT; i++)
        if (all[i].in)
            let_go(&all[i]);
    assert_int_equal(trie.count, 0);
    assert_int_equal(trie.edges.count, 0);
    assert_int_equal(trie.root.children, 0);
}

static void test_short_of_memory(void **state)
{
    struct held both[2] = {{.in = false}};
    size_t n = 0;

    (void)state;
    assert_true(hold(&both[0], "a.b.>"));
    do {
        alloc_fixture_fail(++n);
        hold(&both[1], "a.*.c.d");
        if (!both[1].in)
            assert_null(topic_trie_find(&trie, slice_text("a.*.c.d")));
        expect_same(both, 2, "a.x.c.d");
    } while (!both[1].in);
    assert_true(n > 3);
    expect_same(both, 2, "a.b.c.d");
    let_go(&both[1]);
    let_go(&both[0]);
}

static void test_long_tokens(void **state)
{
    char topic[2000];
    struct topic_trie_entry entry;
    size_t found = 0;

    (void)state;
    memset(topic, 'x', sizeof topic);
    assert_false(topic_trie_insert(&trie, slice_from(topic, sizeof topic), &entry));
    memset(topic, '.', 300);
    assert_false(topic_trie_match(&trie, slice_from(topic, sizeof topic), on_found, &found));
    assert_true(topic_trie_insert(&trie, slice_from(topic, 300), &entry));
    assert_ptr_equal(topic_trie_find(&trie, slice_from(topic, 300)), &entry);
    topic_trie_remove(&trie, &entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_as_the_plain_comparison, open_trie, close_trie),
        cmocka_unit_test_setup_teardown(test_short_of_memory, open_trie, close_trie),
        cmocka_unit_test_setup_teardown(test_long_tokens, open_trie, close_trie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
