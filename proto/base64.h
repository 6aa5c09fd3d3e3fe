/* Base64 with padding (RFC 4648 section 4). */
#ifndef PROTO_BASE64_H
#define PROTO_BASE64_H

#include "base/buffer.h"
#include "proto/slice.h"

#include <stdbool.h>

/* Appends; false when memory is short. */
bool base64_encode(struct slice bytes, struct buffer *out);

/* Appends the decoded bytes; false (and `out` may hold a part) when `text` isn't canonical base64 or memory
 * is short. */
bool base64_decode(struct slice text, struct buffer *out) __attribute__((warn_unused_result));

#endif
