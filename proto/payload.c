#include "proto/payload.h"

#include <string.h>

enum {
    TEXT_GROWTH = 6,  /* a control character is \u00XX */
    JSON_GROWTH = 3,  /* 0.1 takes nine bytes in MessagePack */
    FLOAT_BYTES = 9,  /* a MessagePack float 64 */
    HEADER_BYTES = 5, /* a length of 32 bits before bytes or elements */
};

static size_t text_largest(struct slice text)
{
    size_t size = text.len + HEADER_BYTES;

    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c == '"' || c == '\\' || (c >= '\b' && c <= '\r' && c != '\v'))
            size++;
        else if (c < 0x20)
            size += TEXT_GROWTH - 1;
    }
    return size;
}

/* A number begins at `at`: the bytes behind it, and whether it is a float. */
static size_t number_len(const char *at, const char *end, bool *is_float)
{
    const char *from = at;

    *is_float = false;
    for (; at < end && memchr("0123456789+-.eE", *at, 15); at++)
        *is_float = *is_float || *at == '.' || *at == 'e' || *at == 'E';
    return (size_t)(at - from);
}

static size_t header_bytes(size_t len)
{
    return len < 32 ? 1 : len < 256 ? 2 : len < 65536 ? 3 : HEADER_BYTES;
}

/* The most that MessagePack makes of a number of so many characters. */
static size_t number_bytes(size_t len, bool is_float)
{
    return is_float || len > 9 ? FLOAT_BYTES : len <= 2 ? 1 : len <= 4 ? 3 : 5;
}

/* Of JSON it is short floats that grow on their way into MessagePack; what holds them and stands between them shrinks. */
static size_t json_largest(struct slice json)
{
    const char *at = json.data, *end = json.data + json.len;
    size_t packed = HEADER_BYTES, commas = 0, len;
    bool is_float;

    for (; at < end; at += len) {
        len = 1;
        if (*at == '"') {
            while (at + len < end && at[len] != '"')
                len += at[len] == '\\' ? 2 : 1;
            packed += len - 1 + header_bytes(len - 1);
            len++;
        } else if (*at == '-' || (*at >= '0' && *at <= '9')) {
            len = number_len(at, end, &is_float);
            packed += number_bytes(len, is_float);
        } else if (*at == '[' || *at == '{') {
            packed += 2;
        } else if (*at == 't' || *at == 'f' || *at == 'n') {
            len = *at == 'f' ? 5 : 4;
            packed++;
        } else {
            commas += *at == ',';
        }
        if (len > (size_t)(end - at))
            break;
    }
    packed += commas / 15; /* more than so many elements take a longer header */
    return packed > json.len ? packed : json.len;
}

size_t payload_largest(enum message_content content, struct slice payload)
{
    if (content == CONTENT_BINARY)
        return (payload.len + 2) / 3 * 4 + HEADER_BYTES;
    return content == CONTENT_JSON ? json_largest(payload) : text_largest(payload);
}

bool payload_fits(enum message_content content, struct slice payload, size_t limit)
{
    size_t growth = content == CONTENT_JSON ? JSON_GROWTH + 1 : TEXT_GROWTH;

    /* `/` keeps a huge length from overflowing. */
    if (limit > HEADER_BYTES && payload.len <= (limit - HEADER_BYTES) / growth)
        return true;
    return payload_largest(content, payload) <= limit;
}
