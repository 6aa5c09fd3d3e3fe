#include "base/stderr.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert((int)STDERR_LINE_MAX <= PIPE_BUF, "a pipe must take a line whole");

enum way {
    WAY_UNKNOWN,
    WAY_WRITE,  /* a file, or a device that is no terminal */
    WAY_OWN,    /* what standard error is, opened anew without blocking */
    WAY_POLL,   /* a pipe or terminal that can't be opened anew */
    WAY_SOCKET, /* journald's, for one */
};

/* A terminal that poll(2) calls writable has room for this at least. */
enum { TTY_PIECE = 128 };

static enum way way;
static int out = STDERR_FILENO;
static bool is_tty;

/* What is left of a line that was written in part. */
static char rest[STDERR_LINE_MAX];
static size_t rest_at, rest_len;

static void find_way(void)
{
    struct stat status;

    way = WAY_WRITE;
    if (fstat(STDERR_FILENO, &status) != 0)
        return;
    is_tty = S_ISCHR(status.st_mode) && isatty(STDERR_FILENO);
    if (S_ISSOCK(status.st_mode)) {
        way = WAY_SOCKET;
    } else if (S_ISFIFO(status.st_mode) || is_tty) {
        int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        way = fd >= 0 ? WAY_OWN : WAY_POLL;
        out = fd >= 0 ? fd : STDERR_FILENO;
    }
}

static bool is_writable(int timeout_ms)
{
    struct pollfd fd = {.fd = out, .events = POLLOUT};

    /* An error shows at the write. */
    return poll(&fd, 1, timeout_ms) > 0;
}

/* How much was written; 0 with errno set. */
static size_t write_some(const char *text, size_t len)
{
    ssize_t written;

    if (way == WAY_POLL && !is_writable(0)) {
        errno = EAGAIN;
        return 0;
    }
    if (way == WAY_POLL && is_tty && len > TTY_PIECE)
        len = TTY_PIECE;
    do {
        written =
            way == WAY_SOCKET ? send(out, text, len, MSG_DONTWAIT | MSG_NOSIGNAL) : write(out, text, len);
    } while (written < 0 && errno == EINTR);
    return written > 0 ? (size_t)written : 0;
}

int stderr_flush(void)
{
    while (rest_len) {
        size_t written = write_some(rest + rest_at, rest_len);
        if (!written && errno == EAGAIN)
            return EAGAIN;
        /* Whoever had the first half is gone. */
        if (!written)
            written = rest_len;
        rest_at += written;
        rest_len -= written;
    }
    return 0;
}

int stderr_write(const char *text, size_t len)
{
    size_t written = 0;

    if (way == WAY_UNKNOWN)
        find_way();
    if (len > STDERR_LINE_MAX)
        len = STDERR_LINE_MAX;
    if (stderr_flush() != 0)
        return EAGAIN;
    while (written < len) {
        size_t some = write_some(text + written, len - written);
        if (!some)
            break;
        written += some;
    }
    if (written == len)
        return 0;
    if (!written)
        return errno;
    rest_at = 0;
    rest_len = len - written;
    memcpy(rest, text + written, rest_len);
    return 0;
}

void stderr_wait(int timeout_ms)
{
    is_writable(timeout_ms);
}

int stderr_fd(void)
{
    return way == WAY_WRITE || way == WAY_UNKNOWN ? -1 : out;
}
