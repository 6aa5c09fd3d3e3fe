/* Who stored how much, and where: what the limits of storage_limits are compared with. Exact: each stored message is
 * entered, and taken out when it leaves its history. */
#include "base/alloc.h"
#include "storage/memory/memory_storage.h"

struct account {
    struct map_node node; /* in memory->accounts by sender */
    size_t addresses;
    uint64_t bytes;
    char sender[];
};

/* A sender's messages at one address. */
struct share {
    struct map_node node; /* in memory->shares by channel, NUL, sender */
    struct account *account;
    size_t messages;
    char key[];
};

void memory_stored_init(struct memory *memory)
{
    map_init(&memory->accounts);
    map_init(&memory->shares);
}

void memory_stored_close(struct memory *memory)
{
    map_close(&memory->accounts);
    map_close(&memory->shares);
}

static void account_maybe_free(struct memory *memory, struct account *account)
{
    if (account->addresses)
        return;
    map_remove(&memory->accounts, &account->node);
    mem_free(account);
}

static struct account *account_get(struct memory *memory, struct slice sender)
{
    struct map_node *node = map_find(&memory->accounts, sender.len ? sender.data : "", sender.len);
    struct account *account = node ? container_of(node, struct account, node) : NULL;

    if (account)
        return account;
    account = mem_alloc(sizeof *account + sender.len);
    if (!account)
        return NULL;
    *account = (struct account){.addresses = 0};
    if (sender.len)
        memcpy(account->sender, sender.data, sender.len);
    if (map_insert(&memory->accounts, &account->node, account->sender, sender.len))
        return account;
    mem_free(account);
    return NULL;
}

/* The sender's share at the channel; one without messages when there was none. NULL when memory is short. */
static struct share *share_get(struct memory *memory, struct slice channel, struct slice sender)
{
    struct share *share = mem_alloc(sizeof *share + channel.len + 1 + sender.len);

    if (!share)
        return NULL;
    *share = (struct share){.messages = 0};
    size_t len = memory_join(channel, sender, share->key);
    struct map_node *node = map_find(&memory->shares, share->key, len);
    if (node) {
        mem_free(share);
        return container_of(node, struct share, node);
    }
    share->account = account_get(memory, sender);
    if (share->account && map_insert(&memory->shares, &share->node, share->key, len)) {
        share->account->addresses++;
        return share;
    }
    if (share->account)
        account_maybe_free(memory, share->account);
    mem_free(share);
    return NULL;
}

static void share_maybe_free(struct memory *memory, struct share *share)
{
    if (share->messages)
        return;
    map_remove(&memory->shares, &share->node);
    share->account->addresses--;
    account_maybe_free(memory, share->account);
    mem_free(share);
}

static bool passes(uint64_t value, uint64_t limit)
{
    return limit && value > limit;
}

/* The first limit that the message would pass, or NULL. */
static const char *refusal(const struct memory *memory, const struct memory_growth *growth,
                           const struct share *share)
{
    const struct storage_limits *limits = &memory->instance.limits;
    const struct account *account = share->account;
    uint64_t all = memory->stored_bytes - growth->dropped + growth->added;
    uint64_t own = account->bytes - growth->own_dropped + growth->added;

    if (growth->begins && passes(memory->histories.count + 1, limits->stored_addresses))
        return "stored_addresses";
    if (growth->added > growth->dropped && passes(all, limits->stored_bytes))
        return "stored_bytes";
    if (!share->messages && passes(account->addresses, limits->sender_addresses))
        return "sender_addresses";
    if (growth->added > growth->own_dropped && passes(own, limits->sender_bytes))
        return "sender_bytes";
    return NULL;
}

struct share *memory_stored_find(const struct memory *memory, struct slice channel, struct slice sender)
{
    char key[CHANNEL_MAX + 1 + ADDRESS_MAX];

    if (channel.len >= CHANNEL_MAX || sender.len > ADDRESS_MAX)
        return NULL;
    struct map_node *node = map_find(&memory->shares, key, memory_join(channel, sender, key));
    return node ? container_of(node, struct share, node) : NULL;
}

struct share *memory_stored_add(struct memory *memory, struct slice channel, struct slice sender,
                                const struct memory_growth *growth, const char **why)
{
    struct share *share = share_get(memory, channel, sender);

    *why = share ? refusal(memory, growth, share) : NULL;
    if (!share || *why) {
        if (share)
            share_maybe_free(memory, share);
        return NULL;
    }
    share->messages++;
    share->account->bytes += growth->added;
    memory->stored_bytes += growth->added;
    return share;
}

void memory_stored_remove(struct memory *memory, struct share *share, size_t bytes)
{
    share->messages--;
    share->account->bytes -= bytes;
    memory->stored_bytes -= bytes;
    share_maybe_free(memory, share);
}
