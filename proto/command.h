/* Commands of the structured faces, read from the frames of a WebSocket message (docs/protocol.md).
 *
 * One table says which fields there are and of what type; JSON and MessagePack are read by it alike. What a
 * field means, and whether a command needs it, is for whoever carries the command out. */
#ifndef PROTO_COMMAND_H
#define PROTO_COMMAND_H

#include "base/buffer.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stdint.h>

/* The fields that a frame had; or-ed in command.present. */
enum command_field {
    FIELD_ID = 1 << 0,
    FIELD_CMD = 1 << 1,
    FIELD_TO = 1 << 2,
    FIELD_TOPIC = 1 << 3,
    FIELD_ADDRESS = 1 << 4,
    FIELD_REQUEST = 1 << 5,
    FIELD_REFUSE = 1 << 6,
    FIELD_KEY = 1 << 7,
    FIELD_STORE = 1 << 8,
    FIELD_TTL = 1 << 9,
    FIELD_TIMEOUT = 1 << 10,
    FIELD_LIMIT = 1 << 11,
    FIELD_REVERSE = 1 << 12,
    FIELD_PRESENCE = 1 << 13,
    FIELD_EVENTS = 1 << 14,
    FIELD_SINCE = 1 << 15,
    FIELD_PAYLOAD = 1 << 16,
};

struct command {
    unsigned present; /* FIELD_… */
    int64_t id;       /* 0: no answer is wanted */
    struct slice cmd, to, topic, address, request, refuse, key;
    struct slice since_epoch, since_offset; /* both empty: from the beginning */
    int64_t ttl, timeout, limit;            /* as given, not checked for range */
    bool store, reverse, presence, events;
    enum message_content content;
    struct slice payload; /* the empty text when there was none */
    bool too_large;       /* it, or `refuse`, passes the reader's limit: to be refused */
};

enum command_status {
    COMMAND_END,  /* no further frame in this message */
    COMMAND_READ, /* `command` is filled in */
    COMMAND_BAD,  /* a frame with a wrong field: answer `command->id` with bad_request and `problem`, go on */
    COMMAND_FATAL /* no frame at all: close with 4500; `problem` says why */
};

/* Reads the frames of one WebSocket message. Needs command_reader_close() however it ends. */
struct command_reader {
    enum face face;
    const char *at, *end;
    const char *frame;  /* JSON: where the frame read last begins */
    void *tree;         /* of the frame read last, owned */
    struct buffer text; /* decoded payload of the frame read last, owned */
    size_t limit;       /* of a payload in the encoding where it is largest; 0, as at first: none */
    char problem[120];
};

/* `bytes` must outlive the reader; text (FACE_JSON) is valid UTF-8. */
void command_reader_init(struct command_reader *reader, enum face face, struct slice bytes);
void command_reader_close(struct command_reader *reader);

/* The slices of `command` live until the next call. */
enum command_status command_read(struct command_reader *reader, struct command *command);

#endif
