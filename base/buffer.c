#include "base/buffer.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_CAPACITY = 256 };

void buffer_init(struct buffer *buffer, size_t limit)
{
    *buffer = (struct buffer){.limit = limit};
}

void buffer_close(struct buffer *buffer)
{
    mem_free(buffer->data);
    buffer_init(buffer, buffer->limit);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->len = 0;
    buffer->failed = false;
}

void buffer_recycle(struct buffer *buffer, size_t keep)
{
    if (buffer->capacity > keep)
        buffer_close(buffer);
    else
        buffer_clear(buffer);
}

void buffer_drop_front(struct buffer *buffer, size_t len)
{
    buffer->len -= len;
    if (buffer->len)
        memmove(buffer->data, buffer->data + len, buffer->len);
}

bool buffer_reserve(struct buffer *buffer, size_t more)
{
    size_t ceiling = buffer->limit ? buffer->limit : SIZE_MAX / 2;

    if (more > ceiling || buffer->len > ceiling - more) {
        buffer->failed = true;
        return false;
    }
    size_t needed = buffer->len + more;
    if (needed <= buffer->capacity)
        return true;
    size_t capacity = buffer->capacity ? buffer->capacity : FIRST_CAPACITY;
    while (capacity < needed)
        capacity *= 2;
    char *data = mem_realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool buffer_append(struct buffer *buffer, const void *data, size_t len)
{
    if (!len)
        return true;
    if (!buffer_reserve(buffer, len))
        return false;
    memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
    return true;
}

bool buffer_append_text(struct buffer *buffer, const char *text)
{
    return buffer_append(buffer, text, strlen(text));
}

bool buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0 || !buffer_reserve(buffer, (size_t)len))
        return false;
    /* vsnprintf wants room for a NUL that is not part of the contents, and that the ceiling must not count.
     */
    char *text = mem_alloc((size_t)len + 1);
    if (!text) {
        buffer->failed = true;
        return false;
    }
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
    bool done = buffer_append(buffer, text, (size_t)len);
    mem_free(text);
    return done;
}

const char *buffer_text(struct buffer *buffer)
{
    if (buffer->len == buffer->capacity) {
        char *data = mem_realloc(buffer->data, buffer->capacity + 1);
        if (!data)
            return NULL;
        buffer->data = data;
        buffer->capacity++;
    }
    buffer->data[buffer->len] = '\0';
    return buffer->data;
}
