#include "broker/ws_stream.h"

#include "base/alloc.h"
#include "broker/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How often what the gate swallowed whole is read on, before others have their turn. */
enum { READS_MAX = 16 };

/* All streams, by descriptor. libwebsockets gives us nothing else to find them by. */
static struct {
    struct ws_stream **by_fd;
    size_t size;
} streams;

static struct ws_stream *stream_of(int fd)
{
    return fd >= 0 && (size_t)fd < streams.size ? streams.by_fd[fd] : NULL;
}

static bool reach(int fd)
{
    size_t size = streams.size ? streams.size : 256;

    while (size <= (size_t)fd)
        size *= 2;
    if (size == streams.size)
        return true;
    struct ws_stream **by_fd = mem_realloc(streams.by_fd, size * sizeof(struct ws_stream *));
    if (!by_fd)
        return false;
    memset(by_fd + streams.size, 0, (size - streams.size) * sizeof(struct ws_stream *));
    streams.by_fd = by_fd;
    streams.size = size;
    return true;
}

bool ws_stream_open(struct ws_stream *stream, int fd, SSL *tls, struct slice request, struct slice early,
                    const struct ws_stream_calls *calls, void *data)
{
    char *begin = reach(fd) ? mem_alloc(request.len + early.len) : NULL;

    if (!begin)
        return false;
    memcpy(begin, request.data, request.len);
    if (early.len)
        memcpy(begin + request.len, early.data, early.len);
    *stream = (struct ws_stream){
        .calls = calls,
        .data = data,
        .tls = tls,
        .begin = begin,
        .begin_len = (uint32_t)(request.len + early.len),
        .request_len = (uint32_t)request.len,
        .fd = fd,
    };
    streams.by_fd[fd] = stream;
    return true;
}

void ws_stream_close(struct ws_stream *stream)
{
    if (!stream->calls || stream->fd < 0)
        return;
    if (stream_of(stream->fd) == stream)
        streams.by_fd[stream->fd] = NULL;
    stream->fd = -1;
    SSL_free(stream->tls);
    stream->tls = NULL;
    mem_free(stream->begin);
    stream->begin = NULL;
    ws_gate_close(&stream->gate);
}

bool ws_stream_has_begun(const struct ws_stream *stream)
{
    return stream->begin_at >= stream->request_len;
}

bool ws_stream_input_waits(const struct ws_stream *stream)
{
    return stream->begin || (stream->tls && !stream->wants_write && SSL_pending(stream->tls));
}

/* ---- reading ---- */

static ssize_t fail(int reason)
{
    errno = reason;
    return -1;
}

/* The next bytes of what was there from the beginning, up to `end`. */
static ssize_t read_begin(struct ws_stream *stream, void *out, size_t len, size_t end)
{
    size_t part = end - stream->begin_at < len ? end - stream->begin_at : len;

    memcpy(out, stream->begin + stream->begin_at, part);
    stream->begin_at += (uint32_t)part;
    if (stream->begin_at == stream->begin_len) {
        mem_free(stream->begin);
        stream->begin = NULL;
    }
    return (ssize_t)part;
}

static ssize_t read_client(struct ws_stream *stream, void *out, size_t len)
{
    if (stream->begin)
        return read_begin(stream, out, len, stream->begin_len);
    if (!stream->tls)
        return recvfrom(stream->fd, out, len, 0, NULL, NULL);
    ssize_t got = tls_read(stream->tls, out, len);
    stream->wants_write = got == TLS_WANTS_WRITE;
    return got >= 0 ? got : fail(got == TLS_FAILED ? ECONNRESET : EAGAIN);
}

/* What the gate left of a read comes first in the next one. False when memory is short. */
static bool put_back(struct ws_stream *stream, const unsigned char *bytes, size_t len)
{
    if (stream->begin) {
        stream->begin_at -= (uint32_t)len;
        return true;
    }
    stream->begin = mem_alloc(len);
    if (!stream->begin)
        return false;
    memcpy(stream->begin, bytes, len);
    stream->begin_at = stream->request_len = 0;
    stream->begin_len = (uint32_t)len;
    return true;
}

/* What libwebsockets asks for after a request of its own making. Nothing but what passed the gate. */
static ssize_t read_stream(struct ws_stream *stream, unsigned char *out, size_t len)
{
    if (!ws_stream_has_begun(stream))
        return read_begin(stream, out, len, stream->request_len);
    for (unsigned i = 0; i < READS_MAX; i++) {
        size_t held = ws_gate_held(&stream->gate);
        if (held >= len)
            return fail(EAGAIN);
        ssize_t got = read_client(stream, out + held, len - held);
        if (got <= 0)
            return got;
        size_t end = held + (size_t)got;
        size_t taken;
        size_t passed = ws_gate_pass(&stream->gate, out, held, end, &taken, stream->calls->max_message(stream->data),
                                     &stream->calls->gate, stream->data);
        if (taken < end && !put_back(stream, out + taken, end - taken))
            return fail(ENOMEM);
        if (passed)
            return (ssize_t)passed;
        /* The client's close frame waits for what is still to be written. */
        stream->wants_write = taken < end;
        if (stream->wants_write)
            return fail(EAGAIN);
    }
    return fail(EAGAIN);
}

/* ---- what libwebsockets calls ---- */

ssize_t recv(int fd, void *out, size_t len, int flags)
{
    struct ws_stream *stream = stream_of(fd);

    return stream && !flags ? read_stream(stream, out, len) : recvfrom(fd, out, len, flags, NULL, NULL);
}

/* TLS takes one record at a time. */
static ssize_t write_tls(struct ws_stream *stream, const char *data, size_t len)
{
    size_t done = 0;
    ssize_t sent = TLS_FAILED;

    while (done < len && (sent = tls_write(stream->tls, data + done, len - done)) > 0)
        done += (size_t)sent;
    if (done) {
        stream->wants_write = false;
        return (ssize_t)done;
    }
    return fail(sent == TLS_WANTS_WRITE || sent == TLS_WANTS_READ ? EAGAIN : EPIPE);
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    struct ws_stream *stream = stream_of(fd);
    ssize_t sent = stream && stream->tls && len ? write_tls(stream, data, len) : sendto(fd, data, len, flags, NULL, 0);

    if (stream && stream->last_words && sent == (ssize_t)len)
        stream->calls->on_last_words(stream->data);
    return sent;
}

static bool may_still_send(const struct ws_stream *stream)
{
    int unread = 0;

    return !stream->gate.closed || stream->begin || (ioctl(stream->fd, FIONREAD, &unread) == 0 && unread > 0);
}

int shutdown(int fd, int how)
{
    struct ws_stream *stream = stream_of(fd);

    if (stream && stream->tls)
        tls_end(stream->tls);
    int result = (int)syscall(SYS_shutdown, fd, how);
    if (stream && may_still_send(stream)) {
        int same = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (same >= 0)
            stream->calls->linger(stream->data, same);
    }
    return result;
}
