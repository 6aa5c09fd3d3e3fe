#include "proto/frame.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "proto/push.h"

#include <stdint.h>
#include <string.h>

size_t frame_write_header(enum frame_opcode opcode, size_t payload_len,
                          unsigned char out[static FRAME_HEADER_MAX])
{
    enum { FIN = 0x80, LEN_16 = 126, LEN_64 = 127 };

    out[0] = (unsigned char)(FIN | (unsigned)opcode);
    if (payload_len < LEN_16) {
        out[1] = (unsigned char)payload_len;
        return 2;
    }
    if (payload_len <= UINT16_MAX) {
        out[1] = LEN_16;
        out[2] = (unsigned char)(payload_len >> 8);
        out[3] = (unsigned char)payload_len;
        return 4;
    }
    out[1] = LEN_64;
    for (size_t i = 0; i < 8; i++)
        out[2 + i] = (unsigned char)((uint64_t)payload_len >> (56 - 8 * i));
    return 10;
}

struct frame *frame_create(enum frame_opcode opcode, struct slice payload)
{
    unsigned char header[FRAME_HEADER_MAX];
    size_t header_len = frame_write_header(opcode, payload.len, header);
    struct frame *frame = mem_alloc(sizeof *frame + header_len + payload.len);

    if (!frame)
        return NULL;
    frame->refs = 1;
    frame->queued = 0;
    frame->len = header_len + payload.len;
    memcpy(frame->bytes, header, header_len);
    if (payload.len)
        memcpy(frame->bytes + header_len, payload.data, payload.len);
    return frame;
}

struct frame *frame_ref(struct frame *frame)
{
    frame->refs++;
    return frame;
}

void frame_unref(struct frame *frame)
{
    if (frame && --frame->refs == 0)
        mem_free(frame);
}

struct frame *frame_of(struct message *message, enum face face)
{
    struct buffer text;

    if (message->frames[face])
        return message->frames[face];
    if (face == FACE_PLAIN) {
        bool binary = message->fields.content == CONTENT_BINARY;
        message->frames[face] = frame_create(binary ? FRAME_BINARY : FRAME_TEXT, message->fields.payload);
        return message->frames[face];
    }
    buffer_init(&text, 0);
    if (push_write(&message->fields, face, &text))
        message->frames[face] =
            frame_create(face == FACE_JSON ? FRAME_TEXT : FRAME_BINARY, slice_from(text.data, text.len));
    buffer_close(&text);
    return message->frames[face];
}
