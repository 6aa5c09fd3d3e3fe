/* Intrusive hash map keyed by byte strings.
 *
 * The caller's structure embeds a map_node and keeps its key alive while it is linked. The hash is seeded
 * once per process, so peers that choose keys can't choose collisions. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_node {
    struct map_node *next;
    const char *key;
    uint32_t key_len;
    uint32_t hash;
};

struct map {
    struct map_node **slots;
    size_t slot_count; /* a power of two; 0 before the first insertion */
    size_t count;
};

void map_init(struct map *map);
void map_close(struct map *map); /* frees the table, not the nodes */

struct map_node *map_find(const struct map *map, const char *key, size_t len);

/* Links `node` under `key`, which must not be in the map. False when memory is short: nothing was changed. */
bool map_insert(struct map *map, struct map_node *node, const char *key, size_t len)
    __attribute__((warn_unused_result));

void map_remove(struct map *map, struct map_node *node); /* node must be in the map */

/* Walks all nodes in no particular order: start with NULL. The node returned last may be removed before the
 * next call only through map_remove() after fetching its successor first. */
struct map_node *map_next(const struct map *map, const struct map_node *node);

#endif
