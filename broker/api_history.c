/* The stored messages of an address. */
#include "broker/api_internal.h"

#include "broker/session_internal.h"
#include "proto/push.h"

#include <string.h>

enum { LIMIT_DEFAULT = 100, LIMIT_MAX = 1000, BYTES_MAX = 16 << 20 };

struct history {
    struct call call;
    struct address address;
    char name[ADDRESS_NAME_MAX + 1]; /* the address's points here */
    bool since;                      /* it was asked whether something is missing */
    size_t limit, epoch_len;
    bool reverse;
    char epoch[EPOCH_MAX + 1], offset[OFFSET_MAX + 1]; /* an epoch one too long is none of ours */
};

static void write_history(const struct history *history, const struct storage_result *result,
                          struct writer *writer)
{
    struct slice cursor = result->cursor;
    char to[ADDRESS_MAX + 1];

    writer_map(writer, 5);
    if (history->since)
        writer_pair_bool(writer, "recovered", result->number > 0);
    if (result->offset.len) {
        writer_pair_str(writer, "epoch", result->epoch);
        writer_pair_str(writer, "offset", result->offset);
    }
    writer_key(writer, "messages");
    writer_array(writer, result->record_count);
    for (size_t i = 0; i < result->record_count; i++) {
        struct writer_mark before = writer_mark(writer);
        struct message_fields fields;
        session_history_fields(&result->records[i], &fields);
        fields.to = slice_from(to, address_format(&history->address, to));
        push_write_message(writer, &fields);
        if (!i || writer->out->len <= BYTES_MAX)
            continue;
        writer_rewind(writer, before);
        cursor = result->records[i - 1].key;
        break;
    }
    writer_end(writer);
    if (cursor.len)
        writer_pair_str(writer, "cursor", cursor);
    writer_end(writer);
}

static void on_history(struct storage_request *request, int error, const struct storage_result *result)
{
    struct history *history = container_of(request, struct history, call.request);
    struct api *api = history->call.api;
    struct buffer json;
    struct writer writer;

    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    if (!error && history->call.http)
        write_history(history, result, &writer);
    struct api_http *http = api_call_finish(&history->call);
    if (http && error)
        api_reply_error(api, http, error, error == ERROR_BAD_REQUEST ? "\"since\" is no offset" : NULL);
    else if (http)
        api_reply_json(api, http, 200, &json);
    buffer_close(&json);
}

static void ask_storage(struct call *call)
{
    struct history *history = container_of(call, struct history, call);
    const struct storage_history_query query = {
        .offset = slice_text(history->offset),
        .epoch = slice_from(history->epoch, history->epoch_len),
        .limit = history->limit,
        .bytes = call->api->config->read_size,
        .reverse = history->reverse,
    };
    char channel[CHANNEL_MAX];

    storage_history(call->api->options.storage,
                    slice_from(channel, address_channel(&history->address, channel)), &query, &call->request);
}

static void ask_history(struct api *api, const struct api_input *input, const struct address *address)
{
    const struct slice *since = api_query_find(input->query, "since");
    const struct slice *epoch = api_query_find(input->query, "epoch");
    uint64_t limit = LIMIT_DEFAULT;
    bool reverse = false;

    if (!api_input_number(api, input, "limit", 1, LIMIT_MAX, &limit) ||
        !api_input_bool(api, input, "reverse", &reverse))
        return;
    if (since && since->len > OFFSET_MAX) {
        api_reply_error(api, input->http, ERROR_BAD_REQUEST, "\"since\" is no offset");
        return;
    }
    struct history *history = api_call_create(api, input->http, sizeof *history, on_history);
    if (!history)
        return;
    memcpy(history->name, address->name.data, address->name.len);
    history->address = (struct address){address->kind, slice_from(history->name, address->name.len)};
    history->since = since && !reverse;
    history->limit = (size_t)limit;
    history->reverse = reverse;
    if (since && since->len)
        memcpy(history->offset, since->data, since->len);
    if (epoch && epoch->len) {
        history->epoch_len = epoch->len < sizeof history->epoch ? epoch->len : sizeof history->epoch;
        memcpy(history->epoch, epoch->data, history->epoch_len);
    }
    api_call_read(&history->call, ask_storage);
}

void api_serve_history(struct api *api, const struct api_input *input)
{
    struct address address;

    if (api_input_address(api, input, &address))
        ask_history(api, input, &address);
}

void api_serve_topic_history(struct api *api, const struct api_input *input)
{
    struct address topic;

    if (api_input_name(api, input, ADDRESS_TOPIC, &topic))
        ask_history(api, input, &topic);
}
