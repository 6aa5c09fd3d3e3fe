/* Sessions that write to each other, at random: a message goes out for each that arrives (closed loop), or at a fixed rate
 * whatever arrives (open loop; its times count from when each message should have gone out). */
#include "bench/scenario.h"

#include "base/alloc.h"

#include <string.h>

struct unicast {
    struct connection *sessions;
    uint32_t count;
    uint32_t *sent, *next; /* by sender and receiver: messages sent, sequence expected */
    bool *probed;          /* likewise */
    uint64_t sends, deliveries;
    uint32_t unprobed;
    bool sending, measuring;
};

static bool fits(const struct load *load, uint32_t sender, uint32_t target)
{
    bool same = sender % load->options.port_count == target % load->options.port_count;
    return sender != target &&
           (load->options.where == TARGET_ANY || same == (load->options.where == TARGET_SAME));
}

static void send_stamped(struct load *load, struct unicast *unicast, uint32_t sender, uint32_t target,
                         uint32_t sequence, uint64_t time)
{
    struct connection *conn = &unicast->sessions[sender];
    struct stamp stamp = {.sender = sender, .sequence = sequence, .time = time};
    conn->dialect->send(load, conn, target, stamp_payload(load, stamp));
}

static void send_next(struct load *load, struct unicast *unicast, uint64_t time)
{
    uint32_t sender = load_random(load, unicast->count), target = unicast->sessions[sender].target;
    if (unicast->sessions[sender].dialect->addressed) {
        do {
            target = load_random(load, unicast->count);
        } while (!fits(load, sender, target));
    }
    send_stamped(load, unicast, sender, target, unicast->sent[sender * unicast->count + target]++, time);
    unicast->sends++;
}

static void on_message(struct load *load, struct connection *conn, struct slice payload)
{
    struct unicast *unicast = load->scenario;
    struct stamp stamp;
    if (conn->role != ROLE_SESSION || !stamp_read(load, payload, &stamp)) {
        return;
    }
    if (stamp.sender >= unicast->count) {
        load->violations.wrong++;
        return;
    }
    uint32_t pair = stamp.sender * unicast->count + conn->number;
    if (stamp.sequence == SEQUENCE_PROBE) {
        unicast->unprobed -= !unicast->probed[pair];
        unicast->probed[pair] = true;
        return;
    }
    if (!sequence_check(load, &unicast->next[pair], stamp.sequence)) {
        return;
    }
    unicast->deliveries++;
    if (unicast->measuring) {
        histogram_add(&load->latency, load->now - stamp.time);
    }
    if (unicast->sending && load->options.rate == 0) {
        send_next(load, unicast, load_now(load));
    }
}

/* Each plain session to its one target; else one session of each instance to all. */
static bool is_probe(const struct load *load, const struct unicast *unicast, uint32_t sender, uint32_t target)
{
    const struct connection *conn = &unicast->sessions[sender];
    return conn->dialect->addressed ? sender < load->options.port_count : conn->target == target;
}

static void probe_all(struct load *load, struct unicast *unicast, bool send)
{
    for (uint32_t sender = 0; sender < unicast->count; sender++) {
        for (uint32_t target = 0; target < unicast->count; target++) {
            if (!is_probe(load, unicast, sender, target) ||
                unicast->probed[sender * unicast->count + target]) {
                continue;
            }
            if (send) {
                send_stamped(load, unicast, sender, target, SEQUENCE_PROBE, 0);
            } else {
                unicast->unprobed++;
            }
        }
    }
}

static void probe(struct load *load, struct unicast *unicast)
{
    uint64_t deadline = load_now(load) + seconds_ns(20);
    probe_all(load, unicast, false);
    while (unicast->unprobed > 0) {
        probe_all(load, unicast, true);
        for (uint64_t end = load_now(load) + seconds_ns(0.5);
             load_now(load) < end && unicast->unprobed > 0;) {
            load_turn(load, end);
        }
        if (load_now(load) > deadline) {
            fail("%u of the paths between sessions carry nothing", unicast->unprobed);
        }
    }
    servers_settle(load);
}

static void run_closed(struct load *load, struct unicast *unicast, uint64_t end)
{
    uint64_t seen = unicast->deliveries, progress = load_now(load);
    while (load_now(load) < end && !load->violations.stalled) {
        load_turn(load, end);
        if (unicast->deliveries != seen) {
            seen = unicast->deliveries;
            progress = load_now(load);
        }
        load->violations.stalled = load_now(load) - progress > seconds_ns(5);
    }
}

static void run_paced(struct load *load, struct unicast *unicast, uint64_t end)
{
    uint64_t interval = 1000000000 / load->options.rate;
    for (uint64_t due = load_now(load) + interval; due < end; due += interval) {
        while (load_now(load) < due) {
            load_turn(load, due);
        }
        if (unicast->measuring) {
            histogram_add(&load->lateness, load_now(load) - due);
        }
        send_next(load, unicast, due);
    }
}

static void run(struct load *load, struct unicast *unicast, double seconds)
{
    uint64_t end = load_now(load) + seconds_ns(seconds);
    if (load->options.rate > 0) {
        run_paced(load, unicast, end);
    } else {
        run_closed(load, unicast, end);
    }
}

static void unicast_init(struct load *load, struct unicast *unicast)
{
    const struct options *options = &load->options;
    uint32_t count = unicast->count = options->sessions;
    if (count < 2 * options->port_count || count > 4096) {
        fail("this scenario takes 2 sessions an instance to 4096 in all");
    }
    unicast->sent = mem_calloc((size_t)count * count, sizeof(uint32_t));
    unicast->next = mem_calloc((size_t)count * count, sizeof(uint32_t));
    unicast->probed = mem_calloc((size_t)count * count, sizeof(bool));
    if (!unicast->sent || !unicast->next || !unicast->probed) {
        fail("out of memory");
    }
    unicast->sessions = connections_add(load, ROLE_SESSION, count, options->dialects, options->dialect_count);
    for (uint32_t i = 0; i < count; i++) {
        do {
            unicast->sessions[i].target = load_random(load, count);
        } while (!fits(load, i, unicast->sessions[i].target));
    }
}

json_t *scenario_unicast(struct load *load)
{
    static const struct hooks hooks = {hook_ready, on_message, hook_reply, hook_lost};
    struct unicast unicast = {.count = 0};
    struct window window;
    load->hooks = &hooks;
    load->scenario = &unicast;
    struct connection *idle = connections_add_idle(load);
    unicast_init(load, &unicast);
    connections_open(load, idle, load->options.idle, 64);
    connections_open(load, unicast.sessions, unicast.count, 64);
    probe(load, &unicast);

    unicast.sending = true;
    for (uint32_t i = 0; load->options.rate == 0 && i < load->options.inflight; i++) {
        send_next(load, &unicast, load_now(load));
    }
    run(load, &unicast, load->options.warmup);
    unicast.measuring = true;
    window_open(load, &window, unicast.deliveries);
    run(load, &unicast, load->options.duration);
    window_close(load, &window, unicast.deliveries);
    unicast.sending = false;
    drain(load, &unicast.deliveries, unicast.sends);
    load->violations.missing = unicast.sends - unicast.deliveries;
    mem_free(unicast.sent);
    mem_free(unicast.next);
    mem_free(unicast.probed);
    return window_json(load, &window);
}
