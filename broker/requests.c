/* A request's life: published; then it waits for an answer, for its deadline, or for the one who asked to leave. Whatever
 * comes first finishes it: it leaves the map, so that later answers find nothing, and is freed once no call to the storage
 * that points to it is open any more.
 *
 * A user may have several sessions. The first reply wins, and the others are told that nobody waits any more. A refusal, or a
 * session that left, decides only when nobody is left who could still reply: the registry is asked who is there, and when every
 * one of them has refused, that is the outcome.
 *
 * Whoever leaves says so; whose broker was killed doesn't. So while requests to somebody are open the registry is asked now and then
 * whether they are still there; missing twice in a row, they are gone (once may be a session that is just being registered anew). Each
 * target is one question, however many requests wait for it, targets take turns, and there are so many questions a second at most: with
 * very many targets each is asked about more rarely, and the requests' deadlines decide first. */
#include "broker/requests.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/map.h"
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/router.h"
#include "proto/errors.h"
#include "storage/storage.h"

#include <event2/event.h>
#include <string.h>

struct request {
    struct map_node node;
    struct requests *requests;
    struct target *target;
    struct list of_target;          /* in target->requests while it is open */
    uint64_t since;                 /* how many questions about the target had been asked before */
    struct storage_request publish; /* open while `publishing` */
    struct event *deadline;
    struct message *refusal; /* the last refusal of one of a user's sessions; a reference */
    struct list refusers;    /* struct refuser */
    size_t refuser_count;
    bool publishing;
    bool finished; /* out of the map; only waits for the storage to let go of it */
    void (*on_done)(void *data, int error, const struct message_fields *answer);
    void *data;
    size_t id_len, from_len;
    char text[]; /* id, from */
};

/* Somebody who is asked: a session or a user. There as long as a request to them is, or a question about them. */
struct target {
    struct map_node node;
    struct requests *requests;
    struct list open;              /* struct request, the oldest first */
    size_t holders;                /* requests, the finished ones included */
    struct list link;              /* in requests->rounds or requests->urgent; alone while `looking` */
    struct storage_request lookup; /* open while `looking` */
    uint64_t due_ms;               /* monotonic: when it is to be asked about next */
    uint64_t lookups;              /* how many were asked */
    uint64_t missing_since;        /* the number of the first of those that didn't find it; 0: it was found */
    bool looking, look_again;
    struct address address; /* its name points into `channel` */
    char channel[];         /* "session:{NAME}", then the name */
};

/* One of a user's sessions that refused: it will not reply any more, but its refusal counts for no other. */
struct refuser {
    struct list link;
    size_t len;
    char address[];
};

/* What somebody is told about a request that is over; it needs no answer. */
struct cancel {
    struct storage_request request;
};

struct requests {
    struct requests_options options;
    struct map open, targets;
    struct list rounds; /* targets by when they are to be asked about */
    struct list urgent; /* those to be asked about at once, because of a refusal: by turns with the others */
    bool urgent_next;
    struct event *timer;
    uint64_t refilled_ms; /* when `budget` was reckoned */
    uint64_t budget;      /* questions that may be asked now, in thousandths */
};

enum {
    PEEK = 256,      /* so many of a user's sessions are looked at */
    QUESTION = 1000, /* what one costs of the budget */
    BURST_MS = 100,
};

static void on_round(evutil_socket_t fd, short what, void *data);

struct requests *requests_create(const struct requests_options *options)
{
    struct requests *requests = mem_calloc(1, sizeof *requests);

    if (!requests)
        return NULL;
    requests->options = *options;
    map_init(&requests->open);
    map_init(&requests->targets);
    list_init(&requests->rounds);
    list_init(&requests->urgent);
    requests->refilled_ms = clock_monotonic_ms();
    requests->timer = event_new(loop_base(options->loop), -1, 0, on_round, requests);
    if (!requests->timer) {
        mem_free(requests);
        return NULL;
    }
    return requests;
}

void requests_set_checks(struct requests *requests, size_t limit)
{
    requests->options.checks_limit = limit;
}

/* ---- targets ---- */

static void target_maybe_free(struct target *target)
{
    if (target->holders || target->looking)
        return;
    map_remove(&target->requests->targets, &target->node);
    list_remove(&target->link);
    mem_free(target);
}

/* The target of that address, made when there is none; NULL when memory is short. */
static struct target *target_obtain(struct requests *requests, const struct address *address)
{
    char channel[CHANNEL_MAX];
    size_t len = address_channel(address, channel);
    struct map_node *node = map_find(&requests->targets, channel, len);

    if (node)
        return container_of(node, struct target, node);
    struct target *target = mem_calloc(1, sizeof *target + len + address->name.len);
    if (!target)
        return NULL;
    memcpy(target->channel, channel, len);
    memcpy(target->channel + len, address->name.data, address->name.len);
    if (!map_insert(&requests->targets, &target->node, target->channel, len)) {
        mem_free(target);
        return NULL;
    }
    target->requests = requests;
    target->address =
        (struct address){.kind = address->kind, .name = slice_from(target->channel + len, address->name.len)};
    list_init(&target->open);
    list_init(&target->link);
    return target;
}

static struct slice target_channel(const struct target *target)
{
    return slice_from(target->channel, (size_t)(target->address.name.data - target->channel));
}

static void request_free(struct request *request)
{
    struct target *target = request->target;

    if (request->deadline)
        event_free(request->deadline);
    message_unref(request->refusal);
    for (struct list *link; (link = list_pop(&request->refusers));)
        mem_free(container_of(link, struct refuser, link));
    list_remove(&request->of_target);
    mem_free(request);
    if (target) {
        target->holders--;
        target_maybe_free(target);
    }
}

void requests_destroy(struct requests *requests)
{
    if (!requests)
        return;
    for (struct map_node *node; (node = map_next(&requests->open, NULL));) {
        map_remove(&requests->open, node);
        request_free(container_of(node, struct request, node));
    }
    map_close(&requests->open);
    map_close(&requests->targets);
    event_free(requests->timer);
    mem_free(requests);
}

size_t requests_open(const struct requests *requests)
{
    return requests->open.count;
}

static struct slice request_id(const struct request *request)
{
    return slice_from(request->text, request->id_len);
}

static struct slice request_from(const struct request *request)
{
    return slice_from(request->text + request->id_len, request->from_len);
}

/* ---- finishing ---- */

static void on_cancel_sent(struct storage_request *request, int error, const struct storage_result *result)
{
    (void)error;
    (void)result;
    mem_free(container_of(request, struct cancel, request));
}

/* Tells those asked that nobody waits any more. Best effort: who misses it is told `gone` when they reply. */
static void send_cancel(struct request *request)
{
    char to[ADDRESS_MAX + 1];
    struct cancel *cancel = mem_calloc(1, sizeof *cancel);

    if (!cancel)
        return;
    cancel->request.on_done = on_cancel_sent;
    struct message_fields fields = {
        .kind = MESSAGE_CANCEL,
        .from = request_from(request),
        .to = slice_from(to, address_format(&request->target->address, to)),
        .time_ms = clock_wall_ms(),
        .correlation = request_id(request),
    };
    if (!router_publish(request->requests->options.router, target_channel(request->target), &fields,
                        &cancel->request))
        mem_free(cancel);
}

/* Best effort, too. */
void requests_return_answer(struct requests *requests, const struct message_fields *answer)
{
    char channel[CHANNEL_MAX];
    struct address from;
    struct cancel *sending = NULL;

    if (answer->kind == MESSAGE_REPLY && answer->timeout_ms && !address_parse(answer->from, &from))
        sending = mem_calloc(1, sizeof *sending);
    if (!sending)
        return;
    sending->request.on_done = on_cancel_sent;
    struct message_fields fields = {
        .kind = MESSAGE_LATE,
        .content = answer->content,
        .from = answer->to,
        .to = answer->from,
        .time_ms = clock_wall_ms(),
        .payload = answer->payload,
        .correlation = answer->correlation,
    };
    size_t len = address_channel(&from, channel);
    if (!router_publish(requests->options.router, slice_from(channel, len), &fields, &sending->request))
        mem_free(sending);
}

static void maybe_free(struct request *request)
{
    if (request->finished && !request->publishing)
        request_free(request);
}

/* Takes it out of the map; whoever calls this calls maybe_free() last. */
static void finish(struct request *request, bool tell)
{
    request->finished = true;
    map_remove(&request->requests->open, &request->node);
    list_remove(&request->of_target);
    if (list_empty(&request->target->open))
        list_remove(&request->target->link);
    event_del(request->deadline);
    if (tell)
        send_cancel(request);
}

static void complete(struct request *request, int error, const struct message_fields *answer, bool tell)
{
    finish(request, tell);
    request->on_done(request->data, error, answer);
    maybe_free(request);
}

void request_cancel(struct request *request)
{
    finish(request, true);
    maybe_free(request);
}

/* ---- is the target there? ---- */

/* Each millisecond gives thousandths of a question; what is not used is saved up for a tenth of a second. */
static bool may_ask(struct requests *requests)
{
    uint64_t now = clock_monotonic_ms(), limit = requests->options.checks_limit;
    uint64_t most = limit * BURST_MS > QUESTION ? limit * BURST_MS : QUESTION;

    if (!limit)
        return true;
    requests->budget += (now - requests->refilled_ms) * limit;
    requests->refilled_ms = now;
    if (requests->budget > most)
        requests->budget = most;
    if (requests->budget < QUESTION)
        return false;
    requests->budget -= QUESTION;
    return true;
}

static void start_timer(struct requests *requests)
{
    struct list *next = !list_empty(&requests->urgent) ? requests->urgent.next : requests->rounds.next;
    uint64_t now = clock_monotonic_ms(), wait = 0;

    if (next == &requests->rounds || event_pending(requests->timer, EV_TIMEOUT, NULL))
        return;
    const struct target *target = container_of(next, struct target, link);
    if (target->due_ms > now)
        wait = target->due_ms - now;
    else if (requests->options.checks_limit && requests->budget < QUESTION)
        wait = (QUESTION - requests->budget) / requests->options.checks_limit + 1;
    const struct timeval delay = {.tv_sec = (time_t)(wait / 1000),
                                  .tv_usec = (suseconds_t)(wait % 1000 * 1000)};
    event_add(requests->timer, &delay);
}

/* Puts a target that nothing is asked about into the round. */
static void wait_for_round(struct target *target)
{
    struct requests *requests = target->requests;

    if (!requests->options.check_ms || list_empty(&target->open) || target->looking)
        return;
    target->due_ms = clock_monotonic_ms() + requests->options.check_ms;
    list_append(&requests->rounds, &target->link);
    start_timer(requests);
}

static bool has_refused(const struct request *request, struct slice name)
{
    static const size_t kind = sizeof "session:" - 1;

    list_for_each (link, &request->refusers) {
        const struct refuser *refuser = container_of(link, struct refuser, link);
        if (refuser->len > kind &&
            slice_equal(name, slice_from(refuser->address + kind, refuser->len - kind)))
            return true;
    }
    return false;
}

/* Whether one of these sessions of the user may still reply. */
static bool may_reply(const struct request *request, const struct storage_result *sessions)
{
    if (sessions->record_count > request->refuser_count || sessions->number > (int64_t)sessions->record_count)
        return true;
    for (size_t i = 0; i < sessions->record_count; i++)
        if (!has_refused(request, sessions->records[i].key))
            return true;
    return false;
}

static void look(struct target *target);

/* A user's session refused or left: is anybody left who could still reply? Asked at once, or as soon as the budget allows, by
 * turns with those who wait for their round. */
static void look_who_is_left(struct target *target)
{
    struct requests *requests = target->requests;

    target->look_again = target->looking;
    if (target->looking)
        return;
    if (list_empty(&requests->urgent) && may_ask(requests)) {
        look(target);
        return;
    }
    list_remove(&target->link);
    target->due_ms = 0;
    list_append(&requests->urgent, &target->link);
    event_del(requests->timer);
    start_timer(requests);
}

/* The question is answered: what was asked meanwhile, or its requests being over, decides how to go on. `target` may be freed. */
static void look_done(struct target *target)
{
    bool again = target->look_again && !list_empty(&target->open);

    target->looking = target->look_again = false;
    if (again)
        look_who_is_left(target);
    else
        wait_for_round(target);
    target_maybe_free(target);
}

static void on_user_listed(struct storage_request *lookup, int error, const struct storage_result *result)
{
    struct target *target = container_of(lookup, struct target, lookup);
    struct list open;

    list_init(&open);
    if (!error)
        list_splice(&open, &target->open);
    for (struct list *link; (link = list_pop(&open));) {
        struct request *request = container_of(link, struct request, of_target);
        list_append(&target->open, link);
        /* A request that was asked later may have found somebody that the answer doesn't know yet. */
        if (request->since >= target->lookups || may_reply(request, result))
            continue;
        if (request->refusal)
            complete(request, ERROR_REFUSED, &request->refusal->fields, false);
        else
            complete(request, ERROR_GONE, NULL, false);
    }
    look_done(target);
}

static void on_session_found(struct storage_request *lookup, int error, const struct storage_result *result)
{
    struct target *target = container_of(lookup, struct target, lookup);
    bool missing = !error && result->record_count == 0;

    if (!missing) {
        target->missing_since = error ? target->missing_since : 0;
    } else if (!target->missing_since) {
        target->missing_since = target->lookups;
    } else {
        /* The oldest first: those that were open at the first of the questions that didn't find it. */
        while (!list_empty(&target->open)) {
            struct request *request = container_of(target->open.next, struct request, of_target);
            if (request->since >= target->missing_since)
                break;
            complete(request, ERROR_GONE, NULL, false);
        }
        target->missing_since = target->lookups;
    }
    look_done(target);
}

static void look(struct target *target)
{
    struct requests *requests = target->requests;

    list_remove(&target->link);
    target->looking = true;
    target->lookups++;
    requests->options.metrics->targets_checked++;
    if (target->address.kind == ADDRESS_USER) {
        target->lookup.on_done = on_user_listed;
        storage_peek_user(requests->options.storage, target->address.name, PEEK, &target->lookup);
    } else {
        target->lookup.on_done = on_session_found;
        storage_find_session(requests->options.storage, target->address.name, &target->lookup);
    }
}

/* The target to ask about now; NULL: none is due. */
static struct target *next_due(struct requests *requests)
{
    uint64_t now = clock_monotonic_ms();
    struct list *rounds = list_empty(&requests->rounds) ? NULL : requests->rounds.next;
    struct list *urgent = list_empty(&requests->urgent) ? NULL : requests->urgent.next;

    if (rounds && container_of(rounds, struct target, link)->due_ms > now)
        rounds = NULL;
    struct list *next = urgent && (requests->urgent_next || !rounds) ? urgent : rounds;
    return next ? container_of(next, struct target, link) : NULL;
}

static void on_round(evutil_socket_t fd, short what, void *data)
{
    struct requests *requests = data;

    (void)fd;
    (void)what;
    for (struct target *target; (target = next_due(requests)) && may_ask(requests);) {
        requests->urgent_next = !requests->urgent_next;
        look(target);
    }
    start_timer(requests);
}

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    complete(data, ERROR_TIMEOUT, NULL, true);
}

/* ---- answers ---- */

/* When memory is short the refuser counts as one who may still reply, and the deadline decides. */
static void note_refusal(struct request *request, const struct message_fields *answer)
{
    struct refuser *refuser = mem_alloc(sizeof *refuser + answer->from.len);

    message_unref(request->refusal);
    request->refusal = message_create(answer);
    if (!refuser)
        return;
    refuser->len = answer->from.len;
    memcpy(refuser->address, answer->from.data, answer->from.len);
    list_append(&request->refusers, &refuser->link);
    request->refuser_count++;
}

void requests_on_answer(struct requests *requests, const struct message_fields *answer)
{
    struct map_node *node = map_find(&requests->open, answer->correlation.data, answer->correlation.len);

    if (!node) {
        requests_return_answer(requests, answer);
        return;
    }
    struct request *request = container_of(node, struct request, node);
    bool several = request->target->address.kind == ADDRESS_USER;
    if (answer->kind == MESSAGE_REPLY) {
        complete(request, ERROR_NONE, answer, several);
    } else if (!several) {
        bool refused = answer->kind == MESSAGE_REFUSED;
        complete(request, refused ? ERROR_REFUSED : ERROR_GONE, refused ? answer : NULL, false);
    } else {
        if (answer->kind == MESSAGE_REFUSED)
            note_refusal(request, answer);
        look_who_is_left(request->target);
    }
}

/* ---- asking ---- */

static void on_published(struct storage_request *publish, int error, const struct storage_result *result)
{
    struct request *request = container_of(publish, struct request, publish);

    request->publishing = false;
    if (request->finished)
        maybe_free(request);
    else if (error)
        complete(request, error, NULL, false);
    else if (result->number == 0)
        complete(request, ERROR_ABSENT, NULL, false);
}

static struct request *request_create(struct requests *requests, const struct request_question *question)
{
    struct request *request = mem_calloc(1, sizeof *request + question->id.len + question->from.len);

    if (!request)
        return NULL;
    request->requests = requests;
    list_init(&request->refusers);
    list_init(&request->of_target);
    request->id_len = question->id.len;
    request->from_len = question->from.len;
    memcpy(request->text, question->id.data, question->id.len);
    memcpy(request->text + question->id.len, question->from.data, question->from.len);
    request->on_done = question->on_done;
    request->data = question->data;
    request->publish.on_done = on_published;
    request->deadline = event_new(loop_base(requests->options.loop), -1, 0, on_deadline, request);
    request->target = target_obtain(requests, &question->to);
    if (request->target)
        request->target->holders++;
    return request;
}

struct request *request_ask(struct requests *requests, const struct request_question *question)
{
    const struct timeval timeout = {.tv_sec = (time_t)(question->timeout_ms / 1000),
                                    .tv_usec = (suseconds_t)(question->timeout_ms % 1000 * 1000)};
    struct request *request = request_create(requests, question);
    char to[ADDRESS_MAX + 1];

    if (!request)
        return NULL;
    struct target *target = request->target;
    if (!request->deadline || !target || event_add(request->deadline, &timeout) != 0 ||
        !map_insert(&requests->open, &request->node, request->text, request->id_len))
        goto no_memory;
    struct message_fields fields = {
        .kind = MESSAGE_REQUEST,
        .content = question->content,
        .from = request_from(request),
        .to = slice_from(to, address_format(&target->address, to)),
        .time_ms = clock_wall_ms(),
        .payload = question->payload,
        .correlation = request_id(request),
        .timeout_ms = question->timeout_ms,
    };
    request->publishing = true;
    if (router_publish(requests->options.router, target_channel(target), &fields, &request->publish)) {
        requests->options.metrics->requests_asked++;
        request->since = target->lookups;
        list_append(&target->open, &request->of_target);
        if (list_empty(&target->link))
            wait_for_round(target);
        return request;
    }
    map_remove(&requests->open, &request->node);

no_memory:
    request_free(request);
    return NULL;
}
