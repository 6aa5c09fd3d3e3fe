#include "base/alloc.h"
#include "base/utf8.h"
#include "client/client_internal.h"
#include "client/json_text.h"

#include <string.h>

struct swb_request {
    struct list link;
    struct swb_client *client; /* NULL: it is gone */
    char *id;                  /* owned */
    json_t *root;              /* owns the message's strings */
    struct swb_message message;
    struct buffer storage;
    unsigned timeout;
    bool cancelled;
    void (*on_cancel)(struct swb_request *request, void *data);
    void *data;
};

static void destroy(struct swb_request *request)
{
    list_remove(&request->link);
    json_decref(request->root);
    buffer_close(&request->storage);
    mem_free(request->id);
    mem_free(request);
}

/* Sends a reply with this payload, or, when it is NULL, a refusal. */
static int answer(struct swb_client *client, const char *id, const struct swb_payload *payload,
                  const char *why)
{
    struct call *call = call_create_internal(client, CALL_REPLY);

    if (!call)
        return SWB_NO_MEMORY;
    buffer_append_text(&call->body, ",\"cmd\":\"reply\"");
    json_write_field(&call->body, "request", id);
    if (!payload)
        json_write_field(&call->body, "refuse", why);
    else if (!write_payload(&call->body, payload) && !call->body.failed) {
        call_destroy(call);
        return SWB_BAD_REQUEST;
    }
    return call_submit(call);
}

void request_arrived(struct swb_client *client, json_t *root, struct slice text)
{
    const char *id = json_text(root, "request");

    if (!id)
        return;
    if (!client->handler) {
        answer(client, id, NULL, "this session answers no requests");
        return;
    }
    struct swb_request *request = mem_calloc(1, sizeof *request);
    if (!request) {
        answer(client, id, NULL, "memory is short");
        return;
    }
    list_init(&request->link);
    buffer_init(&request->storage, 0);
    request->client = client;
    request->id = mem_strdup(id);
    request->root = json_incref(root);
    request->timeout = (unsigned)json_number(root, "timeout");
    if (!request->id || !read_message(root, text, &request->message, &request->storage)) {
        answer(client, id, NULL, "the request could not be read");
        destroy(request);
        return;
    }
    list_append(&client->requests, &request->link);
    client->handler(client, request, client->handler_data);
}

static void cancel(struct swb_request *request)
{
    if (request->cancelled)
        return;
    request->cancelled = true;
    if (request->on_cancel)
        request->on_cancel(request, request->data);
}

void request_cancel(struct swb_client *client, const char *id)
{
    list_for_each (link, &client->requests) {
        struct swb_request *request = container_of(link, struct swb_request, link);
        if (strcmp(request->id, id) == 0) {
            cancel(request);
            return;
        }
    }
}

static struct swb_request *first_waiting(struct swb_client *client)
{
    list_for_each (link, &client->requests) {
        struct swb_request *request = container_of(link, struct swb_request, link);
        if (!request->cancelled)
            return request;
    }
    return NULL;
}

void requests_cancel_all(struct swb_client *client)
{
    struct swb_request *request;

    /* The callback may give back any of them, or end the client: so begin anew after each. */
    while ((request = first_waiting(client)))
        cancel(request);
}

void requests_orphan(struct swb_client *client)
{
    while (!list_empty(&client->requests)) {
        struct swb_request *request = container_of(client->requests.next, struct swb_request, link);
        list_remove(&request->link);
        request->client = NULL;
        cancel(request);
    }
}

/* ---- for the user -------------------------------------------------------------------------------------- */

void swb_client_serve(struct swb_client *client, swb_on_request *handler, void *data)
{
    client->handler = handler;
    client->handler_data = data;
}

const struct swb_message *swb_request_message(const struct swb_request *request)
{
    return &request->message;
}

unsigned swb_request_timeout(const struct swb_request *request)
{
    return request->timeout;
}

bool swb_request_cancelled(const struct swb_request *request)
{
    return request->cancelled;
}

void swb_request_on_cancel(struct swb_request *request,
                           void (*on_cancel)(struct swb_request *request, void *data), void *data)
{
    request->on_cancel = on_cancel;
    request->data = data;
}

int swb_request_reply(struct swb_request *request, struct swb_payload payload)
{
    int error = SWB_GONE;

    if (!request->cancelled) {
        error = answer(request->client, request->id, &payload, NULL);
        if (error == SWB_BAD_REQUEST || error == SWB_TOO_LARGE)
            answer(request->client, request->id, NULL, "the answer could not be sent");
    }
    destroy(request);
    return error;
}

int swb_request_refuse(struct swb_request *request, const char *why)
{
    int error = SWB_GONE;

    if (!request->cancelled)
        error =
            answer(request->client, request->id, NULL, why && utf8_valid(why, strlen(why)) ? why : "refused");
    destroy(request);
    return error;
}
