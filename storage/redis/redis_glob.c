#include "storage/redis/redis_storage.h"

static bool is_special(char c)
{
    return c == '[' || c == ']' || c == '?' || c == '*' || c == '\\';
}

size_t redis_glob_escape(struct slice text, char *out)
{
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (is_special(text.data[i]))
            out[len++] = '\\';
        out[len++] = text.data[i];
    }
    return len;
}
