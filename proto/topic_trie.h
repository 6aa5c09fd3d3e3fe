/* Many patterns of topics, kept by their tokens: finds those that match a name by a few look-ups, however many there are.
 *
 * What matches is what topic_matches() says. A match visits at most one node for each way in which the pattern's tokens can
 * be the name's or wildcards, so its cost is bounded by the tokens of the longest pattern, not by the number of patterns. */
#ifndef PROTO_TOPIC_TRIE_H
#define PROTO_TOPIC_TRIE_H

#include "base/map.h"
#include "proto/slice.h"

#include <stdbool.h>

struct topic_trie_node;

/* Embedded in whatever stands for a pattern. */
struct topic_trie_entry {
    struct topic_trie_node *node;
};

struct topic_trie_node {
    struct map_node edge; /* in the trie by parent and token; not for the root and for a * */
    struct topic_trie_node *parent, *star;
    struct topic_trie_entry *here; /* the pattern that ends here; NULL: none */
    struct topic_trie_entry *rest; /* the pattern that ends here with a > */
    size_t children;
    char *key; /* the parent's address, the token; behind the node itself; NULL: the root's */
};

struct topic_trie {
    struct map edges;
    struct topic_trie_node root;
    size_t count; /* of patterns */
};

void topic_trie_init(struct topic_trie *trie);
void topic_trie_close(struct topic_trie *trie); /* its patterns must have been removed */

/* Adds a pattern (or a name, which matches itself), which must not be in it. False when memory is short: nothing was
 * changed. */
bool topic_trie_insert(struct topic_trie *trie, struct slice pattern, struct topic_trie_entry *entry)
    __attribute__((warn_unused_result));
void topic_trie_remove(struct topic_trie *trie, struct topic_trie_entry *entry);

/* The entry of exactly this pattern, or NULL. */
struct topic_trie_entry *topic_trie_find(const struct topic_trie *trie, struct slice pattern);

/* Calls `visit` for each pattern that matches, until it returns true; returns whether it did. */
typedef bool topic_trie_visit(void *data, struct topic_trie_entry *entry);
bool topic_trie_match(const struct topic_trie *trie, struct slice name, topic_trie_visit *visit, void *data);

#endif
