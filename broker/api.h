/* The API listener: health, readiness, statistics and metrics over HTTP, apart from the WebSocket port. */
#ifndef BROKER_API_H
#define BROKER_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api;
struct config;
struct loop;
struct metrics;
struct router;
struct sessions;
struct storage;

struct api_options {
    struct loop *loop;
    const char *address;         /* where to listen; NULL: config->api. Used only by api_create() */
    const struct config *config; /* used only by api_create() */
    struct storage *storage;
    struct sessions *sessions;
    struct router *router;
    struct metrics *metrics;
    const char *instance;
    uint64_t started_at_ms;
    size_t max_connections;
};

/* Listens on options->address. NULL on failure (logged). All that `options` names must outlive it. */
struct api *api_create(const struct api_options *options);

/* Drops what is open. The storage must not call back into it any more: destroy that first. NULL is allowed.
 */
void api_destroy(struct api *api);

const char *api_address(const struct api *api); /* HOST:PORT */

/* From now on /readyz says 503, whatever the bus does. */
void api_set_draining(struct api *api);

void api_set_max_connections(struct api *api, size_t max_connections);

#endif
