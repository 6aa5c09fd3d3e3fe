/* Base64 as the protocol uses it: RFC 4648 section 4, with padding, nothing else accepted. */
#ifndef CLIENT_BASE64_H
#define CLIENT_BASE64_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

bool base64_encode(const void *data, size_t len,
                   struct buffer *out); /* appends; false when memory is short */

/* Decodes into `out`, which holds at least len / 4 * 3 bytes (and may be `text` itself). False when malformed. */
bool base64_decode(const char *text, size_t len, void *out, size_t *out_len);

#endif
