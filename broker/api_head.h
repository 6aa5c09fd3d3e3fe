/* The head of one HTTP/1.1 request, read strictly (RFC 9112): what two readers could take for different things is refused.
 *
 * Everything here is pure: no I/O, nothing kept. */
#ifndef BROKER_API_HEAD_H
#define BROKER_API_HEAD_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { API_HEAD_MAX = 16 * 1024, API_FIELDS_MAX = 100 };

enum api_method { METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_DELETE, METHOD_OTHER };

/* Everything points into the text that was parsed; values are NUL-terminated, without the space around them. */
struct api_head {
    enum api_method method;
    struct slice path, query; /* as they came; without "?" the query is empty */
    const char *host;         /* with its port; NULL: HTTP/1.0 without one */
    bool old;                 /* HTTP/1.0 */
    bool close;               /* nothing follows on this connection */
    bool expects_continue;
    bool chunked, has_length; /* at most one: how long the body is; neither: there is none */
    uint64_t length;
    size_t field_count;
    struct api_field {
        const char *name, *value;
    } fields[API_FIELDS_MAX];
};

/* What may be wrong with a request before anybody serves it. X(symbol, status, name, detail) */
#define API_PROBLEMS(X)                                                                                      \
    X(HEAD_FINE, 200, "", "")                                                                                \
    X(HEAD_MALFORMED, 400, "bad_request", "this is no HTTP/1.1 request")                                     \
    X(HEAD_TARGET, 400, "bad_request", "the target has a byte that must be escaped")                         \
    X(HEAD_VERSION, 505, "version_not_supported", "only HTTP/1.1 and HTTP/1.0 are spoken here")              \
    X(HEAD_LINE, 400, "bad_request", "a header line must be \"Name: value\", on one line")                   \
    X(HEAD_CONTROL, 400, "bad_request", "a header field has a control character")                            \
    X(HEAD_TWICE, 400, "bad_request", "a header field came twice that may come once")                        \
    X(HEAD_FIELDS, 431, "head_too_large", "the request has more than 100 header fields")                     \
    X(HEAD_TOO_LONG, 431, "head_too_large", "the request's head has more than 16 KiB")                       \
    X(HEAD_TARGET_TOO_LONG, 414, "target_too_long", "the first line has more than 16 KiB")                   \
    X(HEAD_TWO_LENGTHS, 400, "bad_request", "Transfer-Encoding and Content-Length contradict each other")    \
    X(HEAD_OLD_CODING, 400, "bad_request", "HTTP/1.0 has no Transfer-Encoding")                              \
    X(HEAD_CODING, 501, "not_implemented", "the only Transfer-Encoding here is chunked")                     \
    X(HEAD_LENGTH, 400, "bad_request", "Content-Length is not a number")                                     \
    X(HEAD_LARGE, 413, "too_large", "Content-Length is larger than anything here")                           \
    X(HEAD_NO_HOST, 400, "bad_request", "HTTP/1.1 wants a Host")                                             \
    X(HEAD_HOST, 400, "bad_request", "Host is no name and no address")                                       \
    X(HEAD_TWO_HOSTS, 400, "bad_request", "the target names another host than Host does")                    \
    X(HEAD_EXPECT, 417, "expectation_failed", "the only Expect here is 100-continue")                        \
    X(BODY_CHUNK, 400, "bad_request", "the body's chunks are malformed")                                     \
    X(BODY_TOO_LARGE, 413, "too_large", "the body is larger than what is taken here")                        \
    X(BODY_NO_ROOM, 429, "limit", "bodies and answers take all that there is for them (api_memory)")         \
    X(BODY_NO_MEMORY, 507, "no_memory", "memory is short")                                                   \
    X(REQUEST_TOO_SLOW, 408, "request_timeout", "the request was not complete in time (api_timeout)")        \
    X(REQUEST_CUT, 400, "bad_request", "the request ended before it was complete")

enum api_problem {
#define PROBLEM(symbol, status, name, detail) symbol,
    API_PROBLEMS(PROBLEM)
#undef PROBLEM
};

struct api_refusal {
    int status;
    const char *name, *detail;
};

const struct api_refusal *api_refusal_of(enum api_problem problem);

/* How long the head at the beginning of `text` is, with its empty line. 0: more is needed; -1: it can't become one.
 * `scanned` is 0 at first, and kept between calls while the text grows. */
ssize_t api_head_find(struct slice text, size_t *scanned);

/* Reads a head of the length that was found; writes NULs into it. */
enum api_problem api_head_parse(char *text, size_t len, struct api_head *head)
    __attribute__((warn_unused_result));

/* NULL when there is none. A field whose meaning hangs on being alone was refused when it came twice. */
const char *api_head_field(const struct api_head *head, const char *name);

/* Whether a Host, with or without a port, is an address or a name that can only mean this machine (localhost), or one of
 * `hosts`, which are separated by commas or spaces. No name that somebody else's name server could answer for is taken otherwise. */
bool api_host_is_known(const char *host, const char *hosts);

#endif
