#include "broker/api.h"

#include "base/alloc.h"
#include "base/log.h"
#include "broker/api_internal.h"

#include <openssl/crypto.h>
#include <string.h>

/* Whatever api_memory says, the largest body and an answer as large have room. */
static struct api_server_limits server_limits(const struct config *config, size_t connections)
{
    uint64_t body = config->max_message > API_BATCH_BYTES_MAX ? config->max_message : API_BATCH_BYTES_MAX;
    uint64_t memory = config->api_memory > 2 * body ? config->api_memory : 2 * body;

    return (struct api_server_limits){
        .connections = connections,
        .head = (size_t)config->head_limit,
        .memory = (size_t)memory,
        .timeout_ms = config->api_timeout,
        .idle_ms = config->api_idle_timeout,
    };
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
    struct api *api = mem_calloc(1, sizeof *api);

    if (!api)
        return NULL;
    list_init(&api->probing);
    api->options = *options;
    reader_init(&api->reader, options->reads, (options->config->reads_limit + 1) / 2);
    api->config = config_ref(options->config);
    const struct api_server_options server = {
        .loop = options->loop,
        .address = options->address ? options->address : api->config->api.text,
        .metrics = options->metrics,
        .limits = server_limits(api->config, options->api_connections),
        .ops = &api_dispatch_ops,
        .data = api,
    };
    if (read_token(api, api->config))
        api->server = api_server_create(&server);
    if (!api->server) {
        api_destroy(api);
        return NULL;
    }
    return api;
}

void api_destroy(struct api *api)
{
    if (!api)
        return;
    api->closing = true;
    api_server_destroy(api->server);
    token_free(api->token);
    config_unref(api->config);
    mem_free(api);
}

const char *api_address(const struct api *api)
{
    return api_server_address(api->server);
}

void api_set_draining(struct api *api)
{
    api->draining = true;
}

void api_reload(struct api *api, struct config *config, size_t max_connections, size_t api_connections)
{
    struct api_server_limits limits = server_limits(config, api_connections);

    read_token(api, config);
    config_ref(config);
    config_unref(api->config);
    api->config = config;
    api->options.max_connections = max_connections;
    api_server_set_limits(api->server, &limits);
}
