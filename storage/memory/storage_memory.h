/* Storage within one process: the embedded default, with the promises of storage.h and no Redis. */
#ifndef STORAGE_MEMORY_H
#define STORAGE_MEMORY_H

struct event_base;
struct storage;

/* NULL when memory is short. `base` must outlive it. */
struct storage *storage_memory_create(struct event_base *base);

#endif
