/* A session's life.
 *
 *   REGISTERING  its channels are being subscribed, then it is registered. Messages for it are queued, not
 * written; the client isn't read, so nothing that it sends early is lost or overtaken. ONLINE       messages
 * flow. Exclusive names only: the way here leads through the takeover notice (see below). LEAVING      the
 * connection is closing or gone; it unsubscribes at the end of the turn and leaves the registry. It is freed
 * when the connection is gone, the registry has answered and no message of it is on its way.
 *
 * Takeover. Registering an exclusive name publishes a notice on the name's channel, to which this session and
 * the former holder are both subscribed. The former holder closes at the notice; this one delivers what comes
 * after it. What came before the notice belongs to the former holder, and is dropped here; but only if there
 * was one, which the registry's answer tells. So an exclusive session is online when it has both the notice
 * and the answer, in either order.
 *
 * Failures. While the storage is down, sessions stay open, but those still REGISTERING are told to reconnect.
 * A session that leaves meanwhile stays in LEAVING, without its connection, until the registry can be told.
 * When the registry lost us, every online session is registered anew, in batches. */
#include "broker/session.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/outbox.h"
#include "broker/route.h"
#include "broker/router.h"
#include "proto/address.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "proto/frame.h"
#include "storage/storage.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    AGENT_MAX = 64, /* Redis packs a hash tightly only while its values are at most 64 bytes */
    CONN_MAX = 24,
    RESTORE_BATCH = 256,
    OP_POOL_MAX = 1024,
    WAIT_OWN = 1,
    WAIT_GROUP = 2,
    WAIT_REGISTER = 4,
    WAIT_NOTICE = 8,
};

enum session_state { SESSION_REGISTERING, SESSION_ONLINE, SESSION_LEAVING, SESSION_STATE_COUNT };

struct session {
    struct list link; /* in sessions->states[state], or in sessions->restoring while ONLINE */
    struct sessions *sessions;
    struct session_transport *transport; /* NULL once the connection is gone */
    struct config *config;               /* a reference */
    struct route_params *params;         /* owned */
    struct subscriber own, group;
    struct outbox outbox;
    struct storage_request registry; /* open while `asking` */
    uint64_t connected_at_ms;
    size_t inflight_bytes;
    uint32_t inflight; /* messages handed to the bus, not answered yet */
    uint32_t ops;      /* operations that point here, `inflight` included */
    uint32_t held;     /* frames in the outbox that came before the takeover notice */
    uint16_t close_code;
    uint16_t name_len, remote_len, agent_len;
    uint8_t conn_len;
    uint8_t state; /* enum session_state */
    uint8_t waits; /* WAIT_…: what is missing until it is online */
    uint8_t face;
    bool exclusive : 1;
    bool succeeds : 1;      /* the registry says that somebody held the name before */
    bool asking : 1;        /* the registry request is open */
    bool registered : 1;    /* the registry may hold it: set when asked, cleared when told to forget */
    bool opened : 1;        /* it was online, so it counts when it closes */
    bool restore_again : 1; /* the registry lost it while it was being asked */
    bool paused : 1;        /* the client isn't read because too much of it is in flight */
    bool complained : 1;    /* a failed or absent message was logged; cleared by one that arrived */
    char strings[];         /* name, conn, remote, agent */
};

struct sessions {
    struct sessions_options options;
    struct list states[SESSION_STATE_COUNT];
    struct list restoring; /* ONLINE, to be registered anew */
    struct list ended;     /* LEAVING, to be torn down at the end of the turn */
    struct list op_pool;
    size_t op_pool_count;
    size_t online, total;
    size_t restores_open;
    struct loop_task teardown_task, restore_task;
    struct buffer address, payload; /* scratch */
    char conn_prefix[12];
    uint64_t conn_count;
};

/* One message on its way to the bus, or a question to the registry whose answer is only logged. */
struct session_op {
    struct storage_request request;
    struct list pool_link;
    struct session *session;
    struct frame *reply; /* owned; sent to the client when the message was handed on; NULL: none */
    size_t bytes;
};

/* ---- the set ---- */

static void on_teardown(struct loop_task *task);
static void on_restore(struct loop_task *task);
static void leave_registry(struct session *session);

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
    /* A conn is unique for ever: 50 random bits for this process, then a count. */
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = clock_wall_ms() << 20 ^ clock_monotonic_us();
    write_base32(random, sessions->conn_prefix, 10);
    return sessions;
}

static void session_free(struct session *session)
{
    list_remove(&session->link);
    outbox_close(&session->outbox);
    mem_free(session->params);
    config_unref(session->config);
    mem_free(session);
}

void sessions_destroy(struct sessions *sessions)
{
    if (!sessions)
        return;
    loop_cancel(&sessions->teardown_task);
    loop_cancel(&sessions->restore_task);
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

struct slice session_name(const struct session *session)
{
    return slice_from(session->strings, session->name_len);
}

struct slice session_conn(const struct session *session)
{
    return slice_from(session->strings + session->name_len, session->conn_len);
}

static struct slice session_remote(const struct session *session)
{
    return slice_from(session_conn(session).data + session->conn_len, session->remote_len);
}

static struct slice session_agent(const struct session *session)
{
    return slice_from(session_remote(session).data + session->remote_len, session->agent_len);
}

static struct log_field log_slice(const char *key, struct slice value)
{
    return log_bytes(key, value.data, value.len);
}

static size_t session_address(const struct session *session, char out[static ADDRESS_MAX + 1])
{
    struct address address = {.kind = ADDRESS_SESSION, .name = session_name(session)};
    return address_format(&address, out);
}

/* ---- operations ---- */

static struct session_op *op_create(struct session *session)
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

static void maybe_free(struct session *session)
{
    struct sessions *sessions = session->sessions;

    if (session->state != SESSION_LEAVING || session->transport || session->asking || session->registered ||
        session->ops || session->own.channel || session->group.channel)
        return;
    session_free(session);
    if (--sessions->total == 0 && sessions->options.on_idle)
        sessions->options.on_idle(sessions->options.data);
}

static void op_free(struct session_op *op)
{
    struct session *session = op->session;
    struct sessions *sessions = session->sessions;

    frame_unref(op->reply);
    if (sessions->op_pool_count < OP_POOL_MAX) {
        list_prepend(&sessions->op_pool, &op->pool_link);
        sessions->op_pool_count++;
    } else {
        mem_free(op);
    }
    session->ops--;
    maybe_free(session);
}

/* ---- to the client ---- */

static void push_frame(struct session *session, struct frame *frame)
{
    struct sessions *sessions = session->sessions;

    if (outbox_push(&session->outbox, frame, sessions->options.outbox_limit)) {
        sessions->options.metrics->messages_delivered++;
        if (session->state == SESSION_ONLINE)
            session->transport->ops->want_write(session->transport);
        return;
    }
    sessions->options.metrics->sessions_slow++;
    log_warn("slow reader cut", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_slice("remote", session_remote(session)),
             log_int("queued_bytes", (int64_t)session->outbox.bytes),
             log_int("queued_messages", session->outbox.count));
    outbox_close(&session->outbox);
    session_end(session, CLOSE_SLOW_READER);
}

static void session_online(struct session *session);

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
        if (session->succeeds)
            outbox_pop(&session->outbox, session->outbox.count);
        else
            session->held = session->outbox.count;
        session->waits &= (uint8_t)~WAIT_NOTICE;
        session_online(session);
    } else if (!ours) {
        session->sessions->options.metrics->sessions_replaced++;
        session_end(session, CLOSE_REPLACED);
    }
}

static void session_deliver(struct session *session, struct message *message)
{
    if (session->state == SESSION_LEAVING)
        return;
    switch (message->fields.kind) {
    case MESSAGE_DATA: {
        struct frame *frame = frame_of(message, (enum face)session->face);
        if (frame)
            push_frame(session, frame);
        else
            log_error("message dropped", log_slice("session", session_name(session)),
                      log_str("reason", error_name(ERROR_NO_MEMORY)));
        break;
    }
    case MESSAGE_TAKEOVER:
        on_takeover(session, message->fields.correlation);
        break;
    default:
        break;
    }
}

static void on_deliver_own(struct subscriber *subscriber, struct message *message)
{
    session_deliver(container_of(subscriber, struct session, own), message);
}

static void on_deliver_group(struct subscriber *subscriber, struct message *message)
{
    session_deliver(container_of(subscriber, struct session, group), message);
}

struct outbox *session_outbox(struct session *session)
{
    return session->state == SESSION_REGISTERING ? NULL : &session->outbox;
}

/* ---- coming online ---- */

static struct storage_session storage_view(const struct session *session)
{
    struct slice user = slice_from(NULL, 0);
    struct buffer *scratch = &session->sessions->address;
    struct address address;

    /* The user is the UID of a user route's address. */
    buffer_clear(scratch);
    if (session->params->route->has_address && route_address(session->params, scratch) &&
        !address_parse(slice_from(scratch->data, scratch->len), &address) && address.kind == ADDRESS_USER)
        user = address.name;
    return (struct storage_session){
        .name = session_name(session),
        .conn = session_conn(session),
        .user = user,
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
    struct storage_session view = storage_view(session);
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
    op_free(op);
}

/* Asks for the number of sessions everywhere; the answer ends up in a log line. */
static void count_sessions(struct session *session,
                           void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    struct session_op *op = log_threshold >= LOG_LEVEL_INFO ? op_create(session) : NULL;

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

static void session_online(struct session *session)
{
    struct sessions *sessions = session->sessions;

    if (session->waits)
        return;
    sessions->options.metrics->sessions_opened++;
    session->opened = true;
    set_state(session, SESSION_ONLINE);
    if (session->restore_again)
        restore_later(session);
    count_sessions(session, on_online_counted);
    if (session->outbox.count)
        session->transport->ops->want_write(session->transport);
    session->transport->ops->set_reading(session->transport, true);
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
    if (session->succeeds && !(session->waits & WAIT_NOTICE))
        outbox_pop(&session->outbox, session->held);
    session->waits &= (uint8_t)~WAIT_REGISTER;
    session_online(session);
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
    on_subscribed(container_of(subscriber, struct session, own), WAIT_OWN, error);
}

static void on_group_subscribed(struct subscriber *subscriber, int error)
{
    on_subscribed(container_of(subscriber, struct session, group), WAIT_GROUP, error);
}

/* ---- opening ---- */

/* The longest start of `name` that is whole characters and fits `max` bytes. */
static size_t cut_name(struct slice name, size_t max)
{
    size_t len = name.len < max ? name.len : max;

    while (len && len < name.len && ((unsigned char)name.data[len] & 0xc0) == 0x80)
        len--;
    return len;
}

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
    size_t base_len = exclusive ? base.len : cut_name(base, ADDRESS_NAME_MAX - 1 - (size_t)conn_len);
    size_t name_len = exclusive ? base_len : base_len + 1 + (size_t)conn_len;
    size_t agent_len = cut_name(params->agent, AGENT_MAX);
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

static void subscribe(struct session *session, struct subscriber *subscriber, const struct address *address)
{
    char channel[CHANNEL_MAX];
    size_t len = address_channel(address, channel);

    router_subscribe(session->sessions->options.router, slice_from(channel, len), subscriber);
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
    session->params = route_params_keep(params->route_params);
    if (!session->params) {
        mem_free(session);
        return NULL;
    }
    session->config = config_ref(params->config);
    session->sessions = sessions;
    session->transport = transport;
    session->face = (uint8_t)params->face;
    session->connected_at_ms = clock_wall_ms();
    session->registry.on_done = on_registry_done;
    outbox_init(&session->outbox);
    subscriber_init(&session->own);
    subscriber_init(&session->group);
    session->own.on_subscribed = on_own_subscribed;
    session->own.deliver = on_deliver_own;
    session->group.on_subscribed = on_group_subscribed;
    session->group.deliver = on_deliver_group;
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

void session_end(struct session *session, int code)
{
    struct sessions *sessions = session->sessions;

    if (session->state == SESSION_LEAVING)
        return;
    /* What came before the notice is the former holder's, who may have written it already. */
    if (session->state == SESSION_REGISTERING && session->exclusive)
        outbox_pop(&session->outbox, session->waits & WAIT_NOTICE ? session->outbox.count : session->held);
    session->close_code = (uint16_t)code;
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
    maybe_free(session);
}

static void on_teardown(struct loop_task *task)
{
    struct sessions *sessions = container_of(task, struct sessions, teardown_task);

    for (struct list *link; (link = list_pop(&sessions->ended));) {
        struct session *session = container_of(link, struct session, link);
        list_append(&sessions->states[SESSION_LEAVING], link);
        router_unsubscribe(sessions->options.router, &session->own);
        router_unsubscribe(sessions->options.router, &session->group);
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
    op_free(op);
}

static void on_unregistered(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);

    (void)result;
    session->asking = false;
    /* Out of reach: the registry still holds it, so it waits here until the storage is back. */
    session->registered = error == ERROR_UNAVAILABLE || error == ERROR_TIMEOUT;
    if (!session->registered && session->opened) {
        session->sessions->options.metrics->sessions_closed++;
        count_sessions(session, on_offline_counted);
    }
    maybe_free(session);
}

/* Tells the registry to forget the session, if it may hold it and isn't being asked about it already. */
static void leave_registry(struct session *session)
{
    if (session->registered && !session->asking) {
        struct storage_session view = storage_view(session);
        session->asking = true;
        session->registry.on_done = on_unregistered;
        storage_unregister(session->sessions->options.storage, &view, &session->registry);
        return;
    }
    maybe_free(session);
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
    list_for_each_safe (link, &sessions->states[SESSION_LEAVING]) {
        struct session *session = container_of(link, struct session, link);
        if (session->registered)
            leave_registry(session);
    }
}

/* ---- from the client ---- */

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
    struct sessions_options *options = &session->sessions->options;

    session->inflight--;
    session->inflight_bytes -= op->bytes;
    if (error)
        options->metrics->publish_failed++;
    else if (result->number == 0)
        options->metrics->published_absent++;
    /* Once an episode: a client must not fill the log. The metrics count each. */
    bool failed = error || result->number == 0;
    if (failed && !session->complained)
        log_undelivered(session, error ? error : ERROR_ABSENT);
    session->complained = failed;
    if (session->state == SESSION_ONLINE) {
        if (op->reply && !error)
            push_frame(session, op->reply);
        if (session->paused && session->inflight <= options->inflight_limit / 2 &&
            session->inflight_bytes <= options->inflight_bytes / 2 && session->state == SESSION_ONLINE) {
            session->paused = false;
            session->transport->ops->set_reading(session->transport, true);
        }
    }
    op_free(op);
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

static void publish(struct session *session, enum message_content content, struct slice payload)
{
    struct sessions *sessions = session->sessions;
    const struct route *route = session->params->route;
    char from[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct address target;

    buffer_clear(&sessions->address);
    if (!route_target(session->params, &sessions->address) ||
        address_parse(slice_from(sessions->address.data, sessions->address.len), &target)) {
        log_warn("route has no valid target here", log_slice("session", session_name(session)),
                 log_str("route", route->pattern));
        return;
    }
    struct frame *reply = reply_frame(session, content, payload);
    if (!reply && route->has_reply && content == CONTENT_TEXT)
        goto no_memory;
    buffer_clear(&sessions->payload);
    if (route->action == ROUTE_ACTION_PUBLISH && content == CONTENT_TEXT &&
        !template_is_plain(&route->text)) {
        if (!route_expand(&route->text, session->params, payload.data, payload.len, &sessions->payload))
            goto no_memory;
        payload = slice_from(sessions->payload.data, sessions->payload.len);
    }
    struct session_op *op = op_create(session);
    if (!op)
        goto no_memory;
    op->request.on_done = on_published;
    op->reply = reply;
    op->bytes = payload.len;
    struct message_fields fields = {
        .kind = MESSAGE_DATA,
        .content = content,
        .time_ms = clock_wall_ms(),
        .from = slice_from(from, session_address(session, from)),
        .to = slice_from(sessions->address.data, sessions->address.len),
        .payload = payload,
    };
    session->inflight++;
    session->inflight_bytes += op->bytes;
    size_t channel_len = address_channel(&target, channel);
    if (!router_publish(sessions->options.router, slice_from(channel, channel_len), &fields, &op->request)) {
        static const struct storage_result nothing;
        on_published(&op->request, ERROR_NO_MEMORY, &nothing);
    }
    return;

no_memory:
    frame_unref(reply);
    log_error("message dropped", log_slice("session", session_name(session)),
              log_str("reason", error_name(ERROR_NO_MEMORY)));
}

void session_receive(struct session *session, enum message_content content, struct slice payload)
{
    struct sessions_options *options = &session->sessions->options;

    if (session->state != SESSION_ONLINE)
        return;
    options->metrics->messages_received++;
    options->metrics->bytes_received += payload.len;
    switch (session->params->route->action) {
    case ROUTE_ACTION_IGNORE:
        break;
    case ROUTE_ACTION_ECHO: {
        struct frame *frame = frame_create(content == CONTENT_BINARY ? FRAME_BINARY : FRAME_TEXT, payload);
        if (frame)
            push_frame(session, frame);
        frame_unref(frame);
        break;
    }
    case ROUTE_ACTION_PUBLISH:
    case ROUTE_ACTION_FORWARD:
        publish(session, content, payload);
        break;
    }
    if (!session->paused && session->state == SESSION_ONLINE &&
        (session->inflight >= options->inflight_limit ||
         session->inflight_bytes >= options->inflight_bytes)) {
        session->paused = true;
        session->transport->ops->set_reading(session->transport, false);
    }
}
