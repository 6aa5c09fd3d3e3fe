/* The route /connect, for clients that need no path parameters: ?user=UID, ?session=NAME, or nobody in particular. */
#ifndef BROKER_CONNECT_H
#define BROKER_CONNECT_H

#include "broker/route.h"
#include "proto/address.h"
#include "proto/message.h"

enum { CONNECT_SINCE_MAX = EPOCH_MAX + 1 + OFFSET_MAX };

struct connect_routes;

/* NULL when memory is short. Must outlive the sessions that came through it. */
struct connect_routes *connect_routes_create(void);
void connect_routes_destroy(struct connect_routes *routes); /* NULL is allowed */

/* Whether `path` is /connect, also below the configured prefixes. */
bool connect_is_path(const struct config *config, struct slice path);

/* What the query of a request says. */
struct connect_arguments {
    struct slice user, session;             /* decoded; {NULL, 0}: not given. Each is fit for its use */
    bool since;                             /* stored messages are to be recovered: */
    struct slice since_epoch, since_offset; /* after this one; both empty: all of them */
    char text[2 * ADDRESS_NAME_MAX + CONNECT_SINCE_MAX]; /* what the slices point to */
    char problem[160];
};

/* Reads the query of /connect (without its "?"), which has no other arguments than user, session and since. NULL, or a
 * sentence for the response that names what is wrong; it is ASCII and lies in `out`. */
const char *connect_parse(struct slice query, struct connect_arguments *out);

/* The same for every other route. Old clients may send what they like there, so nothing but `since` is looked at. */
const char *connect_parse_since(struct slice query, struct connect_arguments *out);

/* The route for these arguments. */
void connect_match(const struct connect_routes *routes, const struct connect_arguments *arguments,
                   struct route_match *match);

#endif
