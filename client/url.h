/* A ws:// or wss:// URL, cut into what a connection needs. */
#ifndef CLIENT_URL_H
#define CLIENT_URL_H

#include <stdbool.h>

enum { URL_HOST_SIZE = 256, URL_MAX = 4096 };

struct url {
    bool tls;
    char host[URL_HOST_SIZE]; /* without brackets: to be resolved and verified */
    char
        host_header[URL_HOST_SIZE + 8]; /* with brackets, and with the port when it is not the scheme's own */
    unsigned short port;
    char *path;  /* owned; without the query, begins with a slash */
    char *query; /* owned; without the question mark; NULL: none */
};

/* NULL on success: `url` is to be closed. Otherwise a constant text that says what is wrong. Without a path it is
 * `default_path`. */
const char *url_parse(const char *text, const char *default_path, struct url *url);
void url_close(struct url *url);

#endif
