/* One WebSocket connection of a client, on a libevent base: resolving, connecting, TLS, the handshake, and messages in
 * both directions. Connecting again is its user's matter. */
#ifndef CLIENT_WS_CLIENT_H
#define CLIENT_WS_CLIENT_H

#include "client/ws_codec.h"

#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct evdns_base;
struct ssl_ctx_st;
struct url;
struct ws_client;

/* What several connections may share. All of it is made when first needed. */
struct ws_shared {
    struct event_base *base;
    const char *ca_file; /* NULL: the system's */
    bool insecure;
    struct evdns_base *dns;
    struct ssl_ctx_st *tls;
};

void ws_shared_init(struct ws_shared *shared, struct event_base *base);
void ws_shared_close(struct ws_shared *shared); /* after the last connection that uses it */

struct ws_end {
    int close_code;       /* what the server's close frame said (1005: nothing); 0: there was none */
    int http_status;      /* when the handshake was refused with one */
    unsigned retry_after; /* seconds, from the refusal; 0: not given */
    const char *reason;   /* for people, never NULL */
};

struct ws_handler {
    void (*on_open)(void *data);
    void (*on_message)(enum ws_opcode opcode, const char *bytes, size_t len, void *data);
    void (*on_drained)(void *data); /* what was sent is with the kernel */
    /* Exactly once unless it is destroyed before, never from within a call below; nothing follows. */
    void (*on_end)(const struct ws_end *end, void *data);
};

struct ws_options {
    const struct url *url;
    const char *path; /* with the query, in place of the URL's */
    const char *subprotocol, *agent, *token;
    size_t max_message;
    unsigned timeout; /* milliseconds until it must be open */
};

/* Begins to connect. Everything is copied but `shared` and `handler`. NULL when memory is short. */
struct ws_client *ws_client_create(struct ws_shared *shared, const struct ws_options *options,
                                   const struct ws_handler *handler, void *data);

/* Sends a whole message; false when it is not open (any more) or memory is short. */
bool ws_client_send(struct ws_client *ws, enum ws_opcode opcode, const void *bytes, size_t len);

size_t ws_client_pending(const struct ws_client *ws); /* bytes sent that the kernel did not take yet */

/* Ends the connection when nothing at all was received for this long; 0: never. */
void ws_client_set_silence(struct ws_client *ws, unsigned ms);

/* Begins the closing handshake, which takes a second at most; on_end follows. */
void ws_client_close(struct ws_client *ws, int code, const char *reason);

/* Drops the connection without a word. NULL is allowed, and so is calling it from a callback. */
void ws_client_destroy(struct ws_client *ws);

#endif
