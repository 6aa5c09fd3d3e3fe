/* The blocking face: a client with a base of its own, which runs only inside these calls. */
#include "base/alloc.h"
#include "client/client_internal.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

/* One blocking call; it lives on the stack of the caller, which waits for `done`. */
struct wait {
    bool done;
    int error;
    char *problem; /* owned */
    enum swb_receipt receipt;
    struct swb_reply reply;
};

/* mem_free() need not be free(), but what the user gets is released by swb_reply_free() alone. */
static bool copy_reply(const struct swb_message *from, struct swb_reply *to)
{
    char *data = mem_strndup(from->payload.data, from->payload.len);

    to->from = mem_strdup(from->from);
    to->payload = (struct swb_payload){from->payload.kind, data, from->payload.len};
    if (data && (to->from || !from->from))
        return true;
    swb_reply_free(to);
    return false;
}

static void on_result(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct wait *wait = data;

    (void)client;
    wait->done = true;
    wait->error = result->error;
    if (result->error)
        wait->problem = mem_strdup(result->text);
    wait->receipt = result->receipt;
    if (!result->error && result->reply.to && !copy_reply(&result->reply, &wait->reply))
        wait->error = SWB_NO_MEMORY;
}

void swb_reply_free(struct swb_reply *reply)
{
    if (!reply)
        return;
    mem_free((void *)reply->payload.data);
    mem_free(reply->from);
    *reply = (struct swb_reply){.from = NULL};
}

static void set_problem(struct swb_client *client, char *problem)
{
    mem_free(client->problem);
    client->problem = problem;
}

const char *swb_client_problem(const struct swb_client *client)
{
    return client->problem ? client->problem : "";
}

/* Handles what arrived since the last call (the end of the connection, most of all), so that nothing is sent into it. */
static bool catch_up(struct swb_client *client)
{
    set_problem(client, NULL);
    if (!client->own_base) {
        set_problem(client, mem_strdup("the client was not opened by swb_open()"));
        return false;
    }
    event_base_loop(client->own_base, EVLOOP_NONBLOCK);
    return true;
}

/* Waits for the call that was begun with `error`. */
static int wait_for(struct swb_client *client, struct wait *wait, int error)
{
    if (error) {
        set_problem(client, mem_strdup(swb_error_text(error)));
        return error;
    }
    while (!wait->done)
        event_base_loop(client->own_base, EVLOOP_ONCE);
    set_problem(client, wait->problem);
    return wait->error;
}

int swb_client_request(struct swb_client *client, const char *address, struct swb_payload payload,
                       unsigned timeout, struct swb_reply *reply)
{
    struct wait wait = {.done = false};

    if (reply)
        *reply = (struct swb_reply){.from = NULL};
    if (!catch_up(client))
        return SWB_BAD_REQUEST;
    int error =
        wait_for(client, &wait, swb_begin_request(client, address, payload, timeout, on_result, &wait));
    if (reply)
        *reply = wait.reply;
    else
        swb_reply_free(&wait.reply);
    return error;
}

int swb_client_send(struct swb_client *client, const char *address, struct swb_payload payload,
                    const struct swb_send_options *options, enum swb_receipt *receipt)
{
    struct wait wait = {.done = false};

    if (receipt)
        *receipt = SWB_NO_RECEIPT;
    if (!catch_up(client))
        return SWB_BAD_REQUEST;
    int error = wait_for(client, &wait, swb_begin_send(client, address, payload, options, on_result, &wait));
    if (receipt && !error)
        *receipt = wait.receipt;
    return error;
}

int swb_client_publish(struct swb_client *client, const char *topic, struct swb_payload payload,
                       const struct swb_send_options *options, enum swb_receipt *receipt)
{
    struct wait wait = {.done = false};

    if (receipt)
        *receipt = SWB_NO_RECEIPT;
    if (!catch_up(client))
        return SWB_BAD_REQUEST;
    int error = wait_for(client, &wait, swb_begin_publish(client, topic, payload, options, on_result, &wait));
    if (receipt && !error)
        *receipt = wait.receipt;
    return error;
}

/* ---- open and close ------------------------------------------------------------------------------------ */

static void on_open_timeout(evutil_socket_t fd, short what, void *data)
{
    bool *late = data;

    (void)fd;
    (void)what;
    *late = true;
}

/* Runs the base until the client is in `state`, for `ms` at most; ends early when it can't come to that. */
static bool wait_state(struct swb_client *client, enum swb_state state, unsigned ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    bool late = false;
    struct event *timer = evtimer_new(client->own_base, on_open_timeout, &late);

    if (!timer)
        return false;
    event_add(timer, &delay);
    while (!late && !(client->state == state && (state == SWB_ONLINE || !client->ws)) &&
           (client->wanted || state != SWB_ONLINE))
        event_base_loop(client->own_base, EVLOOP_ONCE);
    event_free(timer);
    return client->state == state;
}

int swb_open_with(const char *url, const struct swb_options *options, struct swb_client **out)
{
    struct event_base *base = event_base_new();
    struct swb_client *client = base ? swb_client_create(base, options) : NULL;

    *out = NULL;
    if (!client) {
        if (base)
            event_base_free(base);
        return SWB_NO_MEMORY;
    }
    client->own_base = base;
    int error = swb_client_connect(client, url);
    if (!error && !wait_state(client, SWB_ONLINE, client->options.connect_timeout))
        error = SWB_OFFLINE;
    if (error)
        swb_client_destroy(client);
    else
        *out = client;
    return error;
}

int swb_open(const char *url, struct swb_client **client)
{
    return swb_open_with(url, NULL, client);
}

void swb_close(struct swb_client *client)
{
    enum { GOODBYE_MS = 1000 };

    if (!client)
        return;
    if (client->own_base) {
        swb_client_stop(client);
        wait_state(client, SWB_STOPPED, GOODBYE_MS);
    }
    swb_client_destroy(client);
}
