/* What the broker keeps for a session: who holds back what, and how a session ends that makes it keep too much or for too long.
 *
 * The budget sees a session while something is kept for it that isn't its own to write at once: what its socket doesn't take, a
 * message that is not complete, messages held back. So nothing of this is on the way of a message to a client that reads. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/budget.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/offenders.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <string.h>

/* ---- charging ---- */

static struct budget *budget_of(const struct session *session)
{
    return session->sessions->options.budget;
}

static void see(struct session *session)
{
    if (session->unsent_bytes || session->assembly_bytes || session->held_bytes)
        budget_hold(budget_of(session), &session->holder);
    else
        budget_let_go(&session->holder);
}

void session_keeps(struct session *session, enum budget_kind kind, size_t bytes)
{
    size_t *kept = kind == BUDGET_ASSEMBLY ? &session->assembly_bytes : &session->unsent_bytes;
    size_t before = *kept;

    budget_release(budget_of(session), kind, before);
    budget_charge(budget_of(session), kind, bytes);
    *kept = bytes;
    see(session);
    if (bytes > before)
        budget_check(budget_of(session));
}

/* ---- holding back ---- */

void session_hold(struct session *session, enum budget_kind kind, size_t bytes)
{
    budget_charge(budget_of(session), kind, bytes);
    session->held_bytes += bytes;
    see(session);
    budget_check(budget_of(session));
}

void session_release(struct session *session, enum budget_kind kind, size_t bytes)
{
    budget_release(budget_of(session), kind, bytes);
    session->held_bytes -= bytes;
    see(session);
}

static size_t message_memory(const struct message *message)
{
    return sizeof *message + message->len + BUDGET_OVERHEAD;
}

bool held_append(struct list *list, size_t *bytes, struct feed *feed, struct message *message)
{
    struct session *session = feed->session;
    size_t size = sizeof(struct held_message) + message->len;
    struct held_message *held = NULL;

    if (*bytes + size <= session->sessions->options.outbox_limit)
        held = mem_alloc(sizeof *held);
    if (!held) {
        session_cut(session, CUT_OUTBOX_LIMIT);
        return false;
    }
    *bytes += size;
    held->feed = feed;
    held->message = message_ref(message);
    list_append(list, &held->link);
    budget_charge(budget_of(session), BUDGET_HELD, sizeof *held + BUDGET_OVERHEAD);
    if (!message->held++)
        budget_charge(budget_of(session), BUDGET_HELD, message_memory(message));
    session->held_bytes += size;
    see(session);
    budget_check(budget_of(session));
    return true;
}

void held_drop(struct list *list, size_t count)
{
    for (struct list *link; count-- && (link = list_pop(list));) {
        struct held_message *held = container_of(link, struct held_message, link);
        struct session *session = held->feed->session;
        session->held_bytes -= sizeof *held + held->message->len;
        see(session);
        budget_release(budget_of(session), BUDGET_HELD, sizeof *held + BUDGET_OVERHEAD);
        if (!--held->message->held)
            budget_release(budget_of(session), BUDGET_HELD, message_memory(held->message));
        message_unref(held->message);
        mem_free(held);
    }
}

/* ---- cutting ---- */

static const struct {
    const char *reason;
    size_t counter; /* of struct metrics */
} cuts[] = {
    [CUT_OUTBOX_LIMIT] = {"outbox_limit", offsetof(struct metrics, sessions_slow)},
    [CUT_STALL] = {"stall_timeout", offsetof(struct metrics, sessions_stalled)},
    [CUT_MEMORY] = {"memory_budget", offsetof(struct metrics, sessions_shed)},
    [CUT_UNFINISHED] = {"message_timeout", offsetof(struct metrics, sessions_unfinished)},
};

bool session_may_log(struct session *session, uint64_t *left_out)
{
    struct slice name = session_name(session), from = session_remote(session);
    const char *conn = memchr(name.data, '~', name.len), *colon = memrchr(from.data, ':', from.len);

    /* A new connection from another port is the same offender. */
    if (conn)
        name.len = (size_t)(conn - name.data);
    if (colon)
        from.len = (size_t)(colon - from.data);
    return offenders_may_log(&session->sessions->offenders, name, from, clock_monotonic_ms(), left_out);
}

static void tell_cut(struct session *session, enum session_cut why, bool sender)
{
    struct session_transport *transport = session->transport;
    uint64_t left_out;

    if (!session_may_log(session, &left_out))
        return;
    log_warn(sender ? "slow sender cut" : "slow reader cut", log_slice("session", session_name(session)),
             log_slice("conn", session_conn(session)), log_slice("remote", session_remote(session)),
             log_str("reason", cuts[why].reason), log_int("queued_bytes", (int64_t)session->outbox.bytes),
             log_int("queued_messages", session->outbox.count),
             log_int("unsent_bytes", (int64_t)session->unsent_bytes),
             log_int("held_bytes", (int64_t)session->held_bytes),
             log_int("unfinished_bytes", (int64_t)session->assembly_bytes),
             log_int("age_ms", transport ? (int64_t)transport->ops->still_ms(transport) : 0),
             log_int("left_out", (int64_t)left_out));
}

void session_cut(struct session *session, enum session_cut why)
{
    bool sender = why == CUT_UNFINISHED ||
                  (why == CUT_MEMORY && session->assembly_bytes >
                                            session->outbox.bytes + session->unsent_bytes + session->held_bytes);

    if (session->state != SESSION_LEAVING) {
        ++*(uint64_t *)(void *)((char *)session->sessions->options.metrics + cuts[why].counter);
        tell_cut(session, why, sender);
    }
    outbox_close(&session->outbox);
    session_end(session, sender ? CLOSE_SLOW_SENDER : CLOSE_SLOW_READER);
}

/* ---- the budget's view ---- */

static struct session *session_of(const struct budget_holder *holder)
{
    return container_of(holder, struct session, holder);
}

static size_t holder_bytes(const struct budget_holder *holder)
{
    const struct session *session = session_of(holder);

    return session->outbox.bytes + session->unsent_bytes + session->assembly_bytes + session->held_bytes;
}

static uint64_t holder_still_ms(struct budget_holder *holder)
{
    struct session_transport *transport = session_of(holder)->transport;

    return transport ? transport->ops->still_ms(transport) : UINT64_MAX;
}

static void holder_cut(struct budget_holder *holder)
{
    struct session *session = session_of(holder);

    session_cut(session, CUT_MEMORY);
    held_drop(&session->pending, SIZE_MAX);
    session_recover_forget(session);
    session_drop_input(session);
    budget_let_go(holder);
    if (session->transport)
        session->transport->ops->drop(session->transport);
}

const struct budget_ops session_budget_ops = {
    .bytes = holder_bytes, .still_ms = holder_still_ms, .cut = holder_cut};
