/* Calls: HTTP requests that wait for the storage or for a client.
 *
 * When the client leaves, its request is gone, and the call goes on without: whatever was asked of the storage still calls
 * back. What takes a moment needs no more than that; a call that may take long asks to be told. */
#include "broker/api_internal.h"

#include "base/alloc.h"

static void on_gone(void *data)
{
    struct call *call = data;

    call->http = NULL;
    if (call->on_gone)
        call->on_gone(call);
}

void *api_call_create_always(struct api *api, struct api_http *http, size_t size,
                             void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    struct call *call = mem_calloc(1, size);

    if (!call) {
        api_reply_error(api, http, ERROR_NO_MEMORY, NULL);
        return NULL;
    }
    call->api = api;
    call->http = http;
    call->request.on_done = on_done;
    api_http_watch(http, false, on_gone, call);
    return call;
}

void *api_call_create(struct api *api, struct api_http *http, size_t size,
                      void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    if (api->call_count >= api->config->api_limit) {
        api_reply_error(api, http, ERROR_LIMIT, "too many HTTP requests are waiting (api_limit)");
        return NULL;
    }
    struct call *call = api_call_create_always(api, http, size, on_done);
    if (call) {
        call->counted = true;
        api->call_count++;
    }
    return call;
}

static bool on_turn(struct read *read)
{
    struct call *call = container_of(read, struct call, read);

    if (call->http)
        call->ask(call);
    else
        api_call_finish(call);
    return true;
}

void api_call_read(struct call *call, void (*ask)(struct call *call))
{
    call->ask = ask;
    call->read.start = on_turn;
    read_ask(&call->api->reader, &call->read);
}

void api_call_watch(struct call *call, void (*on_left)(struct call *call))
{
    call->on_gone = on_left;
    api_http_watch(call->http, true, on_gone, call);
}

struct api_http *api_call_finish(struct call *call)
{
    struct api_http *http = call->http;

    if (http)
        api_http_watch(http, false, NULL, NULL);
    if (call->ask)
        read_done(&call->read);
    call->api->call_count -= call->counted;
    mem_free(call);
    return http;
}
