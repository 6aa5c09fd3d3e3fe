#include "storage/redis/redis_storage.h"

/* A topic's wildcards as Redis's: a token * becomes *, a token > becomes **, which matches the same and keeps
 * each pattern apart from every other, so that a message's pattern names the one that was subscribed. Redis's
 * stars match dots too: who subscribed compares. */

static bool is_special(char c)
{
    return c == '[' || c == ']' || c == '?' || c == '*' || c == '\\';
}

/* Whether the character at `i` is a token of its own. */
static bool is_token(struct slice text, size_t i)
{
    return i > 0 && i + 1 < text.len && (text.data[i - 1] == '.' || text.data[i - 1] == '{') &&
           (text.data[i + 1] == '.' || text.data[i + 1] == '}');
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

bool redis_glob_encode(const struct redis_storage *storage, struct slice pattern, struct redis_glob *glob)
{
    if (pattern.len >= CHANNEL_MAX)
        return false;
    glob->len = redis_glob_escape(slice_from(storage->prefix, storage->prefix_len), glob->text);
    for (size_t i = 0; i < pattern.len; i++) {
        char c = pattern.data[i];
        bool star = c == '*' && is_token(pattern, i);
        bool rest = c == '>' && is_token(pattern, i) && pattern.data[i + 1] == '}';
        if (rest)
            glob->text[glob->len++] = '*';
        else if (!star && is_special(c))
            glob->text[glob->len++] = '\\';
        glob->text[glob->len++] = rest ? '*' : c;
    }
    return true;
}

size_t redis_glob_decode(struct slice glob, char *out)
{
    size_t len = 0;

    for (size_t i = 0; i < glob.len; i++) {
        bool pair = i + 1 < glob.len;
        if (glob.data[i] == '\\' && pair) {
            out[len++] = glob.data[++i];
        } else if (glob.data[i] == '*' && pair && glob.data[i + 1] == '*') {
            out[len++] = '>';
            i++;
        } else {
            out[len++] = glob.data[i];
        }
    }
    return len;
}
