/* The table of endpoints, and the way of a request to its row. */
#include "broker/api_internal.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

struct endpoint {
    enum api_method method; /* GET stands for HEAD too */
    const char *path;
    api_serve *serve;
    const char *query; /* the parameters that it knows, separated by spaces; NULL: any, ignored */
    bool open;         /* asks for no token */
    enum { NO_BODY, MESSAGE, BATCH } body;
};

/* One row, one endpoint; docs/openapi.yaml describes them. */
static const struct endpoint table[] = {
    {METHOD_GET, "/healthz", api_serve_healthz, NULL, true, NO_BODY},
    {METHOD_GET, "/readyz", api_serve_readyz, NULL, true, NO_BODY},
    {METHOD_GET, "/metrics", api_serve_metrics, NULL, false, NO_BODY},
    {METHOD_GET, "/v1/stats", api_serve_stats, "", false, NO_BODY},
    {METHOD_POST, "/v1/send/{address}", api_serve_send, "store ttl", false, MESSAGE},
    {METHOD_POST, "/v1/publish/{topic}", api_serve_publish, "store ttl", false, MESSAGE},
    {METHOD_POST, "/v1/request/{address}", api_serve_request, "timeout", false, MESSAGE},
    {METHOD_POST, "/v1/batch", api_serve_batch, "", false, BATCH},
    {METHOD_GET, "/v1/sessions", api_serve_sessions, "user instance route cursor limit", false, NO_BODY},
    {METHOD_GET, "/v1/sessions/{name}", api_serve_session, "", false, NO_BODY},
    {METHOD_DELETE, "/v1/sessions/{name}", api_serve_kick, "code reason", false, NO_BODY},
    {METHOD_GET, "/v1/users/{uid}", api_serve_user, "", false, NO_BODY},
    {METHOD_GET, "/v1/topics", api_serve_topics, "limit", false, NO_BODY},
    {METHOD_GET, "/v1/topics/{topic}/presence", api_serve_presence, "limit", false, NO_BODY},
    {METHOD_GET, "/v1/topics/{topic}/history", api_serve_topic_history, "since epoch limit reverse",
     false, NO_BODY},
    {METHOD_GET, "/v1/history/{address}", api_serve_history, "since epoch limit reverse", false, NO_BODY},
    {METHOD_GET, "/v1/instances", api_serve_instances, "", false, NO_BODY},
    {METHOD_POST, "/v1/instances/{instance}/drain", api_serve_drain, "", false, NO_BODY},
};

static const struct {
    enum api_method method;
    const char *names;
} method_names[] = {
    {METHOD_GET, "GET, HEAD"},
    {METHOD_POST, "POST"},
    {METHOD_DELETE, "DELETE"},
};

/* ---- who may ---- */

/* A page of some site whose name was bound to our address afterwards comes with that name; to its visitor's browser it and
 * we are one. A token it doesn't have. */
static bool is_meant(struct api *api, struct api_http *http)
{
    const char *host = api_http_head(http)->host, *hosts = api->config->api_hosts;

    if (host && (api_host_is_known(host, hosts) || (api->token && !*hosts)))
        return true;
    api_http_close_after(http);
    if (!host) { /* HTTP/1.0 may leave it out, so health may be asked without */
        api_reply_error(api, http, ERROR_BAD_REQUEST, "the request has no Host header");
        return false;
    }
    api_reply_problem(api, http, 421, "misdirected", false,
                      "the API isn't served under this Host; api_hosts names further ones");
    return false;
}

/* False when it was refused. */
static bool is_allowed(struct api *api, struct api_http *http, enum api_method method)
{
    const struct api_head *head = api_http_head(http);

    if (api->token && !api_token_matches(api_head_field(head, "authorization"), api->token)) {
        api_http_add_field(http, "WWW-Authenticate", "Bearer realm=\"switchboard\"");
        api_http_close_after(http);
        api_reply_error(api, http, ERROR_UNAUTHORIZED, "give the API's token: Authorization: Bearer TOKEN");
        return false;
    }
    /* Browsers let a page of any site post to what its visitor reaches, loopback included; a token they don't have. */
    if (!api->token && method != METHOD_GET && api_head_field(head, "origin")) {
        api_reply_error(api, http, ERROR_FORBIDDEN,
                        "a web page (the request has an Origin) may change nothing here without api_token");
        return false;
    }
    return true;
}

/* Surplus connections are there for health alone. */
static bool has_place(struct api *api, struct api_http *http)
{
    if (!api_http_is_surplus(http))
        return true;
    api_reply_problem(api, http, 503, "limit", true,
                      "too many connections to the API (api_connections); only its health is told");
    return false;
}

/* ---- the way ---- */

static void refuse_method(struct api *api, struct api_http *http, struct slice path)
{
    char allowed[64] = "", param[API_PARAM_MAX + 1], detail[96];
    struct slice value;
    size_t len = 0;

    for (size_t m = 0; m < sizeof method_names / sizeof *method_names; m++) {
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            if (table[i].method == method_names[m].method &&
                api_path_match(table[i].path, path, param, &value) == API_MATCH)
                len += (size_t)snprintf(allowed + len, sizeof allowed - len, "%s%s", len ? ", " : "",
                                        method_names[m].names);
        }
    }
    if (!len) {
        api_reply_problem(api, http, 404, "not_found", false, "no such path");
        return;
    }
    api_http_add_field(http, "Allow", allowed);
    snprintf(detail, sizeof detail, "served here: %s", allowed);
    api_reply_problem(api, http, 405, "method_not_allowed", false, detail);
}

static void serve(struct api *api, struct api_http *http, const struct endpoint *endpoint,
                  struct slice param)
{
    struct api_query query;
    struct api_input input = {.http = http, .param = param, .query = &query};
    int error = api_query_parse(&query, api_http_head(http)->query, endpoint->query);

    if (error)
        api_reply_error(api, http, error, query.problem);
    else
        endpoint->serve(api, &input);
    api_query_close(&query);
}

struct way {
    const struct endpoint *endpoint; /* NULL: none */
    enum api_match match;
    struct slice param;
    char text[API_PARAM_MAX + 1];
};

static enum api_method method_of(const struct api_head *head)
{
    return head->method == METHOD_HEAD ? METHOD_GET : head->method;
}

static void find_way(const struct api_head *head, struct way *way)
{
    way->match = API_NO_MATCH;
    way->endpoint = NULL;
    for (size_t i = 0; way->match == API_NO_MATCH && i < sizeof table / sizeof *table; i++) {
        if (table[i].method != method_of(head))
            continue;
        way->endpoint = &table[i];
        way->match = api_path_match(table[i].path, head->path, way->text, &way->param);
    }
}

/* ---- what the server asks ---- */

static size_t body_max_of(const struct api *api, const struct endpoint *endpoint)
{
    switch (endpoint->body) {
    case MESSAGE:
        return api->config->max_message;
    case BATCH:
        return API_BATCH_BYTES_MAX;
    default:
        return 0;
    }
}

static void on_head(void *data, struct api_http *http, size_t *body_max)
{
    struct api *api = data;
    const struct api_head *head = api_http_head(http);
    struct way way;

    find_way(head, &way);
    bool open = way.match == API_MATCH && way.endpoint->open;
    if (!open && (!has_place(api, http) || !is_meant(api, http) || !is_allowed(api, http, method_of(head))))
        return;
    if (way.match == API_MATCH)
        *body_max = body_max_of(api, way.endpoint);
    else if (way.match == API_BAD_PARAM)
        api_reply_error(api, http, ERROR_BAD_REQUEST,
                        "the path has a broken escape, or a parameter that is too long");
    else
        refuse_method(api, http, head->path);
}

static void on_request(void *data, struct api_http *http)
{
    struct way way;

    find_way(api_http_head(http), &way);
    serve(data, http, way.endpoint, way.param);
}

/* What the list of errors doesn't name: what only HTTP knows. */
static const struct {
    unsigned status;
    const char *name;
} http_names[] = {
    {408, "request_timeout"}, {414, "target_too_long"}, {417, "expectation_failed"},
    {431, "head_too_large"},  {501, "not_implemented"}, {505, "version_not_supported"},
};

static void on_problem(void *data, struct api_http *http, const struct http_problem *problem)
{
    int status = (int)problem->status;
    const struct error_info *info = error_find(status);
    const char *name = info->name;

    for (size_t i = 0; i < sizeof http_names / sizeof *http_names; i++)
        if (http_names[i].status == problem->status)
            name = http_names[i].name;
    api_reply_problem(data, http, status, name, info->retry || status == 408, problem->text);
}

const struct api_server_ops api_dispatch_ops = {
    .on_head = on_head,
    .on_request = on_request,
    .on_problem = on_problem,
};
