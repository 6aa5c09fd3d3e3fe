/* The envelope: a message as it travels over the bus, one MessagePack array.
 *
 *     [version, id, kind, from, to, time, content, payload, correlation]
 *
 * id, from, to and correlation are str; kind, content and time (ms since 1970) are unsigned integers; payload
 * is bin. An array of up to 15 elements begins with a byte from 0x90 to 0x9f, which can not begin UTF-8 text,
 * so plain text from an operator is told apart by its first byte. What may follow, in this order: offset and
 * epoch (str) of a stored message, timeout (ms, unsigned) of a request, and a mark (bin) by which the instance
 * that published it knows it again. Readers ignore further elements: later versions may append. Format: https://github.com/msgpack/msgpack/blob/master/spec.md */
#ifndef PROTO_ENVELOPE_H
#define PROTO_ENVELOPE_H

#include "base/buffer.h"
#include "proto/message.h"

#include <stdbool.h>

enum { ENVELOPE_VERSION = 1 };

/* Appends the envelope to `out`; false when memory is short or the buffer's ceiling is reached. */
bool envelope_encode(const struct message_fields *fields, struct buffer *out)
    __attribute__((warn_unused_result));

/* Appends an envelope whose offset and epoch are still to come: whoever stores the message appends both, as
 * str, to the bytes. */
bool envelope_encode_open(const struct message_fields *fields, struct buffer *out)
    __attribute__((warn_unused_result));

/* Reads what arrived on a channel: an envelope, or else text (binary, when it isn't UTF-8) from an operator.
 * The slices of `fields` point into `bytes`. NULL on success, otherwise a constant text that says what is
 * wrong. Nothing is allocated. */
const char *envelope_decode(struct slice bytes, struct message_fields *fields)
    __attribute__((warn_unused_result));

/* ---- marks ---- */

struct envelope_mark {
    uint64_t origin; /* the process that published it */
    uint32_t number; /* its own count */
    bool copy;       /* the message has reached its receiver another way: this is for whoever watches */
};

/* Appends the envelope `bytes` with a mark. False when it is none, is marked already, or memory is short. */
bool envelope_mark(struct slice bytes, const struct envelope_mark *mark, struct buffer *out)
    __attribute__((warn_unused_result));

/* False when `bytes` is no marked envelope. Looks at nothing but the mark. */
bool envelope_read_mark(struct slice bytes, struct envelope_mark *mark);

/* The kind alone, without looking at the rest; MESSAGE_DATA for plain text, MESSAGE_KIND_COUNT for nonsense. */
enum message_kind envelope_kind(struct slice bytes);

#endif
