/* Writes the frames of the structured faces: one set of calls, in JSON or in MessagePack.
 *
 *     writer_begin(&writer, FACE_JSON, &buffer);
 *     writer_map(&writer, 2);
 *     writer_key(&writer, "id"); writer_int(&writer, 7);
 *     writer_key(&writer, "ok"); writer_map(&writer, 0); writer_end(&writer);
 *     writer_end(&writer);
 *
 * Maps and arrays are announced with their number of entries (MessagePack needs it) and closed with
 * writer_end(). That memory was short shows in the buffer's `failed`. */
#ifndef PROTO_WRITER_H
#define PROTO_WRITER_H

#include "base/buffer.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stdint.h>

enum { WRITER_DEPTH_MAX = 8 };

struct writer {
    struct buffer *out;
    enum face face;
    unsigned depth;
    bool fresh;                    /* nothing was written at this level yet, so no comma */
    bool arrays[WRITER_DEPTH_MAX]; /* which open levels are arrays */
};

void writer_begin(struct writer *writer, enum face face, struct buffer *out); /* FACE_JSON or FACE_MSGPACK */

void writer_map(struct writer *writer, size_t count);
void writer_array(struct writer *writer, size_t count);
void writer_end(struct writer *writer);

/* An array whose number of elements shows only when they are written; returns what writer_array_end() wants. */
size_t writer_array_begin(struct writer *writer);
void writer_array_end(struct writer *writer, size_t begun, size_t count);

/* Takes back what was written since the mark, which must be at the same level. */
struct writer_mark {
    size_t len;
    bool fresh;
};
struct writer_mark writer_mark(const struct writer *writer);
void writer_rewind(struct writer *writer, struct writer_mark mark);

void writer_key(struct writer *writer, const char *key);   /* a constant that needs no escapes */
void writer_str(struct writer *writer, struct slice text); /* valid UTF-8 */
void writer_int(struct writer *writer, int64_t value);
void writer_bool(struct writer *writer, bool value);

/* The key "text", "binary" or "data", and the value. A payload that claims to be JSON but isn't goes as text.
 */
void writer_payload(struct writer *writer, enum message_content content, struct slice payload);

/* Appends the text as a JSON string, with as few escapes as it can have. */
void json_write_string(struct buffer *out, struct slice text);

/* writer_key() and the value. */
void writer_pair_str(struct writer *writer, const char *key, struct slice text);
void writer_pair_int(struct writer *writer, const char *key, int64_t value);
void writer_pair_bool(struct writer *writer, const char *key, bool value);
void writer_pair_null(struct writer *writer, const char *key);

#endif
