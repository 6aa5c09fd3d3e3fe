/* HTTP on the WebSocket port: the page, and clear refusals for what can't become a session. */
#include "base/log.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/target.h"
#include "broker/ws_internal.h"
#include "storage/storage.h"
#include "web/assets.h"

#include <stdio.h>
#include <string.h>

enum { RESPONSE_HEADERS_MAX = 1024 };

struct header {
    const char *name, *value;
};

/* Sends a whole response; what libwebsockets' HTTP callback returns. */
static int respond(struct lws *wsi, unsigned status, const char *type, const struct header *headers,
                   size_t header_count, const void *body, size_t len)
{
    unsigned char buffer[LWS_PRE + RESPONSE_HEADERS_MAX];
    unsigned char *start = buffer + LWS_PRE, *at = start, *end = buffer + sizeof buffer - 1;
    bool head = lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) > 0;

    if (lws_add_http_common_headers(wsi, status, type, len, &at, end))
        return -1;
    for (size_t i = 0; i < header_count; i++)
        if (lws_add_http_header_by_name(wsi, (const unsigned char *)headers[i].name,
                                        (const unsigned char *)headers[i].value,
                                        (int)strlen(headers[i].value), &at, end))
            return -1;
    if (lws_finalize_write_http_header(wsi, start, &at, end))
        return -1;
    /* The body is only read; the signature lacks the const. */
    if (len && !head && lws_write(wsi, (unsigned char *)(uintptr_t)body, len, LWS_WRITE_HTTP_FINAL) < 0)
        return -1;
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}

static int respond_text(struct lws *wsi, unsigned status, const struct header *header, const char *text)
{
    char body[256];
    int len = snprintf(body, sizeof body, "%s\n", text);

    return respond(wsi, status, "text/plain; charset=utf-8", header, header ? 1 : 0, body, (size_t)len);
}

/* The path as libwebsockets has decoded it; {NULL, 0} when there is none. */
static struct slice library_path(struct lws *wsi, char out[static WS_HEADER_MAX])
{
    int len = lws_hdr_copy(wsi, out, WS_HEADER_MAX, WSI_TOKEN_GET_URI);

    if (len <= 0)
        len = lws_hdr_copy(wsi, out, WS_HEADER_MAX, WSI_TOKEN_HEAD_URI);
    return len > 0 ? slice_from(out, (size_t)len) : slice_from(NULL, 0);
}

static bool is_connect(const struct config *config, struct slice target)
{
    struct slice path = target_path(target);
    char text[WS_HEADER_MAX];
    bool broken = false;

    if (path.len > sizeof text)
        return false;
    memcpy(text, path.data, path.len);
    path = slice_from(text, target_decode(text, path.len, &broken));
    return !broken && connect_is_path(config, path);
}

/* What /connect's arguments say. */
static enum route_result match_connect(struct ws_server *server, struct lws *wsi, struct route_match *match)
{
    char user_text[ARGUMENT_MAX], session_text[ARGUMENT_MAX];
    struct slice user, session;
    const char *wrong_user = ws_http_argument(wsi, "user", user_text, &user);
    const char *wrong_session = ws_http_argument(wsi, "session", session_text, &session);

    if (wrong_user || wrong_session) {
        snprintf(match->problem, sizeof match->problem, "%s: %s", wrong_user ? "user" : "session",
                 wrong_user ? wrong_user : wrong_session);
        return ROUTE_BAD_PARAMETER;
    }
    return connect_match(server->options.connect, user, session, match);
}

/* Finds the route of the request's path. */
static enum route_result match_path(struct ws_server *server, struct lws *wsi, struct route_match *match)
{
    struct slice target = ws_head_target(wsi), path = target;
    char text[WS_HEADER_MAX];

    if (!target.data)
        path = library_path(wsi, text);
    if (!path.data)
        return ROUTE_NOT_FOUND;
    enum route_result result = route_match(server->config, path.data, path.len, !target.data, match);
    if (result != ROUTE_NOT_FOUND)
        return result;
    bool connect = target.data ? is_connect(server->config, target) : connect_is_path(server->config, path);
    return connect ? match_connect(server, wsi, match) : ROUTE_NOT_FOUND;
}

const char *ws_http_argument(struct lws *wsi, const char *name, char out[static ARGUMENT_MAX],
                             struct slice *value)
{
    struct slice target = ws_head_target(wsi);
    char prefix[32];

    if (target.data)
        return target_argument(target, name, out, ARGUMENT_MAX, value);
    snprintf(prefix, sizeof prefix, "%s=", name);
    *value = slice_text(lws_get_urlarg_by_name(wsi, prefix, out, ARGUMENT_MAX));
    return NULL;
}

/* ---- subprotocols ---- */

/* libwebsockets binds the connection to the first offered name that it finds among the protocols of ws.c. */
enum face ws_http_face(struct lws *wsi)
{
    const char *name = lws_get_protocol(wsi)->name;

    return strcmp(name, WS_PROTOCOL_JSON) == 0      ? FACE_JSON
           : strcmp(name, WS_PROTOCOL_MSGPACK) == 0 ? FACE_MSGPACK
                                                    : FACE_PLAIN;
}

/* Whether the client offers nothing, or something known. */
static bool has_known_subprotocol(struct lws *wsi)
{
    char offered[512];
    int len = lws_hdr_copy(wsi, offered, sizeof offered, WSI_TOKEN_PROTOCOL);
    char *rest;

    if (len == 0)
        return lws_hdr_total_length(wsi, WSI_TOKEN_PROTOCOL) == 0;
    if (len < 0)
        return false;
    for (char *name = strtok_r(offered, ", \t", &rest); name; name = strtok_r(NULL, ", \t", &rest))
        if (strcmp(name, WS_PROTOCOL_JSON) == 0 || strcmp(name, WS_PROTOCOL_MSGPACK) == 0)
            return true;
    return false;
}

/* ---- requests ---- */

static int serve_asset(struct lws *wsi, const struct web_asset *asset)
{
    const struct header headers[] = {
        {"etag:", asset->etag},
        {"cache-control:", "no-cache"},
        {"content-security-policy:",
         "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"},
        {"x-content-type-options:", "nosniff"},
        {"referrer-policy:", "no-referrer"},
    };
    char known[128];
    bool same = lws_hdr_copy(wsi, known, sizeof known, WSI_TOKEN_HTTP_IF_NONE_MATCH) > 0 &&
                (strstr(known, asset->etag) || strcmp(known, "*") == 0);

    return respond(wsi, same ? HTTP_STATUS_NOT_MODIFIED : HTTP_STATUS_OK, asset->content_type, headers,
                   sizeof headers / sizeof *headers, asset->data, same ? 0 : asset->len);
}

int ws_http_request(struct ws_server *server, struct lws *wsi, const char *path)
{
    struct route_match match;
    const struct web_asset *asset = web_asset_find(path);
    bool get = lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0;

    if (!get && lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) == 0) {
        const struct header allow = {"allow:", "GET, HEAD"};
        ws_head_forget_target(wsi);
        return respond_text(wsi, HTTP_STATUS_METHOD_NOT_ALLOWED, &allow, "only GET and HEAD are served here");
    }
    enum route_result result = asset ? ROUTE_OK : match_path(server, wsi, &match);
    ws_head_forget_target(wsi);
    if (asset)
        return serve_asset(wsi, asset);
    switch (result) {
    case ROUTE_OK: {
        const struct header upgrade = {"upgrade:", "websocket"};
        return respond_text(wsi, 426, &upgrade,
                            "this is a WebSocket endpoint: connect with a WebSocket client");
    }
    case ROUTE_BAD_PARAMETER:
        return respond_text(wsi, HTTP_STATUS_BAD_REQUEST, NULL, match.problem);
    case ROUTE_NOT_FOUND:
        break;
    }
    return respond_text(wsi, HTTP_STATUS_NOT_FOUND, NULL, "no such path");
}

/* ---- upgrades ---- */

static const char *status_text(unsigned status)
{
    switch (status) {
    case HTTP_STATUS_BAD_REQUEST:
        return "Bad Request";
    case HTTP_STATUS_NOT_FOUND:
        return "Not Found";
    case 426:
        return "Upgrade Required";
    default:
        return "Service Unavailable";
    }
}

/* Answers instead of upgrading. The bytes are our own: libwebsockets knows the request's HTTP version only
 * later, and would answer as HTTP/1.0. 1 says that this was answered. */
static int refuse(struct lws *wsi, uint64_t *counter, unsigned status, const char *header, const char *text)
{
    unsigned char response[LWS_PRE + RESPONSE_HEADERS_MAX];
    int len = snprintf((char *)response + LWS_PRE, RESPONSE_HEADERS_MAX,
                       "HTTP/1.1 %u %s\r\nserver: switchboard\r\ncontent-type: text/plain; charset=utf-8\r\n"
                       "content-length: %zu\r\nconnection: close\r\n%s\r\n%s\n",
                       status, status_text(status), strlen(text) + 1, header, text);

    ++*counter;
    if (len < 0 || len >= RESPONSE_HEADERS_MAX ||
        lws_write(wsi, response + LWS_PRE, (size_t)len, LWS_WRITE_HTTP_HEADERS) < 0)
        return -1;
    lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, 1);
    return 1;
}

static bool is_full(struct ws_server *server)
{
    bool full = sessions_total(server->options.sessions) >= server->options.max_connections;

    if (full && !server->full)
        log_warn("connections refused", log_str("reason", "max_connections is reached"),
                 log_int("max_connections", (int64_t)server->options.max_connections));
    server->full = full;
    return full;
}

/* Only the version of RFC 6455 is spoken; libwebsockets takes any. */
static bool has_known_version(struct lws *wsi)
{
    char version[4];

    return lws_hdr_copy(wsi, version, sizeof version, WSI_TOKEN_VERSION) > 0 && strcmp(version, "13") == 0;
}

int ws_http_confirm_upgrade(struct ws_server *server, struct lws *wsi)
{
    static const char versions[] = "upgrade: websocket\r\nsec-websocket-version: 13\r\n";
    static const char retry[] = "retry-after: 1\r\n";
    struct metrics *metrics = server->options.metrics;
    struct route_match *match = &server->route;

    server->upgrading = wsi;
    switch (match_path(server, wsi, match)) {
    case ROUTE_NOT_FOUND:
        return refuse(wsi, &metrics->refused_request, HTTP_STATUS_NOT_FOUND, "", "no such path");
    case ROUTE_BAD_PARAMETER:
        return refuse(wsi, &metrics->refused_request, HTTP_STATUS_BAD_REQUEST, "", match->problem);
    case ROUTE_OK:
        break;
    }
    if (!has_known_version(wsi))
        return refuse(wsi, &metrics->refused_request, 426, versions, "WebSocket version 13 is served here");
    /* libwebsockets would drop the connection without a word. */
    if (!has_known_subprotocol(wsi))
        return refuse(wsi, &metrics->refused_request, HTTP_STATUS_BAD_REQUEST, "",
                      "none of the offered subprotocols is known here: " WS_PROTOCOL_JSON
                      ", " WS_PROTOCOL_MSGPACK ", or none at all");
    if (is_full(server))
        return refuse(wsi, &metrics->refused_full, HTTP_STATUS_SERVICE_UNAVAILABLE, retry,
                      "too many connections, try again later");
    if (storage_state(server->options.storage) != STORAGE_UP)
        return refuse(wsi, &metrics->refused_unavailable, HTTP_STATUS_SERVICE_UNAVAILABLE, retry,
                      "the storage is out of reach, try again later");
    return 0;
}
