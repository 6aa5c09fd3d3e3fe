/* Allocation behind one replaceable hook, so that tests can make the n-th allocation fail and count leaks.
 *
 * Every function returns NULL when memory is short; the caller refuses the one request it was serving.
 * Memory from here is released with mem_free() only. */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>

struct mem_hook {
    void *(*resize)(void *data, void *ptr, size_t size); /* ptr NULL: a new block */
    void (*release)(void *data, void *ptr);              /* ptr is never NULL */
    void *data;
};

/* Replaces the allocator for all later calls. Blocks must be freed by the hook that made them, so switch only
 * while none is live. NULL restores malloc. */
void mem_set_hook(const struct mem_hook *hook);

void *mem_alloc(size_t size);                /* contents undefined; size 0 is treated as 1 */
void *mem_calloc(size_t count, size_t size); /* zeroed; NULL on overflow too */
void *mem_realloc(void *ptr, size_t size);   /* on failure the old block stays */
void *mem_dup(const void *data, size_t size);
char *mem_strdup(const char *text);              /* NULL in, NULL out */
char *mem_strndup(const char *text, size_t len); /* len bytes exactly, then a NUL */
void mem_free(void *ptr);                        /* NULL is allowed */
void mem_trim(void); /* gives what is free back to the system: for after much was freed, since it may take milliseconds */

#endif
