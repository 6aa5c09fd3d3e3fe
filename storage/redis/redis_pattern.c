/* The patterns that this process holds: their interest channels, and how the others are told. See redis_interest.h.
 *
 * What is subscribed in one turn of the loop is one announcement. Each subscription is a wish, which is granted when its
 * interest channel is confirmed and its announcement was heard by everybody. That is known as soon as as many have answered
 * as PUBLISH reached; somebody who only watches never answers, and one that was stopped not before its lease is over, so
 * then the leases decide: whoever has none publishes to no topic before it has read what the bus holds for it. */
#include "storage/redis/redis_interest.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/errors.h"
#include "proto/topic.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>

enum { BATCH = 512, WAIT_CHANNEL = 1, WAIT_HEARD = 2 };

/* An interest channel. */
struct redis_first {
    struct map_node node; /* in interest.firsts while a pattern needs it, by channel */
    struct redis_storage *storage;
    struct storage_request request;
    struct list wishes;
    size_t patterns;
    bool wanted, confirmed;
    bool open; /* the request */
    char channel[];
};

struct redis_wish {
    struct list of_first, of_announcement; /* alone when that isn't waited for any more */
    struct redis_storage *storage;
    struct storage_request *request;
    struct redis_pattern *pattern;
    unsigned waits;
};

struct announcement {
    struct list link; /* in interest.announcements once it is told */
    struct redis_storage *storage;
    struct list wishes;
    uint64_t serial, told_at_ms;
    int64_t expected; /* how many got it */
    unsigned replies; /* to come */
    int error;
    bool ended; /* only waits for its replies */
    bool first; /* the one of redis_pattern_begin(), and patterns are waiting to be heard of */
};

/* ---- interest channels ---- */

static void first_release(struct redis_first *first)
{
    if (!first->wanted && !first->open && list_empty(&first->wishes))
        mem_free(first);
}

static void wish_over(struct redis_wish *wish, unsigned wait);
static void wish_end(struct redis_wish *wish, int error);

static void on_channel(struct storage_request *request, int error, const struct storage_result *result)
{
    struct redis_first *first = container_of(request, struct redis_first, request);
    struct list wishes, *link;

    (void)result;
    first->confirmed = !error;
    /* No new wish may join one that failed. */
    if (error && first->wanted)
        map_remove(&first->storage->interest.firsts, &first->node);
    first->wanted = first->wanted && !error;
    list_init(&wishes);
    list_splice(&wishes, &first->wishes);
    while ((link = list_pop(&wishes))) {
        struct redis_wish *wish = container_of(link, struct redis_wish, of_first);
        if (error)
            wish_end(wish, error);
        else
            wish_over(wish, WAIT_CHANNEL);
    }
    first->open = false;
    first_release(first);
}

/* One more pattern needs the interest channel of its first token; NULL when memory is short. */
static struct redis_first *first_hold(struct redis_storage *storage, const struct redis_pattern *pattern)
{
    struct map *firsts = &storage->interest.firsts;
    char name[CHANNEL_MAX + 2];
    struct slice topic = {NULL, 0};
    bool last;

    topic_of_channel(slice_from(pattern->channel, pattern->len), &topic);
    struct slice token = pattern->kind == INTEREST_WILD ? slice_text("*") : topic_take_token(&topic, &last);
    size_t len = (size_t)snprintf(name, sizeof name, "pattern:{%.*s}", (int)token.len, token.data);
    struct map_node *node = map_find(firsts, name, len);
    struct redis_first *first = node ? container_of(node, struct redis_first, node) : NULL;
    if (!first) {
        first = mem_calloc(1, sizeof *first + len);
        if (!first)
            return NULL;
        first->storage = storage;
        list_init(&first->wishes);
        memcpy(first->channel, name, len);
        first->wanted = map_insert(firsts, &first->node, first->channel, len);
        if (!first->wanted) {
            mem_free(first);
            return NULL;
        }
        first->open = true;
        first->request.on_done = on_channel;
        redis_bus_subscribe(&storage->storage, slice_from(name, len), &first->request);
    }
    first->patterns++;
    return first;
}

static void first_let_go(struct redis_first *first)
{
    struct redis_storage *storage = first->storage;

    if (--first->patterns)
        return;
    if (first->wanted) {
        map_remove(&storage->interest.firsts, &first->node);
        redis_bus_unsubscribe(&storage->storage, slice_from(first->node.key, first->node.key_len));
    }
    first->wanted = false;
    first_release(first);
}

/* ---- wishes ---- */

static void tell_later(struct redis_storage *storage, struct redis_pattern *pattern)
{
    if (list_empty(&pattern->changed))
        list_append(&storage->interest.changed, &pattern->changed);
    event_active(storage->interest.event, 0, 0);
}

static void pattern_drop(struct redis_storage *storage, struct redis_pattern *pattern)
{
    struct redis_first *first = pattern->first;

    pattern->first = NULL;
    pattern->confirmed = false;
    first_let_go(first);
    tell_later(storage, pattern);
}

static void wish_end(struct redis_wish *wish, int error)
{
    struct redis_storage *storage = wish->storage;
    struct redis_pattern *pattern = wish->pattern;
    struct storage_request *request = wish->request;
    bool latest = pattern->wish == wish;

    list_remove(&wish->of_first);
    list_remove(&wish->of_announcement);
    mem_free(wish);
    if (latest)
        pattern->wish = NULL;
    pattern->wishes--;
    if (error && latest && pattern->first && !pattern->confirmed)
        pattern_drop(storage, pattern);
    else if (!error && pattern->first)
        pattern->confirmed = true;
    redis_interest_release(storage, pattern);
    redis_done(request, error, NULL);
}

static void wish_over(struct redis_wish *wish, unsigned wait)
{
    wish->waits &= ~wait;
    if (!wish->waits)
        wish_end(wish, 0);
}

/* ---- announcements ---- */

static struct announcement *announcement_create(struct redis_storage *storage)
{
    struct announcement *announcement = mem_calloc(1, sizeof *announcement);

    if (!announcement)
        return NULL;
    announcement->storage = storage;
    list_init(&announcement->link);
    list_init(&announcement->wishes);
    return announcement;
}

/* What was told has no effect any more but for its wishes. */
static void announcement_end(struct announcement *announcement, int error)
{
    struct redis_storage *storage = announcement->storage;
    struct list wishes, *link;
    bool first = announcement->first;

    list_remove(&announcement->link);
    list_init(&wishes);
    list_splice(&wishes, &announcement->wishes);
    announcement->ended = true;
    if (!announcement->replies)
        mem_free(announcement);
    while ((link = list_pop(&wishes))) {
        struct redis_wish *wish = container_of(link, struct redis_wish, of_announcement);
        if (error)
            wish_end(wish, error);
        else
            wish_over(wish, WAIT_HEARD);
    }
    if (!first || error)
        return;
    storage->interest.announced = true;
    redis_pattern_on_loaded(storage);
}

void redis_pattern_on_loaded(struct redis_storage *storage)
{
    if (storage->interest.loaded && storage->interest.announced)
        redis_setup_interested(storage);
}

static size_t heard_by(const struct redis_storage *storage, uint64_t serial)
{
    return redis_interest_heard_by(storage, serial) + (storage->interest.heard >= serial);
}

static void end_heard(struct redis_storage *storage, bool (*heard)(const struct announcement *, const void *),
                      const void *data)
{
    struct list open, *link;

    /* What the callbacks announce comes behind these. */
    list_init(&open);
    list_splice(&open, &storage->interest.announcements);
    while ((link = list_pop(&open))) {
        struct announcement *announcement = container_of(link, struct announcement, link);
        list_append(&storage->interest.announcements, link);
        if (!announcement->replies && heard(announcement, data))
            announcement_end(announcement, 0);
    }
}

static bool by_as_many(const struct announcement *announcement, const void *data)
{
    (void)data;
    return heard_by(announcement->storage, announcement->serial) >= (size_t)announcement->expected;
}

static bool by_the_living(const struct announcement *announcement, const void *data)
{
    const struct redis_reply *leases = data;

    for (size_t i = 0; i + 1 < leases->count; i += 2)
        if (!redis_interest_heard(announcement->storage, redis_reply_text(leases, i), announcement->serial))
            return false;
    return true;
}

static void on_leases(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;

    storage->interest.querying = false;
    if (!error)
        end_heard(storage, by_the_living, reply);
}

/* More got it than instances are known: others may only watch. */
static void ask_for_leases(struct redis_storage *storage)
{
    char lease[16];
    struct redis_key key;

    if (storage->interest.querying)
        return;
    redis_key_instances(storage, &key);
    snprintf(lease, sizeof lease, "%" PRIu32, storage->instance.lease_ms);
    const struct slice arg = slice_text(lease);
    storage->interest.querying = redis_script_call(&storage->scripts, REDIS_SCRIPT_LEASE, redis_key_slice(&key), &arg,
                                                   1, on_leases, storage) == 0;
}

void redis_pattern_on_heard(struct redis_storage *storage)
{
    if (list_empty(&storage->interest.announcements))
        return;
    end_heard(storage, by_as_many, NULL);
    list_for_each (link, &storage->interest.announcements) {
        const struct announcement *announcement = container_of(link, struct announcement, link);
        /* All who can have answered. */
        if (!announcement->replies &&
            heard_by(storage, announcement->serial) == redis_interest_peers(storage) + 1) {
            ask_for_leases(storage);
            return;
        }
    }
}

static void replied(struct announcement *announcement, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = announcement->storage;

    announcement->replies--;
    if (announcement->ended) {
        if (!announcement->replies)
            mem_free(announcement);
        return;
    }
    if (error && !announcement->error)
        announcement->error = error;
    if (error && reply && announcement->first) {
        redis_setup_fail(storage, "patterns", reply);
        return;
    }
    if (announcement->replies)
        return;
    if (announcement->error)
        announcement_end(announcement, announcement->error);
    else
        redis_pattern_on_heard(storage);
}

static void on_written(void *data, const struct redis_reply *reply, int error)
{
    replied(data, reply, error);
}

static void on_told(void *data, const struct redis_reply *reply, int error)
{
    struct announcement *announcement = data;

    if (!error)
        announcement->expected = reply->integer;
    replied(announcement, reply, error);
}

static void sent(struct announcement *announcement, int error)
{
    if (!error)
        announcement->replies++;
    else if (!announcement->error)
        announcement->error = error;
}

/* The text begins with who tells it, and its serial. */
static void begin_text(struct redis_storage *storage, uint64_t serial)
{
    struct redis_key own;

    redis_interest_own_id(storage, &own);
    buffer_clear(&storage->interest.text);
    buffer_printf(&storage->interest.text, "%.*s %" PRIu64, (int)own.len, own.text, serial);
}

static void tell(struct announcement *announcement)
{
    struct redis_storage *storage = announcement->storage;
    const struct buffer *text = &storage->interest.text;

    announcement->serial = storage->interest.serial;
    sent(announcement, text->failed ? ERROR_NO_MEMORY
                                    : redis_bus_send(storage, slice_text("patterns"), slice_from(text->data, text->len),
                                                     on_told, announcement));
}

/* SADD or SREM of up to BATCH patterns of the list, from `*from` on. */
static void write_set(struct announcement *announcement, const char *verb, struct list *patterns,
                      struct list **from, bool (*select)(const struct redis_pattern *))
{
    struct redis_storage *storage = announcement->storage;
    struct buffer *bulks = &storage->interest.bulks;
    struct redis_key key;
    size_t count = 0;

    redis_key_patterns(storage, &key, slice_text(storage->instance.id));
    buffer_clear(bulks);
    redis_bulk_append(bulks, slice_text(verb));
    redis_bulk_append(bulks, redis_key_slice(&key));
    for (; *from != patterns && count < BATCH; *from = (*from)->next) {
        const struct redis_pattern *pattern =
            patterns == &storage->interest.patterns ? container_of(*from, struct redis_pattern, link)
                                                    : container_of(*from, struct redis_pattern, changed);
        struct slice topic = {NULL, 0};
        if (!select(pattern))
            continue;
        topic_of_channel(slice_from(pattern->channel, pattern->len), &topic);
        redis_bulk_append(bulks, topic);
        count++;
    }
    if (count)
        sent(announcement,
             bulks->failed ? ERROR_NO_MEMORY
                           : redis_conn_command_raw(redis_topology_pick(&storage->topology, redis_key_slice(&key)),
                                                    slice_from(bulks->data, bulks->len), 2 + count, on_written,
                                                    announcement));
}

static bool is_held(const struct redis_pattern *pattern)
{
    return pattern->first;
}

static bool is_dropped(const struct redis_pattern *pattern)
{
    return !pattern->first;
}

/* Takes up to BATCH changes from the list, writes and tells them. */
static void tell_batch(struct announcement *announcement, struct list *changed)
{
    struct redis_storage *storage = announcement->storage;
    struct buffer *text = &storage->interest.text;
    struct list batch, *link, *from;
    size_t count = 0;

    list_init(&batch);
    begin_text(storage, ++storage->interest.serial);
    while (count++ < BATCH && (link = list_pop(changed))) {
        const struct redis_pattern *pattern = container_of(link, struct redis_pattern, changed);
        struct slice topic = {NULL, 0};
        list_append(&batch, link);
        topic_of_channel(slice_from(pattern->channel, pattern->len), &topic);
        buffer_append_text(text, pattern->first ? " +" : " -");
        buffer_append(text, topic.data, topic.len);
    }
    from = batch.next;
    write_set(announcement, "SADD", &batch, &from, is_held);
    from = batch.next;
    write_set(announcement, "SREM", &batch, &from, is_dropped);
    tell(announcement);
    while ((link = list_pop(&batch)))
        redis_interest_release(storage, container_of(link, struct redis_pattern, changed));
}

/* Forgets what would have to be told: at the next connect all is. */
static void forget_changes(struct redis_storage *storage)
{
    struct list *link;

    while ((link = list_pop(&storage->interest.changed)))
        redis_interest_release(storage, container_of(link, struct redis_pattern, changed));
}

void redis_pattern_flush(struct redis_storage *storage)
{
    struct redis_interest *interest = &storage->interest;
    struct announcement *announcement = interest->next;
    struct list changed;

    interest->next = NULL;
    if (storage->storage.state != STORAGE_UP) {
        forget_changes(storage);
        if (announcement)
            announcement_end(announcement, storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE);
        return;
    }
    if (list_empty(&interest->changed) && !announcement)
        return;
    if (!announcement)
        announcement = announcement_create(storage);
    if (!announcement) {
        /* What ends is told with what comes next, or after a reconnect. */
        redis_conn_fail(redis_topology_bus(&storage->topology, slice_text("patterns")), "memory is short");
        return;
    }
    list_init(&changed);
    list_splice(&changed, &interest->changed);
    announcement->told_at_ms = clock_monotonic_ms();
    list_append(&interest->announcements, &announcement->link);
    while (!list_empty(&changed))
        tell_batch(announcement, &changed);
    if (!announcement->replies)
        announcement_end(announcement, announcement->error);
}

static void announce_all(struct redis_storage *storage, bool first)
{
    struct redis_interest *interest = &storage->interest;
    struct announcement *announcement = announcement_create(storage);
    struct redis_key key;

    if (!announcement) {
        redis_conn_fail(redis_topology_bus(&storage->topology, slice_text("patterns")), "memory is short");
        return;
    }
    redis_key_patterns(storage, &key, slice_text(storage->instance.id));
    const struct slice args[] = {slice_text("DEL"), redis_key_slice(&key)};
    announcement->first = first && interest->firsts.count;
    announcement->told_at_ms = clock_monotonic_ms();
    list_append(&interest->announcements, &announcement->link);
    sent(announcement, redis_conn_command(redis_topology_pick(&storage->topology, args[1]), args, 2, on_written,
                                          announcement));
    for (struct list *from = interest->patterns.next; from != &interest->patterns;)
        write_set(announcement, "SADD", &interest->patterns, &from, is_held);
    begin_text(storage, ++storage->interest.serial);
    buffer_append_text(&interest->text, " =");
    tell(announcement);
    if (announcement->error)
        redis_conn_fail(redis_topology_bus(&storage->topology, slice_text("patterns")), "memory is short");
}

/* Also without any: a former holder of the id may have had some, and of that nobody need have heard. */
void redis_pattern_begin(struct redis_storage *storage)
{
    storage->interest.announced = storage->interest.firsts.count == 0;
    announce_all(storage, true);
}

void redis_pattern_announce_all(struct redis_storage *storage)
{
    announce_all(storage, false);
}

/* ---- waiting for long ---- */

static void on_asked(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;

    if (error)
        return;
    list_for_each (link, &storage->interest.announcements) {
        struct announcement *announcement = container_of(link, struct announcement, link);
        if (announcement->serial <= storage->interest.asked)
            announcement->expected = reply->integer;
    }
    redis_pattern_on_heard(storage);
}

static bool by_its_age(const struct announcement *announcement, const void *data)
{
    const struct redis_storage *storage = data;

    if (clock_monotonic_ms() - announcement->told_at_ms < 2 * (uint64_t)storage->instance.lease_ms)
        return false;
    log_warn("an instance does not confirm patterns", log_int("serial", (int64_t)announcement->serial),
             log_str("action", "serving them all the same"));
    return true;
}

/* An answer may not have gone out, and who was counted may be gone: ask again, and look at the leases. */
void redis_pattern_on_beat(struct redis_storage *storage)
{
    struct redis_interest *interest = &storage->interest;

    end_heard(storage, by_its_age, storage);
    if (list_empty(&interest->announcements))
        return;
    interest->asked = interest->serial;
    begin_text(storage, interest->asked);
    buffer_append_text(&interest->text, " ?");
    if (!interest->text.failed && redis_bus_send(storage, slice_text("patterns"),
                                                 slice_from(interest->text.data, interest->text.len), on_asked,
                                                 storage) == 0)
        ask_for_leases(storage);
}

void redis_pattern_on_down(struct redis_storage *storage, int error)
{
    struct redis_interest *interest = &storage->interest;
    struct announcement *next = interest->next;
    struct list *link;

    interest->next = NULL;
    while ((link = list_pop(&interest->announcements)))
        announcement_end(container_of(link, struct announcement, link), error);
    if (next)
        announcement_end(next, error);
    forget_changes(storage);
}

void redis_pattern_close(struct redis_storage *storage)
{
    struct map *firsts = &storage->interest.firsts;

    for (struct map_node *node; (node = map_next(firsts, NULL));) {
        map_remove(firsts, node);
        mem_free(container_of(node, struct redis_first, node));
    }
    map_close(firsts);
}

/* ---- what the broker asks ---- */

/* 0 or an error; then nothing was changed. */
static int wish_for(struct redis_storage *storage, struct slice topic, struct storage_request *request)
{
    struct redis_interest *interest = &storage->interest;
    struct redis_wish *wish = mem_calloc(1, sizeof *wish);
    struct redis_pattern *pattern = wish ? redis_interest_get(storage, topic) : NULL;
    struct redis_first *first = pattern ? pattern->first : NULL;

    if (!interest->next)
        interest->next = announcement_create(storage);
    if (pattern && !first && interest->next)
        first = pattern->first = first_hold(storage, pattern);
    if (!first || !interest->next) {
        if (pattern)
            redis_interest_release(storage, pattern);
        mem_free(wish);
        return ERROR_NO_MEMORY;
    }
    *wish = (struct redis_wish){.storage = storage, .request = request, .pattern = pattern, .waits = WAIT_HEARD};
    list_init(&wish->of_first);
    if (!first->confirmed) {
        wish->waits |= WAIT_CHANNEL;
        list_append(&first->wishes, &wish->of_first);
    }
    list_init(&wish->of_announcement);
    list_append(&interest->next->wishes, &wish->of_announcement);
    pattern->wish = wish;
    pattern->wishes++;
    tell_later(storage, pattern);
    return 0;
}

void redis_pattern_subscribe(struct storage *base, struct slice channel, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct slice topic;
    int error;

    if (base->state != STORAGE_UP)
        error = storage->destroyed ? ERROR_CANCELLED : ERROR_UNAVAILABLE;
    else if (channel.len >= CHANNEL_MAX || !topic_of_channel(channel, &topic) || !topic_is_pattern(topic))
        error = ERROR_BAD_REQUEST;
    else
        error = wish_for(storage, topic, request);
    if (error)
        redis_later(storage, request, error);
}

void redis_pattern_unsubscribe(struct storage *base, struct slice channel)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct slice topic;

    if (!topic_of_channel(channel, &topic))
        return;
    struct topic_trie *tries = storage->interest.tries;
    struct topic_trie_entry *entry =
        topic_trie_find(&tries[topic_begins_wild(topic) ? INTEREST_WILD : INTEREST_LITERAL], topic);
    struct redis_pattern *pattern = entry ? container_of(entry, struct redis_pattern, entry) : NULL;
    if (pattern && pattern->first)
        pattern_drop(storage, pattern);
}

/* ---- messages ---- */

/* The patterns held here that a message matches. */
struct found {
    struct buffer *names;
    size_t count;
};

static bool add_found(void *data, struct topic_trie_entry *entry)
{
    const struct redis_pattern *pattern = container_of(entry, struct redis_pattern, entry);
    struct found *found = data;
    const struct slice name = slice_from(pattern->channel, pattern->len);

    if (pattern->first && buffer_append(found->names, &name, sizeof name))
        found->count++;
    return false;
}

static void deliver(struct redis_storage *storage, bool wild, struct slice topic, struct slice bytes)
{
    struct found found = {.names = &storage->interest.found};
    char channel[CHANNEL_MAX];

    buffer_clear(found.names);
    topic_trie_match(&storage->interest.tries[wild ? INTEREST_WILD : INTEREST_LITERAL], topic, add_found, &found);
    if (found.names->failed)
        log_error("bus message dropped", log_str("channel", "pattern"),
                  log_str("reason", error_name(ERROR_NO_MEMORY)));
    else if (found.count) {
        size_t len = (size_t)snprintf(channel, sizeof channel, "topic:{%.*s}", (int)topic.len, topic.data);
        storage->events.on_pattern_message(storage->events.data, slice_from(channel, len),
                                           (const struct slice *)(const void *)found.names->data, found.count, bytes);
    }
}

/* Takes the topic from the front of what was copied to an interest channel. False when it has none that belongs there. */
static bool take_topic(struct slice first, struct slice *bytes, struct slice *topic)
{
    const size_t most = 3 * ADDRESS_NAME_MAX + 1;
    const char *space = memchr(bytes->data, ' ', bytes->len < most ? bytes->len : most);
    bool last;

    if (!space || space == bytes->data)
        return false;
    *topic = slice_from(bytes->data, (size_t)(space - bytes->data));
    *bytes = slice_from(space + 1, bytes->len - topic->len - 1);
    struct slice rest = *topic;
    return slice_is(first, "*") || slice_equal(topic_take_token(&rest, &last), first);
}

void redis_pattern_on_message(struct redis_storage *storage, struct slice channel, struct slice bytes)
{
    static const char head[] = "pattern:{";
    struct slice first, topic;
    uint64_t left_out;

    if (slice_is(channel, "patterns")) {
        redis_interest_on_change(storage, bytes);
        return;
    }
    if (channel.len < sizeof head)
        return;
    first = slice_from(channel.data + sizeof head - 1, channel.len - sizeof head);
    if (bytes.len && take_topic(first, &bytes, &topic))
        deliver(storage, slice_is(first, "*"), topic, bytes);
    else if (log_pause_is_over(&storage->strays, &left_out))
        log_warn("bus message dropped", log_bytes("channel", channel.data, channel.len),
                 log_str("reason", "it doesn't begin with a topic of this channel and a space"),
                 log_int("left_out", (int64_t)left_out));
}
