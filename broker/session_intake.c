/* What a client sends, carried out by turns.
 *
 * A session may do so much in one turn of the loop, and have so much open at the storage. Beyond that it is not read, and what came
 * with its last message is kept. When its turn is used up it waits for the next one, behind the others who wait: a few of them go
 * on in each turn, so that a turn stays short however many wait. When it has too much open, it waits until half of that is
 * answered. When everybody together has too much open, only those are read who have next to nothing open: whoever sends little is
 * not kept waiting by those who send much.
 *
 * A transport may hand over a message or two after it was told to stop; they wait behind what is kept. */
#include "base/alloc.h"
#include "broker/loop.h"
#include "broker/metrics.h"
#include "broker/session_internal.h"
#include "proto/errors.h"

#include <string.h>

enum {
    ROUND = 4, /* sessions whose turn was used up that go on in one turn of the loop */
    FEW = 4,   /* what each may have open, however much all have */
};

/* A message, or the rest of one, that is not carried out yet. */
struct input {
    struct list link;
    enum message_content content;
    size_t len, done;
    char bytes[];
};

/* ---- a turn ---- */

static void begin_turn(struct session *session)
{
    uint32_t turn = (uint32_t)loop_turns(session->sessions->options.loop);

    if (session->turn == turn)
        return;
    session->turn = turn;
    session->turn_commands = 0;
    session->turn_bytes = 0;
}

static bool turn_is_over(const struct session *session)
{
    const struct sessions_options *options = &session->sessions->options;

    return session->turn_commands >= options->turn_commands || session->turn_bytes >= options->turn_bytes;
}

bool session_has_turn(const struct session *session)
{
    return session->state == SESSION_ONLINE && !session->paused && !turn_is_over(session);
}

void session_charge_turn(struct session *session, size_t bytes)
{
    session->turn_commands++;
    session->turn_bytes += bytes;
}

/* ---- reading, or not ---- */

static void set_reading(struct session *session, bool on)
{
    if (session->reading == on || session->state != SESSION_ONLINE)
        return;
    session->reading = on;
    session->transport->ops->set_reading(session->transport, on);
}

bool session_is_busy(const struct session *session)
{
    return session->state == SESSION_ONLINE && !session->reading;
}

/* Waits for the next turn, behind the others. */
static void wait_for_turn(struct session *session)
{
    struct sessions *sessions = session->sessions;

    if (!list_empty(&session->queue))
        return;
    sessions->options.metrics->turns_used_up++;
    list_append(&sessions->resting, &session->queue);
    sessions->resting_count++;
    loop_defer(sessions->options.loop, &sessions->turn_task);
}

void session_leave_queue(struct session *session)
{
    struct sessions *sessions = session->sessions;

    if (list_empty(&session->queue))
        return;
    list_remove(&session->queue);
    if (session->crowded)
        session->crowded = false;
    else
        sessions->resting_count--;
}

void session_settle(struct session *session)
{
    if (session->state != SESSION_ONLINE)
        return;
    begin_turn(session);
    if (!session->paused && (!list_empty(&session->input) || turn_is_over(session)))
        wait_for_turn(session);
    set_reading(session, session->greeted && !session->paused && list_empty(&session->queue));
}

/* ---- what is open ---- */

static bool has_too_much_open(const struct session *session)
{
    const struct sessions_options *options = &session->sessions->options;

    return session->inflight >= options->inflight_limit ||
           session->inflight_bytes >= options->inflight_bytes ||
           (session->extra && session->extra->reading_count >= options->session_reads);
}

static bool has_drained(const struct session *session)
{
    const struct sessions_options *options = &session->sessions->options;

    return session->inflight <= options->inflight_limit / 2 &&
           session->inflight_bytes <= options->inflight_bytes / 2 &&
           (!session->extra || session->extra->reading_count < options->session_reads);
}

/* Everybody together has too much open, or in memory, and this session has its part in it. */
static bool is_crowded(const struct session *session)
{
    const struct sessions *sessions = session->sessions;

    return (sessions->inflight >= sessions->options.inflight_total && session->inflight >= FEW) ||
           (session->inflight && budget_is_over(sessions->options.budget));
}

static void wait_for_space(struct session *session)
{
    session_leave_queue(session);
    session->paused = true;
    if (has_too_much_open(session))
        return;
    session->crowded = true;
    session->sessions->options.metrics->sessions_crowded++;
    list_append(&session->sessions->crowded, &session->queue);
}

/* Goes on if there is space again. */
static void look_for_space(struct session *session)
{
    bool wait = session->crowded ? has_too_much_open(session) : !has_drained(session);

    session_leave_queue(session);
    if (wait)
        return;
    if (is_crowded(session)) {
        wait_for_space(session);
        return;
    }
    session->paused = false;
    session_settle(session);
}

void session_inflight_begin(struct session *session, size_t cost, size_t bytes)
{
    session->inflight += (uint32_t)cost;
    session->inflight_bytes += bytes;
    session->sessions->inflight += cost;
    budget_charge(session->sessions->options.budget, BUDGET_INFLIGHT, bytes);
    if (session->paused || session->state != SESSION_ONLINE ||
        (!has_too_much_open(session) && !is_crowded(session)))
        return;
    wait_for_space(session);
    set_reading(session, false);
}

void session_inflight_end(struct session *session, size_t cost, size_t bytes)
{
    struct sessions *sessions = session->sessions;

    session->inflight -= (uint32_t)cost;
    session->inflight_bytes -= bytes;
    sessions->inflight -= cost;
    budget_release(sessions->options.budget, BUDGET_INFLIGHT, bytes);
    if (session->paused && session->state == SESSION_ONLINE && (!session->crowded || session->inflight < FEW))
        look_for_space(session);
    if (!list_empty(&sessions->crowded) && sessions->inflight < sessions->options.inflight_total)
        loop_defer(sessions->options.loop, &sessions->turn_task);
}

/* ---- carrying out ---- */

/* As much of a message as the session may now; returns how many bytes of it are done. */
static size_t carry_out(struct session *session, enum message_content content, struct slice payload)
{
    if (session->face != FACE_PLAIN)
        return session_receive_frames(session, content, payload);
    session_charge_turn(session, payload.len);
    session_receive_plain(session, content, payload);
    return payload.len;
}

static size_t input_memory(const struct input *input)
{
    return sizeof *input + input->len + BUDGET_OVERHEAD;
}

static void input_free(struct session *session, struct input *input)
{
    list_remove(&input->link);
    session_release(session, BUDGET_INPUT, input_memory(input));
    mem_free(input);
}

static void keep(struct session *session, enum message_content content, struct slice payload)
{
    struct input *input = mem_alloc(sizeof *input + payload.len);

    if (!input) { /* what is lost must not be lost in silence */
        session_end(session, CLOSE_INTERNAL);
        return;
    }
    *input = (struct input){.content = content, .len = payload.len};
    if (payload.len)
        memcpy(input->bytes, payload.data, payload.len);
    list_append(&session->input, &input->link);
    session_hold(session, BUDGET_INPUT, input_memory(input));
}

void session_receive(struct session *session, enum message_content content, struct slice payload)
{
    struct metrics *metrics = session->sessions->options.metrics;

    if (session->state != SESSION_ONLINE)
        return;
    metrics->messages_received++;
    metrics->bytes_received += payload.len;
    begin_turn(session);
    if (!session_has_turn(session) || !list_empty(&session->input) || !list_empty(&session->queue)) {
        keep(session, content, payload);
        return;
    }
    size_t done = carry_out(session, content, payload);
    if (done < payload.len && session->state == SESSION_ONLINE)
        keep(session, content, slice_from(payload.data + done, payload.len - done));
    session_settle(session);
}

static void carry_on(struct session *session)
{
    begin_turn(session);
    while (session_has_turn(session) && !list_empty(&session->input)) {
        struct input *input = container_of(session->input.next, struct input, link);
        input->done += carry_out(session, input->content,
                                 slice_from(input->bytes + input->done, input->len - input->done));
        /* A session that ended dropped it. */
        if (session->state == SESSION_ONLINE && input->done == input->len)
            input_free(session, input);
    }
    session_settle(session);
}

void sessions_on_turn(struct loop_task *task)
{
    struct sessions *sessions = container_of(task, struct sessions, turn_task);
    size_t round = sessions->resting_count < ROUND ? sessions->resting_count : ROUND;

    for (; round; round--) {
        struct session *session = container_of(sessions->resting.next, struct session, queue);
        session_leave_queue(session);
        carry_on(session);
    }
    for (round = ROUND;
         round && !list_empty(&sessions->crowded) && sessions->inflight < sessions->options.inflight_total;
         round--)
        look_for_space(container_of(sessions->crowded.next, struct session, queue));
    if (!list_empty(&sessions->resting))
        loop_defer(sessions->options.loop, &sessions->turn_task);
}

void session_drop_input(struct session *session)
{
    while (!list_empty(&session->input))
        input_free(session, container_of(session->input.next, struct input, link));
}
