/* What waits to be written to one client: a bounded queue of references to shared frames.
 *
 * The budget is charged with the memory that this takes: with a frame when the first outbox takes it, however many follow, and
 * with the ring. */
#ifndef BROKER_OUTBOX_H
#define BROKER_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget;
struct frame;

struct outbox {
    struct frame **ring; /* owned; NULL while nothing ever waited, or again when it ran empty after a burst */
    uint32_t capacity;   /* a power of two */
    uint32_t head, count;
    size_t bytes; /* of all frames waiting */
    struct budget *budget;
};

void outbox_init(struct outbox *outbox, struct budget *budget); /* which must outlive it */
void outbox_close(struct outbox *outbox); /* drops everything and frees the ring; may be used again */

/* Queues a reference of its own to `frame`. False when that would exceed `limit` bytes or memory is short;
 * nothing was changed then. A frame that finds the outbox empty is taken whatever its size. */
bool outbox_push(struct outbox *outbox, struct frame *frame, size_t limit)
    __attribute__((warn_unused_result));

/* The oldest frame, or NULL. Borrowed until outbox_pop(). */
struct frame *outbox_front(const struct outbox *outbox);

/* Drops the oldest `count` frames (at most as many as there are). */
void outbox_pop(struct outbox *outbox, uint32_t count);

/* Gathers whole frames for one send: either the first frame itself, when it alone is large (no copy), or as
 * many as fit, copied into `scratch`. `*frames` says how many frames `*data` holds: pop them after writing.
 * Length 0 when empty. */
size_t outbox_gather(const struct outbox *outbox, unsigned char *scratch, size_t scratch_size,
                     const unsigned char **data, uint32_t *frames);

#endif
