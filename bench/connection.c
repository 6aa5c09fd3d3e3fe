/* Raw WebSocket over non-blocking sockets. What is read is parsed where it lies; only what a read cut short is kept. */
#include "bench/load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512 };
enum { OPCODE_TEXT = 1, OPCODE_BINARY = 2, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

_Noreturn void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench_load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t load_now(const struct load *load)
{
    return monotonic_ns() - load->epoch;
}

/* xorshift64*: the same sequence in every run. */
uint32_t load_random(struct load *load, uint32_t below)
{
    uint64_t x = load->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    load->random = x;
    return (uint32_t)(((x * 2685821657736338717u) >> 32) * below >> 32);
}

static void interest_set(struct load *load, struct connection *conn, int operation, bool writing)
{
    struct epoll_event event = {.events = writing ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(load->epoll, operation, conn->fd, &event)) {
        fail("epoll_ctl: %s", strerror(errno));
    }
    conn->want_write = writing;
}

/* ---- opening and closing */

void connection_open(struct load *load, struct connection *conn)
{
    const struct options *options = &load->options;
    uint16_t port = conn->dialect->http ? options->api_ports[conn->port % options->api_port_count]
                                        : options->ports[conn->port % options->port_count];
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        fail("socket: %s (the limit of open files has to be above the number of connections)",
             strerror(errno));
    }
    int yes = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    conn->state = STATE_CONNECTING;
    if (connect(conn->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        if (errno != ECONNREFUSED && errno != ECONNRESET) {
            fail("connect to port %u: %s", port, strerror(errno));
        }
        connection_close(load, conn);
        load->hooks->on_lost(load, conn);
        return;
    }
    interest_set(load, conn, EPOLL_CTL_ADD, true);
}

/* With a reset: thousands of sockets in TIME_WAIT would be in the next run's way. */
void connection_close(struct load *load, struct connection *conn)
{
    if (conn->fd < 0) {
        return;
    }
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(conn->fd);
    conn->fd = -1;
    load->ready -= conn->state == STATE_READY;
    conn->state = STATE_CLOSED;
    buffer_close(&conn->in);
    buffer_close(&conn->stream);
    buffer_close(&conn->out);
}

static void connection_lose(struct load *load, struct connection *conn)
{
    connection_close(load, conn);
    load->hooks->on_lost(load, conn);
}

void connection_ready(struct load *load, struct connection *conn)
{
    if (conn->state == STATE_READY) {
        return;
    }
    conn->state = STATE_READY;
    load->ready++;
    load->hooks->on_ready(load, conn);
}

static void handshake_send(struct load *load, struct connection *conn)
{
    char path[128], request[512];
    interest_set(load, conn, EPOLL_CTL_MOD, false);
    if (conn->dialect->http) {
        connection_ready(load, conn);
        return;
    }
    conn->dialect->path(conn, path, sizeof path);
    const char *subprotocol = conn->dialect->subprotocol;
    int len =
        snprintf(request, sizeof request,
                 "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: U3dpdGNoYm9hcmRCZW5jaA==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                 path, subprotocol ? "Sec-WebSocket-Protocol: " : "", subprotocol ? subprotocol : "",
                 subprotocol ? "\r\n" : "");
    conn->state = STATE_HANDSHAKE;
    connection_write(load, conn, request, (size_t)len);
}

static size_t handshake_take(struct load *load, struct connection *conn, const char *data, size_t len)
{
    const char *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end) {
        return 0;
    }
    if (len < 12 || memcmp(data, "HTTP/1.1 101", 12) != 0) {
        fail("port %u refuses: %.*s", load->options.ports[conn->port], (int)(len < 60 ? len : 60), data);
    }
    conn->state = STATE_OPENING;
    conn->dialect->on_open(load, conn);
    return (size_t)(end - data) + 4;
}

/* ---- writing */

void connection_write(struct load *load, struct connection *conn, const char *data, size_t len)
{
    if (conn->out.len == 0) {
        ssize_t sent = send(conn->fd, data, len, MSG_NOSIGNAL);
        if (sent == (ssize_t)len) {
            return;
        }
        if (sent < 0 && errno != EAGAIN) {
            return; /* the read that follows tells the end */
        }
        data += sent > 0 ? sent : 0;
        len -= (size_t)(sent > 0 ? sent : 0);
    }
    if (!buffer_append(&conn->out, data, len)) {
        fail("out of memory");
    }
    if (!conn->want_write) {
        interest_set(load, conn, EPOLL_CTL_MOD, true);
    }
}

static void out_flush(struct load *load, struct connection *conn)
{
    ssize_t sent = send(conn->fd, conn->out.data, conn->out.len, MSG_NOSIGNAL);
    if (sent > 0) {
        buffer_drop_front(&conn->out, (size_t)sent);
    }
    if (conn->out.len == 0) {
        interest_set(load, conn, EPOLL_CTL_MOD, false);
    }
}

static void mask(char *data, size_t len, uint32_t key)
{
    uint64_t wide = (uint64_t)key << 32 | key;
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < len; i++) {
        data[i] = (char)(data[i] ^ (char)(key >> (i % 4 * 8)));
    }
}

static void opcode_send(struct load *load, struct connection *conn, unsigned opcode, size_t len)
{
    unsigned char header[FRAME_ROOM];
    size_t at = 2;
    header[0] = (unsigned char)(0x80 | opcode);
    if (len < 126) {
        header[1] = (unsigned char)(0x80 | len);
    } else if (len < 65536) {
        header[1] = 0x80 | 126;
        header[at++] = (unsigned char)(len >> 8);
        header[at++] = (unsigned char)len;
    } else {
        header[1] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8) {
            header[at++] = (unsigned char)(len >> shift);
        }
    }
    uint32_t key = load_random(load, UINT32_MAX);
    memcpy(header + at, &key, 4);
    at += 4;
    char *start = load->scratch + FRAME_ROOM - at;
    memcpy(start, header, at);
    mask(start + at, len, key);
    connection_write(load, conn, start, at + len);
}

char *frame_room(struct load *load)
{
    return load->scratch + FRAME_ROOM;
}

void frame_send(struct load *load, struct connection *conn, size_t len)
{
    opcode_send(load, conn, conn->dialect->binary ? OPCODE_BINARY : OPCODE_TEXT, len);
}

void frame_print(struct load *load, struct connection *conn, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(frame_room(load), COMMAND_ROOM, format, args);
    va_end(args);
    if (len < 0 || len >= COMMAND_ROOM) {
        fail("a command is too long");
    }
    frame_send(load, conn, (size_t)len);
}

/* ---- reading */

/* Feeds what the connection kept and `data` to `take`, and keeps what that leaves. False: the connection ended. */
static bool feed(struct load *load, struct connection *conn, struct buffer *kept, const char *data,
                 size_t len, size_t (*take)(struct load *, struct connection *, const char *, size_t))
{
    if (kept->len > 0) {
        if (!buffer_append(kept, data, len)) {
            fail("out of memory");
        }
        size_t taken = take(load, conn, kept->data, kept->len);
        if (conn->fd < 0) {
            return false;
        }
        buffer_drop_front(kept, taken);
        return true;
    }
    size_t taken = take(load, conn, data, len);
    if (conn->fd < 0) {
        return false;
    }
    if (taken < len && !buffer_append(kept, data + taken, len - taken)) {
        fail("out of memory");
    }
    return true;
}

static void control_take(struct load *load, struct connection *conn, unsigned opcode, const char *data,
                         size_t len)
{
    if (opcode == OPCODE_PING) {
        memcpy(frame_room(load), data, len);
        opcode_send(load, conn, OPCODE_PONG, len);
    } else if (opcode == OPCODE_CLOSE) {
        connection_lose(load, conn);
    }
}

static void frame_take(struct load *load, struct connection *conn, unsigned first, const char *data,
                       size_t len)
{
    if (conn->dialect->stream) {
        feed(load, conn, &conn->stream, data, len, conn->dialect->on_data);
    } else if (first & 0x80 && first & 0x0f) {
        conn->dialect->on_data(load, conn, data, len);
    } else {
        fail("a server of %s sends messages in fragments, which is not supported", conn->dialect->name);
    }
}

static size_t frames_take(struct load *load, struct connection *conn, const char *data, size_t len)
{
    size_t at = 0;
    while (len - at >= 2) {
        const unsigned char *header = (const unsigned char *)data + at;
        size_t size = header[1] & 0x7f, start = 2;
        if (size == 126) {
            start = 4;
            size = len - at < start ? 0 : (size_t)header[2] << 8 | header[3];
        } else if (size == 127) {
            start = 10;
            size = 0;
            for (size_t i = 2; i < 10 && len - at >= start; i++) {
                size = size << 8 | header[i];
            }
        }
        if (len - at < start || len - at - start < size) {
            break;
        }
        if (header[0] & 0x08) {
            control_take(load, conn, header[0] & 0x0f, data + at + start, size);
        } else {
            frame_take(load, conn, header[0], data + at + start, size);
        }
        if (conn->fd < 0) {
            return len;
        }
        at += start + size;
    }
    return at;
}

static size_t bytes_take(struct load *load, struct connection *conn, const char *data, size_t len)
{
    size_t at = 0;
    if (conn->dialect->http) {
        return conn->dialect->on_data(load, conn, data, len);
    }
    if (conn->state == STATE_HANDSHAKE) {
        at = handshake_take(load, conn, data, len);
        if (at == 0) {
            return 0;
        }
    }
    return at + frames_take(load, conn, data + at, len - at);
}

static void readable(struct load *load, struct connection *conn)
{
    ssize_t got = recv(conn->fd, load->received, READ_SIZE, 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        connection_lose(load, conn);
        return;
    }
    load->now = load_now(load);
    feed(load, conn, &conn->in, load->received, (size_t)got, bytes_take);
}

void load_turn(struct load *load, uint64_t until)
{
    struct epoll_event events[EVENTS];
    uint64_t now = load_now(load);
    uint64_t wait = until > now ? until - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait / 1000000000), .tv_nsec = (long)(wait % 1000000000)};
    int count = epoll_pwait2(load->epoll, events, EVENTS, &timeout, NULL);
    if (count < 0 && errno != EINTR) {
        fail("epoll_pwait2: %s", strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        struct connection *conn = events[i].data.ptr;
        if (events[i].events & EPOLLOUT && conn->fd >= 0) {
            if (conn->state != STATE_CONNECTING) {
                out_flush(load, conn);
            } else if (!(events[i].events & (EPOLLERR | EPOLLHUP))) {
                handshake_send(load, conn);
            }
        }
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP) && conn->fd >= 0) {
            readable(load, conn);
        }
    }
}
