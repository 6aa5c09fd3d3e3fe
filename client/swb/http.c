#include "client/swb/http.h"

#include "client/url.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { TIMEOUT_S = 30 };

struct exchange {
    struct event_base *base;
    struct http_answer *answer;
    bool answered;
};

void http_escape(struct buffer *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z') ||
                     strchr("-._~", *at);
        buffer_printf(out, plain ? "%c" : "%%%02X", *at);
    }
}

static void on_answer(struct evhttp_request *request, void *data)
{
    struct exchange *exchange = data;

    event_base_loopbreak(exchange->base);
    if (!request || !evhttp_request_get_response_code(request))
        return;
    struct evbuffer *body = evhttp_request_get_input_buffer(request);
    size_t len = evbuffer_get_length(body);
    exchange->answer->status = evhttp_request_get_response_code(request);
    exchange->answered = !len || buffer_append(&exchange->answer->body, evbuffer_pullup(body, -1), len);
}

static bool add_headers(struct evhttp_request *request, const char *host, const char *token)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    struct buffer bearer;

    bool ok = evhttp_add_header(headers, "Host", host) == 0 &&
              evhttp_add_header(headers, "User-Agent", "swb/" SWITCHBOARD_VERSION) == 0 &&
              evhttp_add_header(headers, "Connection", "close") == 0;
    if (!token)
        return ok;
    buffer_init(&bearer, 0);
    buffer_printf(&bearer, "Bearer %s", token);
    const char *text = buffer_text(&bearer);
    ok = ok && text && evhttp_add_header(headers, "Authorization", text) == 0;
    buffer_close(&bearer);
    return ok;
}

static enum evhttp_cmd_type method_type(const char *method)
{
    return strcmp(method, "POST") == 0     ? EVHTTP_REQ_POST
           : strcmp(method, "DELETE") == 0 ? EVHTTP_REQ_DELETE
                                           : EVHTTP_REQ_GET;
}

static int exchange_run(struct exchange *exchange, const struct args *args, const char *method,
                        const char *path, const struct url *url)
{
    struct evhttp_connection *connection =
        evhttp_connection_base_new(exchange->base, NULL, url->host, url->port);
    struct evhttp_request *request = connection ? evhttp_request_new(on_answer, exchange) : NULL;
    struct buffer target;
    int status = EXIT_UNAVAILABLE;

    buffer_init(&target, 0);
    buffer_printf(&target, "%s%s", strcmp(url->path, "/") == 0 ? "" : url->path, path);
    const char *text = buffer_text(&target);
    if (!request || !text || !add_headers(request, url->host_header, settings_token(args))) {
        complain("memory is short");
        if (request)
            evhttp_request_free(request);
    } else {
        evhttp_connection_set_timeout(connection, TIMEOUT_S);
        if (evhttp_make_request(connection, request, method_type(method), text) == 0)
            event_base_dispatch(exchange->base);
        if (exchange->answered)
            status = EXIT_OK;
        else
            complain("the HTTP API at %s does not answer", settings_api(args));
    }
    buffer_close(&target);
    if (connection)
        evhttp_connection_free(connection);
    return status;
}

/* url_parse() is for WebSockets first, and says so. */
static const char *check_scheme(const char *text)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncasecmp(text, schemes[i], strlen(schemes[i])) == 0)
            return NULL;
    return "the API's URL begins with http://";
}

int http_request(const struct args *args, const char *method, const char *path, struct http_answer *answer)
{
    struct exchange exchange = {.answer = answer};
    struct url url;

    answer->status = 0;
    buffer_init(&answer->body, 0);
    if (!settings_check(args))
        return EXIT_USAGE;
    const char *wrong = check_scheme(settings_api(args));
    if (!wrong)
        wrong = url_parse(settings_api(args), "/", &url);
    if (wrong) {
        complain("%s: %s", settings_api(args), wrong);
        return EXIT_USAGE;
    }
    if (url.tls) {
        complain("%s: the API is reached by plain http://, as it listens on loopback", settings_api(args));
        url_close(&url);
        return EXIT_USAGE;
    }
    exchange.base = event_base_new();
    int status = EXIT_ERROR;
    if (exchange.base)
        status = exchange_run(&exchange, args, method, path, &url);
    else
        complain("memory is short");
    if (exchange.base)
        event_base_free(exchange.base);
    url_close(&url);
    return status;
}
