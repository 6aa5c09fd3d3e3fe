#include "proto/address.h"
#include "proto/errors.h"
#include "proto/message.h"
#include "proto/topic.h"
#include "storage/offset.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Storing, remembering the outcome under the key, and publishing are one script, so nothing comes between them.
 *
 * Channel, outcome and history of an address share a Cluster slot: all have its name in braces. The ledgers of
 * what is stored have not. On a cluster this is the place to make two steps of it: first the ledgers, then the
 * rest. */

enum {
    KEYS_MAX = 5 + INTEREST_CHANNELS,
    ARGS_MAX = KEYS_MAX + 17,
    NUMBER_MAX = 24,
    SENDER_MAX = 3 * ADDRESS_MAX + 1
};

/* sb:once:CHANNEL:SENDER:KEY */
struct once_key {
    size_t len;
    char text[REDIS_KEY_MAX + SENDER_MAX + 3 * STORAGE_KEY_MAX];
};

/* sb:stored:SENDER */
struct ledger_key {
    size_t len;
    char text[REDIS_PREFIX_MAX + 16 + SENDER_MAX];
};

/* KIND:NAME as a part of a key, which ends with the next colon: those in the name are encoded too. */
static size_t encode_sender(struct slice sender, char out[static SENDER_MAX])
{
    const char *colon = sender.len ? memchr(sender.data, ':', sender.len) : NULL;
    size_t kind_len = colon ? (size_t)(colon - sender.data) + 1 : 0, len = kind_len;
    const char *at = sender.data + kind_len, *end = sender.data + sender.len;

    if (kind_len)
        memcpy(out, sender.data, kind_len);
    while (at < end) {
        const char *next = memchr(at, ':', (size_t)(end - at));
        len += address_encode_name(slice_from(at, (size_t)((next ? next : end) - at)), out + len);
        if (next)
            len += (size_t)sprintf(out + len, "%%3A");
        at = next ? next + 1 : end;
    }
    return len;
}

static void once_key(const struct redis_storage *storage, struct once_key *key, struct slice channel,
                     struct slice sender, struct slice once)
{
    key->len = (size_t)snprintf(key->text, sizeof key->text, "%sonce:%.*s:%.*s:", storage->prefix,
                                (int)channel.len, channel.data, (int)sender.len, sender.data);
    key->len += address_encode_name(once, key->text + key->len);
}

static struct slice ledger_key(const struct redis_storage *storage, struct ledger_key *key,
                               struct slice sender)
{
    key->len = (size_t)snprintf(key->text, sizeof key->text, "%sstored%s%.*s", storage->prefix,
                                sender.len ? ":" : "", (int)sender.len, sender.len ? sender.data : "");
    return slice_from(key->text, key->len);
}

static struct slice number(char out[static NUMBER_MAX], uint64_t value)
{
    return slice_from(out, (size_t)snprintf(out, NUMBER_MAX, "%" PRIu64, value));
}

/* Lua's numbers are doubles, so no limit is one that they hold. */
static struct slice limit(char out[static NUMBER_MAX], uint64_t value)
{
    return number(out, value && value < UINT64_C(1) << 53 ? value : UINT64_C(1) << 53);
}

static void on_refused(struct storage_request *request, const struct redis_reply *reply)
{
    struct slice why = redis_reply_text(reply, 1);

    redis_done_why(request, slice_is(why, "history_bytes") ? ERROR_TOO_LARGE : ERROR_LIMIT, why);
}

static void on_published(void *data, const struct redis_reply *reply, int error)
{
    if (error && reply && redis_reply_is_error(reply, "OOM")) {
        redis_done_why(data, ERROR_NO_MEMORY, slice_text("Redis has no memory left"));
        return;
    }
    if (!error && redis_reply_integer(reply, 0) < 0) {
        on_refused(data, reply);
        return;
    }
    struct storage_result result = {.number = redis_reply_integer(reply, 0),
                                    .offset = redis_reply_text(reply, 1),
                                    .epoch = redis_reply_text(reply, 2),
                                    .repeated = redis_reply_integer(reply, 3) == 1};

    redis_done(data, error, &result);
}

static int publish(struct redis_storage *storage, struct slice channel,
                   const struct storage_publication *publication, struct storage_request *request)
{
    static const char *const contents[CONTENT_COUNT] = {
        [CONTENT_TEXT] = "text", [CONTENT_BINARY] = "binary", [CONTENT_JSON] = "json"};
    const struct message_fields *fields = publication->fields;
    const struct storage_limits *limits = &storage->instance.limits;
    char age[NUMBER_MAX], life[NUMBER_MAX], keep[NUMBER_MAX], ttl[NUMBER_MAX], time[NUMBER_MAX];
    char most[5][NUMBER_MAX], epoch[STORAGE_EPOCH_LEN + 1], sender_text[SENDER_MAX];
    struct redis_key key, history, interested[INTEREST_CHANNELS];
    struct once_key once;
    struct ledger_key all, own;
    struct slice args[ARGS_MAX];
    size_t keys = 0, count;

    if (!redis_key_channel(storage, &key, channel) || !redis_history_key(storage, &history, channel) ||
        publication->key.len > STORAGE_KEY_MAX || publication->sender.len > ADDRESS_MAX)
        return ERROR_BAD_REQUEST;
    struct slice sender = slice_from(sender_text, encode_sender(publication->sender, sender_text));
    args[keys++] = redis_key_slice(&key);
    if (publication->key.len) {
        once_key(storage, &once, channel, sender, publication->key);
        args[keys++] = slice_from(once.text, once.len);
    }
    if (publication->store) {
        args[keys++] = redis_key_slice(&history);
        args[keys++] = ledger_key(storage, &all, slice_from(NULL, 0));
        args[keys++] = ledger_key(storage, &own, sender);
    }
    for (size_t i = 0, heard = redis_interest_channels(storage, channel, interested); i < heard; i++)
        args[keys++] = redis_key_slice(&interested[i]);
    count = keys;
    args[count++] = publication->bytes;
    args[count++] = number(life, publication->key.len ? STORAGE_KEY_LIFE_MS : 0);
    args[count++] = number(keep, publication->store ? storage->instance.history_count : 0);
    if (publication->store) {
        storage_epoch_create(epoch);
        args[count++] = number(age, storage->instance.history_age_ms);
        args[count++] = limit(most[0], limits->history_bytes);
        args[count++] = number(ttl, publication->ttl_ms);
        args[count++] = slice_text(epoch);
        args[count++] = fields->from;
        args[count++] = fields->id;
        args[count++] = number(time, fields->time_ms);
        args[count++] = slice_text(contents[fields->content]);
        args[count++] = fields->payload;
        args[count++] = sender;
        args[count++] = limit(most[1], limits->stored_addresses);
        args[count++] = limit(most[2], limits->stored_bytes);
        args[count++] = limit(most[3], limits->sender_addresses);
        args[count++] = limit(most[4], limits->sender_bytes);
    }
    return redis_script_call_keys(&storage->scripts, REDIS_SCRIPT_PUBLISH, keys, args, count, on_published,
                                  request);
}

void redis_publish_with(struct storage *base, struct slice channel,
                        const struct storage_publication *publication, struct storage_request *request)
{
    struct redis_storage *storage = redis_storage_of(base);
    struct slice topic;
    int error = ERROR_UNAVAILABLE;

    if (storage->destroyed)
        error = ERROR_CANCELLED;
    else if (base->state == STORAGE_UP && !(topic_of_channel(channel, &topic) && redis_lease_lapsed(storage)))
        error = publish(storage, channel, publication, request);
    struct redis_channel *held = redis_bus_find(storage, channel);
    if (held)
        redis_direct_unsettle(storage, held);
    if (error)
        redis_later(storage, request, error);
}
