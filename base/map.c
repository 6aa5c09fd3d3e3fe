#include "base/map.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { FIRST_SLOTS = 64 };

static uint64_t seed;

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t read_word(const char *data, size_t len)
{
    uint64_t word = 0;
    if (len)
        memcpy(&word, data, len);
    return word;
}

/* Folded multiplication, eight bytes at a time, keyed by a secret seed. */
static uint32_t hash_key(const char *key, size_t len)
{
    uint64_t hash = seed ^ (len * UINT64_C(0x9e3779b97f4a7c15));

    while (len > 8) {
        hash = mix(hash ^ read_word(key, 8), UINT64_C(0xa0761d6478bd642f) ^ seed);
        key += 8;
        len -= 8;
    }
    hash = mix(hash ^ read_word(key, len), UINT64_C(0xe7037ed1a0b428db) ^ seed);
    return (uint32_t)(hash ^ (hash >> 32));
}

void map_init(struct map *map)
{
    static bool seeded;

    *map = (struct map){0};
    if (seeded)
        return;
    /* Once only, as maps in use depend on it. A seed of zero (no entropy at early boot) only costs the
     * protection against chosen collisions. */
    seeded = true;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = 0;
}

void map_close(struct map *map)
{
    mem_free(map->slots);
    *map = (struct map){0};
}

struct map_node *map_find(const struct map *map, const char *key, size_t len)
{
    if (!map->count)
        return NULL;
    uint32_t hash = hash_key(key, len);
    struct map_node *node = map->slots[hash & (map->slot_count - 1)];
    while (node && (node->hash != hash || node->key_len != len || (len && memcmp(node->key, key, len) != 0)))
        node = node->next;
    return node;
}

static bool grow(struct map *map)
{
    size_t slot_count = map->slot_count ? map->slot_count * 2 : FIRST_SLOTS;
    struct map_node **slots = mem_calloc(slot_count, sizeof(struct map_node *));

    if (!slots)
        return false;
    for (size_t i = 0; i < map->slot_count; i++) {
        for (struct map_node *node = map->slots[i], *next; node; node = next) {
            next = node->next;
            node->next = slots[node->hash & (slot_count - 1)];
            slots[node->hash & (slot_count - 1)] = node;
        }
    }
    mem_free(map->slots);
    map->slots = slots;
    map->slot_count = slot_count;
    return true;
}

bool map_insert(struct map *map, struct map_node *node, const char *key, size_t len)
{
    /* A table that can't grow still works, only slower; one that doesn't exist yet doesn't. */
    if (map->count >= map->slot_count && !grow(map) && !map->slot_count)
        return false;
    node->key = key;
    node->key_len = (uint32_t)len;
    node->hash = hash_key(key, len);
    node->next = map->slots[node->hash & (map->slot_count - 1)];
    map->slots[node->hash & (map->slot_count - 1)] = node;
    map->count++;
    return true;
}

void map_remove(struct map *map, struct map_node *node)
{
    struct map_node **slot = &map->slots[node->hash & (map->slot_count - 1)];

    while (*slot != node)
        slot = &(*slot)->next;
    *slot = node->next;
    map->count--;
}

struct map_node *map_next(const struct map *map, const struct map_node *node)
{
    size_t i = 0;

    if (node) {
        if (node->next)
            return node->next;
        i = (node->hash & (map->slot_count - 1)) + 1;
    }
    for (; i < map->slot_count; i++)
        if (map->slots[i])
            return map->slots[i];
    return NULL;
}
