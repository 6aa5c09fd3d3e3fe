#include "broker/address_limit.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "broker/network.h"

#include <arpa/inet.h>
#include <string.h>

enum { LOG_INTERVAL_MS = 60000 };

struct address_limit {
    struct map shares;
};

/* All connections of one address share it; it lives as long as one of them. */
struct address_share {
    struct map_node node;
    struct address_limit *limit;
    size_t count;
    uint64_t logged_ms; /* monotonic; 0: not yet */
    size_t key_len;
    char key[sizeof(struct in6_addr)];
};

struct address_limit *address_limit_create(void)
{
    struct address_limit *limit = mem_calloc(1, sizeof *limit);

    if (limit)
        map_init(&limit->shares);
    return limit;
}

void address_limit_destroy(struct address_limit *limit)
{
    if (!limit)
        return;
    map_close(&limit->shares);
    mem_free(limit);
}

static struct address_share *share_obtain(struct address_limit *limit, const char *key, size_t len)
{
    struct map_node *node = map_find(&limit->shares, key, len);

    if (node)
        return container_of(node, struct address_share, node);
    struct address_share *share = mem_calloc(1, sizeof *share);
    if (!share)
        return NULL;
    share->limit = limit;
    share->key_len = len;
    memcpy(share->key, key, len);
    if (map_insert(&limit->shares, &share->node, share->key, len))
        return share;
    mem_free(share);
    return NULL;
}

static void report(struct address_share *share, const struct sockaddr *address, size_t allowed)
{
    uint64_t now = clock_monotonic_ms();
    char text[NETWORK_TEXT_SIZE];

    if (share->logged_ms && now - share->logged_ms < LOG_INTERVAL_MS)
        return;
    share->logged_ms = now;
    log_warn("connections refused", log_str("reason", "address_limit is reached"),
             log_str("address", network_format(address, text)), log_int("address_limit", (int64_t)allowed));
}

enum address_outcome address_limit_take(struct address_limit *limit, const struct config *config,
                                        const struct sockaddr *address, struct address_share **share)
{
    struct network_address from;

    *share = NULL;
    if (!config->address_limit || !network_address_of(address, &from) || network_is_loopback(&from) ||
        network_list_holds(&config->trusted_proxies, &from))
        return ADDRESS_FREE;
    struct address_share *found = share_obtain(limit, (const char *)from.bytes, from.v6 ? sizeof from.bytes / 2 : 4);
    if (!found)
        return ADDRESS_REFUSED;
    if (found->count >= config->address_limit) {
        report(found, address, (size_t)config->address_limit);
        return ADDRESS_REFUSED;
    }
    found->count++;
    *share = found;
    return ADDRESS_TAKEN;
}

void address_share_release(struct address_share *share)
{
    if (!share || --share->count)
        return;
    map_remove(&share->limit->shares, &share->node);
    mem_free(share);
}
