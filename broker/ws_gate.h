/* What a client's bytes must keep before libwebsockets reads them as WebSocket frames (RFC 6455 section 5).
 *
 * libwebsockets carries out frames without a mask, answers only the first of several pings in one read, and forgets to say
 * why it closes for some errors. So each frame's header is judged here first, by the byte, wherever a read may cut it:
 * data and close frames go on unchanged, pings are taken out and answered by us, and after a violation nothing goes on
 * but the client's close frame. A message that grows too large is refused at the header that makes it so, before the
 * rest of it has come. */
#ifndef BROKER_WS_GATE_H
#define BROKER_WS_GATE_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WS_CONTROL_MAX = 125 }; /* bytes of a control frame's payload */

struct ws_gate_calls {
    /* Whether the client's close frame may go on. libwebsockets answers it at once and drops what is still to be written, so it
     * waits for that. */
    bool (*may_close)(void *data);
    /* A whole ping came; `payload` is unmasked and only valid during the call. */
    void (*on_ping)(void *data, struct slice payload);
    /* The client broke the rules: close with `code`. Called once. */
    void (*on_violation)(void *data, int code, const char *reason);
};

/* Zeroed is a gate at the beginning of the stream. */
struct ws_gate {
    uint64_t left;         /* bytes of the current payload still to come */
    uint64_t message;      /* bytes of the unfinished message so far */
    struct ws_ping *ping;  /* owned; a ping that a read cut; NULL mostly */
    uint8_t header[14];    /* of the current frame, as far as it came */
    uint8_t header_len;    /* 0 between frames, and while a payload comes */
    uint8_t verdict;       /* what becomes of the current payload */
    bool fragmented;       /* a message has begun and its last frame has not come */
    bool closing;          /* nothing but a close frame goes on */
    bool closed;           /* the client's close frame went on; nothing goes on any more */
};

void ws_gate_close(struct ws_gate *gate);

/* From now on the client's data is thrown away; its close frame still goes on. */
void ws_gate_shut(struct ws_gate *gate);

/* How many bytes it holds back of a header that is not whole yet. */
size_t ws_gate_held(const struct ws_gate *gate);

/* Reads what came, bytes[from] to bytes[len - 1], and puts at the front of `bytes` what libwebsockets is to see; returns how much
 * that is. `from` is ws_gate_held(), which is the room that what was held back needs. `max_message` bounds a message, in
 * bytes. It stops at a ping, or a violation, that follows other frames, so that those are answered first, and at a close frame
 * that has to wait: what is left begins at bytes[*taken], and is to be given again. */
size_t ws_gate_pass(struct ws_gate *gate, unsigned char *bytes, size_t from, size_t len, size_t *taken,
                    uint64_t max_message, const struct ws_gate_calls *calls, void *data);

#endif
