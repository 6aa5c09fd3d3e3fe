#include "client/swb/output.h"

#include "base/clock.h"
#include "client/json_text.h"
#include "proto/base64.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void complain(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    fputs("swb: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
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

void print_safe(const char *text, size_t len)
{
    static int terminal = -1;

    if (terminal < 0)
        terminal = isatty(STDOUT_FILENO);
    if (!terminal) {
        fwrite(text, 1, len, stdout);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        /* C1 controls, written in UTF-8, are 0xc2 0x80 to 0xc2 0x9f. */
        bool wide = c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0;
        if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f || wide)
            printf("\\x%02x", wide ? (unsigned char)text[++i] : c);
        else
            putchar(c);
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
            fwrite(line.data, 1, line.len, stdout);
        buffer_close(&line);
    } else {
        if (args_has(args, OPT_VERBOSE)) {
            if (message->time)
                printf("%s ", clock_iso8601(message->time, time));
            print_safe(message->to, strlen(message->to));
            const char *from = message->from ? message->from : "-";
            fputs(*message->to ? " < " : "< ", stdout);
            print_safe(from, strlen(from));
            fputs(": ", stdout);
        }
        print_plain(&message->payload);
    }
    putchar('\n');
    return fflush(stdout) == 0;
}
