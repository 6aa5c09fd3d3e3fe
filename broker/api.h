/* The API listener: messages, requests, lists, orders, health and metrics over HTTP, apart from the WebSocket port
 * (docs/openapi.yaml). */
#ifndef BROKER_API_H
#define BROKER_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api;
struct config;
struct keys;
struct loop;
struct metrics;
struct reads;
struct requests;
struct router;
struct sessions;
struct storage;

struct api_options {
    struct loop *loop;
    const char *address;   /* where to listen; NULL: config->api. Used only by api_create() */
    struct config *config; /* limits and token; a reference is taken */
    struct storage *storage;
    struct sessions *sessions;
    struct router *router;
    struct requests *requests;
    struct reads *reads; /* whose turn it is to read */
    struct keys *keys;   /* how many idempotency keys there may be */
    struct metrics *metrics;
    const struct budget *budget;
    const char *instance;
    uint64_t started_at_ms;
    size_t max_connections; /* to show */
    size_t api_connections; /* what descriptors allow of the configured number */
    void (*on_drain)(
        void *data); /* an operator ordered this instance to drain; NULL: orders go over the bus */
    void *data;
};

/* Listens on options->address. NULL on failure (logged). All that `options` names must outlive it. */
struct api *api_create(const struct api_options *options);

/* Drops what is open. The storage must not call back into it any more, nor the requests: destroy the first before and the
 * second after this. NULL is allowed. */
void api_destroy(struct api *api);

const char *api_address(const struct api *api); /* HOST:PORT */

/* From now on /readyz says 503, whatever the bus does. */
void api_set_draining(struct api *api);

/* The limits and the token of a new configuration count from now on; a token that can't be read is logged, and the old
 * one stays. */
void api_reload(struct api *api, struct config *config, size_t max_connections, size_t api_connections);

#endif
