#include "base/utf8.h"
#include "client/client_internal.h"
#include "client/json_text.h"
#include "proto/base64.h"

#include <inttypes.h>
#include <string.h>

struct swb_payload swb_text(const char *text)
{
    return (struct swb_payload){.kind = SWB_TEXT, .data = text, .len = text ? strlen(text) : 0};
}

struct swb_payload swb_binary(const void *data, size_t len)
{
    return (struct swb_payload){.kind = SWB_BINARY, .data = data, .len = len};
}

struct swb_payload swb_json(const char *json)
{
    return (struct swb_payload){.kind = SWB_JSON, .data = json, .len = json ? strlen(json) : 0};
}

bool write_payload(struct buffer *out, const struct swb_payload *payload)
{
    switch (payload->kind) {
    case SWB_TEXT:
        if (!payload->len)
            return true;
        if (!utf8_valid(payload->data, payload->len))
            return false;
        buffer_append_text(out, ",\"text\":");
        json_write_string(out, payload->data, payload->len);
        return !out->failed;
    case SWB_BINARY:
        buffer_append_text(out, ",\"binary\":\"");
        if (payload->len)
            base64_encode(slice_from(payload->data, payload->len), out);
        return buffer_append_text(out, "\"");
    case SWB_JSON:
        return buffer_append_text(out, ",\"data\":") &&
               json_write_value(out, payload->data ? payload->data : "", payload->len);
    }
    return false;
}

static bool text_valid(const char *text)
{
    return !text || utf8_valid(text, strlen(text));
}

/* Submits a call whose body is complete, unless `valid` says that its arguments are wrong. */
static int submit(struct call *call, bool valid)
{
    if (!valid && !call->body.failed) {
        call_destroy(call);
        return SWB_BAD_REQUEST;
    }
    return call_submit(call);
}

static int begin_send(struct swb_client *client, const char *command, const char *key, const char *target,
                      struct swb_payload payload, const struct swb_send_options *options,
                      swb_on_result *on_result, void *data)
{
    static const struct swb_send_options defaults = {.store = false};
    int error;

    if (!options)
        options = &defaults;
    if (!target || !text_valid(target) || !text_valid(options->key))
        return SWB_BAD_REQUEST;
    struct call *call = call_create(client, CALL_SEND, options->timeout, on_result, data, &error);
    if (!call)
        return error;
    call->repeatable = options->key != NULL;
    buffer_printf(&call->body, ",\"cmd\":\"%s\"", command);
    json_write_field(&call->body, key, target);
    if (options->store)
        buffer_append_text(&call->body, ",\"store\":true");
    if (options->ttl)
        buffer_printf(&call->body, ",\"ttl\":%" PRIu64, options->ttl);
    json_write_field(&call->body, "key", options->key);
    return submit(call, write_payload(&call->body, &payload));
}

int swb_begin_send(struct swb_client *client, const char *address, struct swb_payload payload,
                   const struct swb_send_options *options, swb_on_result *on_result, void *data)
{
    return begin_send(client, "send", "to", address, payload, options, on_result, data);
}

int swb_begin_publish(struct swb_client *client, const char *topic, struct swb_payload payload,
                      const struct swb_send_options *options, swb_on_result *on_result, void *data)
{
    return begin_send(client, "publish", "topic", topic, payload, options, on_result, data);
}

int swb_begin_request(struct swb_client *client, const char *address, struct swb_payload payload,
                      unsigned timeout, swb_on_result *on_result, void *data)
{
    enum { DEFAULT_TIMEOUT = 5000 };
    int error;

    if (!address || !text_valid(address))
        return SWB_BAD_REQUEST;
    struct call *call =
        call_create(client, CALL_REQUEST, timeout ? timeout : DEFAULT_TIMEOUT, on_result, data, &error);
    if (!call)
        return error;
    buffer_append_text(&call->body, ",\"cmd\":\"request\"");
    json_write_field(&call->body, "to", address);
    return submit(call, write_payload(&call->body, &payload));
}

int swb_begin_history(struct swb_client *client, const char *address,
                      const struct swb_history_options *options, swb_on_result *on_result, void *data)
{
    static const struct swb_history_options defaults = {.limit = 0};
    int error;

    if (!options)
        options = &defaults;
    if (!address || !text_valid(address) || !text_valid(options->since))
        return SWB_BAD_REQUEST;
    struct call *call = call_create(client, CALL_HISTORY, 0, on_result, data, &error);
    if (!call)
        return error;
    buffer_append_text(&call->body, ",\"cmd\":\"history\"");
    json_write_field(&call->body, "address", address);
    json_write_field(&call->body, "since", options->since);
    if (options->limit)
        buffer_printf(&call->body, ",\"limit\":%u", options->limit);
    if (options->reverse)
        buffer_append_text(&call->body, ",\"reverse\":true");
    return submit(call, true);
}

/* A command that has one text member at most. */
static int begin_simple(struct swb_client *client, enum call_kind kind, const char *command, const char *key,
                        const char *value, swb_on_result *on_result, void *data)
{
    int error;

    if (key && (!value || !text_valid(value)))
        return SWB_BAD_REQUEST;
    struct call *call = call_create(client, kind, 0, on_result, data, &error);
    if (!call)
        return error;
    buffer_printf(&call->body, ",\"cmd\":\"%s\"", command);
    if (key)
        json_write_field(&call->body, key, value);
    return submit(call, true);
}

int swb_begin_presence(struct swb_client *client, const char *address, swb_on_result *on_result, void *data)
{
    return begin_simple(client, CALL_PRESENCE, "presence", "address", address, on_result, data);
}

int swb_begin_online(struct swb_client *client, swb_on_result *on_result, void *data)
{
    return begin_simple(client, CALL_ONLINE, "online", NULL, NULL, on_result, data);
}

int swb_begin_ping(struct swb_client *client, swb_on_result *on_result, void *data)
{
    return begin_simple(client, CALL_PING, "ping", NULL, NULL, on_result, data);
}

int swb_begin_unsubscribe(struct swb_client *client, const char *topic, swb_on_result *on_result, void *data)
{
    int error = begin_simple(client, CALL_UNSUBSCRIBE, "unsubscribe", "topic", topic, on_result, data);

    if (error)
        return error;
    /* It is not restored after a reconnect from now on. */
    list_for_each_safe (link, &client->subscriptions) {
        struct subscription *sub = container_of(link, struct subscription, link);
        if (strcmp(sub->topic, topic) == 0)
            subscription_destroy(sub);
    }
    return SWB_OK;
}
