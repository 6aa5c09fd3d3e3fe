#include "proto/topic.h"

/* Takes the first token off `rest`; `last` when nothing follows it. */
static struct slice take_token(struct slice *rest, bool *last)
{
    const char *dot = rest->len ? memchr(rest->data, '.', rest->len) : NULL;
    struct slice token = slice_from(rest->data, dot ? (size_t)(dot - rest->data) : rest->len);

    *last = !dot;
    *rest = dot ? slice_from(dot + 1, rest->len - token.len - 1) : slice_from(NULL, 0);
    return token;
}

bool topic_is_pattern(struct slice topic)
{
    bool last = false;

    while (!last) {
        struct slice token = take_token(&topic, &last);
        if (slice_is(token, "*") || (last && slice_is(token, ">")))
            return true;
    }
    return false;
}

bool topic_matches(struct slice pattern, struct slice name)
{
    bool pattern_last = false, name_last = false;

    while (!pattern_last && !name_last) {
        struct slice want = take_token(&pattern, &pattern_last);
        struct slice token = take_token(&name, &name_last);
        if (pattern_last && slice_is(want, ">"))
            return token.len > 0;
        if (slice_is(want, "*") ? !token.len : !slice_equal(want, token))
            return false;
    }
    return pattern_last && name_last;
}
