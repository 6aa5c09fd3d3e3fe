/* One HTTP request to the broker's API, waited for. */
#ifndef CLIENT_SWB_HTTP_H
#define CLIENT_SWB_HTTP_H

#include "base/buffer.h"
#include "client/swb/swb.h"

struct http_answer {
    int status;
    struct buffer body;
};

/* method: "GET", "POST" or "DELETE". EXIT_OK: there is an answer, whatever its status; its body is to be closed in any
 * case. Otherwise it was said what is wrong. */
int http_request(const struct args *args, const char *method, const char *path, struct http_answer *answer);

/* Appends `text` as it stands in a path segment or a query value. */
void http_escape(struct buffer *out, const char *text);

#endif
