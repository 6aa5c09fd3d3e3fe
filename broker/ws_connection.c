/* One WebSocket between libwebsockets and its session.
 *
 * Reading: pieces are put together to whole messages, at most max_message long, and handed to the session.
 *
 * Writing: what the session queues is written once at the end of the turn, as many frames as fit in one send,
 * already encoded (LWS_WRITE_HTTP sends bytes as they are). libwebsockets keeps what the socket didn't take,
 * and until it is rid of that nothing more may be written; only then the writable callback, which costs three
 * system calls, is asked for. Whole frames only: libwebsockets puts its own pongs between our writes.
 *
 * Closing: what is queued is written first; then the writable callback returns -1, which is how libwebsockets
 * is told to send the close frame. A client that doesn't read is dropped at close_timeout. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "broker/lws_loop.h"
#include "broker/metrics.h"
#include "broker/outbox.h"
#include "broker/ws_internal.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <stdio.h>
#include <string.h>

struct ws {
    struct session_transport transport;
    struct ws_server *server;
    struct lws *wsi;
    struct session *session;
    struct list dirty; /* in server->dirty, or alone */
    struct list due;   /* in server->quiet or server->pinged, or alone */
    uint64_t due_ms;
    struct buffer *partial; /* a message that came in pieces, so far; NULL between such messages */
    uint16_t close_code;    /* ours: non-zero while closing */
    uint16_t peer_code;     /* the client's: non-zero once it sent a close frame */
    struct ws_peer peer;
    bool awaiting_writable;
    bool skipping; /* the rest of a refused message is thrown away */
};

static struct ws *ws_of(struct lws *wsi)
{
    struct ws_peer *peer = lws_get_opaque_user_data(wsi);

    return peer && peer->is_session ? container_of(peer, struct ws, peer) : NULL;
}

/* ---- what the session asks ---- */

static void want_write(struct session_transport *transport)
{
    struct ws *ws = container_of(transport, struct ws, transport);

    if (ws->awaiting_writable || !list_empty(&ws->dirty))
        return;
    list_append(&ws->server->dirty, &ws->dirty);
    loop_defer(ws->server->options.loop, &ws->server->flush_task);
}

static void set_reading(struct session_transport *transport, bool on)
{
    struct ws *ws = container_of(transport, struct ws, transport);

    lws_rx_flow_control(ws->wsi, on);
}

static void close_connection(struct session_transport *transport, int code)
{
    struct ws *ws = container_of(transport, struct ws, transport);
    uint64_t timeout = ws->server->config->close_timeout;

    ws->close_code = (uint16_t)code;
    list_remove(&ws->due);
    /* The client's answer to the close frame must be read, whatever stopped reading. */
    lws_rx_flow_control(ws->wsi, 1);
    lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_OK, (int)((timeout + 999) / 1000));
    want_write(transport);
}

static const struct session_transport_ops transport_ops = {
    .want_write = want_write, .set_reading = set_reading, .close = close_connection};

/* ---- writing ---- */

static void await_writable(struct ws *ws)
{
    ws->awaiting_writable = true;
    lws_callback_on_writable(ws->wsi);
}

/* Writes until the outbox is empty or the socket is full. False when the connection is broken. */
static bool flush(struct ws *ws)
{
    struct outbox *outbox = session_outbox(ws->session);
    unsigned char *scratch = ws->server->scratch;
    const unsigned char *data;
    uint32_t frames;
    size_t len;

    while (!lws_partial_buffered(ws->wsi)) {
        len = outbox ? outbox_gather(outbox, scratch, WS_SCRATCH_SIZE, &data, &frames) : 0;
        if (!len) {
            if (ws->close_code)
                await_writable(ws);
            return true;
        }
        /* The signature lacks a const; raw bytes are only read. */
        if (lws_write(ws->wsi, (unsigned char *)(uintptr_t)data, len, LWS_WRITE_HTTP) < 0)
            return false;
        ws->server->options.metrics->bytes_sent += len;
        outbox_pop(outbox, frames);
        if (!outbox->count)
            session_drained(ws->session);
    }
    await_writable(ws);
    return true;
}

void ws_connections_on_flush(struct loop_task *task)
{
    struct ws_server *server = container_of(task, struct ws_server, flush_task);

    for (struct list *link; (link = list_pop(&server->dirty));) {
        struct ws *ws = container_of(link, struct ws, dirty);
        if (!flush(ws))
            lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    }
}

int ws_connection_writable(struct lws *wsi)
{
    struct ws *ws = ws_of(wsi);

    if (!ws)
        return 0;
    ws->awaiting_writable = false;
    struct outbox *outbox = session_outbox(ws->session);
    if (ws->close_code && (!outbox || !outbox->count) && !lws_partial_buffered(wsi)) {
        struct slice reason = session_close_reason(ws->session);
        lws_close_reason(wsi, (enum lws_close_status)ws->close_code, (unsigned char *)(uintptr_t)reason.data,
                         reason.len);
        return -1;
    }
    return flush(ws) ? 0 : -1;
}

/* ---- pings ---- */

/* Pings that are switched off are never due. */
static uint64_t next_ping_ms(const struct ws_server *server, uint64_t now)
{
    return server->config->ping_interval ? now + server->config->ping_interval : UINT64_MAX;
}

static void schedule_ping(struct ws *ws, uint64_t now)
{
    list_remove(&ws->due);
    ws->due_ms = next_ping_ms(ws->server, now);
    list_append(&ws->server->quiet, &ws->due);
}

/* Keeps the list sorted: what is due is capped, or never is. */
static void cap_due(struct list *list, uint64_t latest)
{
    list_for_each (link, list) {
        struct ws *ws = container_of(link, struct ws, due);
        if (ws->due_ms > latest || latest == UINT64_MAX)
            ws->due_ms = latest;
    }
}

void ws_connections_reschedule_pings(struct ws_server *server)
{
    uint64_t now = clock_monotonic_ms();

    cap_due(&server->quiet, next_ping_ms(server, now));
    cap_due(&server->pinged, now + server->config->ping_timeout);
}

static void send_ping(struct ws *ws, uint64_t now)
{
    struct outbox *outbox = session_outbox(ws->session);

    /* Nothing can be written before it is online; the storage's deadlines see to it that this doesn't last. */
    if (!outbox) {
        schedule_ping(ws, now);
        return;
    }
    list_remove(&ws->due);
    ws->due_ms = now + ws->server->config->ping_timeout;
    list_append(&ws->server->pinged, &ws->due);
    /* When it doesn't fit, there is unread traffic enough to tell whether the client lives. */
    if (outbox_push(outbox, ws->server->ping_frame, ws->server->config->outbox_limit))
        want_write(&ws->transport);
}

void ws_connections_tick(struct ws_server *server)
{
    uint64_t now = clock_monotonic_ms();

    while (!list_empty(&server->pinged)) {
        struct ws *ws = container_of(server->pinged.next, struct ws, due);
        if (ws->due_ms > now)
            break;
        server->options.metrics->sessions_silent++;
        session_end(ws->session, CLOSE_PING_TIMEOUT);
    }
    while (!list_empty(&server->quiet)) {
        struct ws *ws = container_of(server->quiet.next, struct ws, due);
        if (ws->due_ms > now)
            break;
        send_ping(ws, now);
    }
}

void ws_connection_pong(struct lws *wsi)
{
    struct ws *ws = ws_of(wsi);

    if (ws && !ws->close_code)
        schedule_ping(ws, clock_monotonic_ms());
}

/* ---- reading ---- */

static void drop_partial(struct ws *ws)
{
    if (!ws->partial)
        return;
    buffer_close(ws->partial);
    mem_free(ws->partial);
    ws->partial = NULL;
}

/* Ends the session for what the client sent; the rest of it is read and thrown away. */
static void refuse(struct ws *ws, int code, size_t bytes)
{
    struct slice name = session_name(ws->session);
    struct slice conn = session_conn(ws->session);

    log_warn("message refused", log_bytes("session", name.data, name.len),
             log_bytes("conn", conn.data, conn.len), log_str("reason", error_name(code)),
             log_int("bytes", (int64_t)bytes));
    ws->skipping = true;
    drop_partial(ws);
    session_end(ws->session, code);
}

static bool append_partial(struct ws *ws, const void *data, size_t len)
{
    if (!ws->partial) {
        ws->partial = mem_alloc(sizeof *ws->partial);
        if (!ws->partial)
            return false;
        buffer_init(ws->partial, ws->server->config->max_message);
    }
    return buffer_append(ws->partial, data, len);
}

static void receive_message(struct ws *ws, const void *data, size_t len)
{
    bool binary = lws_frame_is_binary(ws->wsi);

    if (!binary && !utf8_valid(data, len)) {
        ws->server->options.metrics->messages_invalid++;
        refuse(ws, CLOSE_INVALID_TEXT, len);
        return;
    }
    session_receive(ws->session, binary ? CONTENT_BINARY : CONTENT_TEXT, slice_from(data, len));
}

int ws_connection_receive(struct lws *wsi, const void *data, size_t len)
{
    struct ws *ws = ws_of(wsi);
    bool last = lws_is_final_fragment(wsi);

    /* After a close frame, ours or theirs, nothing counts any more. */
    if (!ws || ws->close_code || ws->peer_code || ws->skipping)
        return 0;
    if (!last || lws_remaining_packet_payload(wsi))
        lws_loop_expect_more(wsi);
    size_t so_far = ws->partial ? ws->partial->len : 0;
    if (so_far + len > ws->server->config->max_message) {
        ws->server->options.metrics->messages_too_big++;
        refuse(ws, CLOSE_TOO_BIG, so_far + len);
    } else if (last && !ws->partial) {
        receive_message(ws, data, len);
    } else if (!append_partial(ws, data, len)) {
        refuse(ws, CLOSE_INTERNAL, so_far + len);
    } else if (last) {
        receive_message(ws, ws->partial->data, ws->partial->len);
        drop_partial(ws);
    }
    return 0;
}

int ws_connection_peer_close(struct lws *wsi, const unsigned char *payload, size_t len)
{
    struct ws *ws = ws_of(wsi);
    /* 1005 stands for a close frame without a code (RFC 6455 section 7.1.5). */
    int code = len >= 2 ? payload[0] << 8 | payload[1] : 1005, wrong = 0;

    /* What libwebsockets does not check itself. */
    if (len == 1 || code >= 5000)
        wrong = CLOSE_PROTOCOL_ERROR;
    else if (len > 2 && !utf8_valid((const char *)payload + 2, len - 2))
        wrong = CLOSE_INVALID_TEXT;
    if (ws)
        ws->peer_code = (uint16_t)(wrong ? wrong : code);
    if (wrong)
        lws_close_reason(wsi, (enum lws_close_status)wrong, NULL, 0);
    return wrong ? -1 : 0;
}

/* ---- life ---- */

/* ?since=EPOCH:OFFSET, or nothing behind the "=" for everything. */
static void read_since(struct slice since, struct session_params *params)
{
    const char *colon = since.len ? memchr(since.data, ':', since.len) : NULL;

    params->since = since.data != NULL;
    if (!colon)
        return;
    params->since_epoch = slice_from(since.data, (size_t)(colon - since.data));
    params->since_offset = slice_from(colon + 1, since.len - params->since_epoch.len - 1);
}

int ws_connection_open(struct ws_server *server, struct lws *wsi)
{
    char remote[80], agent[512], since[ARGUMENT_MAX];

    /* libwebsockets confirms an upgrade, answers it and calls this without a pause. */
    if (server->upgrading != wsi)
        return -1;
    struct ws *ws = mem_calloc(1, sizeof *ws);
    if (!ws) {
        log_error("connection refused", log_str("reason", error_name(ERROR_NO_MEMORY)));
        return -1;
    }
    int agent_len = lws_hdr_copy(wsi, agent, sizeof agent, WSI_TOKEN_HTTP_USER_AGENT);
    struct session_params params = {
        .config = server->config,
        .route_params = &server->route.params,
        .face = ws_http_face(wsi),
        .remote = slice_from(remote, ws_head_address(wsi, remote, sizeof remote)),
        .agent =
            slice_from(agent, agent_len > 0 && utf8_valid(agent, (size_t)agent_len) ? (size_t)agent_len : 0),
    };
    struct slice since_value;
    /* The session says what is wrong with it. */
    (void)ws_http_argument(wsi, "since", since, &since_value);
    read_since(since_value, &params);
    ws->transport.ops = &transport_ops;
    ws->server = server;
    ws->wsi = wsi;
    ws->peer.is_session = true;
    list_init(&ws->dirty);
    list_init(&ws->due);
    ws_head_close(wsi);
    lws_set_opaque_user_data(wsi, &ws->peer);
    /* Until the session is online nothing is read: what the client sends now waits, in order. */
    lws_rx_flow_control(wsi, 0);
    ws->session = session_open(server->options.sessions, &params, &ws->transport);
    if (!ws->session) {
        log_error("connection refused", log_str("reason", error_name(ERROR_NO_MEMORY)));
        lws_set_opaque_user_data(wsi, NULL);
        mem_free(ws);
        return -1;
    }
    if (!ws->close_code)
        schedule_ping(ws, clock_monotonic_ms());
    return 0;
}

void ws_connection_closed(struct lws *wsi)
{
    struct ws *ws = ws_of(wsi);

    if (!ws)
        return;
    lws_set_opaque_user_data(wsi, NULL);
    list_remove(&ws->dirty);
    list_remove(&ws->due);
    drop_partial(ws);
    session_detach(ws->session, ws->peer_code);
    mem_free(ws);
}
