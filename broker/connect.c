#include "broker/connect.h"

#include "base/alloc.h"
#include "broker/config.h"
#include "proto/address.h"

#include <stdio.h>
#include <string.h>

#define CONNECT_PATH "/connect"

struct connect_routes {
    struct route *nobody, *user, *session;
};

/* A route like one of the configuration, shown as /connect. */
static struct route *create_route(const char *pattern, const char *address)
{
    char problem[128];
    struct route *route = route_create(pattern, "built in", problem, sizeof problem);

    if (!route)
        return NULL;
    for (size_t i = 0; address && i < route_key_count; i++) {
        if (strcmp(route_keys[i].key, "address") == 0 &&
            !route_set(route, &route_keys[i], address, problem, sizeof problem))
            goto failed;
    }
    char *shown = mem_strdup(CONNECT_PATH);
    if (!shown)
        goto failed;
    mem_free(route->pattern);
    route->pattern = shown;
    return route;

failed:
    route_destroy(route);
    return NULL;
}

struct connect_routes *connect_routes_create(void)
{
    struct connect_routes *routes = mem_calloc(1, sizeof *routes);

    if (!routes)
        return NULL;
    routes->nobody = create_route(CONNECT_PATH, NULL);
    routes->user = create_route(CONNECT_PATH "/{user}", "user:{user}");
    routes->session = create_route(CONNECT_PATH "/{session}", "session:{session}");
    if (routes->nobody && routes->user && routes->session)
        return routes;
    connect_routes_destroy(routes);
    return NULL;
}

void connect_routes_destroy(struct connect_routes *routes)
{
    if (!routes)
        return;
    route_destroy(routes->nobody);
    route_destroy(routes->user);
    route_destroy(routes->session);
    mem_free(routes);
}

bool connect_is_path(const struct config *config, struct slice path)
{
    if (slice_is(path, CONNECT_PATH))
        return true;
    for (size_t i = 0; i < config->prefixes.count; i++) {
        struct slice prefix = slice_text(config->prefixes.items[i]);
        if (path.len > prefix.len && slice_equal(slice_from(path.data, prefix.len), prefix) &&
            slice_is(slice_from(path.data + prefix.len, path.len - prefix.len), CONNECT_PATH))
            return true;
    }
    return false;
}

enum route_result connect_match(const struct connect_routes *routes, struct slice user, struct slice session,
                                struct route_match *match)
{
    struct slice name = user.data ? user : session;
    const char *wrong = user.data && session.data ? "give user or session, not both" : NULL;

    *match = (struct route_match){.params = {.route = routes->nobody, .text = match->storage}};
    if (!name.data && !wrong)
        return ROUTE_OK;
    if (!wrong)
        wrong = address_check_name(name);
    if (wrong) {
        snprintf(match->problem, sizeof match->problem, "%s: %s", user.data ? "user" : "session", wrong);
        return ROUTE_BAD_PARAMETER;
    }
    match->params.route = user.data ? routes->user : routes->session;
    memcpy(match->storage, name.data, name.len);
    match->params.lengths[0] = (uint8_t)name.len;
    return ROUTE_OK;
}
