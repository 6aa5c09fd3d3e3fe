/* Between MessagePack and JSON values, for payloads that are JSON. */
#ifndef PROTO_MP_JSON_H
#define PROTO_MP_JSON_H

#include "base/buffer.h"
#include "proto/mp.h"

#include <jansson.h>
#include <stdbool.h>

/* Appends `value` as MessagePack; false when memory is short. */
bool mp_from_json(const json_t *value, struct buffer *out);

/* Appends `value` as compact JSON, each number with no more digits than it takes to read it back; false when
 * memory is short or the buffer's ceiling is reached, and then at once. */
bool json_write_value(const json_t *value, struct buffer *out);

/* Reads one value that JSON has as well; the caller owns the result. NULL when it is something else (bin,
 * ext, a key that is no string, an integer past 2^63-1, a float that isn't finite, text that isn't UTF-8),
 * too deep, cut short, or memory is short. */
json_t *mp_to_json(struct mp_reader *reader);

#endif
