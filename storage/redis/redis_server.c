#include "storage/redis/redis_server.h"

#include "base/alloc.h"
#include "storage/redis/storage_redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

bool redis_server_init(struct redis_server *server, const struct storage_redis_options *options)
{
    *server = (struct redis_server){.host = mem_strdup(options->path ? NULL : options->host),
                                    .path = mem_strdup(options->path),
                                    .user = mem_strdup(options->username),
                                    .password = mem_strdup(options->password),
                                    .port = options->port,
                                    .db = options->database};
    if (options->path)
        return server->path && strlen(server->path) < sizeof((struct sockaddr_un *)0)->sun_path;
    return server->host && (server->user || !options->username) && (server->password || !options->password);
}

void redis_server_close(struct redis_server *server)
{
    mem_free(server->host);
    mem_free(server->path);
    mem_free(server->user);
    mem_free(server->password);
    *server = (struct redis_server){0};
}

const char *redis_server_text(const struct redis_server *server, char out[static REDIS_SERVER_TEXT_MAX])
{
    const char *format = server->host && strchr(server->host, ':') ? "[%s]:%u/%" PRIu32 : "%s:%u/%" PRIu32;

    if (server->path)
        snprintf(out, REDIS_SERVER_TEXT_MAX, "%s", server->path);
    else
        snprintf(out, REDIS_SERVER_TEXT_MAX, format, server->host, (unsigned)server->port, server->db);
    return out;
}
