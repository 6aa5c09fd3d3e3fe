/* Counts of times in buckets that grow with the value: every percentile is right within 0.8 %, at any scale. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <jansson.h>
#include <stdint.h>

enum { HISTOGRAM_STEPS = 128, HISTOGRAM_BUCKETS = 58 * HISTOGRAM_STEPS };

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, max, sum; /* nanoseconds, but for total */
};

void histogram_add(struct histogram *histogram, uint64_t ns);
uint64_t histogram_percentile(const struct histogram *histogram, double percent); /* nanoseconds */

/* {"count", "mean", "p50", "p90", "p99", "p999", "max"} in microseconds; null without a value. The caller owns it. */
json_t *histogram_json(const struct histogram *histogram);

#endif
