/* The budget: sums, and who is cut when they are too large. And who is named in the log how often. */
#include "base/clock.h"
#include "base/log.h"
#include "broker/budget.h"
#include "broker/offenders.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LIMIT = 1600, LOW = 1500, HOLDERS = 8, MINUTE_US = 60000000 };

struct one {
    struct budget_holder holder;
    size_t bytes;
    uint64_t still_ms;
    size_t shared; /* of `bytes`, what others keep as well: cutting it doesn't free that */
    unsigned cuts;
    struct one *falls; /* ends with this one */
};

static struct budget budget;
static struct loop *loop;
static struct one ones[HOLDERS];
static char order[HOLDERS + 1]; /* of the cuts, as digits */
static uint64_t now_us;
static unsigned lines, looks;

static struct one *one_of(const struct budget_holder *holder)
{
    return container_of(holder, struct one, holder);
}

static size_t bytes(const struct budget_holder *holder)
{
    looks++;
    return one_of(holder)->bytes;
}

static uint64_t still_ms(struct budget_holder *holder)
{
    return one_of(holder)->still_ms;
}

static void end(struct one *one)
{
    budget_release(&budget, BUDGET_OUTBOX, one->bytes - one->shared);
    budget_let_go(&one->holder);
    one->bytes = one->shared = 0;
}

static void cut(struct budget_holder *holder)
{
    struct one *one = one_of(holder);

    one->cuts++;
    snprintf(order + strlen(order), 2, "%d", (int)(one - ones));
    if (one->falls)
        end(one->falls);
    end(one);
}

static const struct budget_ops ops = {.bytes = bytes, .still_ms = still_ms, .cut = cut};

static void count_line(const char *line, size_t len)
{
    (void)line;
    (void)len;
    lines++;
}

static int open_budget(void **state)
{
    (void)state;
    now_us = UINT64_C(1000000000);
    clock_set_fake(&now_us);
    log_set_sink(count_line);
    alloc_fixture_install();
    loop = loop_create();
    budget_init(&budget, loop, LIMIT);
    budget.ops = &ops;
    memset(ones, 0, sizeof ones);
    for (size_t i = 0; i < HOLDERS; i++)
        list_init(&ones[i].holder.link);
    order[0] = '\0';
    lines = looks = 0;
    return loop ? 0 : -1;
}

static int close_budget(void **state)
{
    (void)state;
    budget_close(&budget);
    loop_destroy(loop);
    log_set_sink(NULL);
    clock_set_fake(NULL);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static void hold(size_t i, size_t size, uint64_t still)
{
    ones[i].bytes = size;
    ones[i].still_ms = still;
    budget_charge(&budget, BUDGET_OUTBOX, size);
    budget_hold(&budget, &ones[i].holder);
}

static void kinds_add_up(void **state)
{
    (void)state;
    for (enum budget_kind kind = 0; kind < BUDGET_KIND_COUNT; kind++)
        budget_charge(&budget, kind, LIMIT / BUDGET_KIND_COUNT);
    assert_int_equal(budget_used(&budget), LIMIT / BUDGET_KIND_COUNT * BUDGET_KIND_COUNT);
    assert_false(budget_is_over(&budget));
    budget_charge(&budget, BUDGET_HANDSHAKE, LIMIT - budget_used(&budget));
    assert_false(budget_is_over(&budget)); /* at the limit */
    budget_charge(&budget, BUDGET_HANDSHAKE, 1);
    assert_true(budget_is_over(&budget));
    budget_release(&budget, BUDGET_HANDSHAKE, 1);
    assert_false(budget_is_over(&budget));
}

static void within_the_limit_nobody_is_looked_at(void **state)
{
    (void)state;
    hold(0, LIMIT, 100000);
    budget_relieve(&budget);
    budget_check(&budget);
    assert_false(loop_deferred(&budget.relief));
    assert_int_equal(looks, 0);
    assert_string_equal(order, "");
}

static void the_fattest_of_those_that_take_nothing_goes_first(void **state)
{
    (void)state;
    hold(0, 700, 0);     /* the fattest, but it takes */
    hold(1, 300, 5000);  /* leaner than 2 */
    hold(2, 400, 1000);  /* takes nothing for a second */
    hold(3, 350, 999);   /* and nearly so */
    assert_int_equal(budget_used(&budget), 1750);
    budget_check(&budget);
    assert_true(loop_deferred(&budget.relief)); /* not while somebody may be used */
    assert_string_equal(order, "");
    budget_relieve(&budget);
    assert_string_equal(order, "2"); /* 1350 are left */
    hold(4, 500, 0);
    budget_relieve(&budget);
    assert_string_equal(order, "210"); /* 1550 without 1 are too much still: now the fattest of the others */
    assert_true(budget_used(&budget) <= LOW);
}

static void when_all_take_something_the_fattest_goes(void **state)
{
    (void)state;
    hold(0, 500, 0);
    hold(1, 900, 0);
    hold(2, 600, 0);
    budget_relieve(&budget);
    assert_string_equal(order, "1");
}

static void shared_memory_is_not_freed_by_one_cut(void **state)
{
    (void)state;
    hold(0, 900, 0);
    hold(1, 800, 0);
    ones[0].shared = 900;
    budget_relieve(&budget);
    assert_string_equal(order, "01");
}

static void one_that_falls_with_another_is_not_touched(void **state)
{
    (void)state;
    hold(0, 900, 0);
    hold(1, 500, 0);
    hold(2, 400, 0);
    ones[0].falls = &ones[1];
    budget_relieve(&budget);
    assert_string_equal(order, "0");
    assert_int_equal(ones[1].cuts, 0);
    assert_int_equal(budget_used(&budget), 400);
}

static void a_relief_in_vain_is_not_repeated_at_once(void **state)
{
    (void)state;
    budget_charge(&budget, BUDGET_INFLIGHT, 2 * LIMIT);
    hold(0, 10, 0);
    budget_relieve(&budget);
    assert_string_equal(order, "0");
    hold(1, 10, 0);
    budget_relieve(&budget);
    assert_string_equal(order, "0");
    now_us += 100000;
    budget_relieve(&budget);
    assert_string_equal(order, "01");
}

static void without_memory_it_goes_by_who_came_first(void **state)
{
    (void)state;
    hold(0, 100, 0);
    hold(1, 1600, 5000);
    hold(2, 100, 0);
    alloc_fixture_fail(1);
    budget_relieve(&budget);
    assert_string_equal(order, "01");
}

static void it_is_told_once_a_minute(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        hold(0, 2000, 0);
        budget_relieve(&budget);
    }
    assert_int_equal(ones[0].cuts, 5);
    assert_int_equal(lines, 1);
    now_us += MINUTE_US;
    hold(0, 2000, 0);
    budget_relieve(&budget);
    assert_int_equal(lines, 2);
}

/* ---- offenders ---- */

static struct offenders offenders;

static bool may_log(const char *name, const char *from, uint64_t now_ms, uint64_t *left_out)
{
    return offenders_may_log(&offenders, slice_text(name), slice_text(from), now_ms, left_out);
}

static void each_offender_has_a_line_a_minute(void **state)
{
    uint64_t left_out;

    (void)state;
    memset(&offenders, 0, sizeof offenders);
    assert_true(may_log("bob", "10.0.0.1", 1000, &left_out));
    assert_int_equal(left_out, 0);
    for (int i = 0; i < 7; i++)
        assert_false(may_log("bob", "10.0.0.1", 60999, &left_out));
    assert_true(may_log("amy", "10.0.0.1", 2000, &left_out));
    assert_true(may_log("bob", "10.0.0.2", 2000, &left_out));
    assert_true(may_log("bob1", "0.0.0.2", 2000, &left_out)); /* not glued together */
    assert_true(may_log("bob", "10.0.0.1", 61000, &left_out));
    assert_int_equal(left_out, 7);
    assert_false(may_log("bob", "10.0.0.1", 61000, &left_out));
}

static void many_offenders_are_bounded_and_none_is_uncounted(void **state)
{
    uint64_t left_out, logged = 0, silent = 0, told = 0;
    char name[16];

    (void)state;
    memset(&offenders, 0, sizeof offenders);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        bool may = may_log(name, "10.0.0.1", 1000, &left_out);
        logged += may;
        silent += !may;
        told += may ? left_out : 0;
    }
    assert_true(logged > OFFENDERS_MAX / 2 && logged <= OFFENDERS_MAX + 1);
    /* All of it is told in the end, as far as somebody offends again. */
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "m%d", i);
        bool may = may_log(name, "10.0.0.1", 100000, &left_out);
        told += may ? left_out : 0;
    }
    assert_int_equal(told, silent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define BUDGET_TEST(name) cmocka_unit_test_setup_teardown(name, open_budget, close_budget)
        BUDGET_TEST(kinds_add_up),
        BUDGET_TEST(within_the_limit_nobody_is_looked_at),
        BUDGET_TEST(the_fattest_of_those_that_take_nothing_goes_first),
        BUDGET_TEST(when_all_take_something_the_fattest_goes),
        BUDGET_TEST(shared_memory_is_not_freed_by_one_cut),
        BUDGET_TEST(one_that_falls_with_another_is_not_touched),
        BUDGET_TEST(a_relief_in_vain_is_not_repeated_at_once),
        BUDGET_TEST(without_memory_it_goes_by_who_came_first),
        BUDGET_TEST(it_is_told_once_a_minute),
        cmocka_unit_test(each_offender_has_a_line_a_minute),
        cmocka_unit_test(many_offenders_are_bounded_and_none_is_uncounted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
