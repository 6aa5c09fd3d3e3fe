#include "broker/target.h"

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

/* Takes the next argument off the query, without its "&". */
static struct slice next_argument(struct slice *query)
{
    const char *end = query->len ? memchr(query->data, '&', query->len) : NULL;
    struct slice argument = slice_from(query->data, end ? (size_t)(end - query->data) : query->len);
    size_t taken = argument.len + (end ? 1 : 0);

    *query = slice_from(query->data + taken, query->len - taken);
    return argument;
}

const char *target_argument(struct slice target, const char *name, char *out, size_t size,
                            struct slice *value)
{
    const char *mark = target.len ? memchr(target.data, '?', target.len) : NULL;
    size_t name_len = strlen(name);
    bool broken = false;

    *value = slice_from(NULL, 0);
    if (!mark)
        return NULL;
    struct slice query = slice_from(mark + 1, target.len - (size_t)(mark + 1 - target.data));
    while (query.len) {
        struct slice argument = next_argument(&query);
        if (argument.len <= name_len || memcmp(argument.data, name, name_len) != 0 ||
            argument.data[name_len] != '=')
            continue;
        size_t len = argument.len - name_len - 1;
        bool fits = len <= size;
        memcpy(out, argument.data + name_len + 1, fits ? len : size);
        *value = slice_from(out, target_decode(out, fits ? len : size, &broken));
        return !fits ? "is too long" : broken ? "has a broken percent-escape" : NULL;
    }
    return NULL;
}
