#include "proto/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        enum address_kind kind;
        const char *name;
    } rows[] = {
        {"session:bob", ADDRESS_SESSION, "bob"},
        {"user:admin", ADDRESS_USER, "admin"},
        {"topic:a:b:c", ADDRESS_TOPIC, "a:b:c"},
        {"topic::", ADDRESS_TOPIC, ":"},
        {"session:{x y}%", ADDRESS_SESSION, "{x y}%"},
        {"user:\xe5\x90\x8d\xe5\x89\x8d", ADDRESS_USER, "\xe5\x90\x8d\xe5\x89\x8d"},
    };
    struct address address;
    char out[ADDRESS_MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_null(address_parse(slice_text(rows[i].text), &address));
        assert_int_equal(address.kind, rows[i].kind);
        assert_true(slice_is(address.name, rows[i].name));
        assert_int_equal(address_format(&address, out), strlen(rows[i].text));
        assert_string_equal(out, rows[i].text);
    }
}

static void test_parse_refuses(void **state)
{
    static const char *const texts[] = {"",          "bob",        "session",      ":bob",
                                        "session:",  "Session:x",  "instance:a1",  "sessions:x",
                                        "user:a\nb", "user:\x7f",  "user:\xff",    " session:x",
                                        "topic:\t",  "topic:\xc3", "user:\xc0\x80",
                                        "user:a\xc2\x80", "user:\xe2\x80\xae", "topic:\xe2\x81\xa6", "session:\xef\xbb\xbf"};
    struct address address;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_non_null(address_parse(slice_text(texts[i]), &address));
    assert_non_null(address_parse(slice_from("user:a\0b", 8), &address));
    assert_non_null(address_parse(slice_from(NULL, 0), &address));
}

static void test_exclusive_names(void **state)
{
    (void)state;
    assert_null(address_check_exclusive(slice_text("bob")));
    assert_non_null(address_check_exclusive(slice_text("")));
    assert_non_null(address_check_exclusive(slice_text("bob~k3f9")));
    assert_non_null(address_check_exclusive(slice_text("~")));
    assert_non_null(address_check_exclusive(slice_text("a~")));
    assert_null(address_check_name(slice_text("bob~k3f9")));
}

static void test_longest_name(void **state)
{
    char text[ADDRESS_MAX + 2] = "user:", channel[CHANNEL_MAX], out[ADDRESS_MAX + 1];
    char name[ADDRESS_NAME_MAX + 1];
    struct address address, back;

    (void)state;
    memset(text + 5, '{', ADDRESS_NAME_MAX + 1);
    assert_non_null(address_parse(slice_from(text, 5 + ADDRESS_NAME_MAX + 1), &address));
    assert_null(address_parse(slice_from(text, 5 + ADDRESS_NAME_MAX), &address));
    assert_int_equal(address_format(&address, out), 5 + ADDRESS_NAME_MAX);
    size_t len = address_channel(&address, channel);
    assert_int_equal(len, strlen("user:{}") + 3 * ADDRESS_NAME_MAX);
    assert_true(address_from_channel(slice_from(channel, len), &back, name));
    assert_true(slice_equal(back.name, address.name));
    address.kind = ADDRESS_INSTANCE;
    assert_true(address_channel(&address, channel) < CHANNEL_MAX);
}

static void test_channels(void **state)
{
    static const struct {
        const char *name, *channel;
    } rows[] = {
        {"userSever_8080", "session:{userSever_8080}"},
        {"a b", "session:{a%20b}"},
        {"{}", "session:{%7B%7D}"},
        {"100%", "session:{100%25}"},
        {"%7B", "session:{%257B}"},
        {"a:b", "session:{a:b}"},
        {"Zo\xc3\xab", "session:{Zo\xc3\xab}"},
        {"\xc2\xa0", "session:{%C2%A0}"},           /* no-break space */
        {"\xe3\x80\x80x", "session:{%E3%80%80x}"},  /* ideographic space */
        {"\xe2\x80\x83", "session:{%E2%80%83}"},    /* em space */
        {"\xe2\x80\x8d", "session:{\xe2\x80\x8d}"}, /* zero width joiner: no whitespace */
        {"\xe2\x82\xac\xc2\xa9", "session:{€©}"},   /* neighbours of the spaces */
        {"\xf0\x9f\x90\x98", "session:{\xf0\x9f\x90\x98}"},
    };
    char channel[CHANNEL_MAX], name[ADDRESS_NAME_MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct address address = {.kind = ADDRESS_SESSION, .name = slice_text(rows[i].name)}, back;
        assert_null(address_check_name(address.name));
        assert_int_equal(address_channel(&address, channel), strlen(rows[i].channel));
        assert_string_equal(channel, rows[i].channel);
        assert_true(address_from_channel(slice_text(channel), &back, name));
        assert_int_equal(back.kind, ADDRESS_SESSION);
        assert_true(slice_equal(back.name, address.name));
        assert_string_equal(name, rows[i].name);
    }
}

static void test_every_byte_survives_the_channel(void **state)
{
    char channel[CHANNEL_MAX], name[ADDRESS_NAME_MAX + 1], text[3];

    (void)state;
    for (unsigned c = 0x20; c < 0x800; c++) {
        if (c < 0x80)
            snprintf(text, sizeof text, "%c", (char)c);
        else
            snprintf(text, sizeof text, "%c%c", (char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f)));
        struct address address = {.kind = ADDRESS_TOPIC, .name = slice_text(text)}, back;
        if (address_check_name(address.name))
            continue;
        address_channel(&address, channel);
        for (const char *at = channel + strlen("topic:{"); at[1]; at++)
            assert_null(strchr("{} \t\r\n", *at));
        assert_true(address_from_channel(slice_text(channel), &back, name));
        assert_true(slice_equal(back.name, address.name));
    }
}

static void test_from_channel_refuses(void **state)
{
    static const char *const texts[] = {
        "",           "control",      "session:",     "session:bob",   "session:{}",   "session:{bob",
        "session:{",  "session:}",    "x:{bob}",      "session:{%}",   "session:{%4}", "session:{%zz}",
        "topic:{%0}", "topic:{%00}",  "topic:{%0A}",  "topic:{%FF}",   "topic:{a%C3}", "topic:bob}",
        "{bob}",      "topic:{bob} ", " topic:{bob}", "topic:{%4%41}", "topic:{%7F}",  "topic:{\n}"};
    char name[ADDRESS_NAME_MAX + 1], channel[1024];
    struct address address;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_false(address_from_channel(slice_text(texts[i]), &address, name));
    int len = snprintf(channel, sizeof channel, "topic:{%0*d}", ADDRESS_NAME_MAX + 1, 1);
    assert_false(address_from_channel(slice_from(channel, (size_t)len), &address, name));
    len = snprintf(channel, sizeof channel, "instance:{%0*d}", ADDRESS_NAME_MAX, 1);
    assert_true(address_from_channel(slice_from(channel, (size_t)len), &address, name));
    assert_int_equal(address.kind, ADDRESS_INSTANCE);
}

static void test_kind_names(void **state)
{
    (void)state;
    assert_string_equal(address_kind_name(ADDRESS_SESSION), "session");
    assert_string_equal(address_kind_name(ADDRESS_USER), "user");
    assert_string_equal(address_kind_name(ADDRESS_TOPIC), "topic");
    assert_string_equal(address_kind_name(ADDRESS_INSTANCE), "instance");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_exclusive_names),
        cmocka_unit_test(test_longest_name),
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_every_byte_survives_the_channel),
        cmocka_unit_test(test_from_channel_refuses),
        cmocka_unit_test(test_kind_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
