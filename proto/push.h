/* Pushes of the structured faces that stand for a message from the bus (docs/protocol.md). */
#ifndef PROTO_PUSH_H
#define PROTO_PUSH_H

#include "base/buffer.h"
#include "proto/message.h"
#include "proto/writer.h"

#include <stdbool.h>

/* Appends the push for a MESSAGE_DATA, _REQUEST, _CANCEL, _JOIN or _LEAVE in `face` (JSON or MessagePack).
 * False when memory is short. */
bool push_write(const struct message_fields *fields, enum face face, struct buffer *out)
    __attribute__((warn_unused_result));

/* The fields of a message without the "push", for lists of messages: writes one map. */
void push_write_message(struct writer *writer, const struct message_fields *fields);

#endif
