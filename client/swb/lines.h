/* Standard input line by line, on an event loop: from a terminal, a pipe or a file. */
#ifndef CLIENT_SWB_LINES_H
#define CLIENT_SWB_LINES_H

#include "base/buffer.h"

#include <stdbool.h>

struct event;
struct event_base;

struct lines {
    struct event *event;
    bool is_file; /* regular files can't be polled: they are always ready */
    bool whole;   /* all of it is one piece */
    bool paused, ended;
    struct buffer input;
    size_t searched; /* bytes of the input without a line break */
    bool busy;
    void (*on_line)(const char *line, size_t len, void *data); /* without its line break */
    void (*on_end)(void *data);                                /* once, after the last line */
    void *data;
};

/* Begins to read; `whole`: on_line is called once, with everything. False when memory is short. */
bool lines_open(struct lines *lines, struct event_base *base, bool whole);
void lines_pause(struct lines *lines); /* may be called from on_line: no other follows until */
void lines_resume(struct lines *lines);
void lines_close(struct lines *lines);

#endif
