#include "broker/target.h"

#include <ctype.h>
#include <string.h>

bool target_find(struct slice input, struct slice *target)
{
    const char *newline = input.len ? memchr(input.data, '\n', input.len) : NULL;

    if (!newline)
        return false;
    const char *end = newline > input.data && newline[-1] == '\r' ? newline - 1 : newline;
    const char *space = memchr(input.data, ' ', (size_t)(end - input.data));
    const char *start = space ? space + 1 : end;
    space = memchr(start, ' ', (size_t)(end - start));
    *target = slice_from(start, (size_t)((space ? space : end) - start));
    return true;
}

struct slice target_path(struct slice target)
{
    const char *query = target.len ? memchr(target.data, '?', target.len) : NULL;

    if (query)
        target.len = (size_t)(query - target.data);
    if (target.len > 1 && target.data[0] == '/' && target.data[1] == '/')
        target = slice_from(target.data + 1, target.len - 1);
    return target;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

size_t target_decode(char *text, size_t len, bool *broken)
{
    size_t out = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            bool room = len - i > 2;
            int high = room ? hex_digit(text[i + 1]) : -1;
            int low = room ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0)
                *broken = true;
            else {
                c = (char)(high * 16 + low);
                i += 2;
            }
        }
        text[out++] = c;
    }
    return out;
}

bool target_is_alias(struct slice text)
{
    for (size_t i = 0; i + 2 < text.len; i++) {
        int high = text.data[i] == '%' ? hex_digit(text.data[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text.data[i + 2]) : -1;
        int c = high * 16 + low;
        if (low >= 0 && c && c < 0x80 && (isalnum(c) || strchr("-._~", c)))
            return true;
    }
    return false;
}

struct slice target_query(struct slice target)
{
    const char *mark = target.len ? memchr(target.data, '?', target.len) : NULL;

    if (!mark)
        return slice_from(NULL, 0);
    return slice_from(mark + 1, target.len - (size_t)(mark + 1 - target.data));
}

bool target_next_argument(struct slice *query, struct target_argument *argument)
{
    if (!query->data)
        return false;
    const char *end = query->len ? memchr(query->data, '&', query->len) : NULL;
    size_t len = end ? (size_t)(end - query->data) : query->len;
    const char *sign = len ? memchr(query->data, '=', len) : NULL;
    size_t name_len = sign ? (size_t)(sign - query->data) : len;

    argument->name = slice_from(query->data, name_len);
    argument->value = sign ? slice_from(sign + 1, len - name_len - 1) : slice_from(NULL, 0);
    *query = end ? slice_from(end + 1, query->len - len - 1) : slice_from(NULL, 0);
    return true;
}
