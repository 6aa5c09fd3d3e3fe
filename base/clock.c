#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static const uint64_t *fake_us;

static uint64_t read_clock_us(clockid_t id)
{
    struct timespec now;

    if (fake_us)
        return *fake_us;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

void clock_set_fake(const uint64_t *us)
{
    fake_us = us;
}

uint64_t clock_monotonic_us(void)
{
    return read_clock_us(CLOCK_MONOTONIC);
}

uint64_t clock_monotonic_ms(void)
{
    return clock_monotonic_us() / 1000u;
}

uint64_t clock_wall_ms(void)
{
    return read_clock_us(CLOCK_REALTIME) / 1000u;
}

const char *clock_iso8601(uint64_t ms, char out[static CLOCK_ISO8601_SIZE])
{
    time_t seconds = (time_t)(ms / 1000u);
    struct tm tm;
    char date[sizeof("2026-01-31T23:59:59")];

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, CLOCK_ISO8601_SIZE, "%s.%03uZ", date, (unsigned)(ms % 1000u));
    return out;
}
