/* Time, replaceable by a fake clock in tests.
 *
 * Monotonic time is for intervals and deadlines, wall time for what people and other machines read. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define CLOCK_ISO8601_SIZE sizeof("2026-01-31T23:59:59.999Z")

uint64_t clock_monotonic_us(void);
uint64_t clock_monotonic_ms(void);
uint64_t clock_wall_ms(void); /* milliseconds since 1970-01-01 UTC */

/* Writes wall time `ms` as ISO 8601 in UTC with milliseconds; returns `out`. */
const char *clock_iso8601(uint64_t ms, char out[static CLOCK_ISO8601_SIZE]);

/* From now on all of the above read `*us` (monotonic) and `*us / 1000` (wall); NULL returns to the real
 * clock. */
void clock_set_fake(const uint64_t *us);

#endif
