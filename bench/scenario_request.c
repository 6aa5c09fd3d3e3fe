/* Requests to responders chosen at random, each of which answers with the question; `inflight` at a time. */
#include "bench/scenario.h"

struct request {
    struct connection *requesters, *responders;
    uint32_t requester_count, responder_count;
    uint32_t sequence[SLOTS_MAX]; /* by slot: of the request in flight there */
    uint32_t sent;
    uint64_t done, good;
    bool sending, measuring, probing, answered;
};

static void request_send(struct load *load, struct request *request, uint32_t slot, uint32_t target)
{
    struct connection *conn = &request->requesters[slot % request->requester_count];
    struct stamp stamp = {.sender = slot, .sequence = request->sent, .time = load_now(load)};
    request->sequence[slot] = request->sent++;
    conn->dialect->request(load, conn, target, slot + 1, stamp_payload(load, stamp));
}

static void on_reply(struct load *load, struct connection *conn, uint32_t id, struct slice payload)
{
    struct request *request = load->scenario;
    struct stamp stamp;
    uint32_t slot = id - 1;
    (void)conn;
    if (request->probing) {
        request->answered = true;
        request->good += payload.data != NULL;
        return;
    }
    request->done++;
    if (!payload.data) {
        load->violations.failed++;
    } else if (slot >= load->options.inflight || !stamp_read(load, payload, &stamp) || stamp.sender != slot ||
               stamp.sequence != request->sequence[slot]) {
        load->violations.wrong++;
    } else if (request->measuring) {
        histogram_add(&load->latency, load->now - stamp.time);
    }
    if (request->sending) {
        request_send(load, request, slot, load_random(load, request->responder_count));
    }
}

/* Asks each responder until it answers: nothing tells when a plain one can be asked. */
static void probe(struct load *load, struct request *request)
{
    uint64_t deadline = load_now(load) + seconds_ns(20);
    request->probing = true;
    for (uint32_t target = 0; target < request->responder_count;) {
        request->answered = false;
        request->good = 0;
        request_send(load, request, 0, target);
        while (!request->answered) {
            load_turn(load, deadline);
            if (load_now(load) > deadline) {
                fail("responder %u does not answer", target);
            }
        }
        target += request->good > 0;
    }
    request->probing = false;
    servers_settle(load);
}

static void run_until(struct load *load, uint64_t end)
{
    while (load_now(load) < end) {
        load_turn(load, end);
    }
}

json_t *scenario_request(struct load *load)
{
    static const struct hooks hooks = {hook_ready, hook_message, on_reply, hook_lost};
    const struct options *options = &load->options;
    struct request request = {.responder_count = options->sessions, .requester_count = options->requesters};
    struct window window;
    for (unsigned i = 0; i < options->dialect_count; i++) {
        if (!options->dialects[i]->request) {
            fail("the dialect %s has no requests", options->dialects[i]->name);
        }
        if (options->dialects[i]->http) { /* one request at a time on each connection */
            request.requester_count = options->inflight;
        }
    }
    load->hooks = &hooks;
    load->scenario = &request;
    struct connection *idle = connections_add_idle(load);
    request.responders = connections_add(load, ROLE_RESPONDER, request.responder_count, options->responders,
                                         options->responder_count);
    request.requesters = connections_add(load, ROLE_REQUESTER, request.requester_count, options->dialects,
                                         options->dialect_count);
    connections_open(load, idle, options->idle, 64);
    connections_open(load, request.responders, request.responder_count + request.requester_count, 64);
    probe(load, &request);

    request.sending = true;
    uint32_t before = request.sent;
    for (uint32_t slot = 0; slot < options->inflight; slot++) {
        request_send(load, &request, slot, load_random(load, request.responder_count));
    }
    run_until(load, load_now(load) + seconds_ns(options->warmup));
    request.measuring = true;
    window_open(load, &window, request.done);
    run_until(load, load_now(load) + seconds_ns(options->duration));
    window_close(load, &window, request.done);
    request.sending = false;
    uint32_t sent = request.sent - before;
    drain(load, &request.done, sent);
    load->violations.missing = sent - request.done;
    return window_json(load, &window);
}
