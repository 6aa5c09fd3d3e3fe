/* One session: its strings, its parts, and how it is opened. Its life is in session_life.c. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <stdio.h>
#include <string.h>

enum {
    AGENT_MAX = 64, /* Redis packs a hash tightly only while its values are at most 64 bytes */
    CONN_MAX = 24,
};

/* ---- strings ---- */

/* The longest start of `text` that is whole characters and fits `max` bytes. */
size_t session_cut_text(struct slice text, size_t max)
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

struct slice session_agent(const struct session *session)
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
    const struct error_info *info = error_find(session->close_code);

    if (session->extra && session->extra->close_reason[0])
        return slice_text(session->extra->close_reason);
    /* A code that isn't in the list is an operator's own. */
    return slice_text(info->code == session->close_code ? info->name : error_name(CLOSE_KICKED));
}

void session_set_close_reason(struct session *session, const char *reason)
{
    struct session_extra *extra = reason ? session_extra(session) : NULL;

    if (extra)
        snprintf(extra->close_reason, sizeof extra->close_reason, "%.*s",
                 (int)session_cut_text(slice_text(reason), CLOSE_REASON_MAX), reason);
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
    for (struct list *link; (link = list_pop(&extra->answered));)
        mem_free(container_of(link, struct asked, link));
    for (struct list *link; (link = list_pop(&extra->asking));)
        mem_free(container_of(link, struct asking, link));
    mem_free(extra);
}

void session_free(struct session *session)
{
    list_remove(&session->link);
    session_leave_queue(session);
    session_drop_input(session);
    outbox_close(&session->outbox);
    held_drop(&session->pending, SIZE_MAX);
    feed_close(&session->own);
    feed_close(&session->group);
    session_extra_free(session);
    mem_free(session->params);
    config_unref(session->config);
    budget_let_go(&session->holder);
    mem_free(session);
}

void sessions_set_limits(struct sessions *sessions, size_t outbox_limit, size_t inflight_limit,
                         size_t inflight_bytes)
{
    sessions->options.outbox_limit = outbox_limit;
    sessions->options.inflight_limit = inflight_limit;
    sessions->options.inflight_bytes = inflight_bytes;
}

void sessions_set_shares(struct sessions *sessions, size_t turn_commands, size_t turn_bytes,
                         size_t inflight_total, size_t session_reads)
{
    sessions->options.turn_commands = turn_commands;
    sessions->options.turn_bytes = turn_bytes;
    sessions->options.inflight_total = inflight_total;
    sessions->options.session_reads = session_reads;
    /* Those who read keep the number that they began with. */
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
    list_init(&session->extra->answered);
    list_init(&session->extra->asking);
    reader_init(&session->extra->reader, session->sessions->options.reads,
                session->sessions->options.session_reads);
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
    if (!session->wants_room)
        return;
    session->wants_room = false;
    if (session->extra)
        reader_release(&session->extra->reader);
    session_recover_continue(session);
}

void session_refuse_frame(struct session *session, const char *why)
{
    uint64_t left_out;

    if (session_may_log(session, &left_out))
        log_warn("frame refused", log_slice("session", session_name(session)),
                 log_slice("conn", session_conn(session)), log_str("reason", why),
                 log_int("left_out", (int64_t)left_out));
    session_set_close_reason(session, why);
    session_end(session, CLOSE_BAD_FRAME);
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
    size_t base_len = exclusive ? base.len : session_cut_text(base, ADDRESS_NAME_MAX - 1 - (size_t)conn_len);
    size_t name_len = exclusive ? base_len : base_len + 1 + (size_t)conn_len;
    size_t agent_len = session_cut_text(params->agent, AGENT_MAX);
    struct session *session =
        mem_calloc(1, sizeof *session + name_len + (size_t)conn_len + params->remote.len + agent_len);

    if (!session)
        return NULL;
    char *at = session->strings;
    memcpy(at, base.data, base_len);
    if (!exclusive) {
        at[base_len] = ADDRESS_SHARED_MARK;
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

    feed_init(&session->own, session, session_on_own_subscribed);
    feed_init(&session->group, session, session_on_group_subscribed);
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
                        address_parse(slice_from(sessions->address.data, sessions->address.len), &address) ||
                        (address.kind == ADDRESS_SESSION && address_check_exclusive(address.name))))
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
    outbox_init(&session->outbox, sessions->options.budget);
    list_init(&session->holder.link);
    list_init(&session->pending);
    list_init(&session->link);
    list_init(&session->queue);
    list_init(&session->input);
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
