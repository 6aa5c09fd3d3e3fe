/* Sending, publishing and asking, one message an HTTP request. */
#include "broker/api_internal.h"

#include "base/clock.h"
#include "broker/keys.h"
#include "broker/metrics.h"
#include "broker/requests.h"
#include "broker/router.h"

#include <inttypes.h>
#include <stdio.h>

#define TTL_MAX_MS UINT64_C(315360000000) /* ten years */

/* ---- for a batch too ---- */

const char *api_check_sending(const struct api_sending *sending)
{
    if (sending->ttl_ms && !sending->store)
        return "\"ttl\" goes with \"store\"";
    if (sending->key.len > STORAGE_KEY_MAX)
        return "an idempotency key has 1 to 64 bytes";
    return NULL;
}

const char *api_take_key(struct api *api, const struct api_sending *sending)
{
    return sending->key.len ? keys_take(api->options.keys, NULL) : NULL;
}

bool api_send(struct api *api, const struct api_sending *sending, struct storage_request *request)
{
    struct router *router = api->options.router;
    char to[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct message_fields fields = {
        .kind = MESSAGE_DATA,
        .content = sending->content,
        .time_ms = clock_wall_ms(),
        .to = slice_from(to, address_format(&sending->to, to)),
        .payload = sending->payload,
    };
    /* Whoever knows the API's one token is the same sender. */
    struct router_extras extras = {
        .store = sending->store, .ttl_ms = sending->ttl_ms, .key = sending->key, .sender = slice_text("api")};
    struct slice at = slice_from(channel, address_channel(&sending->to, channel));

    return extras.store || extras.key.len ? router_publish_with(router, at, &fields, &extras, request)
                                          : router_publish(router, at, &fields, request);
}

void api_write_receipt(struct api *api, int error, const struct storage_result *result, struct writer *writer)
{
    struct metrics *metrics = api->options.metrics;
    bool stored = result->offset.len > 0;

    metrics->publish_failed += error != 0;
    metrics->stored_refused += (error == ERROR_LIMIT || error == ERROR_TOO_LARGE) && result->why.len;
    metrics->published_absent += !error && result->number == 0;
    if (error)
        return;
    writer_map(writer, stored ? 3 : 1);
    writer_pair_str(writer, "receipt",
                    slice_text(result->number > 0 ? "delivered"
                               : stored           ? "stored"
                                                  : "absent"));
    if (stored) {
        writer_pair_str(writer, "offset", result->offset);
        writer_pair_str(writer, "epoch", result->epoch);
    }
    writer_end(writer);
}

struct request *api_ask(struct api *api, const struct api_sending *sending,
                        void (*on_done)(void *data, int error, const struct message_fields *answer),
                        void *data)
{
    const struct address self = {.kind = ADDRESS_INSTANCE, .name = slice_text(api->options.instance)};
    char id[CORRELATION_MAX], from[ADDRESS_MAX + 1];
    /* An instance's id may be used again by its next run, which must not get this one's answers. */
    int id_len = snprintf(id, sizeof id, "%s.%" PRIx64 ".%" PRIu64, api->options.instance,
                          api->options.started_at_ms, ++api->request_count);
    const struct request_question question = {
        .id = slice_from(id, (size_t)id_len),
        .from = slice_from(from, address_format(&self, from)),
        .to = sending->to,
        .content = sending->content,
        .payload = sending->payload,
        .timeout_ms = sending->timeout_ms,
        .on_done = on_done,
        .data = data,
    };

    return request_ask(api->options.requests, &question);
}

void api_cancel(struct api *api, struct request *request)
{
    if (!api->closing)
        request_cancel(request);
}

/* ---- sending ---- */

static void on_sent(struct storage_request *request, int error, const struct storage_result *result)
{
    struct call *call = container_of(request, struct call, request);
    struct api *api = call->api;
    struct api_http *http = api_call_finish(call);
    struct buffer json;
    struct writer writer;
    char words[STORAGE_WORDS_MAX];

    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    api_write_receipt(api, error, result, &writer);
    if (http && error)
        api_reply_error(api, http, error, storage_words(error, result, words).len ? words : NULL);
    else if (http)
        api_reply_json(api, http, 200, &json);
    buffer_close(&json);
}

static void send_payload(struct api *api, const struct api_input *input, const struct address *to)
{
    const char *key = api_head_field(api_http_head(input->http), "idempotency-key");
    struct api_sending sending = {.to = *to, .key = slice_text(key)};
    struct api_payload payload;

    if (!api_input_bool(api, input, "store", &sending.store) ||
        !api_input_duration(api, input, "ttl", 1, TTL_MAX_MS, &sending.ttl_ms))
        return;
    const char *wrong = key && !*key ? "an idempotency key has 1 to 64 bytes" : api_check_sending(&sending);
    if (wrong) {
        api_reply_error(api, input->http, ERROR_BAD_REQUEST, wrong);
        return;
    }
    if (!api_input_payload(api, input, &payload))
        return;
    sending.content = payload.content;
    sending.payload = payload.bytes;
    struct call *call = api_call_create(api, input->http, sizeof *call, on_sent);
    const char *too_many = call ? api_take_key(api, &sending) : NULL;
    if (too_many)
        api_reply_error(api, api_call_finish(call), ERROR_LIMIT, too_many);
    else if (call && !api_send(api, &sending, &call->request))
        api_reply_error(api, api_call_finish(call), ERROR_NO_MEMORY, NULL);
    api_payload_close(&payload);
}

void api_serve_send(struct api *api, const struct api_input *input)
{
    struct address to;

    if (api_input_address(api, input, &to))
        send_payload(api, input, &to);
}

void api_serve_publish(struct api *api, const struct api_input *input)
{
    struct address to;

    if (api_input_name(api, input, ADDRESS_TOPIC, &to))
        send_payload(api, input, &to);
}

/* ---- asking ---- */

struct ask {
    struct call call;
    struct request *request; /* open as long as the call */
};

static void on_asker_gone(struct call *call)
{
    struct ask *ask = container_of(call, struct ask, call);

    api_cancel(call->api, ask->request);
    api_call_finish(call);
}

static void on_answer(void *data, int error, const struct message_fields *answer)
{
    static const char *const types[CONTENT_COUNT] = {
        [CONTENT_TEXT] = "text/plain; charset=utf-8",
        [CONTENT_BINARY] = "application/octet-stream",
        [CONTENT_JSON] = "application/json",
    };
    struct ask *ask = data;
    struct api *api = ask->call.api;
    struct api_http *http = api_call_finish(&ask->call);

    if (!http)
        return;
    if (!error) {
        api_reply(api, http, 200, types[answer->content], answer->payload);
        return;
    }
    struct buffer why;
    buffer_init(&why, 0);
    if (answer && answer->payload.len)
        buffer_append(&why, answer->payload.data, answer->payload.len);
    api_reply_error(api, http, error, why.len ? buffer_text(&why) : NULL);
    buffer_close(&why);
}

void api_serve_request(struct api *api, const struct api_input *input)
{
    struct api_sending sending = {.timeout_ms = API_TIMEOUT_DEFAULT_MS};
    uint64_t longest = api->config->request_timeout;
    struct api_payload payload;

    if (sending.timeout_ms > longest)
        sending.timeout_ms = longest;
    if (!api_input_address(api, input, &sending.to) ||
        !api_input_duration(api, input, "timeout", 1, longest, &sending.timeout_ms))
        return;
    if (sending.to.kind == ADDRESS_TOPIC) {
        api_reply_error(api, input->http, ERROR_BAD_REQUEST, "only a session or a user can be asked");
        return;
    }
    if (!api_input_payload(api, input, &payload))
        return;
    sending.content = payload.content;
    sending.payload = payload.bytes;
    struct ask *ask = api_call_create(api, input->http, sizeof *ask, NULL);
    if (ask) {
        ask->request = api_ask(api, &sending, on_answer, ask);
        if (ask->request) {
            api_call_watch(&ask->call, on_asker_gone);
            api_http_drop_body(input->http); /* it may wait for minutes */
        } else {
            api_reply_error(api, api_call_finish(&ask->call), ERROR_NO_MEMORY, NULL);
        }
    }
    api_payload_close(&payload);
}
