#include "broker/api_head.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

static bool refuse(struct http_problem *problem, unsigned status, const char *text)
{
    *problem = (struct http_problem){status, text};
    return false;
}

/* ---- the first line ---- */

static enum api_method read_method(struct slice text)
{
    static const struct {
        const char *name;
        enum api_method method;
    } methods[] = {
        {"GET", METHOD_GET}, {"HEAD", METHOD_HEAD}, {"POST", METHOD_POST}, {"DELETE", METHOD_DELETE}};

    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (slice_is(text, methods[i].name))
            return methods[i].method;
    return METHOD_OTHER;
}

/* "http://HOST/PATH", as one says to a proxy: the host goes to *authority. */
static void split_absolute(struct slice *target, struct slice *authority)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]);
        if (target->len < len || strncasecmp(target->data, schemes[i], len) != 0)
            continue;
        const char *host = target->data + len, *end = target->data + target->len, *path = host;
        while (path < end && !strchr("/?", *path))
            path++;
        *authority = slice_from(host, (size_t)(path - host));
        *target = slice_from(path, (size_t)(end - path));
        return;
    }
}

static bool read_target(struct api_head *head, struct slice target, struct slice *authority,
                        struct http_problem *problem)
{
    for (size_t i = 0; i < target.len; i++)
        if (target.data[i] <= ' ' || target.data[i] > '~' || target.data[i] == '#')
            return refuse(problem, 400, "the target has a byte that must be escaped");
    split_absolute(&target, authority);
    const char *mark = target.len ? memchr(target.data, '?', target.len) : NULL;
    size_t len = mark ? (size_t)(mark - target.data) : target.len;
    head->path = len ? slice_from(target.data, len) : slice_text("/");
    head->query = mark ? slice_from(mark + 1, target.len - len - 1) : slice_text("");
    return true;
}

/* ---- the fields ---- */

static const char *const names[API_FIELDS] = {
    "host",         "content-length", "transfer-encoding", "authorization",
    "content-type", "expect",         "idempotency-key",   "origin"};

const char *api_head_field(const struct api_head *head, const char *name)
{
    for (size_t i = 0; i < API_FIELDS; i++)
        if (strcmp(names[i], name) == 0)
            return head->fields[i];
    return NULL;
}

/* Behind a value are spaces or the end of its line, which nobody reads once this is through. */
static bool take_fields(struct api_head *head, const struct http_head *http, char *text,
                        struct http_problem *problem)
{
    struct slice found[API_FIELDS];
    bool repeated;

    for (size_t i = 0; i < API_FIELDS; i++) {
        found[i] = http_head_field(http, names[i], &repeated);
        if (repeated)
            return refuse(problem, 400, "a header field came twice that may come once");
    }
    for (size_t i = 0; i < API_FIELDS; i++) {
        head->fields[i] = found[i].data;
        if (found[i].data)
            text[found[i].data - text + (ptrdiff_t)found[i].len] = '\0';
    }
    return true;
}

static bool read_length(struct api_head *head, struct http_problem *problem)
{
    const char *length = api_head_field(head, "content-length");
    const char *coding = api_head_field(head, "transfer-encoding");

    if (coding && head->old)
        return refuse(problem, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (coding && strcasecmp(coding, "chunked") != 0)
        return refuse(problem, 501, "the only Transfer-Encoding here is chunked");
    head->chunked = coding != NULL;
    if (!length)
        return true;
    if (!*length || length[strspn(length, "0123456789")])
        return refuse(problem, 400, "Content-Length is not a number");
    for (; *length; length++) {
        if (head->length > UINT64_MAX / 100)
            return refuse(problem, 413, "Content-Length is larger than anything here");
        head->length = head->length * 10 + (uint64_t)(*length - '0');
    }
    return true;
}

static bool read_fields(struct api_head *head, struct slice authority, struct http_problem *problem)
{
    const char *expect = api_head_field(head, "expect");
    struct slice host = slice_text(api_head_field(head, "host"));

    if (!read_length(head, problem))
        return false;
    if (authority.data &&
        (!host.data || host.len != authority.len || strncasecmp(host.data, authority.data, host.len) != 0))
        return refuse(problem, 400, "the target names another host than Host does");
    if (expect && strcasecmp(expect, "100-continue") != 0)
        return refuse(problem, 417, "the only Expect here is 100-continue");
    head->host = host.data;
    head->expects_continue = expect && !head->old;
    return true;
}

bool api_head_parse(char *text, size_t len, struct api_head *head, struct http_problem *problem)
{
    struct http_head http;
    struct slice authority = {0};

    *head = (struct api_head){.method = METHOD_OTHER, .path = slice_text(""), .query = slice_text("")};
    if (!http_head_parse(slice_from(text, len), &http, problem))
        return false;
    head->method = read_method(http.method);
    head->old = http.minor_version == 0;
    head->close = head->old || http_head_lists(&http, "connection", "close");
    return take_fields(head, &http, text, problem) && read_target(head, http.target, &authority, problem) &&
           read_fields(head, authority, problem);
}

/* ---- whom it is for ---- */

/* The name of "NAME:PORT" or "[ADDRESS]:PORT"; false when it is neither. */
static bool split_host(const char *host, struct slice *name)
{
    const char *end = *host == '[' ? strchr(host, ']') : host + strcspn(host, ":");

    if (!end)
        return false;
    *name = *host == '[' ? slice_from(host + 1, (size_t)(end - host - 1))
                         : slice_from(host, (size_t)(end - host));
    end += *end == ']';
    return name->len && (!*end || (*end == ':' && strspn(end + 1, "0123456789") == strlen(end + 1)));
}

static bool ends_with(struct slice name, const char *tail)
{
    size_t len = strlen(tail);

    return name.len >= len && strncasecmp(name.data + name.len - len, tail, len) == 0;
}

bool api_host_is_known(const char *host, const char *hosts)
{
    unsigned char address[sizeof(struct in6_addr)];
    struct slice name;
    char text[256];

    if (!split_host(host, &name) || name.len >= sizeof text)
        return false;
    memcpy(text, name.data, name.len);
    text[name.len] = '\0';
    /* No name server stands between an address and us, so no page of another site can be reached under it. */
    if (inet_pton(*host == '[' ? AF_INET6 : AF_INET, text, address) == 1)
        return true;
    if (strcasecmp(text, "localhost") == 0 || ends_with(name, ".localhost"))
        return true;
    for (const char *at = hosts; *(at += strspn(at, ", ")); at += strcspn(at, ", "))
        if (strcspn(at, ", ") == name.len && strncasecmp(at, text, name.len) == 0)
            return true;
    return false;
}
