/* What HTTP callers say, as the API reads it: paths, queries, quantities, payloads, cursors, credentials. */
#include "base/utf8.h"
#include "broker/api_parse.h"
#include "fuzz.h"
#include "proto/errors.h"

#include <jansson.h>
#include <string.h>

static void try_path(struct slice path)
{
    static const char *const patterns[] = {"/healthz", "/v1/sessions/{name}", "/v1/topics/{topic}/presence"};
    char param[API_PARAM_MAX + 1];
    struct slice value;

    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        enum api_match match = api_path_match(patterns[i], path, param, &value);
        if (match != API_MATCH)
            continue;
        fuzz_require(value.len <= API_PARAM_MAX && param[value.len] == '\0');
        fuzz_require(!value.len || (value.data == param && strchr(patterns[i], '{')));
    }
}

static void try_query(struct slice text)
{
    struct api_query query;
    uint64_t number;
    bool flag;

    int error = api_query_parse(&query, text, "a b limit since");
    fuzz_require((error != 0) == (query.problem[0] != '\0'));
    fuzz_require(utf8_valid(query.problem, strlen(query.problem)));
    for (size_t i = 0; i < query.count; i++) {
        struct slice value = query.pairs[i].value;
        fuzz_require(value.len <= text.len);
        fuzz_require(error || api_query_find(&query, "a") || !slice_is(query.pairs[i].name, "a"));
        if (api_read_number(value, &number))
            fuzz_require(value.len && number <= UINT64_C(999999999999999999));
        if (api_read_duration(value, &number))
            fuzz_require(number <= INT64_MAX);
        (void)!api_read_bool(value, &flag);
    }
    api_query_close(&query);
}

static void try_payload(const char *type, struct slice body)
{
    struct api_payload payload;

    if (api_payload_read(type, body, &payload))
        return;
    fuzz_require(payload.content < CONTENT_COUNT);
    if (payload.content != CONTENT_BINARY)
        fuzz_require(!payload.bytes.len || utf8_valid(payload.bytes.data, payload.bytes.len));
    if (payload.content == CONTENT_JSON) {
        json_t *value =
            json_loadb(payload.bytes.data, payload.bytes.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        fuzz_require(value != NULL);
        json_decref(value);
    }
    api_payload_close(&payload);
}

static void try_hex(struct slice text)
{
    struct buffer bytes, again;

    buffer_init(&bytes, 0);
    buffer_init(&again, 0);
    if (api_hex_read(text, &bytes)) {
        fuzz_require(api_hex_append(slice_from(bytes.data, bytes.len), &again));
        fuzz_require(again.len == text.len);
    }
    buffer_close(&bytes);
    buffer_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = {NULL, "text/plain", "application/json; charset=utf-8", "x/y+json",
                                        "image/png"};
    static const char token[] = "a-token-of-16-by";
    struct slice text = slice_from(data, size);
    char line[512];

    try_path(text);
    try_query(text);
    try_hex(text);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        try_payload(types[i], text);
    if (size < sizeof line) {
        if (size)
            memcpy(line, data, size);
        line[size] = '\0';
        fuzz_require(!api_token_matches(line, token) || strstr(line, token));
        try_payload(line, text);
    }
    return 0;
}
