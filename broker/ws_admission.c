/* What becomes of a request on the clients' port. It is decided once, on the whole head and on the raw target, before
 * anything else has read them; what is no valid upgrade to a WebSocket never reaches libwebsockets. */
#include "base/log.h"
#include "base/utf8.h"
#include "broker/metrics.h"
#include "broker/target.h"
#include "broker/ws_internal.h"
#include "storage/storage.h"
#include "web/assets.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define RETRY "retry-after: 1\r\n"

static void answer(struct ws_verdict *verdict, unsigned status, const char *headers, const char *text)
{
    verdict->status = status;
    verdict->headers = headers;
    verdict->text = text;
}

static void refuse(struct ws_server *server, struct ws_verdict *verdict, unsigned status, const char *headers,
                   const char *text)
{
    server->options.metrics->refused_request++;
    answer(verdict, status, headers, text);
}

void ws_admission_refuse(struct ws_server *server, const struct http_problem *problem, struct ws_verdict *verdict)
{
    memset(verdict, 0, offsetof(struct ws_verdict, match));
    refuse(server, verdict, problem->status, "", problem->text);
}

/* ---- the target ---- */

/* The path and query of a target in absolute form (RFC 9112 section 3.2.2), which servers must take too. */
static struct slice strip_origin(struct slice target)
{
    static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t len = strlen(schemes[i]);
        if (target.len <= len || strncasecmp(target.data, schemes[i], len) != 0)
            continue;
        struct slice rest = slice_from(target.data + len, target.len - len);
        const char *path = memchr(rest.data, '/', rest.len);
        size_t host_len = path ? (size_t)(path - rest.data) : rest.len;
        if (http_is_host(slice_from(rest.data, host_len)))
            return path ? slice_from(path, rest.len - host_len) : slice_text("/");
    }
    return target;
}

static const struct web_asset *find_asset(struct slice target)
{
    struct slice path = target_path(target);
    char text[64];

    if (path.len >= sizeof text)
        return NULL;
    memcpy(text, path.data, path.len);
    text[path.len] = '\0';
    return web_asset_find(text);
}

static bool is_connect(const struct config *config, struct slice target)
{
    struct slice path = target_path(target);
    char text[1024];
    bool broken = false;

    if (path.len > sizeof text || target_is_alias(path))
        return false;
    memcpy(text, path.data, path.len);
    path = slice_from(text, target_decode(text, path.len, &broken));
    return !broken && connect_is_path(config, path);
}

static enum route_result match_target(struct ws_server *server, struct ws_verdict *verdict)
{
    struct slice target = verdict->target, query = target_query(target);
    enum route_result result = route_match(server->config, target.data, target.len, &verdict->match);
    bool connect = result == ROUTE_NOT_FOUND && is_connect(server->config, target);
    const char *wrong = NULL;

    if (connect)
        wrong = connect_parse(query, &verdict->arguments);
    else if (result == ROUTE_OK)
        wrong = connect_parse_since(query, &verdict->arguments);
    if (wrong) {
        snprintf(verdict->match.problem, sizeof verdict->match.problem, "%s", wrong);
        return ROUTE_BAD_PARAMETER;
    }
    if (connect)
        connect_match(server->options.connect, &verdict->arguments, &verdict->match);
    return connect ? ROUTE_OK : result;
}

/* False, and the verdict is an answer, when the target is no session's. */
static bool find_route(struct ws_server *server, struct ws_verdict *verdict)
{
    switch (match_target(server, verdict)) {
    case ROUTE_NOT_FOUND:
        refuse(server, verdict, 404, "", "no such path");
        return false;
    case ROUTE_BAD_PARAMETER:
        refuse(server, verdict, 400, "", verdict->match.problem);
        return false;
    case ROUTE_OK:
        break;
    }
    return true;
}

/* ---- pages ---- */

/* If-None-Match: RFC 9110 section 13.1.2; tags are compared weakly. */
static bool is_known(const struct http_head *head, const struct web_asset *asset)
{
    struct http_list_cursor cursor = {0};
    struct slice tag;

    while (http_head_next_member(head, "if-none-match", &cursor, &tag)) {
        if (slice_is(tag, "*"))
            return true;
        if (tag.len > 2 && memcmp(tag.data, "W/", 2) == 0)
            tag = slice_from(tag.data + 2, tag.len - 2);
        if (slice_is(tag, asset->etag))
            return true;
    }
    return false;
}

static void judge_page(struct ws_server *server, const struct http_head *head, struct ws_verdict *verdict)
{
    verdict->asset = find_asset(verdict->target);
    if (verdict->asset)
        answer(verdict, is_known(head, verdict->asset) ? 304 : 200,
               "cache-control: no-cache\r\n"
               "content-security-policy: default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'\r\n"
               "x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n",
               NULL);
    else if (find_route(server, verdict))
        refuse(server, verdict, 426, "upgrade: websocket\r\n",
               "this is a WebSocket endpoint: connect with a WebSocket client");
}

/* ---- upgrades ---- */

static bool is_upgrade(const struct http_head *head)
{
    /* HTTP/1.0 knows no upgrade: RFC 9110 section 7.8. */
    return head->minor_version > 0 && slice_is(head->method, "GET") &&
           http_head_lists(head, "upgrade", "websocket") && http_head_lists(head, "connection", "upgrade");
}

static bool is_base64(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

/* Sixteen bytes in base64: RFC 6455 section 4.1. */
static bool is_key(struct slice key)
{
    if (key.len != WS_KEY_LEN || key.data[WS_KEY_LEN - 1] != '=' || key.data[WS_KEY_LEN - 2] != '=')
        return false;
    for (size_t i = 0; i < WS_KEY_LEN - 2; i++)
        if (!is_base64(key.data[i]))
            return false;
    return true;
}

/* The first of the subprotocols that the client offers and we know. False when it offers only others. */
static bool choose_face(const struct http_head *head, enum face *face)
{
    struct http_list_cursor cursor = {0};
    struct slice offered = {NULL, 0};

    *face = FACE_PLAIN;
    while (http_head_next_member(head, "sec-websocket-protocol", &cursor, &offered)) {
        if (slice_is(offered, WS_PROTOCOL_JSON))
            *face = FACE_JSON;
        else if (slice_is(offered, WS_PROTOCOL_MSGPACK))
            *face = FACE_MSGPACK;
        else
            continue;
        return true;
    }
    return !offered.data;
}

const char *ws_admission_subprotocol(enum face face)
{
    return face == FACE_JSON ? WS_PROTOCOL_JSON : face == FACE_MSGPACK ? WS_PROTOCOL_MSGPACK : NULL;
}

/* False, and the verdict is an answer, when the client's side of the handshake is wrong. */
static bool check_handshake(struct ws_server *server, const struct http_head *head, struct ws_verdict *verdict)
{
    static const char versions[] = "upgrade: websocket\r\nsec-websocket-version: 13\r\n";
    bool repeated_version, repeated_key;
    struct slice version = http_head_field(head, "sec-websocket-version", &repeated_version);

    verdict->key = http_head_field(head, "sec-websocket-key", &repeated_key);
    if (repeated_version || !slice_is(version, "13"))
        refuse(server, verdict, 426, versions, "WebSocket version 13 is served here");
    else if (repeated_key || !is_key(verdict->key))
        refuse(server, verdict, 400, "", "Sec-WebSocket-Key must be 16 bytes in base64");
    else if (!choose_face(head, &verdict->face))
        refuse(server, verdict, 400, "",
               "none of the offered subprotocols is known here: " WS_PROTOCOL_JSON ", " WS_PROTOCOL_MSGPACK
               ", or none at all");
    else
        return true;
    return false;
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

/* False, and the verdict is an answer, when no session can begin now. */
static bool check_room(struct ws_server *server, struct ws_verdict *verdict)
{
    struct metrics *metrics = server->options.metrics;

    if (is_full(server)) {
        metrics->refused_full++;
        answer(verdict, 503, RETRY, "too many connections, try again later");
    } else if (budget_is_over(server->options.budget)) {
        metrics->refused_memory++;
        answer(verdict, 503, RETRY, "too much is waiting for slow clients, try again later");
    } else if (server->stopped || storage_state(server->options.storage) != STORAGE_UP) {
        metrics->refused_unavailable++;
        answer(verdict, 503, RETRY,
               server->stopped ? "this broker is shutting down, connect again"
                               : "the storage is out of reach, try again later");
    } else {
        return true;
    }
    return false;
}

static void judge_upgrade(struct ws_server *server, const struct http_head *head, struct ws_verdict *verdict)
{
    bool repeated;

    if (!find_route(server, verdict) || !check_handshake(server, head, verdict) || !check_room(server, verdict))
        return;
    verdict->status = 101;
    verdict->agent = http_head_field(head, "user-agent", &repeated);
    if (!verdict->agent.data || !utf8_valid(verdict->agent.data, verdict->agent.len))
        verdict->agent = slice_text("");
}

void ws_admission_judge(struct ws_server *server, const struct http_head *head, struct ws_verdict *verdict)
{
    memset(verdict, 0, offsetof(struct ws_verdict, match));
    verdict->target = strip_origin(head->target);
    verdict->only_head = slice_is(head->method, "HEAD");
    if (!verdict->only_head && !slice_is(head->method, "GET"))
        refuse(server, verdict, 405, "allow: GET, HEAD\r\n", "only GET and HEAD are served here");
    else if (head->has_body)
        refuse(server, verdict, 400, "", "requests with a body are not served here");
    else if (verdict->target.data[0] != '/' || memchr(verdict->target.data, '#', verdict->target.len))
        refuse(server, verdict, 400, "", "the target must be a path, without a fragment");
    else if (is_upgrade(head))
        judge_upgrade(server, head, verdict);
    else
        judge_page(server, head, verdict);
}
