#include "broker/budget.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

enum {
    STILL_MS = 1000,   /* one that has taken nothing for so long is cut before any other */
    VAIN_MS = 100,     /* between two looks at all holders that free too little */
    TELL_MS = 60000,   /* between two log lines */
    LOW_SHARE = 16,    /* the part of the limit that a relief makes free */
};

static const struct {
    const char *name, *help;
} kinds[] = {
#define BUDGET_ROW(kind, name, help) {name, help},
    BUDGET_KINDS(BUDGET_ROW)
#undef BUDGET_ROW
};

const char *budget_kind_name(enum budget_kind kind)
{
    return kinds[kind].name;
}

const char *budget_kind_help(enum budget_kind kind)
{
    return kinds[kind].help;
}

static void on_relief(struct loop_task *task)
{
    budget_relieve(container_of(task, struct budget, relief));
}

void budget_init(struct budget *budget, struct loop *loop, size_t limit)
{
    *budget = (struct budget){.limit = limit, .loop = loop};
    list_init(&budget->holders);
    loop_task_init(&budget->relief, on_relief);
}

void budget_close(struct budget *budget)
{
    loop_cancel(&budget->relief);
}

void budget_hold(struct budget *budget, struct budget_holder *holder)
{
    if (list_empty(&holder->link))
        list_append(&budget->holders, &holder->link);
}

void budget_let_go(struct budget_holder *holder)
{
    list_remove(&holder->link);
}

void budget_check(struct budget *budget)
{
    if (budget_is_over(budget))
        loop_defer(budget->loop, &budget->relief);
}

/* ---- relief ---- */

struct candidate {
    struct budget_holder *holder;
    size_t bytes;
    bool still;
};

/* Who is cut first comes first. */
static int compare(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;

    if (a->still != b->still)
        return a->still ? -1 : 1;
    return a->bytes > b->bytes ? -1 : a->bytes < b->bytes;
}

/* Sorts the list of holders by who is to be cut first. Without memory for that the order is that in which they came. */
static void sort(struct budget *budget)
{
    struct candidate *candidates;
    size_t count = 0, i = 0;

    list_for_each (link, &budget->holders)
        count++;
    candidates = count ? mem_alloc(count * sizeof *candidates) : NULL;
    if (!candidates)
        return;
    list_for_each (link, &budget->holders) {
        struct budget_holder *holder = container_of(link, struct budget_holder, link);
        candidates[i++] = (struct candidate){.holder = holder,
                                             .bytes = budget->ops->bytes(holder),
                                             .still = budget->ops->still_ms(holder) >= STILL_MS};
    }
    qsort(candidates, count, sizeof *candidates, compare);
    for (i = 0; i < count; i++) {
        list_remove(&candidates[i].holder->link);
        list_append(&budget->holders, &candidates[i].holder->link);
    }
    mem_free(candidates);
}

static void tell(struct budget *budget, uint64_t now, size_t used, size_t cut)
{
    if (budget->told_ms && now - budget->told_ms < TELL_MS)
        return;
    budget->told_ms = now;
    log_warn("memory budget reached", log_int("used_bytes", (int64_t)used),
             log_int("memory_budget", (int64_t)budget->limit), log_int("cut", (int64_t)cut),
             log_int("left_bytes", (int64_t)budget_used(budget)));
}

void budget_relieve(struct budget *budget)
{
    size_t used = budget_used(budget), low = budget->limit - budget->limit / LOW_SHARE, cut = 0;

    if (used <= budget->limit)
        return;
    uint64_t now = clock_monotonic_ms();
    if (now < budget->vain_ms)
        return;
    /* A cut may end others as well, so nothing but the list's head is trusted. */
    sort(budget);
    for (; budget_used(budget) > low && !list_empty(&budget->holders); cut++)
        budget->ops->cut(container_of(budget->holders.next, struct budget_holder, link));
    budget->vain_ms = budget_is_over(budget) ? now + VAIN_MS : 0;
    tell(budget, now, used, cut);
}
