/* Which patterns are held, and by which instance; how a publisher finds out whom a message interests. See redis_interest.h. */
#include "storage/redis/redis_interest.h"

#include "base/alloc.h"
#include "base/log.h"
#include "proto/errors.h"
#include "proto/topic.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>

enum {
    TOPIC_MAX = 3 * ADDRESS_NAME_MAX, /* encoded */
    LATE_MAX = 16 * 1024 * 1024,      /* changes that wait for a set to be read */
    SCRATCH_KEEP = 1 << 20,
};

/* Another instance. */
struct holder {
    struct map_node node;
    struct redis_storage *storage;
    struct list holdings;
    struct list due;    /* in interest.due while it is to be told what was heard; alone otherwise */
    struct buffer late; /* changes that came while its set is read */
    unsigned loads;     /* readings of its set that are open */
    bool listed;        /* in the map */
    bool asks;          /* for what was heard, once its set is read */
    uint64_t told;      /* its latest serial that came */
    uint64_t heard;     /* our latest serial that it heard */
    char id[];
};

/* A pattern that an instance holds. */
struct holding {
    struct list of_pattern, of_holder;
    struct redis_pattern *pattern;
    struct holder *holder;
};

/* Without the memory to follow what others hold, messages would pass their patterns by: an outage, not a silence. */
static void fail(struct redis_storage *storage)
{
    redis_conn_fail(redis_topology_bus(&storage->topology, slice_text("patterns")), "memory is short");
}

bool redis_interest_word(struct slice *rest, struct slice *word)
{
    size_t len = 0;

    while (rest->len && rest->data[0] == ' ')
        *rest = slice_from(rest->data + 1, rest->len - 1);
    while (len < rest->len && rest->data[len] != ' ')
        len++;
    *word = slice_from(rest->data, len);
    *rest = slice_from(rest->data + len, rest->len - len);
    return len > 0;
}

static bool take_serial(struct slice *rest, uint64_t *serial)
{
    struct slice word;

    *serial = 0;
    if (!redis_interest_word(rest, &word) || word.len > 19)
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (word.data[i] < '0' || word.data[i] > '9')
            return false;
        *serial = *serial * 10 + (uint64_t)(word.data[i] - '0');
    }
    return true;
}

static void encode_id(struct slice id, struct redis_key *out)
{
    out->len = id.len <= ADDRESS_NAME_MAX ? address_encode_name(id, out->text) : 0;
}

void redis_interest_own_id(const struct redis_storage *storage, struct redis_key *id)
{
    encode_id(slice_text(storage->instance.id), id);
}

/* ---- patterns ---- */

static struct slice topic_of(const struct redis_pattern *pattern)
{
    struct slice topic = {NULL, 0};

    topic_of_channel(slice_from(pattern->channel, pattern->len), &topic);
    return topic;
}

struct redis_pattern *redis_interest_get(struct redis_storage *storage, struct slice topic)
{
    uint8_t kind = topic_begins_wild(topic) ? INTEREST_WILD : INTEREST_LITERAL;
    struct topic_trie *trie = &storage->interest.tries[kind];
    struct topic_trie_entry *entry = topic_trie_find(trie, topic);

    if (entry)
        return container_of(entry, struct redis_pattern, entry);
    size_t len = topic.len + strlen("topic:{}");
    struct redis_pattern *pattern = mem_calloc(1, sizeof *pattern + len + 1);
    if (!pattern)
        return NULL;
    snprintf(pattern->channel, len + 1, "topic:{%.*s}", (int)topic.len, topic.data);
    pattern->len = (uint16_t)len;
    pattern->kind = kind;
    list_init(&pattern->holdings);
    list_init(&pattern->changed);
    list_init(&pattern->link);
    if (topic_trie_insert(trie, topic_of(pattern), &pattern->entry)) {
        list_append(&storage->interest.patterns, &pattern->link);
        return pattern;
    }
    mem_free(pattern);
    return NULL;
}

void redis_interest_release(struct redis_storage *storage, struct redis_pattern *pattern)
{
    if (pattern->first || pattern->wishes || !list_empty(&pattern->holdings) || !list_empty(&pattern->changed))
        return;
    topic_trie_remove(&storage->interest.tries[pattern->kind], &pattern->entry);
    list_remove(&pattern->link);
    mem_free(pattern);
}

static struct holding *find_holding(const struct holder *holder, const struct redis_pattern *pattern)
{
    list_for_each (link, &pattern->holdings) {
        struct holding *holding = container_of(link, struct holding, of_pattern);
        if (holding->holder == holder)
            return holding;
    }
    return NULL;
}

static void drop_holding(struct holding *holding)
{
    struct redis_pattern *pattern = holding->pattern;

    list_remove(&holding->of_pattern);
    list_remove(&holding->of_holder);
    redis_interest_release(holding->holder->storage, pattern);
    mem_free(holding);
}

static void drop_holdings(struct holder *holder)
{
    while (!list_empty(&holder->holdings))
        drop_holding(container_of(holder->holdings.next, struct holding, of_holder));
}

/* What can't be a pattern is left out. */
static bool is_pattern(struct slice topic)
{
    return topic.len && topic.len <= TOPIC_MAX && topic_is_pattern(topic);
}

static void hold(struct holder *holder, struct slice topic)
{
    struct redis_pattern *pattern = redis_interest_get(holder->storage, topic);
    struct holding *holding = NULL;

    if (pattern && find_holding(holder, pattern))
        return;
    if (pattern)
        holding = mem_alloc(sizeof *holding);
    if (!holding) {
        if (pattern)
            redis_interest_release(holder->storage, pattern);
        fail(holder->storage);
        return;
    }
    *holding = (struct holding){.pattern = pattern, .holder = holder};
    list_append(&pattern->holdings, &holding->of_pattern);
    list_append(&holder->holdings, &holding->of_holder);
}

static void let_go(struct holder *holder, struct slice topic)
{
    struct topic_trie *tries = holder->storage->interest.tries;
    struct topic_trie_entry *entry =
        topic_trie_find(&tries[topic_begins_wild(topic) ? INTEREST_WILD : INTEREST_LITERAL], topic);
    struct holding *holding =
        entry ? find_holding(holder, container_of(entry, struct redis_pattern, entry)) : NULL;

    if (holding)
        drop_holding(holding);
}

/* ---- the other instances ---- */

static struct holder *holder_find(const struct redis_storage *storage, struct slice id)
{
    struct map_node *node = map_find(&storage->interest.holders, id.data, id.len);

    return node ? container_of(node, struct holder, node) : NULL;
}

/* The instance of this encoded id, known from now on; NULL when memory is short. */
static struct holder *holder_get(struct redis_storage *storage, struct slice id)
{
    struct holder *holder = holder_find(storage, id);

    if (holder)
        return holder;
    holder = mem_calloc(1, sizeof *holder + id.len);
    if (!holder)
        return NULL;
    holder->storage = storage;
    list_init(&holder->holdings);
    list_init(&holder->due);
    buffer_init(&holder->late, LATE_MAX);
    memcpy(holder->id, id.data, id.len);
    holder->listed = map_insert(&storage->interest.holders, &holder->node, holder->id, id.len);
    if (holder->listed)
        return holder;
    mem_free(holder);
    return NULL;
}

static struct slice holder_id(const struct holder *holder)
{
    return slice_from(holder->node.key, holder->node.key_len);
}

static void holder_forget(struct holder *holder)
{
    drop_holdings(holder);
    list_remove(&holder->due);
    if (holder->listed)
        map_remove(&holder->storage->interest.holders, &holder->node);
    holder->listed = false;
    if (holder->loads)
        return; /* the last answer frees it */
    buffer_close(&holder->late);
    mem_free(holder);
}

static void forget_all(struct redis_storage *storage)
{
    struct map_node *node;

    while ((node = map_next(&storage->interest.holders, NULL)))
        holder_forget(container_of(node, struct holder, node));
}

/* It is told at the end of the turn, or when its set has been read. */
static void owe_answer(struct holder *holder)
{
    holder->asks = holder->loads > 0;
    if (holder->loads || !list_empty(&holder->due))
        return;
    list_append(&holder->storage->interest.due, &holder->due);
    event_active(holder->storage->interest.event, 0, 0);
}

static void apply(struct holder *holder, struct slice changes)
{
    struct slice word;

    while (redis_interest_word(&changes, &word)) {
        struct slice topic = slice_from(word.data + 1, word.len - 1);
        if (word.data[0] == '+' && is_pattern(topic))
            hold(holder, topic);
        else if (word.data[0] == '-' && is_pattern(topic))
            let_go(holder, topic);
    }
}

/* ---- reading a set ---- */

static void all_loaded(struct redis_storage *storage)
{
    struct redis_interest *interest = &storage->interest;

    if (interest->loaded || interest->listing || interest->loads)
        return;
    interest->loaded = true;
    redis_pattern_on_loaded(storage);
}

static void on_set(void *data, const struct redis_reply *reply, int error)
{
    struct holder *holder = data;
    struct redis_storage *storage = holder->storage;

    storage->interest.loads--;
    holder->loads--;
    if (!holder->listed) {
        if (!holder->loads)
            holder_forget(holder);
    } else if (error) {
        /* What an instance holds is not known: nothing can be published past that. */
        if (reply)
            redis_topology_drop(&storage->topology, reply->text.data);
        return;
    } else if (!holder->loads) {
        drop_holdings(holder);
        for (size_t i = 0; i < reply->count; i++)
            if (is_pattern(redis_reply_text(reply, i)))
                hold(holder, redis_reply_text(reply, i));
        apply(holder, slice_from(holder->late.data, holder->late.len));
        buffer_close(&holder->late);
        if (holder->asks)
            owe_answer(holder);
    }
    all_loaded(storage);
}

/* Only what comes from now on counts on top of it. */
static void load(struct holder *holder)
{
    struct redis_storage *storage = holder->storage;
    char name[ADDRESS_NAME_MAX + 1], text[CHANNEL_MAX];
    struct address address;
    struct redis_key key;
    struct slice id = holder_id(holder);
    int len = snprintf(text, sizeof text, "instance:{%.*s}", (int)id.len, id.data);

    buffer_clear(&holder->late);
    if (len >= (int)sizeof text || !address_from_channel(slice_from(text, (size_t)len), &address, name))
        return;
    redis_key_patterns(storage, &key, address.name);
    const struct slice args[] = {slice_text("SMEMBERS"), redis_key_slice(&key)};
    if (redis_conn_command(redis_topology_pick(&storage->topology, args[1]), args, 2, on_set, holder) != 0) {
        fail(storage);
        return;
    }
    holder->loads++;
    storage->interest.loads++;
}

static void on_instances(void *data, const struct redis_reply *reply, int error)
{
    struct redis_storage *storage = data;

    if (error) {
        if (reply)
            redis_setup_fail(storage, "ZRANGE", reply);
        return;
    }
    storage->interest.listing = false;
    for (size_t i = 0; i < reply->count; i++) {
        struct slice id = redis_reply_text(reply, i);
        struct redis_key encoded;
        if (address_check_name(id) != NULL || slice_is(id, storage->instance.id))
            continue;
        encode_id(id, &encoded);
        struct holder *holder = holder_get(storage, redis_key_slice(&encoded));
        if (holder)
            load(holder);
        else
            fail(storage);
    }
    all_loaded(storage);
}

void redis_interest_begin(struct redis_storage *storage)
{
    struct redis_key key;

    redis_key_instances(storage, &key);
    const struct slice args[] = {slice_text("ZRANGE"), redis_key_slice(&key), slice_text("0"), slice_text("-1")};
    storage->interest.listing = true;
    storage->interest.loaded = storage->interest.announced = false;
    if (redis_conn_command(redis_topology_pick(&storage->topology, args[1]), args, 4, on_instances, storage) != 0)
        redis_setup_fail(storage, "ZRANGE", NULL);
    else
        redis_pattern_begin(storage);
}

void redis_interest_on_down(struct redis_storage *storage, int error)
{
    storage->interest.querying = false;
    redis_pattern_on_down(storage, error);
    forget_all(storage);
}

/* ---- what is told ---- */

static void hear(struct holder *holder, uint64_t serial, struct slice changes)
{
    const char first = changes.len ? changes.data[0] : '\0';

    if (first == '=')
        load(holder);
    else if (first != '?' && !holder->loads)
        apply(holder, changes);
    else if (first != '?' && (!buffer_append(&holder->late, changes.data, changes.len) ||
                              !buffer_append(&holder->late, " ", 1)))
        fail(holder->storage);
    holder->told = serial;
    /* Nobody waits for what only ends. */
    if (first == '=' || first == '?' || (changes.len && memchr(changes.data, '+', changes.len)))
        owe_answer(holder);
}

void redis_interest_on_change(struct redis_storage *storage, struct slice bytes)
{
    struct redis_interest *interest = &storage->interest;
    struct redis_key own;
    struct slice id;
    uint64_t serial;

    if (!redis_interest_word(&bytes, &id) || id.len > TOPIC_MAX || !take_serial(&bytes, &serial))
        return;
    while (bytes.len && bytes.data[0] == ' ')
        bytes = slice_from(bytes.data + 1, bytes.len - 1);
    redis_interest_own_id(storage, &own);
    if (slice_equal(id, redis_key_slice(&own))) {
        /* No later than this have all others that are subscribed got it as well. */
        if (serial > interest->heard && serial <= interest->serial)
            interest->heard = serial;
        redis_pattern_on_heard(storage);
        return;
    }
    bool gone = bytes.len && bytes.data[0] == '!';
    struct holder *holder = gone ? holder_find(storage, id) : holder_get(storage, id);
    if (gone && holder)
        holder_forget(holder);
    else if (holder)
        hear(holder, serial, bytes);
    else if (!gone)
        fail(storage);
    if (gone)
        redis_pattern_on_heard(storage);
}

int redis_interest_tell_gone(struct redis_storage *storage, struct slice id, redis_on_reply *on_reply, void *data)
{
    struct redis_key text;

    encode_id(id, &text);
    text.len += (size_t)snprintf(text.text + text.len, sizeof text.text - text.len, " 0 !");
    return redis_bus_send(storage, slice_text("patterns"), redis_key_slice(&text), on_reply, data);
}

/* ---- what was heard ---- */

static void answer(struct holder *holder)
{
    struct redis_storage *storage = holder->storage;
    struct slice id = holder_id(holder);
    struct redis_key own;
    char channel[CHANNEL_MAX], text[REDIS_KEY_MAX];

    redis_interest_own_id(storage, &own);
    int channel_len = snprintf(channel, sizeof channel, "instance:{%.*s}", (int)id.len, id.data);
    int len = snprintf(text, sizeof text, "heard %.*s %" PRIu64, (int)own.len, own.text, holder->told);
    /* Should it not go out: who waits for it asks again. */
    if (channel_len < (int)sizeof channel)
        (void)!redis_bus_send(storage, slice_from(channel, (size_t)channel_len), slice_from(text, (size_t)len),
                              redis_ignore, NULL);
}

bool redis_interest_take_heard(struct redis_storage *storage, struct slice bytes)
{
    struct slice word, id;
    uint64_t serial;

    if (bytes.len < 6 || memcmp(bytes.data, "heard ", 6) != 0)
        return false;
    redis_interest_word(&bytes, &word);
    if (!redis_interest_word(&bytes, &id) || id.len > TOPIC_MAX || !take_serial(&bytes, &serial) ||
        serial > storage->interest.serial)
        return true;
    struct holder *holder = holder_get(storage, id);
    if (holder && serial > holder->heard)
        holder->heard = serial;
    redis_pattern_on_heard(storage);
    return true;
}

size_t redis_interest_peers(const struct redis_storage *storage)
{
    return storage->interest.holders.count;
}

size_t redis_interest_heard_by(const struct redis_storage *storage, uint64_t serial)
{
    const struct map *holders = &storage->interest.holders;
    size_t count = 0;

    for (struct map_node *node = map_next(holders, NULL); node; node = map_next(holders, node))
        count += container_of(node, struct holder, node)->heard >= serial;
    return count;
}

bool redis_interest_heard(const struct redis_storage *storage, struct slice id, uint64_t serial)
{
    struct redis_key encoded;

    if (slice_is(id, storage->instance.id))
        return storage->interest.heard >= serial;
    encode_id(id, &encoded);
    const struct holder *holder = holder_find(storage, redis_key_slice(&encoded));
    return holder && holder->heard >= serial;
}

/* ---- publishing ---- */

static bool any(void *data, struct topic_trie_entry *entry)
{
    (void)data, (void)entry;
    return true;
}

static void interest_key(const struct redis_storage *storage, struct redis_key *key, struct slice first)
{
    key->len = (size_t)snprintf(key->text, sizeof key->text, "%spattern:{%.*s}", storage->prefix, (int)first.len,
                                first.data);
}

size_t redis_interest_channels(const struct redis_storage *storage, struct slice channel,
                               struct redis_key out[static INTEREST_CHANNELS])
{
    const struct topic_trie *tries = storage->interest.tries;
    struct slice topic, rest;
    size_t count = 0;
    bool last;

    if (channel.len >= CHANNEL_MAX || !topic_of_channel(channel, &topic))
        return 0;
    rest = topic;
    if (topic_trie_match(&tries[INTEREST_LITERAL], topic, any, NULL))
        interest_key(storage, &out[count++], topic_take_token(&rest, &last));
    if (topic_trie_match(&tries[INTEREST_WILD], topic, any, NULL))
        interest_key(storage, &out[count++], slice_text("*"));
    return count;
}

/* An instance that is subscribed to the topic and holds a pattern takes the message twice, and is one. */
static void on_copied(void *data, const struct redis_reply *reply, int error)
{
    struct redis_task *task = data;

    if (!error && reply->integer > task->number)
        task->number = reply->integer;
    redis_task_replied(task, error);
}

int redis_interest_publish(struct redis_storage *storage, struct slice channel, struct slice bytes,
                           const struct redis_key *to, size_t count, struct storage_request *request)
{
    struct buffer *copy = &storage->interest.copy;
    struct slice topic;
    struct redis_key key;

    if (!topic_of_channel(channel, &topic) || !redis_key_channel(storage, &key, channel))
        return ERROR_BAD_REQUEST;
    buffer_recycle(copy, SCRATCH_KEEP);
    if (!buffer_append(copy, topic.data, topic.len) || !buffer_append(copy, " ", 1) ||
        !buffer_append(copy, bytes.data, bytes.len))
        return ERROR_NO_MEMORY;
    struct redis_task *task = redis_task_create(storage, request, sizeof *task);
    if (!task)
        return ERROR_NO_MEMORY;
    const struct slice original[] = {slice_text("PUBLISH"), redis_key_slice(&key), bytes};
    redis_task_command(task, original, 3, on_copied);
    for (size_t i = 0; i < count; i++) {
        const struct slice args[] = {slice_text("PUBLISH"), redis_key_slice(&to[i]),
                                     slice_from(copy->data, copy->len)};
        redis_task_command(task, args, 3, on_copied);
    }
    redis_task_made(task);
    return 0;
}

/* ---- life ---- */

static void on_turn_end(evutil_socket_t fd, short what, void *data)
{
    struct redis_storage *storage = data;
    struct list *link;

    (void)fd, (void)what;
    while ((link = list_pop(&storage->interest.due)))
        answer(container_of(link, struct holder, due));
    redis_pattern_flush(storage);
}

bool redis_interest_init(struct redis_storage *storage)
{
    struct redis_interest *interest = &storage->interest;

    for (size_t i = 0; i < 2; i++)
        topic_trie_init(&interest->tries[i]);
    map_init(&interest->holders);
    map_init(&interest->firsts);
    list_init(&interest->patterns);
    list_init(&interest->due);
    list_init(&interest->changed);
    list_init(&interest->announcements);
    buffer_init(&interest->text, 0);
    buffer_init(&interest->bulks, 0);
    buffer_init(&interest->copy, 0);
    buffer_init(&interest->found, 0);
    interest->event = event_new(storage->loop, -1, 0, on_turn_end, storage);
    return interest->event;
}

void redis_interest_close(struct redis_storage *storage)
{
    struct redis_interest *interest = &storage->interest;
    struct list *link;

    forget_all(storage);
    redis_pattern_on_down(storage, ERROR_CANCELLED);
    while ((link = list_pop(&interest->patterns))) {
        struct redis_pattern *pattern = container_of(link, struct redis_pattern, link);
        topic_trie_remove(&interest->tries[pattern->kind], &pattern->entry);
        mem_free(pattern);
    }
    for (size_t i = 0; i < 2; i++)
        topic_trie_close(&interest->tries[i]);
    map_close(&interest->holders);
    redis_pattern_close(storage);
    buffer_close(&interest->text);
    buffer_close(&interest->bulks);
    buffer_close(&interest->copy);
    buffer_close(&interest->found);
    if (interest->event)
        event_free(interest->event);
}
