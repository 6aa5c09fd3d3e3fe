/* The router: maps a channel to its local subscribers, and the bus's messages to them.
 *
 * Sessions, users and topics are one mechanism; they differ only in who subscribes. The router knows
 * subscribers, not sessions. A channel is subscribed on the bus while it has at least one local subscriber.
 */
#ifndef BROKER_ROUTER_H
#define BROKER_ROUTER_H

#include "base/list.h"
#include "proto/message.h"
#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics;
struct router;
struct router_channel;
struct storage;
struct storage_request;

/* Embedded in whoever receives. Its callbacks must not call router_unsubscribe(): the router is walking its
 * lists. */
struct subscriber {
    struct list link; /* in the channel */
    struct router_channel *channel;

    /* The subscription is confirmed (error 0) or failed (then it is gone already). Once for each
     * router_subscribe() that was not ended before; may come from inside it, when the channel is subscribed
     * already. */
    void (*on_subscribed)(struct subscriber *subscriber, int error);

    /* A message on the channel; `message` is borrowed: take a reference to keep it. Comes before
     * on_subscribed too, as soon as the bus delivers. */
    void (*deliver)(struct subscriber *subscriber, struct message *message);
};

/* NULL when memory is short. The storage and the metrics must outlive the router. */
struct router *router_create(struct storage *storage, struct metrics *metrics, size_t max_message);
void router_set_max_message(struct router *router, size_t max_message);

/* How many different patterns may be held; one more is refused with ERROR_LIMIT. Without: any number. */
void router_set_max_patterns(struct router *router, size_t max_patterns);

/* The most bytes that a message's payload may have, in the encoding where it is largest (payload_fits()): who sends
 * checks it and is told, and what is larger is not delivered. */
size_t router_max_payload(const struct router *router);

/* A frame to a client has no more bytes than this. */
size_t router_max_frame(const struct router *router);

/* Those still subscribed are forgotten, and must not be unsubscribed any more. The storage must not call back
 * into it either: destroy that first. NULL is allowed. */
void router_destroy(struct router *router);

void subscriber_init(struct subscriber *subscriber);

/* `subscriber` must not be subscribed. */
void router_subscribe(struct router *router, struct slice channel, struct subscriber *subscriber);

/* The same for a pattern of topics, given as its channel ("topic:{orders.*}"). */
void router_subscribe_pattern(struct router *router, struct slice pattern, struct subscriber *subscriber);

/* No callback follows. Nothing happens when it isn't subscribed. */
void router_unsubscribe(struct router *router, struct subscriber *subscriber);

/* Sends a message over the bus to every instance that holds the channel, this one included; `request` as in
 * storage_publish(). False when memory is short: nothing was sent, and the request does not call back. */
bool router_publish(struct router *router, struct slice channel, const struct message_fields *fields,
                    struct storage_request *request) __attribute__((warn_unused_result));

/* The same through storage_publish_with(): stored, or with an idempotency key. */
struct router_extras {
    bool store;
    uint64_t ttl_ms;     /* 0: none */
    struct slice key;    /* empty: none */
    struct slice sender; /* storage_publication.sender */
};
bool router_publish_with(struct router *router, struct slice channel, const struct message_fields *fields,
                         const struct router_extras *extras, struct storage_request *request)
    __attribute__((warn_unused_result));

/* A message came over the bus. */
void router_on_message(struct router *router, struct slice channel, struct slice bytes);
/* The same, for the patterns that match the channel. */
void router_on_pattern_message(struct router *router, struct slice channel, const struct slice *patterns,
                               size_t count, struct slice bytes);

size_t router_channel_count(const struct router *router);
size_t router_pattern_count(const struct router *router); /* those of them that are patterns */

#endif
