#include <event2/event.h>
#include <event2/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "broker/loop.h"

struct step {
    struct loop_task task;
    struct loop *loop;
    struct step *other; /* deferred or cancelled by this one, as the test has it */
    char name;
    int again; /* how often it defers itself */
};

static char order[64];
static size_t order_len;

static int setup(void **state)
{
    order_len = 0;
    *state = loop_create();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    loop_destroy(*state);
    return 0;
}

static void note(char name)
{
    order[order_len++] = name;
    order[order_len] = '\0';
}

static void run_step(struct loop_task *task)
{
    struct step *step = container_of(task, struct step, task);
    note(step->name);
    if (step->again-- > 0)
        loop_defer(step->loop, task);
    if (step->other)
        loop_defer(step->loop, &step->other->task);
}

static void run_stop(struct loop_task *task)
{
    struct step *step = container_of(task, struct step, task);
    note(step->name);
    loop_stop(step->loop);
}

static void run_cancel(struct loop_task *task)
{
    struct step *step = container_of(task, struct step, task);
    note(step->name);
    loop_cancel(&step->other->task);
}

static void step_init(struct step *step, struct loop *loop, char name, void (*run)(struct loop_task *))
{
    *step = (struct step){.loop = loop, .name = name};
    loop_task_init(&step->task, run);
}

static void tasks_run_once_in_order(void **state)
{
    struct loop *loop = *state;
    struct step a, b, stop;
    step_init(&a, loop, 'a', run_step);
    step_init(&b, loop, 'b', run_step);
    step_init(&stop, loop, '.', run_stop);
    loop_defer(loop, &b.task);
    loop_defer(loop, &a.task);
    loop_defer(loop, &b.task);
    assert_true(loop_deferred(&a.task));
    loop_defer(loop, &stop.task);
    assert_int_equal(loop_run(loop), 0);
    assert_string_equal(order, "ba.");
    assert_false(loop_deferred(&a.task));
}

static void a_task_deferring_itself_runs_in_the_next_turn_without_waiting(void **state)
{
    struct loop *loop = *state;
    struct step a, b, stop;
    step_init(&a, loop, 'a', run_step);
    step_init(&b, loop, 'b', run_step);
    step_init(&stop, loop, '.', run_stop);
    a.again = 2;
    b.other = &stop;
    loop_defer(loop, &a.task);
    assert_int_equal(loop_turns(loop), 0);
    a.other = &b;
    loop_run(loop);
    assert_string_equal(order, "aaba.");
    assert_int_equal(loop_turns(loop), 2);
    loop_cancel(&b.task);
}

static void a_cancelled_task_does_not_run(void **state)
{
    struct loop *loop = *state;
    struct step a, b, stop;
    step_init(&a, loop, 'a', run_cancel);
    step_init(&b, loop, 'b', run_step);
    step_init(&stop, loop, '.', run_stop);
    a.other = &b;
    loop_defer(loop, &a.task);
    loop_defer(loop, &b.task);
    loop_defer(loop, &stop.task);
    loop_run(loop);
    assert_string_equal(order, "a.");
    loop_cancel(&b.task);
}

struct counter {
    struct loop_hook hook;
    struct loop *loop;
    int calls, stop_at;
};

static void count(struct loop_hook *hook)
{
    struct counter *counter = container_of(hook, struct counter, hook);
    if (++counter->calls == counter->stop_at)
        loop_stop(counter->loop);
}

static void on_tick(evutil_socket_t fd, short what, void *data)
{
    int *ticks = data;
    (void)fd;
    (void)what;
    ++*ticks;
}

/* Level-triggered, so it is active in every single pass over the descriptors. */
static void a_descriptor_that_is_always_ready_starves_no_task(void **state)
{
    struct loop *loop = *state;
    struct step a, stop;
    int pair[2], ticks = 0;
    assert_int_equal(evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct event *writable = event_new(loop_base(loop), pair[0], EV_WRITE | EV_PERSIST, on_tick, &ticks);
    event_add(writable, NULL);
    step_init(&a, loop, 'a', run_step);
    step_init(&stop, loop, '.', run_stop);
    a.again = 3;
    a.other = &stop;
    loop_defer(loop, &a.task);
    loop_run(loop);
    assert_string_equal(order, "aa.");
    assert_int_equal(ticks, 1);
    loop_cancel(&a.task);
    event_free(writable);
    evutil_closesocket(pair[0]);
    evutil_closesocket(pair[1]);
}

static void hooks_run_once_before_each_wait(void **state)
{
    struct loop *loop = *state;
    struct counter counter = {.loop = loop, .stop_at = 4};
    int ticks = 0;
    struct timeval millisecond = {.tv_usec = 1000};
    struct event *timer = event_new(loop_base(loop), -1, EV_PERSIST, on_tick, &ticks);
    event_add(timer, &millisecond);
    loop_hook_add(loop, &counter.hook, count);
    loop_run(loop); /* the stop of the fourth call must keep the loop from waiting */
    assert_int_equal(counter.calls, 4);
    assert_in_range(ticks, 3, 4);
    assert_int_equal(loop_turns(loop), 4);
    loop_hook_remove(&counter.hook);
    event_free(timer);
}

static void a_stop_before_running_is_kept(void **state)
{
    struct loop *loop = *state;
    loop_stop(loop);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(loop_turns(loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tasks_run_once_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_deferring_itself_runs_in_the_next_turn_without_waiting, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_task_does_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_descriptor_that_is_always_ready_starves_no_task, setup, teardown),
        cmocka_unit_test_setup_teardown(hooks_run_once_before_each_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_before_running_is_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
