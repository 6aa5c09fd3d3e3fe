#include "broker/api_head.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

static const struct api_refusal refusals[] = {
#define REFUSAL(symbol, status, name, detail) [symbol] = {status, name, detail},
    API_PROBLEMS(REFUSAL)
#undef REFUSAL
};

const struct api_refusal *api_refusal_of(enum api_problem problem)
{
    return &refusals[problem];
}

static bool is_token(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* ---- where it ends ---- */

ssize_t api_head_find(struct slice text, size_t *scanned)
{
    const char *end = text.data + text.len, *at = text.data + *scanned;

    if (text.len && !is_token(*text.data))
        return -1; /* TLS, or something else altogether: waiting for its end would be vain */
    for (const char *line; (line = memchr(at, '\n', (size_t)(end - at))); at = line + 1) {
        if (line == text.data || line[-1] != '\r')
            return -1;
        if (line - text.data >= 3 && line[-2] == '\n')
            return line + 1 - text.data;
    }
    *scanned = text.len;
    return 0;
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
    }
}

static enum api_problem read_target(struct slice target, struct api_head *head, struct slice *authority)
{
    for (size_t i = 0; i < target.len; i++)
        if (target.data[i] <= ' ' || target.data[i] > '~' || target.data[i] == '#')
            return HEAD_TARGET;
    split_absolute(&target, authority);
    const char *mark = target.len ? memchr(target.data, '?', target.len) : NULL;
    size_t len = mark ? (size_t)(mark - target.data) : target.len;
    head->path = len ? slice_from(target.data, len) : slice_text("/");
    head->query = mark ? slice_from(mark + 1, target.len - len - 1) : slice_text("");
    return HEAD_FINE;
}

static enum api_problem read_first_line(struct slice line, struct api_head *head, struct slice *authority)
{
    const char *end = line.data + line.len, *space = memchr(line.data, ' ', line.len);

    if (!space || space == line.data)
        return HEAD_MALFORMED;
    for (const char *c = line.data; c < space; c++)
        if (!is_token(*c))
            return HEAD_MALFORMED;
    head->method = read_method(slice_from(line.data, (size_t)(space - line.data)));
    const char *target = space + 1, *version = memchr(target, ' ', (size_t)(end - target));
    if (!version || version == target || end - version - 1 != 8 || memcmp(version + 1, "HTTP/", 5) != 0)
        return HEAD_MALFORMED;
    if (memcmp(version + 6, "1.1", 3) != 0 && memcmp(version + 6, "1.0", 3) != 0)
        return HEAD_VERSION;
    head->old = version[8] == '0';
    return read_target(slice_from(target, (size_t)(version - target)), head, authority);
}

/* ---- the fields ---- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* One line, with the \r behind it. */
static enum api_problem read_field(char *line, char *end, struct api_head *head)
{
    char *colon = line, *value;

    if (head->field_count == API_FIELDS_MAX)
        return HEAD_FIELDS;
    while (colon < end && is_token(*colon))
        colon++;
    if (colon == line || colon == end || *colon != ':')
        return HEAD_LINE;
    for (value = colon + 1; value < end && is_space(*value); value++)
        ;
    while (end > value && is_space(end[-1]))
        end--;
    for (const char *c = value; c < end; c++)
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f)
            return HEAD_CONTROL;
    *colon = *end = '\0';
    head->fields[head->field_count++] = (struct api_field){.name = line, .value = value};
    return HEAD_FINE;
}

const char *api_head_field(const struct api_head *head, const char *name)
{
    for (size_t i = 0; i < head->field_count; i++)
        if (strcasecmp(head->fields[i].name, name) == 0)
            return head->fields[i].value;
    return NULL;
}

static bool comes_twice(const struct api_head *head, const char *name)
{
    size_t count = 0;

    for (size_t i = 0; i < head->field_count; i++)
        count += strcasecmp(head->fields[i].name, name) == 0;
    return count > 1;
}

/* Whether the list in a field (which may come in several) has this word. */
static bool lists(const struct api_head *head, const char *name, const char *word)
{
    size_t len = strlen(word);

    for (size_t i = 0; i < head->field_count; i++) {
        if (strcasecmp(head->fields[i].name, name) != 0)
            continue;
        for (const char *at = head->fields[i].value; *(at += strspn(at, ", \t")); at += strcspn(at, ", \t"))
            if (strcspn(at, ", \t") == len && strncasecmp(at, word, len) == 0)
                return true;
    }
    return false;
}

/* ---- what the fields say ---- */

static enum api_problem read_length(struct api_head *head)
{
    const char *length = api_head_field(head, "Content-Length");
    const char *coding = api_head_field(head, "Transfer-Encoding");

    if (coding) {
        /* With both, somebody before us may have believed the other one. */
        if (length)
            return HEAD_TWO_LENGTHS;
        if (head->old)
            return HEAD_OLD_CODING;
        if (strcasecmp(coding, "chunked") != 0)
            return HEAD_CODING;
        head->chunked = true;
        return HEAD_FINE;
    }
    if (!length)
        return HEAD_FINE;
    size_t digits = strspn(length, "0123456789");
    if (!digits || length[digits])
        return HEAD_LENGTH;
    head->has_length = true;
    for (; *length; length++) {
        if (head->length > UINT64_MAX / 100)
            return HEAD_LARGE;
        head->length = head->length * 10 + (uint64_t)(*length - '0');
    }
    return HEAD_FINE;
}

static enum api_problem read_host(struct api_head *head, struct slice authority)
{
    head->host = api_head_field(head, "Host");
    if (!head->host && !head->old)
        return HEAD_NO_HOST;
    for (const char *c = head->host; c && *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr(".-_~:[]%", *c))
            return HEAD_HOST;
    if (authority.data && (!head->host || strlen(head->host) != authority.len ||
                           strncasecmp(head->host, authority.data, authority.len) != 0))
        return HEAD_TWO_HOSTS;
    return HEAD_FINE;
}

static enum api_problem read_meaning(struct api_head *head, struct slice authority)
{
    static const char *const alone[] = {
        "Host",         "Content-Length", "Transfer-Encoding", "Authorization",
        "Content-Type", "Expect",         "Idempotency-Key",   "Origin"};
    enum api_problem problem;

    for (size_t i = 0; i < sizeof alone / sizeof *alone; i++)
        if (comes_twice(head, alone[i]))
            return HEAD_TWICE;
    if ((problem = read_length(head)) || (problem = read_host(head, authority)))
        return problem;
    const char *expect = api_head_field(head, "Expect");
    if (expect && strcasecmp(expect, "100-continue") != 0)
        return HEAD_EXPECT;
    head->expects_continue = expect && !head->old;
    head->close = head->old || lists(head, "Connection", "close");
    return HEAD_FINE;
}

enum api_problem api_head_parse(char *text, size_t len, struct api_head *head)
{
    char *end = text + len - 2; /* the empty line */
    struct slice authority = {0};
    enum api_problem problem;

    *head = (struct api_head){.method = METHOD_OTHER, .path = slice_text(""), .query = slice_text("")};
    char *line = memchr(text, '\n', len);
    if ((problem = read_first_line(slice_from(text, (size_t)(line - 1 - text)), head, &authority)))
        return problem;
    for (line++; line < end;) {
        char *next = memchr(line, '\n', (size_t)(text + len - line));
        if ((problem = read_field(line, next - 1, head)))
            return problem;
        line = next + 1;
    }
    return read_meaning(head, authority);
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
