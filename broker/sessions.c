/* The set of all sessions, and what happens to all of them: outages of the storage, and the end of the process.
 *
 * Failures. While the storage is down, sessions stay open, but those still REGISTERING are told to reconnect. A session
 * that leaves meanwhile stays in LEAVING, without its connection, until the registry can be told. When the registry lost
 * us, every online session is registered anew, in batches, and then recovers what was stored meanwhile. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "proto/frame.h"

#include <event2/event.h>
#include <string.h>
#include <sys/random.h>

enum { RESTORE_BATCH = 256, OP_POOL_MAX = 1024 };

/* ---- the set ---- */

static void on_restore(struct loop_task *task);
static void on_retry(evutil_socket_t fd, short what, void *data);

static void write_base32(uint64_t value, char *out, size_t digits)
{
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

    for (size_t i = digits; i-- > 0; value >>= 5)
        out[i] = alphabet[value & 31];
    out[digits] = '\0';
}

struct sessions *sessions_create(const struct sessions_options *options)
{
    struct sessions *sessions = mem_calloc(1, sizeof *sessions);
    uint64_t random = 0;

    if (!sessions)
        return NULL;
    sessions->options = *options;
    options->budget->ops = &session_budget_ops;
    for (size_t i = 0; i < SESSION_STATE_COUNT; i++)
        list_init(&sessions->states[i]);
    list_init(&sessions->restoring);
    list_init(&sessions->ended);
    list_init(&sessions->resting);
    list_init(&sessions->crowded);
    list_init(&sessions->op_pool);
    loop_task_init(&sessions->teardown_task, sessions_on_teardown);
    loop_task_init(&sessions->restore_task, on_restore);
    loop_task_init(&sessions->turn_task, sessions_on_turn);
    buffer_init(&sessions->address, 0);
    buffer_init(&sessions->payload, 0);
    buffer_init(&sessions->frame, 0);
    /* A conn is unique for ever: 50 random bits for this process, then a count. */
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = clock_wall_ms() << 20 ^ clock_monotonic_us();
    write_base32(random, sessions->conn_prefix, 10);
    sessions->retry = event_new(loop_base(options->loop), -1, 0, on_retry, sessions);
    if (!sessions->retry) {
        mem_free(sessions);
        return NULL;
    }
    return sessions;
}

void sessions_destroy(struct sessions *sessions)
{
    if (!sessions)
        return;
    loop_cancel(&sessions->teardown_task);
    loop_cancel(&sessions->restore_task);
    loop_cancel(&sessions->turn_task);
    event_free(sessions->retry);
    /* Those that ended in the last turn, and those that waited for the storage to come back. */
    list_splice(&sessions->ended, &sessions->restoring);
    for (size_t i = 0; i < SESSION_STATE_COUNT; i++)
        list_splice(&sessions->ended, &sessions->states[i]);
    while (!list_empty(&sessions->ended))
        session_free(container_of(sessions->ended.next, struct session, link));
    for (struct list *link; (link = list_pop(&sessions->op_pool));)
        mem_free(container_of(link, struct session_op, pool_link));
    buffer_close(&sessions->address);
    buffer_close(&sessions->payload);
    buffer_close(&sessions->frame);
    mem_free(sessions);
}

size_t sessions_online(const struct sessions *sessions)
{
    return sessions->online;
}

size_t sessions_total(const struct sessions *sessions)
{
    return sessions->total;
}

void session_set_state(struct session *session, enum session_state state)
{
    struct sessions *sessions = session->sessions;

    if (session->state == SESSION_ONLINE)
        sessions->online--;
    if (state == SESSION_ONLINE)
        sessions->online++;
    session->state = (uint8_t)state;
    list_remove(&session->link);
    list_append(&sessions->states[state], &session->link);
}

/* ---- operations ---- */

struct session_op *session_op_create(struct session *session)
{
    struct sessions *sessions = session->sessions;
    struct list *link = list_pop(&sessions->op_pool);
    struct session_op *op = link ? container_of(link, struct session_op, pool_link) : mem_alloc(sizeof *op);

    if (!op)
        return NULL;
    if (link)
        sessions->op_pool_count--;
    *op = (struct session_op){.session = session, .cost = 1};
    session->ops++;
    return op;
}

void session_op_free(struct session_op *op)
{
    struct session *session = op->session;
    struct sessions *sessions = session->sessions;

    frame_unref(op->reply);
    mem_free(op->kept);
    if (sessions->op_pool_count < OP_POOL_MAX) {
        list_prepend(&sessions->op_pool, &op->pool_link);
        sessions->op_pool_count++;
    } else {
        mem_free(op);
    }
    session->ops--;
    session_maybe_free(session);
}

/* ---- ending ---- */

size_t sessions_end_some(struct sessions *sessions, size_t count, int code)
{
    struct list *lists[] = {&sessions->restoring, &sessions->states[SESSION_ONLINE],
                            &sessions->states[SESSION_REGISTERING]};

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (; count && !list_empty(lists[i]); count--)
            session_end(container_of(lists[i]->next, struct session, link), code);
    size_t leaving = 0;
    list_for_each (link, &sessions->ended)
        leaving++;
    list_for_each (link, &sessions->states[SESSION_LEAVING])
        leaving++;
    return sessions->total - leaving;
}

/* ---- outages ---- */

/* After these the storage reports when it is back, and all is told to it again. */
bool session_is_outage(int error)
{
    return error == ERROR_UNAVAILABLE || error == ERROR_TIMEOUT || error == ERROR_CANCELLED;
}

void sessions_retry_later(struct sessions *sessions)
{
    static const struct timeval delay = {.tv_sec = 1};

    if (!event_pending(sessions->retry, EV_TIMEOUT, NULL))
        event_add(sessions->retry, &delay);
}

void session_restore_later(struct session *session)
{
    struct sessions *sessions = session->sessions;

    session->restore_again = false;
    list_remove(&session->link);
    list_append(&sessions->restoring, &session->link);
    loop_defer(sessions->options.loop, &sessions->restore_task);
}

void sessions_on_storage_down(struct sessions *sessions)
{
    /* Their requests fail by themselves, but a notice that was lost would be waited for in vain. */
    list_for_each_safe (link, &sessions->states[SESSION_REGISTERING]) {
        session_end(container_of(link, struct session, link), CLOSE_UNAVAILABLE);
    }
    list_for_each (link, &sessions->restoring) {
        session_recover_hold(container_of(link, struct session, link));
    }
    list_for_each (link, &sessions->states[SESSION_ONLINE]) {
        session_recover_hold(container_of(link, struct session, link));
    }
}

static void on_restored(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session *session = container_of(request, struct session, registry);
    struct sessions *sessions = session->sessions;

    (void)result;
    session->asking = false;
    if (--sessions->restores_open < RESTORE_BATCH && !list_empty(&sessions->restoring))
        loop_defer(sessions->options.loop, &sessions->restore_task);
    if (session->state == SESSION_LEAVING) {
        session_leave_registry(session);
    } else if (error == ERROR_CONFLICT) {
        sessions->options.metrics->sessions_replaced++;
        session_end(session, CLOSE_REPLACED);
    } else if (session->restore_again) {
        session_restore_later(session);
    } else if (!error) {
        session_topics_rejoin(session);
        session_recover_start(session);
    } else if (!session_is_outage(error)) {
        log_warn("session not registered", log_slice("session", session_name(session)),
                 log_str("reason", error_name(error)));
        session_end(session, CLOSE_UNAVAILABLE);
    }
}

static void on_restore(struct loop_task *task)
{
    struct sessions *sessions = container_of(task, struct sessions, restore_task);

    while (sessions->restores_open < 2 * RESTORE_BATCH) {
        struct list *link = list_pop(&sessions->restoring);
        if (!link)
            return;
        struct session *session = container_of(link, struct session, link);
        list_append(&sessions->states[SESSION_ONLINE], link);
        if (session->asking) {
            session->restore_again = true;
            continue;
        }
        if (session_register(session, true, on_restored))
            sessions->restores_open++;
    }
}

/* Tells the registry to forget those that it didn't forget when they left. */
static void leave_again(struct sessions *sessions)
{
    list_for_each_safe (link, &sessions->states[SESSION_LEAVING]) {
        struct session *session = container_of(link, struct session, link);
        if (session->registered)
            session_leave_registry(session);
    }
}

static void on_retry(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    leave_again(data);
}

void sessions_on_registry_lost(struct sessions *sessions)
{
    list_splice(&sessions->restoring, &sessions->states[SESSION_ONLINE]);
    if (!list_empty(&sessions->restoring))
        loop_defer(sessions->options.loop, &sessions->restore_task);
    /* Whatever the registry answered them, or is about to, was before the loss. */
    list_for_each (link, &sessions->states[SESSION_REGISTERING]) {
        struct session *session = container_of(link, struct session, link);
        session->restore_again = session->registered;
    }
    leave_again(sessions);
}
