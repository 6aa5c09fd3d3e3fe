/* UTF-8 validation (RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* The number of bytes (1 to 4) of the character at `text`, or 0 when the bytes there are not valid UTF-8. */
size_t utf8_step(const char *text, size_t len);

bool utf8_valid(const char *text, size_t len);

#endif
