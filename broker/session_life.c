/* A session's life.
 *
 *   REGISTERING  its channels are being subscribed, then it is registered. Messages for it are held; the client isn't
 *                read, so nothing that it sends early is lost or overtaken.
 *   ONLINE       messages flow. Exclusive names only: the way here leads through the takeover notice (see below).
 *   LEAVING      the connection is closing or gone; it unsubscribes at the end of the turn and leaves the registry.
 *                It is freed when the connection is gone, the registry has answered and nothing of it is on its way.
 *
 * Takeover. Registering an exclusive name publishes a notice on the name's channel, to which this session and the former
 * holder are both subscribed. The former holder closes at the notice; this one delivers what comes after it. What came
 * before the notice belongs to the former holder, and is dropped here; but only if there was one, which the registry's
 * answer tells. So an exclusive session is online when it has both the notice and the answer, in either order. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <string.h>

/* ---- coming online ---- */

struct storage_session session_storage_view(struct session *session)
{
    struct address address;
    struct slice text;
    bool user = session_route_address(session, &address, &text) && address.kind == ADDRESS_USER;

    return (struct storage_session){
        .name = session_name(session),
        .conn = session_conn(session),
        .user = user ? address.name : slice_from(NULL, 0),
        .route = slice_text(session->params->route->pattern),
        .face = slice_text(face_name((enum face)session->face)),
        .remote = session_remote(session),
        .agent = session_agent(session),
        .connected_at_ms = session->connected_at_ms,
    };
}

/* Asks the registry to hold the session; false, and the session ends, when memory is short. */
bool session_register(struct session *session, bool restore,
                      void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    struct sessions *sessions = session->sessions;
    struct storage_session view = session_storage_view(session);
    struct buffer notice;
    char address[ADDRESS_MAX + 1];

    buffer_init(&notice, 0);
    if (session->exclusive) {
        size_t len = session_address(session, address);
        struct message_fields fields = {
            .kind = MESSAGE_TAKEOVER,
            .to = slice_from(address, len),
            .time_ms = clock_wall_ms(),
            .correlation = session_conn(session),
        };
        if (!envelope_encode(&fields, &notice)) {
            session_end(session, CLOSE_UNAVAILABLE);
            return false;
        }
    }
    session->asking = true;
    session->registered = true;
    session->registry.on_done = on_done;
    storage_register(sessions->options.storage, &view, slice_from(notice.data, notice.len), restore,
                     &session->registry);
    buffer_close(&notice);
    return true;
}

static void on_online_counted(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session_op *op = container_of(request, struct session_op, request);
    struct session *session = op->session;
    struct log_field online = log_int("online", result->number);

    log_info("session online", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_str("route", session->params->route->pattern),
             log_str("face", face_name((enum face)session->face)),
             log_slice("remote", session_remote(session)), error ? log_str("online", "unknown") : online);
    session_op_free(op);
}

/* Asks for the number of sessions everywhere; the answer ends up in a log line. */
static void count_sessions(struct session *session,
                           void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    struct session_op *op = log_threshold >= LOG_LEVEL_INFO ? session_op_create(session) : NULL;

    if (!op)
        return;
    op->request.on_done = on_done;
    storage_count(session->sessions->options.storage, &op->request);
}

/* What came while it registered is taken now. */
static void take_pending(struct session *session)
{
    while (!list_empty(&session->pending) && session->state == SESSION_ONLINE) {
        struct held_message *held = container_of(session->pending.next, struct held_message, link);
        session_take(held->feed, held->message);
        held_drop(&session->pending, 1);
    }
    session->pending_count = 0;
    session->pending_bytes = 0;
}

void session_greet(struct session *session)
{
    session->greeted = true;
    take_pending(session);
    session_settle(session);
}

void session_maybe_online(struct session *session)
{
    struct sessions *sessions = session->sessions;
    struct feed *shared = session->exclusive ? &session->own : &session->group;

    if (session->waits || session->state != SESSION_REGISTERING)
        return;
    if (session->succeeds)
        held_drop(&session->pending, session->before_notice);
    session->opened = true;
    sessions->options.metrics->sessions_opened++;
    session_set_state(session, SESSION_ONLINE);
    count_sessions(session, on_online_counted);
    if (session->restore_again)
        session_restore_later(session);
    if (shared->memory) {
        feed_recover(shared, RECOVER_HELLO, 0);
        return;
    }
    if (session->face != FACE_PLAIN)
        session_push_hello(session, NULL);
    session_greet(session);
}

static void on_registry_done(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);

    session->asking = false;
    if (session->state == SESSION_LEAVING) {
        session_leave_registry(session);
        return;
    }
    if (error) {
        log_warn("session not registered", log_slice("session", session_name(session)),
                 log_str("reason", error_name(error)));
        session_end(session, CLOSE_UNAVAILABLE);
        return;
    }
    session->succeeds = result->number == STORAGE_REPLACED_SOMEBODY;
    session->waits &= (uint8_t)~WAIT_REGISTER;
    session_maybe_online(session);
}

static void on_subscribed(struct session *session, unsigned wait, int error)
{
    if (session->state != SESSION_REGISTERING)
        return;
    if (error) {
        log_warn("session not subscribed", log_slice("session", session_name(session)),
                 log_str("reason", error_name(error)));
        session_end(session, CLOSE_UNAVAILABLE);
        return;
    }
    session->waits &= (uint8_t)~wait;
    if (!(session->waits & (WAIT_OWN | WAIT_GROUP)))
        (void)!session_register(session, false, on_registry_done);
}

void session_on_own_subscribed(struct subscriber *subscriber, int error)
{
    on_subscribed(container_of(subscriber, struct feed, subscriber)->session, WAIT_OWN, error);
}

void session_on_group_subscribed(struct subscriber *subscriber, int error)
{
    on_subscribed(container_of(subscriber, struct feed, subscriber)->session, WAIT_GROUP, error);
}

/* ---- leaving ---- */

/* A session that fails to come online still gives its client what the bus has delivered to it; of an exclusive name, what came
 * after the notice: the rest is the former holder's. A structured client can't take it without a hello. */
static void flush_pending(struct session *session)
{
    held_drop(&session->pending, session->waits & WAIT_NOTICE ? SIZE_MAX : session->before_notice);
    while (session->face == FACE_PLAIN && !list_empty(&session->pending)) {
        struct held_message *held = container_of(session->pending.next, struct held_message, link);
        struct frame *frame =
            held->message->fields.kind == MESSAGE_DATA ? frame_of(held->message, FACE_PLAIN) : NULL;
        if (frame && !outbox_push(&session->outbox, frame, session->sessions->options.outbox_limit))
            return;
        held_drop(&session->pending, 1);
    }
}

void session_end(struct session *session, int code)
{
    struct sessions *sessions = session->sessions;

    if (session->state == SESSION_LEAVING)
        return;
    if (session->state == SESSION_REGISTERING && session->transport && code != CLOSE_SLOW_READER)
        flush_pending(session);
    session->close_code = (uint16_t)code;
    if (session->transport && session->greeted && session->face != FACE_PLAIN)
        session_push_disconnect(session, code);
    if (session->state == SESSION_LEAVING)
        return; /* that was too much for a slow reader */
    session_set_state(session, SESSION_LEAVING);
    session_leave_queue(session);
    if (session->extra)
        reader_release(&session->extra->reader);
    list_remove(&session->link);
    list_append(&sessions->ended, &session->link);
    loop_defer(sessions->options.loop, &sessions->teardown_task);
    if (session->transport)
        session->transport->ops->close(session->transport, code);
}

void session_detach(struct session *session, int code)
{
    session->transport = NULL;
    session_end(session, code);
    session_maybe_free(session);
}

void sessions_on_teardown(struct loop_task *task)
{
    struct sessions *sessions = container_of(task, struct sessions, teardown_task);

    for (struct list *link; (link = list_pop(&sessions->ended));) {
        struct session *session = container_of(link, struct session, link);
        list_append(&sessions->states[SESSION_LEAVING], link);
        router_unsubscribe(sessions->options.router, &session->own.subscriber);
        router_unsubscribe(sessions->options.router, &session->group.subscriber);
        session_drop_input(session);
        session_requests_drop(session);
        session_topics_drop(session);
        if (!session->asking)
            session_leave_registry(session);
    }
}

static void on_offline_counted(struct storage_request *request, int error,
                               const struct storage_result *result)
{
    struct session_op *op = container_of(request, struct session_op, request);
    struct session *session = op->session;
    struct log_field online = log_int("online", result->number);

    log_info("session offline", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_int("code", session->close_code),
             log_str("reason", session->close_code ? error_name(session->close_code) : "lost"),
             log_int("duration_ms", (int64_t)(clock_wall_ms() - session->connected_at_ms)),
             error ? log_str("online", "unknown") : online);
    session_op_free(op);
}

static void on_unregistered(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);

    (void)result;
    session->asking = false;
    /* The registry still holds it, so it waits here until the storage is back, or until the next try. */
    session->registered = error && error != ERROR_CANCELLED;
    if (session->registered && !session_is_outage(error))
        sessions_retry_later(session->sessions);
    if (!session->registered)
        session_requests_gone(session);
    if (!session->registered && session->opened) {
        session->sessions->options.metrics->sessions_closed++;
        count_sessions(session, on_offline_counted);
    }
    session_maybe_free(session);
}

/* Tells the registry to forget the session, if it may hold it and isn't being asked about it already. */
void session_leave_registry(struct session *session)
{
    if (session->registered && !session->asking) {
        struct storage_session view = session_storage_view(session);
        session->asking = true;
        session->registry.on_done = on_unregistered;
        storage_unregister(session->sessions->options.storage, &view, &session->registry);
        return;
    }
    session_maybe_free(session);
}
