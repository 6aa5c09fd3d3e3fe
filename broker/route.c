#include "broker/route.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/printable.h"
#include "broker/config.h"
#include "broker/target.h"
#include "proto/address.h"

#include <stdio.h>
#include <string.h>

/* A path, split and decoded. */
struct path {
    struct slice segments[ROUTE_SEGMENTS_MAX * 2]; /* room for a prefix as well */
    bool malformed[ROUTE_SEGMENTS_MAX * 2];        /* a broken percent-escape */
    bool alias[ROUTE_SEGMENTS_MAX * 2]; /* another spelling of what needs no escape: matches no literal, or whoever stands in
                                           front and decides by the path would be led astray */
    size_t count;
    char text[ROUTE_PATH_MAX];
};

/* False when the path has more segments, or more bytes, than any route can match. */
static bool split_path(struct path *path, const char *text, size_t len)
{
    const char *query = len > 0 ? memchr(text, '?', len) : NULL;
    if (query != NULL)
        len = (size_t)(query - text);
    if (len == 0 || text[0] != '/')
        return false;
    if (len > 1 && text[1] == '/') {
        text++;
        len--;
    }
    if (len > sizeof path->text)
        return false;
    memcpy(path->text, text, len);
    path->count = 0;
    if (len == 1)
        return true;

    for (size_t start = 1; start <= len;) {
        char *segment = path->text + start;
        char *end = start < len ? memchr(segment, '/', len - start) : NULL;
        size_t size = end != NULL ? (size_t)(end - segment) : len - start;
        if (path->count == sizeof path->segments / sizeof path->segments[0])
            return false;
        path->malformed[path->count] = false;
        path->alias[path->count] = target_is_alias(slice_from(segment, size));
        start += size + 1;
        size = target_decode(segment, size, &path->malformed[path->count]);
        path->segments[path->count++] = slice_from(segment, size);
    }
    return true;
}

static bool literal_matches(const struct route_segment *segment, const struct path *path, size_t index)
{
    return !path->malformed[index] && !path->alias[index] &&
           slice_equal(slice_from(segment->literal, segment->literal_len), path->segments[index]);
}

static bool shape_matches(const struct route *route, const struct path *path, size_t first)
{
    if (route->segment_count != path->count - first)
        return false;
    for (size_t i = 0; i < route->segment_count; i++) {
        const struct route_segment *segment = &route->segments[i];
        if (segment->literal != NULL && !literal_matches(segment, path, first + i))
            return false;
    }
    return true;
}

/* Of two routes that match the same path: has `a` the leftmost literal that the other lacks? */
static bool more_literal(const struct route *a, const struct route *b)
{
    for (size_t i = 0; i < a->segment_count; i++) {
        bool in_a = a->segments[i].literal != NULL, in_b = b->segments[i].literal != NULL;
        if (in_a != in_b)
            return in_a;
    }
    return false;
}

static const struct route *find_route(const struct config *config, const struct path *path, size_t first)
{
    const struct route *best = NULL;
    for (size_t i = 0; i < config->route_count; i++) {
        const struct route *route = config->routes[i];
        if (shape_matches(route, path, first) && (best == NULL || more_literal(route, best)))
            best = route;
    }
    return best;
}

/* The number of segments `prefix` takes of the path; 0 when the path does not begin with it. */
static size_t prefix_segments(const char *prefix, const struct path *path)
{
    size_t count = 0;
    while (*prefix == '/') {
        size_t len = strcspn(++prefix, "/");
        if (count == path->count || path->malformed[count] || path->alias[count] ||
            !slice_equal(slice_from(prefix, len), path->segments[count]))
            return 0;
        prefix += len;
        count++;
    }
    return count;
}

static bool is_canonical_int64(struct slice value)
{
    const char *digits = value.data;
    size_t len = value.len;
    bool negative = len > 0 && digits[0] == '-';
    if (negative) {
        digits++;
        len--;
    }
    if (len == 0 || len > 19 || (digits[0] == '0' && (len > 1 || negative)))
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < len; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(digits[i] - '0');
    }
    return number <= (uint64_t)INT64_MAX + (negative ? 1 : 0);
}

/* NULL when the value may be a parameter of that type; otherwise what is wrong, for "NAME …". */
static const char *check_value(enum route_param_type type, struct slice value, bool malformed)
{
    if (malformed)
        return "has a broken percent-escape";
    if (value.len == 0)
        return "must not be empty";
    if (value.len > ROUTE_VALUE_MAX)
        return "is longer than 255 bytes";
    switch (printable_check(value.data, value.len)) {
    case PRINTABLE_NOT_UTF8:
        return "must be UTF-8";
    case PRINTABLE_HAS_CONTROL:
        return "must not hold control characters";
    case PRINTABLE_HAS_HIDDEN:
        return "must not hold invisible characters";
    case PRINTABLE_OK:
        break;
    }
    if (type == ROUTE_PARAM_INT && !is_canonical_int64(value))
        return "must be an integer (64 bits, no leading zero or plus)";
    return NULL;
}

static bool take_params(const struct route *route, const struct path *path, size_t first,
                        struct route_match *out)
{
    char *write = out->storage;
    for (size_t i = 0; i < route->segment_count; i++) {
        const struct route_segment *segment = &route->segments[i];
        if (segment->literal != NULL)
            continue;
        struct slice value = path->segments[first + i];
        const char *problem = check_value(route->types[segment->param], value, path->malformed[first + i]);
        if (problem != NULL) {
            snprintf(out->problem, sizeof out->problem, "%s %s", route->names[segment->param], problem);
            return false;
        }
        out->params.lengths[segment->param] = (uint8_t)value.len;
        memcpy(write, value.data, value.len);
        write += value.len;
    }
    return true;
}

static void param_values(const struct route_params *params, struct slice values[ROUTE_PARAMS_MAX])
{
    const char *text = params->text;
    for (size_t i = 0; i < params->route->param_count; i++) {
        values[i] = slice_from(text, params->lengths[i]);
        text += params->lengths[i];
    }
}

/* Parameters that are fine one by one can still make an address that is too long; or one that a session can't hold. */
static bool check_address(const struct template *template, const struct route_match *match, bool held,
                          char *problem, size_t problem_size)
{
    if (template->count == 0)
        return true;
    struct buffer text;
    buffer_init(&text, ADDRESS_MAX);
    struct address address;
    const char *reason = "is too long";
    if (route_expand(template, &match->params, NULL, 0, &text))
        reason = address_parse(slice_from(text.data, text.len), &address);
    if (reason == NULL && held && address.kind == ADDRESS_SESSION)
        reason = address_check_exclusive(address.name);
    if (reason != NULL)
        snprintf(problem, problem_size, "the address of this path can't be used: %s", reason);
    buffer_close(&text);
    return reason == NULL;
}

static enum route_result take_route(const struct route *route, const struct path *path, size_t first,
                                    struct route_match *out)
{
    out->params.route = route;
    out->params.text = out->storage;
    if (!take_params(route, path, first, out) ||
        !check_address(&route->address, out, true, out->problem, sizeof out->problem) ||
        !check_address(&route->target, out, false, out->problem, sizeof out->problem))
        return ROUTE_BAD_PARAMETER;
    return ROUTE_OK;
}

enum route_result route_match(const struct config *config, const char *path, size_t len,
                              struct route_match *out)
{
    out->params = (struct route_params){0};
    out->problem[0] = '\0';
    struct path split;
    if (!split_path(&split, path, len))
        return ROUTE_NOT_FOUND;

    const struct route *route = find_route(config, &split, 0);
    if (route != NULL)
        return take_route(route, &split, 0, out);
    for (size_t i = 0; i < config->prefixes.count; i++) {
        size_t first = prefix_segments(config->prefixes.items[i], &split);
        if (first == 0)
            continue;
        route = find_route(config, &split, first);
        if (route != NULL)
            return take_route(route, &split, first, out);
    }
    return ROUTE_NOT_FOUND;
}

struct route_params *route_params_keep(const struct route_params *params)
{
    size_t size = 0;
    for (size_t i = 0; i < params->route->param_count; i++)
        size += params->lengths[i];
    struct route_params *kept = mem_alloc(sizeof *kept + size);
    if (kept == NULL)
        return NULL;
    *kept = *params;
    char *text = (char *)(kept + 1);
    memcpy(text, params->text, size);
    kept->text = text;
    return kept;
}

struct slice route_param(const struct route_params *params, const char *name)
{
    struct slice values[ROUTE_PARAMS_MAX];
    param_values(params, values);
    for (size_t i = 0; i < params->route->param_count; i++) {
        if (strcmp(params->route->names[i], name) == 0)
            return values[i];
    }
    return slice_from(NULL, 0);
}

bool route_expand(const struct template *template, const struct route_params *params, const char *message,
                  size_t len, struct buffer *out)
{
    struct slice values[ROUTE_PARAMS_MAX];
    param_values(params, values);
    return template_expand(template, values, message, len, out);
}

bool route_address(const struct route_params *params, struct buffer *out)
{
    return route_expand(&params->route->address, params, NULL, 0, out);
}

bool route_target(const struct route_params *params, struct buffer *out)
{
    return route_expand(&params->route->target, params, NULL, 0, out);
}
