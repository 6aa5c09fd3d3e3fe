#include "bench/histogram.h"

/* Values below 2 * STEPS have a bucket each; from there every power of two is cut into STEPS. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < 2 * HISTOGRAM_STEPS) {
        return (unsigned)ns;
    }
    unsigned shift = (unsigned)(63 - __builtin_clzll(ns)) - 7;
    unsigned bucket = shift * HISTOGRAM_STEPS + (unsigned)(ns >> shift);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static uint64_t bucket_middle(unsigned bucket)
{
    if (bucket < 2 * HISTOGRAM_STEPS) {
        return bucket;
    }
    unsigned shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t low = (uint64_t)(bucket - shift * HISTOGRAM_STEPS) << shift;
    return low + ((uint64_t)1 << shift) / 2;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
    histogram->counts[bucket_of(ns)]++;
    histogram->total++;
    histogram->sum += ns;
    if (ns > histogram->max) {
        histogram->max = ns;
    }
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    double wanted = (double)histogram->total * percent / 100.0;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > 0 && (double)seen >= wanted) {
            uint64_t middle = bucket_middle(i);
            return middle < histogram->max ? middle : histogram->max;
        }
    }
    return histogram->max;
}

json_t *histogram_json(const struct histogram *histogram)
{
    if (histogram->total == 0) {
        return json_null();
    }
    double mean = (double)histogram->sum / (double)histogram->total / 1e3;
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)histogram->total, "mean",
                     mean, "p50", (double)histogram_percentile(histogram, 50) / 1e3, "p90",
                     (double)histogram_percentile(histogram, 90) / 1e3, "p99",
                     (double)histogram_percentile(histogram, 99) / 1e3, "p999",
                     (double)histogram_percentile(histogram, 99.9) / 1e3, "max",
                     (double)histogram->max / 1e3);
}
