#include "broker/outbox.h"

#include "base/alloc.h"
#include "broker/budget.h"
#include "proto/frame.h"

#include <string.h>

/* A ring that grew beyond this is given back when it runs empty, so a burst leaves no memory behind. */
enum { FIRST_CAPACITY = 4, KEPT_CAPACITY = 16 };

void outbox_init(struct outbox *outbox, struct budget *budget)
{
    *outbox = (struct outbox){.budget = budget};
}

static size_t frame_memory(const struct frame *frame)
{
    return sizeof *frame + frame->len + BUDGET_OVERHEAD;
}

static void free_ring(struct outbox *outbox)
{
    budget_release(outbox->budget, BUDGET_OUTBOX, outbox->capacity * sizeof(struct frame *));
    mem_free(outbox->ring);
    outbox_init(outbox, outbox->budget);
}

void outbox_close(struct outbox *outbox)
{
    outbox_pop(outbox, outbox->count);
    free_ring(outbox);
}

static bool grow(struct outbox *outbox)
{
    uint32_t capacity = outbox->capacity ? outbox->capacity * 2 : FIRST_CAPACITY;
    struct frame **ring = mem_alloc(capacity * sizeof(struct frame *));

    if (!ring)
        return false;
    for (uint32_t i = 0; i < outbox->count; i++)
        ring[i] = outbox->ring[(outbox->head + i) & (outbox->capacity - 1)];
    mem_free(outbox->ring);
    budget_charge(outbox->budget, BUDGET_OUTBOX, (capacity - outbox->capacity) * sizeof(struct frame *));
    outbox->ring = ring;
    outbox->capacity = capacity;
    outbox->head = 0;
    return true;
}

bool outbox_push(struct outbox *outbox, struct frame *frame, size_t limit)
{
    if (outbox->count && (frame->len > limit || outbox->bytes > limit - frame->len))
        return false;
    if (outbox->count == outbox->capacity && !grow(outbox))
        return false;
    outbox->ring[(outbox->head + outbox->count) & (outbox->capacity - 1)] = frame_ref(frame);
    outbox->count++;
    outbox->bytes += frame->len;
    if (!frame->queued++)
        budget_charge(outbox->budget, BUDGET_OUTBOX, frame_memory(frame));
    return true;
}

struct frame *outbox_front(const struct outbox *outbox)
{
    return outbox->count ? outbox->ring[outbox->head] : NULL;
}

void outbox_pop(struct outbox *outbox, uint32_t count)
{
    while (count-- && outbox->count) {
        struct frame *frame = outbox->ring[outbox->head];
        outbox->head = (outbox->head + 1) & (outbox->capacity - 1);
        outbox->count--;
        outbox->bytes -= frame->len;
        if (!--frame->queued)
            budget_release(outbox->budget, BUDGET_OUTBOX, frame_memory(frame));
        frame_unref(frame);
    }
    if (!outbox->count && outbox->capacity > KEPT_CAPACITY)
        free_ring(outbox);
}

size_t outbox_gather(const struct outbox *outbox, unsigned char *scratch, size_t scratch_size,
                     const unsigned char **data, uint32_t *frames)
{
    struct frame *first = outbox_front(outbox);
    size_t len = 0;

    *frames = 0;
    if (!first)
        return 0;
    if (outbox->count == 1 || first->len >= scratch_size / 2) {
        *data = first->bytes;
        *frames = 1;
        return first->len;
    }
    *data = scratch;
    while (*frames < outbox->count) {
        const struct frame *frame = outbox->ring[(outbox->head + *frames) & (outbox->capacity - 1)];
        if (frame->len > scratch_size - len)
            break;
        memcpy(scratch + len, frame->bytes, frame->len);
        len += frame->len;
        ++*frames;
    }
    return len;
}
