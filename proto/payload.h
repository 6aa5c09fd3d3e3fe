/* How large a payload becomes in the faces' encodings: who sends doesn't know what the receivers speak, so the
 * largest of them is what limits it. */
#ifndef PROTO_PAYLOAD_H
#define PROTO_PAYLOAD_H

#include "proto/message.h"

#include <stdbool.h>

/* The bytes of the payload's value in the face that makes the most of it: text escaped in JSON, binary as
 * base64, the floats of a JSON value in MessagePack. A payload that claims to be JSON is JSON. */
size_t payload_largest(enum message_content content, struct slice payload);

/* Whether that is at most `limit`; most payloads are so small that they need not be looked at. */
bool payload_fits(enum message_content content, struct slice payload, size_t limit);

#endif
