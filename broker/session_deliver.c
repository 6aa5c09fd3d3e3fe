/* From the bus to the client. */
#include "broker/metrics.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <stdint.h>

/* ---- out ---- */

void session_push(struct session *session, struct frame *frame)
{
    struct sessions_options *options = &session->sessions->options;

    if (!outbox_push(&session->outbox, frame, options->outbox_limit)) {
        session_cut(session, CUT_OUTBOX_LIMIT);
        return;
    }
    options->metrics->messages_delivered++;
    if (session->transport)
        session->transport->ops->want_write(session->transport);
}

void session_log_oversized(struct session *session, const struct message_fields *fields)
{
    session->sessions->options.metrics->messages_too_big++;
    log_warn("message dropped", log_slice("session", session_name(session)), log_slice("to", fields->to),
             log_str("reason", error_name(ERROR_TOO_LARGE)), log_int("bytes", (int64_t)fields->payload.len));
}

void session_push_message(struct session *session, struct message *message)
{
    struct frame *frame = frame_of(message, (enum face)session->face);

    if (!frame) {
        log_error("message dropped", log_slice("session", session_name(session)),
                  log_str("reason", error_name(ERROR_NO_MEMORY)));
        /* A stored message is not lost in silence: connected anew, the client recovers it. */
        if (message->fields.offset.len && session->face != FACE_PLAIN)
            session_end(session, CLOSE_INTERNAL);
        return;
    }
    if (frame->len > router_max_frame(session->sessions->options.router)) {
        session_log_oversized(session, &message->fields);
        return;
    }
    session_push(session, frame);
}

/* ---- in ---- */

/* The notice that some connection, ours or another, now holds our exclusive name. */
static void on_takeover(struct session *session, struct slice conn)
{
    bool ours = slice_equal(conn, session_conn(session));

    if (!session->exclusive)
        return;
    if (session->waits & WAIT_NOTICE) {
        /* Before our own notice, another's concerns those that were here before us. */
        if (!ours)
            return;
        session->before_notice = session->pending_count;
        session->waits &= (uint8_t)~WAIT_NOTICE;
        session_maybe_online(session);
    } else if (!ours) {
        session->sessions->options.metrics->sessions_replaced++;
        session_end(session, CLOSE_REPLACED);
    }
}

void session_take(struct feed *feed, struct message *message)
{
    struct session *session = feed->session;
    struct subscription *subscription;

    switch (message->fields.kind) {
    case MESSAGE_DATA:
        if ((feed->memory || message->fields.offset.len) && feed_absorb(feed, message))
            return;
        session_push_message(session, message);
        break;
    case MESSAGE_REQUEST:
        session_asked(session, message);
        break;
    case MESSAGE_CANCEL:
        session_asked_cancelled(session, message);
        break;
    case MESSAGE_REPLY:
    case MESSAGE_REFUSED:
    case MESSAGE_GONE:
        if (session->sessions->options.requests)
            requests_on_answer(session->sessions->options.requests, &message->fields);
        break;
    case MESSAGE_LATE:
        session_answer_returned(session, message);
        break;
    case MESSAGE_CONTROL:
        session_order(session, message);
        break;
    case MESSAGE_JOIN:
    case MESSAGE_LEAVE:
        subscription = subscription_of(feed);
        if (subscription && subscription->events && session->face != FACE_PLAIN)
            session_push_message(session, message);
        break;
    case MESSAGE_TAKEOVER:
    case MESSAGE_PROBE:
    case MESSAGE_KIND_COUNT:
        break;
    }
}

static void on_deliver(struct subscriber *subscriber, struct message *message)
{
    struct feed *feed = container_of(subscriber, struct feed, subscriber);
    struct session *session = feed->session;

    if (session->state == SESSION_LEAVING) {
        if (message->fields.kind == MESSAGE_REQUEST)
            session_asked(session, message);
        else if (message->fields.kind == MESSAGE_REPLY && session->sessions->options.requests)
            requests_return_answer(session->sessions->options.requests, &message->fields);
    } else if (message->fields.kind == MESSAGE_TAKEOVER) {
        if (feed == &session->own)
            on_takeover(session, message->fields.correlation);
    } else if (!session->greeted) {
        if (held_append(&session->pending, &session->pending_bytes, feed, message))
            session->pending_count++;
    } else {
        session_take(feed, message);
    }
}

void feed_init(struct feed *feed, struct session *session,
               void (*on_subscribed)(struct subscriber *subscriber, int error))
{
    *feed = (struct feed){.session = session};
    subscriber_init(&feed->subscriber);
    feed->subscriber.on_subscribed = on_subscribed;
    feed->subscriber.deliver = on_deliver;
}
