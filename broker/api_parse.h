/* What an HTTP request says, read without any HTTP: paths, queries, quantities, payloads, credentials.
 *
 * Everything here is pure: no I/O, nothing kept. */
#ifndef BROKER_API_PARSE_H
#define BROKER_API_PARSE_H

#include "base/buffer.h"
#include "proto/address.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { API_PARAM_MAX = ADDRESS_MAX, API_QUERY_MAX = 8 };

enum api_match {
    API_NO_MATCH,
    API_MATCH,
    API_BAD_PARAM /* the path fits, but its parameter is too long or has a broken escape */
};

/* Compares a path as it came with a pattern like "/v1/sessions/{name}", whose one parameter stands for one segment that is
 * not empty. `value` becomes the decoded parameter, in `param`; empty when the pattern has none. */
enum api_match api_path_match(const char *pattern, struct slice path, char param[static API_PARAM_MAX + 1],
                              struct slice *value);

/* Decodes %XX (and + as a space, with `plus`) into at most `size` bytes. False when an escape is broken or it doesn't fit. */
bool api_percent_decode(struct slice text, bool plus, char *out, size_t size, size_t *len)
    __attribute__((warn_unused_result));

/* The decoded parameters of a query. */
struct api_query {
    struct api_query_pair {
        struct slice name, value;
    } pairs[API_QUERY_MAX];
    size_t count;
    char *text; /* owned; the pairs point into it */
    char problem[160];
};

/* Reads "a=1&b=2". `known` names the parameters that there are, separated by spaces; NULL: any, and all are ignored. 0, or an error
 * from proto/errors.h, and `problem` says what is wrong: an unknown name, one that came twice, a broken escape. Needs
 * api_query_close() however it ends. */
int api_query_parse(struct api_query *query, struct slice text, const char *known)
    __attribute__((warn_unused_result));
void api_query_close(struct api_query *query);

/* NULL when it isn't there. */
const struct slice *api_query_find(const struct api_query *query, const char *name);

/* Decimal digits only. */
bool api_read_number(struct slice text, uint64_t *number) __attribute__((warn_unused_result));

/* A number of milliseconds, or one with ms, s, m or h behind it. */
bool api_read_duration(struct slice text, uint64_t *ms) __attribute__((warn_unused_result));

/* "true", "1", "yes" or nothing behind the name; "false", "0", "no". */
bool api_read_bool(struct slice text, bool *value) __attribute__((warn_unused_result));

/* Bytes as hexadecimal text and back: a cursor that needs no escapes in a URL. */
bool api_hex_append(struct slice bytes, struct buffer *out);
bool api_hex_read(struct slice text, struct buffer *out) __attribute__((warn_unused_result));

struct api_payload {
    enum message_content content;
    struct slice bytes;  /* points into the body, or into `owned` */
    char *owned;         /* NULL: nothing */
    const char *problem; /* a constant */
};

/* The payload that a body of this Content-Type is: text for text/..., JSON (made compact) for application/json and ...+json, binary for the
 * rest. What has no type, or the one that curl gives everything (application/x-www-form-urlencoded), is text when it is UTF-8. 0 (then
 * api_payload_close() is needed), or an error from proto/errors.h, and with ERROR_BAD_REQUEST `problem` says what is wrong. */
int api_payload_read(const char *content_type, struct slice body, struct api_payload *payload)
    __attribute__((warn_unused_result));
void api_payload_close(struct api_payload *payload);

/* Whether an Authorization header is "Bearer TOKEN" with this token; takes the same time for every wrong one of its length. */
bool api_token_matches(const char *authorization, const char *token);

#endif
