/* One publisher, many subscribers: it sends message k + inflight when all of them have received message k. */
#include "bench/scenario.h"

#include "base/alloc.h"

struct fanout {
    struct connection *subscribers, *publisher;
    uint32_t count;
    uint32_t *next;              /* by subscriber: the sequence expected */
    uint32_t waiting[SLOTS_MAX]; /* by sequence modulo inflight: subscribers that have not received it */
    uint32_t sent, done;         /* messages; `done` were received by all */
    uint64_t deliveries;
    uint32_t probed;
    bool sending, measuring;
};

static void publish(struct load *load, struct fanout *fanout, uint32_t sequence)
{
    struct stamp stamp = {.sender = 0, .sequence = sequence, .time = load_now(load)};
    struct connection *publisher = fanout->publisher;
    publisher->dialect->send(load, publisher, 0, stamp_payload(load, stamp));
}

static void pump(struct load *load, struct fanout *fanout)
{
    uint32_t inflight = load->options.inflight;
    while (fanout->sending && fanout->sent - fanout->done < inflight) {
        fanout->waiting[fanout->sent % inflight] = fanout->count;
        publish(load, fanout, fanout->sent++);
    }
}

static void on_message(struct load *load, struct connection *conn, struct slice payload)
{
    struct fanout *fanout = load->scenario;
    struct stamp stamp;
    if (!stamp_read(load, payload, &stamp) || conn->role != ROLE_SUBSCRIBER) {
        return;
    }
    if (stamp.sequence == SEQUENCE_PROBE) {
        fanout->probed += fanout->next[conn->number] == UINT32_MAX;
        fanout->next[conn->number] = 0;
        return;
    }
    if (!sequence_check(load, &fanout->next[conn->number], stamp.sequence)) {
        return;
    }
    fanout->deliveries++;
    if (fanout->measuring) {
        histogram_add(&load->latency, load->now - stamp.time);
    }
    uint32_t *waiting = fanout->waiting, inflight = load->options.inflight;
    waiting[stamp.sequence % inflight]--;
    while (fanout->done < fanout->sent && waiting[fanout->done % inflight] == 0) {
        fanout->done++;
    }
    pump(load, fanout);
}

/* Until every subscriber receives what is published: a handshake alone proves that to nobody. */
static void probe(struct load *load, struct fanout *fanout)
{
    for (uint32_t i = 0; i < fanout->count; i++) {
        fanout->next[i] = UINT32_MAX;
    }
    uint64_t deadline = load_now(load) + seconds_ns(20);
    while (fanout->probed < fanout->count) {
        publish(load, fanout, SEQUENCE_PROBE);
        for (uint64_t end = load_now(load) + seconds_ns(0.3);
             load_now(load) < end && fanout->probed < fanout->count;) {
            load_turn(load, end);
        }
        if (load_now(load) > deadline) {
            fail("%u of %u subscribers receive nothing", fanout->count - fanout->probed, fanout->count);
        }
    }
    servers_settle(load);
}

/* Turns until then, or until nothing has come for too long. */
static void run_until(struct load *load, struct fanout *fanout, uint64_t end)
{
    uint64_t seen = fanout->deliveries, progress = load_now(load);
    while (load_now(load) < end && !load->violations.stalled) {
        load_turn(load, end);
        if (fanout->deliveries != seen) {
            seen = fanout->deliveries;
            progress = load_now(load);
        }
        load->violations.stalled = load_now(load) - progress > seconds_ns(5);
    }
}

json_t *scenario_fanout(struct load *load)
{
    static const struct hooks hooks = {hook_ready, on_message, hook_reply, hook_lost};
    const struct options *options = &load->options;
    struct window window;
    struct fanout fanout = {.count = options->sessions,
                            .next = mem_calloc(options->sessions, sizeof(uint32_t))};
    if (!fanout.next) {
        fail("out of memory");
    }
    load->hooks = &hooks;
    load->scenario = &fanout;
    struct connection *idle = connections_add_idle(load);
    fanout.subscribers =
        connections_add(load, ROLE_SUBSCRIBER, fanout.count, options->dialects, options->dialect_count);
    fanout.publisher = connections_add(load, ROLE_PUBLISHER, 1, options->dialects, 1);
    connections_open(load, idle, options->idle, 64);
    connections_open(load, fanout.subscribers, fanout.count + 1, 64);
    probe(load, &fanout);

    uint64_t start = load_now(load) + seconds_ns(options->warmup);
    fanout.sending = true;
    pump(load, &fanout);
    run_until(load, &fanout, start);
    fanout.measuring = true;
    window_open(load, &window, fanout.deliveries);
    run_until(load, &fanout, load_now(load) + seconds_ns(options->duration));
    window_close(load, &window, fanout.deliveries);
    fanout.sending = fanout.measuring = false;
    uint64_t sent = (uint64_t)fanout.sent * fanout.count;
    drain(load, &fanout.deliveries, sent);
    load->violations.missing = sent - fanout.deliveries;
    mem_free(fanout.next);
    return window_json(load, &window);
}
