/* The WebSocket port: accepts connections, serves the page, refuses what fits no route, and carries frames
 * between libwebsockets and sessions. */
#ifndef BROKER_WS_H
#define BROKER_WS_H

#include <stddef.h>

struct budget;
struct config;
struct connect_routes;
struct loop;
struct metrics;
struct sessions;
struct storage;
struct ws_server;

struct ws_options {
    struct loop *loop;
    struct config *config; /* a reference is taken */
    const struct connect_routes *connect;
    struct sessions *sessions;
    struct storage *storage;
    struct metrics *metrics;
    struct budget *budget;
    size_t max_connections; /* never more than the limit of descriptors allows */
    size_t max_handshakes;  /* connections that are no sessions yet; the same */
};

/* Listens on config->listen. NULL on failure (logged). All that `options` names must outlive it. */
struct ws_server *ws_server_create(const struct ws_options *options);

/* Connections that are left are dropped without a close frame, so end the sessions first. NULL is allowed. */
void ws_server_destroy(struct ws_server *server);

/* The listening address as HOST:PORT. */
const char *ws_server_address(const struct ws_server *server);

/* Accepts no new connections from now on. */
void ws_server_stop(struct ws_server *server);

/* New connections follow `config` from now on; those there keep the routes they came with. */
void ws_server_reload(struct ws_server *server, struct config *config, size_t max_connections,
                      size_t max_handshakes);

#endif
