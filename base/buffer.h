/* A growable byte buffer with a ceiling.
 *
 * A failed append (memory short, or past the ceiling) leaves the buffer as it was and is remembered in
 * `failed`, so a series of appends can be checked once at its end. */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
    char *data; /* owned; NULL while nothing was appended */
    size_t len, capacity;
    size_t limit; /* the most `len` may reach; 0: no ceiling */
    bool failed;  /* an append did not fit; cleared by buffer_clear() */
};

void buffer_init(struct buffer *buffer, size_t limit);
void buffer_close(struct buffer *buffer);                  /* releases the memory; may be used again */
void buffer_clear(struct buffer *buffer);                  /* forgets the contents, keeps the memory */
void buffer_recycle(struct buffer *buffer, size_t keep); /* forgets them, and memory of more than `keep` bytes */
void buffer_drop_front(struct buffer *buffer, size_t len); /* removes the first `len` bytes */
bool buffer_reserve(struct buffer *buffer, size_t more);   /* room for `more` further bytes */
bool buffer_append(struct buffer *buffer, const void *data, size_t len);
bool buffer_append_text(struct buffer *buffer, const char *text); /* without its NUL */
bool buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The contents as a NUL-terminated string, owned by the buffer; NULL when memory is short. */
const char *buffer_text(struct buffer *buffer);

#endif
