/* All edges are in one hash table, by the parent's address and the token: a node without many children costs no table of
 * its own, and one with many is no slower. */
#include "proto/topic_trie.h"

#include "base/alloc.h"
#include "base/list.h"
#include "proto/topic.h"

enum { PARENT = sizeof(struct topic_trie_node *), TOKEN_MAX = 1024 };

void topic_trie_init(struct topic_trie *trie)
{
    *trie = (struct topic_trie){.count = 0};
    map_init(&trie->edges);
}

void topic_trie_close(struct topic_trie *trie)
{
    map_close(&trie->edges);
}

static struct topic_trie_node *child_of(const struct topic_trie *trie, const struct topic_trie_node *parent,
                                        struct slice token)
{
    char key[PARENT + TOKEN_MAX];

    if (token.len > TOKEN_MAX)
        return NULL;
    memcpy(key, &parent, PARENT);
    if (token.len)
        memcpy(key + PARENT, token.data, token.len);
    struct map_node *edge = map_find(&trie->edges, key, PARENT + token.len);
    return edge ? container_of(edge, struct topic_trie_node, edge) : NULL;
}

static struct topic_trie_node *step(const struct topic_trie *trie, const struct topic_trie_node *parent,
                                    struct slice token)
{
    return slice_is(token, "*") ? parent->star : child_of(trie, parent, token);
}

static struct topic_trie_node *node_create(struct topic_trie *trie, struct topic_trie_node *parent,
                                           struct slice token)
{
    bool star = slice_is(token, "*");
    struct topic_trie_node *node =
        token.len <= TOKEN_MAX ? mem_calloc(1, sizeof *node + PARENT + token.len) : NULL;

    if (!node)
        return NULL;
    node->key = (char *)(node + 1);
    memcpy(node->key, &parent, PARENT);
    if (token.len)
        memcpy(node->key + PARENT, token.data, token.len);
    if (!star && !map_insert(&trie->edges, &node->edge, node->key, PARENT + token.len)) {
        mem_free(node);
        return NULL;
    }
    if (star)
        parent->star = node;
    node->parent = parent;
    parent->children++;
    return node;
}

/* Frees the node and those above it that lead nowhere else. */
static void prune(struct topic_trie *trie, struct topic_trie_node *node)
{
    while (node != &trie->root && !node->here && !node->rest && !node->children) {
        struct topic_trie_node *parent = node->parent;
        if (parent->star == node)
            parent->star = NULL;
        else
            map_remove(&trie->edges, &node->edge);
        parent->children--;
        mem_free(node);
        node = parent;
    }
}

bool topic_trie_insert(struct topic_trie *trie, struct slice pattern, struct topic_trie_entry *entry)
{
    struct topic_trie_node *node = &trie->root;
    bool last = false;

    while (!last) {
        struct slice token = topic_take_token(&pattern, &last);
        if (last && slice_is(token, ">")) {
            node->rest = entry;
            break;
        }
        struct topic_trie_node *next = step(trie, node, token);
        if (!next)
            next = node_create(trie, node, token);
        if (!next) {
            prune(trie, node);
            return false;
        }
        node = next;
        if (last)
            node->here = entry;
    }
    entry->node = node;
    trie->count++;
    return true;
}

void topic_trie_remove(struct topic_trie *trie, struct topic_trie_entry *entry)
{
    struct topic_trie_node *node = entry->node;

    if (node->here == entry)
        node->here = NULL;
    else
        node->rest = NULL;
    entry->node = NULL;
    trie->count--;
    prune(trie, node);
}

struct topic_trie_entry *topic_trie_find(const struct topic_trie *trie, struct slice pattern)
{
    const struct topic_trie_node *node = &trie->root;
    bool last = false;

    while (!last) {
        struct slice token = topic_take_token(&pattern, &last);
        if (last && slice_is(token, ">"))
            return node->rest;
        node = step(trie, node, token);
        if (!node)
            return NULL;
    }
    return node->here;
}

/* ---- matching ---- */

struct search {
    const struct topic_trie *trie;
    topic_trie_visit *visit;
    void *data;
};

static bool found(const struct search *search, struct topic_trie_entry *entry)
{
    return entry && search->visit(search->data, entry);
}

/* As deep as the longest pattern has tokens. */
static bool match_from(const struct search *search, const struct topic_trie_node *node, struct slice name)
{
    bool last;
    struct slice token = topic_take_token(&name, &last);

    if (token.len && found(search, node->rest))
        return true;
    const struct topic_trie_node *next[] = {token.len ? node->star : NULL, NULL};
    /* A node whose only child is the * needs no look-up. */
    if (node->children > (node->star != NULL))
        next[1] = child_of(search->trie, node, token);
    for (size_t i = 0; i < 2; i++)
        if (next[i] && (last ? found(search, next[i]->here) : match_from(search, next[i], name)))
            return true;
    return false;
}

bool topic_trie_match(const struct topic_trie *trie, struct slice name, topic_trie_visit *visit, void *data)
{
    const struct search search = {.trie = trie, .visit = visit, .data = data};

    return trie->count && match_from(&search, &trie->root, name);
}
