/* Redis URLs: redis://[USER:PASSWORD@]HOST[:PORT][/DB] and unix://[USER:PASSWORD@]PATH[?db=DB]. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "broker/options.h"
#include "proto/slice.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define REDIS_PORT   6379
#define DATABASE_MAX 65535
#define HOST_MAX     253
#define REDACTED     OPTION_REDACTED
#define REDIS_FORM   "must be redis://[USER:PASSWORD@]HOST[:PORT][/DB] or unix://PATH[?db=DB]"

static bool fail(char *problem, size_t size, const char *text)
{
    snprintf(problem, size, "%s", text);
    return false;
}

static bool parse_number(struct slice text, unsigned max, unsigned *number)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > 5 || (text.len > 1 && text.data[0] == '0'))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (!isdigit((unsigned char)text.data[i]))
            return false;
        value = value * 10 + (unsigned)(text.data[i] - '0');
    }
    *number = value;
    return value <= max;
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c != '\0' ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return found != NULL ? (int)(found - digits) : -1;
}

/* A percent-decoded copy; NULL when an escape is broken or memory is short. */
static char *decode(struct slice text)
{
    char *out = mem_alloc(text.len + 1), *write = out;
    for (size_t i = 0; out != NULL && i < text.len; i++) {
        int byte = (unsigned char)text.data[i];
        if (byte == '%') {
            int high = text.len - i > 2 ? hex_value(text.data[i + 1]) : -1;
            int low = text.len - i > 2 ? hex_value(text.data[i + 2]) : -1;
            byte = high < 0 || low < 0 ? 0 : high * 16 + low;
            i += 2;
        }
        if (byte == 0) {
            mem_free(out);
            return NULL;
        }
        *write++ = (char)byte;
    }
    if (out != NULL)
        *write = '\0';
    return out;
}

/* Takes "USER:PASSWORD@" off the front of `rest`; `authority` is where the @ may stand. */
static bool parse_credentials(struct slice *rest, size_t authority, struct config_redis *redis, char *problem,
                              size_t size)
{
    const char *at = authority > 0 ? memrchr(rest->data, '@', authority) : NULL;
    if (at == NULL)
        return true;
    struct slice all = slice_from(rest->data, (size_t)(at - rest->data));
    const char *colon = all.len > 0 ? memchr(all.data, ':', all.len) : NULL;
    if (colon == NULL || colon + 1 == at)
        return fail(problem, size, "has a user but no password; write USER:PASSWORD@ or :PASSWORD@");
    struct slice user = slice_from(all.data, (size_t)(colon - all.data));
    redis->password = decode(slice_from(colon + 1, (size_t)(at - colon - 1)));
    if (user.len > 0)
        redis->username = decode(user);
    if (redis->password == NULL || (user.len > 0 && redis->username == NULL))
        return fail(problem, size, "has a broken percent-escape in user or password");
    if (strcmp(redis->password, REDACTED) == 0)
        return fail(problem, size, "has *** in place of the password; put the password there");
    *rest = slice_from(at + 1, rest->len - all.len - 1);
    return true;
}

static bool is_host(struct slice host, bool brackets)
{
    if (host.len == 0 || host.len > HOST_MAX)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        if (!isalnum((unsigned char)host.data[i]) && strchr(brackets ? ":.%" : ".-_", host.data[i]) == NULL)
            return false;
    }
    return true;
}

static bool parse_tcp(struct slice rest, struct config_redis *redis, char *problem, size_t size)
{
    size_t authority = 0;
    while (authority < rest.len && rest.data[authority] != '/')
        authority++;
    if (!parse_credentials(&rest, authority, redis, problem, size))
        return false;

    const char *slash = rest.len > 0 ? memchr(rest.data, '/', rest.len) : NULL;
    if (slash != NULL) {
        struct slice database = slice_from(slash + 1, rest.len - (size_t)(slash + 1 - rest.data));
        if (database.len > 0 && !parse_number(database, DATABASE_MAX, &redis->database))
            return fail(problem, size, "has a database that is no number from 0 to 65535");
        rest.len = (size_t)(slash - rest.data);
    }
    struct slice host = rest, port = slice_from(NULL, 0);
    bool brackets = rest.len > 0 && rest.data[0] == '[';
    const char *end = rest.len > 0 ? memchr(rest.data, brackets ? ']' : ':', rest.len) : NULL;
    if (brackets) {
        if (end == NULL || (end + 1 < rest.data + rest.len && end[1] != ':'))
            return fail(problem, size, REDIS_FORM);
        host = slice_from(rest.data + 1, (size_t)(end - rest.data) - 1);
        end = end + 1 < rest.data + rest.len ? end + 1 : NULL;
    } else if (end != NULL) {
        host.len = (size_t)(end - rest.data);
    }
    unsigned number = REDIS_PORT;
    if (end != NULL) {
        port = slice_from(end + 1, rest.len - (size_t)(end + 1 - rest.data));
        if (!parse_number(port, UINT16_MAX, &number) || number == 0)
            return fail(problem, size, "has a port that is no number from 1 to 65535");
    }
    if (!is_host(host, brackets))
        return fail(problem, size, REDIS_FORM);
    redis->kind = CONFIG_REDIS_TCP;
    redis->port = (uint16_t)number;
    redis->host = mem_strndup(host.data, host.len);
    return redis->host != NULL || fail(problem, size, "out of memory");
}

static bool parse_unix(struct slice rest, struct config_redis *redis, char *problem, size_t size)
{
    size_t authority = 0;
    while (authority < rest.len && rest.data[authority] != '/')
        authority++;
    if (!parse_credentials(&rest, authority, redis, problem, size))
        return false;
    const char *query = rest.len > 0 ? memchr(rest.data, '?', rest.len) : NULL;
    if (query != NULL) {
        struct slice text = slice_from(query + 1, rest.len - (size_t)(query + 1 - rest.data));
        if (text.len < 3 || memcmp(text.data, "db=", 3) != 0 ||
            !parse_number(slice_from(text.data + 3, text.len - 3), DATABASE_MAX, &redis->database))
            return fail(problem, size, "may end in ?db=N with N from 0 to 65535, and nothing else after a ?");
        rest.len = (size_t)(query - rest.data);
    }
    if (rest.len < 2 || rest.data[0] != '/')
        return fail(problem, size, "needs an absolute path, as in unix:///run/redis/redis.sock");
    if (rest.len >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return fail(problem, size, "has a path longer than the 107 bytes a unix socket's may have");
    redis->kind = CONFIG_REDIS_UNIX;
    redis->path = mem_strndup(rest.data, rest.len);
    return redis->path != NULL || fail(problem, size, "out of memory");
}

bool config_redis_parse(const char *text, struct config_redis *redis, char *problem, size_t size)
{
    static const char tcp[] = "redis://", tls[] = "rediss://", local[] = "unix://";
    bool ok;
    *redis = (struct config_redis){0};
    if (text[0] == '\0')
        return true;
    if (strncmp(text, tcp, strlen(tcp)) == 0)
        ok = parse_tcp(slice_text(text + strlen(tcp)), redis, problem, size);
    else if (strncmp(text, local, strlen(local)) == 0)
        ok = parse_unix(slice_text(text + strlen(local)), redis, problem, size);
    else if (strncmp(text, tls, strlen(tls)) == 0)
        ok = fail(problem, size, "asks for TLS (rediss://), which this version does not speak to Redis");
    else
        ok = fail(problem, size, REDIS_FORM);
    if (!ok)
        config_redis_clear(redis);
    return ok;
}

static void append_encoded(struct buffer *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (isalnum((unsigned char)*text) || strchr("-._~", *text) != NULL)
            buffer_append(out, text, 1);
        else
            buffer_printf(out, "%%%02X", (unsigned char)*text);
    }
}

void config_redis_format(const struct config_redis *redis, bool secrets, struct buffer *out)
{
    if (redis->kind == CONFIG_REDIS_NONE)
        return;
    buffer_append_text(out, redis->kind == CONFIG_REDIS_TCP ? "redis://" : "unix://");
    if (redis->password != NULL) {
        append_encoded(out, redis->username != NULL ? redis->username : "");
        buffer_append_text(out, ":");
        if (secrets)
            append_encoded(out, redis->password);
        else
            buffer_append_text(out, REDACTED);
        buffer_append_text(out, "@");
    }
    if (redis->kind == CONFIG_REDIS_UNIX)
        buffer_printf(out, "%s?db=%u", redis->path, redis->database);
    else
        buffer_printf(out, strchr(redis->host, ':') != NULL ? "[%s]:%u/%u" : "%s:%u/%u", redis->host,
                      redis->port, redis->database);
}

void config_redis_clear(struct config_redis *redis)
{
    mem_free(redis->host);
    mem_free(redis->path);
    mem_free(redis->username);
    mem_free(redis->password);
    *redis = (struct config_redis){0};
}
