#include "broker/api_parse.h"

#include "base/alloc.h"
#include "base/utf8.h"
#include "proto/errors.h"
#include "proto/mp.h"

#include <ctype.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- escapes ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that two hexadecimal digits are; negative when they are none. */
static int hex_byte(const char *text)
{
    int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);

    return low < 0 ? -1 : high * 16 + low;
}

bool api_percent_decode(struct slice text, bool plus, char *out, size_t size, size_t *len)
{
    size_t count = 0;

    for (size_t i = 0; i < text.len; i++) {
        int byte = (unsigned char)text.data[i];
        if (byte == '%') {
            byte = text.len - i > 2 ? hex_byte(text.data + i + 1) : -1;
            i += 2;
        } else if (byte == '+' && plus) {
            byte = ' ';
        }
        if (byte < 0 || count == size)
            return false;
        out[count++] = (char)byte;
    }
    *len = count;
    return true;
}

bool api_hex_append(struct slice bytes, struct buffer *out)
{
    for (size_t i = 0; i < bytes.len; i++)
        buffer_printf(out, "%02x", (unsigned char)bytes.data[i]);
    return !out->failed;
}

bool api_hex_read(struct slice text, struct buffer *out)
{
    for (size_t i = 0; i + 1 < text.len; i += 2) {
        int byte = hex_byte(text.data + i);
        char c = (char)byte;
        if (byte < 0 || !buffer_append(out, &c, 1))
            return false;
    }
    return text.len % 2 == 0;
}

/* ---- paths ---- */

enum api_match api_path_match(const char *pattern, struct slice path, char param[static API_PARAM_MAX + 1],
                              struct slice *value)
{
    const char *brace = strchr(pattern, '{');
    size_t before = brace ? (size_t)(brace - pattern) : strlen(pattern);
    const char *after = brace ? strchr(brace, '}') + 1 : "";
    size_t len = 0, after_len = strlen(after);

    *value = slice_from(param, 0);
    param[0] = '\0';
    if (path.len < before + after_len || memcmp(path.data, pattern, before) != 0)
        return API_NO_MATCH;
    struct slice raw = slice_from(path.data + before, path.len - before - after_len);
    if (memcmp(raw.data + raw.len, after, after_len) != 0)
        return API_NO_MATCH;
    if (!brace)
        return raw.len ? API_NO_MATCH : API_MATCH;
    if (!raw.len || memchr(raw.data, '/', raw.len))
        return API_NO_MATCH;
    if (!api_percent_decode(raw, false, param, API_PARAM_MAX, &len))
        return API_BAD_PARAM;
    param[len] = '\0';
    *value = slice_from(param, len);
    return API_MATCH;
}

/* ---- queries ---- */

static bool is_known(const char *known, struct slice name)
{
    while (*known) {
        size_t len = strcspn(known, " ");
        if (slice_equal(slice_from(known, len), name))
            return true;
        known += len + (known[len] == ' ');
    }
    return false;
}

static int refuse(struct api_query *query, struct slice name, const char *what)
{
    bool shown = name.len && utf8_valid(name.data, name.len);

    for (size_t i = 0; i < name.len; i++)
        shown = shown && (unsigned char)name.data[i] >= ' ';
    if (shown && name.len <= 32)
        snprintf(query->problem, sizeof query->problem, "query parameter \"%.*s\" %s", (int)name.len,
                 name.data, what);
    else
        snprintf(query->problem, sizeof query->problem, "a query parameter %s", what);
    return ERROR_BAD_REQUEST;
}

static int add_pair(struct api_query *query, struct slice part, size_t *used, size_t size, const char *known)
{
    const char *equals = memchr(part.data, '=', part.len);
    size_t name_len = equals ? (size_t)(equals - part.data) : part.len, len;
    struct slice text[2] = {slice_from(part.data, name_len), slice_from(part.data + part.len, 0)};

    if (equals)
        text[1] = slice_from(equals + 1, part.len - name_len - 1);
    for (int i = 0; i < 2; i++) {
        if (!api_percent_decode(text[i], true, query->text + *used, size - *used, &len))
            return refuse(query, slice_from(NULL, 0), "has a broken escape");
        text[i] = slice_from(query->text + *used, len);
        *used += len;
    }
    if (!is_known(known, text[0]))
        return refuse(query, text[0], "is unknown here");
    for (size_t i = 0; i < query->count; i++)
        if (slice_equal(query->pairs[i].name, text[0]))
            return refuse(query, text[0], "came twice");
    if (query->count == API_QUERY_MAX)
        return refuse(query, text[0], "is one too many");
    query->pairs[query->count++] = (struct api_query_pair){text[0], text[1]};
    return ERROR_NONE;
}

int api_query_parse(struct api_query *query, struct slice text, const char *known)
{
    size_t used = 0, at = 0;

    *query = (struct api_query){0};
    if (!text.len || !known)
        return ERROR_NONE;
    query->text = mem_alloc(text.len);
    if (!query->text) {
        snprintf(query->problem, sizeof query->problem, "%s", error_find(ERROR_NO_MEMORY)->text);
        return ERROR_NO_MEMORY;
    }
    while (at < text.len) {
        const char *end = memchr(text.data + at, '&', text.len - at);
        size_t len = end ? (size_t)(end - text.data) - at : text.len - at;
        int error =
            len ? add_pair(query, slice_from(text.data + at, len), &used, text.len, known) : ERROR_NONE;
        if (error)
            return error;
        at += len + 1;
    }
    return ERROR_NONE;
}

void api_query_close(struct api_query *query)
{
    mem_free(query->text);
    *query = (struct api_query){0};
}

const struct slice *api_query_find(const struct api_query *query, const char *name)
{
    for (size_t i = 0; i < query->count; i++)
        if (slice_is(query->pairs[i].name, name))
            return &query->pairs[i].value;
    return NULL;
}

/* ---- values ---- */

static size_t digits(struct slice text)
{
    size_t count = 0;

    while (count < text.len && isdigit((unsigned char)text.data[count]))
        count++;
    return count;
}

bool api_read_number(struct slice text, uint64_t *number)
{
    enum { DIGITS_MAX = 18 };

    if (!text.len || text.len > DIGITS_MAX || digits(text) != text.len)
        return false;
    *number = 0;
    for (size_t i = 0; i < text.len; i++)
        *number = *number * 10 + (uint64_t)(text.data[i] - '0');
    return true;
}

bool api_read_duration(struct slice text, uint64_t *ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}};
    size_t count = digits(text);
    uint64_t number;

    if (!api_read_number(slice_from(text.data, count), &number))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!slice_is(slice_from(text.data + count, text.len - count), units[i].name))
            continue;
        if (number > (uint64_t)INT64_MAX / units[i].ms)
            return false;
        *ms = number * units[i].ms;
        return true;
    }
    return false;
}

bool api_read_bool(struct slice text, bool *value)
{
    *value = !text.len || slice_is(text, "true") || slice_is(text, "1") || slice_is(text, "yes");
    return *value || slice_is(text, "false") || slice_is(text, "0") || slice_is(text, "no");
}

/* ---- payloads ---- */

static bool is_shallow(json_t *value, unsigned depth)
{
    const char *key;
    json_t *inner;
    size_t i;

    if ((json_is_object(value) || json_is_array(value)) && depth == 0)
        return false;
    json_object_foreach(value, key, inner)
    {
        if (!is_shallow(inner, depth - 1))
            return false;
    }
    json_array_foreach(value, i, inner)
    {
        if (!is_shallow(inner, depth - 1))
            return false;
    }
    return true;
}

/* Keeps the value as it was written, less the space between tokens: 1.10 stays 1.10. */
static char *compact(struct slice json, size_t *len)
{
    char *text = mem_alloc(json.len);
    bool quoted = false;

    *len = 0;
    for (size_t i = 0; text && i < json.len; i++) {
        char c = json.data[i];
        if (!quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n'))
            continue;
        text[(*len)++] = c;
        if (c == '"')
            quoted = !quoted;
        else if (c == '\\' && quoted)
            text[(*len)++] = json.data[++i];
    }
    return text;
}

static int refuse_payload(struct api_payload *payload, const char *problem)
{
    payload->problem = problem;
    return ERROR_BAD_REQUEST;
}

static int read_json(struct slice body, struct api_payload *payload)
{
    size_t len;
    json_t *value = json_loadb(body.data ? body.data : "", body.len,
                               JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    bool shallow = value && is_shallow(value, MP_DEPTH_MAX - 1);

    json_decref(value);
    if (!shallow)
        return refuse_payload(payload, value ? "the body is nested too deeply" : "the body is not JSON");
    payload->owned = compact(body, &len);
    if (!payload->owned)
        return ERROR_NO_MEMORY;
    payload->content = CONTENT_JSON;
    payload->bytes = slice_from(payload->owned, len);
    return ERROR_NONE;
}

static bool type_is(struct slice type, const char *wanted)
{
    return type.len == strlen(wanted) && strncasecmp(type.data, wanted, type.len) == 0;
}

static bool type_ends(struct slice type, const char *end)
{
    size_t len = strlen(end);

    return type.len > len && strncasecmp(type.data + type.len - len, end, len) == 0;
}

int api_payload_read(const char *content_type, struct slice body, struct api_payload *payload)
{
    const char *start = content_type ? content_type + strspn(content_type, " \t") : "";
    struct slice type = slice_from(start, strcspn(start, "; \t"));
    bool is_utf8 = !body.len || utf8_valid(body.data, body.len);
    bool is_text = type.len > 5 && strncasecmp(type.data, "text/", 5) == 0;

    *payload = (struct api_payload){.content = CONTENT_BINARY, .bytes = body};
    if (type_is(type, "application/json") || type_ends(type, "+json"))
        return read_json(body, payload);
    if (is_text && !is_utf8)
        return refuse_payload(payload, "the body is not UTF-8, which text must be");
    if (is_text || (is_utf8 && (!type.len || type_is(type, "application/x-www-form-urlencoded"))))
        payload->content = CONTENT_TEXT;
    return ERROR_NONE;
}

void api_payload_close(struct api_payload *payload)
{
    mem_free(payload->owned);
    *payload = (struct api_payload){0};
}

/* ---- credentials ---- */

bool api_token_matches(const char *authorization, const char *token)
{
    static const char scheme[] = "Bearer ";
    size_t scheme_len = sizeof scheme - 1, len = strlen(token);

    if (!authorization || strncasecmp(authorization, scheme, scheme_len) != 0)
        return false;
    const char *given = authorization + scheme_len + strspn(authorization + scheme_len, " ");
    return strlen(given) == len && CRYPTO_memcmp(given, token, len) == 0;
}
