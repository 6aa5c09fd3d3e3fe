/* The route /connect, for clients that need no path parameters: ?user=UID, ?session=NAME, or nobody in particular. */
#ifndef BROKER_CONNECT_H
#define BROKER_CONNECT_H

#include "broker/route.h"

struct connect_routes;

/* NULL when memory is short. Must outlive the sessions that came through it. */
struct connect_routes *connect_routes_create(void);
void connect_routes_destroy(struct connect_routes *routes); /* NULL is allowed */

/* Whether `path` is /connect, also below the configured prefixes. */
bool connect_is_path(const struct config *config, struct slice path);

/* The route for the query's parameters, decoded; an absent one is {NULL, 0}. */
enum route_result connect_match(const struct connect_routes *routes, struct slice user, struct slice session,
                                struct route_match *match);

#endif
