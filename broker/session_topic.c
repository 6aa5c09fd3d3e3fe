/* Topics of a structured session.
 *
 * A subscription is in the session's list from the command on. When the bus confirms it, it is answered, or recovers first and is
 * answered then. Dropped, it receives nothing more; its memory stays until the storage's calls that point to it are over. */
#include "base/alloc.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/topic.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct slice topic_of(const struct subscription *subscription)
{
    return slice_from(subscription->topic, subscription->topic_len);
}

static struct slice topic_channel(const struct subscription *subscription, char out[static CHANNEL_MAX])
{
    struct address address = {.kind = ADDRESS_TOPIC, .name = topic_of(subscription)};

    return slice_from(out, address_channel(&address, out));
}

struct subscription *subscription_of(struct feed *feed)
{
    if (feed == &feed->session->own || feed == &feed->session->group)
        return NULL;
    return container_of(feed, struct subscription, feed);
}

static struct subscription *find(struct session *session, struct slice topic)
{
    if (!session->extra)
        return NULL;
    list_for_each (link, &session->extra->subscriptions) {
        struct subscription *subscription = container_of(link, struct subscription, link);
        if (slice_equal(topic_of(subscription), topic))
            return subscription;
    }
    return NULL;
}

/* ---- ending ---- */

void subscription_maybe_free(struct subscription *subscription)
{
    const struct feed_memory *memory = subscription->feed.memory;

    if (!subscription->dropped || subscription->joining || (memory && memory->reading))
        return;
    feed_close(&subscription->feed);
    mem_free(subscription);
}

/* Not from a callback of the router, unless the router has already let go of it. */
static void drop(struct subscription *subscription)
{
    struct session *session = subscription->feed.session;

    router_unsubscribe(session->sessions->options.router, &subscription->feed.subscriber);
    list_remove(&subscription->link);
    session->extra->subscription_count--;
    session->extra->pattern_count -= subscription->pattern;
    subscription->dropped = true;
    subscription_maybe_free(subscription);
}

void session_topics_drop(struct session *session)
{
    if (!session->extra)
        return;
    while (!list_empty(&session->extra->subscriptions))
        drop(container_of(session->extra->subscriptions.next, struct subscription, link));
}

void subscription_fail(struct subscription *subscription, int code)
{
    /* Of all that a subscription asks of the storage, only an offset can be malformed. */
    struct slice text = slice_text(code == ERROR_BAD_REQUEST ? "\"since\": no offset of ours" : NULL);

    session_error(subscription->feed.session, subscription->command, code, text);
    drop(subscription);
}

/* Drops what the client itself no longer wants, and answers the subscribe if that is still to be done. */
static void overtake(struct subscription *subscription)
{
    const struct feed_memory *memory = subscription->feed.memory;
    bool recovering = subscription->since && !subscription->pattern && !memory->announced;

    if (!subscription->confirmed || recovering)
        session_error(subscription->feed.session, subscription->command, ERROR_CONFLICT,
                      slice_text("a later command for the same topic overtook this one"));
    drop(subscription);
}

/* ---- presence ---- */

static void on_joined(struct storage_request *request, int error, const struct storage_result *result)
{
    struct subscription *subscription = container_of(request, struct subscription, join);
    struct session *session = subscription->feed.session;

    uint64_t left_out;

    (void)result;
    subscription->joining = false;
    session_inflight_end(session, SCRIPT_COST, 0);
    if (error && session_may_log(session, &left_out))
        log_warn("presence not joined", log_slice("session", session_name(session)),
                 log_slice("topic", topic_of(subscription)), log_str("reason", error_name(error)),
                 log_int("left_out", (int64_t)left_out));
    subscription_maybe_free(subscription);
    session->ops--;
    session_maybe_free(session);
}

static void join(struct subscription *subscription)
{
    struct session *session = subscription->feed.session;
    struct storage_session view = session_storage_view(session);
    char channel[CHANNEL_MAX];

    if (subscription->joining)
        return;
    subscription->joining = true;
    session->ops++;
    session_inflight_begin(session, SCRIPT_COST, 0);
    subscription->join.on_done = on_joined;
    storage_presence_join(session->sessions->options.storage, topic_channel(subscription, channel), &view,
                          &subscription->join);
}

static void on_left(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session_op *op = container_of(request, struct session_op, request);

    (void)error;
    (void)result;
    session_inflight_end(op->session, op->cost, 0);
    session_op_free(op);
}

static void leave(struct subscription *subscription)
{
    struct session *session = subscription->feed.session;
    struct storage_session view = session_storage_view(session);
    struct session_op *op = session_op_create(session);
    char channel[CHANNEL_MAX];

    if (!op)
        return;
    op->request.on_done = on_left;
    op->cost = SCRIPT_COST;
    session_inflight_begin(session, op->cost, 0);
    storage_presence_leave(session->sessions->options.storage, topic_channel(subscription, channel), &view,
                           &op->request);
}

void session_topics_rejoin(struct session *session)
{
    if (!session->extra)
        return;
    list_for_each (link, &session->extra->subscriptions) {
        struct subscription *subscription = container_of(link, struct subscription, link);
        if (subscription->presence && subscription->confirmed)
            join(subscription);
    }
}

/* ---- subscribing ---- */

static void on_subscribed(struct subscriber *subscriber, int error)
{
    struct subscription *subscription =
        container_of(container_of(subscriber, struct feed, subscriber), struct subscription, feed);
    struct session *session = subscription->feed.session;

    if (error) {
        subscription_fail(subscription, error);
        return;
    }
    if (session->state != SESSION_ONLINE)
        return;
    subscription->confirmed = true;
    session->sessions->options.metrics->subscriptions++;
    if (subscription->presence)
        join(subscription);
    if (subscription->since && !subscription->pattern) {
        feed_recover(&subscription->feed, RECOVER_SUBSCRIBE, subscription->command);
        return;
    }
    struct recovery_outcome nothing = {.recovered = false};
    session_subscribed(session, subscription, subscription->since ? &nothing : NULL);
}

static struct subscription *create(struct session *session, const struct command *command)
{
    struct subscription *subscription = mem_calloc(1, sizeof *subscription + command->topic.len);

    if (!subscription)
        return NULL;
    feed_init(&subscription->feed, session, on_subscribed);
    memcpy(subscription->topic, command->topic.data, command->topic.len);
    subscription->topic_len = command->topic.len;
    subscription->pattern = topic_is_pattern(command->topic);
    subscription->presence = command->presence;
    subscription->events = command->events;
    subscription->since = command->present & FIELD_SINCE;
    subscription->command = command->id;
    if (subscription->since && !subscription->pattern &&
        !feed_remember(&subscription->feed, command->since_epoch, command->since_offset)) {
        mem_free(subscription);
        return NULL;
    }
    if (subscription->since && !subscription->pattern)
        feed_hold(&subscription->feed);
    return subscription;
}

static bool check(struct session *session, const struct command *command)
{
    const char *wrong = address_check_name(command->topic);
    char text[160];

    if (!wrong && (command->presence || command->events) && topic_is_pattern(command->topic))
        wrong = "presence and events are not for patterns";
    if (!wrong && (command->since_epoch.len > EPOCH_MAX || command->since_offset.len > OFFSET_MAX))
        wrong = "the epoch or offset in \"since\" is none of ours";
    if (!wrong)
        return true;
    snprintf(text, sizeof text, "\"topic\": %s", wrong);
    session_error(session, command->id, ERROR_BAD_REQUEST, slice_text(text));
    return false;
}

/* Patterns cost others more than topics do. False, and answered, when this one is too much. */
static bool check_pattern(struct session *session, const struct command *command)
{
    const struct config *config = session->config;
    struct metrics *metrics = session->sessions->options.metrics;
    char text[160];

    if (!config->wildcards && topic_begins_wild(command->topic)) {
        metrics->patterns_refused_wild++;
        session_error(session, command->id, ERROR_FORBIDDEN,
                      slice_text("\"topic\": patterns that begin with a wildcard are not allowed here (wildcards)"));
        return false;
    }
    if (topic_token_count(command->topic) > config->pattern_tokens) {
        metrics->patterns_refused_tokens++;
        snprintf(text, sizeof text, "\"topic\": more than %" PRIu64 " tokens in a pattern (pattern_tokens)",
                 config->pattern_tokens);
        session_error(session, command->id, ERROR_TOO_LARGE, slice_text(text));
        return false;
    }
    if (!find(session, command->topic) && session->extra && session->extra->pattern_count >= config->patterns_limit) {
        metrics->patterns_refused_limit++;
        session_error(session, command->id, ERROR_LIMIT, slice_text("too many patterns (patterns_limit)"));
        return false;
    }
    return true;
}

void session_subscribe(struct session *session, const struct command *command)
{
    struct session_extra *extra = session_extra(session);
    struct subscription *former = find(session, command->topic);
    char channel[CHANNEL_MAX];

    if (!check(session, command) || (topic_is_pattern(command->topic) && !check_pattern(session, command)))
        return;
    if (!former && extra && extra->subscription_count >= session->config->subscriptions_limit) {
        session_error(session, command->id, ERROR_LIMIT, slice_text("too many subscriptions"));
        return;
    }
    struct subscription *subscription = extra ? create(session, command) : NULL;
    if (!subscription) {
        session_error(session, command->id, ERROR_NO_MEMORY, slice_from(NULL, 0));
        return;
    }
    list_append(&extra->subscriptions, &subscription->link);
    extra->subscription_count++;
    extra->pattern_count += subscription->pattern;
    struct slice at = topic_channel(subscription, channel);
    bool keeps_presence = subscription->presence;
    if (subscription->pattern)
        router_subscribe_pattern(session->sessions->options.router, at, &subscription->feed.subscriber);
    else
        router_subscribe(session->sessions->options.router, at, &subscription->feed.subscriber);
    /* Only now, so that the channel stays subscribed throughout. */
    if (former) {
        if (former->presence && !keeps_presence)
            leave(former);
        overtake(former);
    }
}

void session_unsubscribe(struct session *session, const struct command *command)
{
    struct subscription *subscription = find(session, command->topic);

    if (subscription) {
        if (subscription->presence)
            leave(subscription);
        overtake(subscription);
    }
    session_ok_empty(session, command->id);
}
