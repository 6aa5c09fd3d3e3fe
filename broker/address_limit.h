/* How many connections one client address may have, so that one address does not take all there are. */
#ifndef BROKER_ADDRESS_LIMIT_H
#define BROKER_ADDRESS_LIMIT_H

#include "broker/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct address_limit;
struct address_share; /* one connection's place among those of its address */

struct address_limit *address_limit_create(void);     /* NULL when memory is short */
void address_limit_destroy(struct address_limit *limit); /* all shares must be released; NULL is allowed */

enum address_outcome {
    ADDRESS_FREE,   /* not counted: loopback, trusted, no limit, or no IP address */
    ADDRESS_TAKEN,  /* counted: `*share` is to be released */
    ADDRESS_REFUSED /* too many from there, or memory is short */
};

/* Counts a connection from `address` against config->address_limit. An IPv6 network of 64 bits counts as one address, since that
 * is what one customer has. A refusal is logged, once a minute for each address. */
enum address_outcome address_limit_take(struct address_limit *limit, const struct config *config,
                                        const struct sockaddr *address, struct address_share **share);
void address_share_release(struct address_share *share); /* NULL is allowed */

#endif
