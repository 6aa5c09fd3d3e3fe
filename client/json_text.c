#include "client/json_text.h"

#include "base/utf8.h"

#include <jansson.h>
#include <string.h>

void json_write_string(struct buffer *out, const char *text, size_t len)
{
    size_t start = 0;

    buffer_append(out, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buffer_append(out, text + start, i - start);
        if (c == '"' || c == '\\')
            buffer_printf(out, "\\%c", c);
        else if (c == '\n')
            buffer_append(out, "\\n", 2);
        else
            buffer_printf(out, "\\u%04x", (unsigned)c);
        start = i + 1;
    }
    if (start < len)
        buffer_append(out, text + start, len - start);
    buffer_append(out, "\"", 1);
}

void json_write_field(struct buffer *out, const char *key, const char *text)
{
    if (!text)
        return;
    buffer_printf(out, ",\"%s\":", key);
    json_write_string(out, text, strlen(text));
}

bool json_write_value(struct buffer *out, const char *text, size_t len)
{
    json_t *value =
        utf8_valid(text, len) ? json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    size_t start = out->len;

    if (!value)
        return false;
    json_decref(value);
    if (!buffer_append(out, text, len))
        return false;
    /* Line breaks separate frames. Inside strings there are none: there they are escaped. */
    for (char *at = out->data + start; at < out->data + out->len; at++)
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_space(struct slice text, size_t at)
{
    while (at < text.len && is_space(text.data[at]))
        at++;
    return at;
}

/* `at` is at the opening quote; returns the position behind the closing one. */
static size_t skip_string(struct slice text, size_t at)
{
    for (at++; at < text.len && text.data[at] != '"'; at++)
        if (text.data[at] == '\\')
            at++;
    return at < text.len ? at + 1 : text.len;
}

static size_t skip_value(struct slice text, size_t at)
{
    size_t depth = 0;

    for (; at < text.len; at++) {
        char c = text.data[at];
        if (c == '"')
            at = skip_string(text, at) - 1;
        else if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']' || c == ',') {
            if (!depth)
                break; /* it belongs to what holds the value */
            if (c != ',')
                depth--;
        }
    }
    return at;
}

static struct slice cut(struct slice text, size_t from, size_t to)
{
    while (to > from && is_space(text.data[to - 1]))
        to--;
    return slice_from(text.data + from, to - from);
}

bool json_find_member(struct slice object, const char *key, struct slice *value)
{
    size_t key_len = strlen(key);
    size_t at = skip_space(object, 0) + 1;
    bool found = false;

    while ((at = skip_space(object, at)) < object.len && object.data[at] == '"') {
        size_t name = at + 1;
        at = skip_string(object, at);
        bool same = at - 1 - name == key_len && memcmp(object.data + name, key, key_len) == 0;
        at = skip_space(object, at) + 1; /* the colon */
        at = skip_space(object, at);
        size_t end = skip_value(object, at < object.len ? at : object.len);
        if (same && at < end) {
            *value = cut(object, at, end);
            found = true;
        }
        at = end + 1; /* the comma, or the end */
    }
    return found;
}

bool json_next_element(struct slice array, size_t *at, struct slice *value)
{
    size_t from = skip_space(array, *at == 0 ? skip_space(array, 0) + 1 : *at);

    if (from >= array.len || array.data[from] == ']')
        return false;
    size_t end = skip_value(array, from);
    *value = cut(array, from, end);
    *at = end + 1;
    return true;
}
