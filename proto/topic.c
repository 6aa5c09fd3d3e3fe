#include "proto/topic.h"

struct slice topic_take_token(struct slice *rest, bool *last)
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
        struct slice token = topic_take_token(&topic, &last);
        if (slice_is(token, "*") || (last && slice_is(token, ">")))
            return true;
    }
    return false;
}

bool topic_matches(struct slice pattern, struct slice name)
{
    bool pattern_last = false, name_last = false;

    while (!pattern_last && !name_last) {
        struct slice want = topic_take_token(&pattern, &pattern_last);
        struct slice token = topic_take_token(&name, &name_last);
        if (pattern_last && slice_is(want, ">"))
            return token.len > 0;
        if (slice_is(want, "*") ? !token.len : !slice_equal(want, token))
            return false;
    }
    return pattern_last && name_last;
}

bool topic_begins_wild(struct slice pattern)
{
    bool last;
    struct slice first = topic_take_token(&pattern, &last);

    return slice_is(first, "*") || (last && slice_is(first, ">"));
}

size_t topic_token_count(struct slice topic)
{
    size_t count = 0;

    for (bool last = false; !last; count++)
        topic_take_token(&topic, &last);
    return count;
}

bool topic_of_channel(struct slice channel, struct slice *name)
{
    static const char head[] = "topic:{";
    const size_t len = sizeof head - 1;

    if (channel.len <= len + 1 || memcmp(channel.data, head, len) != 0 || channel.data[channel.len - 1] != '}')
        return false;
    *name = slice_from(channel.data + len, channel.len - len - 1);
    return true;
}
