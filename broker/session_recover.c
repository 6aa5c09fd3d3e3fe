/* Stored messages that were missed: live ones are held back, the history is read from the place where the feed was, page by page as
 * the client takes it, then what was held follows, without what the history gave already.
 *
 * The subscription is made before the history is read, so nothing falls between the two; what both give is recognised by its
 * offset, also when the live copy comes late. */
#include "base/alloc.h"
#include "base/clock.h"
#include "broker/metrics.h"
#include "broker/session_internal.h"
#include "proto/errors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 256 };

static void read_page(struct feed *feed);

static void copy_text(char *out, size_t size, struct slice text)
{
    size_t len = text.len < size ? text.len : size - 1;

    if (len)
        memcpy(out, text.data, len);
    out[len] = '\0';
}

struct slice feed_address(const struct feed *feed, char out[static ADDRESS_MAX + 1])
{
    struct session *session = feed->session;
    struct address address;
    struct slice text;

    if (feed == &session->own)
        return slice_from(out, session_address(session, out));
    if (feed == &session->group)
        return session_route_address(session, &address, &text) ? text : slice_from(NULL, 0);
    const struct subscription *subscription = container_of(feed, struct subscription, feed);
    address = (struct address){.kind = ADDRESS_TOPIC,
                               .name = slice_from(subscription->topic, subscription->topic_len)};
    return slice_from(out, address_format(&address, out));
}

/* Offsets are MS-N, and N counts the messages of the history. */
static uint64_t offset_number(const char *offset)
{
    const char *dash = strchr(offset, '-');

    return dash ? strtoull(dash + 1, NULL, 10) : 0;
}

bool feed_remember(struct feed *feed, struct slice epoch, struct slice offset)
{
    if (!feed->memory) {
        feed->memory = mem_calloc(1, sizeof *feed->memory);
        if (!feed->memory)
            return false;
        feed->memory->feed = feed;
        list_init(&feed->memory->held);
    }
    copy_text(feed->memory->epoch, sizeof feed->memory->epoch, epoch);
    copy_text(feed->memory->offset, sizeof feed->memory->offset, offset);
    return true;
}

void feed_close(struct feed *feed)
{
    if (!feed->memory)
        return;
    held_drop(&feed->memory->held, SIZE_MAX);
    mem_free(feed->memory);
    feed->memory = NULL;
}

void feed_hold(struct feed *feed)
{
    feed->memory->recovering = true;
}

/* A message that the feed is past already. */
static bool is_double(const struct feed_memory *memory, const struct message_fields *fields)
{
    char offset[OFFSET_MAX + 1];

    if (!memory->offset[0] || !slice_is(fields->epoch, memory->epoch))
        return false;
    copy_text(offset, sizeof offset, fields->offset);
    return offset_number(offset) <= offset_number(memory->offset);
}

bool feed_absorb(struct feed *feed, struct message *message)
{
    struct feed_memory *memory = feed->memory;
    const struct message_fields *fields = &message->fields;
    bool stored = fields->offset.len > 0;

    if (memory && memory->recovering) {
        held_append(&memory->held, &memory->held_bytes, feed, message);
        return true;
    }
    /* A plain client can't say how far it got, so nothing is remembered for it. Patterns have no history of their own. */
    struct subscription *subscription = subscription_of(feed);
    if (!stored || (feed->session->face == FACE_PLAIN && !memory) || (subscription && subscription->pattern))
        return false;
    if (memory && is_double(memory, fields))
        return true;
    feed_remember(feed, fields->epoch, fields->offset);
    return false;
}

/* ---- telling ---- */

static void tell(struct feed *feed, const struct recovery_outcome *outcome)
{
    struct feed_memory *memory = feed->memory;
    struct session *session = feed->session;

    if (memory->announced)
        return;
    memory->announced = true;
    session->sessions->options.metrics->recoveries++;
    switch (memory->cause) {
    case RECOVER_HELLO:
        if (session->face != FACE_PLAIN)
            session_push_hello(session, outcome);
        session_greet(session);
        break;
    case RECOVER_SUBSCRIBE:
        session_subscribed(session, subscription_of(feed), outcome);
        break;
    case RECOVER_OUTAGE:
        if (session->face != FACE_PLAIN)
            session_push_recovered(session, feed, outcome);
        break;
    }
}

/* ---- reading ---- */

static enum message_content content_of(struct slice name)
{
    return slice_is(name, "binary") ? CONTENT_BINARY : slice_is(name, "json") ? CONTENT_JSON : CONTENT_TEXT;
}

void session_history_fields(const struct storage_record *record, struct message_fields *fields)
{
    *fields = (struct message_fields){.kind = MESSAGE_DATA, .offset = record->key};
    for (size_t i = 0; i < record->field_count; i++) {
        struct slice name = record->fields[i].name, value = record->fields[i].value;
        char number[24];
        if (slice_is(name, "epoch")) {
            fields->epoch = value;
        } else if (slice_is(name, "from")) {
            fields->from = value;
        } else if (slice_is(name, "id")) {
            fields->id = value;
        } else if (slice_is(name, "payload")) {
            fields->payload = value;
        } else if (slice_is(name, "content")) {
            fields->content = content_of(value);
        } else if (slice_is(name, "time")) {
            copy_text(number, sizeof number, value);
            fields->time_ms = strtoull(number, NULL, 10);
        }
    }
}

static void deliver_page(struct feed *feed, const struct storage_result *result)
{
    struct session *session = feed->session;
    char to[ADDRESS_MAX + 1];
    struct slice address = feed_address(feed, to);

    for (size_t i = 0; i < result->record_count && session->state == SESSION_ONLINE; i++) {
        struct message_fields fields;
        session_history_fields(&result->records[i], &fields);
        fields.to = address;
        struct message *message = message_create(&fields);
        if (!message) { /* connected anew, it gets what it can't get now */
            session_end(session, CLOSE_INTERNAL);
            return;
        }
        session_push_message(session, message);
        message_unref(message);
        feed_remember(feed, fields.epoch, fields.offset);
    }
}

/* Live from now on: what was held follows. */
static void go_live(struct feed *feed)
{
    struct feed_memory *memory = feed->memory;
    struct list held;

    memory->recovering = false;
    memory->held_bytes = 0;
    list_init(&held);
    list_splice(&held, &memory->held);
    while (!list_empty(&held) && feed->session->state == SESSION_ONLINE) {
        struct held_message *first = container_of(held.next, struct held_message, link);
        session_take(feed, first->message);
        held_drop(&held, 1);
    }
    held_drop(&held, SIZE_MAX);
}

static void on_page(struct feed *feed, int error, const struct storage_result *result)
{
    struct feed_memory *memory = feed->memory;
    struct subscription *subscription = subscription_of(feed);
    struct recovery_outcome outcome = {
        .recovered = !error && result->number == 1, .epoch = result->epoch, .offset = result->offset};

    if (error && memory->cause == RECOVER_SUBSCRIBE && !memory->announced) {
        subscription_fail(subscription, error);
        return;
    }
    /* The storage is gone again: the next reconnect goes on from here. */
    if (error == ERROR_UNAVAILABLE && (memory->cause == RECOVER_OUTAGE || memory->announced))
        return;
    bool more = !error && result->cursor.len > 0;
    /* What was left to read when the first page came may be gone from the history by now. */
    if (memory->announced && !outcome.recovered && feed->session->face != FACE_PLAIN)
        session_push_recovered(feed->session, feed, &outcome);
    tell(feed, &outcome);
    if (!error)
        deliver_page(feed, result);
    if (feed->session->state != SESSION_ONLINE)
        return;
    if (!more) {
        go_live(feed);
        return;
    }
    /* What was outlived behind the last one given need not be looked at again. */
    feed_remember(feed, result->epoch, result->cursor);
    memory->waiting = feed->session->outbox.count > 0;
    if (memory->waiting)
        feed->session->wants_room = true;
    else
        read_page(feed);
}

static void on_history_read(struct storage_request *request, int error, const struct storage_result *result)
{
    struct feed *feed = container_of(request, struct feed_memory, request)->feed;
    struct subscription *subscription = subscription_of(feed);
    struct session *session = feed->session;
    bool dropped = subscription && subscription->dropped;

    feed->memory->reading = false;
    read_done(&feed->memory->read);
    if (dropped)
        subscription_maybe_free(subscription);
    else if (session->state == SESSION_ONLINE)
        on_page(feed, error, result);
    session->ops--;
    session_maybe_free(session);
}

/* The feed's turn to read has come. */
static bool on_turn(struct read *read)
{
    static const struct storage_result nothing;
    struct feed_memory *memory = container_of(read, struct feed_memory, read);
    struct feed *feed = memory->feed;
    struct session *session = feed->session;
    const struct subscription *subscription = subscription_of(feed);
    struct address address;
    char text[ADDRESS_MAX + 1], channel[CHANNEL_MAX];

    if (session->state != SESSION_ONLINE || (subscription && subscription->dropped) ||
        address_parse(feed_address(feed, text), &address)) {
        on_history_read(&memory->request, ERROR_CANCELLED, &nothing);
        return true;
    }
    if (!session_has_room(session, session_read_size(session)))
        return false;
    struct storage_history_query query = {
        .offset = slice_text(memory->offset),
        .epoch = slice_text(memory->epoch),
        .limit = PAGE,
        .bytes = session_read_size(session),
    };
    storage_history(session->sessions->options.storage,
                    slice_from(channel, address_channel(&address, channel)), &query, &memory->request);
    return true;
}

static void read_page(struct feed *feed)
{
    struct feed_memory *memory = feed->memory;
    struct session_extra *extra = session_extra(feed->session);

    if (!extra) { /* connected anew, the client gets what it can't get now */
        session_end(feed->session, CLOSE_INTERNAL);
        return;
    }
    memory->reading = true;
    memory->request.on_done = on_history_read;
    memory->read.start = on_turn;
    feed->session->ops++;
    read_ask(&extra->reader, &memory->read);
}

void feed_recover(struct feed *feed, enum recover_cause cause, int64_t command)
{
    struct feed_memory *memory = feed->memory;

    memory->cause = cause;
    memory->command = command;
    memory->announced = false;
    memory->waiting = false;
    memory->recovering = true;
    memory->begun = true;
    if (!memory->reading)
        read_page(feed);
}

/* ---- all of a session's feeds ---- */

static void each_feed(struct session *session, void (*visit)(struct feed *feed))
{
    visit(&session->own);
    if (session->group.subscriber.channel)
        visit(&session->group);
    if (!session->extra)
        return;
    /* A visit may drop its subscription, no other. */
    list_for_each_safe (link, &session->extra->subscriptions) {
        visit(&container_of(link, struct subscription, link)->feed);
    }
}

static void hold_feed(struct feed *feed)
{
    if (feed->memory)
        feed_hold(feed);
}

void session_recover_hold(struct session *session)
{
    session->outage = true;
    each_feed(session, hold_feed);
}

static void drop_held(struct feed *feed)
{
    if (feed->memory)
        held_drop(&feed->memory->held, SIZE_MAX);
}

void session_recover_forget(struct session *session)
{
    each_feed(session, drop_held);
}

static void restart_feed(struct feed *feed)
{
    static const struct recovery_outcome lost = {.recovered = false};
    struct session *session = feed->session;
    struct subscription *subscription = subscription_of(feed);

    if (subscription && !subscription->confirmed)
        return;
    if (feed->memory)
        feed_recover(feed,
                     feed->memory->announced || !feed->memory->begun ? RECOVER_OUTAGE : feed->memory->cause,
                     feed->memory->command);
    else if (session->face != FACE_PLAIN && session->greeted)
        session_push_recovered(session, feed, &lost);
}

void session_recover_start(struct session *session)
{
    if (!session->outage || session->state != SESSION_ONLINE)
        return;
    session->outage = false;
    each_feed(session, restart_feed);
}

static void continue_feed(struct feed *feed)
{
    if (!feed->memory || !feed->memory->waiting)
        return;
    feed->memory->waiting = false;
    read_page(feed);
}

void session_recover_continue(struct session *session)
{
    if (session->state != SESSION_ONLINE)
        return;
    each_feed(session, continue_feed);
}
