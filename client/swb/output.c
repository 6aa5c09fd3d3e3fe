#include "client/swb/output.h"

#include "base/clock.h"
#include "base/printable.h"
#include "base/stderr.h"
#include "client/json_text.h"
#include "proto/base64.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* \x1b for a byte, \u202e for a character beyond. */
static size_t write_escape(const char *text, size_t step, uint32_t character,
                           char out[static PRINTABLE_ESCAPE_SIZE])
{
    if (step && character > 0xff)
        return printable_escape(character, out);
    return (size_t)snprintf(out, PRINTABLE_ESCAPE_SIZE, "\\x%02x",
                            step ? (unsigned)character : (unsigned char)*text);
}

/* Writes `text` to `out` with what can't be seen escaped, as far as there is room; returns how much. */
static size_t escape(const char *text, size_t len, char *out, size_t size)
{
    size_t at = 0;

    for (size_t i = 0, step; i < len && at + PRINTABLE_ESCAPE_SIZE < size; i += step) {
        uint32_t character;
        step = printable_step(text + i, len - i, &character);
        if (step && printable_class(character) == PRINTABLE_SEEN) {
            memcpy(out + at, text + i, step);
            at += step;
        } else {
            at += write_escape(text + i, step, character, out + at);
            step = step ? step : 1;
        }
    }
    return at;
}

/* What went wrong may quote others: a server's words, a topic. Waiting for whoever reads it has an end. */
void complain(const char *format, ...)
{
    static int patience_ms = 1000;
    char text[STDERR_LINE_MAX / 2] = "swb: ", line[STDERR_LINE_MAX];
    size_t before = strlen(text);
    va_list list;

    va_start(list, format);
    vsnprintf(text + before, sizeof text - before, format, list);
    va_end(list);
    size_t len = escape(text, strlen(text), line, sizeof line - 1);
    line[len++] = '\n';
    if (stderr_write(line, len) != EAGAIN)
        return;
    stderr_wait(patience_ms);
    if (stderr_write(line, len) == EAGAIN)
        patience_ms = 0;
}

int exit_code_of(int error)
{
    switch (error) {
    case SWB_OK:
        return EXIT_OK;
    case SWB_ABSENT:
        return EXIT_ABSENT;
    case SWB_TIMEOUT:
        return EXIT_LATE;
    case SWB_REFUSED:
    case SWB_GONE:
        return EXIT_REFUSED;
    case SWB_OFFLINE:
    case SWB_LOST:
    case SWB_UNAVAILABLE:
        return EXIT_UNAVAILABLE;
    default:
        return EXIT_ERROR;
    }
}

static bool is_terminal(void)
{
    static int terminal = -1;

    if (terminal < 0)
        terminal = isatty(STDOUT_FILENO);
    return terminal;
}

void print_safe(const char *text, size_t len)
{
    char out[PRINTABLE_ESCAPE_SIZE];

    if (!is_terminal()) {
        fwrite(text, 1, len, stdout);
        return;
    }
    for (size_t i = 0, step; i < len; i += step) {
        uint32_t character;
        step = printable_step(text + i, len - i, &character);
        bool layout = character == '\n' || character == '\t';
        if (step && (layout || printable_class(character) != PRINTABLE_HIDDEN)) {
            fwrite(text + i, 1, step, stdout);
        } else {
            fwrite(out, 1, write_escape(text + i, step, character, out), stdout);
            step = step ? step : 1;
        }
    }
}

void print_name(const char *text)
{
    char out[PRINTABLE_ESCAPE_SIZE];
    size_t len = strlen(text);

    for (size_t i = 0, step; i < len; i += step) {
        uint32_t character;
        step = printable_step(text + i, len - i, &character);
        if (step && printable_class(character) == PRINTABLE_SEEN) {
            fwrite(text + i, 1, step, stdout);
        } else {
            fwrite(out, 1, write_escape(text + i, step, character, out), stdout);
            step = step ? step : 1;
        }
    }
}

int name_width(const char *text)
{
    char out[PRINTABLE_ESCAPE_SIZE];
    size_t width = 0, len = strlen(text);

    for (size_t i = 0, step; i < len; i += step) {
        uint32_t character;
        step = printable_step(text + i, len - i, &character);
        bool seen = step && printable_class(character) == PRINTABLE_SEEN;
        width += seen ? 1 : write_escape(text + i, step, character, out);
        step = step ? step : 1;
    }
    return (int)width;
}

void print_json_text(const char *text, size_t len)
{
    char out[PRINTABLE_ESCAPE_SIZE];

    for (size_t i = 0, step; i < len; i += step) {
        uint32_t character;
        step = printable_step(text + i, len - i, &character);
        /* Beyond ASCII there is nothing outside of strings; controls are escaped already. */
        if (!is_terminal() || character < 0x7f || printable_class(character) == PRINTABLE_SEEN)
            fwrite(text + i, 1, step ? step : 1, stdout);
        else
            fwrite(out, 1, printable_escape(character, out), stdout);
        step = step ? step : 1;
    }
}

static void write_json(struct buffer *out, const struct swb_message *message)
{
    const struct swb_payload *payload = &message->payload;

    buffer_append(out, "{", 1);
    json_write_field(out, "to", *message->to ? message->to : NULL);
    json_write_field(out, "from", message->from);
    if (message->time)
        buffer_printf(out, ",\"time\":%" PRIu64, message->time);
    json_write_field(out, "epoch", message->epoch);
    json_write_field(out, "offset", message->offset);
    if (payload->kind == SWB_JSON) {
        buffer_append_text(out, ",\"data\":");
        buffer_append(out, payload->data, payload->len);
    } else if (payload->kind == SWB_BINARY) {
        buffer_append_text(out, ",\"binary\":\"");
        base64_encode(slice_from(payload->data, payload->len), out);
        buffer_append_text(out, "\"");
    } else {
        buffer_append_text(out, ",\"text\":");
        json_write_string(out, payload->data, payload->len);
    }
    buffer_append_text(out, "}");
    if (out->failed)
        return;
    /* Each member is written with a comma before it; the first needs none. */
    memmove(out->data + 1, out->data + 2, out->len - 2);
    out->len--;
}

static void print_plain(const struct swb_payload *payload)
{
    struct buffer text;

    if (payload->kind != SWB_BINARY) {
        print_safe(payload->data, payload->len);
        return;
    }
    buffer_init(&text, 0);
    if (base64_encode(slice_from(payload->data, payload->len), &text))
        fwrite(text.data, 1, text.len, stdout);
    buffer_close(&text);
}

bool print_message(const struct args *args, const struct swb_message *message)
{
    struct buffer line;
    char time[CLOCK_ISO8601_SIZE];

    if (args_has(args, OPT_JSON)) {
        buffer_init(&line, 0);
        write_json(&line, message);
        if (line.failed)
            complain("memory is short");
        else
            print_json_text(line.data, line.len);
        buffer_close(&line);
    } else {
        if (args_has(args, OPT_VERBOSE)) {
            if (message->time)
                printf("%s ", clock_iso8601(message->time, time));
            print_name(message->to);
            fputs(*message->to ? " < " : "< ", stdout);
            print_name(message->from ? message->from : "-");
            fputs(": ", stdout);
        }
        print_plain(&message->payload);
    }
    putchar('\n');
    return fflush(stdout) == 0;
}
