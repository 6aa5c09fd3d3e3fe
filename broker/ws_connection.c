/* One WebSocket between libwebsockets and its session.
 *
 * Beginning: libwebsockets is given the descriptor of an admitted client, and reads from its stream (ws_stream.h) a request
 * that we made. It answers that to the client, and from then on reads the client's frames.
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
#include "broker/ws_stream.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 512, /* of the request that libwebsockets reads */
    PONGS_MAX = 32,    /* that wait to be written at a time; of further pings only the last is answered */
};

struct ws {
    struct session_transport transport;
    struct ws_server *server;
    struct lws *wsi;
    struct session *session; /* NULL before libwebsockets has answered, and after the connection is closed */
    struct ws_stream stream;
    struct address_share *share; /* owned; NULL: not counted */
    const struct ws_verdict *verdict; /* while it is being admitted */
    struct slice remote;              /* the same */
    struct list dirty; /* in server->dirty, or alone */
    struct list due;   /* in server->quiet or server->pinged, or alone */
    uint64_t due_ms;
    struct buffer *partial; /* a message that came in pieces, so far; NULL between such messages */
    uint16_t close_code;    /* ours: non-zero while closing */
    uint16_t peer_code;     /* the client's: non-zero once it sent a close frame */
    struct frame *pong; /* owned: answers the last ping, once the others are written; NULL mostly */
    uint8_t pongs;      /* in the outbox, at most */
    bool awaiting_writable;
    bool skipping; /* the rest of a refused message is thrown away */
    bool progress; /* something was written since it was last asked whether it is kept waiting */
};

/* NULL for what is no session. */
static struct ws *ws_of(struct lws *wsi)
{
    struct ws *ws = lws_get_opaque_user_data(wsi);

    return ws && ws->session ? ws : NULL;
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
    ws_gate_shut(&ws->stream.gate);
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

/* Everything was written: there is room for what had to wait. */
static void on_drained(struct ws *ws)
{
    ws->pongs = 0;
    if (ws->pong && outbox_push(session_outbox(ws->session), ws->pong, ws->server->config->outbox_limit)) {
        ws->pongs++;
        frame_unref(ws->pong);
        ws->pong = NULL;
    }
    session_drained(ws->session);
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
        ws->progress = true;
        outbox_pop(outbox, frames);
        if (!outbox->count)
            on_drained(ws);
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

/* Its pong may wait to be read: it isn't read because of what it asked for, and takes what there is for it. */
static bool is_kept_waiting(struct ws *ws)
{
    const struct outbox *outbox = session_outbox(ws->session);

    return session_is_busy(ws->session) && (ws->progress || !outbox || !outbox->count);
}

void ws_connections_tick(struct ws_server *server)
{
    uint64_t now = clock_monotonic_ms();

    while (!list_empty(&server->pinged)) {
        struct ws *ws = container_of(server->pinged.next, struct ws, due);
        if (ws->due_ms > now)
            break;
        if (is_kept_waiting(ws)) {
            ws->progress = false;
            list_remove(&ws->due);
            ws->due_ms = now + server->config->ping_timeout;
            list_append(&server->pinged, &ws->due);
            continue;
        }
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

/* Pings are answered by us (ws_gate.h). A client that doesn't read is owed the answer to its last ping alone. */
static void on_ping(void *data, struct slice payload)
{
    struct ws *ws = data;
    struct outbox *outbox = ws->session ? session_outbox(ws->session) : NULL;
    struct frame *pong = outbox && !ws->close_code ? frame_create(FRAME_PONG, payload) : NULL;

    if (!pong)
        return;
    if (ws->pongs < PONGS_MAX && outbox_push(outbox, pong, ws->server->config->outbox_limit)) {
        ws->pongs++;
        frame_unref(pong);
        want_write(&ws->transport);
        return;
    }
    frame_unref(ws->pong);
    ws->pong = pong;
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
static void refuse(struct ws *ws, int code, const char *reason)
{
    struct slice name = session_name(ws->session);
    struct slice conn = session_conn(ws->session);

    log_warn("message refused", log_bytes("session", name.data, name.len),
             log_bytes("conn", conn.data, conn.len), log_str("reason", error_name(code)),
             log_str("detail", reason));
    ws->skipping = true;
    drop_partial(ws);
    session_end(ws->session, code);
}

static void on_violation(void *data, int code, const char *reason)
{
    struct ws *ws = data;

    if (!ws->session || ws->close_code || ws->peer_code)
        return;
    if (code == CLOSE_TOO_BIG)
        ws->server->options.metrics->messages_too_big++;
    else
        ws->server->options.metrics->frames_invalid++;
    refuse(ws, code, reason);
}

static uint64_t max_message(const void *data)
{
    const struct ws *ws = data;

    return ws->server->config->max_message;
}

static void linger(void *data, int fd)
{
    struct ws *ws = data;

    ws_newcomer_linger(ws->server, fd);
}

static const struct ws_stream_calls stream_calls = {
    .gate = {.on_ping = on_ping, .on_violation = on_violation},
    .max_message = max_message,
    .linger = linger,
};

enum lws_loop_input ws_connection_input_of(struct lws *wsi)
{
    const struct ws *ws = lws_get_opaque_user_data(wsi);

    if (!ws)
        return LWS_LOOP_SOCKET;
    if (ws->stream.wants_write)
        return LWS_LOOP_BLOCKED;
    return ws_stream_input_waits(&ws->stream) ? LWS_LOOP_MEMORY : LWS_LOOP_SOCKET;
}

static bool append_partial(struct ws *ws, const void *data, size_t len)
{
    if (!ws->partial) {
        ws->partial = mem_alloc(sizeof *ws->partial);
        if (!ws->partial)
            return false;
        buffer_init(ws->partial, 0);
    }
    return buffer_append(ws->partial, data, len);
}

static void receive_message(struct ws *ws, const void *data, size_t len)
{
    bool binary = lws_frame_is_binary(ws->wsi);

    if (!binary && !utf8_valid(data, len)) {
        ws->server->options.metrics->messages_invalid++;
        refuse(ws, CLOSE_INVALID_TEXT, "text that is not UTF-8");
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
    /* How large a message may become was checked by the gate. */
    if (last && !ws->partial) {
        receive_message(ws, data, len);
    } else if (!append_partial(ws, data, len)) {
        refuse(ws, CLOSE_INTERNAL, "memory is short");
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

/* What libwebsockets reads in place of the client's own request: the same to it, and nothing that it could misread. */
static struct slice write_request(const struct ws_verdict *verdict, char out[static REQUEST_MAX])
{
    const char *subprotocol = ws_admission_subprotocol(verdict->face);
    int len = snprintf(out, REQUEST_MAX,
                       "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %.*s\r\n%s%s%s\r\n",
                       (int)verdict->key.len, verdict->key.data, subprotocol ? "Sec-WebSocket-Protocol: " : "",
                       subprotocol ? subprotocol : "", subprotocol ? "\r\n" : "");

    return slice_from(out, (size_t)len);
}

static void ws_free(struct ws *ws)
{
    if (ws->server->admitting == ws)
        ws->server->admitting = NULL;
    ws_stream_close(&ws->stream);
    address_share_release(ws->share);
    frame_unref(ws->pong);
    mem_free(ws);
}

static struct ws *ws_create(struct ws_server *server, const struct ws_verdict *verdict, int fd, SSL *tls,
                            struct slice early)
{
    char request[REQUEST_MAX];
    struct ws *ws = mem_calloc(1, sizeof *ws);

    if (!ws || !ws_stream_open(&ws->stream, fd, tls, write_request(verdict, request), early, &stream_calls, ws)) {
        mem_free(ws);
        return NULL;
    }
    ws->transport.ops = &transport_ops;
    ws->server = server;
    list_init(&ws->dirty);
    list_init(&ws->due);
    return ws;
}

/* Hands the descriptor to libwebsockets and lets it read and answer the request. */
static void let_in(struct ws *ws, int fd)
{
    struct ws_server *server = ws->server;

    ws->wsi = lws_adopt_socket_vhost(server->vhost, fd);
    /* On failure libwebsockets has closed the descriptor and said why. */
    if (!ws->wsi) {
        ws_free(ws);
        return;
    }
    lws_set_opaque_user_data(ws->wsi, ws);
    server->admitting = ws;
    lws_loop_read(ws->wsi);
    if (server->admitting != ws)
        return;
    server->admitting = NULL;
    ws->verdict = NULL;
    if (ws->session)
        return;
    log_error("libwebsockets has not taken a request", log_str("read", ws_stream_has_begun(&ws->stream) ? "yes" : "no"));
    lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
}

void ws_connection_start(struct ws_server *server, const struct ws_verdict *verdict, int fd, SSL *tls,
                         struct address_share *share, struct slice early, struct slice remote)
{
    struct ws *ws = ws_create(server, verdict, fd, tls, early);

    if (!ws) {
        log_error("connection refused", log_str("reason", error_name(ERROR_NO_MEMORY)));
        SSL_free(tls);
        address_share_release(share);
        close(fd);
        return;
    }
    ws->share = share;
    ws->verdict = verdict;
    ws->remote = remote;
    let_in(ws, fd);
}

int ws_connection_confirm(struct ws_server *server, struct lws *wsi)
{
    const struct ws *ws = lws_get_opaque_user_data(wsi);

    return ws && ws == server->admitting ? 0 : -1;
}

int ws_connection_established(struct ws_server *server, struct lws *wsi)
{
    struct ws *ws = lws_get_opaque_user_data(wsi);

    if (!ws || ws != server->admitting)
        return -1;
    struct session_params params = {
        .config = server->config,
        .route_params = &ws->verdict->match.params,
        .face = ws->verdict->face,
        .remote = ws->remote,
        .agent = ws->verdict->agent,
        .since = ws->verdict->arguments.since,
        .since_epoch = ws->verdict->arguments.since_epoch,
        .since_offset = ws->verdict->arguments.since_offset,
    };
    /* Until the session is online nothing is read: what the client sends now waits, in order. */
    lws_rx_flow_control(wsi, 0);
    ws->session = session_open(server->options.sessions, &params, &ws->transport);
    if (!ws->session) {
        log_error("connection refused", log_str("reason", error_name(ERROR_NO_MEMORY)));
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
    list_remove(&ws->dirty);
    list_remove(&ws->due);
    drop_partial(ws);
    session_detach(ws->session, ws->peer_code);
    ws->session = NULL;
    ws_stream_close(&ws->stream);
}

void ws_connection_gone(struct lws *wsi)
{
    struct ws *ws = lws_get_opaque_user_data(wsi);

    if (!ws)
        return;
    ws_connection_closed(wsi);
    lws_set_opaque_user_data(wsi, NULL);
    ws_free(ws);
}
