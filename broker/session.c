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
 * answer tells. So an exclusive session is online when it has both the notice and the answer, in either order.
 *
 * Failures. While the storage is down, sessions stay open, but those still REGISTERING are told to reconnect. A session
 * that leaves meanwhile stays in LEAVING, without its connection, until the registry can be told. When the registry lost
 * us, every online session is registered anew, in batches, and then recovers what was stored meanwhile. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    AGENT_MAX = 64, /* Redis packs a hash tightly only while its values are at most 64 bytes */
    CONN_MAX = 24,
    RESTORE_BATCH = 256,
    OP_POOL_MAX = 1024,
};

/* ---- the set ---- */

static void on_teardown(struct loop_task *task);
static void on_restore(struct loop_task *task);
static void leave_registry(struct session *session);
static void on_retry(evutil_socket_t fd, short what, void *data);

static void write_base32(uint64_t value, char *out, size_t digits)
{
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

    for (size_t i = digits; i-- > 0; value >>= 5)
        out[i] = alphabet[value & 31];
    out[digits] = '\0';
}

struct sessions *sessions_create(const struct sessions_options *options)
{
    struct sessions *sessions = mem_calloc(1, sizeof *sessions);
    uint64_t random = 0;

    if (!sessions)
        return NULL;
    sessions->options = *options;
    for (size_t i = 0; i < SESSION_STATE_COUNT; i++)
        list_init(&sessions->states[i]);
    list_init(&sessions->restoring);
    list_init(&sessions->ended);
    list_init(&sessions->op_pool);
    loop_task_init(&sessions->teardown_task, on_teardown);
    loop_task_init(&sessions->restore_task, on_restore);
    buffer_init(&sessions->address, 0);
    buffer_init(&sessions->payload, 0);
    buffer_init(&sessions->frame, 0);
    /* A conn is unique for ever: 50 random bits for this process, then a count. */
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = clock_wall_ms() << 20 ^ clock_monotonic_us();
    write_base32(random, sessions->conn_prefix, 10);
    sessions->retry = event_new(loop_base(options->loop), -1, 0, on_retry, sessions);
    if (!sessions->retry) {
        mem_free(sessions);
        return NULL;
    }
    return sessions;
}

/* What is left in it when the storage was destroyed first; otherwise it is empty. */
static void session_extra_free(struct session *session)
{
    struct session_extra *extra = session->extra;

    if (!extra)
        return;
    while (!list_empty(&extra->subscriptions)) {
        struct subscription *subscription =
            container_of(extra->subscriptions.next, struct subscription, link);
        list_remove(&subscription->link);
        feed_close(&subscription->feed);
        mem_free(subscription);
    }
    for (struct list *link; (link = list_pop(&extra->asked));)
        mem_free(container_of(link, struct asked, link));
    for (struct list *link; (link = list_pop(&extra->asking));)
        mem_free(container_of(link, struct asking, link));
    mem_free(extra);
}

static void session_free(struct session *session)
{
    list_remove(&session->link);
    outbox_close(&session->outbox);
    held_drop(&session->pending, SIZE_MAX);
    feed_close(&session->own);
    feed_close(&session->group);
    session_extra_free(session);
    mem_free(session->params);
    config_unref(session->config);
    mem_free(session);
}

void sessions_set_limits(struct sessions *sessions, size_t outbox_limit, size_t inflight_limit,
                         size_t inflight_bytes)
{
    sessions->options.outbox_limit = outbox_limit;
    sessions->options.inflight_limit = inflight_limit;
    sessions->options.inflight_bytes = inflight_bytes;
}

void sessions_destroy(struct sessions *sessions)
{
    if (!sessions)
        return;
    loop_cancel(&sessions->teardown_task);
    loop_cancel(&sessions->restore_task);
    event_free(sessions->retry);
    /* Those that ended in the last turn, and those that waited for the storage to come back. */
    list_splice(&sessions->ended, &sessions->restoring);
    for (size_t i = 0; i < SESSION_STATE_COUNT; i++)
        list_splice(&sessions->ended, &sessions->states[i]);
    while (!list_empty(&sessions->ended))
        session_free(container_of(sessions->ended.next, struct session, link));
    for (struct list *link; (link = list_pop(&sessions->op_pool));)
        mem_free(container_of(link, struct session_op, pool_link));
    buffer_close(&sessions->address);
    buffer_close(&sessions->payload);
    buffer_close(&sessions->frame);
    mem_free(sessions);
}

size_t sessions_online(const struct sessions *sessions)
{
    return sessions->online;
}

size_t sessions_total(const struct sessions *sessions)
{
    return sessions->total;
}

static void set_state(struct session *session, enum session_state state)
{
    struct sessions *sessions = session->sessions;

    if (session->state == SESSION_ONLINE)
        sessions->online--;
    if (state == SESSION_ONLINE)
        sessions->online++;
    session->state = (uint8_t)state;
    list_remove(&session->link);
    list_append(&sessions->states[state], &session->link);
}

/* ---- strings ---- */

/* The longest start of `text` that is whole characters and fits `max` bytes. */
static size_t cut_text(struct slice text, size_t max)
{
    size_t len = text.len < max ? text.len : max;

    while (len && len < text.len && ((unsigned char)text.data[len] & 0xc0) == 0x80)
        len--;
    return len;
}

struct slice session_name(const struct session *session)
{
    return slice_from(session->strings, session->name_len);
}

struct slice session_conn(const struct session *session)
{
    return slice_from(session->strings + session->name_len, session->conn_len);
}

struct slice session_remote(const struct session *session)
{
    return slice_from(session_conn(session).data + session->conn_len, session->remote_len);
}

static struct slice session_agent(const struct session *session)
{
    return slice_from(session_remote(session).data + session->remote_len, session->agent_len);
}

size_t session_address(const struct session *session, char out[static ADDRESS_MAX + 1])
{
    struct address address = {.kind = ADDRESS_SESSION, .name = session_name(session)};

    return address_format(&address, out);
}

bool session_route_address(struct session *session, struct address *address, struct slice *text)
{
    struct buffer *scratch = &session->sessions->address;

    buffer_clear(scratch);
    if (!session->params->route->has_address || !route_address(session->params, scratch))
        return false;
    *text = slice_from(scratch->data, scratch->len);
    return !address_parse(*text, address);
}

struct slice session_close_reason(const struct session *session)
{
    if (session->extra && session->extra->close_reason[0])
        return slice_text(session->extra->close_reason);
    return slice_text(error_name(session->close_code));
}

void session_set_close_reason(struct session *session, const char *reason)
{
    struct session_extra *extra = reason ? session_extra(session) : NULL;

    if (extra)
        snprintf(extra->close_reason, sizeof extra->close_reason, "%.*s",
                 (int)cut_text(slice_text(reason), CLOSE_REASON_MAX), reason);
}

/* ---- operations ---- */

struct session_op *session_op_create(struct session *session)
{
    struct sessions *sessions = session->sessions;
    struct list *link = list_pop(&sessions->op_pool);
    struct session_op *op = link ? container_of(link, struct session_op, pool_link) : mem_alloc(sizeof *op);

    if (!op)
        return NULL;
    if (link)
        sessions->op_pool_count--;
    *op = (struct session_op){.session = session};
    session->ops++;
    return op;
}

void session_op_free(struct session_op *op)
{
    struct session *session = op->session;
    struct sessions *sessions = session->sessions;

    frame_unref(op->reply);
    mem_free(op->name);
    if (sessions->op_pool_count < OP_POOL_MAX) {
        list_prepend(&sessions->op_pool, &op->pool_link);
        sessions->op_pool_count++;
    } else {
        mem_free(op);
    }
    session->ops--;
    session_maybe_free(session);
}

bool session_op_keep_address(struct session_op *op, const struct address *address)
{
    op->name = mem_dup(address->name.data, address->name.len);
    op->address = (struct address){.kind = address->kind, .name = slice_from(op->name, address->name.len)};
    return op->name != NULL;
}

void session_inflight_begin(struct session *session, struct session_op *op)
{
    const struct sessions_options *options = &session->sessions->options;

    session->inflight++;
    session->inflight_bytes += op->bytes;
    if (session->paused || session->state != SESSION_ONLINE ||
        (session->inflight < options->inflight_limit && session->inflight_bytes < options->inflight_bytes))
        return;
    session->paused = true;
    session->transport->ops->set_reading(session->transport, false);
}

void session_inflight_end(struct session *session, struct session_op *op)
{
    const struct sessions_options *options = &session->sessions->options;

    session->inflight--;
    session->inflight_bytes -= op->bytes;
    if (!session->paused || session->state != SESSION_ONLINE ||
        session->inflight > options->inflight_limit / 2 ||
        session->inflight_bytes > options->inflight_bytes / 2)
        return;
    session->paused = false;
    session->transport->ops->set_reading(session->transport, true);
}

struct session_extra *session_extra(struct session *session)
{
    if (session->extra)
        return session->extra;
    session->extra = mem_calloc(1, sizeof *session->extra);
    if (!session->extra)
        return NULL;
    list_init(&session->extra->subscriptions);
    list_init(&session->extra->asked);
    list_init(&session->extra->asking);
    return session->extra;
}

void session_maybe_free(struct session *session)
{
    struct sessions *sessions = session->sessions;

    if (session->state != SESSION_LEAVING || session->transport || session->asking || session->registered ||
        session->ops || session->own.subscriber.channel || session->group.subscriber.channel ||
        (session->extra && session->extra->subscription_count))
        return;
    session_free(session);
    if (--sessions->total == 0 && sessions->options.on_idle)
        sessions->options.on_idle(sessions->options.data);
}

struct outbox *session_outbox(struct session *session)
{
    return session->state == SESSION_REGISTERING ? NULL : &session->outbox;
}

void session_drained(struct session *session)
{
    session_recover_continue(session);
}

void session_receive(struct session *session, enum message_content content, struct slice payload)
{
    struct metrics *metrics = session->sessions->options.metrics;

    if (session->state != SESSION_ONLINE)
        return;
    metrics->messages_received++;
    metrics->bytes_received += payload.len;
    if (session->face == FACE_PLAIN)
        session_receive_plain(session, content, payload);
    else
        session_receive_frames(session, content, payload);
}

void session_refuse_frame(struct session *session, const char *why)
{
    log_warn("frame refused", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_str("reason", why));
    session_set_close_reason(session, why);
    session_end(session, CLOSE_BAD_FRAME);
}

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
static bool register_session(struct session *session, bool restore)
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

static void restore_later(struct session *session)
{
    struct sessions *sessions = session->sessions;

    session->restore_again = false;
    list_remove(&session->link);
    list_append(&sessions->restoring, &session->link);
    loop_defer(sessions->options.loop, &sessions->restore_task);
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
    if (session->state == SESSION_ONLINE)
        session->transport->ops->set_reading(session->transport, true);
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
    set_state(session, SESSION_ONLINE);
    count_sessions(session, on_online_counted);
    if (session->restore_again)
        restore_later(session);
    if (shared->memory) {
        feed_recover(shared, RECOVER_HELLO, 0);
        take_pending(session);
        return;
    }
    if (session->face != FACE_PLAIN)
        session_push_hello(session, NULL);
    take_pending(session);
    session_greet(session);
}

static void on_registry_done(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);

    session->asking = false;
    if (session->state == SESSION_LEAVING) {
        leave_registry(session);
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
        (void)register_session(session, false);
}

static void on_own_subscribed(struct subscriber *subscriber, int error)
{
    on_subscribed(container_of(subscriber, struct feed, subscriber)->session, WAIT_OWN, error);
}

static void on_group_subscribed(struct subscriber *subscriber, int error)
{
    on_subscribed(container_of(subscriber, struct feed, subscriber)->session, WAIT_GROUP, error);
}

/* ---- opening ---- */

/* Allocates the session with its strings. A shared address's session is NAME~CONN, and since a conn is unique
 * the name before it may be cut; an exclusive one bears the address's name. */
static struct session *session_alloc(struct sessions *sessions, const struct session_params *params,
                                     const struct address *address)
{
    bool exclusive = address && address->kind == ADDRESS_SESSION;
    struct slice base = address ? address->name : slice_text("anonymous");
    char conn[CONN_MAX];
    int conn_len = snprintf(conn, sizeof conn, "%s%llx", sessions->conn_prefix,
                            (unsigned long long)sessions->conn_count++);
    size_t base_len = exclusive ? base.len : cut_text(base, ADDRESS_NAME_MAX - 1 - (size_t)conn_len);
    size_t name_len = exclusive ? base_len : base_len + 1 + (size_t)conn_len;
    size_t agent_len = cut_text(params->agent, AGENT_MAX);
    struct session *session =
        mem_calloc(1, sizeof *session + name_len + (size_t)conn_len + params->remote.len + agent_len);

    if (!session)
        return NULL;
    char *at = session->strings;
    memcpy(at, base.data, base_len);
    if (!exclusive) {
        at[base_len] = '~';
        memcpy(at + base_len + 1, conn, (size_t)conn_len);
    }
    at += name_len;
    memcpy(at, conn, (size_t)conn_len);
    at += conn_len;
    memcpy(at, params->remote.data, params->remote.len);
    at += params->remote.len;
    memcpy(at, params->agent.data, agent_len);
    session->exclusive = exclusive;
    session->name_len = (uint16_t)name_len;
    session->conn_len = (uint8_t)conn_len;
    session->remote_len = (uint16_t)params->remote.len;
    session->agent_len = (uint16_t)agent_len;
    return session;
}

static void subscribe(struct session *session, struct feed *feed, const struct address *address)
{
    char channel[CHANNEL_MAX];
    size_t len = address_channel(address, channel);

    router_subscribe(session->sessions->options.router, slice_from(channel, len), &feed->subscriber);
}

static bool prepare_feeds(struct session *session, const struct session_params *params)
{
    struct feed *shared = session->exclusive ? &session->own : &session->group;

    feed_init(&session->own, session, on_own_subscribed);
    feed_init(&session->group, session, on_group_subscribed);
    return !params->since || !session->params->route->has_address ||
           feed_remember(shared, params->since_epoch, params->since_offset);
}

struct session *session_open(struct sessions *sessions, const struct session_params *params,
                             struct session_transport *transport)
{
    struct address address, own;
    bool has_address = params->route_params->route->has_address;

    buffer_clear(&sessions->address);
    if (has_address && (!route_address(params->route_params, &sessions->address) ||
                        address_parse(slice_from(sessions->address.data, sessions->address.len), &address)))
        return NULL;
    struct session *session = session_alloc(sessions, params, has_address ? &address : NULL);
    if (!session)
        return NULL;
    session->sessions = sessions;
    session->params = route_params_keep(params->route_params);
    if (!session->params || !prepare_feeds(session, params)) {
        mem_free(session->params);
        mem_free(session);
        return NULL;
    }
    session->config = config_ref(params->config);
    session->transport = transport;
    session->face = (uint8_t)params->face;
    session->connected_at_ms = clock_wall_ms();
    session->registry.on_done = on_registry_done;
    outbox_init(&session->outbox);
    list_init(&session->pending);
    list_init(&session->link);
    list_append(&sessions->states[SESSION_REGISTERING], &session->link);
    sessions->total++;

    bool grouped = has_address && !session->exclusive;
    session->waits = (uint8_t)(WAIT_OWN | (grouped ? WAIT_GROUP : 0) | WAIT_REGISTER |
                               (session->exclusive ? WAIT_NOTICE : 0));
    own = (struct address){.kind = ADDRESS_SESSION, .name = session_name(session)};
    if (grouped)
        subscribe(session, &session->group, &address);
    subscribe(session, &session->own, &own);
    return session;
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
    if (session->transport && session->state == SESSION_ONLINE && session->face != FACE_PLAIN)
        session_push_disconnect(session, code);
    if (session->state == SESSION_LEAVING)
        return; /* that was too much for a slow reader */
    set_state(session, SESSION_LEAVING);
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

static void on_teardown(struct loop_task *task)
{
    struct sessions *sessions = container_of(task, struct sessions, teardown_task);

    for (struct list *link; (link = list_pop(&sessions->ended));) {
        struct session *session = container_of(link, struct session, link);
        list_append(&sessions->states[SESSION_LEAVING], link);
        router_unsubscribe(sessions->options.router, &session->own.subscriber);
        router_unsubscribe(sessions->options.router, &session->group.subscriber);
        session_requests_drop(session);
        session_topics_drop(session);
        if (!session->asking)
            leave_registry(session);
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

/* After these the storage reports when it is back, and all is told to it again. */
static bool is_outage(int error)
{
    return error == ERROR_UNAVAILABLE || error == ERROR_TIMEOUT || error == ERROR_CANCELLED;
}

static void retry_later(struct sessions *sessions)
{
    static const struct timeval delay = {.tv_sec = 1};

    if (!event_pending(sessions->retry, EV_TIMEOUT, NULL))
        event_add(sessions->retry, &delay);
}

static void on_unregistered(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);

    (void)result;
    session->asking = false;
    /* The registry still holds it, so it waits here until the storage is back, or until the next try. */
    session->registered = error && error != ERROR_CANCELLED;
    if (session->registered && !is_outage(error))
        retry_later(session->sessions);
    if (!session->registered)
        session_requests_gone(session);
    if (!session->registered && session->opened) {
        session->sessions->options.metrics->sessions_closed++;
        count_sessions(session, on_offline_counted);
    }
    session_maybe_free(session);
}

/* Tells the registry to forget the session, if it may hold it and isn't being asked about it already. */
static void leave_registry(struct session *session)
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

size_t sessions_end_some(struct sessions *sessions, size_t count, int code)
{
    struct list *lists[] = {&sessions->restoring, &sessions->states[SESSION_ONLINE],
                            &sessions->states[SESSION_REGISTERING]};

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (; count && !list_empty(lists[i]); count--)
            session_end(container_of(lists[i]->next, struct session, link), code);
    size_t leaving = 0;
    list_for_each (link, &sessions->ended)
        leaving++;
    list_for_each (link, &sessions->states[SESSION_LEAVING])
        leaving++;
    return sessions->total - leaving;
}

/* ---- outages ---- */

void sessions_on_storage_down(struct sessions *sessions)
{
    /* Their requests fail by themselves, but a notice that was lost would be waited for in vain. */
    list_for_each_safe (link, &sessions->states[SESSION_REGISTERING]) {
        session_end(container_of(link, struct session, link), CLOSE_UNAVAILABLE);
    }
    list_for_each (link, &sessions->restoring) {
        session_recover_hold(container_of(link, struct session, link));
    }
    list_for_each (link, &sessions->states[SESSION_ONLINE]) {
        session_recover_hold(container_of(link, struct session, link));
    }
}

static void on_restored(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);
    struct sessions *sessions = session->sessions;

    (void)result;
    session->asking = false;
    if (--sessions->restores_open < RESTORE_BATCH && !list_empty(&sessions->restoring))
        loop_defer(sessions->options.loop, &sessions->restore_task);
    if (session->state == SESSION_LEAVING) {
        leave_registry(session);
    } else if (error == ERROR_CONFLICT) {
        sessions->options.metrics->sessions_replaced++;
        session_end(session, CLOSE_REPLACED);
    } else if (session->restore_again) {
        restore_later(session);
    } else if (!error) {
        session_topics_rejoin(session);
        session_recover_start(session);
    } else if (!is_outage(error)) {
        log_warn("session not registered", log_slice("session", session_name(session)),
                 log_str("reason", error_name(error)));
        session_end(session, CLOSE_UNAVAILABLE);
    }
}

static void on_restore(struct loop_task *task)
{
    struct sessions *sessions = container_of(task, struct sessions, restore_task);

    while (sessions->restores_open < 2 * RESTORE_BATCH) {
        struct list *link = list_pop(&sessions->restoring);
        if (!link)
            return;
        struct session *session = container_of(link, struct session, link);
        list_append(&sessions->states[SESSION_ONLINE], link);
        if (session->asking) {
            session->restore_again = true;
            continue;
        }
        session->registry.on_done = on_restored;
        if (register_session(session, true))
            sessions->restores_open++;
    }
}

/* Tells the registry to forget those that it didn't forget when they left. */
static void leave_again(struct sessions *sessions)
{
    list_for_each_safe (link, &sessions->states[SESSION_LEAVING]) {
        struct session *session = container_of(link, struct session, link);
        if (session->registered)
            leave_registry(session);
    }
}

static void on_retry(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    leave_again(data);
}

void sessions_on_registry_lost(struct sessions *sessions)
{
    list_splice(&sessions->restoring, &sessions->states[SESSION_ONLINE]);
    if (!list_empty(&sessions->restoring))
        loop_defer(sessions->options.loop, &sessions->restore_task);
    /* Whatever the registry answered them, or is about to, was before the loss. */
    list_for_each (link, &sessions->states[SESSION_REGISTERING]) {
        struct session *session = container_of(link, struct session, link);
        session->restore_again = session->registered;
    }
    leave_again(sessions);
}
