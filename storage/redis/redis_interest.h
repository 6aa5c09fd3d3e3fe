/* Patterns of topics on Redis, without PSUBSCRIBE: which pattern is held where (redis_interest.c), and the ones that this
 * process holds (redis_pattern.c).
 *
 * Every instance knows every pattern of every other. Whoever publishes to a topic that one of them matches publishes a copy
 * to the interest channel of the topic's first token, sb:pattern:{FIRST}; patterns that begin with a wildcard have the
 * channel sb:pattern:{*}. So a message that no pattern matches costs a look-up in a trie here and nothing in Redis, and the
 * receipt is right: where no pattern matches, nothing is published to a channel that others listen to.
 *
 * - An instance writes the patterns it holds into a set, sb:instance:{ID}:patterns, and tells every change on the channel
 *   sb:patterns, as text: "ID SERIAL +PATTERN -PATTERN", or "ID SERIAL =" (read my set), "ID SERIAL ?" (what did you hear?)
 *   and "ID 0 !" (it is gone). Its id and patterns are written as in channels, so they hold no space.
 * - Whoever hears a + or = says so on the teller's own channel: "heard ID SERIAL", and with it all serials before. A
 *   pattern is confirmed when its interest channel is subscribed, the set is written, and as many have heard of it as
 *   PUBLISH said, or all whose lease runs. Nobody publishes past it then.
 * - A newcomer subscribes sb:patterns first and reads the sets second. A change is written first and told second. So it
 *   finds it in the set or hears of it, and what it hears meanwhile is applied on top of what it read.
 * - The set goes with the instance, when it leaves or is reaped.
 *
 * A copy is "TOPIC MESSAGE": the name as in the topic's channel, a space, and what was published there.
 *
 * Every step takes one key or one channel, so each can go to its own node of a cluster, with two exceptions that hold the
 * order together and say there what to do instead: the script that publishes stored messages, and the pipeline that
 * writes a set before it tells. */
#ifndef STORAGE_REDIS_INTEREST_H
#define STORAGE_REDIS_INTEREST_H

#include "proto/topic_trie.h"
#include "storage/redis/redis_storage.h"

enum { INTEREST_LITERAL, INTEREST_WILD }; /* by how a pattern begins */

struct redis_first;
struct redis_wish;

/* A pattern that somebody holds. */
struct redis_pattern {
    struct topic_trie_entry entry;
    struct list link;          /* in interest.patterns */
    struct list holdings;      /* of other instances */
    struct list changed;       /* in interest.changed until the next announcement */
    struct redis_first *first; /* its interest channel, while this process holds it */
    struct redis_wish *wish;   /* the latest that isn't granted yet */
    unsigned wishes;           /* that point here */
    bool confirmed;
    uint8_t kind;
    uint16_t len;
    char channel[]; /* topic:{PATTERN} */
};

/* ---- redis_interest.c ---- */

/* The pattern, made if nobody holds it; NULL when memory is short. `topic` is encoded, and a pattern. */
struct redis_pattern *redis_interest_get(struct redis_storage *storage, struct slice topic);
/* Forgets it if nobody holds it any more. */
void redis_interest_release(struct redis_storage *storage, struct redis_pattern *pattern);
/* How many other instances are known, and how many of them heard `serial`. */
size_t redis_interest_peers(const struct redis_storage *storage);
size_t redis_interest_heard_by(const struct redis_storage *storage, uint64_t serial);
/* Whether the instance of this (unencoded) id did. */
bool redis_interest_heard(const struct redis_storage *storage, struct slice id, uint64_t serial);
void redis_interest_own_id(const struct redis_storage *storage, struct redis_key *id); /* as in channels */
/* Takes the next of some words. */
bool redis_interest_word(struct slice *rest, struct slice *word);

/* ---- redis_pattern.c ---- */

void redis_pattern_on_heard(struct redis_storage *storage);  /* somebody heard more */
void redis_pattern_on_loaded(struct redis_storage *storage); /* the sets of all others have been read */
void redis_pattern_flush(struct redis_storage *storage);     /* tells what changed in this turn */
void redis_pattern_begin(struct redis_storage *storage);     /* after a connect */
void redis_pattern_on_down(struct redis_storage *storage, int error);
void redis_pattern_close(struct redis_storage *storage);

#endif
