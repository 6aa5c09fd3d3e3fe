/* The head of an HTTP/1.1 request: its first line and its fields, read strictly (RFC 9112 sections 2, 3 and 5).
 *
 * What is not exactly as the standard says is refused, never repaired: two readers that repair differently are how
 * requests are smuggled past whoever stands in front. Nothing is decoded and nothing is normalised. */
#ifndef BROKER_HTTP_HEAD_H
#define BROKER_HTTP_HEAD_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_TARGET_MAX = 8192 }; /* bytes of a request's target */

struct http_field {
    struct slice name, value; /* the value without the white space around it */
};

/* All slices point into the input that was parsed. */
struct http_head {
    struct slice method;
    struct slice target;    /* as it was sent */
    unsigned minor_version; /* of HTTP/1 */
    struct slice fields; /* their lines; see http_head_next() */
    bool has_body; /* one is announced, by whatever means */
    size_t len; /* bytes of the head, the empty line included */
};

/* Why a request is refused. */
struct http_problem {
    unsigned status;  /* 0: there is none */
    const char *text; /* one sentence for the client; static */
};

enum http_head_result { HTTP_HEAD_INCOMPLETE, HTTP_HEAD_WHOLE, HTTP_HEAD_BAD };

/* Looks for the end of the head in what has come so far, at most `limit` bytes of it. `*seen`, 0 at first, says how far an earlier
 * call got with the same input, so a head that comes byte by byte costs no more than one in a piece. What can be no head
 * any more is bad at once. */
enum http_head_result http_head_find_end(struct slice input, size_t limit, size_t *seen,
                                         struct http_problem *problem);

/* Reads a whole head, as http_head_find_end() found it. False, and `*problem` is set, for one that is not served: what a
 * server must refuse whatever is asked for. */
bool http_head_parse(struct slice input, struct http_head *head, struct http_problem *problem);

/* Whether it is a host, and perhaps a port: RFC 3986 section 3.2, without user information. */
bool http_is_host(struct slice text);

/* Walks the fields in order: start with head->fields. False after the last. */
bool http_head_next(struct slice *rest, struct http_field *field);

/* The only field of that name (lower case). {NULL, 0} when there is none; `*repeated` when there are several. */
struct slice http_head_field(const struct http_head *head, const char *name, bool *repeated);

/* Whether one of the comma-separated lists of that name holds `token`, in any case. */
bool http_head_lists(const struct http_head *head, const char *name, const char *token);

/* Walks the members of all lists of that name, in order: start with a zeroed cursor. False after the last. */
struct http_list_cursor {
    struct slice fields, value; /* still to be walked */
    bool begun;
};
bool http_head_next_member(const struct http_head *head, const char *name, struct http_list_cursor *cursor,
                           struct slice *member);

#endif
