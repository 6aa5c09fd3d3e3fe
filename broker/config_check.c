#include "broker/config_check.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "broker/config_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct check {
    const struct config *config;
    void (*on_problem)(void *data, const char *problem);
    void *data;
};

static bool sound(const struct check *check, const char *key)
{
    return !check->config->source->settings[option_find(key) - option_specs].failed;
}

/* Appends "key = value (origin)". */
static void quote(const struct check *check, const char *key, struct buffer *out)
{
    const struct option_spec *spec = option_find(key);
    buffer_printf(out, "%s = ", key);
    option_format(spec, check->config, false, out);
    buffer_append_text(out, " (");
    config_origin(check->config, spec, out);
    buffer_append_text(out, ")");
}

/* Reports "key = value (origin) TEXT", or "key = value (origin) and other = value (origin) TEXT". */
static void report(const struct check *check, const char *key, const char *other, const char *text)
{
    struct buffer problem;
    buffer_init(&problem, 0);
    quote(check, key, &problem);
    if (other != NULL) {
        buffer_append_text(&problem, " and ");
        quote(check, other, &problem);
    }
    buffer_printf(&problem, " %s", text);
    const char *sentence = buffer_text(&problem);
    check->on_problem(check->data, sentence != NULL ? sentence : text);
    buffer_close(&problem);
}

static bool is_loopback(const struct config_address *address)
{
    if (address->sockaddr.ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, &address->sockaddr, sizeof sin);
        return ntohl(sin.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 sin6;
    memcpy(&sin6, &address->sockaddr, sizeof sin6);
    return IN6_IS_ADDR_LOOPBACK(&sin6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&sin6.sin6_addr) && sin6.sin6_addr.s6_addr[12] == 127);
}

static bool is_exposed(const struct check *check, const char *key, const struct config_address *address)
{
    return sound(check, key) && sound(check, "insecure") && !check->config->insecure && !address->off &&
           !is_loopback(address);
}

static void check_exposure(const struct check *check)
{
    const struct config *config = check->config;
    bool has_token = config->api_token[0] != '\0' || config->api_token_file[0] != '\0';
    if (!config_has_auth(config) && is_exposed(check, "listen", &config->listen))
        report(check, "listen", NULL,
               "can be reached from other machines, and no authentication is configured: listen on a loopback "
               "address such as 127.0.0.1 behind a proxy, or allow it with --insecure (insecure = yes)");
    if (!has_token && sound(check, "api_token") && sound(check, "api_token_file") &&
        is_exposed(check, "api", &config->api))
        report(check, "api", NULL,
               "can be reached from other machines, and no authentication is configured: set api_token, listen "
               "on a loopback address such as 127.0.0.1, or allow it with --insecure (insecure = yes)");
}

static void check_token(const struct check *check)
{
    const struct config *config = check->config;
    char problem[160], *token = NULL;
    if (!sound(check, "api_token") || !sound(check, "api_token_file"))
        return;
    if (config->api_token[0] != '\0' && config->api_token_file[0] != '\0')
        report(check, "api_token", "api_token_file", "contradict each other: drop one of the two");
    else if (!config_api_token(config, &token, problem, sizeof problem))
        report(check, "api_token_file", NULL, problem);
    mem_free(token);
}

static void check_ports(const struct check *check)
{
    const struct config *config = check->config;
    if (sound(check, "listen") && sound(check, "api") && !config->api.off &&
        strcmp(config->listen.text, config->api.text) == 0 && config->listen.port != 0)
        report(check, "listen", "api", "are the same address; give the API a port of its own, or api = off");
}

static void check_file(const struct check *check, const char *key, const char *path)
{
    if (path[0] == '\0' || access(path, R_OK) == 0)
        return;
    char text[128];
    snprintf(text, sizeof text, "can't be read: %s", strerror(errno));
    report(check, key, NULL, text);
}

static void check_tls(const struct check *check)
{
    const struct config *config = check->config;
    if (!sound(check, "tls_cert") || !sound(check, "tls_key"))
        return;
    bool cert = config->tls_cert[0] != '\0', key = config->tls_key[0] != '\0';
    if (cert && !key)
        report(check, "tls_cert", NULL, "needs tls_key as well");
    if (key && !cert)
        report(check, "tls_key", NULL, "needs tls_cert as well");
    check_file(check, "tls_cert", config->tls_cert);
    check_file(check, "tls_key", config->tls_key);
}

static void check_storage(const struct check *check)
{
    const struct config *config = check->config;
    bool redis = config->redis.kind != CONFIG_REDIS_NONE;
    if (!sound(check, "storage") || !sound(check, "redis"))
        return;
    if (config->storage == CONFIG_STORAGE_REDIS && !redis)
        report(check, "storage", NULL, "needs to know the server: set redis = redis://HOST:PORT");
    if (config->storage == CONFIG_STORAGE_MEMORY && redis)
        report(check, "storage", "redis", "contradict each other: drop one of the two");
}

static void check_limits(const struct check *check)
{
    const struct config *config = check->config;
    if (sound(check, "outbox_limit") && sound(check, "max_message") &&
        config->outbox_limit < config->max_message + CONFIG_OUTBOX_SLACK)
        report(check, "outbox_limit", "max_message",
               "don't go together: outbox_limit must be at least max_message plus 64KiB");
    if (sound(check, "memory_budget") && sound(check, "outbox_limit") &&
        config->memory_budget < config->outbox_limit)
        report(check, "memory_budget", "outbox_limit",
               "don't go together: memory_budget must be at least outbox_limit");
    if (sound(check, "lease") && sound(check, "heartbeat") && config->lease < 2 * config->heartbeat)
        report(check, "lease", "heartbeat", "don't go together: lease must be at least twice the heartbeat");
}

static void check_workers(const struct check *check)
{
    const struct config *config = check->config;
    if (!sound(check, "workers") || config->workers == 1)
        return;
    if (sound(check, "redis") && config->redis.kind == CONFIG_REDIS_NONE)
        report(check, "workers", NULL,
               "is more than 1, which needs Redis between them: set redis = redis://HOST:PORT");
    if (sound(check, "listen") && config->listen.port == 0)
        report(check, "workers", "listen", "don't go together: workers share one port, so it must be given");
    if (sound(check, "api") && !config->api.off && config->api.port &&
        config->api.port + config->workers - 1 > UINT16_MAX)
        report(check, "workers", "api",
               "don't go together: there are not so many ports after that of the API");
}

void config_check(const struct config *config, void (*on_problem)(void *data, const char *problem),
                  void *data)
{
    const struct check check = {.config = config, .on_problem = on_problem, .data = data};
    check_exposure(&check);
    check_token(&check);
    check_ports(&check);
    check_tls(&check);
    check_storage(&check);
    check_limits(&check);
    check_workers(&check);
}
