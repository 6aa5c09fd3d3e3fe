#include "base/alloc.h"
#include "base/clock.h"
#include "client/client_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <string.h>

/* What is written to a connection beyond this waits in the queue instead, where it can still be given up. */
enum { WRITE_AHEAD = 256 * 1024 };

static void arm_deadline(struct swb_client *client, uint64_t at)
{
    if (at >= client->deadline_at)
        return;
    uint64_t now = clock_monotonic_ms();
    uint64_t left = at > now ? at - now : 0;
    struct timeval delay = {.tv_sec = (time_t)(left / 1000), .tv_usec = (suseconds_t)(left % 1000 * 1000)};
    client->deadline_at = at;
    event_add(client->deadline, &delay);
}

static struct call *create(struct swb_client *client, enum call_kind kind)
{
    struct call *call = mem_calloc(1, sizeof *call);

    if (!call)
        return NULL;
    list_init(&call->link);
    call->client = client;
    call->kind = kind;
    call->deadline = UINT64_MAX;
    buffer_init(&call->body, 0);
    call->repeatable = kind != CALL_SEND && kind != CALL_REQUEST && kind != CALL_REPLY;
    return call;
}

struct call *call_create_internal(struct swb_client *client, enum call_kind kind)
{
    return create(client, kind);
}

struct call *call_create(struct swb_client *client, enum call_kind kind, unsigned timeout,
                         swb_on_result *on_result, void *data, int *error)
{
    *error = client->doomed || client->state == SWB_STOPPED    ? SWB_CANCELLED
             : !client->wanted                                 ? SWB_OFFLINE
             : client->call_count >= client->options.max_calls ? SWB_QUEUE_FULL
                                                               : SWB_OK;
    if (*error)
        return NULL;
    struct call *call = create(client, kind);
    if (!call) {
        *error = SWB_NO_MEMORY;
        return NULL;
    }
    call->on_result = on_result;
    call->data = data;
    call->deadline = clock_monotonic_ms() + (timeout ? timeout : client->options.call_timeout);
    call->counted = true;
    client->call_count++;
    return call;
}

/* Takes the call out of the list and the map it is in. */
static void unlink_call(struct call *call)
{
    struct swb_client *client = call->client;

    if (list_empty(&call->link))
        return;
    list_remove(&call->link);
    if (call->sent)
        map_remove(&client->open, &call->node);
    else
        client->queue_bytes -= call->body.len;
    call->sent = false;
}

void call_destroy(struct call *call)
{
    unlink_call(call);
    if (call->counted)
        call->client->call_count--;
    if (call->sub && call->sub->call == call)
        call->sub->call = NULL;
    buffer_close(&call->body);
    mem_free(call);
}

void call_end(struct call *call, const struct swb_result *result)
{
    struct swb_client *client = call->client;
    swb_on_result *on_result = call->on_result;
    void *data = call->data;

    call_destroy(call);
    if (on_result)
        on_result(client, result, data);
}

void call_fail(struct call *call, int error)
{
    struct swb_result result = {.error = error, .text = swb_error_text(error)};

    if (call->kind == CALL_SUBSCRIBE)
        subscription_reply(call, &result);
    else if (call->kind == CALL_POSITION)
        subscription_position(call, &result);
    else
        call_end(call, &result);
}

/* ---- sending ------------------------------------------------------------------------------------------- */

static void write_frame(struct swb_client *client, struct call *call, bool answered)
{
    struct buffer *frame = &client->frame;

    buffer_clear(frame);
    buffer_append(frame, "{", 1);
    buffer_printf(frame, "\"id\":%" PRIu64, answered ? call->id : 0);
    if (call->kind == CALL_REQUEST) {
        uint64_t now = clock_monotonic_ms();
        buffer_printf(frame, ",\"timeout\":%" PRIu64, call->deadline > now ? call->deadline - now : 1);
    }
    if (call->kind == CALL_SUBSCRIBE)
        subscription_write(call->sub, frame);
    else
        buffer_append(frame, call->body.data, call->body.len);
    buffer_append(frame, "}", 1);
}

/* Sends a call that is in no list. SWB_OK: it is taken care of. SWB_OFFLINE: the connection takes nothing now. Any other:
 * it can't be sent. */
static int send_call(struct call *call)
{
    struct swb_client *client = call->client;
    bool answered = call->on_result || (call->kind != CALL_SEND && call->kind != CALL_REPLY);

    call->id = ++client->last_id;
    write_frame(client, call, answered);
    if (client->frame.failed)
        return SWB_NO_MEMORY;
    if (client->hello.limits.message && client->frame.len > client->hello.limits.message)
        return SWB_TOO_LARGE;
    if (answered && !map_insert(&client->open, &call->node, (const char *)&call->id, sizeof call->id))
        return SWB_NO_MEMORY;
    if (!ws_client_send(client->ws, WS_TEXT, client->frame.data, client->frame.len)) {
        if (answered)
            map_remove(&client->open, &call->node);
        return SWB_OFFLINE;
    }
    if (!answered) {
        call_destroy(call);
        return SWB_OK;
    }
    call->sent = true;
    list_append(&client->sent, &call->link);
    if (call->kind == CALL_REQUEST)
        call->deadline += REPLY_GRACE_MS;
    if (call->deadline != UINT64_MAX)
        arm_deadline(client, call->deadline);
    return SWB_OK;
}

static bool can_send(const struct swb_client *client)
{
    return client->state == SWB_ONLINE && client->ws && ws_client_pending(client->ws) < WRITE_AHEAD;
}

void call_requeue(struct call *call, bool first)
{
    struct swb_client *client = call->client;

    if (first)
        list_prepend(&client->queue, &call->link);
    else
        list_append(&client->queue, &call->link);
    client->queue_bytes += call->body.len;
    if (call->deadline != UINT64_MAX)
        arm_deadline(client, call->deadline);
}

int call_submit(struct call *call)
{
    struct swb_client *client = call->client;
    int error = call->body.failed ? SWB_NO_MEMORY : SWB_OFFLINE;

    if (error == SWB_OFFLINE && list_empty(&client->queue) && can_send(client))
        error = send_call(call);
    if (error == SWB_OFFLINE && client->queue_bytes + call->body.len > client->options.max_queue_bytes &&
        call->counted)
        error = SWB_QUEUE_FULL;
    if (error == SWB_OFFLINE) {
        call_requeue(call, false);
        error = SWB_OK;
    }
    if (error)
        call_destroy(call);
    return error;
}

void calls_flush(struct swb_client *client)
{
    while (!client->doomed && !list_empty(&client->queue) && can_send(client)) {
        struct call *call = container_of(client->queue.next, struct call, link);
        unlink_call(call);
        int error = send_call(call);
        if (error == SWB_OFFLINE) {
            call_requeue(call, true);
            return;
        }
        if (error)
            call_fail(call, error);
    }
}

struct call *calls_take(struct swb_client *client, uint64_t id)
{
    struct map_node *node = map_find(&client->open, (const char *)&id, sizeof id);

    if (!node)
        return NULL;
    struct call *call = container_of(node, struct call, node);
    unlink_call(call);
    return call;
}

/* ---- ending -------------------------------------------------------------------------------------------- */

static void end_later(struct call *call, int error)
{
    unlink_call(call);
    call->error = error;
    list_append(&call->client->ending, &call->link);
    call->client->queue_bytes += call->body.len; /* what unlink_call() takes off again */
}

void call_end_soon(struct call *call, int error)
{
    end_later(call, error);
    arm_deadline(call->client, 0);
}

static void end_now(struct swb_client *client)
{
    while (!list_empty(&client->ending)) {
        struct call *call = container_of(client->ending.next, struct call, link);
        unlink_call(call);
        call_fail(call, call->error);
    }
}

void calls_lost(struct swb_client *client)
{
    list_for_each_safe (link, &client->queue) {
        struct call *call = container_of(link, struct call, link);
        if (call->kind == CALL_REPLY) /* the next connection knows nothing of the request */
            call_destroy(call);
    }
    /* From the last to the first, so that what is repeated keeps its order, before what was never sent. */
    while (!list_empty(&client->sent)) {
        struct call *call = container_of(client->sent.prev, struct call, link);
        unlink_call(call);
        if (call->repeatable) {
            call_requeue(call, true);
        } else {
            call->error = SWB_LOST;
            list_prepend(&client->ending, &call->link);
            client->queue_bytes += call->body.len;
        }
    }
    end_now(client);
}

void calls_fail_all(struct swb_client *client, int error)
{
    list_for_each_safe (link, &client->sent)
        end_later(container_of(link, struct call, link), error);
    list_for_each_safe (link, &client->queue)
        end_later(container_of(link, struct call, link), error);
    end_now(client);
}

static void expire(struct list *calls, uint64_t now, uint64_t *next)
{
    list_for_each_safe (link, calls) {
        struct call *call = container_of(link, struct call, link);
        if (call->deadline <= now)
            end_later(call, call->sent ? SWB_TIMEOUT : SWB_OFFLINE);
        else if (call->deadline < *next)
            *next = call->deadline;
    }
}

void calls_on_deadline(struct swb_client *client)
{
    uint64_t now = clock_monotonic_ms();
    uint64_t next = UINT64_MAX;

    client->deadline_at = UINT64_MAX;
    expire(&client->sent, now, &next);
    expire(&client->queue, now, &next);
    if (next != UINT64_MAX)
        arm_deadline(client, next);
    end_now(client);
}
