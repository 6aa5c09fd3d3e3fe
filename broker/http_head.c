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

static bool check_field(struct slice line, struct http_problem *problem)
{
    const char *colon = memchr(line.data, ':', line.len);

    if (line.data[0] == ' ' || line.data[0] == '\t')
        return refuse(problem, 400, "a header is continued on the next line");
    if (!is_token(slice_from(line.data, colon ? (size_t)(colon - line.data) : 0)))
        return refuse(problem, 400, "a header is NAME: VALUE, without a space before the colon");
    return true;
}

bool http_head_next(struct slice *rest, struct http_field *field)
{
    const char *newline = rest->len ? memchr(rest->data, '\n', rest->len) : NULL;

    if (!newline)
        return false;
    struct slice line = slice_from(rest->data, (size_t)(newline - rest->data) - 1);
    size_t name_len = (size_t)((const char *)memchr(line.data, ':', line.len) - line.data);
    field->name = slice_from(line.data, name_len);
    field->value = trim(slice_from(line.data + name_len + 1, line.len - name_len - 1));
    *rest = slice_from(newline + 1, rest->len - (size_t)(newline + 1 - rest->data));
    return true;
}

static bool name_is(struct slice name, const char *text)
{
    return name.len == strlen(text) && strncasecmp(name.data, text, name.len) == 0;
}

struct slice http_head_field(const struct http_head *head, const char *name, bool *repeated)
{
    struct slice found = {NULL, 0};
    struct slice rest = head->fields;
    struct http_field field;

    *repeated = false;
    while (http_head_next(&rest, &field)) {
        if (!name_is(field.name, name))
            continue;
        *repeated = *repeated || found.data;
        found = field.value;
    }
    return found;
}

/* Takes the next member off the rest of a list; empty between two commas. */
static struct slice take_member(struct slice *list)
{
    const char *comma = memchr(list->data, ',', list->len);
    size_t len = comma ? (size_t)(comma - list->data) : list->len;
    size_t taken = len + (comma ? 1 : 0);
    struct slice member = trim(slice_from(list->data, len));

    *list = slice_from(list->data + taken, list->len - taken);
    return member;
}

bool http_head_next_member(const struct http_head *head, const char *name, struct http_list_cursor *cursor,
                           struct slice *member)
{
    struct http_field field;

    if (!cursor->begun)
        *cursor = (struct http_list_cursor){.fields = head->fields, .begun = true};
    for (;;) {
        while (cursor->value.len) {
            *member = take_member(&cursor->value);
            if (member->len)
                return true;
        }
        if (!http_head_next(&cursor->fields, &field))
            return false;
        if (name_is(field.name, name))
            cursor->value = field.value;
    }
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
    const char *fields = NULL;

    *problem = (struct http_problem){0};
    for (const char *newline; at < end && (newline = memchr(at, '\n', (size_t)(end - at))); at = newline + 1) {
        struct slice line = slice_from(at, (size_t)(newline - at));
        if (!line.len || line.data[line.len - 1] != '\r')
            return refuse(problem, 400, "lines of a request end with CR LF");
        line.len--;
        if (fields && !line.len) {
            head->fields = slice_from(fields, (size_t)(at - fields));
            head->len = (size_t)(newline + 1 - input.data);
            return check_host(head, problem) && check_body(head, problem);
        }
        if (!(fields ? check_field(line, problem) : parse_first_line(line, head, problem)))
            return false;
        fields = fields ? fields : newline + 1;
    }
    return refuse(problem, 400, "the request is not complete");
}
