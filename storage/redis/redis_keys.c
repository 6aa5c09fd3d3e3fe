#include "storage/redis/redis_storage.h"

static void begin(const struct redis_storage *storage, struct redis_key *key)
{
    memcpy(key->text, storage->prefix, storage->prefix_len);
    key->len = storage->prefix_len;
}

static void add(struct redis_key *key, struct slice text)
{
    memcpy(key->text + key->len, text.data, text.len);
    key->len += text.len;
}

void redis_key_address(const struct redis_storage *storage, struct redis_key *key, enum address_kind kind,
                       struct slice name)
{
    const struct address address = {.kind = kind, .name = name};

    begin(storage, key);
    key->len += address_channel(&address, key->text + key->len);
}

void redis_key_members(const struct redis_storage *storage, struct redis_key *key, struct slice instance)
{
    redis_key_address(storage, key, ADDRESS_INSTANCE, instance);
    add(key, slice_text(":sessions"));
}

void redis_key_patterns(const struct redis_storage *storage, struct redis_key *key, struct slice instance)
{
    redis_key_address(storage, key, ADDRESS_INSTANCE, instance);
    add(key, slice_text(":patterns"));
}

void redis_key_instances(const struct redis_storage *storage, struct redis_key *key)
{
    begin(storage, key);
    add(key, slice_text("instances"));
}

bool redis_key_channel(const struct redis_storage *storage, struct redis_key *key, struct slice channel)
{
    if (channel.len >= CHANNEL_MAX)
        return false;
    begin(storage, key);
    add(key, channel);
    return true;
}
