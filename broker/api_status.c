/* Health, readiness, statistics and metrics. */
#include "broker/api_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "broker/budget.h"
#include "broker/metrics.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "broker/session.h"

#include <stdio.h>

void api_serve_healthz(struct api *api, const struct api_input *input)
{
    api_reply_text(api, input->http, 200, "ok\n");
}

static void reply_unready(struct api *api, struct api_http *http, const char *why)
{
    char text[STORAGE_WORDS_MAX + 64];

    snprintf(text, sizeof text, "not ready: %s\n", why);
    api_reply_text(api, http, 503, text);
}

/* ---- readiness: asked by balancers, so never behind what others asked. All who wait share one probe. */

struct prober {
    struct call call;
    struct list link; /* in api->probing */
};

static struct api_http *prober_finish(struct prober *prober)
{
    list_remove(&prober->link);
    return api_call_finish(&prober->call);
}

static void on_prober_gone(struct call *call)
{
    prober_finish(container_of(call, struct prober, call));
}

static void on_probe_done(struct storage_request *request, int error, const struct storage_result *result)
{
    struct api *api = container_of(request, struct api, probe);
    char words[STORAGE_WORDS_MAX];
    const char *why = api->draining ? "draining" : error ? error_name(error) : NULL;

    if (!api->draining && storage_words(error, result, words).len)
        why = words;
    api->probe_open = false;
    for (struct list *link; (link = list_pop(&api->probing));) {
        struct api_http *http = prober_finish(container_of(link, struct prober, link));
        if (why)
            reply_unready(api, http, why);
        else
            api_reply_text(api, http, 200, "ready\n");
    }
}

void api_serve_readyz(struct api *api, const struct api_input *input)
{
    if (api->draining) {
        reply_unready(api, input->http, "draining");
        return;
    }
    struct prober *prober = api_call_create_always(api, input->http, sizeof *prober, NULL);
    if (!prober)
        return;
    list_append(&api->probing, &prober->link);
    prober->call.on_gone = on_prober_gone;
    if (api->probe_open)
        return;
    api->probe_open = true;
    api->probe.on_done = on_probe_done;
    storage_probe(api->options.storage, &api->probe);
}

/* ---- statistics ---- */

/* The storage and the log count one of them each themselves. */
static const struct metrics *counters(const struct api *api)
{
    struct metrics *metrics = api->options.metrics;

    metrics->published_directly = storage_direct_count(api->options.storage);
    metrics->log_lines_dropped = log_dropped();
    return metrics;
}

static void write_counters(const struct metrics *metrics, struct writer *writer)
{
    writer_key(writer, "counters");
    writer_map(writer, sizeof *metrics / sizeof(uint64_t));
#define COUNTER(field, name, help) writer_pair_int(writer, name, (int64_t)metrics->field);
    METRICS_COUNTERS(COUNTER)
#undef COUNTER
    writer_end(writer);
}

static void write_memory(const struct budget *budget, struct writer *writer)
{
    writer_key(writer, "memory");
    writer_map(writer, BUDGET_KIND_COUNT + 2);
    writer_pair_int(writer, "budget", (int64_t)budget->limit);
    writer_pair_int(writer, "used", (int64_t)budget_used(budget));
    for (enum budget_kind kind = 0; kind < BUDGET_KIND_COUNT; kind++)
        writer_pair_int(writer, budget_kind_name(kind), (int64_t)budget->bytes[kind]);
    writer_end(writer);
}

static void write_stats(const struct api *api, int error, int64_t online, struct writer *writer)
{
    const struct api_options *options = &api->options;
    char started[CLOCK_ISO8601_SIZE];

    writer_map(writer, 14);
    writer_pair_str(writer, "instance", slice_text(options->instance));
    writer_pair_str(writer, "version", slice_text(SWITCHBOARD_VERSION));
    writer_pair_str(writer, "started_at", slice_text(clock_iso8601(options->started_at_ms, started)));
    writer_pair_int(writer, "uptime_ms", (int64_t)(clock_wall_ms() - options->started_at_ms));
    if (error)
        writer_pair_null(writer, "online");
    else
        writer_pair_int(writer, "online", online);
    writer_pair_int(writer, "sessions", (int64_t)sessions_online(options->sessions));
    writer_pair_int(writer, "channels", (int64_t)router_channel_count(options->router));
    writer_pair_int(writer, "patterns", (int64_t)router_pattern_count(options->router));
    writer_pair_int(writer, "max_connections", (int64_t)options->max_connections);
    writer_key(writer, "storage");
    writer_map(writer, 2);
    writer_pair_str(writer, "name", slice_text(storage_name(options->storage)));
    writer_pair_bool(writer, "up", storage_state(options->storage) == STORAGE_UP);
    writer_end(writer);
    writer_pair_bool(writer, "draining", api->draining);
    write_memory(options->budget, writer);
    write_counters(counters(api), writer);
    writer_end(writer);
}

static void on_stats_counted(struct storage_request *request, int error, const struct storage_result *result)
{
    struct call *call = container_of(request, struct call, request);
    struct api *api = call->api;
    struct api_http *http = api_call_finish(call);
    struct buffer json;
    struct writer writer;

    if (!http)
        return;
    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    write_stats(api, error, result->number, &writer);
    api_reply_json(api, http, 200, &json);
}

void api_serve_stats(struct api *api, const struct api_input *input)
{
    struct call *call = api_call_create(api, input->http, sizeof *call, on_stats_counted);

    if (call)
        storage_count(api->options.storage, &call->request);
}

static void write_memory_gauges(const struct budget *budget, struct buffer *text)
{
    char name[64];

    metrics_write_gauge("memory_budget_bytes", "What may be kept for clients", (double)budget->limit, text);
    metrics_write_gauge("memory_used_bytes", "What is kept for clients", (double)budget_used(budget), text);
    for (enum budget_kind kind = 0; kind < BUDGET_KIND_COUNT; kind++) {
        snprintf(name, sizeof name, "memory_%s_bytes", budget_kind_name(kind));
        metrics_write_gauge(name, budget_kind_help(kind), (double)budget->bytes[kind], text);
    }
}

void api_serve_metrics(struct api *api, const struct api_input *input)
{
    const struct api_options *options = &api->options;
    struct buffer text;

    buffer_init(&text, 0);
    metrics_write(counters(api), &text);
    metrics_write_gauge("sessions", "Sessions online on this instance",
                        (double)sessions_online(options->sessions), &text);
    metrics_write_gauge("channels", "Channels this instance is subscribed to",
                        (double)router_channel_count(options->router), &text);
    metrics_write_gauge("patterns", "Different patterns of topics that sessions here are subscribed to",
                        (double)router_pattern_count(options->router), &text);
    metrics_write_gauge("max_connections", "Sessions this instance accepts at most",
                        (double)options->max_connections, &text);
    write_memory_gauges(options->budget, &text);
    metrics_write_gauge("requests_waiting", "Requests asked here that wait for their reply",
                        (double)requests_open(options->requests), &text);
    metrics_write_gauge("api_waiting", "HTTP requests to the API that wait for their answer",
                        (double)api->call_count, &text);
    metrics_write_gauge("reads_open", "Reads of history and presence that are open at the storage",
                        (double)options->reads->open, &text);
    metrics_write_gauge("reads_waiting", "Reads of history and presence that wait for their turn",
                        (double)options->reads->waiting, &text);
    metrics_write_gauge("api_connections", "Connections to the API, the surplus ones included",
                        (double)api_server_connections(api->server), &text);
    metrics_write_gauge("api_memory_bytes", "What bodies and answers of the API take",
                        (double)api_server_memory(api->server), &text);
    metrics_write_gauge("storage_up", "1 while the storage serves",
                        storage_state(options->storage) == STORAGE_UP ? 1 : 0, &text);
    metrics_write_gauge("start_time_seconds", "When the process started, in seconds since 1970",
                        (double)options->started_at_ms / 1000.0, &text);
    if (text.failed)
        api_reply_error(api, input->http, ERROR_NO_MEMORY, NULL);
    else
        api_reply(api, input->http, 200, "text/plain; version=0.0.4; charset=utf-8",
                  slice_from(text.data, text.len));
    buffer_close(&text);
}
