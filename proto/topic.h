/* Topic names as subjects: tokens separated by dots, with the wildcards of NATS
 * (https://docs.nats.io/nats-concepts/subjects#wildcards) in patterns. */
#ifndef PROTO_TOPIC_H
#define PROTO_TOPIC_H

#include "proto/slice.h"

#include <stdbool.h>

/* True when `topic` has a token that is * or a last token that is >. */
bool topic_is_pattern(struct slice topic);

/* True when the topic `name` fits `pattern`: * stands for one token, > at the end for one or more. */
bool topic_matches(struct slice pattern, struct slice name);

/* Takes the first token off `rest`; `last` when nothing follows it. */
struct slice topic_take_token(struct slice *rest, bool *last);

/* True when the pattern's first token is a wildcard. */
bool topic_begins_wild(struct slice pattern);

/* How many tokens it has: one more than dots. */
size_t topic_token_count(struct slice topic);

/* The topic's name as it stands between the braces of its channel ("topic:{NAME}"): encoded, which leaves dots and
 * wildcards alone, so patterns match encoded names as well. False when it is no topic's channel. */
bool topic_of_channel(struct slice channel, struct slice *name);

#endif
