/* What the API reads from HTTP requests. */
#include "broker/api_parse.h"
#include "proto/errors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect_match(const char *pattern, const char *path, enum api_match wanted, const char *value)
{
    char param[API_PARAM_MAX + 1];
    struct slice found;
    enum api_match match = api_path_match(pattern, slice_text(path), param, &found);

    if (match != wanted)
        fail_msg("%s on %s: %d", path, pattern, (int)match);
    if (match == API_MATCH)
        assert_true(slice_is(found, value));
}

static void paths(void **state)
{
    char long_path[API_PARAM_MAX + 8] = "/a/";

    (void)state;
    expect_match("/healthz", "/healthz", API_MATCH, "");
    expect_match("/healthz", "/healthz/", API_NO_MATCH, "");
    expect_match("/healthz", "/health", API_NO_MATCH, "");
    expect_match("/healthz", "", API_NO_MATCH, "");
    expect_match("/a/{x}", "/a/b", API_MATCH, "b");
    expect_match("/a/{x}", "/a/%2f%C3%BC+%25", API_MATCH, "/\xc3\xbc+%");
    expect_match("/a/{x}", "/a/", API_NO_MATCH, "");
    expect_match("/a/{x}", "/a/b/c", API_NO_MATCH, "");
    expect_match("/a/{x}", "/A/b", API_NO_MATCH, "");
    expect_match("/a/{x}/c", "/a/b/c", API_MATCH, "b");
    expect_match("/a/{x}/c", "/a/c", API_NO_MATCH, "");
    expect_match("/a/{x}/c", "/a//c", API_NO_MATCH, "");
    expect_match("/a/{x}/c", "/a/b/d", API_NO_MATCH, "");
    expect_match("/a/{x}", "/a/%", API_BAD_PARAM, "");
    expect_match("/a/{x}", "/a/%4", API_BAD_PARAM, "");
    expect_match("/a/{x}", "/a/%g0", API_BAD_PARAM, "");
    memset(long_path + 3, 'x', API_PARAM_MAX);
    expect_match("/a/{x}", long_path, API_MATCH, long_path + 3);
    long_path[3 + API_PARAM_MAX] = 'x';
    long_path[4 + API_PARAM_MAX] = '\0';
    expect_match("/a/{x}", long_path, API_BAD_PARAM, "");
}

static void expect_parameter(const struct api_query *query, const char *name, const char *value)
{
    const struct slice *found = api_query_find(query, name);

    if (!value) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_true(slice_is(*found, value));
}

static void queries(void **state)
{
    struct api_query query;

    (void)state;
    assert_int_equal(api_query_parse(&query, slice_text("a=1&b=x%20y+z&c&d=%3D%26&"), "a b c d e"),
                     ERROR_NONE);
    expect_parameter(&query, "a", "1");
    expect_parameter(&query, "b", "x y z");
    expect_parameter(&query, "c", "");
    expect_parameter(&query, "d", "=&");
    expect_parameter(&query, "e", NULL);
    api_query_close(&query);
    assert_int_equal(api_query_parse(&query, slice_text("what=ever&what=%zz"), NULL), ERROR_NONE);
    expect_parameter(&query, "what", NULL);
    api_query_close(&query);
}

static void queries_that_are_refused(void **state)
{
    static const char *const cases[][2] = {
        {"f=1", "query parameter \"f\" is unknown here"},
        {"a=1&a=2", "query parameter \"a\" came twice"},
        {"a=%4", "a query parameter has a broken escape"},
        {"=1", "a query parameter is unknown here"},
        {"%0a=1", "a query parameter is unknown here"},
        {"%ff=1", "a query parameter is unknown here"},
        {"a&b&c&d&e&g&h&i&j", "query parameter \"j\" is one too many"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_query query;
        assert_int_equal(api_query_parse(&query, slice_text(cases[i][0]), "a b c d e g h i j"),
                         ERROR_BAD_REQUEST);
        assert_string_equal(query.problem, cases[i][1]);
        api_query_close(&query);
    }
}

static void quantities(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t ms;
    } durations[] = {{"0", true, 0},
                     {"250", true, 250},
                     {"250ms", true, 250},
                     {"5s", true, 5000},
                     {"2m", true, 120000},
                     {"1h", true, 3600000},
                     {"", false, 0},
                     {"s", false, 0},
                     {"-1", false, 0},
                     {"5 s", false, 0},
                     {"5d", false, 0},
                     {"1.5s", false, 0},
                     {"5S", false, 0},
                     {"1234567890123456789", false, 0},
                     {"999999999999999999h", false, 0}};
    uint64_t number;
    bool flag;

    (void)state;
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        bool good = api_read_duration(slice_text(durations[i].text), &number);
        if (good != durations[i].good || (good && number != durations[i].ms))
            fail_msg("%s", durations[i].text);
    }
    assert_true(api_read_number(slice_text("007"), &number) && number == 7);
    assert_false(api_read_number(slice_text("+7"), &number));
    assert_false(api_read_number(slice_text("0x7"), &number));
    assert_true(api_read_bool(slice_text(""), &flag) && flag);
    assert_true(api_read_bool(slice_text("true"), &flag) && flag);
    assert_true(api_read_bool(slice_text("0"), &flag) && !flag);
    assert_false(api_read_bool(slice_text("TRUE"), &flag));
}

static void cursors(void **state)
{
    struct buffer hex, bytes;

    (void)state;
    buffer_init(&hex, 0);
    buffer_init(&bytes, 0);
    assert_true(api_hex_append(slice_from("\0a\xff", 3), &hex));
    assert_string_equal(buffer_text(&hex), "0061ff");
    assert_true(api_hex_read(slice_from(hex.data, hex.len), &bytes));
    assert_true(slice_equal(slice_from(bytes.data, bytes.len), slice_from("\0a\xff", 3)));
    assert_false(api_hex_read(slice_text("0"), &bytes));
    assert_false(api_hex_read(slice_text("0g"), &bytes));
    buffer_close(&hex);
    buffer_close(&bytes);
}

static void payloads(void **state)
{
    static const struct {
        const char *type, *body;
        enum message_content content; /* CONTENT_COUNT: refused */
        const char *payload;
    } cases[] = {
        {"text/plain", "h\xc3\xbc", CONTENT_TEXT, "h\xc3\xbc"},
        {"TEXT/HTML; charset=utf-8", "x", CONTENT_TEXT, "x"},
        {"text/plain", "\xff", CONTENT_COUNT, ""},
        {"application/json", " {\"a\" : [1, 2]} ", CONTENT_JSON, "{\"a\":[1,2]}"},
        {"Application/JSON;x=y", "\"t\"", CONTENT_JSON, "\"t\""},
        {"application/json", "[1.10, 1e3,\t\"a \\\" b\\\\\" ,\n\"c d\"]", CONTENT_JSON,
         "[1.10,1e3,\"a \\\" b\\\\\",\"c d\"]"},
        {"application/vnd.x+json", "null", CONTENT_JSON, "null"},
        {"application/json", "", CONTENT_COUNT, ""},
        {"application/json", "{\"a\":1,\"a\":2}", CONTENT_COUNT, ""},
        {"application/json", "1 2", CONTENT_COUNT, ""},
        {"application/jsonx", "x", CONTENT_BINARY, "x"},
        {"+json", "x", CONTENT_BINARY, "x"},
        {"image/png", "x", CONTENT_BINARY, "x"},
        {"text/", "x", CONTENT_BINARY, "x"},
        {"application/octet-stream", "", CONTENT_BINARY, ""},
        {"application/x-www-form-urlencoded", "a=1", CONTENT_TEXT, "a=1"},
        {"application/x-www-form-urlencoded", "\xff", CONTENT_BINARY, "\xff"},
        {NULL, "text", CONTENT_TEXT, "text"},
        {"", "\xfe", CONTENT_BINARY, "\xfe"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_payload payload;
        int wrong = api_payload_read(cases[i].type, slice_text(cases[i].body), &payload);
        if (wrong ? cases[i].content != CONTENT_COUNT
                  : payload.content != cases[i].content || !slice_is(payload.bytes, cases[i].payload))
            fail_msg("%s with %s: %s", cases[i].type, cases[i].body,
                     wrong ? payload.problem : "another payload");
        if (!wrong)
            api_payload_close(&payload);
    }
}

static void depth_is_bounded(void **state)
{
    (void)state;
    for (size_t depth = 30; depth <= 33; depth++) {
        struct api_payload payload;
        char text[80] = "";
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        int wrong = api_payload_read("application/json", slice_text(text), &payload);
        assert_int_equal(wrong == 0, depth <= 31);
        if (!wrong)
            api_payload_close(&payload);
    }
}

static void tokens(void **state)
{
    static const char token[] = "correct-horse";

    (void)state;
    assert_true(api_token_matches("Bearer correct-horse", token));
    assert_true(api_token_matches("bearer   correct-horse", token));
    assert_false(api_token_matches(NULL, token));
    assert_false(api_token_matches("", token));
    assert_false(api_token_matches("Bearer", token));
    assert_false(api_token_matches("Bearer ", token));
    assert_false(api_token_matches("correct-horse", token));
    assert_false(api_token_matches("Basic correct-horse", token));
    assert_false(api_token_matches("Bearer correct-hors", token));
    assert_false(api_token_matches("Bearer correct-horse ", token));
    assert_false(api_token_matches("Bearer correct-horsf", token));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(queries),
        cmocka_unit_test(queries_that_are_refused),
        cmocka_unit_test(quantities),
        cmocka_unit_test(cursors),
        cmocka_unit_test(payloads),
        cmocka_unit_test(tokens),
        cmocka_unit_test(depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
