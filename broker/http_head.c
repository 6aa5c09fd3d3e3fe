#include "broker/http_head.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

static bool refuse(struct http_problem *problem, unsigned status, const char *text)
{
    *problem = (struct http_problem){status, text};
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* tchar: RFC 9110 section 5.6.2. */
static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!is_token_char(text.data[i]))
            return false;
    return text.len > 0;
}

/* ---- the end of the head ---- */

/* Control characters have no place in a head, and a line ends with CR LF and nothing else. */
static const char *check_byte(const char *data, size_t at)
{
    unsigned char c = (unsigned char)data[at];

    if (at > 0 && data[at - 1] == '\r' && c != '\n')
        return "a carriage return stands alone";
    if (c == '\n')
        return at > 0 && data[at - 1] == '\r' ? NULL : "lines of a request end with CR LF";
    if ((c < ' ' && c != '\t' && c != '\r') || c == 0x7f)
        return "a control character in the request's head";
    return NULL;
}

enum http_head_result http_head_find_end(struct slice input, size_t limit, size_t *seen,
                                         struct http_problem *problem)
{
    const char *data = input.data;
    size_t end = input.len < limit ? input.len : limit;

    for (; *seen < end; ++*seen) {
        const char *wrong = check_byte(data, *seen);
        if (wrong) {
            refuse(problem, 400, wrong);
            return HTTP_HEAD_BAD;
        }
        if (*seen >= 3 && memcmp(data + *seen - 3, "\r\n\r\n", 4) == 0) {
            ++*seen;
            return HTTP_HEAD_WHOLE;
        }
    }
    if (end > HTTP_TARGET_MAX + 64 && !memchr(data, '\n', HTTP_TARGET_MAX + 64)) {
        refuse(problem, 414, "the first line of the request is too long");
        return HTTP_HEAD_BAD;
    }
    if (input.len < limit)
        return HTTP_HEAD_INCOMPLETE;
    refuse(problem, 431, "the head of the request is too long");
    return HTTP_HEAD_BAD;
}

/* ---- the first line ---- */

static bool parse_version(struct slice text, struct http_head *head, struct http_problem *problem)
{
    if (text.len != 8 || memcmp(text.data, "HTTP/", 5) != 0 || !is_digit(text.data[5]) || text.data[6] != '.' ||
        !is_digit(text.data[7]))
        return refuse(problem, 400, "the first line of a request is METHOD TARGET HTTP/1.1");
    if (text.data[5] != '1')
        return refuse(problem, 505, "HTTP/1.1 is spoken here");
    head->minor_version = (unsigned)(text.data[7] - '0');
    return true;
}

static bool parse_first_line(struct slice line, struct http_head *head, struct http_problem *problem)
{
    const char *end = line.data + line.len;
    const char *first = memchr(line.data, ' ', line.len);
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;

    if (!second || memchr(second + 1, ' ', (size_t)(end - second - 1)) || memchr(line.data, '\t', line.len))
        return refuse(problem, 400, "the first line of a request is METHOD TARGET HTTP/1.1");
    head->method = slice_from(line.data, (size_t)(first - line.data));
    head->target = slice_from(first + 1, (size_t)(second - first - 1));
    if (!is_token(head->method) || !head->target.len)
        return refuse(problem, 400, "the first line of a request is METHOD TARGET HTTP/1.1");
    if (head->target.len > HTTP_TARGET_MAX)
        return refuse(problem, 414, "the first line of the request is too long");
    return parse_version(slice_from(second + 1, (size_t)(end - second - 1)), head, problem);
}

/* ---- fields ---- */

static struct slice trim(struct slice text)
{
    while (text.len && (*text.data == ' ' || *text.data == '\t'))
        text = slice_from(text.data + 1, text.len - 1);
    while (text.len && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
        text.len--;
    return text;
}

static bool parse_field(struct slice line, struct http_head *head, struct http_problem *problem)
{
    const char *colon = memchr(line.data, ':', line.len);
    size_t name_len = colon ? (size_t)(colon - line.data) : 0;

    if (line.data[0] == ' ' || line.data[0] == '\t')
        return refuse(problem, 400, "a header is continued on the next line");
    if (!is_token(slice_from(line.data, name_len)))
        return refuse(problem, 400, "a header is NAME: VALUE, without a space before the colon");
    if (head->field_count == HTTP_FIELDS_MAX)
        return refuse(problem, 431, "the request has too many headers");
    head->fields[head->field_count++] = (struct http_field){
        .name = slice_from(line.data, name_len),
        .value = trim(slice_from(colon + 1, line.len - name_len - 1)),
    };
    return true;
}

static bool name_is(struct slice name, const char *text)
{
    return name.len == strlen(text) && strncasecmp(name.data, text, name.len) == 0;
}

struct slice http_head_field(const struct http_head *head, const char *name, bool *repeated)
{
    struct slice found = {NULL, 0};

    *repeated = false;
    for (size_t i = 0; i < head->field_count; i++) {
        if (!name_is(head->fields[i].name, name))
            continue;
        *repeated = *repeated || found.data;
        found = head->fields[i].value;
    }
    return found;
}

bool http_head_next_member(const struct http_head *head, const char *name, struct http_list_cursor *cursor,
                           struct slice *member)
{
    for (; cursor->field < head->field_count; cursor->field++, cursor->offset = 0) {
        struct slice value = head->fields[cursor->field].value;
        if (!name_is(head->fields[cursor->field].name, name))
            continue;
        while (cursor->offset < value.len) {
            const char *start = value.data + cursor->offset;
            size_t left = value.len - cursor->offset;
            const char *comma = memchr(start, ',', left);
            size_t len = comma ? (size_t)(comma - start) : left;
            cursor->offset += len + (comma ? 1 : 0);
            *member = trim(slice_from(start, len));
            if (member->len)
                return true;
        }
    }
    return false;
}

bool http_head_lists(const struct http_head *head, const char *name, const char *token)
{
    struct http_list_cursor cursor = {0};
    struct slice member;

    while (http_head_next_member(head, name, &cursor, &member))
        if (name_is(member, token))
            return true;
    return false;
}

/* ---- what every request must keep ---- */

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* A name or an IPv4 address; returns its length. */
static size_t name_len(struct slice text)
{
    size_t at = 0;

    while (at < text.len) {
        char c = text.data[at];
        bool escaped = c == '%' && text.len - at > 2 && is_hex(text.data[at + 1]) && is_hex(text.data[at + 2]);
        bool plain = is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-._~!$&'()*+,;=", c);
        if (!c || (!plain && !escaped))
            break;
        at += escaped ? 3 : 1;
    }
    return at;
}

/* An IPv6 address in brackets; returns its length, 0 when it is none. */
static size_t literal_len(struct slice text)
{
    const char *end = memchr(text.data, ']', text.len);
    size_t len = end ? (size_t)(end - text.data) : 0;

    for (size_t i = 1; i < len; i++)
        if (!is_hex(text.data[i]) && text.data[i] != ':' && text.data[i] != '.')
            return 0;
    return len > 2 ? len + 1 : 0;
}

/* A host, and perhaps a port: RFC 3986 section 3.2. */
bool http_is_host(struct slice host)
{
    size_t len = host.len && host.data[0] == '[' ? literal_len(host) : name_len(host);
    unsigned port = 0;

    if (!len || (len < host.len && host.data[len] != ':'))
        return false;
    for (size_t i = len + 1; i < host.len; i++) {
        if (!is_digit(host.data[i]) || port > UINT16_MAX)
            return false;
        port = port * 10 + (unsigned)(host.data[i] - '0');
    }
    return port <= UINT16_MAX;
}

static bool check_host(const struct http_head *head, struct http_problem *problem)
{
    bool repeated;
    struct slice host = http_head_field(head, "host", &repeated);

    if (repeated)
        return refuse(problem, 400, "the request has several Host headers");
    /* HTTP/1.0 has none. */
    if (!host.data)
        return head->minor_version == 0 || refuse(problem, 400, "the request has no Host header");
    return http_is_host(host) || refuse(problem, 400, "the Host header names no host");
}

/* A length that two readers may read differently is nobody's length. */
static bool check_body(struct http_head *head, struct http_problem *problem)
{
    bool repeated;
    struct slice length = http_head_field(head, "content-length", &repeated);

    if (repeated)
        return refuse(problem, 400, "the request has several Content-Length headers");
    bool encoded = http_head_field(head, "transfer-encoding", &repeated).data != NULL;
    if (encoded && length.data)
        return refuse(problem, 400, "the request has both Content-Length and Transfer-Encoding");
    head->has_body = encoded || (length.data && !slice_is(length, "0"));
    return true;
}

bool http_head_parse(struct slice input, struct http_head *head, struct http_problem *problem)
{
    const char *at = input.data;
    const char *end = input.data + input.len;
    bool first = true;

    *problem = (struct http_problem){0};
    head->field_count = 0;
    for (const char *newline; at < end && (newline = memchr(at, '\n', (size_t)(end - at))); at = newline + 1) {
        struct slice line = slice_from(at, (size_t)(newline - at));
        if (!line.len || line.data[line.len - 1] != '\r')
            return refuse(problem, 400, "lines of a request end with CR LF");
        line.len--;
        if (!line.len) {
            if (first)
                return refuse(problem, 400, "the first line of a request is METHOD TARGET HTTP/1.1");
            head->len = (size_t)(newline + 1 - input.data);
            return check_host(head, problem) && check_body(head, problem);
        }
        if (!(first ? parse_first_line(line, head, problem) : parse_field(line, head, problem)))
            return false;
        first = false;
    }
    return refuse(problem, 400, "the request is not complete");
}
