/* Replies of Redis, parsed by hiredis's reader into an arena instead of one allocation a value.
 *
 * A reply lives until the next redis_replies_next(). Bounds: REDIS_REPLY_ELEMENTS_MAX elements an array,
 * REDIS_REPLY_DEPTH_MAX levels, REDIS_REPLY_BYTES_MAX in all; what is larger is an error of the stream. */
#ifndef STORAGE_REDIS_REPLY_H
#define STORAGE_REDIS_REPLY_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REDIS_REPLY_ELEMENTS_MAX = 1 << 20, REDIS_REPLY_DEPTH_MAX = 7, REDIS_REPLY_BYTES_MAX = 768 << 20 };

enum redis_type {
    REDIS_TYPE_NIL,
    REDIS_TYPE_INTEGER, /* booleans too */
    REDIS_TYPE_STRING,  /* every kind of text, doubles and big numbers included */
    REDIS_TYPE_STATUS,
    REDIS_TYPE_ERROR,
    REDIS_TYPE_ARRAY, /* maps, sets and pushes too */
};

struct redis_reply {
    enum redis_type type;
    int64_t integer;                    /* INTEGER */
    struct slice text;                  /* STRING, STATUS, ERROR; a NUL follows it */
    size_t count;                       /* ARRAY */
    const struct redis_reply *elements; /* ARRAY */
};

/* Memory handed out in one direction and taken back at once. */
struct redis_arena {
    struct redis_arena_block *blocks; /* the newest first */
    size_t total;                     /* bytes handed out since the last reset */
};

void redis_arena_init(struct redis_arena *arena);
void redis_arena_close(struct redis_arena *arena);

/* Forgets everything handed out, keeps one block for next time. */
void redis_arena_reset(struct redis_arena *arena);

/* Aligned for any type; NULL when memory is short. */
void *redis_arena_alloc(struct redis_arena *arena, size_t size);

/* A copy of the bytes with a NUL behind; data is NULL when memory is short. */
struct slice redis_arena_copy(struct redis_arena *arena, struct slice bytes);

struct redis_replies; /* a stream of replies being parsed */

struct redis_replies *redis_replies_create(void); /* NULL when memory is short */
void redis_replies_destroy(struct redis_replies *replies);

/* Adds received bytes; false when memory is short. */
bool redis_replies_feed(struct redis_replies *replies, const char *bytes, size_t len);

/* The next whole reply, or NULL when more bytes are needed or, with *error set to a text that lives as long
 * as the stream, when the stream is broken. */
const struct redis_reply *redis_replies_next(struct redis_replies *replies, const char **error);

/* The element's text; empty when there is no such element or it is no text. */
struct slice redis_reply_text(const struct redis_reply *reply, size_t index);

/* The element's number; 0 when there is no such element or it is no number. */
int64_t redis_reply_integer(const struct redis_reply *reply, size_t index);

/* Whether the reply is an error whose text begins with `code` as a word. */
bool redis_reply_is_error(const struct redis_reply *reply, const char *code);

#endif
