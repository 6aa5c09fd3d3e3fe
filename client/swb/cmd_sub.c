/* sub: topics and patterns, with what was missed.
 *
 * Topics are recovered by the library: they are subscribed since the remembered position. Patterns can't be, so for each
 * remembered topic that a pattern matches, its history is read since the position (a catch-up), every time the session
 * comes online. Live messages of such a topic wait meanwhile; those that the history gave too are dropped. */
#include "base/alloc.h"
#include "client/pattern.h"
#include "client/swb/link.h"
#include "client/swb/output.h"
#include "client/swb/state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PAGE = 1000, HELD_MAX = 100000 };

struct sub {
    struct link link;
    struct state state;
    uint64_t left;         /* messages; 0: without end */
    struct list catch_ups; /* struct catch_up */
    size_t unconfirmed;    /* patterns not yet subscribed on this connection */
    unsigned generation;   /* of the connection: pages that an earlier one asked for are ignored */
};

/* A message that came while its topic was catching up. */
struct held {
    struct list link;
    char *epoch, *offset, *from, *data; /* owned */
    struct swb_message message;
};

/* An offset that the history gave: its live twin may still come. */
struct seen {
    struct map_node node;
    char offset[];
};

struct catch_up {
    struct list link;
    struct sub *sub;
    char *topic;  /* owned */
    bool reading; /* the history; false: it only knows what was seen */
    bool restarted;
    struct list held;
    size_t held_count;
    struct map seen; /* struct seen */
};

static const char *topic_of(const struct swb_message *message)
{
    return strncmp(message->to, "topic:", 6) == 0 ? message->to + 6 : message->to;
}

static void show(struct sub *sub, const struct swb_message *message)
{
    struct link *link = &sub->link;

    if (link->status >= 0)
        return;
    if (!print_message(link->args, message)) {
        link_end(link, EXIT_ERROR);
        return;
    }
    if (message->offset && message->epoch &&
        !state_note(&sub->state, topic_of(message), message->epoch, message->offset)) {
        complain("the position could not be saved: %s", strerror(errno));
        link_end(link, EXIT_ERROR);
    } else if (sub->left && --sub->left == 0) {
        link_end(link, EXIT_OK);
    }
}

/* ---- catching up --------------------------------------------------------------------------------------- */

static void held_destroy(struct held *held)
{
    list_remove(&held->link);
    mem_free(held->epoch);
    mem_free(held->offset);
    mem_free(held->from);
    mem_free(held->data);
    mem_free(held);
}

static bool hold(struct catch_up *catch_up, const struct swb_message *message)
{
    struct held *held = catch_up->held_count < HELD_MAX ? mem_calloc(1, sizeof *held) : NULL;

    if (!held)
        return false;
    list_init(&held->link);
    held->epoch = mem_strdup(message->epoch);
    held->offset = mem_strdup(message->offset);
    held->from = mem_strdup(message->from);
    held->data = mem_strndup(message->payload.data, message->payload.len);
    held->message = *message;
    held->message.epoch = held->epoch;
    held->message.offset = held->offset;
    held->message.from = held->from;
    held->message.payload.data = held->data;
    if (!held->data || !held->epoch || !held->offset || !held->from != !message->from) {
        held_destroy(held);
        return false;
    }
    list_append(&catch_up->held, &held->link);
    catch_up->held_count++;
    return true;
}

static bool remember(struct catch_up *catch_up, const char *offset)
{
    size_t len = strlen(offset);
    struct seen *seen = mem_alloc(sizeof *seen + len + 1);

    if (!seen)
        return false;
    memcpy(seen->offset, offset, len + 1);
    if (!map_find(&catch_up->seen, offset, len) &&
        map_insert(&catch_up->seen, &seen->node, seen->offset, len))
        return true;
    mem_free(seen);
    return false;
}

/* Whether the history gave it already; forgets that. */
static bool was_seen(struct catch_up *catch_up, const char *offset)
{
    struct map_node *node = offset ? map_find(&catch_up->seen, offset, strlen(offset)) : NULL;

    if (!node)
        return false;
    map_remove(&catch_up->seen, node);
    mem_free(container_of(node, struct seen, node));
    return true;
}

static void forget_seen(struct catch_up *catch_up)
{
    struct map_node *node;

    while ((node = map_next(&catch_up->seen, NULL))) {
        map_remove(&catch_up->seen, node);
        mem_free(container_of(node, struct seen, node));
    }
}

static void drop_held(struct catch_up *catch_up)
{
    while (!list_empty(&catch_up->held))
        held_destroy(container_of(catch_up->held.next, struct held, link));
    catch_up->held_count = 0;
}

static void catch_up_destroy(struct catch_up *catch_up)
{
    list_remove(&catch_up->link);
    drop_held(catch_up);
    forget_seen(catch_up);
    map_close(&catch_up->seen);
    mem_free(catch_up->topic);
    mem_free(catch_up);
}

static struct catch_up *find_catch_up(struct sub *sub, const char *topic)
{
    list_for_each (link, &sub->catch_ups) {
        struct catch_up *catch_up = container_of(link, struct catch_up, link);
        if (strcmp(catch_up->topic, topic) == 0)
            return catch_up;
    }
    return NULL;
}

static struct catch_up *get_catch_up(struct sub *sub, const char *topic)
{
    struct catch_up *catch_up = find_catch_up(sub, topic);

    if (catch_up)
        return catch_up;
    catch_up = mem_calloc(1, sizeof *catch_up);
    if (!catch_up)
        return NULL;
    list_init(&catch_up->held);
    map_init(&catch_up->seen);
    catch_up->sub = sub;
    catch_up->topic = mem_strdup(topic);
    list_append(&sub->catch_ups, &catch_up->link);
    if (catch_up->topic)
        return catch_up;
    catch_up_destroy(catch_up);
    return NULL;
}

static void catch_up_end(struct catch_up *catch_up)
{
    catch_up->reading = false;
    while (!list_empty(&catch_up->held)) {
        struct held *held = container_of(catch_up->held.next, struct held, link);
        if (!was_seen(catch_up, held->offset))
            show(catch_up->sub, &held->message);
        held_destroy(held);
    }
    catch_up->held_count = 0;
}

static void read_page(struct catch_up *catch_up, const char *since);

/* One history call; freed when it is answered. */
struct page {
    struct catch_up *catch_up;
    unsigned generation;
};

static void use_page(struct catch_up *catch_up, const struct swb_result *result)
{
    struct sub *sub = catch_up->sub;
    const struct state_entry *entry = state_find(&sub->state, catch_up->topic);

    if (result->error) {
        link_fail(&sub->link, catch_up->topic, result->error, result->text);
        return;
    }
    bool same = result->epoch && strcmp(result->epoch, entry->epoch) == 0;
    if (!same && !catch_up->restarted) {
        complain("topic:%s: its history began anew, messages may be missing", catch_up->topic);
        catch_up->restarted = true;
        if (result->epoch) {
            read_page(catch_up, NULL);
            return;
        }
    }
    for (size_t i = 0; i < result->message_count; i++) {
        const struct swb_message *message = &result->messages[i];
        if (message->offset && !remember(catch_up, message->offset)) {
            link_fail(&sub->link, catch_up->topic, SWB_NO_MEMORY, NULL);
            return;
        }
        show(sub, message);
    }
    entry = state_find(&sub->state, catch_up->topic);
    if (result->message_count && result->offset && strcmp(result->offset, entry->offset) != 0)
        read_page(catch_up, entry->offset);
    else
        catch_up_end(catch_up);
}

static void on_page(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct page page = *(struct page *)data;

    (void)client;
    mem_free(data);
    /* Destroyed catch-ups are not looked at: they go after the link ended. */
    if (result->error != SWB_CANCELLED && page.catch_up->sub->link.status < 0 &&
        page.generation == page.catch_up->sub->generation)
        use_page(page.catch_up, result);
}

static void read_page(struct catch_up *catch_up, const char *since)
{
    struct link *link = &catch_up->sub->link;
    const struct swb_history_options options = {.since = since, .limit = PAGE};
    struct page *page = mem_alloc(sizeof *page);
    char address[1024];

    snprintf(address, sizeof address, "topic:%s", catch_up->topic);
    if (page)
        *page = (struct page){catch_up, catch_up->sub->generation};
    int error = page ? swb_begin_history(link->client, address, &options, on_page, page) : SWB_NO_MEMORY;
    if (error) {
        mem_free(page);
        link_fail(link, catch_up->topic, error, NULL);
    }
}

static bool matches_a_pattern(const struct args *args, const char *topic)
{
    for (size_t i = 0; i < args->word_count; i++)
        if (pattern_is(args->words[i]) && pattern_matches(args->words[i], topic))
            return true;
    return false;
}

static bool is_a_topic(const struct args *args, const char *topic)
{
    for (size_t i = 0; i < args->word_count; i++)
        if (strcmp(args->words[i], topic) == 0)
            return true;
    return false;
}

/* Called before a subscription of this connection brings anything: from now on the live messages of remembered topics
 * wait. The histories are read once the patterns are subscribed, so that nothing lies between. */
static void begin_catch_up(struct sub *sub)
{
    const struct args *args = sub->link.args;

    sub->generation++;
    sub->unconfirmed = 0;
    for (size_t i = 0; i < args->word_count; i++)
        sub->unconfirmed += pattern_is(args->words[i]) ? 1 : 0;
    list_for_each (link, &sub->state.entries) {
        const struct state_entry *entry = container_of(link, struct state_entry, link);
        if (!matches_a_pattern(args, entry->topic) || is_a_topic(args, entry->topic))
            continue;
        struct catch_up *catch_up = get_catch_up(sub, entry->topic);
        if (!catch_up) {
            link_fail(&sub->link, entry->topic, SWB_NO_MEMORY, NULL);
            return;
        }
        catch_up->reading = true;
        catch_up->restarted = false;
        drop_held(catch_up); /* an earlier connection's; the history has them */
        forget_seen(catch_up);
    }
}

static void on_pattern_confirmed(struct sub *sub)
{
    if (sub->unconfirmed && --sub->unconfirmed > 0)
        return;
    list_for_each (link, &sub->catch_ups) {
        struct catch_up *catch_up = container_of(link, struct catch_up, link);
        const struct state_entry *entry = state_find(&sub->state, catch_up->topic);
        if (catch_up->reading)
            read_page(catch_up, entry->offset);
    }
}

/* ---- the connection ------------------------------------------------------------------------------------ */

static void on_online(struct link *link)
{
    begin_catch_up(link->data);
}

static void on_message(struct link *link, const struct swb_message *message)
{
    struct sub *sub = link->data;
    struct catch_up *catch_up = find_catch_up(sub, topic_of(message));

    if (catch_up && message->offset && message->epoch) {
        if (catch_up->reading) {
            if (!hold(catch_up, message))
                link_fail(link, message->to, SWB_NO_MEMORY, "too much came while it was catching up");
            return;
        }
        if (was_seen(catch_up, message->offset))
            return;
    }
    show(sub, message);
}

/* After a reconnect: the library made a subscription anew. */
static void on_recovery(struct link *link, const struct swb_recovery *recovery)
{
    const char *topic =
        strncmp(recovery->address, "topic:", 6) == 0 ? recovery->address + 6 : recovery->address;

    if (recovery->error)
        link_fail(link, recovery->address, recovery->error, recovery->text);
    else if (pattern_is(topic))
        on_pattern_confirmed(link->data);
    else if (!recovery->recovered)
        complain("%s: messages may be missing", recovery->address);
}

/* One for each word, so that the answer is known to be a topic's or a pattern's. */
struct wanted {
    struct sub *sub;
    const char *topic;
    bool recovering;
};

static void on_subscribed(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct wanted *wanted = data;
    struct link *link = &wanted->sub->link;

    (void)client;
    if (result->error)
        link_fail(link, wanted->topic, result->error, result->text);
    else if (pattern_is(wanted->topic))
        on_pattern_confirmed(wanted->sub);
    else if (wanted->recovering && !result->recovered)
        complain("topic:%s: messages may be missing", wanted->topic);
}

static bool parse_since(const char *since, struct swb_subscribe_options *options, char epoch[static 256])
{
    const char *colon = since ? strchr(since, ':') : NULL;

    if (!since)
        return true;
    if (strcmp(since, "all") == 0) {
        options->everything = true;
        return true;
    }
    if (!colon || colon == since || !colon[1] || colon - since > 255)
        return false;
    memcpy(epoch, since, (size_t)(colon - since));
    epoch[colon - since] = '\0';
    options->epoch = epoch;
    options->offset = colon + 1;
    return true;
}

static void subscribe(struct sub *sub, struct wanted *wanted)
{
    const struct args *args = sub->link.args;
    const struct state_entry *entry = state_find(&sub->state, wanted->topic);
    struct swb_subscribe_options options = {.presence = false};
    char epoch[256];

    parse_since(args->values[OPT_SINCE], &options, epoch);
    if (!options.everything && !options.epoch && entry) {
        options.epoch = entry->epoch;
        options.offset = entry->offset;
    }
    if (pattern_is(wanted->topic))
        options = (struct swb_subscribe_options){.presence = false};
    wanted->recovering = options.epoch != NULL;
    int error = swb_begin_subscribe(sub->link.client, wanted->topic, &options, on_subscribed, wanted);
    if (error)
        link_fail(&sub->link, wanted->topic, error, NULL);
}

static bool open_state(struct sub *sub, const struct args *args)
{
    char path[4096];
    const char *given = args->values[OPT_STATE];

    if (args_has(args, OPT_NO_RECOVER))
        return true;
    if (!given && !state_default_path(settings_url(args), args->words, args->word_count, path, sizeof path)) {
        complain("there is no place to remember positions (no HOME): what is missed later is lost");
        return true;
    }
    switch (state_open(&sub->state, given ? given : path)) {
    case STATE_OK:
        return true;
    case STATE_IN_USE:
        complain("another swb sub remembers its position in %s%s", given ? given : path,
                 given ? "" : ": this one remembers none");
        return !given;
    case STATE_FAILED:
        complain("%s: %s", given ? given : path, strerror(errno));
        return false;
    }
    return false;
}

static bool check_options(const struct args *args)
{
    struct swb_subscribe_options options;
    char epoch[256];

    if (args_has(args, OPT_STATE) && args_has(args, OPT_NO_RECOVER)) {
        complain("--state and --no-recover exclude each other");
        return false;
    }
    if (!parse_since(args->values[OPT_SINCE], &options, epoch)) {
        complain("--since takes EPOCH:OFFSET or all");
        return false;
    }
    for (size_t i = 0; i < args->word_count; i++) {
        if (args_has(args, OPT_SINCE) && pattern_is(args->words[i])) {
            complain("--since is not for patterns: %s", args->words[i]);
            return false;
        }
    }
    return true;
}

int command_sub(const struct args *args)
{
    struct sub sub = {.link = {.lasting = true,
                               .on_online = on_online,
                               .on_message = on_message,
                               .on_recovery = on_recovery,
                               .data = &sub}};
    struct wanted *wanted = mem_calloc(args->word_count, sizeof *wanted);
    int status = EXIT_USAGE;

    if (!wanted || !check_options(args) || !args_number(args, OPT_COUNT, 0, &sub.left)) {
        mem_free(wanted);
        return status;
    }
    state_init(&sub.state);
    list_init(&sub.catch_ups);
    if (!open_state(&sub, args)) {
        status = EXIT_ERROR;
    } else if (!link_open(&sub.link, args)) {
        status = sub.link.status;
    } else {
        for (size_t i = 0; i < args->word_count; i++) {
            wanted[i] = (struct wanted){.sub = &sub, .topic = args->words[i]};
            subscribe(&sub, &wanted[i]);
        }
        status = link_run(&sub.link);
    }
    link_close(&sub.link);
    while (!list_empty(&sub.catch_ups))
        catch_up_destroy(container_of(sub.catch_ups.next, struct catch_up, link));
    state_close(&sub.state);
    mem_free(wanted);
    return status;
}
