/* The configuration file: its sections, and the routes that are served when it has none. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "broker/config_file.h"
#include "broker/config_loader.h"

#include <string.h>

#define ROUTES_MAX 256

/* Served when no route is configured. */
static const char built_in_file[] = "[switchboard]\n"
                                    "prefixes = /WebSocketTest, /testWebsocket\n"
                                    "[route /websocket/{uid}]\n"
                                    "address = user:{uid}\n"
                                    "on_message = publish user:{uid} \"{uid}:{message}\"\n"
                                    "[route /websocket/{relationId}/{userCode:int}]\n"
                                    "address = session:{relationId}_{userCode}\n"
                                    "on_message = forward session:userSever_8080\n"
                                    "reply = Got your message ({message}).Thanks !\n"
                                    "on_request = next-message\n"
                                    "[route /topics/{name}]\n"
                                    "address = topic:{name}\n"
                                    "on_message = publish topic:{name}\n";

static void format_origin(const struct loader *loader, unsigned line, char *out, size_t size)
{
    if (loader->rank == RANK_BUILT_IN)
        snprintf(out, size, "built in");
    else
        snprintf(out, size, "%s:%u", loader->file, line);
}

static void finish_route(struct loader *loader)
{
    char reason[256];
    if (loader->route != NULL && !route_finish(loader->route, reason, sizeof reason))
        loader_problem(loader, "%s: [route %s]: %s", loader->route->origin, loader->route->pattern, reason);
    loader->route = NULL;
}

static bool add_route(struct loader *loader, struct route *route)
{
    struct config *config = loader->config;
    for (size_t i = 0; i < config->route_count; i++) {
        if (route_same_paths(config->routes[i], route)) {
            loader_problem(loader, "%s: [route %s]: matches the same paths as [route %s] at %s",
                           route->origin, route->pattern, config->routes[i]->pattern,
                           config->routes[i]->origin);
            return false;
        }
    }
    if (config->route_count == ROUTES_MAX) {
        loader_problem(loader, "%s: there are more than %d routes", route->origin, ROUTES_MAX);
        return false;
    }
    struct route **routes = mem_realloc(config->routes, (config->route_count + 1) * sizeof *routes);
    if (routes == NULL) {
        loader_refuse_memory(loader);
        return false;
    }
    config->routes = routes;
    config->routes[config->route_count++] = route;
    return true;
}

static void begin_route(struct loader *loader, const char *pattern, const char *origin)
{
    char reason[256];
    struct route *route = route_create(pattern, origin, reason, sizeof reason);
    if (route == NULL)
        loader_problem(loader, "%s: [route %s]: %s", origin, pattern, reason);
    else if (add_route(loader, route))
        loader->route = route;
    else
        route_destroy(route);
}

static void on_section(void *data, unsigned line, const char *name)
{
    struct loader *loader = data;
    char origin[512];
    format_origin(loader, line, origin, sizeof origin);
    finish_route(loader);
    loader->section = IN_UNKNOWN;
    if (strcmp(name, "switchboard") == 0) {
        loader->section = IN_TOP;
    } else if (strncmp(name, "route", 5) == 0 && (name[5] == ' ' || name[5] == '\t')) {
        loader->section = IN_ROUTE;
        begin_route(loader, name + 5 + strspn(name + 5, " \t"), origin);
    } else {
        loader_problem(loader, "%s: [%s] is no section; allowed are [switchboard] and [route PATTERN]",
                       origin, name);
    }
}

static void unknown_route_key(struct loader *loader, const char *origin, const char *key)
{
    struct buffer known;
    buffer_init(&known, 0);
    for (size_t i = 0; i < route_key_count; i++)
        buffer_printf(&known, "%s%s", i > 0 ? ", " : "", route_keys[i].key);
    const char *list = buffer_text(&known);
    loader_problem(loader, "%s: %s is unknown in a [route] section; allowed are %s", origin, key,
                   list != NULL ? list : "others");
    buffer_close(&known);
}

static void set_route_value(struct loader *loader, const char *origin, const char *key, const char *value)
{
    char reason[512];
    for (size_t i = 0; i < route_key_count; i++) {
        if (strcmp(route_keys[i].key, key) == 0) {
            if (!route_set(loader->route, &route_keys[i], value, reason, sizeof reason))
                loader_problem(loader, "%s: %s: %s", origin, key, reason);
            return;
        }
    }
    unknown_route_key(loader, origin, key);
}

static void on_value(void *data, unsigned line, const char *key, const char *value)
{
    struct loader *loader = data;
    char origin[512], where[520];
    format_origin(loader, line, origin, sizeof origin);
    if (loader->section == IN_ROUTE && loader->route != NULL)
        set_route_value(loader, origin, key, value);
    if (loader->section != IN_TOP)
        return;
    const struct option_spec *spec = option_find(key);
    if (spec != NULL) {
        loader_set(loader, spec, loader->rank, origin, value);
    } else {
        snprintf(where, sizeof where, "%s: ", origin);
        loader_unknown_key(loader, where, key, key);
    }
}

static void on_problem(void *data, unsigned line, const char *reason)
{
    struct loader *loader = data;
    loader_problem(loader, "%s:%u: %s", loader->file, line, reason);
}

static void parse_file(struct loader *loader, const char *name, enum config_rank rank, const char *text,
                       size_t len)
{
    static const struct config_file_events events = {on_section, on_value, on_problem};
    loader->file = name;
    loader->rank = rank;
    loader->section = IN_TOP;
    config_file_parse(text, len, &events, loader);
    finish_route(loader);
}

void loader_read_file(struct loader *loader)
{
    const char *path = loader->config->source->file;
    enum config_file_kind kind = loader->reloading ? CONFIG_FILE_REGULAR : CONFIG_FILE_ANY;
    struct buffer text;
    char reason[256];
    if (path == NULL)
        return;
    buffer_init(&text, 0);
    if (config_file_read(path, kind, &text, reason, sizeof reason))
        parse_file(loader, path, RANK_FILE, text.data, text.len);
    else
        loader_problem(loader, "%s: %s", path, reason);
    buffer_close(&text);
}

void loader_read_built_in(struct loader *loader)
{
    parse_file(loader, "built in", RANK_BUILT_IN, built_in_file, strlen(built_in_file));
}
