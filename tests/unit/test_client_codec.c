/* The client's pure parts: the WebSocket codec, base64, JSON text, URLs, patterns, the reconnect delays. */
#include "client/backoff.h"
#include "client/json_text.h"
#include "client/pattern.h"
#include "client/url.h"
#include "client/ws_codec.h"
#include "proto/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- handshake ----------------------------------------------------------------------------------------- */

static const char key[] = "dGhlIHNhbXBsZSBub25jZQ=="; /* of RFC 6455 section 1.3, as is what must answer it */
static const char protocol[] = "switchboard.json.v1";

#define OPENED                                                                                               \
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"          \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: switchboard.json.v1\r\n"

static void the_accept_value_is_the_rfcs(void **state)
{
    char accept[WS_ACCEPT_SIZE];

    (void)state;
    ws_accept(key, accept);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

static void the_request_names_what_is_wanted(void **state)
{
    const struct ws_request request = {.host = "h:8000",
                                       .path = "/connect?user=a",
                                       .key = key,
                                       .subprotocol = protocol,
                                       .agent = "t",
                                       .token = "T"};
    struct buffer out;

    (void)state;
    buffer_init(&out, 0);
    assert_true(ws_write_request(&request, &out));
    const char *text = buffer_text(&out);
    assert_ptr_equal(strstr(text, "GET /connect?user=a HTTP/1.1\r\nHost: h:8000\r\n"), text);
    assert_non_null(strstr(text, "\r\nAuthorization: Bearer T\r\n"));
    assert_string_equal(text + out.len - 4, "\r\n\r\n");
    buffer_close(&out);
}

static void read_response(const char *text, struct ws_response *response)
{
    assert_true(ws_read_response(text, strlen(text), key, protocol, response));
}

static void a_response_is_read_once_it_is_whole(void **state)
{
    static const char whole[] = OPENED "\r\n";
    struct ws_response response;

    (void)state;
    for (size_t len = 0; len < sizeof whole - 1; len++)
        assert_false(ws_read_response(whole, len, key, protocol, &response));
    read_response(OPENED "\r\n\x81\x01x", &response);
    assert_null(response.problem);
    assert_int_equal(response.len, sizeof whole - 1);
}

static void a_wrong_response_is_refused(void **state)
{
    static const char *const wrong[] = {
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: "
        "switchboard.json.v1\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        "AAAALMBiTxaQ9kYGzzhZRbK+xOo="
        "\r\nSec-WebSocket-Protocol: switchboard.json.v1\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        "\r\n\r\n",
        OPENED "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    };
    struct ws_response response;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        read_response(wrong[i], &response);
        assert_non_null(response.problem);
    }
}

static void a_refusal_tells_status_and_wait(void **state)
{
    struct ws_response response;

    (void)state;
    read_response("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\n", &response);
    assert_int_equal(response.status, 503);
    assert_int_equal(response.retry_after, 7);
    assert_non_null(response.problem);
}

/* ---- frames -------------------------------------------------------------------------------------------- */

static size_t feed(struct ws_parser *parser, const char *bytes, size_t len, struct ws_event *event)
{
    return ws_parser_feed(parser, bytes, len, event);
}

#define FEED(parser, bytes, event) feed((parser), (bytes), sizeof(bytes) - 1, (event))

static void expect(const struct ws_event *event, int type, const char *data)
{
    assert_int_equal(event->type, type);
    assert_int_equal(event->len, strlen(data));
    assert_memory_equal(event->data, data, event->len);
}

static void messages_come_whole_with_pings_between(void **state)
{
    static const char bytes[] = "\x01\x02he\x89\x01p\x80\x03llo\x82\x00";
    struct ws_parser parser;
    struct ws_event event;

    (void)state;
    ws_parser_init(&parser, 100);
    size_t at = FEED(&parser, bytes, &event);
    expect(&event, WS_PINGED, "p");
    at += feed(&parser, bytes + at, sizeof bytes - 1 - at, &event);
    expect(&event, WS_MESSAGE, "hello");
    assert_int_equal(event.opcode, WS_TEXT);
    at += feed(&parser, bytes + at, sizeof bytes - 1 - at, &event);
    expect(&event, WS_MESSAGE, "");
    assert_int_equal(event.opcode, WS_BINARY);
    assert_int_equal(at, sizeof bytes - 1);
    ws_parser_close(&parser);
}

static void a_close_tells_code_and_reason(void **state)
{
    struct ws_parser parser;
    struct ws_event event;

    (void)state;
    ws_parser_init(&parser, 100);
    FEED(&parser, "\x88\x0a\x11\x95replaced", &event);
    expect(&event, WS_CLOSED, "replaced");
    assert_int_equal(event.code, 4501);
    ws_parser_close(&parser);
}

static void what_breaks_the_protocol_is_named(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        int code;
    } cases[] = {
        {"\x91\x00", 2, 1002},         /* a reserved bit */
        {"\x83\x00", 2, 1002},         /* an unknown type */
        {"\x81\x81wwww.", 7, 1002},    /* masked */
        {"\x80\x00", 2, 1002},         /* a continuation of nothing */
        {"\x01\x00\x81\x00", 4, 1002}, /* a message within another */
        {"\x09\x00", 2, 1002},         /* a fragmented ping */
        {"\x89\x7e\x00\x7e", 4, 1002}, /* a long ping */
        {"\x81\x7e\x00\x7d", 4, 1002}, /* a length not in its shortest form */
        {"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 10, 1002},
        {"\x81\x7f\xff\x00\x00\x00\x00\x00\x00\x00", 10, 1002},
        {"\x88\x01x", 3, 1002},            /* half a close code */
        {"\x88\x02\x03\xed", 4, 1002},     /* 1005 is never sent */
        {"\x88\x03\x03\xe8\xff", 5, 1007}, /* a reason that is not UTF-8 */
        {"\x81\x01\xff", 3, 1007},
        {"\x81\x65", 2, 1009}, /* 101 bytes */
        {"\x01\x33...................................................\x80\x32", 55, 1009},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ws_parser parser;
        struct ws_event event = {.type = WS_MORE};
        ws_parser_init(&parser, 100);
        for (size_t at = 0; at < cases[i].len && event.type == WS_MORE;)
            at += feed(&parser, cases[i].bytes + at, cases[i].len - at, &event);
        assert_int_equal(event.type, WS_BROKEN);
        assert_int_equal(event.code, cases[i].code);
        ws_parser_close(&parser);
    }
}

static void what_is_written_has_the_shortest_length_and_is_masked(void **state)
{
    static const unsigned char mask[4] = {1, 2, 3, 4};
    static const struct {
        size_t len, header;
        unsigned char code;
    } cases[] = {{0, 6, 0x80},
                 {125, 6, 0x80 | 125},
                 {126, 8, 0x80 | 126},
                 {65535, 8, 0x80 | 126},
                 {65536, 14, 0x80 | 127}};
    unsigned char out[WS_HEADER_MAX], masked[5];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ws_write_header(WS_TEXT, cases[i].len, mask, out), cases[i].header);
        assert_int_equal(out[0], 0x81);
        assert_int_equal(out[1], cases[i].code);
        assert_memory_equal(out + cases[i].header - 4, mask, 4);
    }
    ws_mask(masked, (const unsigned char *)"aaaaa", 5, mask, 0);
    assert_memory_equal(masked, "`cbe`", 5);
}

/* ---- base64, JSON, URLs, patterns, delays -------------------------------------------------------------- */

static void base64_goes_both_ways(void **state)
{
    static const char *const texts[][2] = {{"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
                                           {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct buffer encoded, decoded;
        buffer_init(&encoded, 0);
        buffer_init(&decoded, 0);
        assert_true(base64_encode(slice_text(texts[i][0]), &encoded));
        assert_string_equal(buffer_text(&encoded), texts[i][1]);
        assert_true(base64_decode(slice_from(encoded.data, encoded.len), &decoded));
        assert_int_equal(decoded.len, strlen(texts[i][0]));
        assert_string_equal(buffer_text(&decoded), texts[i][0]);
        buffer_close(&encoded);
        buffer_close(&decoded);
    }
}

static void bad_base64_is_refused(void **state)
{
    static const char *const texts[] = {
        "Zg=", "Zg", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm 9", "Zm9-", "Z=8="};
    struct buffer out;

    (void)state;
    buffer_init(&out, 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_false(base64_decode(slice_text(texts[i]), &out));
    buffer_close(&out);
}

static void json_strings_are_escaped(void **state)
{
    struct buffer out;

    (void)state;
    buffer_init(&out, 0);
    json_write_string(&out, "a\"\\\n\t\0é", 8);
    json_write_field(&out, "k", "v");
    json_write_field(&out, "none", NULL);
    assert_string_equal(buffer_text(&out), "\"a\\\"\\\\\\n\\u0009\\u0000é\",\"k\":\"v\"");
    buffer_close(&out);
}

static void json_values_stay_as_they_are_but_on_one_line(void **state)
{
    static const char *const wrong[] = {"", "{", "1 2", "[1,]", "nope", "\"\xff\"", "1e999"};
    struct buffer out;

    (void)state;
    buffer_init(&out, 0);
    assert_true(json_write_value(&out, "{\n\"a\":1.10}", 11));
    assert_string_equal(buffer_text(&out), "{ \"a\":1.10}");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(json_write_value(&out, wrong[i], strlen(wrong[i])));
    buffer_close(&out);
}

static void expect_member(const char *object, const char *name, const char *expected)
{
    struct slice value;

    assert_true(json_find_member(slice_text(object), name, &value));
    assert_true(slice_is(value, expected));
}

static void json_members_are_cut_out_as_they_stand(void **state)
{
    static const char object[] =
        " { \"a\" : [1, {\"b\":2}] , \"b\":\"x,}\\\"]\",\"data\": 1.10 ,\"c\":{\"data\":3}}";
    static const char list[] = "[1, \"a,b\" ,{\"x\":[]}, []]";
    static const char *const elements[] = {"1", "\"a,b\"", "{\"x\":[]}", "[]"};
    struct slice value;
    size_t at = 0, count = 0;

    (void)state;
    expect_member(object, "a", "[1, {\"b\":2}]");
    expect_member(object, "b", "\"x,}\\\"]\"");
    expect_member(object, "data", "1.10");
    expect_member("{\"a\":1,\"a\":2}", "a", "2");
    assert_false(json_find_member(slice_text(object), "x", &value));
    assert_false(json_find_member(slice_text("{}"), "x", &value));
    while (json_next_element(slice_text(list), &at, &value))
        assert_true(slice_is(value, elements[count++]));
    assert_int_equal(count, 4);
    at = 0;
    assert_false(json_next_element(slice_text(" [ ] "), &at, &value));
}

static void urls_are_cut(void **state)
{
    struct url url;

    (void)state;
    assert_null(url_parse("ws://h:8000", "/connect", &url));
    assert_false(url.tls);
    assert_string_equal(url.host, "h");
    assert_string_equal(url.host_header, "h:8000");
    assert_string_equal(url.path, "/connect");
    assert_null(url.query);
    url_close(&url);
    assert_null(url_parse("WSS://[::1]/a/b?c=d", "/connect", &url));
    assert_true(url.tls);
    assert_string_equal(url.host, "::1");
    assert_string_equal(url.host_header, "[::1]");
    assert_int_equal(url.port, 443);
    assert_string_equal(url.path, "/a/b");
    assert_string_equal(url.query, "c=d");
    url_close(&url);
}

static void bad_urls_are_refused(void **state)
{
    static const char *const texts[] = {"",          "h",           "ftp://h",       "ws://",
                                        "ws://:80",  "ws://h:",     "ws://h:0",      "ws://h:65536",
                                        "ws://h:8x", "ws://u:p@h/", "ws://[::1",     "ws://[::1]x",
                                        "ws://h/#a", "ws://h/a b",  "ws://h/\r\nX:", "ws://h/\xc3\xa9"};
    struct url url;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_non_null(url_parse(texts[i], "/connect", &url));
}

static void patterns_match_as_documented(void **state)
{
    (void)state;
    assert_true(pattern_is("orders.>") && pattern_is("*") && pattern_is("a.*.b") && pattern_is(">"));
    assert_false(pattern_is("orders") || pattern_is("a*.b") || pattern_is(">.a") || pattern_is("a.>b"));
    assert_true(pattern_matches("orders.>", "orders.eu.de") && pattern_matches("orders.*", "orders.eu"));
    assert_true(pattern_matches("a.*.c", "a.b.c") && pattern_matches(">", "a"));
    assert_false(pattern_matches("orders.>", "orders") || pattern_matches("orders.*", "orders.eu.de"));
    assert_false(pattern_matches("orders.*", "order.eu") || pattern_matches("a.*", "a"));
    /* No wildcard stands for an empty token, as on the server. */
    assert_false(pattern_matches("a.*", "a.") || pattern_matches("a.>", "a.") || pattern_matches(">", ""));
    assert_true(pattern_matches("a..*", "a..b") && pattern_matches("a.>", "a.b."));
}

static void delays_double_up_to_their_limit(void **state)
{
    struct backoff low = {0}, high = {0};
    unsigned expected = BACKOFF_FIRST_MS;

    (void)state;
    for (int i = 0; i < 12; i++) {
        unsigned delay = backoff_next(&low, 0);
        assert_int_equal(delay, expected / 2);
        assert_int_equal(backoff_next(&high, expected / 2), expected);
        expected = expected * 2 < BACKOFF_MAX_MS ? expected * 2 : BACKOFF_MAX_MS;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_accept_value_is_the_rfcs),
        cmocka_unit_test(the_request_names_what_is_wanted),
        cmocka_unit_test(a_response_is_read_once_it_is_whole),
        cmocka_unit_test(a_wrong_response_is_refused),
        cmocka_unit_test(a_refusal_tells_status_and_wait),
        cmocka_unit_test(messages_come_whole_with_pings_between),
        cmocka_unit_test(a_close_tells_code_and_reason),
        cmocka_unit_test(what_breaks_the_protocol_is_named),
        cmocka_unit_test(what_is_written_has_the_shortest_length_and_is_masked),
        cmocka_unit_test(base64_goes_both_ways),
        cmocka_unit_test(bad_base64_is_refused),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(json_values_stay_as_they_are_but_on_one_line),
        cmocka_unit_test(json_members_are_cut_out_as_they_stand),
        cmocka_unit_test(urls_are_cut),
        cmocka_unit_test(bad_urls_are_refused),
        cmocka_unit_test(patterns_match_as_documented),
        cmocka_unit_test(delays_double_up_to_their_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
