#include "storage/redis/redis_errors.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/errors.h"

enum { LOG_INTERVAL_MS = 1000 };

static bool is_any(const struct redis_reply *reply, const char *const *codes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (redis_reply_is_error(reply, codes[i]))
            return true;
    return false;
}

bool redis_error_ends(const struct redis_reply *reply)
{
    static const char *const codes[] = {"LOADING", "READONLY", "MASTERDOWN", "NOAUTH"};

    return is_any(reply, codes, sizeof codes / sizeof *codes);
}

static void report(const struct redis_reply *reply)
{
    static uint64_t next_ms;
    static int64_t suppressed;
    uint64_t now = clock_monotonic_ms();

    if (now < next_ms) {
        suppressed++;
        return;
    }
    log_warn("redis refused a command", log_bytes("error", reply->text.data, reply->text.len),
             log_int("suppressed", suppressed));
    next_ms = now + LOG_INTERVAL_MS;
    suppressed = 0;
}

int redis_error_map(const struct redis_reply *reply)
{
    static const char *const passing[] = {"OOM", "MISCONF", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS"};

    if (!redis_reply_is_error(reply, "NOSCRIPT"))
        report(reply);
    return redis_error_ends(reply) || is_any(reply, passing, sizeof passing / sizeof *passing)
               ? ERROR_UNAVAILABLE
               : ERROR_INTERNAL;
}
