#include "client/swb/lines.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void schedule(struct lines *lines)
{
    struct timeval now = {.tv_sec = 0};

    if (lines->is_file)
        event_add(lines->event, &now);
    else
        event_add(lines->event, NULL);
}

/* Hands out the complete lines, and at the end what is left. */
static void hand_out(struct lines *lines)
{
    struct buffer *input = &lines->input;
    size_t at = 0;

    lines->busy = true;
    while (!lines->paused && !lines->whole && at < input->len) {
        size_t from = at > lines->searched ? at : lines->searched;
        char *newline = memchr(input->data + from, '\n', input->len - from);
        if (!newline)
            break;
        size_t len = (size_t)(newline - input->data) - at;
        lines->on_line(input->data + at, len, lines->data);
        at += len + 1;
    }
    buffer_drop_front(input, at);
    lines->searched = lines->paused ? 0 : input->len;
    if (lines->ended && !lines->paused && (input->len || lines->whole)) {
        /* The last line may lack its break. */
        lines->on_line(input->len ? input->data : "", input->len, lines->data);
        buffer_clear(input);
        lines->whole = false;
    }
    if (lines->ended && !lines->paused) {
        lines->paused = true;
        lines->on_end(lines->data);
    }
    lines->busy = false;
}

static void on_ready(evutil_socket_t fd, short what, void *data)
{
    struct lines *lines = data;
    char chunk[65536];

    (void)fd;
    (void)what;
    if (lines->paused)
        return;
    ssize_t len = read(STDIN_FILENO, chunk, sizeof chunk);
    if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
        schedule(lines);
        return;
    }
    lines->ended = len <= 0 || !buffer_append(&lines->input, chunk, (size_t)len);
    hand_out(lines);
    if (!lines->ended && !lines->paused)
        schedule(lines);
}

/* What epoll takes: terminals, pipes and sockets; not files, and not /dev/null. */
static bool can_be_polled(int fd)
{
    struct stat info;

    return fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) || isatty(fd));
}

bool lines_open(struct lines *lines, struct event_base *base, bool whole)
{
    lines->whole = whole;
    buffer_init(&lines->input, 0);
    lines->is_file = !can_be_polled(STDIN_FILENO);
    lines->event = lines->is_file ? evtimer_new(base, on_ready, lines)
                                  : event_new(base, STDIN_FILENO, EV_READ, on_ready, lines);
    if (lines->event)
        schedule(lines);
    return lines->event != NULL;
}

void lines_pause(struct lines *lines)
{
    lines->paused = true;
    event_del(lines->event);
}

void lines_resume(struct lines *lines)
{
    if (!lines->paused || lines->busy) {
        lines->paused = false;
        return;
    }
    lines->paused = false;
    hand_out(lines);
    if (!lines->paused && !lines->ended)
        schedule(lines);
}

void lines_close(struct lines *lines)
{
    if (lines->event)
        event_free(lines->event);
    buffer_close(&lines->input);
}
