/* Requests: those that the session asked, and those that it is to answer.
 *
 * A plain session answers with its next message, so it is asked one thing at a time, and what it says must not get lost: a
 * message that turns out not to be the reply, because nobody waited for it any more, is an ordinary message after all.
 * Whoever gets it too late sends it back (requests.c), and if nobody gets it, PUBLISH's answer says so.
 *
 * Whoever is asked keeps the request's id and where the answer goes, until it answers, is told that nobody waits, the deadline
 * passes, or it leaves: then those who wait are told that it is gone. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/writer.h"

#include <stdio.h>
#include <string.h>

enum {
    TIMEOUT_DEFAULT_MS = 5000,
    RETURN_MS = 10000, /* how long after its deadline an answer can still come back */
};

/* ---- answering ---- */

static struct slice asked_id(const struct asked *asked)
{
    return slice_from(asked->text, asked->id_len);
}

static struct slice asked_from(const struct asked *asked)
{
    return slice_from(asked->text + asked->id_len, asked->from_len);
}

static void asked_free(struct session *session, struct asked *asked)
{
    list_remove(&asked->link);
    session->extra->asked_count--;
    mem_free(asked);
}

static void answered_free(struct session *session, struct asked *asked)
{
    list_remove(&asked->link);
    session->extra->answered_count--;
    mem_free(asked);
}

static void on_answer_sent(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session_op *op = container_of(request, struct session_op, request);
    struct session *session = op->session;

    if (op->command && error)
        session_error(session, op->command, error, slice_from(NULL, 0));
    else if (op->command && result->number == 0)
        session_error(session, op->command, ERROR_GONE, slice_from(NULL, 0));
    else if (op->command)
        session_ok_empty(session, op->command);
    session_inflight_end(session, op->cost, op->bytes);
    if (op->kept && !error && result->number == 0 && session->state == SESSION_ONLINE)
        session_act(session, op->kept_content, slice_from(op->kept, op->bytes));
    session_op_free(op);
}

/* Sends an answer of `kind` to who asked. `command` waits for the outcome; 0: none does. With `keep`, an answer that nobody
 * waits for any more is done with what the route says. */
static void send_answer(struct session *session, enum message_kind kind, struct slice id,
                        struct slice to_text, enum message_content content, struct slice payload,
                        int64_t command, bool keep)
{
    static const struct storage_result nothing;
    char from[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct address to;
    struct session_op *op = NULL;

    if (address_from_text(to_text, &to))
        op = session_op_create(session);
    if (!op) {
        session_error(session, command, ERROR_INTERNAL, slice_from(NULL, 0));
        return;
    }
    struct message_fields fields = {
        .kind = kind,
        .content = content,
        .from = slice_from(from, session_address(session, from)),
        .to = to_text,
        .time_ms = clock_wall_ms(),
        .payload = payload,
        .correlation = id,
        .timeout_ms = keep,
    };
    op->request.on_done = on_answer_sent;
    op->command = command;
    op->bytes = payload.len;
    /* Without memory for it, it is only lost if the one who asked has just gone. */
    op->kept = keep ? mem_dup(payload.data, payload.len) : NULL;
    op->kept_content = content;
    session_inflight_begin(session, op->cost, op->bytes);
    session->sessions->options.metrics->requests_answered += kind != MESSAGE_GONE;
    struct slice at = slice_from(channel, address_channel(&to, channel));
    if (!router_publish(session->sessions->options.router, at, &fields, &op->request))
        on_answer_sent(&op->request, ERROR_NO_MEMORY, &nothing);
}

static void refuse(struct session *session, const struct message_fields *request, const char *why)
{
    send_answer(session, MESSAGE_REFUSED, request->correlation, request->from, CONTENT_TEXT, slice_text(why),
                0, false);
}

static struct asked *find_asked(struct session *session, struct slice id)
{
    if (!session->extra)
        return NULL;
    list_for_each (link, &session->extra->asked) {
        struct asked *asked = container_of(link, struct asked, link);
        if (slice_equal(asked_id(asked), id))
            return asked;
    }
    return NULL;
}

/* Who asked told us to forget it, but that may have been missed. */
static void forget_overdue(struct session *session)
{
    uint64_t now = clock_monotonic_ms();

    if (!session->extra)
        return;
    list_for_each_safe (link, &session->extra->asked) {
        struct asked *asked = container_of(link, struct asked, link);
        if (asked->deadline_ms <= now)
            asked_free(session, asked);
    }
    list_for_each_safe (link, &session->extra->answered) {
        struct asked *asked = container_of(link, struct asked, link);
        if (asked->deadline_ms <= now)
            answered_free(session, asked);
    }
}

/* The oldest make room, should there be that many. */
static void remember_answered(struct session *session, struct asked *asked)
{
    struct session_extra *extra = session->extra;

    list_remove(&asked->link);
    extra->asked_count--;
    list_append(&extra->answered, &asked->link);
    asked->deadline_ms += RETURN_MS;
    if (++extra->answered_count > session->config->requests_limit)
        answered_free(session, container_of(extra->answered.next, struct asked, link));
}

static bool remember_asked(struct session *session, const struct message_fields *request)
{
    struct session_extra *extra = session_extra(session);
    struct asked *asked =
        extra ? mem_alloc(sizeof *asked + request->correlation.len + request->from.len) : NULL;

    if (!asked)
        return false;
    asked->id_len = request->correlation.len;
    asked->from_len = request->from.len;
    asked->deadline_ms = clock_monotonic_ms() + request->timeout_ms;
    memcpy(asked->text, request->correlation.data, asked->id_len);
    memcpy(asked->text + asked->id_len, request->from.data, asked->from_len);
    list_append(&extra->asked, &asked->link);
    extra->asked_count++;
    return true;
}

void session_asked(struct session *session, struct message *message)
{
    const struct message_fields *request = &message->fields;
    bool plain = session->face == FACE_PLAIN;

    if (session->state == SESSION_LEAVING) {
        send_answer(session, MESSAGE_GONE, request->correlation, request->from, CONTENT_TEXT,
                    slice_from(NULL, 0), 0, false);
        return;
    }
    forget_overdue(session);
    if (!request->correlation.len || !request->from.len)
        return;
    if (plain && !session->params->route->answers_next)
        refuse(session, request, "this session can not be asked: it is a plain one");
    else if (plain && session->extra && session->extra->asked_count)
        refuse(session, request, "busy: this session answers one request at a time");
    else if (session->extra && session->extra->asked_count >= session->config->requests_limit)
        refuse(session, request, "too many requests wait for this session");
    else if (!remember_asked(session, request))
        refuse(session, request, error_find(ERROR_NO_MEMORY)->text);
    else
        session_push_message(session, message);
}

void session_asked_cancelled(struct session *session, struct message *message)
{
    struct asked *asked = find_asked(session, message->fields.correlation);

    if (!asked)
        return;
    asked_free(session, asked);
    if (session->face != FACE_PLAIN)
        session_push_message(session, message);
}

void session_reply(struct session *session, const struct command *command)
{
    bool refusal = command->present & FIELD_REFUSE;

    forget_overdue(session);
    struct asked *asked = find_asked(session, command->request);
    if (!asked) {
        session_error(session, command->id, ERROR_GONE,
                      slice_text("the request is unknown, answered, or nobody waits"));
        return;
    }
    if (refusal)
        send_answer(session, MESSAGE_REFUSED, asked_id(asked), asked_from(asked), CONTENT_TEXT,
                    command->refuse, command->id, false);
    else
        send_answer(session, MESSAGE_REPLY, asked_id(asked), asked_from(asked), command->content,
                    command->payload, command->id, false);
    asked_free(session, asked);
}

bool session_answer_next(struct session *session, enum message_content content, struct slice payload)
{
    if (!session->params->route->answers_next)
        return false;
    forget_overdue(session);
    if (!session->extra || list_empty(&session->extra->asked))
        return false;
    struct asked *asked = container_of(session->extra->asked.next, struct asked, link);
    send_answer(session, MESSAGE_REPLY, asked_id(asked), asked_from(asked), content, payload, 0, true);
    remember_answered(session, asked);
    return true;
}

void session_answer_returned(struct session *session, const struct message *message)
{
    const struct message_fields *late = &message->fields;

    if (session->face != FACE_PLAIN || !session->extra)
        return;
    list_for_each (link, &session->extra->answered) {
        struct asked *asked = container_of(link, struct asked, link);
        if (slice_equal(asked_id(asked), late->correlation)) {
            answered_free(session, asked);
            session_act(session, late->content, late->payload);
            return;
        }
    }
}

void session_requests_gone(struct session *session)
{
    if (!session->extra)
        return;
    while (!list_empty(&session->extra->asked)) {
        struct asked *asked = container_of(session->extra->asked.next, struct asked, link);
        send_answer(session, MESSAGE_GONE, asked_id(asked), asked_from(asked), CONTENT_TEXT,
                    slice_from(NULL, 0), 0, false);
        asked_free(session, asked);
    }
}

/* ---- asking ---- */

static void asking_free(struct asking *asking)
{
    list_remove(&asking->link);
    asking->session->extra->asking_count--;
    mem_free(asking);
}

static void on_answer(void *data, int error, const struct message_fields *answer)
{
    struct asking *asking = data;
    struct session *session = asking->session;
    struct address from;
    struct writer writer;

    if (error) {
        session_error(session, asking->command, error, answer ? answer->payload : slice_from(NULL, 0));
    } else {
        bool named = !address_parse(answer->from, &from);
        if (session_ok_begin(session, &writer, asking->command, 1u + named)) {
            if (named)
                writer_pair_str(&writer, "from", answer->from);
            writer_payload(&writer, answer->content, answer->payload);
            session_ok_end(session, &writer);
        }
    }
    asking_free(asking);
}

void session_ask(struct session *session, const struct command *command, const struct address *to)
{
    struct session_extra *extra = session_extra(session);
    int64_t timeout = command->present & FIELD_TIMEOUT ? command->timeout : TIMEOUT_DEFAULT_MS;
    char id[CORRELATION_MAX], from[ADDRESS_MAX + 1], text[96];
    struct slice conn = session_conn(session);

    if (timeout < 1 || (uint64_t)timeout > session->config->request_timeout) {
        snprintf(text, sizeof text, "\"timeout\" must be from 1 to %llu",
                 (unsigned long long)session->config->request_timeout);
        session_error(session, command->id, ERROR_BAD_REQUEST, slice_text(text));
        return;
    }
    if (extra && extra->asking_count >= session->config->requests_limit) {
        session_error(session, command->id, ERROR_LIMIT, slice_text("too many requests are waiting"));
        return;
    }
    struct asking *asking = extra ? mem_calloc(1, sizeof *asking) : NULL;
    if (!asking)
        goto no_memory;
    asking->session = session;
    asking->command = command->id;
    list_append(&extra->asking, &asking->link);
    extra->asking_count++;
    int id_len = snprintf(id, sizeof id, "%.*s.%llu", (int)conn.len, conn.data,
                          (unsigned long long)++extra->request_count);
    struct request_question question = {
        .id = slice_from(id, (size_t)id_len),
        .from = slice_from(from, session_address(session, from)),
        .to = *to,
        .content = command->content,
        .payload = command->payload,
        .timeout_ms = (uint64_t)timeout,
        .on_done = on_answer,
        .data = asking,
    };
    asking->request = request_ask(session->sessions->options.requests, &question);
    if (asking->request)
        return;
    asking_free(asking);

no_memory:
    session_error(session, command->id, ERROR_NO_MEMORY, slice_from(NULL, 0));
}

void session_requests_drop(struct session *session)
{
    if (!session->extra)
        return;
    while (!list_empty(&session->extra->asking)) {
        struct asking *asking = container_of(session->extra->asking.next, struct asking, link);
        request_cancel(asking->request);
        asking_free(asking);
    }
}
