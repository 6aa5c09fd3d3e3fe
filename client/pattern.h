/* Topic patterns: docs/protocol.md, subscribe. */
#ifndef CLIENT_PATTERN_H
#define CLIENT_PATTERN_H

#include <stdbool.h>

bool pattern_is(const char *topic); /* holds a wildcard */
bool pattern_matches(const char *pattern, const char *topic);

#endif
