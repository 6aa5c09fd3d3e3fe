/* Where a Redis server is and how to log in. */
#ifndef STORAGE_REDIS_SERVER_H
#define STORAGE_REDIS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct storage_redis_options;

struct redis_server {
    char *host; /* NULL: a unix socket */
    char *path; /* the unix socket; NULL: TCP */
    char *user; /* NULL: the default user */
    char *password;
    uint16_t port;
    uint32_t db;
};

enum { REDIS_SERVER_TEXT_MAX = 300 };

/* Copies from the options; false when memory is short or the socket's path is too long for one.
 * redis_server_close() frees what was copied, in both cases. */
bool redis_server_init(struct redis_server *server, const struct storage_redis_options *options);
void redis_server_close(struct redis_server *server);

/* Writes "host:port/db" or the path, for logs, without credentials; returns `out`. */
const char *redis_server_text(const struct redis_server *server, char out[static REDIS_SERVER_TEXT_MAX]);

#endif
