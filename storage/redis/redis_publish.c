#include "proto/address.h"
#include "proto/errors.h"
#include "proto/message.h"
#include "proto/topic.h"
#include "storage/offset.h"
#include "storage/redis/redis_storage.h"

#include <inttypes.h>
#include <stdio.h>

/* Storing, remembering the outcome under the key, and publishing are one script, so nothing comes between them.
 *
 * Channel and key share a Cluster slot (both have the name in braces); the history has another one (there the
 * kind is in the braces too). On a cluster this is the place to make two steps of it: first the script's
 * store() with the history's key, then the rest with the envelope completed by its answer. */

enum { ARGS_MAX = 3 + INTEREST_CHANNELS + 11, NUMBER_MAX = 24 };

/* sb:once:CHANNEL:KEY */
struct once_key {
    size_t len;
    char text[REDIS_KEY_MAX + 3 * STORAGE_KEY_MAX];
};

static bool once_key(const struct redis_storage *storage, struct once_key *key, struct slice channel,
                     struct slice once)
{
    if (once.len > STORAGE_KEY_MAX || channel.len >= CHANNEL_MAX)
        return false;
    key->len = (size_t)snprintf(key->text, sizeof key->text, "%sonce:%.*s:", storage->prefix,
                                (int)channel.len, channel.data);
    key->len += address_encode_name(once, key->text + key->len);
    return true;
}

static struct slice number(char out[static NUMBER_MAX], uint64_t value)
{
    return slice_from(out, (size_t)snprintf(out, NUMBER_MAX, "%" PRIu64, value));
}

static void on_published(void *data, const struct redis_reply *reply, int error)
{
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
    char age[NUMBER_MAX], life[NUMBER_MAX], keep[NUMBER_MAX], ttl[NUMBER_MAX], time[NUMBER_MAX];
    char epoch[STORAGE_EPOCH_LEN + 1];
    struct redis_key key, history, interested[INTEREST_CHANNELS];
    struct once_key once;
    struct slice args[ARGS_MAX];
    size_t keys = 0, count;

    if (!redis_key_channel(storage, &key, channel) || !redis_history_key(storage, &history, channel) ||
        !once_key(storage, &once, channel, publication->key))
        return ERROR_BAD_REQUEST;
    args[keys++] = redis_key_slice(&key);
    if (publication->store)
        args[keys++] = redis_key_slice(&history);
    if (publication->key.len)
        args[keys++] = slice_from(once.text, once.len);
    for (size_t i = 0, heard = redis_interest_channels(storage, channel, interested); i < heard; i++)
        args[keys++] = redis_key_slice(&interested[i]);
    count = keys;
    args[count++] = publication->bytes;
    args[count++] = number(life, publication->key.len ? STORAGE_KEY_LIFE_MS : 0);
    args[count++] = number(keep, publication->store ? storage->instance.history_count : 0);
    if (publication->store) {
        storage_epoch_create(epoch);
        args[count++] = number(age, storage->instance.history_age_ms);
        args[count++] = number(ttl, publication->ttl_ms);
        args[count++] = slice_text(epoch);
        args[count++] = fields->from;
        args[count++] = fields->id;
        args[count++] = number(time, fields->time_ms);
        args[count++] = slice_text(contents[fields->content]);
        args[count++] = fields->payload;
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
