/* Patterns that come and go, against topic_matches(): lines "+PATTERN", "-PATTERN", and names to match. */
#include "fuzz.h"

#include "base/list.h"
#include "proto/topic.h"
#include "proto/topic_trie.h"

#include <string.h>

enum { HELD_MAX = 64 };

struct held {
    struct topic_trie_entry entry;
    struct slice pattern;
    bool in, found;
};

static struct held all[HELD_MAX];

static bool on_found(void *data, struct topic_trie_entry *entry)
{
    struct held *held = container_of(entry, struct held, entry);

    (void)data;
    fuzz_require(held->in && !held->found);
    held->found = true;
    return false;
}

static struct held *find(struct slice pattern)
{
    for (size_t i = 0; i < HELD_MAX; i++)
        if (all[i].in && slice_equal(all[i].pattern, pattern))
            return &all[i];
    return NULL;
}

static void change(struct topic_trie *trie, char sign, struct slice pattern)
{
    struct held *known = find(pattern), *one = NULL;
    struct topic_trie_entry *entry = topic_trie_find(trie, pattern);

    fuzz_require(entry == (known ? &known->entry : NULL));
    for (size_t i = 0; i < HELD_MAX && !one; i++)
        if (!all[i].in)
            one = &all[i];
    if (sign == '-' && known) {
        topic_trie_remove(trie, &known->entry);
        known->in = false;
    } else if (sign == '+' && !known && one) {
        one->pattern = pattern;
        one->in = topic_trie_insert(trie, pattern, &one->entry);
    }
}

static void match(struct topic_trie *trie, struct slice name)
{
    for (size_t i = 0; i < HELD_MAX; i++)
        all[i].found = false;
    topic_trie_match(trie, name, on_found, NULL);
    for (size_t i = 0; i < HELD_MAX; i++)
        fuzz_require(all[i].found == (all[i].in && topic_matches(all[i].pattern, name)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_from(data, size);
    struct topic_trie trie;

    topic_trie_init(&trie);
    memset(all, 0, sizeof all);
    while (rest.len) {
        const char *end = memchr(rest.data, '\n', rest.len);
        struct slice line = slice_from(rest.data, end ? (size_t)(end - rest.data) : rest.len);
        rest = slice_from(rest.data + line.len + (end != NULL), rest.len - line.len - (end != NULL));
        if (line.len && (line.data[0] == '+' || line.data[0] == '-'))
            change(&trie, line.data[0], slice_from(line.data + 1, line.len - 1));
        else
            match(&trie, line);
    }
    for (size_t i = 0; i < HELD_MAX; i++)
        if (all[i].in)
            topic_trie_remove(&trie, &all[i].entry);
    fuzz_require(!trie.count && !trie.edges.count && !trie.root.children);
    topic_trie_close(&trie);
    return 0;
}
