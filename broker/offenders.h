/* Log lines about clients that misbehave: one a minute for each, so that a client that is cut off again and again doesn't fill
 * the log. What is left out is counted, and the count goes with the next line.
 *
 * Those of a minute are remembered in a table of fixed size. When it is full, all others share one line a minute. */
#ifndef BROKER_OFFENDERS_H
#define BROKER_OFFENDERS_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OFFENDERS_MAX = 256, OFFENDERS_WINDOW_MS = 60000 };

struct offender {
    uint64_t key;      /* 0: free */
    uint64_t until_ms; /* nothing more is logged before; monotonic */
    uint64_t left_out;
};

struct offenders {
    struct offender table[OFFENDERS_MAX + 1]; /* the last one stands for those that found no place */
};

/* Whether a line about this one, known by its name and where it comes from, may be logged now. `*left_out`: how many were not
 * since the last. */
bool offenders_may_log(struct offenders *offenders, struct slice name, struct slice from, uint64_t now_ms,
                       uint64_t *left_out);

#endif
