/* The outbox: order, limits, the ring's growth, and what one send gathers. */
#include "broker/budget.h"
#include "broker/outbox.h"
#include "proto/frame.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ANY = 1 << 30, HEADER = 2, SCRATCH = 64 };

static struct outbox outbox;
static struct budget budget;

static int open_outbox(void **state)
{
    (void)state;
    alloc_fixture_install();
    budget = (struct budget){0};
    outbox_init(&outbox, &budget);
    return 0;
}

static int close_outbox(void **state)
{
    (void)state;
    outbox_close(&outbox);
    /* Whatever was done, nothing is charged that isn't there. */
    if (budget.bytes[BUDGET_OUTBOX])
        return -1;
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

/* A frame of `len` bytes altogether (at most 127), the payload all `fill`. */
static struct frame *make_frame(size_t len, char fill)
{
    char payload[128];

    memset(payload, fill, sizeof payload);
    struct frame *frame = frame_create(FRAME_BINARY, slice_from(payload, len - HEADER));
    assert_int_equal(frame->len, len);
    return frame;
}

static bool push(size_t len, char fill, size_t limit)
{
    struct frame *frame = make_frame(len, fill);
    bool taken = outbox_push(&outbox, frame, limit);

    assert_int_equal(frame->refs, taken ? 2 : 1);
    frame_unref(frame);
    return taken;
}

static char front_fill(void)
{
    return (char)outbox_front(&outbox)->bytes[HEADER];
}

static void empty_one_is_harmless(void **state)
{
    unsigned char scratch[SCRATCH];
    const unsigned char *data;
    uint32_t frames = 7;

    (void)state;
    assert_null(outbox_front(&outbox));
    assert_int_equal(outbox_gather(&outbox, scratch, sizeof scratch, &data, &frames), 0);
    assert_int_equal(frames, 0);
    outbox_pop(&outbox, 0);
    outbox_pop(&outbox, 3);
    outbox_close(&outbox);
    assert_int_equal(alloc_fixture_live(), 0);
}

static void frames_leave_in_the_order_they_came(void **state)
{
    (void)state;
    /* Pushing three and popping two moves the head round the ring while it grows. */
    int next_in = 0, next_out = 0;
    for (int round = 0; round < 90; round++) {
        for (int i = 0; i < 3; i++)
            assert_true(push(4, (char)next_in++, ANY));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(front_fill(), (char)next_out++);
            outbox_pop(&outbox, 1);
        }
        assert_int_equal(outbox.count, next_in - next_out);
        assert_int_equal(outbox.bytes, 4 * (size_t)(next_in - next_out));
    }
    for (; outbox.count; outbox_pop(&outbox, 1))
        assert_int_equal(front_fill(), (char)next_out++);
    assert_int_equal(next_out, next_in);
    assert_int_equal(outbox.bytes, 0);
}

static void a_burst_leaves_no_memory_behind(void **state)
{
    (void)state;
    assert_true(push(4, 'a', ANY));
    outbox_pop(&outbox, 1);
    assert_non_null(outbox.ring); /* a small ring is kept for the next message */
    uint32_t small = outbox.capacity;
    for (int i = 0; i < 1000; i++)
        assert_true(push(4, 'b', ANY));
    assert_true(outbox.capacity >= 1000);
    outbox_pop(&outbox, 999);
    assert_int_equal(outbox.count, 1);
    assert_non_null(outbox.ring);
    outbox_pop(&outbox, 1);
    assert_null(outbox.ring);
    assert_int_equal(alloc_fixture_live(), 0);
    assert_true(push(4, 'c', ANY));
    assert_int_equal(outbox.capacity, small);
    assert_int_equal(front_fill(), 'c');
}

static void popping_more_than_there_is_pops_all(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_true(push(4, 'a', ANY));
    outbox_pop(&outbox, 100);
    assert_int_equal(outbox.count, 0);
    assert_int_equal(outbox.bytes, 0);
    assert_true(push(4, 'b', ANY));
    assert_int_equal(front_fill(), 'b');
}

static void closing_drops_what_waits(void **state)
{
    struct frame *frame = make_frame(10, 'a');

    (void)state;
    assert_true(outbox_push(&outbox, frame, ANY));
    assert_true(outbox_push(&outbox, frame, ANY));
    assert_int_equal(frame->refs, 3);
    outbox_close(&outbox);
    assert_int_equal(frame->refs, 1);
    assert_int_equal(outbox.bytes, 0);
    frame_unref(frame);
    assert_true(push(4, 'b', ANY)); /* and it can be used again */
}

static void the_limit_counts_bytes_exactly(void **state)
{
    (void)state;
    assert_true(push(10, 'a', 30));
    assert_true(push(10, 'b', 30));
    assert_false(push(11, 'c', 30));
    assert_true(push(10, 'd', 30));
    assert_false(push(2, 'e', 30));
    assert_int_equal(outbox.count, 3);
    assert_int_equal(outbox.bytes, 30);
    outbox_pop(&outbox, 1);
    assert_true(push(10, 'f', 30));
}

static void a_frame_larger_than_the_limit_goes_alone(void **state)
{
    (void)state;
    assert_true(push(50, 'a', 20));
    assert_false(push(2, 'b', 20)); /* bytes are past the limit now: nothing may wrap round */
    assert_false(push(50, 'c', 20));
    outbox_pop(&outbox, 1);
    assert_true(push(20, 'd', 20));
    assert_false(push(2, 'e', 20));
    outbox_pop(&outbox, 1);
    assert_true(push(2, 'f', 0));
    assert_false(push(2, 'g', 0));
}

static void short_memory_refuses_the_frame(void **state)
{
    (void)state;
    struct frame *frame = make_frame(4, 'a');
    alloc_fixture_fail(1);
    assert_false(outbox_push(&outbox, frame, ANY));
    assert_int_equal(outbox.count, 0);
    assert_int_equal(frame->refs, 1);
    while (outbox.count < 4 || outbox.count < outbox.capacity)
        assert_true(outbox_push(&outbox, frame, ANY));
    uint32_t full = outbox.count;
    alloc_fixture_fail(1);
    assert_false(outbox_push(&outbox, frame, ANY));
    assert_int_equal(outbox.count, full);
    assert_int_equal(outbox.bytes, 4 * full);
    assert_true(outbox_push(&outbox, frame, ANY));
    frame_unref(frame);
}

/* ---- gathering ---- */

/* Gathers, checks the length and number, and that the bytes are the queued frames' one after the other. */
static const unsigned char *gather(unsigned char *scratch, size_t len, uint32_t count)
{
    const unsigned char *data;
    uint32_t frames;

    assert_int_equal(outbox_gather(&outbox, scratch, SCRATCH, &data, &frames), len);
    assert_int_equal(frames, count);
    for (size_t at = 0; at < len; count--) {
        size_t frame_len = outbox_front(&outbox)->len;
        assert_memory_equal(data + at, outbox_front(&outbox)->bytes, frame_len);
        at += frame_len;
        outbox_pop(&outbox, 1);
    }
    assert_int_equal(count, 0);
    return data;
}

static void a_single_frame_is_not_copied(void **state)
{
    unsigned char scratch[SCRATCH];

    (void)state;
    assert_true(push(5, 'a', ANY));
    const unsigned char *inside = outbox_front(&outbox)->bytes;
    assert_ptr_equal(gather(scratch, 5, 1), inside);
}

static void a_large_first_frame_is_not_copied(void **state)
{
    unsigned char scratch[SCRATCH];

    (void)state;
    assert_true(push(SCRATCH / 2, 'a', ANY));
    assert_true(push(4, 'b', ANY));
    const unsigned char *inside = outbox_front(&outbox)->bytes;
    assert_ptr_equal(gather(scratch, SCRATCH / 2, 1), inside);
    assert_int_equal(front_fill(), 'b');
    /* Larger than all of the scratch, too. */
    assert_true(push(SCRATCH + 20, 'c', ANY));
    outbox_pop(&outbox, 1);
    inside = outbox_front(&outbox)->bytes;
    assert_true(push(4, 'd', ANY));
    assert_ptr_equal(gather(scratch, SCRATCH + 20, 1), inside);
}

static void small_frames_fill_the_scratch_exactly(void **state)
{
    unsigned char scratch[SCRATCH];

    (void)state;
    for (int i = 0; i < 5; i++)
        assert_true(push(16, (char)('a' + i), ANY));
    assert_ptr_equal(gather(scratch, 64, 4), scratch);
    assert_int_equal(outbox.count, 1);
    assert_int_equal(front_fill(), 'e');
}

static void a_frame_that_does_not_fit_waits_whole(void **state)
{
    unsigned char scratch[SCRATCH];

    (void)state;
    assert_true(push(31, 'a', ANY));
    assert_true(push(31, 'b', ANY));
    assert_true(push(3, 'c', ANY)); /* one byte too much */
    assert_true(push(2, 'd', ANY)); /* would fit, but order counts */
    assert_ptr_equal(gather(scratch, 62, 2), scratch);
    assert_int_equal(front_fill(), 'c');
    /* A small one before a large one goes alone. */
    assert_true(push(100, 'e', ANY));
    assert_ptr_equal(gather(scratch, 5, 2), scratch);
    assert_int_equal(outbox.count, 1);
}

static void gathering_follows_the_ring_round(void **state)
{
    unsigned char scratch[SCRATCH];

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(push(8, 'x', ANY));
    outbox_pop(&outbox, 3);
    for (int i = 0; i < 4; i++)
        assert_true(push(8, (char)('a' + i), ANY));
    assert_int_equal(outbox.capacity, 4); /* head at 3: what follows is at the ring's start */
    assert_ptr_equal(gather(scratch, 32, 4), scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define OUTBOX_TEST(name) cmocka_unit_test_setup_teardown(name, open_outbox, close_outbox)
        OUTBOX_TEST(empty_one_is_harmless),
        OUTBOX_TEST(frames_leave_in_the_order_they_came),
        OUTBOX_TEST(a_burst_leaves_no_memory_behind),
        OUTBOX_TEST(popping_more_than_there_is_pops_all),
        OUTBOX_TEST(closing_drops_what_waits),
        OUTBOX_TEST(the_limit_counts_bytes_exactly),
        OUTBOX_TEST(a_frame_larger_than_the_limit_goes_alone),
        OUTBOX_TEST(short_memory_refuses_the_frame),
        OUTBOX_TEST(a_single_frame_is_not_copied),
        OUTBOX_TEST(a_large_first_frame_is_not_copied),
        OUTBOX_TEST(small_frames_fill_the_scratch_exactly),
        OUTBOX_TEST(a_frame_that_does_not_fit_waits_whole),
        OUTBOX_TEST(gathering_follows_the_ring_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
