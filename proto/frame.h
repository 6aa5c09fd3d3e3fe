/* One WebSocket frame as it goes over the wire (RFC 6455 section 5.2): immutable and reference-counted, so
 * that a message to a thousand clients is encoded once. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "proto/message.h"
#include "proto/slice.h"

enum frame_opcode { FRAME_TEXT = 1, FRAME_BINARY = 2, FRAME_CLOSE = 8, FRAME_PING = 9, FRAME_PONG = 10 };

enum { FRAME_HEADER_MAX = 10 };

struct frame {
    unsigned refs;
    unsigned queued; /* how many outboxes it waits in: its memory is charged once, by the first of them */
    size_t len;
    unsigned char bytes[]; /* header and payload; unmasked, as a server sends it */
};

/* Writes the header of an unmasked, final frame; returns its length (2, 4 or 10 bytes). */
size_t frame_write_header(enum frame_opcode opcode, size_t payload_len,
                          unsigned char out[static FRAME_HEADER_MAX]);

/* A frame with one reference, its payload copied. NULL when memory is short. */
struct frame *frame_create(enum frame_opcode opcode, struct slice payload);

/* The frame that a client of `face` receives for `message`; made on first use and kept by the message.
 * Borrowed: take a reference to keep it. NULL when memory is short. */
struct frame *frame_of(struct message *message, enum face face);

struct frame *frame_ref(struct frame *frame);
void frame_unref(struct frame *frame); /* NULL is allowed */

#endif
