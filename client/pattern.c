#include "client/pattern.h"

#include <stddef.h>
#include <string.h>

bool pattern_is(const char *topic)
{
    for (const char *token = topic;; token++) {
        size_t len = strcspn(token, ".");
        if (len == 1 && (*token == '*' || (*token == '>' && !token[1])))
            return true;
        token += len;
        if (!*token)
            return false;
    }
}

bool pattern_matches(const char *pattern, const char *topic)
{
    for (;; pattern++, topic++) {
        size_t wanted = strcspn(pattern, "."), given = strcspn(topic, ".");
        if (wanted == 1 && *pattern == '>' && !pattern[1])
            return true;
        bool any = wanted == 1 && *pattern == '*';
        if (!any && (wanted != given || memcmp(pattern, topic, wanted) != 0))
            return false;
        pattern += wanted;
        topic += given;
        if (!*pattern || !*topic)
            return !*pattern && !*topic;
    }
}
