/* How a route is read from its section of the configuration. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/utf8.h"
#include "broker/route.h"
#include "proto/address.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool fail(char *problem, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool fail(char *problem, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(problem, size, format, args);
    va_end(args);
    return false;
}

/* --- Patterns
 * -------------------------------------------------------------------------------------------------- */

static bool is_param_name(const char *name, size_t len)
{
    if (len == 0 || !isalpha((unsigned char)name[0]))
        return false;
    for (size_t i = 1; i < len; i++) {
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return false;
    }
    return true;
}

static bool add_param(struct route *route, struct slice text, char *problem, size_t size)
{
    struct slice name = text, type = slice_text("string");
    const char *colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
    if (colon != NULL) {
        name.len = (size_t)(colon - text.data);
        type = slice_from(colon + 1, text.len - name.len - 1);
    }
    if (!is_param_name(name.data, name.len) || slice_is(name, "message"))
        return fail(problem, size,
                    "{%.*s}: a parameter's name is a letter, then letters, digits or _; and not \"message\"",
                    (int)text.len, text.data);
    if (!slice_is(type, "int") && !slice_is(type, "string"))
        return fail(problem, size, "{%.*s}: a parameter's type is int or string", (int)text.len, text.data);
    for (size_t i = 0; i < route->param_count; i++) {
        if (slice_is(name, route->names[i]))
            return fail(problem, size, "{%.*s}: the pattern has this parameter twice", (int)name.len,
                        name.data);
    }
    if (route->param_count == ROUTE_PARAMS_MAX)
        return fail(problem, size, "a pattern has at most %d parameters", ROUTE_PARAMS_MAX);

    char *copy = mem_strndup(name.data, name.len);
    if (copy == NULL)
        return fail(problem, size, "out of memory");
    route->segments[route->segment_count++].param = route->param_count;
    route->types[route->param_count] = slice_is(type, "int") ? ROUTE_PARAM_INT : ROUTE_PARAM_STRING;
    route->names[route->param_count++] = copy;
    return true;
}

static bool add_segment(struct route *route, struct slice text, char *problem, size_t size)
{
    if (route->segment_count == ROUTE_SEGMENTS_MAX)
        return fail(problem, size, "a pattern has at most %d segments", ROUTE_SEGMENTS_MAX);
    if (text.len == 0)
        return fail(problem, size, "the pattern has an empty segment (// or a / at its end)");
    if (text.data[0] == '{' && text.data[text.len - 1] == '}')
        return add_param(route, slice_from(text.data + 1, text.len - 2), problem, size);
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("{}%?#", text.data[i]) != NULL)
            return fail(problem, size, "%.*s: a segment is either one {parameter} or text without { } %% ? #",
                        (int)text.len, text.data);
    }
    struct route_segment *segment = &route->segments[route->segment_count];
    segment->literal = mem_strndup(text.data, text.len);
    if (segment->literal == NULL)
        return fail(problem, size, "out of memory");
    segment->literal_len = text.len;
    route->segment_count++;
    return true;
}

static bool parse_pattern(struct route *route, const char *pattern, char *problem, size_t size)
{
    if (pattern[0] != '/')
        return fail(problem, size, "a pattern begins with /, as in [route /topics/{name}]");
    for (const char *p = pattern; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return fail(problem, size, "a pattern holds no spaces or control characters");
    }
    if (!utf8_valid(pattern, strlen(pattern)))
        return fail(problem, size, "a pattern must be UTF-8");
    if (pattern[1] == '\0')
        return true;
    const char *segment = pattern;
    while (*segment == '/') {
        size_t len = strcspn(++segment, "/");
        if (!add_segment(route, slice_from(segment, len), problem, size))
            return false;
        segment += len;
    }
    return true;
}

struct route *route_create(const char *pattern, const char *origin, char *problem, size_t problem_size)
{
    struct route *route = mem_calloc(1, sizeof *route);
    if (route != NULL) {
        route->pattern = mem_strdup(pattern);
        route->origin = mem_strdup(origin);
        route->sources = mem_calloc(route_key_count, sizeof *route->sources);
    }
    if (route == NULL || route->pattern == NULL || route->origin == NULL || route->sources == NULL)
        fail(problem, problem_size, "out of memory");
    else if (parse_pattern(route, pattern, problem, problem_size))
        return route;
    route_destroy(route);
    return NULL;
}

void route_destroy(struct route *route)
{
    if (route == NULL)
        return;
    for (size_t i = 0; i < ROUTE_SEGMENTS_MAX; i++)
        mem_free(route->segments[i].literal);
    for (size_t i = 0; i < ROUTE_PARAMS_MAX; i++)
        mem_free(route->names[i]);
    for (size_t i = 0; route->sources != NULL && i < route_key_count; i++)
        mem_free(route->sources[i]);
    template_close(&route->address);
    template_close(&route->target);
    template_close(&route->text);
    template_close(&route->reply);
    mem_free(route->sources);
    mem_free(route->pattern);
    mem_free(route->origin);
    mem_free(route);
}

/* --- Keys
 * ------------------------------------------------------------------------------------------------------ */

/* An address template, judged by the address that the shortest parameters would make. */
static bool parse_address(const struct route *route, struct template *template, const char *text, bool held,
                          char *problem, size_t size)
{
    if (!template_parse(template, text, route->names, route->param_count, false, problem, size))
        return false;
    struct slice sample[ROUTE_PARAMS_MAX];
    for (size_t i = 0; i < route->param_count; i++)
        sample[i] = slice_text("1");
    struct buffer expanded;
    buffer_init(&expanded, 0);
    struct address address;
    const char *reason = "out of memory";
    if (template_expand(template, sample, NULL, 0, &expanded))
        reason = address_parse(slice_from(expanded.data, expanded.len), &address);
    if (reason == NULL && held && address.kind == ADDRESS_SESSION)
        reason = address_check_exclusive(address.name);
    buffer_close(&expanded);
    if (reason == NULL)
        return true;
    template_close(template);
    return fail(problem, size, "%s: %s; an address is session:NAME, user:UID or topic:NAME", text, reason);
}

static bool parse_address_key(struct route *route, const char *value, char *problem, size_t size)
{
    route->has_address = parse_address(route, &route->address, value, true, problem, size);
    return route->has_address;
}

/* Text in double quotes, with \" and \\ inside, to the end of the value. Returns an owned string. */
static char *unquote(const char *quoted, char *problem, size_t size)
{
    char *text = mem_alloc(strlen(quoted));
    if (text == NULL) {
        fail(problem, size, "out of memory");
        return NULL;
    }
    size_t len = 0;
    const char *p = quoted + 1;
    for (; *p != '\0' && *p != '"'; p++) {
        if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
            p++;
        text[len++] = *p;
    }
    text[len] = '\0';
    if (p[0] == '"' && p[1] == '\0')
        return text;
    if (*p == '\0')
        fail(problem, size,
             "the quoted text is not closed (a ; after a space begins a comment, in quotes too)");
    else
        fail(problem, size, "there is something after the quoted text; write \\\" for a quote inside");
    mem_free(text);
    return NULL;
}

static bool parse_text(const struct route *route, struct template *template, const char *value, char *problem,
                       size_t size)
{
    char *unquoted = NULL;
    if (value[0] == '"' && (unquoted = unquote(value, problem, size)) == NULL)
        return false;
    bool ok = template_parse(template, unquoted != NULL ? unquoted : value, route->names, route->param_count,
                             true, problem, size);
    mem_free(unquoted);
    return ok;
}

static bool parse_reply(struct route *route, const char *value, char *problem, size_t size)
{
    route->has_reply = parse_text(route, &route->reply, value, problem, size);
    return route->has_reply;
}

static const struct {
    const char *name;
    enum route_action action;
    bool target, text;
} actions[] = {
    {"publish", ROUTE_ACTION_PUBLISH, true, true},
    {"forward", ROUTE_ACTION_FORWARD, true, false},
    {"echo", ROUTE_ACTION_ECHO, false, false},
    {"ignore", ROUTE_ACTION_IGNORE, false, false},
};

#define ACTION_FORM "publish ADDRESS [\"TEMPLATE\"], forward ADDRESS, echo or ignore"

static bool parse_target(struct route *route, struct slice word, char *problem, size_t size)
{
    char *text = mem_strndup(word.data, word.len);
    if (text == NULL)
        return fail(problem, size, "out of memory");
    bool ok = parse_address(route, &route->target, text, false, problem, size);
    mem_free(text);
    return ok;
}

static const char *skip_spaces(const char *p)
{
    return p + strspn(p, " \t");
}

static bool parse_on_message(struct route *route, const char *value, char *problem, size_t size)
{
    struct slice verb = slice_from(value, strcspn(value, " \t"));
    size_t i = 0, count = sizeof actions / sizeof actions[0];
    while (i < count && !slice_is(verb, actions[i].name))
        i++;
    if (i == count)
        return fail(problem, size, "must be " ACTION_FORM);
    route->action = actions[i].action;

    const char *rest = skip_spaces(value + verb.len);
    if (actions[i].target) {
        struct slice word = slice_from(rest, strcspn(rest, " \t"));
        if (word.len == 0)
            return fail(problem, size, "%s needs an address: " ACTION_FORM, actions[i].name);
        if (!parse_target(route, word, problem, size))
            return false;
        rest = skip_spaces(rest + word.len);
    }
    if (actions[i].text && rest[0] == '"')
        return parse_text(route, &route->text, rest, problem, size);
    if (rest[0] != '\0')
        return fail(problem, size, "what does \"%s\" mean after %s? Allowed: " ACTION_FORM, rest,
                    actions[i].name);
    return true;
}

static bool parse_on_request(struct route *route, const char *value, char *problem, size_t size)
{
    route->answers_next = strcmp(value, "next-message") == 0;
    if (!route->answers_next && strcmp(value, "refuse") != 0)
        return fail(problem, size, "must be next-message or refuse");
    return true;
}

const struct route_key route_keys[] = {
    {"address", "ADDRESS",
     "The address a session here holds: session:NAME (exclusive: the newest connection has it; no ~ in it), "
     "user:UID "
     "or topic:NAME (shared). Without it the session is anonymous.",
     parse_address_key},
    {"on_message", ACTION_FORM,
     "What a message of a plain client does (default ignore). publish and forward send it to an address; the "
     "template "
     "of publish rewrites text messages, binary ones go as they are.",
     parse_on_message},
    {"reply", "TEMPLATE",
     "Text sent back to the sender of a text message after it was handed on; with publish and forward only.",
     parse_reply},
    {"on_request", "next-message or refuse",
     "What a request to a plain session here does (default refuse). next-message: the client gets it as a "
     "message, and "
     "the next message the client sends before the deadline is the reply, and nothing else: on_message "
     "doesn't see it. "
     "Anybody who may send requests so decides what a message of the client means; one request at a time, "
     "more are refused.",
     parse_on_request},
};
const size_t route_key_count = sizeof route_keys / sizeof route_keys[0];

bool route_set(struct route *route, const struct route_key *key, const char *value, char *problem,
               size_t problem_size)
{
    size_t index = (size_t)(key - route_keys);
    if (route->sources[index] != NULL)
        return fail(problem, problem_size, "is set twice in this section");
    route->sources[index] = mem_strdup(value);
    if (route->sources[index] == NULL)
        return fail(problem, problem_size, "out of memory");
    if (value[0] == '\0')
        return fail(problem, problem_size, "must be %s", key->form);
    return key->parse(route, value, problem, problem_size);
}

bool route_finish(const struct route *route, char *problem, size_t problem_size)
{
    bool handed_on = route->action == ROUTE_ACTION_PUBLISH || route->action == ROUTE_ACTION_FORWARD;
    if (route->has_reply && !handed_on)
        return fail(problem, problem_size, "reply needs on_message = publish or forward");
    return true;
}

bool route_same_paths(const struct route *a, const struct route *b)
{
    if (a->segment_count != b->segment_count)
        return false;
    for (size_t i = 0; i < a->segment_count; i++) {
        const struct route_segment *x = &a->segments[i], *y = &b->segments[i];
        if ((x->literal == NULL) != (y->literal == NULL))
            return false;
        if (x->literal != NULL && strcmp(x->literal, y->literal) != 0)
            return false;
    }
    return true;
}
