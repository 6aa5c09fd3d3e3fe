#include "base/alloc.h"
#include "client/client_internal.h"
#include "client/json_text.h"
#include "proto/base64.h"

#include <string.h>

const char *json_text(json_t *root, const char *key)
{
    json_t *value = json_object_get(root, key);
    const char *text = json_string_value(value);

    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

uint64_t json_number(json_t *root, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(root, key));

    return value > 0 ? (uint64_t)value : 0;
}

static bool use_storage(struct buffer *storage, enum swb_kind kind, struct swb_payload *payload)
{
    payload->kind = kind;
    payload->len = storage->len;
    payload->data = buffer_text(storage);
    return payload->data != NULL;
}

bool read_payload(json_t *root, struct slice text, struct swb_payload *payload, struct buffer *storage)
{
    json_t *value = json_object_get(root, "text");
    struct slice raw;

    buffer_clear(storage);
    if (json_is_string(value)) {
        *payload = (struct swb_payload){SWB_TEXT, json_string_value(value), json_string_length(value)};
        return true;
    }
    value = json_object_get(root, "binary");
    if (json_is_string(value)) {
        if (!base64_decode(slice_from(json_string_value(value), json_string_length(value)), storage))
            return false;
        return use_storage(storage, SWB_BINARY, payload);
    }
    if (!json_object_get(root, "data")) {
        *payload = (struct swb_payload){SWB_TEXT, "", 0};
        return true;
    }
    if (!json_find_member(text, "data", &raw) || !buffer_append(storage, raw.data, raw.len))
        return false;
    return use_storage(storage, SWB_JSON, payload);
}

bool read_message(json_t *root, struct slice text, struct swb_message *message, struct buffer *storage)
{
    *message = (struct swb_message){
        .to = json_text(root, "to"),
        .from = json_text(root, "from"),
        .time = json_number(root, "time"),
        .epoch = json_text(root, "epoch"),
        .offset = json_text(root, "offset"),
    };
    return message->to && read_payload(root, text, &message->payload, storage);
}

/* ---- results ------------------------------------------------------------------------------------------- */

static void finish(struct call *call, const struct swb_result *result)
{
    if (call->kind == CALL_SUBSCRIBE)
        subscription_reply(call, result);
    else if (call->kind == CALL_POSITION)
        subscription_position(call, result);
    else
        call_end(call, result);
}

static void finish_broken(struct call *call)
{
    finish(call,
           &(struct swb_result){.error = SWB_INTERNAL, .text = "the broker's answer can not be understood"});
}

static enum swb_receipt read_receipt(const char *text)
{
    static const char *const names[] = {
        [SWB_DELIVERED] = "delivered", [SWB_STORED] = "stored", [SWB_NOBODY] = "absent"};

    for (size_t i = SWB_DELIVERED; text && i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum swb_receipt)i;
    return SWB_NO_RECEIPT;
}

static void finish_request(struct call *call, json_t *ok, struct slice text, struct swb_result *result)
{
    struct buffer storage;

    buffer_init(&storage, 0);
    result->reply.to = "";
    result->reply.from = json_text(ok, "from");
    if (read_payload(ok, text, &result->reply.payload, &storage))
        finish(call, result);
    else
        finish_broken(call);
    buffer_close(&storage);
}

static void finish_history(struct call *call, json_t *ok, struct slice text, struct swb_result *result)
{
    json_t *list = json_object_get(ok, "messages");
    size_t count = json_array_size(list);
    struct swb_message *messages = mem_calloc(count, sizeof *messages);
    struct buffer *storages = mem_calloc(count, sizeof *storages);
    struct slice array, element;
    size_t at = 0, read = 0;

    if (messages && storages && (!count || json_find_member(text, "messages", &array)))
        while (read < count && json_next_element(array, &at, &element) &&
               read_message(json_array_get(list, read), element, &messages[read], &storages[read]))
            read++;
    result->messages = messages;
    result->message_count = count;
    if (read == count && messages && storages)
        finish(call, result);
    else
        finish_broken(call);
    for (size_t i = 0; storages && i < count; i++)
        buffer_close(&storages[i]);
    mem_free(storages);
    mem_free(messages);
}

static void finish_presence(struct call *call, json_t *ok, struct swb_result *result)
{
    json_t *list = json_object_get(ok, "sessions");
    size_t count = json_array_size(list);
    struct swb_present *present = mem_calloc(count, sizeof *present);

    if (!present) {
        call_fail(call, SWB_NO_MEMORY);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        json_t *entry = json_array_get(list, i);
        const char *session = json_text(entry, "session");
        if (session)
            present[result->present_count++] = (struct swb_present){session, json_text(entry, "user")};
    }
    result->present = present;
    result->online = json_is_true(json_object_get(ok, "online"));
    finish(call, result);
    mem_free(present);
}

static void finish_ok(struct call *call, json_t *ok, struct slice text)
{
    struct swb_result result = {
        .text = swb_error_text(SWB_OK),
        .receipt = read_receipt(json_text(ok, "receipt")),
        .epoch = json_text(ok, "epoch"),
        .offset = json_text(ok, "offset"),
        .recovered = json_is_true(json_object_get(ok, "recovered")),
        .count = json_number(ok, "count"),
        .time = json_number(ok, "time"),
    };

    if (call->kind == CALL_REQUEST)
        finish_request(call, ok, text, &result);
    else if (call->kind == CALL_HISTORY)
        finish_history(call, ok, text, &result);
    else if (call->kind == CALL_PRESENCE)
        finish_presence(call, ok, &result);
    else
        finish(call, &result);
}

void reply_handle(struct swb_client *client, json_t *root, struct slice text)
{
    json_t *ok = json_object_get(root, "ok");
    json_t *error = json_object_get(root, "error");
    struct call *call = calls_take(client, json_number(root, "id"));
    struct slice inner;

    if (!call)
        return; /* it was given up */
    if (json_is_object(ok) && json_find_member(text, "ok", &inner)) {
        finish_ok(call, ok, inner);
    } else if (json_is_object(error)) {
        int code = (int)json_integer_value(json_object_get(error, "code"));
        const char *why = json_text(error, "text");
        code = code > 0 && code < 900 ? code : SWB_INTERNAL;
        finish(call, &(struct swb_result){.error = code, .text = why ? why : swb_error_text(code)});
    } else {
        finish_broken(call);
    }
}
