#include "storage/redis/redis_conn.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "proto/errors.h"
#include "storage/redis/redis_errors.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_SIZE = 64 * 1024,
    FEED_SIZE = 16 * 1024,      /* the parser shifts what is left of its buffer every 1 KiB: keep it small */
    FLUSH_SIZE = 256 * 1024,    /* write before the end of the turn, so that the server starts early */
    OUT_KEEP = 1024 * 1024,     /* an emptied output buffer larger than this is given back */
    OUT_MAX = 64 * 1024 * 1024, /* unwritten bytes beyond which a command is refused */
    PENDING_FIRST = 64,
    PENDING_KEEP = 16 * 1024, /* an emptied ring larger than this is given back */
    DELAY_MS = 10             /* until the next look when replies do arrive, but late */
};

struct redis_pending {
    redis_on_reply *on_reply;
    void *data;
    uint64_t deadline_ms;
    uint32_t rest; /* how many more replies the same command has */
};

/* ---- commands waiting for replies ---- */

static bool pending_push(struct redis_conn *conn, redis_on_reply *on_reply, void *data)
{
    if (conn->pending_count == conn->pending_capacity) {
        size_t capacity = conn->pending_capacity ? conn->pending_capacity * 2 : PENDING_FIRST;
        struct redis_pending *ring = mem_alloc(capacity * sizeof *ring);
        if (!ring)
            return false;
        for (size_t i = 0; i < conn->pending_count; i++)
            ring[i] = conn->pending[(conn->pending_first + i) & (conn->pending_capacity - 1)];
        mem_free(conn->pending);
        conn->pending = ring;
        conn->pending_capacity = capacity;
        conn->pending_first = 0;
    }
    conn->pending[(conn->pending_first + conn->pending_count++) & (conn->pending_capacity - 1)] =
        (struct redis_pending){.on_reply = on_reply, .data = data, .deadline_ms = conn->turn_deadline_ms};
    return true;
}

static struct redis_pending pending_pop(struct redis_conn *conn)
{
    struct redis_pending head = conn->pending[conn->pending_first];

    conn->answered++;
    conn->pending_first = (conn->pending_first + 1) & (conn->pending_capacity - 1);
    if (--conn->pending_count == 0 && conn->pending_capacity > PENDING_KEEP) {
        mem_free(conn->pending);
        conn->pending = NULL;
        conn->pending_first = conn->pending_capacity = 0;
    }
    return head;
}

static void pending_fail(struct redis_conn *conn, int first_error, int error)
{
    while (conn->pending_count) {
        struct redis_pending head = pending_pop(conn);
        head.on_reply(head.data, NULL, first_error);
        first_error = error;
    }
}

/* ---- ending ---- */

static void hang_up(struct redis_conn *conn)
{
    redis_dial_cancel(&conn->dial);
    event_del(conn->readable);
    event_del(conn->writable);
    event_del(conn->turn);
    event_del(conn->deadline);
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    conn->state = REDIS_CONN_CLOSED;
    conn->turn_pending = conn->write_blocked = conn->errored = false;
    buffer_close(&conn->out);
    conn->written = 0;
}

static void end(struct redis_conn *conn, const char *why, int first_error)
{
    char text[sizeof conn->why];

    snprintf(text, sizeof text, "%s", why);
    hang_up(conn);
    conn->events.on_down(conn->events.data, text);
    pending_fail(conn, first_error, ERROR_UNAVAILABLE);
}

void redis_conn_close(struct redis_conn *conn, int error)
{
    if (conn->state == REDIS_CONN_CLOSED)
        return;
    hang_up(conn);
    pending_fail(conn, error, error);
}

void redis_conn_fail(struct redis_conn *conn, const char *why)
{
    if (conn->state == REDIS_CONN_CLOSED || conn->errored)
        return;
    snprintf(conn->why, sizeof conn->why, "%s", why);
    conn->errored = true;
    event_active(conn->turn, 0, 0);
}

/* ---- writing ---- */

static void flush(struct redis_conn *conn)
{
    if (conn->errored || conn->write_blocked)
        return;
    while (conn->written < conn->out.len) {
        ssize_t n =
            send(conn->fd, conn->out.data + conn->written, conn->out.len - conn->written, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            redis_conn_fail(conn, strerror(errno));
            return;
        }
        if (n < 0) {
            conn->write_blocked = true;
            event_add(conn->writable, NULL);
            /* Shifting pays once there is more to forget than to move. */
            if (conn->written > conn->out.len / 2) {
                buffer_drop_front(&conn->out, conn->written);
                conn->written = 0;
            }
            return;
        }
        conn->written += (size_t)n;
    }
    conn->written = 0;
    buffer_recycle(&conn->out, OUT_KEEP);
}

static void on_writable(evutil_socket_t fd, short what, void *data)
{
    struct redis_conn *conn = data;

    (void)fd, (void)what;
    conn->write_blocked = false;
    flush(conn);
}

static void on_turn(evutil_socket_t fd, short what, void *data)
{
    struct redis_conn *conn = data;

    (void)fd, (void)what;
    if (conn->errored) {
        end(conn, conn->why, ERROR_UNAVAILABLE);
        return;
    }
    if (conn->state == REDIS_CONN_READY)
        conn->events.on_turn_end(conn->events.data);
    conn->turn_pending = false;
    if (conn->fd >= 0)
        flush(conn);
}

static void arm_deadline(struct redis_conn *conn, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};

    event_add(conn->deadline, &tv);
}

void redis_conn_want_turn(struct redis_conn *conn)
{
    if (conn->turn_pending || conn->state < REDIS_CONN_GREETING)
        return;
    conn->turn_pending = true;
    conn->turn_deadline_ms = clock_monotonic_ms() + conn->timeout_ms;
    event_active(conn->turn, 0, 0);
    if (!evtimer_pending(conn->deadline, NULL))
        arm_deadline(conn, conn->timeout_ms);
}

/* "*3\r\n" or "$5\r\n" */
static bool append_head(struct buffer *out, char mark, size_t number)
{
    char text[24];
    size_t at = sizeof text;

    text[--at] = '\n';
    text[--at] = '\r';
    do
        text[--at] = (char)('0' + number % 10);
    while (number /= 10);
    text[--at] = mark;
    return buffer_append(out, text + at, sizeof text - at);
}

bool redis_bulk_append(struct buffer *out, struct slice arg)
{
    append_head(out, '$', arg.len);
    buffer_append(out, arg.data, arg.len);
    buffer_append(out, "\r\n", 2);
    return !out->failed;
}

/* Begins a command of `count` arguments; 0 or an error. */
static int command_begin(struct redis_conn *conn, size_t count)
{
    if (conn->state < REDIS_CONN_GREETING || conn->errored)
        return ERROR_UNAVAILABLE;
    if (conn->out.len - conn->written > OUT_MAX)
        return ERROR_LIMIT;
    redis_conn_want_turn(conn);
    append_head(&conn->out, '*', count);
    return 0;
}

static int command_end(struct redis_conn *conn, size_t start, redis_on_reply *on_reply, void *data)
{
    if (conn->out.failed || (on_reply && !pending_push(conn, on_reply, data))) {
        conn->out.len = start;
        conn->out.failed = false;
        return ERROR_NO_MEMORY;
    }
    if (conn->out.len - conn->written > FLUSH_SIZE)
        flush(conn);
    return 0;
}

int redis_conn_command(struct redis_conn *conn, const struct slice *args, size_t count,
                       redis_on_reply *on_reply, void *data)
{
    size_t start = conn->out.len;
    int error = command_begin(conn, count);

    if (error)
        return error;
    for (size_t i = 0; i < count; i++)
        redis_bulk_append(&conn->out, args[i]);
    return command_end(conn, start, on_reply, data);
}

int redis_conn_command_raw(struct redis_conn *conn, struct slice bulks, size_t count,
                           redis_on_reply *on_reply, void *data)
{
    size_t start = conn->out.len;
    int error = command_begin(conn, count);

    if (error)
        return error;
    buffer_append(&conn->out, bulks.data, bulks.len);
    return command_end(conn, start, on_reply, data);
}

int redis_conn_announce(struct redis_conn *conn, redis_on_reply *on_reply, void *data)
{
    if (conn->state != REDIS_CONN_READY || conn->errored)
        return ERROR_UNAVAILABLE;
    redis_conn_want_turn(conn);
    return pending_push(conn, on_reply, data) ? 0 : ERROR_NO_MEMORY;
}

void redis_conn_subscription(struct redis_conn *conn, const char *verb, struct slice channels, size_t count)
{
    size_t start = conn->out.len;
    size_t first = conn->pending_first + conn->pending_count - count;

    for (size_t i = 0; i < count; i++)
        conn->pending[(first + i) & (conn->pending_capacity - 1)].rest = (uint32_t)(count - 1 - i);
    if (command_begin(conn, count + 1) == 0) {
        redis_bulk_append(&conn->out, slice_text(verb));
        buffer_append(&conn->out, channels.data, channels.len);
        if (command_end(conn, start, NULL, NULL) == 0)
            return;
    }
    /* Replies were announced that will not come now. */
    redis_conn_fail(conn, "memory is short");
}

/* ---- reading ---- */

/* Sharded ones begin with an s. */
static bool is_word(struct slice text, const char *word)
{
    return slice_is(text, word) || (text.len && text.data[0] == 's' &&
                                    slice_is(slice_from(text.data + 1, text.len - 1), word));
}

static void dispatch_error(struct redis_conn *conn, const struct redis_reply *reply)
{
    struct redis_pending head = pending_pop(conn);
    int error = redis_error_map(reply);

    head.on_reply(head.data, reply, error);
    for (uint32_t rest = head.rest; rest && conn->pending_count; rest--) {
        head = pending_pop(conn);
        head.on_reply(head.data, reply, error);
    }
    if (conn->state == REDIS_CONN_READY && redis_error_ends(reply))
        redis_conn_fail(conn, reply->text.data);
}

static void dispatch(struct redis_conn *conn, const struct redis_reply *reply)
{
    if (conn->events.on_message && reply->type == REDIS_TYPE_ARRAY && reply->count >= 3) {
        struct slice verb = redis_reply_text(reply, 0);
        if (is_word(verb, "message")) {
            conn->events.on_message(conn->events.data, redis_reply_text(reply, 1),
                                    redis_reply_text(reply, 2));
            return;
        }
        /* What the server ends of its own accord (a moved slot, a changed ACL) leaves the books wrong. */
        if (conn->pending_count && !is_word(verb, "subscribe") && !is_word(verb, "unsubscribe")) {
            end(conn, "an unknown kind of push arrived", ERROR_UNAVAILABLE);
            return;
        }
    }
    if (!conn->pending_count) {
        end(conn,
            reply->type == REDIS_TYPE_ERROR ? reply->text.data : "a reply arrived that nothing asked for",
            ERROR_UNAVAILABLE);
    } else if (reply->type == REDIS_TYPE_ERROR) {
        dispatch_error(conn, reply);
    } else {
        struct redis_pending head = pending_pop(conn);
        head.on_reply(head.data, reply, 0);
    }
}

static void parse(struct redis_conn *conn, const char *bytes, size_t len)
{
    const char *error = NULL;

    for (size_t done = 0; done < len && conn->fd >= 0;) {
        size_t piece = len - done < FEED_SIZE ? len - done : FEED_SIZE;
        const struct redis_reply *reply;

        if (!redis_replies_feed(conn->replies, bytes + done, piece)) {
            end(conn, "memory is short", ERROR_UNAVAILABLE);
            return;
        }
        done += piece;
        while ((reply = redis_replies_next(conn->replies, &error))) {
            dispatch(conn, reply);
            if (conn->fd < 0)
                return;
        }
        if (error) {
            end(conn, error, ERROR_UNAVAILABLE);
            return;
        }
    }
}

/* False when there was nothing to read. */
static bool read_some(struct redis_conn *conn)
{
    ssize_t n = recv(conn->fd, conn->chunk, READ_SIZE, 0);

    if (n > 0) {
        conn->received += (uint64_t)n;
        parse(conn, conn->chunk, (size_t)n);
        return true;
    }
    if (n == 0)
        end(conn, "the server closed the connection", ERROR_UNAVAILABLE);
    else if (errno != EAGAIN && errno != EINTR)
        end(conn, strerror(errno), ERROR_UNAVAILABLE);
    return false;
}

static void on_readable(evutil_socket_t fd, short what, void *data)
{
    (void)fd, (void)what;
    read_some(data);
}

void redis_conn_poll(struct redis_conn *conn)
{
    enum { READS = 16 };

    for (int i = 0; i < READS && conn->fd >= 0; i++)
        if (!read_some(conn))
            return;
}

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    struct redis_conn *conn = data;
    uint64_t received = conn->received;
    uint64_t now = clock_monotonic_ms();

    (void)fd, (void)what;
    if (!conn->pending_count)
        return;
    if (conn->pending[conn->pending_first].deadline_ms <= now) {
        redis_conn_poll(conn);
        if (conn->fd < 0 || !conn->pending_count)
            return;
        if (conn->pending[conn->pending_first].deadline_ms <= now) {
            if (conn->received == received)
                end(conn, "no answer in time", ERROR_TIMEOUT);
            else
                arm_deadline(conn, DELAY_MS);
            return;
        }
    }
    arm_deadline(conn, conn->pending[conn->pending_first].deadline_ms - now);
}

/* ---- beginning ---- */

static void refuse(struct redis_conn *conn, const char *step, const struct redis_reply *reply,
                   const char *advice)
{
    char why[sizeof conn->why];

    snprintf(why, sizeof why, "%s: %s%s", step, reply->text.data, advice);
    end(conn, why, ERROR_UNAVAILABLE);
}

static void on_auth(void *data, const struct redis_reply *reply, int error)
{
    if (reply && error)
        refuse(data, "AUTH", reply, " (check user and password in the redis URL)");
}

static void on_select(void *data, const struct redis_reply *reply, int error)
{
    if (reply && error)
        refuse(data, "SELECT", reply,
               redis_reply_is_error(reply, "NOAUTH") ? " (the redis URL needs a password)"
                                                     : " (check the database in the redis URL)");
}

static void on_named(void *data, const struct redis_reply *reply, int error)
{
    (void)data, (void)reply, (void)error; /* a name is only a courtesy */
}

static void on_greeted(void *data, const struct redis_reply *reply, int error)
{
    struct redis_conn *conn = data;

    if (reply && error) {
        refuse(conn, "PING", reply,
               redis_reply_is_error(reply, "NOAUTH") ? " (the redis URL needs a password)" : "");
    } else if (reply) {
        conn->state = REDIS_CONN_READY;
        conn->events.on_ready(conn->events.data);
    }
}

static int greet(struct redis_conn *conn)
{
    const struct redis_server *server = conn->server;
    char db[16];
    int error = 0;

    snprintf(db, sizeof db, "%" PRIu32, server->db);
    const struct slice auth[] = {slice_text("AUTH"), slice_text(server->user), slice_text(server->password)};
    const struct slice login[] = {auth[0], auth[2]};
    const struct slice choose[] = {slice_text("SELECT"), slice_text(db)};
    const struct slice name[] = {slice_text("CLIENT"), slice_text("SETNAME"), slice_text(conn->name)};
    const struct slice ping[] = {slice_text("PING")};

    if (server->password && server->user)
        error = redis_conn_command(conn, auth, 3, on_auth, conn);
    else if (server->password)
        error = redis_conn_command(conn, login, 2, on_auth, conn);
    if (!error && server->db)
        error = redis_conn_command(conn, choose, 2, on_select, conn);
    if (!error)
        error = redis_conn_command(conn, name, 3, on_named, conn);
    return error ? error : redis_conn_command(conn, ping, 1, on_greeted, conn);
}

static void on_dialed(void *data, int fd, const char *why)
{
    struct redis_conn *conn = data;

    if (fd < 0) {
        end(conn, why, ERROR_UNAVAILABLE);
        return;
    }
    conn->fd = fd;
    conn->state = REDIS_CONN_GREETING;
    event_assign(conn->readable, conn->loop, fd, EV_READ | EV_PERSIST, on_readable, conn);
    event_assign(conn->writable, conn->loop, fd, EV_WRITE, on_writable, conn);
    if (event_add(conn->readable, NULL) < 0 || greet(conn) != 0)
        end(conn, "memory is short", ERROR_UNAVAILABLE);
}

bool redis_conn_init(struct redis_conn *conn, struct event_base *loop, const struct redis_server *server,
                     const char *name, uint32_t timeout_ms, const struct redis_conn_events *events)
{
    *conn = (struct redis_conn){
        .loop = loop, .server = server, .name = name, .timeout_ms = timeout_ms, .events = *events, .fd = -1};
    buffer_init(&conn->out, 0);
    bool dial = redis_dial_init(&conn->dial, loop, server, on_dialed, conn);
    conn->readable = event_new(loop, -1, EV_READ | EV_PERSIST, on_readable, conn);
    conn->writable = event_new(loop, -1, EV_WRITE, on_writable, conn);
    conn->turn = event_new(loop, -1, 0, on_turn, conn);
    conn->deadline = evtimer_new(loop, on_deadline, conn);
    conn->chunk = mem_alloc(READ_SIZE);
    return dial && conn->readable && conn->writable && conn->turn && conn->deadline && conn->chunk;
}

void redis_conn_destroy(struct redis_conn *conn)
{
    struct event *events[] = {conn->readable, conn->writable, conn->turn, conn->deadline};

    redis_conn_close(conn, ERROR_CANCELLED);
    redis_dial_close(&conn->dial);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    redis_replies_destroy(conn->replies);
    mem_free(conn->chunk);
    mem_free(conn->pending);
    buffer_close(&conn->out);
    *conn = (struct redis_conn){.fd = -1};
}

void redis_conn_open(struct redis_conn *conn)
{
    /* Whatever was half parsed belonged to the last connection. */
    redis_replies_destroy(conn->replies);
    conn->replies = redis_replies_create();
    conn->state = REDIS_CONN_DIALING;
    if (conn->replies) {
        redis_dial_start(&conn->dial, conn->timeout_ms);
        return;
    }
    snprintf(conn->why, sizeof conn->why, "memory is short");
    conn->errored = true;
    event_active(conn->turn, 0, 0);
}
