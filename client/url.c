#include "client/url.h"

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *parse_scheme(const char **text, struct url *url)
{
    static const struct {
        const char *name;
        bool tls;
    } schemes[] = {{"ws://", false}, {"wss://", true}, {"http://", false}, {"https://", true}};

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t len = strlen(schemes[i].name);
        if (strncasecmp(*text, schemes[i].name, len) == 0) {
            *text += len;
            url->tls = schemes[i].tls;
            url->port = url->tls ? 443 : 80;
            return NULL;
        }
    }
    return "a URL begins with ws:// or wss://";
}

static const char *parse_port(const char *text, const char *end, struct url *url)
{
    unsigned port = 0;

    if (text == end)
        return "the URL's port is empty";
    for (; text < end; text++) {
        if (*text < '0' || *text > '9' || (port = port * 10 + (unsigned)(*text - '0')) > 65535)
            return "the URL's port is not a number from 1 to 65535";
    }
    url->port = (unsigned short)port;
    return port ? NULL : "the URL's port is not a number from 1 to 65535";
}

static const char *parse_authority(const char *text, const char *end, struct url *url)
{
    bool bracket = text < end && *text == '[';
    unsigned short own = url->port;

    if (memchr(text, '@', (size_t)(end - text)))
        return "a URL with a user name is not supported";
    const char *host = text + (bracket ? 1 : 0);
    const char *host_end = memchr(host, bracket ? ']' : ':', (size_t)(end - host));
    if (bracket && !host_end)
        return "the URL's host lacks its closing bracket";
    const char *rest = host_end ? host_end + (bracket ? 1 : 0) : end;
    host_end = host_end ? host_end : end;
    size_t len = (size_t)(host_end - host);
    if (!len)
        return "the URL has no host";
    if (len >= sizeof url->host)
        return "the URL's host is too long";
    memcpy(url->host, host, len);
    url->host[len] = '\0';
    if (rest < end) {
        const char *wrong = *rest == ':' ? parse_port(rest + 1, end, url) : "the URL's host is malformed";
        if (wrong)
            return wrong;
    }
    int used =
        snprintf(url->host_header, sizeof url->host_header, bracket ? "[%.*s]" : "%.*s", (int)len, host);
    if (url->port != own)
        snprintf(url->host_header + used, sizeof url->host_header - (size_t)used, ":%u", (unsigned)url->port);
    return NULL;
}

const char *url_parse(const char *text, const char *default_path, struct url *url)
{
    *url = (struct url){.tls = false};
    if (strlen(text) > URL_MAX)
        return "the URL is too long";
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f)
            return "a URL has no spaces, control characters or characters beyond ASCII: percent-encode them";
    const char *wrong = parse_scheme(&text, url);
    if (wrong)
        return wrong;
    size_t len = strcspn(text, "/?#");
    wrong = parse_authority(text, text + len, url);
    if (wrong)
        return wrong;
    text += len;
    if (strchr(text, '#'))
        return "a URL with a fragment is not supported";
    size_t path_len = strcspn(text, "?");
    url->path = path_len > 1 ? mem_strndup(text, path_len) : mem_strdup(default_path);
    if (text[path_len])
        url->query = mem_strdup(text + path_len + 1);
    if (url->path && (url->query || !text[path_len]))
        return NULL;
    url_close(url);
    return "memory is short";
}

void url_close(struct url *url)
{
    mem_free(url->path);
    mem_free(url->query);
    url->path = url->query = NULL;
}
