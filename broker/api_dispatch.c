/* The table of endpoints, and the way of a request to its row. */
#include "broker/api_internal.h"

#include "base/log.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <string.h>

struct endpoint {
    enum evhttp_cmd_type method; /* GET stands for HEAD too */
    const char *path;
    api_serve *serve;
    const char *query; /* the parameters that it knows, separated by spaces; NULL: any, ignored */
    bool open;         /* asks for no token */
};

/* One row, one endpoint; docs/openapi.yaml describes them. */
static const struct endpoint table[] = {
    {EVHTTP_REQ_GET, "/healthz", api_serve_healthz, NULL, true},
    {EVHTTP_REQ_GET, "/readyz", api_serve_readyz, NULL, true},
    {EVHTTP_REQ_GET, "/metrics", api_serve_metrics, NULL, false},
    {EVHTTP_REQ_GET, "/v1/stats", api_serve_stats, NULL, false},
    {EVHTTP_REQ_POST, "/v1/send/{address}", api_serve_send, "store ttl", false},
    {EVHTTP_REQ_POST, "/v1/publish/{topic}", api_serve_publish, "store ttl", false},
    {EVHTTP_REQ_POST, "/v1/request/{address}", api_serve_request, "timeout", false},
    {EVHTTP_REQ_POST, "/v1/batch", api_serve_batch, "", false},
    {EVHTTP_REQ_GET, "/v1/sessions", api_serve_sessions, "user instance route cursor limit", false},
    {EVHTTP_REQ_GET, "/v1/sessions/{name}", api_serve_session, "", false},
    {EVHTTP_REQ_DELETE, "/v1/sessions/{name}", api_serve_kick, "code reason", false},
    {EVHTTP_REQ_GET, "/v1/users/{uid}", api_serve_user, "", false},
    {EVHTTP_REQ_GET, "/v1/topics", api_serve_topics, "limit", false},
    {EVHTTP_REQ_GET, "/v1/topics/{topic}/presence", api_serve_presence, "limit", false},
    {EVHTTP_REQ_GET, "/v1/topics/{topic}/history", api_serve_topic_history, "since epoch limit reverse",
     false},
    {EVHTTP_REQ_GET, "/v1/history/{address}", api_serve_history, "since epoch limit reverse", false},
    {EVHTTP_REQ_GET, "/v1/instances", api_serve_instances, "", false},
    {EVHTTP_REQ_POST, "/v1/instances/{instance}/drain", api_serve_drain, "", false},
};

static const struct {
    enum evhttp_cmd_type method;
    const char *names;
} method_names[] = {
    {EVHTTP_REQ_GET, "GET, HEAD"},
    {EVHTTP_REQ_POST, "POST"},
    {EVHTTP_REQ_DELETE, "DELETE"},
};

/* ---- who may ---- */

/* False when it was refused. */
static bool is_allowed(struct api *api, struct evhttp_request *http, enum evhttp_cmd_type method)
{
    const struct evkeyvalq *headers = evhttp_request_get_input_headers(http);

    if (api->token && !api_token_matches(evhttp_find_header(headers, "Authorization"), api->token)) {
        evhttp_add_header(evhttp_request_get_output_headers(http), "WWW-Authenticate",
                          "Bearer realm=\"switchboard\"");
        api_reply_error(api, http, ERROR_UNAUTHORIZED, "give the API's token: Authorization: Bearer TOKEN");
        return false;
    }
    /* Browsers let a page of any site post to what its visitor reaches, loopback included; a token they don't have. */
    if (!api->token && method != EVHTTP_REQ_GET && evhttp_find_header(headers, "Origin")) {
        api_reply_error(api, http, ERROR_FORBIDDEN,
                        "a web page (the request has an Origin) may change nothing here without api_token");
        return false;
    }
    return true;
}

/* ---- the way ---- */

static void refuse_method(struct api *api, struct evhttp_request *http, struct slice path)
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
    evhttp_add_header(evhttp_request_get_output_headers(http), "Allow", allowed);
    snprintf(detail, sizeof detail, "served here: %s", allowed);
    api_reply_problem(api, http, 405, "method_not_allowed", false, detail);
}

static void serve(struct api *api, struct evhttp_request *http, const struct endpoint *endpoint,
                  struct slice param)
{
    const char *text = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(http));
    struct api_query query;
    struct api_input input = {.http = http, .param = param, .query = &query};
    int error = api_query_parse(&query, slice_text(text), endpoint->query);

    if (error)
        api_reply_error(api, http, error, query.problem);
    else
        endpoint->serve(api, &input);
    api_query_close(&query);
}

void api_dispatch(struct evhttp_request *http, void *data)
{
    struct api *api = data;
    struct slice path = slice_text(evhttp_uri_get_path(evhttp_request_get_evhttp_uri(http))), param;
    enum evhttp_cmd_type method = evhttp_request_get_command(http);
    const struct endpoint *found = NULL;
    enum api_match match = API_NO_MATCH;
    char text[API_PARAM_MAX + 1];

    if (method == EVHTTP_REQ_HEAD)
        method = EVHTTP_REQ_GET;
    for (size_t i = 0; path.data && match == API_NO_MATCH && i < sizeof table / sizeof *table; i++) {
        if (table[i].method != method)
            continue;
        found = &table[i];
        match = api_path_match(found->path, path, text, &param);
    }
    bool open = match == API_MATCH && found->open;
    if (!open && !is_allowed(api, http, method))
        return;
    if (match == API_MATCH)
        serve(api, http, found, param);
    else if (match == API_BAD_PARAM)
        api_reply_error(api, http, ERROR_BAD_REQUEST,
                        "the path has a broken escape, or a parameter that is too long");
    else
        refuse_method(api, http, path.data ? path : slice_text(""));
}
