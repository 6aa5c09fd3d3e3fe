/* The body of a request: as many bytes as Content-Length says, or chunks (RFC 9112 section 7.1).
 *
 * Memory is taken as bytes come, never on the word of a number, and charged to the server before it is taken. */
#include "broker/api_http_internal.h"

#include <stdint.h>
#include <string.h>

enum { FIRST_BYTES = 4096, CHUNK_LINE_MAX = 512, OVERHEAD_MAX = 8192, SIZE_DIGITS_MAX = 8 };

enum api_problem api_body_begin(struct api_body *body, const struct api_head *head, size_t max)
{
    *body = (struct api_body){.max = max, .left = head->length};
    if (!head->chunked && head->length > max)
        return BODY_TOO_LARGE;
    return PROBLEM_NONE;
}

static enum api_problem make_room(struct api_body *body, struct api_server *server, size_t len)
{
    size_t capacity = body->bytes.capacity ? body->bytes.capacity : FIRST_BYTES;

    while (capacity - body->bytes.len < len)
        capacity *= 2;
    size_t more = capacity - body->bytes.capacity;
    if (!more)
        return PROBLEM_NONE;
    if (!api_memory_take(server, more))
        return BODY_NO_ROOM;
    if (buffer_reserve(&body->bytes, capacity - body->bytes.len))
        return PROBLEM_NONE;
    api_memory_give(server, more);
    return BODY_NO_MEMORY;
}

static enum api_problem keep(struct api_body *body, struct api_server *server, struct slice *in)
{
    size_t len = in->len < body->left ? in->len : (size_t)body->left;

    if (!len)
        return PROBLEM_NONE;
    if (len > body->max - body->bytes.len)
        return BODY_TOO_LARGE;
    enum api_problem problem = make_room(body, server, len);
    if (problem)
        return problem;
    if (!buffer_append(&body->bytes, in->data, len))
        return BODY_NO_MEMORY;
    body->left -= len;
    *in = slice_from(in->data + len, in->len - len);
    return PROBLEM_NONE;
}

/* ---- chunks ---- */

/* Takes a line with its CRLF; its length without, or -1 when more is needed, -2 when it can't be one. */
static int take_line(struct slice *in, struct slice *line)
{
    const char *end = in->len ? memchr(in->data, '\n', in->len) : NULL;

    if (!end)
        return in->len > CHUNK_LINE_MAX ? -2 : -1;
    size_t len = (size_t)(end - in->data);
    if (!len || end[-1] != '\r' || len > CHUNK_LINE_MAX)
        return -2;
    *line = slice_from(in->data, len - 1);
    for (size_t i = 0; i < line->len; i++)
        if (((unsigned char)line->data[i] < ' ' && line->data[i] != '\t') || line->data[i] == 0x7f)
            return -2;
    *in = slice_from(end + 1, in->len - len - 1);
    return (int)line->len;
}

static bool read_size(struct slice line, uint64_t *size, size_t *digits)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    const char *found;

    *size = 0;
    for (*digits = 0; *digits < line.len; ++*digits) {
        char c = line.data[*digits];
        if (!c || !(found = strchr(hex, c)))
            break;
        if (*digits == SIZE_DIGITS_MAX)
            return false;
        size_t value = (size_t)(found - hex);
        *size = *size * 16 + (value > 15 ? value - 6 : value);
    }
    /* What may follow is an extension, which nobody here knows: it begins with ";", perhaps behind spaces. */
    size_t at = *digits;
    while (at < line.len && strchr(" \t", line.data[at]))
        at++;
    return *digits && (*digits == line.len || (at < line.len && line.data[at] == ';'));
}

static enum api_problem begin_chunk(struct api_body *body, struct slice *in, bool *stuck)
{
    struct slice line;
    size_t digits;
    int len = take_line(in, &line);

    *stuck = len == -1;
    if (*stuck)
        return PROBLEM_NONE;
    if (len < 0 || !read_size(line, &body->left, &digits))
        return BODY_CHUNK;
    body->overhead += line.len - digits;
    if (body->overhead > OVERHEAD_MAX)
        return BODY_CHUNK;
    if (body->left > body->max - body->bytes.len)
        return BODY_TOO_LARGE;
    body->part = body->left ? CHUNK_DATA : CHUNK_TRAILER;
    return PROBLEM_NONE;
}

static enum api_problem end_chunk(struct api_body *body, struct slice *in, bool *stuck)
{
    *stuck = in->len < 2;
    if (*stuck)
        return in->len && *in->data != '\r' ? BODY_CHUNK : PROBLEM_NONE;
    if (memcmp(in->data, "\r\n", 2) != 0)
        return BODY_CHUNK;
    *in = slice_from(in->data + 2, in->len - 2);
    body->part = CHUNK_SIZE;
    return PROBLEM_NONE;
}

/* Trailers are dropped. */
static enum api_problem drop_trailer(struct api_body *body, struct slice *in, bool *stuck, bool *done)
{
    struct slice line;
    int len = take_line(in, &line);

    *stuck = len == -1;
    *done = len == 0;
    body->overhead += len > 0 ? (size_t)len : 0;
    return len == -2 || body->overhead > OVERHEAD_MAX ? BODY_CHUNK : PROBLEM_NONE;
}

static enum api_problem feed_chunks(struct api_body *body, struct api_server *server, struct slice *in,
                                    bool *done)
{
    enum api_problem problem = PROBLEM_NONE;
    bool stuck = false;

    *done = false;
    while (!problem && !stuck && !*done) {
        switch (body->part) {
        case CHUNK_SIZE:
            problem = begin_chunk(body, in, &stuck);
            break;
        case CHUNK_DATA:
            problem = keep(body, server, in);
            stuck = body->left > 0;
            if (!problem && !stuck)
                body->part = CHUNK_END;
            break;
        case CHUNK_END:
            problem = end_chunk(body, in, &stuck);
            break;
        case CHUNK_TRAILER:
            problem = drop_trailer(body, in, &stuck, done);
            break;
        }
    }
    return problem;
}

enum api_problem api_body_feed(struct api_body *body, struct api_server *server, const struct api_head *head,
                               struct slice *in, bool *done)
{
    if (head->chunked)
        return feed_chunks(body, server, in, done);
    enum api_problem problem = keep(body, server, in);
    *done = !problem && !body->left;
    return problem;
}

void api_body_close(struct api_body *body, struct api_server *server)
{
    api_memory_give(server, body->bytes.capacity);
    buffer_close(&body->bytes);
}
