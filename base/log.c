#include "base/log.h"

#include "base/clock.h"
#include "base/printable.h"
#include "base/stderr.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* A line is built on the stack and written with one write(2): lines of several processes that share a pipe do
 * not mix, and nothing is lost in a buffer when the process dies. What does not fit is cut, never split. */
enum { LINE_SIZE = STDERR_LINE_MAX, LINE_RESERVE = 8, PAUSE_MS = 60000 };

struct line {
    char text[LINE_SIZE];
    size_t len;
};

enum log_level log_threshold = LOG_LEVEL_INFO;
static enum log_format line_format = LOG_FORMAT_LOGFMT;
static char instance_id[64];
static void (*line_sink)(const char *line, size_t len);

static uint64_t dropped, unsaid; /* lines: ever, and those that no line has told of */
static uint64_t patience_ms;
static void (*on_blocked)(int fd, void *data);
static void *on_blocked_data;
static bool blocked; /* on_blocked was called, and log_resume() not yet */

static const char *const level_names[] = {[LOG_LEVEL_ERROR] = "error",
                                          [LOG_LEVEL_WARN] = "warn",
                                          [LOG_LEVEL_INFO] = "info",
                                          [LOG_LEVEL_DEBUG] = "debug"};

void log_set_level(enum log_level level)
{
    log_threshold = level;
}

void log_set_format(enum log_format format)
{
    line_format = format;
}

void log_set_instance(const char *id)
{
    snprintf(instance_id, sizeof instance_id, "%s", id ? id : "");
}

void log_set_sink(void (*sink)(const char *line, size_t len))
{
    line_sink = sink;
}

bool log_level_parse(const char *name, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

struct log_field log_bytes(const char *key, const char *text, size_t len)
{
    return (struct log_field){.key = key, .type = LOG_FIELD_STR, .text = text, .len = len};
}

struct log_field log_str(const char *key, const char *text)
{
    return log_bytes(key, text, text ? strlen(text) : 0);
}

static void line_add(struct line *line, const char *text, size_t len)
{
    size_t room = LINE_SIZE - LINE_RESERVE - line->len;

    if (len > room)
        len = room;
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

static void line_add_text(struct line *line, const char *text)
{
    line_add(line, text, strlen(text));
}

/* Writes the contents of a quoted string as JSON does; logfmt readers understand the same escapes. */
static void line_add_escaped(struct line *line, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        uint32_t character;
        size_t step = printable_step(text + i, len - i, &character);
        char escape[PRINTABLE_ESCAPE_SIZE];

        if (line->len + sizeof escape + LINE_RESERVE > LINE_SIZE) {
            return;
        } else if (step == 0) {
            line_add_text(line, "\\ufffd");
            step = 1;
        } else if (c == '"' || c == '\\') {
            snprintf(escape, sizeof escape, "\\%c", c);
            line_add_text(line, escape);
        } else if (printable_class(character) != PRINTABLE_SEEN) {
            line_add(line, escape, printable_escape(character, escape));
        } else {
            line_add(line, text + i, step);
        }
        i += step;
    }
}

static bool is_bare(const char *text, size_t len)
{
    if (!len)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c >= 0x7f)
            return false;
    }
    return true;
}

static void line_add_field(struct line *line, const struct log_field *field)
{
    bool json = line_format == LOG_FORMAT_JSON;
    char number[24];

    if (line->len > (json ? 1u : 0u))
        line_add_text(line, json ? "," : " ");
    if (json)
        line_add_text(line, "\"");
    line_add_text(line, field->key);
    line_add_text(line, json ? "\":" : "=");
    if (field->type == LOG_FIELD_INT) {
        snprintf(number, sizeof number, "%" PRId64, field->number);
        line_add_text(line, number);
    } else if (!json && is_bare(field->text, field->len)) {
        line_add(line, field->text, field->len);
    } else {
        line_add_text(line, "\"");
        line_add_escaped(line, field->text, field->len);
        /* Room for this quote is part of LINE_RESERVE, so a cut value is still a well-formed one. */
        line->text[line->len++] = '"';
    }
}

static void build(struct line *line, enum log_level level, const char *event, const struct log_field *fields,
                  size_t count)
{
    char time[CLOCK_ISO8601_SIZE];

    if (line_format == LOG_FORMAT_JSON)
        line_add_text(line, "{");
    struct log_field head[] = {log_str("time", clock_iso8601(clock_wall_ms(), time)),
                               log_str("level", level_names[level]), log_str("instance", instance_id),
                               log_str("event", event)};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        if (head[i].len)
            line_add_field(line, &head[i]);
    for (size_t i = 0; i < count && line->len + 128 < LINE_SIZE; i++)
        line_add_field(line, &fields[i]);
    if (line_format == LOG_FORMAT_JSON)
        line->text[line->len++] = '}';
    line->text[line->len++] = '\n';
}

/* ---- out ---- */

static void wait_with_patience(void)
{
    uint64_t before = clock_monotonic_ms();

    stderr_wait((int)patience_ms);
    uint64_t waited = clock_monotonic_ms() - before + 1; /* it ends, whatever poll(2) says */
    patience_ms = waited < patience_ms ? patience_ms - waited : 0;
}

static bool put_out(const struct line *line)
{
    int error = stderr_write(line->text, line->len);

    while (error == EAGAIN && patience_ms) {
        wait_with_patience();
        error = stderr_write(line->text, line->len);
    }
    if (error == EAGAIN && on_blocked && !blocked && stderr_fd() >= 0) {
        blocked = true;
        on_blocked(stderr_fd(), on_blocked_data);
    }
    return error == 0;
}

/* False when the reader still doesn't take it. */
static bool say_dropped(void)
{
    struct line line = {.len = 0};

    if (!unsaid)
        return true;
    const struct log_field fields[] = {log_int("lines", (int64_t)unsaid), log_int("total", (int64_t)dropped)};
    build(&line, LOG_LEVEL_WARN, "log lines dropped", fields, 2);
    if (!put_out(&line))
        return false;
    unsaid = 0;
    return true;
}

static void count_dropped(void)
{
    dropped++;
    unsaid++;
}

bool log_pause_is_over(struct log_pause *pause, uint64_t *left_out)
{
    uint64_t now = clock_monotonic_ms();

    *left_out = pause->left_out;
    if (now < pause->until_ms) {
        pause->left_out++;
        return false;
    }
    *pause = (struct log_pause){.until_ms = now + PAUSE_MS};
    return true;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
    struct line line = {.len = 0};

    build(&line, level, event, fields, count);
    if (line_sink)
        line_sink(line.text, line.len);
    else if (!say_dropped() || !put_out(&line))
        count_dropped();
}

uint64_t log_dropped(void)
{
    return dropped;
}

void log_set_patience(uint64_t ms)
{
    patience_ms = ms < INT_MAX ? ms : INT_MAX;
}

void log_set_on_blocked(void (*callback)(int fd, void *data), void *data)
{
    on_blocked = callback;
    on_blocked_data = data;
    blocked = false;
}

void log_resume(void)
{
    blocked = false;
    if (!unsaid && stderr_flush() == 0)
        return;
    say_dropped();
}
