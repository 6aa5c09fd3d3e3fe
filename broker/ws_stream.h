/* The bytes between one client and libwebsockets, which reads and writes them through us.
 *
 * libwebsockets calls recv(2), send(2) and shutdown(2) on a descriptor. This program defines these three itself
 * (ws_stream.c), so on a descriptor with a stream they do what the stream says: TLS is ours, the first thing read is a
 * request that we made, and every frame passes the gate (ws_gate.h). On all other descriptors they are the system's. */
#ifndef BROKER_WS_STREAM_H
#define BROKER_WS_STREAM_H

#include "broker/ws_gate.h"
#include "proto/slice.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct ws_stream_calls {
    struct ws_gate_calls gate;
    uint64_t (*max_message)(const void *data); /* bytes */
    /* What libwebsockets wrote after `last_words` was set has left whole. From inside one of its calls. */
    void (*on_last_words)(void *data);
    /* libwebsockets is about to close the descriptor while the client may still send. `fd` is another one of the same socket, the
     * callee's, to be read until the client has ended: unread bytes would make the end a reset, and our close frame be lost. */
    void (*linger)(void *data, int fd);
};

/* Embedded in whoever owns the connection; zeroed before ws_stream_open(). */
struct ws_stream {
    const struct ws_stream_calls *calls;
    void *data; /* theirs */
    SSL *tls;   /* owned; NULL: plain */
    char *begin; /* owned: our request, then what the client sent behind its own; later what the gate left of a read */
    uint32_t begin_len, begin_at, request_len;
    struct ws_gate gate;
    int fd;            /* not owned; -1 when closed */
    bool last_words;   /* only a close frame is still to be written */
    bool wants_write;  /* it can't be read on before something was written */
};

/* Begins the stream of `fd`. Takes over `tls`. `request` is what libwebsockets reads first, alone; `early` follows it. False when
 * memory is short: nothing was taken. */
bool ws_stream_open(struct ws_stream *stream, int fd, SSL *tls, struct slice request, struct slice early,
                    const struct ws_stream_calls *calls, void *data) __attribute__((warn_unused_result));

/* The descriptor is closed, or about to be. Idempotent. */
void ws_stream_close(struct ws_stream *stream);

/* Whether libwebsockets has read the request. If not after it was served, it doesn't read through us. */
bool ws_stream_has_begun(const struct ws_stream *stream);

/* Whether there is something to read of which no descriptor will ever tell. */
bool ws_stream_input_waits(const struct ws_stream *stream);

#endif
