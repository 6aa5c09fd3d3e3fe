/* What the head of an HTTP request asks of the API: http_head.h reads it, this says what it means, as strictly.
 *
 * Everything here is pure: no I/O, nothing kept. */
#ifndef BROKER_API_HEAD_H
#define BROKER_API_HEAD_H

#include "broker/http_head.h"
#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum api_method { METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_DELETE, METHOD_OTHER };

enum { API_FIELDS = 8 };

/* Everything points into the text that was parsed. */
struct api_head {
    const char *fields[API_FIELDS]; /* those that mean something here; see api_head_field() */
    enum api_method method;
    struct slice path, query; /* as they came; without "?" the query is empty */
    const char *host;         /* with its port; NULL: HTTP/1.0 without one */
    bool old;                 /* HTTP/1.0 */
    bool close;               /* nothing follows on this connection */
    bool expects_continue;
    bool chunked; /* otherwise the body has `length` bytes */
    uint64_t length;
};

/* Reads a head of the length that http_head_find_end() found; writes NULs into it. False: `*problem` says why. */
bool api_head_parse(char *text, size_t len, struct api_head *head, struct http_problem *problem)
    __attribute__((warn_unused_result));

/* A field by its name in lower case: host, content-length, transfer-encoding, authorization, content-type, expect, idempotency-key
 * or origin. NULL when there is none; one that came twice was refused. */
const char *api_head_field(const struct api_head *head, const char *name);

/* Whether a Host, with or without a port, is an address or a name that can only mean this machine (localhost), or one of
 * `hosts`, which are separated by commas or spaces. No name that somebody else's name server could answer for is taken otherwise. */
bool api_host_is_known(const char *host, const char *hosts);

#endif
