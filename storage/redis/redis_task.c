#include "base/alloc.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <event2/event.h>

static const int later_errors[REDIS_LATER_COUNT] = {[REDIS_LATER_UNAVAILABLE] = ERROR_UNAVAILABLE,
                                                    [REDIS_LATER_NO_MEMORY] = ERROR_NO_MEMORY,
                                                    [REDIS_LATER_LIMIT] = ERROR_LIMIT,
                                                    [REDIS_LATER_BAD_REQUEST] = ERROR_BAD_REQUEST,
                                                    [REDIS_LATER_CANCELLED] = ERROR_CANCELLED};

void redis_done(struct storage_request *request, int error, const struct storage_result *result)
{
    static const struct storage_result nothing;

    request->on_done(request, error, error || !result ? &nothing : result);
}

void redis_done_why(struct storage_request *request, int error, struct slice why)
{
    const struct storage_result result = {.why = why};

    request->on_done(request, error, &result);
}

void redis_later(struct redis_storage *storage, struct storage_request *request, int error)
{
    size_t kind = 0;

    while (kind + 1 < REDIS_LATER_COUNT && later_errors[kind] != error)
        kind++;
    list_append(&storage->later[kind], &request->link);
    event_active(storage->later_event, 0, 0);
}

static bool run_kind(struct redis_storage *storage, size_t kind, int error)
{
    struct list ready, *node;
    bool any = !list_empty(&storage->later[kind]);

    list_init(&ready);
    list_splice(&ready, &storage->later[kind]);
    while ((node = list_pop(&ready)))
        redis_done(container_of(node, struct storage_request, link), error, NULL);
    return any;
}

void redis_later_run(struct redis_storage *storage)
{
    for (size_t kind = 0; kind < REDIS_LATER_COUNT; kind++)
        run_kind(storage, kind, later_errors[kind]);
}

void redis_later_cancel(struct redis_storage *storage)
{
    bool any;

    do {
        any = false;
        for (size_t kind = 0; kind < REDIS_LATER_COUNT; kind++)
            any = run_kind(storage, kind, ERROR_CANCELLED) || any;
    } while (any);
}

void *redis_task_create(struct redis_storage *storage, struct storage_request *request, size_t size)
{
    struct redis_task *task = mem_calloc(1, size);

    if (task) {
        task->storage = storage;
        task->request = request;
        task->waiting = 1;
    }
    return task;
}

static void task_sent(struct redis_task *task, int error)
{
    if (!error)
        task->waiting++;
    else if (!task->error)
        task->error = error;
}

void redis_task_command(struct redis_task *task, const struct slice *args, size_t count,
                        redis_on_reply *on_reply)
{
    struct redis_conn *conn = redis_topology_pick(&task->storage->topology, args[count > 1 ? 1 : 0]);

    task_sent(task, redis_conn_command(conn, args, count, on_reply, task));
}

void redis_task_script(struct redis_task *task, enum redis_script script, struct slice key,
                       const struct slice *args, size_t count, redis_on_reply *on_reply)
{
    task_sent(task, redis_script_call(&task->storage->scripts, script, key, args, count, on_reply, task));
}

static void task_end(struct redis_task *task)
{
    struct storage_request *request = task->request;
    struct storage_result result = {.number = task->number};
    int error = task->error;

    if (task->on_end) {
        task->on_end(task);
        return;
    }
    mem_free(task);
    if (request)
        redis_done(request, error, &result);
}

void redis_task_replied(struct redis_task *task, int error)
{
    if (error && !task->error)
        task->error = error;
    if (--task->waiting == 0)
        task_end(task);
}

void redis_task_on_reply(void *data, const struct redis_reply *reply, int error)
{
    (void)reply;
    redis_task_replied(data, error);
}

void redis_task_made(struct redis_task *task)
{
    if (--task->waiting)
        return;
    /* Nothing went out, so there is an error to tell. */
    if (task->request)
        redis_later(task->storage, task->request, task->error);
    task->request = NULL;
    task_end(task);
}

void redis_ignore(void *data, const struct redis_reply *reply, int error)
{
    (void)data, (void)reply, (void)error;
}

void redis_send(struct redis_storage *storage, const struct slice *args, size_t count)
{
    struct redis_conn *conn = redis_topology_pick(&storage->topology, args[count > 1 ? 1 : 0]);

    /* What can't be sent is written again after the reconnect that follows. */
    if (redis_conn_command(conn, args, count, redis_ignore, NULL) != 0)
        return;
}
