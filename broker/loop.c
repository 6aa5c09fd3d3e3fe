#include "broker/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

struct loop {
    struct event_base *base;
    struct list tasks;   /* run at the end of this turn */
    struct list running; /* what is left of the tasks being run */
    struct list hooks;
    uint64_t turns;
    bool stopping;
};

/* libevent would write to standard error itself, and wait there. */
static void on_library_log(int severity, const char *text)
{
    if (severity == EVENT_LOG_ERR)
        log_error("libevent", log_str("text", text));
    else if (severity == EVENT_LOG_WARN)
        log_warn("libevent", log_str("text", text));
}

struct loop *loop_create(void)
{
    struct loop *loop = mem_calloc(1, sizeof *loop);
    if (!loop) {
        log_error("event loop not created", log_str("reason", strerror(ENOMEM)));
        return NULL;
    }
    event_set_log_callback(on_library_log);
    loop->base = event_base_new();
    if (!loop->base) {
        log_error("event loop not created", log_str("reason", strerror(errno)));
        mem_free(loop);
        return NULL;
    }
    list_init(&loop->tasks);
    list_init(&loop->running);
    list_init(&loop->hooks);
    signal(SIGPIPE, SIG_IGN);
    log_debug("event loop created", log_str("method", event_base_get_method(loop->base)));
    return loop;
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    while (list_pop(&loop->tasks))
        ;
    while (list_pop(&loop->hooks))
        ;
    event_base_free(loop->base);
    mem_free(loop);
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

static void run_tasks(struct loop *loop)
{
    list_splice(&loop->running, &loop->tasks);
    struct list *node;
    while ((node = list_pop(&loop->running))) {
        struct loop_task *task = container_of(node, struct loop_task, link);
        task->run(task);
    }
}

static void run_hooks(struct loop *loop)
{
    list_for_each_safe (node, &loop->hooks) {
        struct loop_hook *hook = container_of(node, struct loop_hook, link);
        hook->before_wait(hook);
    }
}

int loop_run(struct loop *loop)
{
    run_tasks(loop);
    while (!loop->stopping) {
        run_hooks(loop);
        bool wait = !loop->stopping && list_empty(&loop->tasks);
        /* Once in either case: NONBLOCK alone goes on for as long as anything is ready, which a socket that is
         * watched for writing always is. A base without events must wait for a signal all the same, not return
         * at once and make this spin. */
        if (event_base_loop(loop->base,
                            EVLOOP_ONCE | (wait ? 0 : EVLOOP_NONBLOCK) | EVLOOP_NO_EXIT_ON_EMPTY) < 0) {
            log_error("event loop failed", log_str("reason", strerror(errno)));
            return -1;
        }
        loop->turns++;
        run_tasks(loop);
    }
    loop->stopping = false;
    return 0;
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

uint64_t loop_turns(const struct loop *loop)
{
    return loop->turns;
}

void loop_task_init(struct loop_task *task, void (*run)(struct loop_task *task))
{
    list_init(&task->link);
    task->run = run;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    if (list_empty(&task->link))
        list_append(&loop->tasks, &task->link);
}

void loop_cancel(struct loop_task *task)
{
    list_remove(&task->link);
}

bool loop_deferred(const struct loop_task *task)
{
    return !list_empty(&task->link);
}

void loop_hook_add(struct loop *loop, struct loop_hook *hook, void (*before_wait)(struct loop_hook *hook))
{
    hook->before_wait = before_wait;
    list_append(&loop->hooks, &hook->link);
}

void loop_hook_remove(struct loop_hook *hook)
{
    list_remove(&hook->link);
}
