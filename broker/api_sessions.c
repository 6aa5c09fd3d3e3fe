/* Who is connected: sessions, page by page. */
#include "broker/api_internal.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { LIMIT_DEFAULT = 100, LIMIT_MAX = 1000, STEPS_MAX = 50 };

/* ---- all of them, or those of an instance or a route ---- */

/* A scan over all sessions: page by page until enough of them fit the filters, or for so long that it is better to come
 * back with the cursor. */
struct scan {
    struct call call;
    struct buffer json;
    struct writer writer;
    size_t limit, matches, steps;
    struct slice instance, route; /* filters; empty: none */
    char *text;                   /* owned; the filters point into it */
};

static bool fits(const struct storage_record *record, const char *name, struct slice wanted)
{
    return !wanted.len || slice_equal(api_record_field(record, name), wanted);
}

static void add_session(struct scan *scan, const struct storage_record *record)
{
    if (!fits(record, "instance", scan->instance) || !fits(record, "route", scan->route))
        return;
    scan->matches++;
    api_write_session(&scan->writer, record);
}

static void scan_end(struct scan *scan, int error, struct slice cursor)
{
    struct api *api = scan->call.api;
    struct buffer json = scan->json;

    scan->writer.out = &json;
    writer_end(&scan->writer);
    if (cursor.len) {
        struct buffer hex;
        buffer_init(&hex, 0);
        if (api_hex_append(cursor, &hex))
            writer_pair_str(&scan->writer, "cursor", slice_from(hex.data, hex.len));
        else
            json.failed = true;
        buffer_close(&hex);
    }
    writer_end(&scan->writer);
    mem_free(scan->text);
    struct api_http *http = api_call_finish(&scan->call);
    if (http && error)
        api_reply_error(api, http, error, NULL);
    else if (http)
        api_reply_json(api, http, 200, &json);
    buffer_close(&json);
}

static void on_scanned(struct storage_request *request, int error, const struct storage_result *result)
{
    struct scan *scan = container_of(request, struct scan, call.request);

    for (size_t i = 0; !error && i < result->record_count; i++)
        add_session(scan, &result->records[i]);
    bool enough = scan->matches >= scan->limit - scan->limit / 2 || ++scan->steps == STEPS_MAX;
    if (error || !result->cursor.len || enough || !scan->call.http)
        scan_end(scan, error, result->cursor);
    else
        storage_list_sessions(scan->call.api->options.storage, result->cursor, scan->limit - scan->matches,
                              &scan->call.request);
}

/* Copies a filter from the query; false when it can't match anything anyway, or memory is short. */
static bool keep_filters(struct scan *scan, const struct api_input *input)
{
    const struct slice *instance = api_query_find(input->query, "instance");
    const struct slice *route = api_query_find(input->query, "route");
    size_t instance_len = instance ? instance->len : 0, route_len = route ? route->len : 0;

    scan->text = mem_alloc(instance_len + route_len);
    if (!scan->text)
        return false;
    if (instance_len)
        memcpy(scan->text, instance->data, instance_len);
    if (route_len)
        memcpy(scan->text + instance_len, route->data, route_len);
    scan->instance = slice_from(scan->text, instance_len);
    scan->route = slice_from(scan->text + instance_len, route_len);
    return true;
}

static struct scan *scan_create(struct api *api, const struct api_input *input, uint64_t limit, size_t size,
                                void (*on_done)(struct storage_request *, int, const struct storage_result *))
{
    struct scan *scan = api_call_create(api, input->http, size, on_done);

    if (!scan)
        return NULL;
    if (!keep_filters(scan, input)) {
        api_reply_error(api, api_call_finish(&scan->call), ERROR_NO_MEMORY, NULL);
        return NULL;
    }
    scan->limit = (size_t)limit;
    buffer_init(&scan->json, 0);
    writer_begin(&scan->writer, FACE_JSON, &scan->json);
    writer_map(&scan->writer, 2);
    writer_key(&scan->writer, "sessions");
    writer_array(&scan->writer, (size_t)limit);
    return scan;
}

/* ---- the sessions of one user: the registry knows their names, then each is looked up ---- */

struct user_scan {
    struct scan scan;
    struct list names; /* still to look up, in order */
    char last[ADDRESS_NAME_MAX + 1];
    char after[ADDRESS_NAME_MAX + 1]; /* the cursor: names up to this one were listed */
    size_t taken;
};

struct user_name {
    struct list link;
    struct slice name;
    char text[];
};

static void user_scan_end(struct user_scan *user, int error, bool more)
{
    for (struct list *link; (link = list_pop(&user->names));)
        mem_free(container_of(link, struct user_name, link));
    char last[ADDRESS_NAME_MAX + 1];
    memcpy(last, user->last, sizeof last);
    scan_end(&user->scan, error, more ? slice_text(last) : slice_from(NULL, 0));
}

static void look_up_next(struct user_scan *user)
{
    struct list *link = list_pop(&user->names);

    if (!link || user->taken == user->scan.limit || !user->scan.call.http) {
        bool more = link != NULL;
        if (link)
            list_prepend(&user->names, link);
        user_scan_end(user, ERROR_NONE, more);
        return;
    }
    struct user_name *name = container_of(link, struct user_name, link);
    memcpy(user->last, name->name.data, name->name.len);
    user->last[name->name.len] = '\0';
    user->taken++;
    storage_find_session(user->scan.call.api->options.storage, name->name, &user->scan.call.request);
    mem_free(name);
}

static void on_looked_up(struct storage_request *request, int error, const struct storage_result *result)
{
    struct user_scan *user = container_of(request, struct user_scan, scan.call.request);

    if (error) {
        user_scan_end(user, error, false);
        return;
    }
    if (result->record_count)
        add_session(&user->scan, &result->records[0]);
    look_up_next(user);
}

static int order_records(const void *left, const void *right)
{
    const struct slice a = (*(const struct storage_record *const *)left)->key;
    const struct slice b = (*(const struct storage_record *const *)right)->key;
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Keeps the names after the cursor, in order, and one more than are listed, so that it shows whether there are more. */
static bool keep_names(struct user_scan *user, const struct storage_result *result)
{
    size_t count = result->record_count, kept = 0;
    const struct storage_record **order = mem_alloc((count + 1) * sizeof *order);
    const struct storage_record after = {.key = slice_text(user->after)}, *at = &after;

    if (!order)
        return false;
    for (size_t i = 0; i < count; i++)
        order[i] = &result->records[i];
    qsort(order, count, sizeof *order, order_records);
    for (size_t i = 0; i < count && kept <= user->scan.limit; i++) {
        struct slice name = order[i]->key;
        if (order_records(&order[i], &at) <= 0 || name.len > ADDRESS_NAME_MAX)
            continue;
        struct user_name *copy = mem_alloc(sizeof *copy + name.len);
        if (!copy) {
            mem_free(order);
            return false;
        }
        memcpy(copy->text, name.data, name.len);
        copy->name = slice_from(copy->text, name.len);
        list_append(&user->names, &copy->link);
        kept++;
    }
    mem_free(order);
    return true;
}

static void on_names(struct storage_request *request, int error, const struct storage_result *result)
{
    struct user_scan *user = container_of(request, struct user_scan, scan.call.request);

    if (!error && !keep_names(user, result))
        error = ERROR_NO_MEMORY;
    if (error) {
        user_scan_end(user, error, false);
        return;
    }
    request->on_done = on_looked_up;
    look_up_next(user);
}

static void list_user_sessions(struct api *api, const struct api_input *input, struct slice uid,
                               struct slice cursor, uint64_t limit)
{
    if (address_check_name(uid) || cursor.len > ADDRESS_NAME_MAX) {
        api_reply_error(api, input->http, ERROR_BAD_REQUEST, "\"user\" or \"cursor\" is no such thing");
        return;
    }
    struct scan *scan = scan_create(api, input, limit, sizeof(struct user_scan), on_names);
    if (!scan)
        return;
    struct user_scan *user = container_of(scan, struct user_scan, scan);
    list_init(&user->names);
    if (cursor.len)
        memcpy(user->after, cursor.data, cursor.len);
    storage_list_user(api->options.storage, uid, &scan->call.request);
}

/* ---- the endpoint ---- */

void api_serve_sessions(struct api *api, const struct api_input *input)
{
    const struct slice *user = api_query_find(input->query, "user");
    const struct slice *cursor_text = api_query_find(input->query, "cursor");
    uint64_t limit = LIMIT_DEFAULT;
    struct buffer cursor;

    if (!api_input_number(api, input, "limit", 1, LIMIT_MAX, &limit))
        return;
    buffer_init(&cursor, 0);
    if (cursor_text && !api_hex_read(*cursor_text, &cursor)) {
        api_reply_error(api, input->http, cursor.failed ? ERROR_NO_MEMORY : ERROR_BAD_REQUEST,
                        "\"cursor\" is none that was given here");
    } else if (user) {
        list_user_sessions(api, input, *user, slice_from(cursor.data, cursor.len), limit);
    } else {
        struct scan *scan = scan_create(api, input, limit, sizeof *scan, on_scanned);
        if (scan)
            storage_list_sessions(api->options.storage, slice_from(cursor.data, cursor.len), scan->limit,
                                  &scan->call.request);
    }
    buffer_close(&cursor);
}
