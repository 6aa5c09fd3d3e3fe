#include "base/clock.h"
#include "base/log.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "storage/redis/redis_storage.h"

#include <event2/event.h>
#include <event2/util.h>
#include <inttypes.h>
#include <stdio.h>

static void arm(struct redis_storage *storage)
{
    uint32_t ms = storage->instance.heartbeat_ms;

    if (ms < storage->timeout_ms)
        ms = storage->timeout_ms;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    storage->probe.received = storage->topology.subscriptions.received;
    event_add(storage->probe.deadline, &tv);
}

static void finish(struct list *requests, int error)
{
    struct list ready, *node;

    list_init(&ready);
    list_splice(&ready, requests);
    while ((node = list_pop(&ready)))
        redis_done(container_of(node, struct storage_request, link), error, NULL);
}

/* Both the bus and the heartbeat have answered what was sent for these requests. */
static void answer(struct redis_storage *storage)
{
    struct redis_probe *probe = &storage->probe;
    struct list ready, *node;

    list_init(&ready);
    list_splice(&ready, &probe->sent);
    while ((node = list_pop(&ready)))
        redis_done_why(container_of(node, struct storage_request, link),
                       storage->lease.refused[0] ? ERROR_UNAVAILABLE : ERROR_NONE,
                       slice_text(storage->lease.refused));
    if (!list_empty(&probe->next))
        redis_probe_send(storage);
}

void redis_probe_beaten(struct redis_storage *storage)
{
    if (!storage->probe.in_flight)
        answer(storage);
}

bool redis_probe_encode(struct redis_storage *storage, const char *correlation, struct buffer *out)
{
    const struct message_fields fields = {.kind = MESSAGE_PROBE,
                                          .time_ms = clock_wall_ms(),
                                          .to = slice_from(storage->own_channel, storage->own_channel_len),
                                          .correlation = slice_text(correlation)};

    return envelope_encode(&fields, out);
}

static void correlation_text(const struct redis_probe *probe, char out[static 48])
{
    snprintf(out, 48, "%s-%" PRIu64, probe->nonce, probe->sequence);
}

static void on_published(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;

    if (!error && reply->integer == 0)
        redis_topology_drop(&storage->topology, "a probe reached nobody: the subscription is gone");
    else if (error && reply)
        redis_setup_fail(storage, "PUBLISH", reply);
}

void redis_probe_send(struct redis_storage *storage)
{
    struct redis_probe *probe = &storage->probe;
    struct buffer envelope;
    struct redis_key key;
    char correlation[48];
    struct slice channel = slice_from(storage->own_channel, storage->own_channel_len);

    /* Those whose probe came back still wait for the heartbeat's answer; a lease's proof waits for nobody. */
    if (probe->in_flight || (!list_empty(&probe->sent) && !storage->lease.proof))
        return;
    probe->sequence++;
    correlation_text(probe, correlation);
    buffer_init(&envelope, 0);
    if (redis_probe_encode(storage, correlation, &envelope) && redis_key_channel(storage, &key, channel)) {
        const struct slice args[] = {slice_text("PUBLISH"), redis_key_slice(&key),
                                     slice_from(envelope.data, envelope.len)};
        if (redis_conn_command(redis_topology_pick(&storage->topology, args[1]), args, 3, on_published,
                               storage) == 0) {
            probe->in_flight = true;
            if (!list_empty(&probe->next))
                redis_lease_beat(storage);
            list_splice(&probe->sent, &probe->next);
            arm(storage);
        }
    }
    buffer_close(&envelope);
}

bool redis_probe_take(struct redis_storage *storage, struct slice bytes)
{
    struct redis_probe *probe = &storage->probe;
    struct message_fields fields;
    char correlation[48];

    if (envelope_decode(bytes, &fields) != NULL || fields.kind != MESSAGE_PROBE)
        return false;
    correlation_text(probe, correlation);
    if (!probe->in_flight || !slice_is(fields.correlation, correlation))
        return true;
    probe->in_flight = false;
    event_del(probe->deadline);
    redis_setup_probed(storage);
    uint64_t sequence = probe->sequence;
    if (!storage->lease.in_flight)
        answer(storage);
    redis_lease_proved(storage, sequence);
    return true;
}

void redis_probe_request(struct storage *base, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct redis_probe *probe = &storage->probe;

    if (base->state != STORAGE_UP) {
        redis_later(storage, request, storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE);
        return;
    }
    list_append(&probe->next, &request->link);
    redis_probe_send(storage);
    if (!probe->in_flight && list_empty(&probe->sent)) {
        list_remove(&request->link);
        redis_later(storage, request, ERROR_NO_MEMORY);
    }
}

/* Silence is an outage; a bus that delivers other messages is only behind. */
static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    struct redis_storage *storage = data;
    struct redis_probe *probe = &storage->probe;

    (void)fd, (void)what;
    redis_conn_poll(&storage->topology.subscriptions);
    if (!probe->in_flight)
        return;
    if (storage->topology.subscriptions.received != probe->received) {
        log_warn("redis bus is behind", log_str("server", storage->topology.server_text));
        arm(storage);
        return;
    }
    redis_probe_on_down(storage, ERROR_TIMEOUT);
    redis_topology_drop(&storage->topology, "a probe sent over the bus did not come back");
}

void redis_probe_on_down(struct redis_storage *storage, int error)
{
    struct redis_probe *probe = &storage->probe;

    probe->in_flight = false;
    event_del(probe->deadline);
    finish(&probe->sent, error);
    finish(&probe->next, error);
}

bool redis_probe_init(struct redis_storage *storage)
{
    struct redis_probe *probe = &storage->probe;
    uint64_t nonce;

    evutil_secure_rng_get_bytes(&nonce, sizeof nonce);
    snprintf(probe->nonce, sizeof probe->nonce, "%016" PRIx64, nonce);
    list_init(&probe->sent);
    list_init(&probe->next);
    probe->deadline = evtimer_new(storage->loop, on_deadline, storage);
    return probe->deadline;
}

void redis_probe_close(struct redis_storage *storage)
{
    if (storage->probe.deadline)
        event_free(storage->probe.deadline);
}
