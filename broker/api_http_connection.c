/* One connection of the HTTP server.
 *
 * The happy path: FRESH, HEAD, BODY, SERVED, ANSWERING, and IDLE until the next request; then HEAD again. Requests that come
 * one behind the other wait in `in`, which is never larger than a head may be, and are served one after the other. A client
 * that shuts down its side of the connection has said its last request, and still gets the answer to it.
 *
 * A connection ends in four ways. After an answer that says so it LINGERs: our side is shut down, and what the client still
 * sends is dropped for a moment, because closing on unread bytes resets the connection and takes the answer along. It is too
 * slow: 408 when a request was begun. It breaks. Or the server needs its place. Whoever serves the request is told when
 * there is nobody left to answer.
 *
 * An answer may come in the middle of anything, so giving one only marks; what follows happens in go_on(), which is called
 * from events and from a task of the loop, never from inside itself. */
#include "broker/api_http_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "broker/metrics.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    LINGER_MS = 1000,
    DISCARD_MAX = 16 << 20, /* of a body that is too large */
    DISCARD_STRANGERS_MAX = 1 << 20,
    SURPLUS_MS = 2000,
    READ_MAX = 16 << 10,
    REQUESTS_A_TURN = 16,
    SMALL_ANSWER = 32 << 10,
    IN_KEPT = 1024,
};

static const char go_ahead[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* The problem that needs no memory. */
#define STARVED                                                                                              \
    "{\"type\":\"about:blank\",\"title\":\"Insufficient Storage\",\"status\":507,"                           \
    "\"detail\":\"memory is short\",\"code\":507,\"name\":\"no_memory\",\"retry\":true}\n"

static const char starved[] =
    "HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/problem+json\r\nContent-Length: 137\r\n"
    "Cache-Control: no-store\r\nConnection: close\r\n\r\n" STARVED;

static const struct http_problem problems[] = {
#define PROBLEM(symbol, status, text) [symbol] = {status, text},
    API_PROBLEMS(PROBLEM)
#undef PROBLEM
};

/* ---- states ---- */

static void set_deadline(struct api_conn *conn, uint64_t ms)
{
    const struct timeval after = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    event_add(&conn->timer, &after);
}

/* A request's deadline runs from its first byte to its last; being served has deadlines of its own. */
static void set_state_deadline(struct api_conn *conn)
{
    const struct api_server_limits *limits = &conn->server->limits;
    bool surplus = conn->pool == &conn->server->surplus;

    switch (conn->state) {
    case CONN_FRESH:
    case CONN_IDLE:
        set_deadline(conn, surplus ? SURPLUS_MS : limits->idle_ms);
        break;
    case CONN_HEAD:
    case CONN_ANSWERING:
        set_deadline(conn, surplus ? SURPLUS_MS : limits->timeout_ms);
        break;
    case CONN_LINGERING:
        set_deadline(conn, LINGER_MS);
        break;
    case CONN_SERVED:
        event_del(&conn->timer);
        break;
    default:
        break;
    }
}

static void enter(struct api_conn *conn, enum api_conn_state state)
{
    list_remove(&conn->link);
    list_append(&conn->pool->states[state], &conn->link);
    conn->state = state;
    conn->since_ms = clock_monotonic_ms();
    set_state_deadline(conn);
}

/* Reads as long as there is room and more may come. */
static void want_events(struct api_conn *conn)
{
    bool reads = !conn->ended && (conn->state == CONN_LINGERING || conn->in.len < conn->in.limit);

    if (conn->probed)
        return; /* `readable` waits for the end itself */
    if (reads)
        event_add(&conn->readable, NULL);
    else
        event_del(&conn->readable);
}

/* ---- the answer ---- */

static void write_date(struct buffer *head)
{
    char text[64];
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
    buffer_append_text(head, text);
}

static void http_free(struct api_http *http)
{
    api_body_close(&http->body, http->conn->server);
    buffer_close(&http->fields);
    http->conn->http = NULL;
    mem_free(http);
}

void api_http_answer(struct api_http *http, int status, const char *phrase, const char *type,
                     struct buffer *body)
{
    struct api_conn *conn = http->conn;

    /* What is left of a body would be taken for the next request. */
    conn->unread = conn->state != CONN_SERVED && (http->head.chunked || http->head.length);
    conn->unread = conn->unread || (http->close && !conn->ended);
    conn->discard_max = http->close ? DISCARD_STRANGERS_MAX : DISCARD_MAX;
    conn->close = http->close || http->head.close || conn->unread || (conn->ended && !conn->in.len) ||
                  conn->pool == &conn->server->surplus;
    buffer_printf(&conn->head, "HTTP/1.1 %d %s\r\n", status, phrase);
    write_date(&conn->head);
    buffer_printf(&conn->head, "Content-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n", type,
                  body->len);
    buffer_append(&conn->head, http->fields.data, http->fields.len);
    buffer_append_text(&conn->head, conn->close ? "Connection: close\r\n\r\n" : "\r\n");
    conn->starved = conn->head.failed || http->fields.failed;
    conn->on_sent = http->on_sent;
    conn->sent_data = http->sent_data;
    bool no_body = http->head.method == METHOD_HEAD;
    http_free(http);
    if (!no_body) {
        conn->body = *body;
        buffer_init(body, 0);
        conn->charged = conn->body.len;
        /* api_http_has_room() was asked before; what was not asked for is small. */
        if (!api_memory_take(conn->server, conn->charged))
            conn->charged = 0;
    }
    buffer_close(body);
    if (conn->probed)
        event_del(&conn->readable);
    conn->probed = false;
    enter(conn, CONN_ANSWERING);
    loop_defer(conn->server->options.loop, &conn->task);
}

static void drop_answer(struct api_conn *conn)
{
    api_memory_give(conn->server, conn->charged);
    conn->charged = conn->sent = 0;
    buffer_close(&conn->head);
    buffer_close(&conn->body);
}

/* True when nothing is left to write, or nothing can be written any more. */
static bool flush(struct api_conn *conn)
{
    size_t total = conn->head.len + conn->body.len;

    while (!conn->broken && !conn->starved && conn->sent < total) {
        size_t of_body = conn->sent > conn->head.len ? conn->sent - conn->head.len : 0;
        size_t of_head = conn->sent - of_body;
        struct iovec parts[2] = {{conn->head.data + of_head, conn->head.len - of_head}};
        if (conn->body.len)
            parts[1] = (struct iovec){conn->body.data + of_body, conn->body.len - of_body};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = conn->body.len ? 2 : 1};
        ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            event_add(&conn->writable, NULL);
            return false;
        }
        if (sent < 0)
            conn->broken = true;
        else
            conn->sent += (size_t)sent;
    }
    return true;
}

/* False: the connection is to be destroyed. */
static bool finish_answer(struct api_conn *conn)
{
    void (*on_sent)(void *) = conn->on_sent;

    drop_answer(conn);
    event_del(&conn->writable);
    conn->on_sent = NULL;
    if (on_sent)
        on_sent(conn->sent_data);
    if (conn->broken || conn->starved)
        return false;
    if (!conn->close) {
        enter(conn, CONN_IDLE);
        return true;
    }
    if (conn->ended || (!conn->unread && !conn->in.len) || conn->server->on_spare == conn)
        return false;
    shutdown(conn->fd, SHUT_WR);
    buffer_close(&conn->in);
    enter(conn, CONN_LINGERING);
    return true;
}

/* ---- a request ---- */

static struct api_http *http_create(struct api_conn *conn, size_t head_len)
{
    struct api_http *http = mem_alloc(sizeof *http + head_len + 1);

    if (!http)
        return NULL;
    memset(http, 0, sizeof *http);
    http->conn = conn;
    http->head.method = METHOD_OTHER;
    http->head.path = http->head.query = slice_text("");
    conn->http = http;
    return http;
}

static void ask_body(struct api_conn *conn, size_t max)
{
    const struct api_server_options *options = &conn->server->options;
    struct api_http *http = conn->http;
    enum api_problem problem = api_body_begin(&http->body, &http->head, max);

    if (problem) {
        options->ops->on_problem(options->data, http, &problems[problem]);
        return;
    }
    enter(conn, CONN_BODY);
    if (http->head.expects_continue && (http->head.chunked || http->head.length) && !conn->in.len)
        (void)!send(conn->fd, go_ahead, sizeof go_ahead - 1, MSG_NOSIGNAL);
}

/* What goes wrong before there is a whole request. */
static void refuse_with(struct api_conn *conn, const struct http_problem *problem)
{
    const struct api_server_options *options = &conn->server->options;
    struct api_http *http = conn->http ? conn->http : http_create(conn, 0);

    if (!http) {
        conn->starved = true;
        return;
    }
    http->close = true;
    enter(conn, CONN_SERVED);
    options->ops->on_problem(options->data, http, problem);
}

static void refuse(struct api_conn *conn, enum api_problem problem)
{
    refuse_with(conn, &problems[problem]);
}

static void take_head(struct api_conn *conn, size_t len)
{
    const struct api_server_options *options = &conn->server->options;
    struct api_http *http = http_create(conn, len);
    struct http_problem problem;
    size_t body_max = 0;

    if (!http) {
        conn->starved = true;
        return;
    }
    memcpy(http->text, conn->in.data, len);
    http->text[len] = '\0';
    buffer_drop_front(&conn->in, len);
    conn->scanned = 0;
    conn->skipped = false;
    if (!api_head_parse(http->text, len, &http->head, &problem)) {
        refuse_with(conn, &problem);
        return;
    }
    options->ops->on_head(options->data, http, &body_max);
    if (conn->http)
        ask_body(conn, body_max);
}

/* ---- the way on ---- */

/* Some clients send an empty line behind a body: one is forgiven. */
static bool begins(struct api_conn *conn)
{
    if (!conn->skipped && conn->in.len >= 2 && memcmp(conn->in.data, "\r\n", 2) == 0) {
        buffer_drop_front(&conn->in, 2);
        conn->skipped = true;
    }
    return conn->in.len > 1 || (conn->in.len == 1 && (conn->skipped || *conn->in.data != '\r'));
}

/* True when something happened that more can follow from. */
static bool step_head(struct api_conn *conn)
{
    struct http_problem problem;

    if (conn->state != CONN_HEAD) {
        if (!begins(conn))
            return false;
        enter(conn, CONN_HEAD);
    }
    switch (http_head_find_end(slice_from(conn->in.data, conn->in.len), conn->server->limits.head,
                               &conn->scanned, &problem)) {
    case HTTP_HEAD_WHOLE:
        take_head(conn, conn->scanned);
        return true;
    case HTTP_HEAD_BAD:
        refuse_with(conn, &problem);
        return true;
    default:
        if (conn->ended)
            refuse(conn, REQUEST_CUT);
        return conn->ended;
    }
}

static bool step_body(struct api_conn *conn)
{
    const struct api_server_options *options = &conn->server->options;
    struct api_http *http = conn->http;
    struct slice in = slice_from(conn->in.data, conn->in.len);
    bool done = false;
    enum api_problem problem = api_body_feed(&http->body, conn->server, &http->head, &in, &done);

    buffer_drop_front(&conn->in, conn->in.len - in.len);
    if (problem) {
        refuse(conn, problem);
    } else if (done) {
        enter(conn, CONN_SERVED);
        options->ops->on_request(options->data, http);
    } else if (conn->ended) {
        refuse(conn, REQUEST_CUT);
    } else {
        return false;
    }
    return true;
}

static void on_end(evutil_socket_t fd, short what, void *data)
{
    int error = 0;
    socklen_t len = sizeof error;

    (void)what;
    /* Reading would say "end" once more; the error tells whether the other direction has ended as well. */
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
        api_conn_destroy(data);
}

/* The client says no more. Whether it still listens only shows when something is sent: an interim answer, which every
 * client of HTTP/1.1 has to put up with. One that has left answers with a reset. False: it has left already. */
static bool probe(struct api_conn *conn)
{
    if (!conn->ended || conn->probed || !conn->http->probe || conn->http->head.old)
        return true;
    conn->probed = true;
    event_del(&conn->readable);
    event_assign(&conn->readable, event_get_base(&conn->readable), conn->fd, EV_READ | EV_ET | EV_PERSIST,
                 on_end, conn);
    event_add(&conn->readable, NULL);
    return send(conn->fd, go_ahead, sizeof go_ahead - 1, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
}

static bool wait_for_events(struct api_conn *conn)
{
    if (!conn->in.len)
        buffer_recycle(&conn->in, conn->state == CONN_IDLE ? 0 : IN_KEPT);
    want_events(conn);
    return true;
}

/* Does what can be done. False: the connection is to be destroyed. */
static bool go_on(struct api_conn *conn)
{
    for (int answers = 0; answers < REQUESTS_A_TURN;) {
        switch (conn->state) {
        case CONN_FRESH:
        case CONN_IDLE:
        case CONN_HEAD:
            if (!step_head(conn))
                return !conn->ended && !conn->starved && wait_for_events(conn);
            break;
        case CONN_BODY:
            if (!step_body(conn))
                return wait_for_events(conn);
            break;
        case CONN_SERVED:
            return probe(conn) && wait_for_events(conn);
        case CONN_ANSWERING:
            if (!flush(conn))
                return wait_for_events(conn);
            if (!finish_answer(conn))
                return false;
            answers++;
            break;
        default:
            return wait_for_events(conn);
        }
        if (conn->starved && conn->state != CONN_ANSWERING)
            return false;
    }
    loop_defer(conn->server->options.loop, &conn->task);
    return true;
}

static void end(struct api_conn *conn)
{
    if (conn->starved)
        (void)!send(conn->fd, starved, sizeof starved - 1, MSG_NOSIGNAL);
    api_conn_destroy(conn);
}

static bool live_on(struct api_conn *conn)
{
    if (go_on(conn))
        return true;
    end(conn);
    return false;
}

static void on_task(struct loop_task *task)
{
    live_on(container_of(task, struct api_conn, task));
}

/* False: it is over. */
static bool receive(struct api_conn *conn)
{
    char bytes[READ_MAX];
    bool lingering = conn->state == CONN_LINGERING;
    size_t room = lingering ? sizeof bytes : conn->in.limit - conn->in.len;

    if (!room)
        return true;
    ssize_t got = recv(conn->fd, bytes, room < sizeof bytes ? room : sizeof bytes, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (got == 0)
        conn->ended = true;
    else if (lingering)
        conn->discarded += (size_t)got;
    else
        conn->starved = !buffer_append(&conn->in, bytes, (size_t)got);
    return !conn->starved && (!lingering || (!conn->ended && conn->discarded <= conn->discard_max));
}

bool api_conn_read(struct api_conn *conn)
{
    if (receive(conn))
        return live_on(conn);
    end(conn);
    return false;
}

static void on_readable(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    api_conn_read(data);
}

static void on_writable(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    live_on(data);
}

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    struct api_conn *conn = data;

    (void)fd;
    (void)what;
    if (conn->state == CONN_HEAD || conn->state == CONN_BODY || conn->state == CONN_ANSWERING)
        conn->server->options.metrics->api_slow++;
    if (conn->state != CONN_HEAD && conn->state != CONN_BODY) {
        api_conn_destroy(conn);
        return;
    }
    refuse(conn, REQUEST_TOO_SLOW);
    live_on(conn);
}

/* ---- life ---- */

struct api_conn *api_conn_create(struct api_server *server, struct api_pool *pool, evutil_socket_t fd)
{
    struct event_base *base = loop_base(server->options.loop);
    struct api_conn *conn = mem_calloc(1, sizeof *conn);

    if (!conn)
        return NULL;
    conn->server = server;
    conn->pool = pool;
    conn->fd = fd;
    list_init(&conn->link);
    buffer_init(&conn->in, server->limits.head);
    buffer_init(&conn->head, 0);
    buffer_init(&conn->body, 0);
    loop_task_init(&conn->task, on_task);
    event_assign(&conn->readable, base, fd, EV_READ | EV_PERSIST, on_readable, conn);
    event_assign(&conn->writable, base, fd, EV_WRITE, on_writable, conn);
    event_assign(&conn->timer, base, -1, 0, on_deadline, conn);
    if (event_add(&conn->readable, NULL) != 0) {
        mem_free(conn);
        return NULL;
    }
    pool->count++;
    enter(conn, CONN_FRESH);
    return conn;
}

void api_conn_destroy(struct api_conn *conn)
{
    struct api_server *server = conn->server;
    struct api_http *http = conn->http;
    void (*on_sent)(void *) = conn->on_sent;

    event_del(&conn->readable);
    event_del(&conn->writable);
    event_del(&conn->timer);
    loop_cancel(&conn->task);
    list_remove(&conn->link);
    conn->pool->count--;
    if (http) {
        if (http->on_gone)
            http->on_gone(http->gone_data);
        http_free(http);
    }
    if (on_sent)
        on_sent(conn->sent_data);
    drop_answer(conn);
    buffer_close(&conn->in);
    close(conn->fd);
    if (server->on_spare == conn)
        api_server_take_back_spare(server);
    mem_free(conn);
}

/* ---- what serves it asks and says ---- */

const struct api_head *api_http_head(const struct api_http *http)
{
    return &http->head;
}

struct slice api_http_body(const struct api_http *http)
{
    const struct buffer *bytes = &http->body.bytes;

    return slice_from(bytes->data ? bytes->data : "", bytes->len);
}

void api_http_drop_body(struct api_http *http)
{
    api_body_close(&http->body, http->conn->server);
}

bool api_http_is_surplus(const struct api_http *http)
{
    return http->conn->pool == &http->conn->server->surplus;
}

void api_http_watch(struct api_http *http, bool probe_it, void (*on_gone)(void *data), void *data)
{
    http->probe = probe_it;
    http->on_gone = on_gone;
    http->gone_data = data;
}

void api_http_add_field(struct api_http *http, const char *name, const char *value)
{
    buffer_printf(&http->fields, "%s: %s\r\n", name, value);
}

void api_http_close_after(struct api_http *http)
{
    http->close = true;
}

void api_http_on_sent(struct api_http *http, void (*on_sent)(void *data), void *data)
{
    http->on_sent = on_sent;
    http->sent_data = data;
}

bool api_http_has_room(const struct api_http *http, size_t len)
{
    const struct api_server *server = http->conn->server;

    /* Metrics are wanted most when memory is short, and there are no more answers than connections. */
    if (len <= SMALL_ANSWER)
        return true;
    return len <= server->limits.memory && server->memory <= server->limits.memory - len;
}
