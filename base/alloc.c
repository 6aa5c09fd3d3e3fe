#include "base/alloc.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *libc_resize(void *data, void *ptr, size_t size)
{
    (void)data;
    return realloc(ptr, size);
}

static void libc_release(void *data, void *ptr)
{
    (void)data;
    free(ptr);
}

static const struct mem_hook libc_hook = {.resize = libc_resize, .release = libc_release};
static struct mem_hook hook = {.resize = libc_resize, .release = libc_release};

void mem_set_hook(const struct mem_hook *replacement)
{
    hook = replacement ? *replacement : libc_hook;
}

void *mem_alloc(size_t size)
{
    return hook.resize(hook.data, NULL, size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    void *ptr = mem_alloc(count * size);
    if (ptr)
        memset(ptr, 0, count * size);
    return ptr;
}

void *mem_realloc(void *ptr, size_t size)
{
    return hook.resize(hook.data, ptr, size ? size : 1);
}

void *mem_dup(const void *data, size_t size)
{
    void *ptr = mem_alloc(size);
    if (ptr && size)
        memcpy(ptr, data, size);
    return ptr;
}

char *mem_strndup(const char *text, size_t len)
{
    char *copy = mem_alloc(len + 1);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *mem_strdup(const char *text)
{
    return text ? mem_strndup(text, strlen(text)) : NULL;
}

void mem_free(void *ptr)
{
    if (ptr)
        hook.release(hook.data, ptr);
}

void mem_trim(void)
{
    malloc_trim(0);
}
