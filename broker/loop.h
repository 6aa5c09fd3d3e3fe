/* The process's one event loop: a libevent base, work deferred to the end of a turn, hooks before each wait.
 *
 * A turn waits for events, runs their callbacks, and then the tasks deferred by them. Everything runs on the
 * thread that called loop_run(); nothing here may be called from another one. */
#ifndef BROKER_LOOP_H
#define BROKER_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct event_base;
struct loop;

/* Work put off to the end of the turn; embedded in its owner, who cancels it before going away. */
struct loop_task {
    struct list link;
    void (*run)(struct loop_task *task);
};

/* Called once each turn, as the last thing before the loop waits. It must not hand work to other hooks, which
 * may have run already; loop_defer() is fine, and keeps the loop from waiting. */
struct loop_hook {
    struct list link;
    void (*before_wait)(struct loop_hook *hook);
};

/* NULL when memory or descriptors are short (logged). SIGPIPE is ignored from then on: a broken connection is
 * an error of the one write, not the end of the process. */
struct loop *loop_create(void);
void loop_destroy(struct loop *loop); /* not from inside loop_run(); tasks still queued are forgotten */

struct event_base *loop_base(struct loop *loop); /* for timers, signals and descriptors; owned by the loop */

/* Runs turns until loop_stop(). 0, or -1 when waiting failed (logged). A stop that came before is honoured.
 */
int loop_run(struct loop *loop);

/* Makes loop_run() return at the end of this turn, after its tasks. May be called at any time, also
 * repeatedly. */
void loop_stop(struct loop *loop);

/* How many turns were run since the start: a loop that spins shows here. */
uint64_t loop_turns(const struct loop *loop);

void loop_task_init(struct loop_task *task, void (*run)(struct loop_task *task));

/* Runs `task` once at the end of this turn, in the order of deferring; nothing changes when it is queued
 * already. What a running task defers, itself included, runs at the end of the next turn, which then does not
 * wait. A task is off the queue when it runs, so it may free its owner. */
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_cancel(struct loop_task *task);         /* no-op when it is not queued */
bool loop_deferred(const struct loop_task *task); /* is it queued? */

void loop_hook_add(struct loop *loop, struct loop_hook *hook, void (*before_wait)(struct loop_hook *hook));
void loop_hook_remove(struct loop_hook *hook); /* also from inside the hook itself; repeatable once added */

#endif
