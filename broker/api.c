#include "broker/api.h"

#include "base/alloc.h"
#include "base/log.h"
#include "broker/api_internal.h"
#include "broker/listener.h"
#include "broker/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/http.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

enum { HEADERS_MAX = 16 * 1024, TIMEOUT_SECONDS = 30 };

static bool bind_api(struct api *api, const char *address)
{
    char host[NI_MAXHOST];
    unsigned port;
    const char *problem;

    if (listener_parse(address, host, sizeof host, &port, &problem) == 0) {
        errno = 0;
        struct evhttp_bound_socket *bound =
            evhttp_bind_socket_with_handle(api->http, *host ? host : "::", (ev_uint16_t)port);
        if (bound) {
            listener_format_own(evhttp_bound_socket_get_fd(bound), api->address, sizeof api->address);
            return true;
        }
        problem = strerror(errno);
    }
    log_error("the API can't listen", log_str("address", address), log_str("reason", problem));
    return false;
}

/* What is larger than a message may be is refused by us, as far as a batch may go; beyond, evhttp refuses it. */
static void set_limits(struct api *api)
{
    uint64_t message = api->config->max_message, batch = API_BATCH_BYTES_MAX;

    evhttp_set_max_body_size(api->http, (ev_ssize_t)(2 * (message > batch ? message : batch)));
}

static void token_free(char *token)
{
    if (token)
        OPENSSL_cleanse(token, strlen(token));
    mem_free(token);
}

static bool read_token(struct api *api, const struct config *config)
{
    char problem[160], *token;

    if (!config_api_token(config, &token, problem, sizeof problem)) {
        log_error("the API's token can't be read", log_str("reason", problem));
        return false;
    }
    token_free(api->token);
    api->token = token;
    return true;
}

struct api *api_create(const struct api_options *options)
{
    const ev_uint16_t methods = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
                                EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE |
                                EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH;
    struct api *api = mem_calloc(1, sizeof *api);

    if (!api)
        return NULL;
    list_init(&api->calls);
    api->options = *options;
    reader_init(&api->reader, options->reads, (options->config->reads_limit + 1) / 2);
    api->config = config_ref(options->config);
    api->http = evhttp_new(loop_base(options->loop));
    if (!api->http || !read_token(api, api->config) ||
        !bind_api(api, options->address ? options->address : api->config->api.text)) {
        api_destroy(api);
        return NULL;
    }
    /* Those that no endpoint has are refused by us, too. */
    evhttp_set_allowed_methods(api->http, methods);
    evhttp_set_gencb(api->http, api_dispatch, api);
    evhttp_set_max_headers_size(api->http, HEADERS_MAX);
    evhttp_set_timeout(api->http, TIMEOUT_SECONDS);
    set_limits(api);
    return api;
}

void api_destroy(struct api *api)
{
    if (!api)
        return;
    api->closing = true;
    if (api->http)
        evhttp_free(api->http);
    token_free(api->token);
    config_unref(api->config);
    mem_free(api);
}

const char *api_address(const struct api *api)
{
    return api->address;
}

void api_set_draining(struct api *api)
{
    api->draining = true;
}

void api_reload(struct api *api, struct config *config, size_t max_connections)
{
    read_token(api, config);
    config_ref(config);
    config_unref(api->config);
    api->config = config;
    api->options.max_connections = max_connections;
    set_limits(api);
}
