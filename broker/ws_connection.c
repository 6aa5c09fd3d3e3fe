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
 * is told to send the close frame. A client that doesn't read is dropped at close_timeout. What the kernel holds by
 * then is forgotten at once, or after another close_timeout when the close frame is among it.
 *
 * Patience (pulse.h): whether a client lives is asked by pings, and whether it takes what waits for it by what its
 * kernel acknowledges; a message that comes in pieces must be complete in time. Four lists, each in the order in
 * which something is due, and one timer serve all connections. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "broker/lws_loop.h"
#include "broker/metrics.h"
#include "broker/outbox.h"
#include "broker/pulse.h"
#include "broker/socket.h"
#include "broker/ws_internal.h"
#include "broker/ws_stream.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <event2/util.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 512, /* of the request that libwebsockets reads */
    PONGS_MAX = 32,    /* that wait to be written at a time; of further pings only the last is answered */
    LOOKS = 8,         /* at a connection whose socket is full, in a stall_timeout at least */
    LOOK_MAX_MS = 1000, /* and that often at least: budget.c wants to know who took something lately */
    UNSENT_MIN = 256,  /* what libwebsockets keeps at most of its own */
    GIVE_BACK = 8 << 20, /* bytes that were freed are given back to the system from so many on */
};

/* A message that comes in pieces. */
struct assembly {
    struct ws *ws;
    struct buffer bytes;
    struct list link; /* in server->assembling */
    uint64_t due_ms;  /* it must be complete */
    uint64_t last_ms; /* its last piece came, to the second */
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
    struct frame *pong; /* owned: answers the last ping, once the others are written; NULL mostly */
    uint8_t pongs;      /* in the outbox, at most */
    struct list full; /* in server->full_sockets while the socket takes nothing more, or alone */
    uint64_t look_ms; /* when it is looked at next */
    struct pulse pulse;
    struct assembly *assembly; /* owned; NULL between messages that come in pieces */
    uint16_t close_code;       /* ours: non-zero while closing */
    uint16_t peer_code;        /* the client's: non-zero once it sent a close frame */
    bool awaiting_writable;
    bool unsent; /* libwebsockets keeps what the socket didn't take, and session_keeps() was told */
    bool said_why; /* the close frame is being written */
    bool close_sent; /* it has left */
    bool ending;     /* and the client has sent its own */
    bool skipping; /* the rest of a refused message is thrown away */
};

/* NULL for what is no session. */
static struct ws *ws_of(struct lws *wsi)
{
    struct ws *ws = lws_get_opaque_user_data(wsi);

    return ws && ws->session ? ws : NULL;
}

/* ---- what the session asks ---- */

/* ws_connections_on_flush() comes by at the end of the turn. */
static void flush_soon(struct ws *ws)
{
    if (!list_empty(&ws->dirty))
        return;
    list_append(&ws->server->dirty, &ws->dirty);
    loop_defer(ws->server->options.loop, &ws->server->flush_task);
}

static void want_write(struct session_transport *transport)
{
    struct ws *ws = container_of(transport, struct ws, transport);

    if (!ws->awaiting_writable)
        flush_soon(ws);
}

static void drop_now(struct ws *ws)
{
    lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
}

static void set_reading(struct session_transport *transport, bool on)
{
    struct ws *ws = container_of(transport, struct ws, transport);

    if (!on)
        pulse_hold_back(&ws->pulse);
    lws_rx_flow_control(ws->wsi, on);
}

static struct socket_progress progress_of(const struct ws *ws)
{
    return socket_progress(lws_get_socket_fd(ws->wsi));
}

static void drop_assembly(struct ws *ws)
{
    if (!ws->assembly)
        return;
    list_remove(&ws->assembly->link);
    buffer_close(&ws->assembly->bytes);
    mem_free(ws->assembly);
    ws->assembly = NULL;
    session_keeps(ws->session, BUDGET_ASSEMBLY, 0);
}

static uint64_t still_ms(struct session_transport *transport)
{
    struct ws *ws = container_of(transport, struct ws, transport);
    uint64_t now = clock_monotonic_ms();
    uint64_t output = list_empty(&ws->full) ? 0 : pulse_still_ms(&ws->pulse, now, progress_of(ws));
    uint64_t input = ws->assembly ? now - ws->assembly->last_ms : 0;

    return output > input ? output : input;
}

static void drop(struct session_transport *transport)
{
    struct ws *ws = container_of(transport, struct ws, transport);

    drop_assembly(ws);
    if (!ws->unsent)
        return;
    /* libwebsockets would keep what it has for seconds, trying to write it, were it not to fail in that. */
    unsigned char nothing[1] = {0};
    socket_cut_off(lws_get_socket_fd(ws->wsi));
    (void)!lws_write(ws->wsi, nothing, sizeof nothing, LWS_WRITE_HTTP);
    drop_now(ws);
}

static void close_connection(struct session_transport *transport, int code)
{
    struct ws *ws = container_of(transport, struct ws, transport);

    ws->close_code = (uint16_t)code;
    ws_gate_shut(&ws->stream.gate);
    list_remove(&ws->due);
    ws->due_ms = clock_monotonic_ms() + ws->server->config->close_timeout;
    list_append(&ws->server->closing, &ws->due);
    list_remove(&ws->full);
    drop_assembly(ws);
    /* The client's answer to the close frame must be read, whatever stopped reading. */
    lws_rx_flow_control(ws->wsi, 1);
    want_write(transport);
}

static const struct session_transport_ops transport_ops = {
    .want_write = want_write, .set_reading = set_reading, .close = close_connection, .still_ms = still_ms, .drop = drop};

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

static uint64_t next_look_ms(const struct ws_server *server, uint64_t now)
{
    uint64_t wait = server->config->stall_timeout / LOOKS;

    return now + (wait < LOOK_MAX_MS ? wait : LOOK_MAX_MS);
}

static void watch(struct ws *ws, uint64_t now)
{
    list_remove(&ws->full);
    ws->look_ms = next_look_ms(ws->server, now);
    list_append(&ws->server->full_sockets, &ws->full);
}

/* The socket is full, and libwebsockets keeps the rest of the last `written` bytes, perhaps all of them. */
static void fill(struct ws *ws, size_t written)
{
    if (written || !ws->unsent)
        session_keeps(ws->session, BUDGET_UNSENT, written > UNSENT_MIN ? written : UNSENT_MIN);
    ws->unsent = true;
    pulse_hold_back(&ws->pulse);
    if (ws->close_code || !list_empty(&ws->full))
        return;
    uint64_t now = clock_monotonic_ms();
    pulse_stall(&ws->pulse, now, progress_of(ws));
    watch(ws, now);
}

/* All is written, to the socket at least. */
static void empty(struct ws *ws)
{
    ws->unsent = false;
    list_remove(&ws->full);
    session_keeps(ws->session, BUDGET_UNSENT, 0);
}

/* Writes until the outbox is empty or the socket is full. False when the connection is broken. */
static bool flush(struct ws *ws)
{
    struct outbox *outbox = session_outbox(ws->session);
    unsigned char *scratch = ws->server->scratch;
    const unsigned char *data;
    uint32_t frames;
    size_t len = 0;

    while (!lws_partial_buffered(ws->wsi)) {
        len = outbox ? outbox_gather(outbox, scratch, WS_SCRATCH_SIZE, &data, &frames) : 0;
        if (!len) {
            if (ws->unsent)
                empty(ws);
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
            on_drained(ws);
    }
    fill(ws, len);
    await_writable(ws);
    return true;
}

void ws_connections_on_flush(struct loop_task *task)
{
    struct ws_server *server = container_of(task, struct ws_server, flush_task);

    for (struct list *link; (link = list_pop(&server->dirty));) {
        struct ws *ws = container_of(link, struct ws, dirty);
        if (ws->ending || !flush(ws))
            drop_now(ws);
        else if (ws->unsent) /* at once: a large message to many who don't read would be copied for all of them first */
            budget_relieve(server->options.budget);
    }
}

int ws_connection_writable(struct lws *wsi)
{
    struct ws *ws = ws_of(wsi);

    if (!ws)
        return 0;
    ws->awaiting_writable = false;
    /* Told once more, libwebsockets would not wait for the client's close frame. */
    if (ws->said_why)
        return 0;
    struct outbox *outbox = session_outbox(ws->session);
    if (ws->close_code && (!outbox || !outbox->count) && !lws_partial_buffered(wsi)) {
        struct slice reason = session_close_reason(ws->session);
        ws->said_why = true;
        lws_close_reason(wsi, (enum lws_close_status)ws->close_code, (unsigned char *)(uintptr_t)reason.data,
                         reason.len);
        ws->stream.last_words = true;
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

void ws_connections_reschedule(struct ws_server *server)
{
    uint64_t now = clock_monotonic_ms();

    cap_due(&server->quiet, next_ping_ms(server, now));
    cap_due(&server->pinged, now + server->config->ping_timeout);
    list_for_each (link, &server->full_sockets) {
        struct ws *ws = container_of(link, struct ws, full);
        uint64_t latest = next_look_ms(server, now);
        ws->look_ms = ws->look_ms < latest ? ws->look_ms : latest;
    }
    list_for_each (link, &server->assembling) {
        struct assembly *assembly = container_of(link, struct assembly, link);
        uint64_t latest = now + server->config->message_timeout;
        assembly->due_ms = assembly->due_ms < latest ? assembly->due_ms : latest;
    }
}

static void await_pong(struct ws *ws, uint64_t now)
{
    list_remove(&ws->due);
    ws->due_ms = now + ws->server->config->ping_timeout;
    list_append(&ws->server->pinged, &ws->due);
}

static void send_ping(struct ws *ws, uint64_t now)
{
    struct outbox *outbox = session_outbox(ws->session);
    uint64_t nonce;

    do
        evutil_secure_rng_get_bytes(&nonce, sizeof nonce);
    while (!nonce);
    /* Nothing can be written before it is online; the storage's deadlines see to it that this doesn't last. */
    struct frame *frame =
        outbox ? frame_create(FRAME_PING, slice_from((const char *)&nonce, sizeof nonce)) : NULL;
    if (!frame) {
        schedule_ping(ws, now);
        return;
    }
    pulse_ping(&ws->pulse, nonce, progress_of(ws));
    await_pong(ws, now);
    /* When there is no room for it, the socket is full, and that is looked after as well. */
    if (outbox_push(outbox, frame, ws->server->config->outbox_limit))
        want_write(&ws->transport);
    frame_unref(frame);
}

/* The ping's time is over. */
static void judge(struct ws *ws, uint64_t now)
{
    struct socket_progress progress = progress_of(ws);
    bool stuck = list_empty(&ws->full) && socket_unacked(lws_get_socket_fd(ws->wsi)) > 0;

    switch (pulse_judge(&ws->pulse, progress, session_is_busy(ws->session) || !list_empty(&ws->full))) {
    case PULSE_ALIVE:
        schedule_ping(ws, now);
        /* It talks, but takes nothing of the little that waits for it: that all of it is in the kernel makes no difference. */
        if (stuck) {
            pulse_stall(&ws->pulse, now, progress);
            watch(ws, now);
        }
        break;
    case PULSE_WAIT:
        await_pong(ws, now);
        break;
    case PULSE_DEAD:
        ws->server->options.metrics->sessions_silent++;
        session_end(ws->session, CLOSE_PING_TIMEOUT);
        break;
    }
}

/* Whoever takes something goes on, for as long as it likes. */
static void look(struct ws *ws, uint64_t now)
{
    bool in_kernel = !ws->unsent && socket_unacked(lws_get_socket_fd(ws->wsi)) == 0;

    if (in_kernel)
        list_remove(&ws->full);
    else if (pulse_still_ms(&ws->pulse, now, progress_of(ws)) >= ws->server->config->stall_timeout)
        session_cut(ws->session, CUT_STALL);
    else
        watch(ws, now);
}

/* After much was freed the allocator still holds it, behind the little that was allocated last. */
static void give_back(struct ws_server *server)
{
    size_t used = budget_used(server->options.budget);

    if (used >= server->kept_at_most) {
        server->kept_at_most = used;
    } else if (server->kept_at_most - used >= GIVE_BACK) {
        server->kept_at_most = used;
        mem_trim();
    }
}

void ws_connections_tick(struct ws_server *server)
{
    uint64_t now = clock_monotonic_ms();

    server->now_ms = now;
    while (!list_empty(&server->full_sockets)) {
        struct ws *ws = container_of(server->full_sockets.next, struct ws, full);
        if (ws->look_ms > now)
            break;
        look(ws, now);
    }
    while (!list_empty(&server->assembling)) {
        struct assembly *assembly = container_of(server->assembling.next, struct assembly, link);
        if (assembly->due_ms > now)
            break;
        struct ws *ws = assembly->ws;
        session_cut(ws->session, CUT_UNFINISHED);
        drop_assembly(ws);
    }
    while (!list_empty(&server->pinged)) {
        struct ws *ws = container_of(server->pinged.next, struct ws, due);
        if (ws->due_ms > now)
            break;
        judge(ws, now);
    }
    while (!list_empty(&server->quiet)) {
        struct ws *ws = container_of(server->quiet.next, struct ws, due);
        if (ws->due_ms > now)
            break;
        send_ping(ws, now);
    }
    while (!list_empty(&server->closing)) {
        struct ws *ws = container_of(server->closing.next, struct ws, due);
        if (ws->due_ms > now)
            break;
        list_remove(&ws->due);
        drop_now(ws);
    }
    budget_relieve(server->options.budget);
    give_back(server);
}

void ws_connection_pong(struct lws *wsi, const void *payload, size_t len)
{
    struct ws *ws = ws_of(wsi);

    if (ws && !ws->close_code && pulse_pong(&ws->pulse, payload, len))
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

/* Ends the session for what the client sent; the rest of it is read and thrown away. */
static void refuse(struct ws *ws, int code, const char *reason)
{
    struct slice name = session_name(ws->session);
    struct slice conn = session_conn(ws->session);
    uint64_t left_out;

    if (session_may_log(ws->session, &left_out))
        log_warn("message refused", log_bytes("session", name.data, name.len),
                 log_bytes("conn", conn.data, conn.len), log_str("reason", error_name(code)),
                 log_str("detail", reason), log_int("left_out", (int64_t)left_out));
    ws->skipping = true;
    drop_assembly(ws);
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

/* The close frame has left. If the client has sent its own, libwebsockets would wait for another one; and where frames are
 * broken, the client's may not be found any more. */
static void on_last_words(void *data)
{
    struct ws *ws = data;

    ws->close_sent = true;
    ws->ending = ws->stream.gate.closed || ws->close_code == CLOSE_PROTOCOL_ERROR;
    if (ws->ending)
        flush_soon(ws);
}

static void linger(void *data, int fd)
{
    struct ws *ws = data;

    ws_newcomer_linger(ws->server, fd);
}

static bool may_close(void *data)
{
    struct ws *ws = data;
    const struct outbox *outbox = ws->session ? session_outbox(ws->session) : NULL;

    /* Ours goes first, or libwebsockets would answer with the client's code. */
    if (ws->close_code)
        return ws->close_sent;
    return (!outbox || !outbox->count) && !lws_partial_buffered(ws->wsi);
}

static const struct ws_stream_calls stream_calls = {
    .gate = {.may_close = may_close, .on_ping = on_ping, .on_violation = on_violation},
    .max_message = max_message,
    .on_last_words = on_last_words,
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

static bool begin_assembly(struct ws *ws)
{
    struct ws_server *server = ws->server;

    ws->assembly = mem_alloc(sizeof *ws->assembly);
    if (!ws->assembly)
        return false;
    ws->assembly->ws = ws;
    buffer_init(&ws->assembly->bytes, 0);
    ws->assembly->due_ms = server->now_ms + server->config->message_timeout;
    list_append(&server->assembling, &ws->assembly->link);
    return true;
}

static bool append(struct ws *ws, const void *data, size_t len)
{
    struct buffer *bytes = ws->assembly ? &ws->assembly->bytes : NULL;
    size_t before = bytes ? bytes->capacity : 0;

    if (!bytes && !begin_assembly(ws))
        return false;
    bytes = &ws->assembly->bytes;
    ws->assembly->last_ms = ws->server->now_ms;
    if (!buffer_append(bytes, data, len))
        return false;
    if (!before || bytes->capacity != before)
        session_keeps(ws->session, BUDGET_ASSEMBLY, sizeof *ws->assembly + bytes->capacity + BUDGET_OVERHEAD);
    return true;
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

/* The message is the session's to end, and with the session goes what was put together. */
static void receive_assembled(struct ws *ws)
{
    struct buffer bytes = ws->assembly->bytes;

    buffer_init(&ws->assembly->bytes, 0);
    drop_assembly(ws);
    receive_message(ws, bytes.data, bytes.len);
    buffer_close(&bytes);
}

int ws_connection_receive(struct lws *wsi, const void *data, size_t len)
{
    struct ws *ws = ws_of(wsi);
    bool last = lws_is_final_fragment(wsi);

    /* After a close frame, ours or theirs, nothing counts any more. */
    if (!ws || ws->close_code || ws->peer_code || ws->skipping)
        return 0;
    ws->pulse.heard = true;
    if (!last || lws_remaining_packet_payload(wsi))
        lws_loop_expect_more(wsi);
    /* How large a message may become was checked by the gate. */
    if (last && !ws->assembly) {
        receive_message(ws, data, len);
    } else if (!append(ws, data, len)) {
        refuse(ws, CLOSE_INTERNAL, "memory is short");
    } else if (last) {
        receive_assembled(ws);
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
    if (!wrong)
        return 0;
    if (ws)
        ws->stream.last_words = true;
    lws_close_reason(wsi, (enum lws_close_status)wrong, NULL, 0);
    return -1;
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
    list_init(&ws->full);
    socket_bound(fd, server->config->send_buffer, server->config->receive_buffer);
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
    drop_now(ws);
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

/* The socket is about to be closed. */
static void let_kernel_forget(struct ws *ws)
{
    int fd = lws_get_socket_fd(ws->wsi);

    if (!socket_unacked(fd))
        return;
    if (ws->close_code && !ws->said_why && !ws->peer_code)
        socket_reset_on_close(fd);
    else
        socket_give_up_after(fd, ws->server->config->close_timeout);
}

void ws_connection_closed(struct lws *wsi)
{
    struct ws *ws = ws_of(wsi);

    if (!ws)
        return;
    list_remove(&ws->dirty);
    list_remove(&ws->due);
    drop_assembly(ws);
    if (ws->unsent)
        empty(ws);
    list_remove(&ws->full);
    let_kernel_forget(ws);
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
