/* JSON values as MessagePack and back. */
#include "proto/mp_json.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct buffer out;

static int install(void **state)
{
    (void)state;
    alloc_fixture_install();
    buffer_init(&out, 0);
    return 0;
}

static int check_leaks(void **state)
{
    (void)state;
    buffer_close(&out);
    return alloc_fixture_remove() ? -1 : 0;
}

static json_t *parse(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

    assert_non_null(value);
    return value;
}

static json_t *read_mp(const void *bytes, size_t len)
{
    struct mp_reader reader = {.at = bytes, .end = (const unsigned char *)bytes + len};

    return mp_to_json(&reader);
}

static void test_there_and_back(void **state)
{
    static const char *const texts[] = {"null",
                                        "true",
                                        "false",
                                        "0",
                                        "-1",
                                        "127",
                                        "128",
                                        "-32",
                                        "-33",
                                        "255",
                                        "65536",
                                        "2147483648",
                                        "9007199254740993",
                                        "9223372036854775807",
                                        "-9223372036854775808",
                                        "0.5",
                                        "-1.5e300",
                                        "0.1",
                                        "1.0",
                                        "\"\"",
                                        "\"a\"",
                                        "\"\\u0000\\u001f\\\"\\\\\"",
                                        "\"\xf0\x9f\x97\x9e\"",
                                        "[]",
                                        "{}",
                                        "[[[[[[1]]]]]]",
                                        "{\"a\":[1,2.5,null,{\"b\":\"c\"}],\"\":0}",
                                        "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *value = parse(texts[i]);
        buffer_clear(&out);
        assert_true(mp_from_json(value, &out));
        json_t *again = read_mp(out.data, out.len);
        if (!again || !json_equal(value, again) || json_typeof(value) != json_typeof(again))
            fail_msg("%s did not come back", texts[i]);
        json_decref(again);
        /* What is cut short is nothing. */
        for (size_t len = 0; len < out.len; len++)
            assert_null(read_mp(out.data, len));
        json_decref(value);
    }
}

static void test_smallest_encodings(void **state)
{
    static const struct {
        const char *json, *bytes;
        size_t len;
    } rows[] = {{"null", "\xc0", 1},
                {"false", "\xc2", 1},
                {"true", "\xc3", 1},
                {"7", "\x07", 1},
                {"-1", "\xff", 1},
                {"128", "\xcc\x80", 2},
                {"\"a\"",
                 "\xa1"
                 "a",
                 2},
                {"[1]", "\x91\x01", 2},
                {"{\"a\":1}",
                 "\x81\xa1"
                 "a\x01",
                 4},
                {"1.5", "\xcb\x3f\xf8\0\0\0\0\0\0", 9}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *value = parse(rows[i].json);
        buffer_clear(&out);
        assert_true(mp_from_json(value, &out));
        assert_int_equal(out.len, rows[i].len);
        assert_memory_equal(out.data, rows[i].bytes, rows[i].len);
        json_decref(value);
    }
}

/* Other encodings of what JSON has: longer than needed, or of single precision. */
static void test_wide_encodings(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *json;
    } rows[] = {{"\xcc\x01", 2, "1"},
                {"\xcd\0\x01", 3, "1"},
                {"\xce\0\0\0\x01", 5, "1"},
                {"\xcf\0\0\0\0\0\0\0\x01", 9, "1"},
                {"\xd0\xff", 2, "-1"},
                {"\xd1\xff\xff", 3, "-1"},
                {"\xd3\xff\xff\xff\xff\xff\xff\xff\xff", 9, "-1"},
                {"\xca\x3f\xc0\0\0", 5, "1.5"},
                {"\xd9\x01x", 3, "\"x\""},
                {"\xda\0\x01x", 4, "\"x\""},
                {"\xdb\0\0\0\x01x", 6, "\"x\""},
                {"\xdc\0\x01\x01", 4, "[1]"},
                {"\xdd\0\0\0\x01\x01", 6, "[1]"},
                {"\xde\0\x01\xa1x\x01", 6, "{\"x\":1}"},
                {"\xdf\0\0\0\x01\xa1x\x01", 8, "{\"x\":1}"}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *value = parse(rows[i].json), *read = read_mp(rows[i].bytes, rows[i].len);
        if (!read || !json_equal(value, read))
            fail_msg("%s", rows[i].json);
        json_decref(read);
        json_decref(value);
    }
}

static void test_what_json_does_not_have(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } rows[] = {{"", 0},
                {"\xc1", 1},
                {"\xc4\x01x", 3},                            /* bin */
                {"\xd4\x01x", 3},                            /* ext */
                {"\xc7\x01\x05x", 4},                        /* ext */
                {"\xcf\x80\0\0\0\0\0\0\0", 9},               /* 2^63 */
                {"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9}, /* 2^64-1 */
                {"\xcb\x7f\xf8\0\0\0\0\0\0", 9},             /* NaN */
                {"\xcb\x7f\xf0\0\0\0\0\0\0", 9},             /* infinity */
                {"\xca\xff\x80\0\0", 5},                     /* -infinity */
                {"\x81\x01\x02", 3},                         /* a key that is an integer */
                {"\x81\xc4\x01x\x02", 5},                    /* a key that is bin */
                {"\x81\xa2x\0\x02", 5},                      /* a key with a NUL */
                {"\xa1\xff", 2},                             /* no UTF-8 */
                {"\x81\xa1\xff\x01", 4},
                {"\x91\xc1", 2},
                {"\xdd\xff\xff\xff\xff", 5},
                {"\xdf\xff\xff\xff\xff", 5},
                {"\xdb\xff\xff\xff\xff", 5}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (read_mp(rows[i].bytes, rows[i].len))
            fail_msg("row %zu", i);
    }
}

static void test_nesting_has_a_limit(void **state)
{
    char bytes[MP_DEPTH_MAX + 2];

    (void)state;
    memset(bytes, '\x91', sizeof bytes);
    bytes[MP_DEPTH_MAX - 1] = '\x07';
    json_t *value = read_mp(bytes, MP_DEPTH_MAX);
    assert_non_null(value);
    json_decref(value);
    memset(bytes, '\x91', sizeof bytes);
    bytes[sizeof bytes - 1] = '\x07';
    assert_null(read_mp(bytes, sizeof bytes));
}

static void test_it_steps_over_one_value(void **state)
{
    static const unsigned char bytes[] = {0x92, 1, 2, 3};
    struct mp_reader reader = {.at = bytes, .end = bytes + sizeof bytes};
    json_t *value = mp_to_json(&reader);

    (void)state;
    assert_int_equal(json_array_size(value), 2);
    assert_ptr_equal(reader.at, bytes + 3);
    json_decref(value);
}

static void test_memory_is_short(void **state)
{
    json_t *value = parse("{\"a\":[1,2,3]}");

    (void)state;
    alloc_fixture_fail_from(1);
    assert_false(mp_from_json(value, &out));
    alloc_fixture_fail(0);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, install, check_leaks)
        TEST(test_there_and_back),      TEST(test_smallest_encodings),
        TEST(test_wide_encodings),      TEST(test_what_json_does_not_have),
        TEST(test_nesting_has_a_limit), TEST(test_it_steps_over_one_value),
        TEST(test_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
