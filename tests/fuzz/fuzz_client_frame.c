/* The input is what a broker sends after hello, one frame a line, to a client that has one call of each kind open. Whatever
 * comes, each call has one result at the end. */
#include "base/alloc.h"
#include "client/client_internal.h"
#include "client/json_text.h"
#include "client/url.h"
#include "fuzz.h"
#include "proto/base64.h"

#include <event2/event.h>
#include <string.h>

enum { CALLS = 7 };

static unsigned results;

static void on_result(struct swb_client *client, const struct swb_result *result, void *data)
{
    (void)client;
    (void)data;
    fuzz_require(result->text != NULL);
    for (size_t i = 0; i < result->message_count; i++)
        fuzz_require(((const char *)result->messages[i].payload.data)[result->messages[i].payload.len] ==
                     '\0');
    results++;
}

static void on_request(struct swb_client *client, struct swb_request *request, void *data)
{
    (void)client;
    (void)data;
    swb_request_reply(request, swb_request_message(request)->payload);
}

/* As if they had been sent, with the ids 1 to CALLS. */
static void open_calls(struct swb_client *client)
{
    static const enum call_kind kinds[CALLS] = {CALL_SEND,   CALL_REQUEST, CALL_HISTORY,    CALL_PRESENCE,
                                                CALL_ONLINE, CALL_PING,    CALL_UNSUBSCRIBE};
    int error;

    for (size_t i = 0; i < CALLS; i++) {
        struct call *call = call_create(client, kinds[i], 0, on_result, NULL, &error);
        fuzz_require(call != NULL);
        call->id = i + 1;
        call->sent = true;
        fuzz_require(map_insert(&client->open, &call->node, (const char *)&call->id, sizeof call->id));
        list_append(&client->sent, &call->link);
    }
}

static void try_parts(const char *text, size_t size)
{
    struct url url;
    struct buffer out, decoded;
    char *line = mem_strndup(text, size);

    fuzz_require(line != NULL);
    if (!url_parse(line, "/connect", &url))
        url_close(&url);
    buffer_init(&out, 1 << 20);
    json_write_value(&out, text, size);
    buffer_init(&decoded, 0);
    if (base64_decode(slice_from(text, size), &decoded)) {
        buffer_clear(&out);
        fuzz_require(base64_encode(slice_from(decoded.data, decoded.len), &out) && out.len == size &&
                     (!size || !memcmp(out.data, text, size)));
    }
    buffer_close(&decoded);
    buffer_close(&out);
    mem_free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct event_base *base;
    struct swb_options options = SWB_OPTIONS;
    const char *text = (const char *)data;

    if (!base)
        base = event_base_new();
    struct swb_client *client = swb_client_create(base, &options);
    fuzz_require(client != NULL);
    client->wanted = true;
    client->state = SWB_ONLINE;
    client->hello.address = "user:bob";
    results = 0;
    swb_client_serve(client, on_request, NULL);
    open_calls(client);
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        size_t end = newline ? (size_t)(newline - text) : size;
        try_parts(text + at, end - at);
        client->state = SWB_ONLINE;
        if (end > at)
            frame_handle(client, slice_from(text + at, end - at));
        at = end + 1;
    }
    client->hello.address = NULL;
    swb_client_destroy(client);
    fuzz_require(results == CALLS);
    return 0;
}
