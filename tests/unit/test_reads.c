/* Whose turn it is to read. */
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/reads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { READS = 8 };

/* A read that writes its name down when it is started. */
struct named {
    struct read read;
    char name;
    bool refuses; /* once: there is no room */
};

static struct loop *loop;
static struct metrics metrics;
static struct reads reads;
static struct reader a, b;
static struct named of_a[READS], of_b[READS];
static char started[64];

static bool on_start(struct read *read)
{
    struct named *named = container_of(read, struct named, read);

    if (named->refuses) {
        named->refuses = false;
        return false;
    }
    started[strlen(started)] = named->name;
    return true;
}

static void open_with(size_t limit, size_t of_each)
{
    loop = loop_create();
    assert_non_null(loop);
    metrics = (struct metrics){0};
    memset(started, 0, sizeof started);
    reads_init(&reads, loop, &metrics, limit);
    reader_init(&a, &reads, of_each);
    reader_init(&b, &reads, of_each);
    for (size_t i = 0; i < READS; i++) {
        of_a[i] = (struct named){.read.start = on_start, .name = (char)('a' + (int)i)};
        of_b[i] = (struct named){.read.start = on_start, .name = (char)('A' + (int)i)};
    }
}

static int close_loop(void **state)
{
    (void)state;
    loop_destroy(loop);
    return 0;
}

static void turn(void)
{
    loop_stop(loop);
    assert_int_equal(loop_run(loop), 0);
}

static void expect(const char *names)
{
    turn();
    assert_string_equal(started, names);
}

static void readers_take_turns(void **state)
{
    (void)state;
    open_with(1, 8);
    for (size_t i = 0; i < 4; i++)
        read_ask(&a, &of_a[i].read);
    read_ask(&b, &of_b[0].read);
    read_ask(&b, &of_b[1].read);
    assert_string_equal(started, "a"); /* at once: nobody waited */
    assert_int_equal(metrics.reads_delayed, 5);
    assert_int_equal(reads.waiting, 5);
    expect("a");
    read_done(&of_a[0].read);
    assert_string_equal(started, "a"); /* never from inside */
    expect("ab");
    read_done(&of_a[1].read);
    expect("abA");
    read_done(&of_b[0].read);
    expect("abAc");
    read_done(&of_a[2].read);
    expect("abAcB");
    read_done(&of_b[1].read);
    expect("abAcBd");
    read_done(&of_a[3].read);
    expect("abAcBd");
    assert_int_equal(reads.open + reads.waiting, 0);
}

static void each_has_few(void **state)
{
    (void)state;
    open_with(8, 2);
    for (size_t i = 0; i < 4; i++)
        read_ask(&a, &of_a[i].read);
    read_ask(&b, &of_b[0].read);
    expect("abA");
    read_done(&of_a[1].read);
    expect("abAc");
    reads_set_limit(&reads, 2);
    read_done(&of_a[0].read);
    expect("abAc"); /* more are open than now may be */
    read_done(&of_a[2].read);
    expect("abAcd");
}

static void one_without_room_is_held(void **state)
{
    (void)state;
    open_with(1, 2);
    of_a[0].refuses = true;
    read_ask(&a, &of_a[0].read);
    read_ask(&a, &of_a[1].read);
    read_ask(&b, &of_b[0].read);
    expect("A"); /* others are not kept waiting */
    read_done(&of_b[0].read);
    expect("A");
    reader_release(&a);
    expect("Aa"); /* its order is kept */
    read_done(&of_a[0].read);
    expect("Aab");
}

static void at_the_end_all_are_started(void **state)
{
    (void)state;
    open_with(1, 1);
    for (size_t i = 0; i < 3; i++)
        read_ask(&a, &of_a[i].read);
    read_ask(&b, &of_b[0].read);
    reads_close(&reads);
    assert_int_equal(strlen(started), 4);
    assert_int_equal(reads.waiting, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(readers_take_turns, close_loop),
        cmocka_unit_test_teardown(each_has_few, close_loop),
        cmocka_unit_test_teardown(one_without_room_is_held, close_loop),
        cmocka_unit_test_teardown(at_the_end_all_are_started, close_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
