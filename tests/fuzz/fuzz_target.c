/* The input is the beginning of a request. What is found in it is a part of its first line, and matches routes or /connect
 * without harm. */
#include "broker/config.h"
#include "broker/connect.h"
#include "broker/route.h"
#include "broker/target.h"
#include "fuzz.h"

#include <string.h>

static struct route *create_route(const char *pattern)
{
    char problem[128];
    struct route *route = route_create(pattern, "fuzz:1", problem, sizeof problem);

    fuzz_require(route != NULL);
    return route;
}

static void match(struct slice target)
{
    char old[] = "/old", deep[] = "/a/b", *prefixes[] = {old, deep};
    struct route *routes[] = {create_route("/websocket/{uid}"), create_route("/websocket/{name}/{code:int}"),
                              create_route("/echo")};
    struct config config = {.routes = routes, .route_count = 3, .prefixes = {.items = prefixes, .count = 2}};
    struct route_match match;
    enum route_result result = route_match(&config, target.data, target.len, &match);

    fuzz_require((result == ROUTE_BAD_PARAMETER) == (match.problem[0] != '\0'));
    if (result == ROUTE_OK && match.params.route->param_count) {
        struct slice value = route_param(&match.params, match.params.route->names[0]);
        fuzz_require(value.len > 0 && value.len <= ROUTE_VALUE_MAX && value.len <= target.len);
    }
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        route_destroy(routes[i]);
}

/* Taking the arguments off one by one comes to an end, and nothing is left out or read twice. */
static void read_arguments(struct slice query)
{
    struct target_argument argument;
    size_t total = 0, count = 0, len = query.len;

    while (target_next_argument(&query, &argument)) {
        total += argument.name.len + argument.value.len + (argument.value.data ? 1 : 0);
        count++;
    }
    fuzz_require(len == 0 || total + count - 1 == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *input = malloc(size + 1);
    struct slice target;

    fuzz_require(input != NULL);
    /* Without a NUL behind it, so that reading on is noticed. */
    if (size > 0)
        memcpy(input, data, size);
    input = realloc(input, size > 0 ? size : 1);
    const char *newline = size > 0 ? memchr(input, '\n', size) : NULL;
    bool found = target_find(slice_from(input, size), &target);
    fuzz_require(found == (newline != NULL));
    if (found) {
        struct slice path = target_path(target);
        fuzz_require(target.data >= input && target.data + target.len <= newline);
        fuzz_require(path.len <= target.len && path.data + path.len <= newline);
        fuzz_require(path.len == 0 || memchr(path.data, '?', path.len) == NULL);
        connect_is_path(&(struct config){0}, path);
        match(target);
        read_arguments(target_query(target));
    }
    free(input);
    return 0;
}
