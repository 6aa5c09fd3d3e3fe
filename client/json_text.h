/* JSON as text: what the library writes, and values taken out of a frame as they stand, so that a number such as 1.10
 * arrives as it was sent. */
#ifndef CLIENT_JSON_TEXT_H
#define CLIENT_JSON_TEXT_H

#include "base/buffer.h"
#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Appends a string with its quotes; the text must be valid UTF-8. Failures show in out->failed. */
void json_write_string(struct buffer *out, const char *text, size_t len);

/* Appends `,"key":"text"`; nothing when text is NULL. */
void json_write_field(struct buffer *out, const char *key, const char *text);

/* Appends one JSON value on one line. False when `text` is none, or memory is short (out->failed). */
bool json_write_value(struct buffer *out, const char *text, size_t len);

/* In the text of a valid JSON object: the text of the value of its last member `key`, whose name is written without
 * escapes. False when there is none. */
bool json_find_member(struct slice object, const char *key, struct slice *value);

/* In the text of a valid JSON array: the text of the element at `*at`, which begins at 0 and moves behind it. False
 * after the last one. */
bool json_next_element(struct slice array, size_t *at, struct slice *value);

#endif
