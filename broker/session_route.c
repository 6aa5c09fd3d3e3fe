/* From a plain client: its route says what a message does. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/frame.h"
#include "proto/payload.h"

static void log_undelivered(struct session *session, int error)
{
    struct buffer *to = &session->sessions->address;

    buffer_clear(to);
    if (!route_target(session->params, to))
        buffer_clear(to);
    log_info("message not delivered", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_bytes("to", to->data, to->len),
             log_str("reason", error_name(error)));
}

static void on_published(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session_op *op = container_of(request, struct session_op, request);
    struct session *session = op->session;
    struct metrics *metrics = session->sessions->options.metrics;

    if (error)
        metrics->publish_failed++;
    else if (result->number == 0)
        metrics->published_absent++;
    /* Once an episode: a client must not fill the log. The metrics count each. */
    bool failed = error || result->number == 0;
    if (failed && !session->complained)
        log_undelivered(session, error ? error : ERROR_ABSENT);
    session->complained = failed;
    if (session->state == SESSION_ONLINE && op->reply && !error)
        session_push(session, op->reply);
    session_inflight_end(session, op->cost, op->bytes);
    session_op_free(op);
}

/* The plain reply that the route gives to the sender of a text, or NULL when it gives none. */
static struct frame *reply_frame(struct session *session, enum message_content content, struct slice payload)
{
    const struct route *route = session->params->route;
    struct buffer text;
    struct frame *frame = NULL;

    if (!route->has_reply || content != CONTENT_TEXT)
        return NULL;
    buffer_init(&text, 0);
    if (route_expand(&route->reply, session->params, payload.data, payload.len, &text))
        frame = frame_create(FRAME_TEXT, slice_from(text.data, text.len));
    buffer_close(&text);
    return frame;
}

/* The text that is sent on: the route's template, or the message as it is. False when memory is short. */
static bool expand(struct session *session, enum message_content content, struct slice *payload)
{
    const struct route *route = session->params->route;
    struct buffer *text = &session->sessions->payload;

    if (route->action != ROUTE_ACTION_PUBLISH || content != CONTENT_TEXT || template_is_plain(&route->text))
        return true;
    buffer_clear(text);
    if (!route_expand(&route->text, session->params, payload->data, payload->len, text))
        return false;
    *payload = slice_from(text->data, text->len);
    return true;
}

/* A plain client can be told no other way. False when the payload is too large, and the session ends. */
static bool check_size(struct session *session, enum message_content content, struct slice payload)
{
    if (payload_fits(content, payload, router_max_payload(session->sessions->options.router)))
        return true;
    session->sessions->options.metrics->messages_too_big++;
    log_warn("message refused", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_str("reason", "too large in JSON or MessagePack"),
             log_int("bytes", (int64_t)payload.len));
    session_end(session, CLOSE_TOO_BIG);
    return false;
}

static void publish(struct session *session, enum message_content content, struct slice payload)
{
    static const struct storage_result nothing;
    struct sessions *sessions = session->sessions;
    char from[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct address target;
    uint64_t left_out;

    buffer_clear(&sessions->address);
    if (!route_target(session->params, &sessions->address) ||
        address_parse(slice_from(sessions->address.data, sessions->address.len), &target)) {
        if (session_may_log(session, &left_out))
            log_warn("route has no valid target here", log_slice("session", session_name(session)),
                     log_str("route", session->params->route->pattern), log_int("left_out", (int64_t)left_out));
        return;
    }
    struct session_op *op = session_op_create(session);
    if (!op) {
        sessions->options.metrics->publish_failed++;
        log_error("message dropped", log_slice("session", session_name(session)),
                  log_str("reason", error_name(ERROR_NO_MEMORY)));
        return;
    }
    op->reply = reply_frame(session, content, payload);
    op->request.on_done = on_published;
    bool replied = op->reply || !session->params->route->has_reply || content != CONTENT_TEXT;
    bool expanded = replied && expand(session, content, &payload);
    int error = ERROR_NO_MEMORY;
    /* A route's texts may make much of a message. */
    if (expanded && (!payload_fits(content, payload, router_max_payload(sessions->options.router)) ||
                     (op->reply && op->reply->len > router_max_frame(sessions->options.router))))
        error = ERROR_TOO_LARGE;
    op->bytes = payload.len;
    session_inflight_begin(session, op->cost, op->bytes);
    struct message_fields fields = {
        .kind = MESSAGE_DATA,
        .content = content,
        .time_ms = clock_wall_ms(),
        .from = slice_from(from, session_address(session, from)),
        .to = slice_from(sessions->address.data, sessions->address.len),
        .payload = payload,
    };
    size_t channel_len = address_channel(&target, channel);
    if (!expanded || error == ERROR_TOO_LARGE ||
        !router_publish(sessions->options.router, slice_from(channel, channel_len), &fields, &op->request))
        on_published(&op->request, error, &nothing);
}

static void echo(struct session *session, enum message_content content, struct slice payload)
{
    struct frame *frame = frame_create(content == CONTENT_BINARY ? FRAME_BINARY : FRAME_TEXT, payload);

    if (frame)
        session_push(session, frame);
    frame_unref(frame);
}

void session_receive_plain(struct session *session, enum message_content content, struct slice payload)
{
    enum route_action action = session->params->route->action;
    bool sent = action == ROUTE_ACTION_PUBLISH || action == ROUTE_ACTION_FORWARD;

    if ((sent || session->params->route->answers_next) && !check_size(session, content, payload))
        return;
    if (!session_answer_next(session, content, payload))
        session_act(session, content, payload);
}

void session_act(struct session *session, enum message_content content, struct slice payload)
{
    switch (session->params->route->action) {
    case ROUTE_ACTION_IGNORE:
        break;
    case ROUTE_ACTION_ECHO:
        echo(session, content, payload);
        break;
    case ROUTE_ACTION_PUBLISH:
    case ROUTE_ACTION_FORWARD:
        publish(session, content, payload);
        break;
    }
}
