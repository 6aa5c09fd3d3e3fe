#include "broker/connect.h"

#include "base/alloc.h"
#include "broker/config.h"
#include "broker/target.h"
#include "storage/offset.h"

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

/* ---- arguments ---- */

static const char *check_user(struct connect_arguments *out, struct slice value)
{
    out->user = value;
    return address_check_name(value);
}

static const char *check_session(struct connect_arguments *out, struct slice value)
{
    out->session = value;
    return address_check_exclusive(value);
}

static bool is_epoch(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] <= ' ' || text.data[i] > '~')
            return false;
    return text.len && text.len <= EPOCH_MAX;
}

/* EPOCH:OFFSET, or nothing for everything. */
static const char *check_since(struct connect_arguments *out, struct slice value)
{
    const char *colon = value.len ? memchr(value.data, ':', value.len) : NULL;
    struct storage_offset offset;

    out->since = true;
    if (!value.len)
        return NULL;
    out->since_epoch = slice_from(value.data, colon ? (size_t)(colon - value.data) : 0);
    if (colon)
        out->since_offset = slice_from(colon + 1, value.len - out->since_epoch.len - 1);
    if (is_epoch(out->since_epoch) && storage_offset_parse(out->since_offset, &offset))
        return NULL;
    return "must be EPOCH:OFFSET, as they came with a message, or empty";
}

static const struct known {
    const char *name;
    size_t max;           /* bytes, decoded */
    const char *too_long; /* what is said beyond */
    const char *(*check)(struct connect_arguments *out, struct slice value);
} known[] = {
    {"user", ADDRESS_NAME_MAX, "is longer than 255 bytes", check_user},
    {"session", ADDRESS_NAME_MAX, "is longer than 255 bytes", check_session},
    {"since", CONNECT_SINCE_MAX, "is longer than any place in a history", check_since},
};
enum { KNOWN_COUNT = sizeof known / sizeof *known, NAME_MAX_LEN = 32 };

/* How far the reading of a query got. */
struct reader {
    struct connect_arguments *out;
    char *at; /* where the next value goes, in out->text */
    bool seen[KNOWN_COUNT];
};

static const char *fail(struct reader *reader, struct slice name, const char *what)
{
    struct connect_arguments *out = reader->out;
    bool shown = name.len && name.len <= NAME_MAX_LEN;

    for (size_t i = 0; i < name.len; i++)
        shown = shown && name.data[i] > ' ' && name.data[i] < 0x7f;
    if (shown)
        snprintf(out->problem, sizeof out->problem, "query argument \"%.*s\": %s", (int)name.len, name.data,
                 what);
    else
        snprintf(out->problem, sizeof out->problem, "a query argument: %s", what);
    return out->problem;
}

static const struct known *find_known(struct slice name)
{
    for (size_t i = 0; i < KNOWN_COUNT; i++)
        if (slice_is(name, known[i].name))
            return &known[i];
    return NULL;
}

/* Decodes at most `max` bytes to `out`. NULL, or what is wrong. */
static const char *decode(struct slice raw, size_t max, const char *too_long, char *out, struct slice *text)
{
    char decoded[3 * ADDRESS_NAME_MAX];
    bool broken = false;

    if (raw.len > sizeof decoded || raw.len > 3 * max)
        return too_long;
    if (raw.len)
        memcpy(decoded, raw.data, raw.len);
    size_t len = target_decode(decoded, raw.len, &broken);
    if (broken)
        return "has a broken percent-escape";
    if (len > max)
        return too_long;
    memcpy(out, decoded, len);
    *text = slice_from(out, len);
    return NULL;
}

static const char *take(struct reader *reader, const struct known *row, struct slice raw)
{
    struct slice name = slice_text(row->name), value = {NULL, 0};

    if (reader->seen[row - known])
        return fail(reader, name, "is given twice");
    reader->seen[row - known] = true;
    if (!raw.data)
        return fail(reader, name, "has no value; write NAME=VALUE");
    const char *wrong = decode(raw, row->max, row->too_long, reader->at, &value);
    if (!wrong)
        wrong = row->check(reader->out, value);
    if (wrong)
        return fail(reader, name, wrong);
    reader->at += value.len;
    return NULL;
}

static struct reader begin(struct connect_arguments *out)
{
    out->user = out->session = out->since_epoch = out->since_offset = slice_from(NULL, 0);
    out->since = false;
    out->problem[0] = '\0';
    return (struct reader){.out = out, .at = out->text};
}

const char *connect_parse(struct slice query, struct connect_arguments *out)
{
    struct reader reader = begin(out);
    struct target_argument argument;
    struct slice name;
    char text[NAME_MAX_LEN];

    if (!query.len)
        return NULL;
    while (target_next_argument(&query, &argument)) {
        const char *wrong = decode(argument.name, sizeof text, "is unknown here", text, &name);
        if (wrong)
            return fail(&reader, argument.name, wrong);
        const struct known *row = find_known(name);
        if (!name.len)
            wrong = fail(&reader, name, "is empty");
        else if (!row)
            wrong = fail(&reader, argument.name, "is unknown here; user, session and since are known");
        else
            wrong = take(&reader, row, argument.value);
        if (wrong)
            return wrong;
    }
    if (out->user.data && out->session.data)
        return fail(&reader, slice_text("session"), "give user or session, not both");
    return NULL;
}

const char *connect_parse_since(struct slice query, struct connect_arguments *out)
{
    struct reader reader = begin(out);
    struct target_argument argument;
    struct slice name;
    char text[NAME_MAX_LEN];

    while (target_next_argument(&query, &argument)) {
        if (decode(argument.name, sizeof text, "", text, &name) || !slice_is(name, "since"))
            continue;
        const char *wrong = take(&reader, find_known(name), argument.value);
        if (wrong)
            return wrong;
    }
    return NULL;
}

void connect_match(const struct connect_routes *routes, const struct connect_arguments *arguments,
                   struct route_match *match)
{
    struct slice name = arguments->user.data ? arguments->user : arguments->session;

    *match = (struct route_match){.params = {.route = routes->nobody, .text = match->storage}};
    if (!name.data)
        return;
    match->params.route = arguments->user.data ? routes->user : routes->session;
    memcpy(match->storage, name.data, name.len);
    match->params.lengths[0] = (uint8_t)name.len;
}
