/* The commands over the HTTP API. What it answers is shown as it comes: a list of objects as a table, an object as lines of
 * names and values, or, with --json, the list's elements one a line. So a field that a newer broker adds shows too. */
#include "client/swb/http.h"
#include "client/swb/output.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int exit_code_of_status(int status)
{
    switch (status) {
    case 404:
        return EXIT_ABSENT;
    case 504:
        return EXIT_LATE;
    case 409:
    case 410:
    case 422:
        return EXIT_REFUSED;
    case 503:
        return EXIT_UNAVAILABLE;
    default:
        return status >= 200 && status < 300 ? EXIT_OK : EXIT_ERROR;
    }
}

/* Problem details (RFC 9457), or whatever came instead. */
static void complain_of(int status, json_t *root)
{
    const char *title = json_string_value(json_object_get(root, "title"));
    const char *detail = json_string_value(json_object_get(root, "detail"));

    if (title || detail)
        complain("%s%s%s", title ? title : "", title && detail ? ": " : "", detail ? detail : "");
    else
        complain("the API answered with HTTP status %d", status);
}

/* ---- showing ------------------------------------------------------------------------------------------- */

static char *cell_text(json_t *value)
{
    if (!value || json_is_null(value))
        return strdup("");
    if (json_is_string(value))
        return strdup(json_string_value(value));
    return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

static void print_cell(const char *text, int width)
{
    print_name(text);
    for (int i = name_width(text); i < width; i++)
        putchar(' ');
}

enum { COLUMNS_MAX = 32 };

static size_t find_columns(json_t *list, const char *names[static COLUMNS_MAX],
                           int widths[static COLUMNS_MAX])
{
    size_t count = 0, row;
    json_t *object, *value;
    const char *name;

    json_array_foreach(list, row, object)
    {
        json_object_foreach(object, name, value)
        {
            size_t i = 0;
            while (i < count && strcmp(names[i], name) != 0)
                i++;
            if (i == COLUMNS_MAX)
                continue;
            if (i == count) {
                names[count] = name;
                widths[count++] = name_width(name);
            }
            char *text = cell_text(value);
            int width = text ? name_width(text) : 0;
            widths[i] = width > widths[i] ? width : widths[i];
            free(text);
        }
    }
    return count;
}

static void print_table(json_t *list)
{
    const char *names[COLUMNS_MAX];
    int widths[COLUMNS_MAX];
    size_t count = find_columns(list, names, widths), row;
    json_t *object;

    for (size_t i = 0; i < count; i++)
        print_cell(names[i], i + 1 < count ? widths[i] + 2 : 0);
    if (count)
        putchar('\n');
    json_array_foreach(list, row, object)
    {
        for (size_t i = 0; i < count; i++) {
            char *text = cell_text(json_object_get(object, names[i]));
            print_cell(text ? text : "", i + 1 < count ? widths[i] + 2 : 0);
            free(text);
        }
        putchar('\n');
    }
}

static void print_lines(json_t *object, const char *before)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        if (json_is_object(value)) {
            char path[256];
            snprintf(path, sizeof path, "%s%s.", before, name);
            print_lines(value, path);
            continue;
        }
        char *text = cell_text(value);
        print_name(before);
        print_name(name);
        fputs(": ", stdout);
        print_name(text ? text : "");
        putchar('\n');
        free(text);
    }
}

static void print_json(json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    if (text) {
        print_json_text(text, strlen(text));
        putchar('\n');
    }
    free(text);
}

/* The member that holds a list of objects; NULL when there is none. */
static json_t *find_list(json_t *root)
{
    const char *name;
    json_t *value;

    if (json_is_array(root))
        return root;
    json_object_foreach(root, name, value)
    {
        if (json_is_array(value) && (!json_array_size(value) || json_is_object(json_array_get(value, 0))))
            return value;
    }
    return NULL;
}

static void show(const struct args *args, json_t *root)
{
    json_t *list = find_list(root), *value;
    size_t i;

    if (!list) {
        if (args_has(args, OPT_JSON))
            print_json(root);
        else
            print_lines(root, "");
        return;
    }
    if (!args_has(args, OPT_JSON)) {
        print_table(list);
        return;
    }
    json_array_foreach(list, i, value) print_json(value);
}

/* ---- asking -------------------------------------------------------------------------------------------- */

/* EXIT_OK: `*root` is the answer (NULL: an empty one), to be released. Otherwise it was said what is wrong. */
static int ask(const struct args *args, const char *method, struct buffer *path, json_t **root)
{
    struct http_answer answer;
    const char *text = buffer_text(path);

    *root = NULL;
    if (!text) {
        complain("memory is short");
        return EXIT_ERROR;
    }
    int status = http_request(args, method, text, &answer);
    if (status == EXIT_OK) {
        *root = answer.body.len ? json_loadb(answer.body.data, answer.body.len, 0, NULL) : NULL;
        status = exit_code_of_status(answer.status);
        if (status != EXIT_OK)
            complain_of(answer.status, *root);
        else if (answer.body.len && !*root) {
            complain("the API's answer is no JSON");
            status = EXIT_ERROR;
        }
    }
    buffer_close(&answer.body);
    if (status != EXIT_OK) {
        json_decref(*root);
        *root = NULL;
    }
    return status;
}

/* One request, whose path ends with the command's word, if it has one. */
static int run(const struct args *args, const char *method, const char *before, const char *after)
{
    struct buffer path;
    json_t *root;

    buffer_init(&path, 0);
    buffer_append_text(&path, before);
    if (args->word_count)
        http_escape(&path, args->words[0]);
    buffer_append_text(&path, after);
    int status = ask(args, method, &path, &root);
    buffer_close(&path);
    if (root)
        show(args, root);
    json_decref(root);
    return status;
}

static void add_parameter(struct buffer *path, const char *name, const char *value)
{
    if (!value)
        return;
    buffer_printf(path, "%s%s=", memchr(path->data, '?', path->len) ? "&" : "?", name);
    http_escape(path, value);
}

/* All pages as one list. */
int command_sessions(const struct args *args)
{
    json_t *all = json_array();
    uint64_t limit;
    int status = all ? EXIT_OK : EXIT_ERROR;
    char *cursor = NULL, page[24];
    enum { PAGE_MAX = 1000 };

    if (!args_number(args, OPT_LIMIT, UINT64_MAX, &limit))
        status = EXIT_USAGE;
    snprintf(page, sizeof page, "%" PRIu64, limit < PAGE_MAX ? limit : PAGE_MAX);
    while (status == EXIT_OK && json_array_size(all) < limit) {
        struct buffer path;
        json_t *root;
        buffer_init(&path, 0);
        buffer_append_text(&path, "/v1/sessions");
        add_parameter(&path, "user", args->values[OPT_USER]);
        add_parameter(&path, "instance", args->values[OPT_INSTANCE]);
        add_parameter(&path, "route", args->values[OPT_ROUTE]);
        add_parameter(&path, "cursor", cursor);
        add_parameter(&path, "limit", page);
        status = ask(args, "GET", &path, &root);
        buffer_close(&path);
        json_t *list = find_list(root);
        if (list)
            json_array_extend(all, list);
        const char *next = json_string_value(json_object_get(root, "cursor"));
        free(cursor);
        cursor = next && *next ? strdup(next) : NULL;
        json_decref(root);
        if (!cursor)
            break;
    }
    free(cursor);
    while (json_array_size(all) > limit)
        json_array_remove(all, json_array_size(all) - 1);
    if (status == EXIT_OK)
        show(args, all);
    json_decref(all);
    return status;
}

int command_session(const struct args *args)
{
    return run(args, "GET", "/v1/sessions/", "");
}

int command_kick(const struct args *args)
{
    struct buffer query;
    uint64_t code;

    if (!args_number(args, OPT_CODE, 1000, &code))
        return EXIT_USAGE;
    if (code != 1000 && (code < 3000 || code > 4999)) {
        complain("--code takes 1000 or 3000 to 4999, not %" PRIu64, code);
        return EXIT_USAGE;
    }
    buffer_init(&query, 0);
    buffer_append_text(&query, "");
    if (args_has(args, OPT_CODE))
        buffer_printf(&query, "?code=%" PRIu64, code);
    if (args_has(args, OPT_REASON)) {
        buffer_append_text(&query, query.len ? "&reason=" : "?reason=");
        http_escape(&query, args->values[OPT_REASON]);
    }
    const char *text = buffer_text(&query);
    int status = text ? run(args, "DELETE", "/v1/sessions/", text) : EXIT_ERROR;
    buffer_close(&query);
    return status;
}

int command_users(const struct args *args)
{
    return run(args, "GET", "/v1/users/", "");
}

int command_topics(const struct args *args)
{
    return run(args, "GET", "/v1/topics", "");
}

int command_instances(const struct args *args)
{
    return run(args, "GET", "/v1/instances", "");
}

int command_stats(const struct args *args)
{
    return run(args, "GET", "/v1/stats", "");
}

int command_drain(const struct args *args)
{
    return run(args, "POST", "/v1/instances/", "/drain");
}
