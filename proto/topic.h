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

#endif
