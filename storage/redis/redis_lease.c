#include "base/clock.h"
#include "base/log.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <event2/event.h>
#include <event2/util.h>
#include <inttypes.h>
#include <stdio.h>

/* The heartbeat is a script on one key, whatever the number of sessions. A timer of its own looks again at
 * the moment when another instance's lease runs out, so that its sessions don't wait for the next heartbeat.
 */
enum {
    EXPIRED_MAX = 16,
    CHECK_MARGIN_MS = 5,
    REFUSED = 3,
    FIXED = 4 /* elements of the reply before the ids */
};

static void arm(struct event *timer, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};

    event_add(timer, &tv);
}

/* Up to a tenth early, so that instances started together drift apart. */
static uint64_t next_beat_ms(const struct redis_storage *storage)
{
    uint64_t ms = storage->instance.heartbeat_ms;
    uint16_t chance;

    evutil_secure_rng_get_bytes(&chance, sizeof chance);
    return ms - ms / 10 * chance / UINT16_MAX;
}

static void look_for_the_dead(struct redis_storage *storage, const struct redis_reply *reply)
{
    struct redis_lease *lease = &storage->lease;
    uint64_t now = clock_monotonic_ms();
    int64_t wait = redis_reply_integer(reply, 2);

    /* Whoever was cut off together with this instance gets a lease's time to come back. */
    if (redis_reply_integer(reply, 1))
        lease->quiet_until_ms = now + storage->instance.lease_ms;
    if (now < lease->quiet_until_ms) {
        arm(lease->check, lease->quiet_until_ms - now + CHECK_MARGIN_MS);
        return;
    }
    for (size_t i = FIXED; i < reply->count; i++)
        redis_reap_claim(storage, redis_reply_text(reply, i));
    if (wait >= 0 && (uint64_t)wait < storage->instance.heartbeat_ms)
        arm(lease->check, (uint64_t)wait + CHECK_MARGIN_MS);
}

/* A heartbeat writes; so it tells whether writes are taken. */
static void note_refusal(struct redis_storage *storage, struct slice why)
{
    char *refused = storage->lease.refused;
    size_t len = why.len < sizeof storage->lease.refused ? why.len : sizeof storage->lease.refused - 1;
    bool before = refused[0];

    if (len)
        memcpy(refused, why.data, len);
    refused[len] = '\0';
    if (len && !before)
        log_error("redis refuses writes", log_str("reason", refused),
                  log_str("action", "not ready until it takes them again"));
    else if (!len && before)
        log_info("redis takes writes again");
}

static void on_beaten(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;
    bool was_up = storage->storage.state == STORAGE_UP;

    storage->lease.in_flight = false;
    if (error) {
        if (reply && was_up)
            note_refusal(storage, reply->text);
        if (reply && !was_up)
            redis_setup_fail(storage, "heartbeat", reply);
        else
            redis_probe_beaten(storage);
        return;
    }
    if (!storage->lease.beating)
        return;
    note_refusal(storage, redis_reply_text(reply, REFUSED));
    redis_probe_beaten(storage);
    bool lost = redis_reply_integer(reply, 0) == 1;
    if (lost && was_up) {
        log_warn("registry lost this instance", log_str("action", "registering its sessions again"));
        redis_registry_describe(storage);
        redis_pattern_announce_all(storage);
    }
    look_for_the_dead(storage, reply);
    if (was_up)
        redis_topology_stable(&storage->topology);
    else
        redis_setup_beaten(storage);
    if (lost && was_up)
        storage->events.on_registry_lost(storage->events.data);
}

bool redis_lease_lapsed(const struct redis_storage *storage)
{
    const struct redis_lease *lease = &storage->lease;

    return lease->proof || clock_monotonic_ms() - lease->beat_ms > storage->instance.lease_ms;
}

void redis_lease_proved(struct redis_storage *storage, uint64_t sequence)
{
    struct redis_lease *lease = &storage->lease;

    if (lease->proof && sequence >= lease->proof)
        lease->proof = 0;
    else if (lease->proof)
        redis_probe_send(storage); /* that one was under way before */
}

void redis_lease_beat(struct redis_storage *storage)
{
    char lease[16], max[8];
    struct redis_key key;

    if (storage->lease.in_flight)
        return;
    redis_key_instances(storage, &key);
    snprintf(lease, sizeof lease, "%" PRIu32, storage->instance.lease_ms);
    snprintf(max, sizeof max, "%d", EXPIRED_MAX);
    const struct slice args[] = {slice_text(storage->instance.id), slice_text(lease), slice_text(max)};
    int error = redis_script_call(&storage->scripts, REDIS_SCRIPT_HEARTBEAT, redis_key_slice(&key), args, 3,
                                  on_beaten, storage);
    storage->lease.in_flight = !error;
    if (error)
        return;
    uint64_t now = clock_monotonic_ms();
    if (storage->storage.state == STORAGE_UP && now - storage->lease.beat_ms > storage->instance.lease_ms)
        storage->lease.proof = storage->probe.sequence + 1;
    storage->lease.beat_ms = now;
}

static void on_beat(evutil_socket_t fd, short what, void *data)
{
    struct redis_storage *storage = data;

    (void)fd, (void)what;
    redis_lease_beat(storage);
    redis_registry_refresh(storage);
    redis_probe_send(storage);
    redis_pattern_on_beat(storage);
    arm(storage->lease.beat, next_beat_ms(storage));
}

static void on_check(evutil_socket_t fd, short what, void *data)
{
    (void)fd, (void)what;
    redis_lease_beat(data);
}

bool redis_lease_init(struct redis_storage *storage)
{
    storage->lease.beat = evtimer_new(storage->loop, on_beat, storage);
    storage->lease.check = evtimer_new(storage->loop, on_check, storage);
    return storage->lease.beat && storage->lease.check;
}

void redis_lease_close(struct redis_storage *storage)
{
    if (storage->lease.beat)
        event_free(storage->lease.beat);
    if (storage->lease.check)
        event_free(storage->lease.check);
}

void redis_lease_begin(struct redis_storage *storage)
{
    storage->lease.beating = true;
    redis_lease_beat(storage);
    redis_probe_send(storage);
    arm(storage->lease.beat, next_beat_ms(storage));
}

void redis_lease_on_down(struct redis_storage *storage)
{
    storage->lease.beating = storage->lease.in_flight = false;
    storage->lease.proof = 0;
    event_del(storage->lease.beat);
    event_del(storage->lease.check);
}
