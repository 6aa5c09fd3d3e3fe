/* The target of an HTTP request, byte for byte as the client sent it: /websocket/a%20b?since=. Percent-escapes are
 * decoded here and nothing else: "+" stays "+". */
#ifndef BROKER_TARGET_H
#define BROKER_TARGET_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>

/* Finds the target in the beginning of a request. False while its first line is not complete. Of a line that is no
 * request, `*target` is whatever stands in its place, perhaps nothing, but never {NULL, 0}. */
bool target_find(struct slice input, struct slice *target);

/* What stands before the query; of a doubled leading slash one is left out. */
struct slice target_path(struct slice target);

/* Decodes percent-escapes in place and returns the new length. Broken ones stay as they are and set `*broken`. */
size_t target_decode(char *text, size_t len, bool *broken);

/* Whether it escapes a character that needs no escape (RFC 3986 section 2.3), so that it is another spelling of a name. */
bool target_is_alias(struct slice text);

/* What stands behind the "?"; empty when there is none. */
struct slice target_query(struct slice target);

/* One argument of a query, as it was sent. */
struct target_argument {
    struct slice name, value; /* value: {NULL, 0} without an "=" */
};

/* Takes the next argument off `query`: NAME=VALUE, NAME, or nothing at all between two "&". False at the end. */
bool target_next_argument(struct slice *query, struct target_argument *argument);

#endif
