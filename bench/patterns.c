/* What it costs to find the patterns that a message matches, among many: bench_patterns [COUNT]. */
#include "base/list.h"
#include "proto/topic_trie.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { NAME_MAX_LEN = 64, ROUNDS = 1000000, TOKENS = 8 };

struct held {
    struct topic_trie_entry entry;
    char pattern[NAME_MAX_LEN];
};

static bool count_it(void *data, struct topic_trie_entry *entry)
{
    (void)entry;
    ++*(size_t *)data;
    return false;
}

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static bool add(struct topic_trie *trie, struct held *held)
{
    return topic_trie_find(trie, slice_text(held->pattern)) ||
           topic_trie_insert(trie, slice_text(held->pattern), &held->entry);
}

static void measure(const struct topic_trie *trie, const char *what, const char *name, int rounds)
{
    size_t found = 0;
    double began = now_ns();

    for (int i = 0; i < rounds; i++)
        topic_trie_match(trie, slice_text(name), count_it, &found);
    printf("%-44s %8.0f ns  %zu found of %zu\n", what, (now_ns() - began) / rounds, found / (size_t)rounds,
           trie->count);
}

/* Every way to write a name's tokens or stars behind its first: the worst that there is. */
static void add_worst(struct topic_trie *trie, struct held *held)
{
    for (unsigned bits = 0; bits < 1u << (TOKENS - 1); bits++) {
        size_t len = (size_t)snprintf(held[bits].pattern, NAME_MAX_LEN, "w");
        for (unsigned i = 0; i < TOKENS - 1; i++)
            len += (size_t)snprintf(held[bits].pattern + len, NAME_MAX_LEN - len, ".%s", bits >> i & 1 ? "*" : "t");
        if (!add(trie, &held[bits]))
            abort();
    }
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    struct held *held = calloc(count + (1u << TOKENS), sizeof *held);
    struct topic_trie trie;

    topic_trie_init(&trie);
    for (size_t i = 0; held && i < count; i++) {
        static const char *const ends[] = {"*", ">", "eu", "us"};
        snprintf(held[i].pattern, NAME_MAX_LEN, "orders.%zu.*.%s", i / 4, ends[i % 4]);
        if (!add(&trie, &held[i]))
            return 1;
    }
    if (!held)
        return 1;
    measure(&trie, "unrelated: another first token", "prices.1.x.eu", ROUNDS);
    measure(&trie, "unrelated: the same first token", "orders.none.x.eu", ROUNDS);
    measure(&trie, "matching", "orders.17.x.eu", ROUNDS);
    add_worst(&trie, held + count);
    measure(&trie, "all 128 patterns of 8 tokens that match", "w.t.t.t.t.t.t.t", ROUNDS / 100);
    measure(&trie, "128 such, none matches", "w.t.t.t.t.t.t.t.x", ROUNDS / 100);
    return 0;
}
