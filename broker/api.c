#include "broker/api.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/listener.h"
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/router.h"
#include "broker/session.h"
#include "proto/errors.h"
#include "storage/storage.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX = 16 * 1024, BODY_MAX = 64 * 1024, TIMEOUT_SECONDS = 30 };

struct api {
    struct api_options options;
    struct evhttp *http;
    bool draining;
    char address[INET6_ADDRSTRLEN + sizeof "[]:65535" + 16];
};

/* A request that waits for the storage. The client may leave meanwhile, and takes `http` with it. */
struct call {
    struct storage_request request;
    struct api *api;
    struct evhttp_request *http;
};

struct route_entry {
    const char *path;
    void (*serve)(struct api *api, struct evhttp_request *http);
};

/* ---- answering ---- */

static void reply(struct evhttp_request *http, int status, const char *type, const char *body, size_t len)
{
    evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Type", type);
    evhttp_add_header(evhttp_request_get_output_headers(http), "Cache-Control", "no-store");
    if (evhttp_request_get_command(http) == EVHTTP_REQ_HEAD) {
        char length[24];
        snprintf(length, sizeof length, "%zu", len);
        evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Length", length);
    } else {
        evbuffer_add(evhttp_request_get_output_buffer(http), body, len);
    }
    evhttp_send_reply(http, status, NULL, NULL);
}

static void reply_text(struct evhttp_request *http, int status, const char *text)
{
    reply(http, status, "text/plain; charset=utf-8", text, strlen(text));
}

/* Takes `json` over. */
static void reply_json(struct evhttp_request *http, int status, const char *type, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

    if (text)
        reply(http, status, type, text, strlen(text));
    else
        evhttp_send_error(http, HTTP_INTERNAL, NULL);
    free(text);
    json_decref(json);
}

/* Problem details, RFC 9457. */
static void reply_problem(struct evhttp_request *http, int status, const char *name, const char *text)
{
    reply_json(http, status, "application/problem+json",
               json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", name, "status", status,
                         "detail", text));
}

/* ---- requests that wait ---- */

static void on_client_gone(struct evhttp_connection *connection, void *data)
{
    struct call *call = data;

    (void)connection;
    call->http = NULL;
}

static struct call *call_create(struct api *api, struct evhttp_request *http,
                                void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    struct call *call = mem_calloc(1, sizeof *call);

    if (!call) {
        reply_problem(http, HTTP_SERVUNAVAIL, error_name(ERROR_NO_MEMORY), error_find(ERROR_NO_MEMORY)->text);
        return NULL;
    }
    call->api = api;
    call->http = http;
    call->request.on_done = on_done;
    evhttp_connection_set_closecb(evhttp_request_get_connection(http), on_client_gone, call);
    return call;
}

/* Ends the wait: the request to answer, or NULL when nobody is there any more. */
static struct evhttp_request *call_finish(struct call *call)
{
    struct evhttp_request *http = call->http;

    if (http)
        evhttp_connection_set_closecb(evhttp_request_get_connection(http), NULL, NULL);
    mem_free(call);
    return http;
}

/* ---- the table ---- */

static void serve_healthz(struct api *api, struct evhttp_request *http)
{
    (void)api;
    reply_text(http, HTTP_OK, "ok\n");
}

static void reply_unready(struct evhttp_request *http, const char *why)
{
    char text[64];

    snprintf(text, sizeof text, "not ready: %s\n", why);
    evhttp_add_header(evhttp_request_get_output_headers(http), "Retry-After", "1");
    reply_text(http, HTTP_SERVUNAVAIL, text);
}

static void on_probe_done(struct storage_request *request, int error, const struct storage_result *result)
{
    struct call *call = container_of(request, struct call, request);
    bool draining = call->api->draining;
    struct evhttp_request *http = call_finish(call);

    (void)result;
    if (!http)
        return;
    if (error || draining)
        reply_unready(http, draining ? "draining" : error_name(error));
    else
        reply_text(http, HTTP_OK, "ready\n");
}

static void serve_readyz(struct api *api, struct evhttp_request *http)
{
    if (api->draining) {
        reply_unready(http, "draining");
        return;
    }
    struct call *call = call_create(api, http, on_probe_done);
    if (call)
        storage_probe(api->options.storage, &call->request);
}

static json_t *counters_json(const struct metrics *metrics)
{
    json_t *json = json_object();

#define COUNTER(field, name, help) json_object_set_new(json, name, json_integer((json_int_t)metrics->field));
    METRICS_COUNTERS(COUNTER)
#undef COUNTER
    return json;
}

static void on_stats_counted(struct storage_request *request, int error, const struct storage_result *result)
{
    struct call *call = container_of(request, struct call, request);
    const struct api *api = call->api;
    const struct api_options *options = &api->options;
    json_t *online = error ? json_null() : json_integer(result->number);
    struct evhttp_request *http = call_finish(call);
    char started[CLOCK_ISO8601_SIZE];

    if (!http) {
        json_decref(online);
        return;
    }
    reply_json(http, HTTP_OK, "application/json",
               json_pack("{s:s, s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:{s:s, s:b}, s:b, s:o}", "instance",
                         options->instance, "version", SWITCHBOARD_VERSION, "started_at",
                         clock_iso8601(options->started_at_ms, started), "uptime_ms",
                         (json_int_t)(clock_wall_ms() - options->started_at_ms), "online", online, "sessions",
                         (json_int_t)sessions_online(options->sessions), "channels",
                         (json_int_t)router_channel_count(options->router), "max_connections",
                         (json_int_t)options->max_connections, "storage", "name",
                         storage_name(options->storage), "up", storage_state(options->storage) == STORAGE_UP,
                         "draining", api->draining, "counters", counters_json(options->metrics)));
}

static void serve_stats(struct api *api, struct evhttp_request *http)
{
    struct call *call = call_create(api, http, on_stats_counted);

    if (call)
        storage_count(api->options.storage, &call->request);
}

static void serve_metrics(struct api *api, struct evhttp_request *http)
{
    const struct api_options *options = &api->options;
    struct buffer text;

    buffer_init(&text, 0);
    metrics_write(options->metrics, &text);
    metrics_write_gauge("sessions", "Sessions online on this instance",
                        (double)sessions_online(options->sessions), &text);
    metrics_write_gauge("channels", "Channels this instance is subscribed to",
                        (double)router_channel_count(options->router), &text);
    metrics_write_gauge("max_connections", "Sessions this instance accepts at most",
                        (double)options->max_connections, &text);
    metrics_write_gauge("storage_up", "1 while the storage serves",
                        storage_state(options->storage) == STORAGE_UP ? 1 : 0, &text);
    metrics_write_gauge("start_time_seconds", "When the process started, in seconds since 1970",
                        (double)options->started_at_ms / 1000.0, &text);
    if (text.failed)
        reply_problem(http, HTTP_SERVUNAVAIL, error_name(ERROR_NO_MEMORY), error_find(ERROR_NO_MEMORY)->text);
    else
        reply(http, HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text.data, text.len);
    buffer_close(&text);
}

static const struct route_entry table[] = {
    {"/healthz", serve_healthz},
    {"/readyz", serve_readyz},
    {"/v1/stats", serve_stats},
    {"/metrics", serve_metrics},
};

static void on_request(struct evhttp_request *http, void *data)
{
    const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(http));
    enum evhttp_cmd_type method = evhttp_request_get_command(http);

    for (size_t i = 0; path && i < sizeof table / sizeof *table; i++) {
        if (strcmp(path, table[i].path) != 0)
            continue;
        if (method == EVHTTP_REQ_GET || method == EVHTTP_REQ_HEAD) {
            table[i].serve(data, http);
            return;
        }
        evhttp_add_header(evhttp_request_get_output_headers(http), "Allow", "GET, HEAD");
        reply_problem(http, HTTP_BADMETHOD, "method_not_allowed", "only GET and HEAD are served here");
        return;
    }
    reply_problem(http, HTTP_NOTFOUND, "not_found", "no such path");
}

/* ---- life ---- */

static void write_address(struct api *api, evutil_socket_t fd)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    char host[INET6_ADDRSTRLEN + 16], port[8];

    if (getsockname(fd, (struct sockaddr *)&name, &len) == 0 &&
        getnameinfo((struct sockaddr *)&name, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(api->address, sizeof api->address, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static bool bind_api(struct api *api, const char *address)
{
    char host[NI_MAXHOST];
    unsigned port;
    const char *problem;

    if (listener_parse(address, host, sizeof host, &port, &problem) == 0) {
        errno = 0;
        struct evhttp_bound_socket *bound =
            evhttp_bind_socket_with_handle(api->http, *host ? host : "::", (ev_uint16_t)port);
        if (bound) {
            write_address(api, evhttp_bound_socket_get_fd(bound));
            return true;
        }
        problem = strerror(errno);
    }
    log_error("the API can't listen", log_str("address", address), log_str("reason", problem));
    return false;
}

struct api *api_create(const struct api_options *options)
{
    struct api *api = mem_calloc(1, sizeof *api);

    if (!api)
        return NULL;
    api->options = *options;
    api->http = evhttp_new(loop_base(options->loop));
    if (!api->http || !bind_api(api, options->address ? options->address : options->config->api.text)) {
        api_destroy(api);
        return NULL;
    }
    evhttp_set_gencb(api->http, on_request, api);
    evhttp_set_max_headers_size(api->http, HEADERS_MAX);
    evhttp_set_max_body_size(api->http, BODY_MAX);
    evhttp_set_timeout(api->http, TIMEOUT_SECONDS);
    return api;
}

void api_destroy(struct api *api)
{
    if (!api)
        return;
    if (api->http)
        evhttp_free(api->http);
    mem_free(api);
}

const char *api_address(const struct api *api)
{
    return api->address;
}

void api_set_draining(struct api *api)
{
    api->draining = true;
}

void api_set_max_connections(struct api *api, size_t max_connections)
{
    api->options.max_connections = max_connections;
}
