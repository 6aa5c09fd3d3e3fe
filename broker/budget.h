/* The memory that clients make one broker hold, as one sum with one limit.
 *
 * Whoever keeps something for a client charges its bytes to a kind and releases them when it is gone: an addition each, no more.
 * What several clients share is charged once, by whom it is first kept for, and released with the last.
 *
 * Above the limit newcomers are to be refused (budget_is_over()), and holders are cut (budget_relieve()): first those that have
 * taken nothing for a while, of these the fattest first; then the fattest of the others; until a sixteenth of the limit is free
 * again, so that a look at all holders is paid for by much that was kept in between. */
#ifndef BROKER_BUDGET_H
#define BROKER_BUDGET_H

#include "base/list.h"
#include "broker/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(kind, name, help): each is shown as the gauge switchboard_memory_<name>_bytes. */
#define BUDGET_KINDS(X)                                                                                      \
    X(BUDGET_OUTBOX, "outbox", "Frames that wait for clients, each counted once for all who wait for it")    \
    X(BUDGET_UNSENT, "unsent", "What is being written to clients whose sockets are full")                    \
    X(BUDGET_ASSEMBLY, "assembly", "Messages of clients that are not complete yet")                          \
    X(BUDGET_HELD, "held", "Messages that wait for a registration or a recovery")                            \
    X(BUDGET_INPUT, "input", "Messages of clients that wait for their turn")                                 \
    X(BUDGET_INFLIGHT, "inflight", "Messages of clients that the storage has not answered yet")              \
    X(BUDGET_HANDSHAKE, "handshake", "Connections that have not finished their handshake")

enum budget_kind {
#define BUDGET_ENUM(kind, name, help) kind,
    BUDGET_KINDS(BUDGET_ENUM)
#undef BUDGET_ENUM
        BUDGET_KIND_COUNT
};

/* What an allocation costs beyond what was asked for. */
enum { BUDGET_OVERHEAD = 16 };

/* One whose memory can be had back by ending it. While it holds any it is in the budget's list. */
struct budget_holder {
    struct list link;
};

struct budget_ops {
    /* All that it holds, what it shares included. */
    size_t (*bytes)(const struct budget_holder *holder);

    /* For how long, in ms, its client has taken nothing of what waits; 0 when nothing does. */
    uint64_t (*still_ms)(struct budget_holder *holder);

    /* Ends it and releases what it holds; removes it from the list. May free it. */
    void (*cut)(struct budget_holder *holder);
};

struct budget {
    size_t bytes[BUDGET_KIND_COUNT];
    size_t limit;
    struct loop *loop;
    const struct budget_ops *ops;
    struct list holders;
    struct loop_task relief;
    uint64_t vain_ms; /* a relief that did not help: the next one not before; 0: none */
    uint64_t told_ms; /* when it was last said that the limit was reached; 0: never */
};

void budget_init(struct budget *budget, struct loop *loop, size_t limit);
void budget_close(struct budget *budget); /* the holders must be gone */

static inline void budget_charge(struct budget *budget, enum budget_kind kind, size_t bytes)
{
    budget->bytes[kind] += bytes;
}

static inline void budget_release(struct budget *budget, enum budget_kind kind, size_t bytes)
{
    budget->bytes[kind] -= bytes;
}

static inline size_t budget_used(const struct budget *budget)
{
    size_t used = 0;

    for (size_t i = 0; i < BUDGET_KIND_COUNT; i++)
        used += budget->bytes[i];
    return used;
}

/* Newcomers are to be refused. */
static inline bool budget_is_over(const struct budget *budget)
{
    return budget_used(budget) > budget->limit;
}

/* It may be cut from now on; no-op when that was said before. */
void budget_hold(struct budget *budget, struct budget_holder *holder);
void budget_let_go(struct budget_holder *holder); /* repeatable */

/* When over the limit: cuts holders until it isn't. Not from where a holder that may be cut is still being used. */
void budget_relieve(struct budget *budget);

/* The same at the end of this turn: for wherever memory was charged. */
void budget_check(struct budget *budget);

/* The name of a kind in the metrics, and what it counts. */
const char *budget_kind_name(enum budget_kind kind);
const char *budget_kind_help(enum budget_kind kind);

#endif
