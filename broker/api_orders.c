/* Orders of an operator: to a session, to leave; to an instance, to drain. Both go over the bus, so any instance takes them. */
#include "broker/api_internal.h"

#include "base/clock.h"
#include "base/utf8.h"
#include "broker/broker.h"
#include "broker/router.h"


enum { REASON_MAX = 123, CODE_FIRST = 3000, CODE_LAST = 4999 }; /* RFC 6455 sections 5.5 and 7.4.2 */

static void reply_delivered(struct api *api, struct api_http *http)
{
    struct buffer json;
    struct writer writer;

    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    writer_map(&writer, 1);
    writer_pair_str(&writer, "receipt", slice_text("delivered"));
    writer_end(&writer);
    api_reply_json(api, http, 202, &json);
}

static void on_ordered(struct storage_request *request, int error, const struct storage_result *result)
{
    struct call *call = container_of(request, struct call, request);
    struct api *api = call->api;
    struct api_http *http = api_call_finish(call);

    if (!http)
        return;
    if (error || result->number == 0)
        api_reply_error(api, http, error ? error : ERROR_ABSENT,
                        error ? NULL : "there is nobody of this name");
    else
        reply_delivered(api, http);
}

static void give_order(struct api *api, const struct api_input *input, const struct address *to,
                       struct slice order)
{
    const struct address self = {.kind = ADDRESS_INSTANCE, .name = slice_text(api->options.instance)};
    char from[ADDRESS_MAX + 1], to_text[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct call *call = api_call_create(api, input->http, sizeof *call, on_ordered);
    struct message_fields fields = {
        .kind = MESSAGE_CONTROL,
        .content = CONTENT_JSON,
        .time_ms = clock_wall_ms(),
        .from = slice_from(from, address_format(&self, from)),
        .to = slice_from(to_text, address_format(to, to_text)),
        .payload = order,
    };

    if (call && !router_publish(api->options.router, slice_from(channel, address_channel(to, channel)),
                                &fields, &call->request))
        api_reply_error(api, api_call_finish(call), ERROR_NO_MEMORY, NULL);
}

void api_serve_kick(struct api *api, const struct api_input *input)
{
    const struct slice *reason = api_query_find(input->query, "reason");
    struct address session;
    struct buffer order;
    struct writer writer;
    uint64_t code = CLOSE_KICKED;

    if (!api_input_name(api, input, ADDRESS_SESSION, &session) ||
        !api_input_number(api, input, "code", CLOSE_NORMAL, CODE_LAST, &code))
        return;
    if (code != CLOSE_NORMAL && code < CODE_FIRST) {
        api_reply_error(api, input->http, ERROR_BAD_REQUEST, "\"code\" must be 1000 or from 3000 to 4999");
        return;
    }
    if (reason && (reason->len > REASON_MAX || !utf8_valid(reason->data, reason->len))) {
        api_reply_error(api, input->http, ERROR_BAD_REQUEST, "\"reason\" must be UTF-8 of at most 123 bytes");
        return;
    }
    buffer_init(&order, 0);
    writer_begin(&writer, FACE_JSON, &order);
    writer_map(&writer, 2u + (reason != NULL));
    writer_pair_str(&writer, "do", slice_text("kick"));
    writer_pair_int(&writer, "code", (int64_t)code);
    if (reason)
        writer_pair_str(&writer, "reason", *reason);
    writer_end(&writer);
    if (order.failed)
        api_reply_error(api, input->http, ERROR_NO_MEMORY, NULL);
    else
        give_order(api, input, &session, slice_from(order.data, order.len));
    buffer_close(&order);
}

static void on_drain_answered(void *data)
{
    struct api *api = data;

    if (!api->closing)
        api->options.on_drain(api->options.data);
}

/* An instance that nobody is connected to ends at once, so its own order waits for the answer to be written. */
static void drain_self(struct api *api, struct api_http *http)
{
    api_http_on_sent(http, on_drain_answered, api);
    reply_delivered(api, http);
}

void api_serve_drain(struct api *api, const struct api_input *input)
{
    struct address instance;

    if (!api_input_name(api, input, ADDRESS_INSTANCE, &instance))
        return;
    if (api->options.on_drain && slice_is(instance.name, api->options.instance))
        drain_self(api, input->http);
    else
        give_order(api, input, &instance, slice_text(ORDER_DRAIN));
}
