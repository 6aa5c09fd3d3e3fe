#include "base/log.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>

/* What happens after each connect, in this order: load the scripts; the first time, see that the id is free
 * and remove what its former holder left; subscribe what is held; describe the instance, beat and probe once, and
 * exchange patterns with the other instances. When all that has come back the storage is up, and after an outage the broker is asked to register everything
 * again. Any failure on the way ends the attempt, and the topology connects again after a pause. */

void redis_setup_fail(struct redis_storage *storage, const char *step, const struct redis_reply *reply)
{
    char why[200];

    snprintf(why, sizeof why, "%s: %s", step, reply ? reply->text.data : "memory is short");
    redis_topology_drop(&storage->topology, why);
}

static void fail_on(struct redis_storage *storage, const char *step, int error)
{
    if (error == ERROR_NO_MEMORY)
        redis_setup_fail(storage, step, NULL);
}

/* ---- up ---- */

static void go_up(struct redis_storage *storage)
{
    bool again = storage->was_up;

    storage->setting_up = false;
    storage->was_up = true;
    redis_topology_serving(&storage->topology, storage->bus.channels.count);
    storage->storage.state = STORAGE_UP;
    redis_direct_allow(storage, ADDRESS_INSTANCE, slice_text(storage->instance.id), true);
    storage->events.on_state(storage->events.data, STORAGE_UP);
    if (!again || storage->storage.state != STORAGE_UP)
        return;
    storage->events.on_registry_lost(storage->events.data);
    /* What was unregistered meanwhile, and what an unanswered registration left. */
    if (storage->storage.state == STORAGE_UP)
        redis_reap_start(storage, slice_text(storage->instance.id), true, NULL);
}

static void check_up(struct redis_storage *storage)
{
    if (storage->setting_up && storage->setup_beaten && storage->setup_probed &&
        storage->setup_interested)
        go_up(storage);
}

void redis_setup_beaten(struct redis_storage *storage)
{
    storage->setup_beaten = true;
    check_up(storage);
}

void redis_setup_probed(struct redis_storage *storage)
{
    storage->setup_probed = true;
    check_up(storage);
}

void redis_setup_interested(struct redis_storage *storage)
{
    storage->setup_interested = true;
    check_up(storage);
}

/* The lease comes before the patterns are told: whoever doesn't hear of them, as it isn't subscribed yet, then finds this
 * instance among the others. On a cluster, where the two go to different nodes, the beat has to be answered first. */
void redis_setup_restored(struct redis_storage *storage)
{
    redis_registry_describe(storage);
    redis_lease_begin(storage);
    redis_interest_begin(storage);
}

/* ---- the id ---- */

static void on_leftovers_removed(struct redis_storage *storage, int error)
{
    if (error) {
        redis_topology_drop(&storage->topology, "what the id's former holder left can not be removed");
        return;
    }
    storage->claimed = true;
    redis_bus_restore(storage);
}

static void remove_leftovers(struct redis_storage *storage)
{
    redis_reap_start(storage, slice_text(storage->instance.id), true, on_leftovers_removed);
}

static void id_in_use(struct redis_storage *storage, int64_t left_ms)
{
    uint32_t pause_ms = storage->instance.heartbeat_ms;

    if (!storage->id_in_use_logged)
        log_error("the instance id is in use", log_str("id", storage->instance.id),
                  log_int("lease_ms", left_ms),
                  log_str("action", "trying again; give every instance an id of its own"));
    storage->id_in_use_logged = true;
    if (left_ms > 0 && left_ms < pause_ms)
        pause_ms = (uint32_t)left_ms;
    redis_topology_pause(&storage->topology, pause_ms);
}

static void on_leases(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;

    if (error) {
        if (reply)
            redis_setup_fail(storage, "reading leases", reply);
        return;
    }
    int64_t left_ms = -1;
    for (size_t i = 0; i + 1 < reply->count; i += 2)
        if (slice_is(redis_reply_text(reply, i), storage->instance.id))
            left_ms = redis_reply_integer(reply, i + 1);
    /* Somebody listens and the lease runs: the holder lives. A connection that Redis still believes in long
     * after its process was cut off has no lease any more. */
    if (storage->id_listeners && left_ms >= 0)
        id_in_use(storage, left_ms);
    else
        remove_leftovers(storage);
}

static void on_knocked(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;

    if (!error)
        storage->id_listeners = reply->integer;
    else if (reply)
        redis_setup_fail(storage, "PUBLISH", reply);
}

/* Publishes a probe before anything of this process is subscribed: who receives it is another holder. */
static void knock(struct redis_storage *storage)
{
    struct buffer envelope;
    struct redis_key channel, instances;
    char lease[16];
    int error = ERROR_NO_MEMORY;

    buffer_init(&envelope, 0);
    redis_key_instances(storage, &instances);
    redis_key_address(storage, &channel, ADDRESS_INSTANCE, slice_text(storage->instance.id));
    snprintf(lease, sizeof lease, "%" PRIu32, storage->instance.lease_ms);
    const struct slice arg = slice_text(lease);
    if (redis_probe_encode(storage, "", &envelope)) {
        const struct slice args[] = {slice_text("PUBLISH"), redis_key_slice(&channel),
                                     slice_from(envelope.data, envelope.len)};
        error = redis_conn_command(redis_topology_pick(&storage->topology, args[1]), args, 3, on_knocked,
                                   storage);
    }
    if (!error)
        error = redis_script_call(&storage->scripts, REDIS_SCRIPT_LEASE, redis_key_slice(&instances), &arg, 1,
                                  on_leases, storage);
    fail_on(storage, "claiming the id", error);
    buffer_close(&envelope);
}

/* ---- connected ---- */

static void on_scripts_loaded(void *data, int error, const struct redis_reply *reply)
{
    struct redis_storage *storage = data;

    if (error)
        redis_setup_fail(storage, "SCRIPT LOAD", reply);
    else if (storage->claimed)
        redis_bus_restore(storage);
    else
        knock(storage);
}

void redis_setup_on_ready(void *data)
{
    struct redis_storage *storage = data;

    storage->setting_up = true;
    storage->setup_beaten = storage->setup_probed = storage->setup_interested = false;
    fail_on(storage, "SCRIPT LOAD", redis_scripts_load(&storage->scripts, on_scripts_loaded, storage));
}

void redis_setup_on_down(void *data)
{
    struct redis_storage *storage = data;
    bool was_up = storage->storage.state == STORAGE_UP;
    int error = storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE;

    storage->setting_up = false;
    storage->registry.count_known = false;
    storage->storage.state = STORAGE_DOWN;
    redis_lease_on_down(storage);
    redis_bus_on_down(storage);
    redis_interest_on_down(storage, error);
    if (was_up && !storage->destroyed)
        storage->events.on_state(storage->events.data, STORAGE_DOWN);
    redis_probe_on_down(storage, error);
    redis_scripts_drop(&storage->scripts, error);
}
