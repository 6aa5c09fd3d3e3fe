/* A request's life: published; then it waits for an answer, for its deadline, or for the one who asked to leave. Whatever
 * comes first finishes it: it leaves the map, so that later answers find nothing, and is freed once no call to the storage
 * that points to it is open any more.
 *
 * A user may have several sessions. The first reply wins, and the others are told that nobody waits any more. A refusal, or a
 * session that left, decides only when nobody is left who could still reply: the registry is asked who is there, and when every
 * one of them has refused, that is the outcome.
 *
 * Whoever leaves says so; whose broker was killed doesn't. So while a request is open the registry is asked now and then whether its
 * target is still there; missing twice in a row, it is gone (once may be a session that is just being registered anew). */
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
    struct storage_request publish, lookup; /* open while `publishing`, `looking` */
    struct event *deadline;
    struct message *refusal; /* the last refusal of one of a user's sessions; a reference */
    struct list refusers;    /* struct refuser */
    uint64_t left_ms;        /* until the deadline, from when the timer fires next */
    bool publishing, looking, look_again;
    bool missed;       /* the target was not in the registry the last time */
    bool finished;     /* out of the map; only waits for the storage to let go of it */
    struct address to; /* its name points into `text` */
    void (*on_done)(void *data, int error, const struct message_fields *answer);
    void *data;
    size_t id_len, from_len;
    char text[]; /* id, from, the name of `to` */
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
    struct map open;
};

struct requests *requests_create(const struct requests_options *options)
{
    struct requests *requests = mem_calloc(1, sizeof *requests);

    if (!requests)
        return NULL;
    requests->options = *options;
    map_init(&requests->open);
    return requests;
}

static void request_free(struct request *request)
{
    if (request->deadline)
        event_free(request->deadline);
    message_unref(request->refusal);
    for (struct list *link; (link = list_pop(&request->refusers));)
        mem_free(container_of(link, struct refuser, link));
    mem_free(request);
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
    char to[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct cancel *cancel = mem_calloc(1, sizeof *cancel);

    if (!cancel)
        return;
    cancel->request.on_done = on_cancel_sent;
    struct message_fields fields = {
        .kind = MESSAGE_CANCEL,
        .from = request_from(request),
        .to = slice_from(to, address_format(&request->to, to)),
        .time_ms = clock_wall_ms(),
        .correlation = request_id(request),
    };
    size_t len = address_channel(&request->to, channel);
    if (!router_publish(request->requests->options.router, slice_from(channel, len), &fields,
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
    if (request->finished && !request->publishing && !request->looking)
        request_free(request);
}

/* Takes it out of the map; whoever calls this calls maybe_free() last. */
static void finish(struct request *request, bool tell)
{
    request->finished = true;
    map_remove(&request->requests->open, &request->node);
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

/* ---- answers ---- */

static void look_who_is_left(struct request *request);

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
    for (size_t i = 0; i < sessions->record_count; i++)
        if (!has_refused(request, sessions->records[i].key))
            return true;
    return false;
}

static void on_user_listed(struct storage_request *lookup, int error, const struct storage_result *result)
{
    struct request *request = container_of(lookup, struct request, lookup);

    request->looking = false;
    if (request->finished) {
        maybe_free(request);
    } else if (!error && !may_reply(request, result)) {
        if (request->refusal)
            complete(request, ERROR_REFUSED, &request->refusal->fields, false);
        else
            complete(request, ERROR_GONE, NULL, false);
    } else if (request->look_again) {
        look_who_is_left(request);
    }
}

static void look_who_is_left(struct request *request)
{
    request->look_again = request->looking;
    if (request->looking)
        return;
    request->looking = true;
    request->lookup.on_done = on_user_listed;
    storage_list_user(request->requests->options.storage, request->to.name, &request->lookup);
}

static void on_session_found(struct storage_request *lookup, int error, const struct storage_result *result)
{
    struct request *request = container_of(lookup, struct request, lookup);
    bool missing = !error && result->record_count == 0;

    request->looking = false;
    if (request->finished)
        maybe_free(request);
    else if (missing && request->missed)
        complete(request, ERROR_GONE, NULL, false);
    else
        request->missed = missing;
}

static void check_target(struct request *request)
{
    if (request->to.kind == ADDRESS_USER) {
        look_who_is_left(request);
    } else if (!request->looking) {
        request->looking = true;
        request->lookup.on_done = on_session_found;
        storage_find_session(request->requests->options.storage, request->to.name, &request->lookup);
    }
}

/* Waits for the deadline, or for the next look at the target before it. */
static bool start_timer(struct request *request)
{
    uint64_t check_ms = request->requests->options.check_ms;
    uint64_t step_ms = check_ms && check_ms < request->left_ms ? check_ms : request->left_ms;
    struct timeval step = {.tv_sec = (time_t)(step_ms / 1000),
                           .tv_usec = (suseconds_t)(step_ms % 1000 * 1000)};

    request->left_ms -= step_ms;
    return event_add(request->deadline, &step) == 0;
}

static void on_timer(evutil_socket_t fd, short what, void *data)
{
    struct request *request = data;

    (void)fd;
    (void)what;
    if (request->left_ms && start_timer(request))
        check_target(request);
    else
        complete(request, ERROR_TIMEOUT, NULL, true);
}

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
}

void requests_on_answer(struct requests *requests, const struct message_fields *answer)
{
    struct map_node *node = map_find(&requests->open, answer->correlation.data, answer->correlation.len);

    if (!node) {
        requests_return_answer(requests, answer);
        return;
    }
    struct request *request = container_of(node, struct request, node);
    bool several = request->to.kind == ADDRESS_USER;
    if (answer->kind == MESSAGE_REPLY) {
        complete(request, ERROR_NONE, answer, several);
    } else if (!several) {
        bool refused = answer->kind == MESSAGE_REFUSED;
        complete(request, refused ? ERROR_REFUSED : ERROR_GONE, refused ? answer : NULL, false);
    } else {
        if (answer->kind == MESSAGE_REFUSED)
            note_refusal(request, answer);
        look_who_is_left(request);
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
    size_t name_len = question->to.name.len;
    struct request *request =
        mem_calloc(1, sizeof *request + question->id.len + question->from.len + name_len);

    if (!request)
        return NULL;
    request->requests = requests;
    list_init(&request->refusers);
    request->id_len = question->id.len;
    request->from_len = question->from.len;
    memcpy(request->text, question->id.data, question->id.len);
    memcpy(request->text + question->id.len, question->from.data, question->from.len);
    char *name = request->text + question->id.len + question->from.len;
    memcpy(name, question->to.name.data, name_len);
    request->to = (struct address){.kind = question->to.kind, .name = slice_from(name, name_len)};
    request->on_done = question->on_done;
    request->data = question->data;
    request->publish.on_done = on_published;
    request->left_ms = question->timeout_ms;
    request->deadline = event_new(loop_base(requests->options.loop), -1, 0, on_timer, request);
    return request;
}

struct request *request_ask(struct requests *requests, const struct request_question *question)
{
    struct request *request = request_create(requests, question);
    char to[ADDRESS_MAX + 1], channel[CHANNEL_MAX];

    if (!request)
        return NULL;
    if (!request->deadline || !start_timer(request) ||
        !map_insert(&requests->open, &request->node, request->text, request->id_len))
        goto no_memory;
    struct message_fields fields = {
        .kind = MESSAGE_REQUEST,
        .content = question->content,
        .from = request_from(request),
        .to = slice_from(to, address_format(&request->to, to)),
        .time_ms = clock_wall_ms(),
        .payload = question->payload,
        .correlation = request_id(request),
        .timeout_ms = question->timeout_ms,
    };
    request->publishing = true;
    size_t len = address_channel(&request->to, channel);
    if (router_publish(requests->options.router, slice_from(channel, len), &fields, &request->publish)) {
        requests->options.metrics->requests_asked++;
        return request;
    }
    map_remove(&requests->open, &request->node);

no_memory:
    request_free(request);
    return NULL;
}
