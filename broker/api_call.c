/* Calls: HTTP requests that wait for the storage or for a client.
 *
 * evhttp does not read from a connection whose request is being served, so it does not notice that the client left; the
 * answer then goes nowhere, which is fine for what takes a moment. A call that may take long watches the socket itself. When the client
 * leaves, the connection is freed and its request with it, and the call goes on without; whatever was asked of the storage still
 * calls back. */
#include "broker/api_internal.h"

#include "base/alloc.h"
#include "broker/loop.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>

static void stop_watching(struct call *call)
{
    if (call->departure)
        event_free(call->departure);
    call->departure = NULL;
}

static void on_connection_freed(struct evhttp_connection *connection, void *data)
{
    struct call *call = data;

    (void)connection;
    stop_watching(call);
    call->http = NULL;
    if (call->on_gone)
        call->on_gone(call);
}

static void on_departure(evutil_socket_t fd, short what, void *data)
{
    struct call *call = data;

    (void)fd;
    (void)what;
    evhttp_connection_free(evhttp_request_get_connection(call->http));
}

void *api_call_create(struct api *api, struct evhttp_request *http, size_t size,
                      void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    if (api->call_count >= api->config->api_limit) {
        api_reply_error(api, http, ERROR_LIMIT, "too many HTTP requests are waiting (api_limit)");
        return NULL;
    }
    struct call *call = mem_calloc(1, size);
    if (!call) {
        api_reply_error(api, http, ERROR_NO_MEMORY, NULL);
        return NULL;
    }
    call->api = api;
    call->http = http;
    call->request.on_done = on_done;
    list_append(&api->calls, &call->link);
    api->call_count++;
    evhttp_connection_set_closecb(evhttp_request_get_connection(http), on_connection_freed, call);
    return call;
}

void api_call_watch(struct call *call, void (*on_gone)(struct call *call))
{
    struct bufferevent *connection =
        evhttp_connection_get_bufferevent(evhttp_request_get_connection(call->http));

    call->on_gone = on_gone;
    call->departure = event_new(loop_base(call->api->options.loop), bufferevent_getfd(connection), EV_CLOSED,
                                on_departure, call);
    /* Without memory for the watch the call takes its time for nothing, no more. */
    if (call->departure && event_add(call->departure, NULL) != 0)
        stop_watching(call);
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

struct evhttp_request *api_call_finish(struct call *call)
{
    struct evhttp_request *http = call->http;

    if (http)
        evhttp_connection_set_closecb(evhttp_request_get_connection(http), NULL, NULL);
    stop_watching(call);
    if (call->ask)
        read_done(&call->read);
    list_remove(&call->link);
    call->api->call_count--;
    mem_free(call);
    return http;
}
