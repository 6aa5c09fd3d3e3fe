#include "client/pattern.h"

#include "proto/topic.h"

bool pattern_is(const char *topic)
{
    return topic_is_pattern(slice_text(topic));
}

bool pattern_matches(const char *pattern, const char *topic)
{
    return topic_matches(slice_text(pattern), slice_text(topic));
}
