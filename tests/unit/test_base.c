#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/utf8.h"
#include "tests/lib/alloc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int install(void **state)
{
    (void)state;
    alloc_fixture_install();
    return 0;
}

static int check_leaks(void **state)
{
    (void)state;
    return alloc_fixture_remove() ? -1 : 0;
}

/* ---- allocation ---- */

static void test_alloc(void **state)
{
    (void)state;
    char *zeroed = mem_calloc(3, 5);
    for (size_t i = 0; i < 15; i++)
        assert_int_equal(zeroed[i], 0);
    char *text = mem_strndup("hello", 3);
    assert_string_equal(text, "hel");
    char *empty = mem_alloc(0), *copy = mem_dup("ab", 3), *nothing = mem_dup(NULL, 0);
    assert_non_null(empty);
    assert_non_null(nothing);
    assert_string_equal(copy, "ab");
    assert_null(mem_strdup(NULL));
    assert_null(mem_calloc(SIZE_MAX / 2, 3));
    copy = mem_realloc(copy, 100);
    assert_string_equal(copy, "ab");
    assert_int_equal(alloc_fixture_live(), 5);
    mem_free(zeroed);
    mem_free(text);
    mem_free(empty);
    mem_free(copy);
    mem_free(nothing);
    mem_free(NULL);
}

static void test_alloc_fails(void **state)
{
    char *kept = mem_strdup("kept");

    (void)state;
    alloc_fixture_fail_from(1);
    assert_null(mem_alloc(1));
    assert_null(mem_calloc(1, 1));
    assert_null(mem_dup("x", 1));
    assert_null(mem_strdup("x"));
    assert_null(mem_strndup("x", 1));
    assert_null(mem_realloc(kept, 100));
    alloc_fixture_fail(0);
    assert_string_equal(kept, "kept");
    mem_free(kept);
}

/* ---- list ---- */

struct numbered {
    int number;
    struct list link;
};

static void assert_list(const struct list *list, const int *numbers, size_t count)
{
    size_t i = 0;

    for (const struct list *pos = list->next; pos != list; pos = pos->next) {
        assert_true(i < count);
        assert_ptr_equal(pos->next->prev, pos);
        const struct numbered *item = container_of(pos, struct numbered, link);
        assert_int_equal(item->number, numbers[i++]);
    }
    assert_int_equal(i, count);
    assert_int_equal(list_empty(list), count == 0);
}

static void test_list(void **state)
{
    struct numbered items[5];
    struct list list, other;

    (void)state;
    list_init(&list);
    list_init(&other);
    assert_list(&list, NULL, 0);
    assert_null(list_pop(&list));
    for (int i = 0; i < 5; i++)
        items[i].number = i;
    list_append(&list, &items[1].link);
    list_append(&list, &items[2].link);
    list_prepend(&list, &items[0].link);
    assert_list(&list, (int[]){0, 1, 2}, 3);
    list_append(&other, &items[3].link);
    list_append(&other, &items[4].link);
    list_splice(&list, &other);
    assert_list(&list, (int[]){0, 1, 2, 3, 4}, 5);
    assert_list(&other, NULL, 0);
    list_splice(&list, &other);
    list_remove(&items[2].link);
    list_remove(&items[2].link);
    assert_true(list_empty(&items[2].link));
    assert_list(&list, (int[]){0, 1, 3, 4}, 4);
    list_splice(&other, &list);
    assert_list(&other, (int[]){0, 1, 3, 4}, 4);
    list_for_each_safe (pos, &other) {
        struct numbered *item = container_of(pos, struct numbered, link);
        if (item->number % 2)
            list_remove(pos);
    }
    assert_list(&other, (int[]){0, 4}, 2);
    assert_ptr_equal(list_pop(&other), &items[0].link);
    assert_list(&other, (int[]){4}, 1);
}

/* ---- map ---- */

struct entry {
    struct map_node node;
    char key[24];
    bool seen;
};

static void test_map(void **state)
{
    enum { COUNT = 5000 };
    struct entry *entries = calloc(COUNT, sizeof *entries);
    struct map map;

    (void)state;
    map_init(&map);
    assert_null(map_find(&map, "x", 1));
    assert_null(map_next(&map, NULL));
    for (size_t i = 0; i < COUNT; i++) {
        int len = snprintf(entries[i].key, sizeof entries[i].key, "%.*zu", (int)(i % 20), i);
        assert_null(map_find(&map, entries[i].key, (size_t)len));
        assert_true(map_insert(&map, &entries[i].node, entries[i].key, (size_t)len));
    }
    assert_int_equal(map.count, COUNT);
    size_t walked = 0;
    for (struct map_node *node = map_next(&map, NULL); node; node = map_next(&map, node)) {
        struct entry *entry = container_of(node, struct entry, node);
        assert_false(entry->seen);
        entry->seen = true;
        walked++;
    }
    assert_int_equal(walked, COUNT);
    for (size_t i = 0; i < COUNT; i += 2)
        map_remove(&map, &entries[i].node);
    for (size_t i = 0; i < COUNT; i++) {
        struct map_node *found = map_find(&map, entries[i].key, strlen(entries[i].key));
        assert_ptr_equal(found, i % 2 ? &entries[i].node : NULL);
    }
    assert_int_equal(map.count, COUNT / 2);
    for (struct map_node *node = map_next(&map, NULL), *next; node; node = next) {
        next = map_next(&map, node);
        map_remove(&map, node);
    }
    assert_int_equal(map.count, 0);
    map_close(&map);
    free(entries);
}

static void test_map_keys_are_bytes(void **state)
{
    static const struct {
        const char *key;
        size_t len;
    } keys[] = {{"", 0},
                {"\0", 1},
                {"\0\0", 2},
                {"a", 1},
                {"a\0", 2},
                {"12345678", 8},
                {"12345678\0", 9},
                {"1234567", 7},
                {"\xff\xfe", 2},
                {"123456789", 9},
                {"0123456789abcdef", 16}};
    enum { COUNT = sizeof keys / sizeof *keys };
    struct map_node nodes[COUNT];
    struct map map;

    (void)state;
    map_init(&map);
    for (size_t i = 0; i < COUNT; i++) {
        assert_null(map_find(&map, keys[i].key, keys[i].len));
        assert_true(map_insert(&map, &nodes[i], keys[i].key, keys[i].len));
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_ptr_equal(map_find(&map, keys[i].key, keys[i].len), &nodes[i]);
    assert_ptr_equal(map_find(&map, NULL, 0), &nodes[0]);
    map_close(&map);
}

static void test_map_memory_is_short(void **state)
{
    enum { COUNT = 1000 };
    struct entry *entries = calloc(COUNT, sizeof *entries);
    struct map map;

    (void)state;
    map_init(&map);
    alloc_fixture_fail(1);
    assert_false(map_insert(&map, &entries[0].node, "0", 1));
    assert_int_equal(map.count, 0);
    assert_true(map_insert(&map, &entries[0].node, "0", 1));
    alloc_fixture_fail_from(1); /* it can not grow any more, and goes on */
    for (size_t i = 1; i < COUNT; i++) {
        snprintf(entries[i].key, sizeof entries[i].key, "%zu", i);
        assert_true(map_insert(&map, &entries[i].node, entries[i].key, strlen(entries[i].key)));
    }
    for (size_t i = 1; i < COUNT; i++)
        assert_ptr_equal(map_find(&map, entries[i].key, strlen(entries[i].key)), &entries[i].node);
    map_close(&map);
    free(entries);
}

/* ---- buffer ---- */

static void test_buffer(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 0);
    assert_string_equal(buffer_text(&buffer), "");
    assert_true(buffer_append(&buffer, NULL, 0));
    assert_true(buffer_append_text(&buffer, "hello "));
    assert_true(buffer_printf(&buffer, "%s %d", "world", 42));
    assert_string_equal(buffer_text(&buffer), "hello world 42");
    assert_int_equal(buffer.len, 14);
    buffer_drop_front(&buffer, 6);
    assert_string_equal(buffer_text(&buffer), "world 42");
    buffer_drop_front(&buffer, 8);
    assert_int_equal(buffer.len, 0);
    for (size_t i = 0; i < 10000; i++)
        assert_true(buffer_append(&buffer, "0123456789", 10));
    assert_int_equal(buffer.len, 100000);
    assert_int_equal(strlen(buffer_text(&buffer)), 100000);
    buffer_clear(&buffer);
    assert_int_equal(buffer.len, 0);
    assert_true(buffer.capacity > 0);
    buffer_close(&buffer);
    buffer_close(&buffer);
}

static void test_buffer_ceiling(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 10);
    assert_true(buffer_append_text(&buffer, "12345"));
    assert_false(buffer_append_text(&buffer, "678901"));
    assert_true(buffer.failed);
    assert_string_equal(buffer_text(&buffer), "12345");
    assert_true(buffer_printf(&buffer, "%s", "67890")); /* exactly */
    assert_true(buffer.failed);                         /* still remembered */
    assert_false(buffer_printf(&buffer, "x"));
    assert_false(buffer_reserve(&buffer, SIZE_MAX));
    buffer_clear(&buffer);
    assert_false(buffer.failed);
    assert_true(buffer_append_text(&buffer, "1234567890"));
    buffer_close(&buffer);
    assert_int_equal(buffer.limit, 10);
    buffer_init(&buffer, 0);
    assert_false(buffer_reserve(&buffer, SIZE_MAX));
    buffer_close(&buffer);
}

static void test_buffer_memory_is_short(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 0);
    alloc_fixture_fail(1);
    assert_null(buffer_text(&buffer));
    alloc_fixture_fail(1);
    assert_false(buffer_append_text(&buffer, "x"));
    assert_true(buffer.failed);
    buffer_clear(&buffer);
    for (size_t n = 1; n <= 2; n++) {
        alloc_fixture_fail(n);
        assert_false(buffer_printf(&buffer, "%0300d", 1));
        assert_true(buffer.failed);
        assert_int_equal(buffer.len, 0);
        buffer_close(&buffer);
    }
    assert_true(buffer_append_text(&buffer, "kept"));
    alloc_fixture_fail_from(1);
    for (size_t i = 0; i < 1000 && !buffer.failed; i++)
        buffer_append_text(&buffer, "more");
    assert_true(buffer.failed);
    assert_int_equal(buffer.len % 4, 0);
    assert_memory_equal(buffer.data, "keptmore", 8);
    buffer_close(&buffer);
}

/* ---- clock ---- */

static void test_clock(void **state)
{
    char text[CLOCK_ISO8601_SIZE];
    uint64_t fake = 1234567, before = clock_monotonic_us();

    (void)state;
    assert_true(clock_monotonic_us() >= before);
    assert_true(clock_wall_ms() > UINT64_C(1700000000000));
    clock_set_fake(&fake);
    assert_int_equal(clock_monotonic_us(), 1234567);
    assert_int_equal(clock_monotonic_ms(), 1234);
    assert_int_equal(clock_wall_ms(), 1234);
    fake += 1000;
    assert_int_equal(clock_monotonic_ms(), 1235);
    clock_set_fake(NULL);
    assert_true(clock_wall_ms() > UINT64_C(1700000000000));

    assert_string_equal(clock_iso8601(0, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_iso8601(UINT64_C(1700000000123), text), "2023-11-14T22:13:20.123Z");
    assert_string_equal(clock_iso8601(UINT64_C(951782400007), text), "2000-02-29T00:00:00.007Z");
    assert_string_equal(clock_iso8601(UINT64_C(253402300799999), text), "9999-12-31T23:59:59.999Z");
}

/* ---- UTF-8 ---- */

static void test_utf8_table(void **state)
{
    static const struct {
        const char *bytes;
        size_t len, step;
    } rows[] = {
        {"", 0, 0},
        {"\0", 1, 1},
        {"a", 1, 1},
        {"\x7f", 1, 1},
        {"\x80", 1, 0},
        {"\xbf", 1, 0},
        {"\xc0\x80", 2, 0}, /* overlong NUL */
        {"\xc1\xbf", 2, 0},
        {"\xc2\x80", 2, 2},
        {"\xdf\xbf", 2, 2},
        {"\xc2", 1, 0},
        {"\xc2\x7f", 2, 0},
        {"\xc2\xc0", 2, 0},
        {"\xe0\x9f\xbf", 3, 0}, /* overlong */
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xed\xa0\x80", 3, 0}, /* surrogates */
        {"\xed\xbf\xbf", 3, 0},
        {"\xee\x80\x80", 3, 3},
        {"\xef\xbf\xbf", 3, 3},
        {"\xe2\x82", 2, 0},
        {"\xe2\x82\x28", 3, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0}, /* overlong */
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"\xf4\x90\x80\x80", 4, 0}, /* past U+10FFFF */
        {"\xf5\x80\x80\x80", 4, 0},
        {"\xf0\x9f\x90", 3, 0},
        {"\xf8\x88\x80\x80\x80", 5, 0},
        {"\xfe", 1, 0},
        {"\xff", 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[64];
        assert_int_equal(utf8_step(rows[i].bytes, rows[i].len), rows[i].step);
        /* At every place relative to the eight-byte steps, and at the end. */
        for (size_t before = 0; before < 20 && rows[i].len; before++) {
            memset(text, 'x', sizeof text);
            memcpy(text + before, rows[i].bytes, rows[i].len);
            assert_int_equal(utf8_valid(text, before + rows[i].len), rows[i].step == rows[i].len);
            assert_int_equal(utf8_valid(text, sizeof text), rows[i].step == rows[i].len);
        }
    }
    assert_true(utf8_valid(NULL, 0));
}

static size_t encode(unsigned c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

static void test_utf8_every_character(void **state)
{
    char text[4];

    (void)state;
    for (unsigned c = 0; c < 0x140000; c++) {
        size_t len = encode(c, text);
        bool valid = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
        if (utf8_step(text, len) != (valid ? len : 0))
            fail_msg("U+%04X", c);
        if (len > 1 && utf8_step(text, len - 1))
            fail_msg("U+%04X cut short", c);
    }
}

/* ---- log ---- */

static char last_line[4096];

static void keep_line(const char *line, size_t len)
{
    assert_true(len < sizeof last_line);
    memcpy(last_line, line, len);
    last_line[len] = '\0';
}

static uint64_t fake_us;

static int log_setup(void **state)
{
    (void)state;
    fake_us = UINT64_C(1700000000123456);
    clock_set_fake(&fake_us);
    log_set_sink(keep_line);
    log_set_level(LOG_LEVEL_INFO);
    log_set_format(LOG_FORMAT_LOGFMT);
    log_set_instance(NULL);
    last_line[0] = '\0';
    return 0;
}

static int log_teardown(void **state)
{
    log_setup(state);
    clock_set_fake(NULL);
    log_set_sink(NULL);
    return 0;
}

static void test_logfmt(void **state)
{
    (void)state;
    log_info("ready");
    assert_string_equal(last_line, "time=2023-11-14T22:13:20.123Z level=info event=ready\n");
    log_set_instance("a1");
    log_warn("session online", log_str("session", "bob"), log_int("online", -2), log_str("user", NULL));
    assert_string_equal(last_line, "time=2023-11-14T22:13:20.123Z level=warn instance=a1 "
                                   "event=\"session online\" session=bob online=-2 user=\"\"\n");
    log_error("x", log_bytes("name", "a\"b\\c\nd\x7f\xff=\xc3\xab", 12));
    assert_non_null(strstr(last_line, " name=\"a\\\"b\\\\c\\u000ad\\u007f\\ufffd=\xc3\xab\"\n"));
    log_error("x", log_str("k", "a=b"), log_str("l", "x:{y}"), log_int("min", INT64_MIN));
    assert_non_null(strstr(last_line, " k=\"a=b\" l=x:{y} min=-9223372036854775808\n"));
}

/* Whatever a client, Redis or an operator calls itself, a line shows it. */
static void test_log_shows_what_is_hidden(void **state)
{
    (void)state;
    for (int format = 0; format < 2; format++) {
        log_set_format(format ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
        log_info("x", log_str("k", "a\xc2\x9b\xe2\x80\xae\xe2\x80\x8d\xf3\xa0\x81\x81\xef\xbb\xbf\xc3\xab"));
        assert_non_null(strstr(last_line, "\"a\\u009b\\u202e\\u200d\\udb40\\udc41\\ufeff\xc3\xab\""));
    }
}

static void test_log_json(void **state)
{
    (void)state;
    log_set_format(LOG_FORMAT_JSON);
    log_set_instance("a1");
    log_info("session online", log_str("session", "b\"o\tb"), log_int("online", 2), log_str("user", NULL));
    assert_string_equal(last_line,
                        "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"info\",\"instance\":\"a1\","
                        "\"event\":\"session online\",\"session\":\"b\\\"o\\u0009b\",\"online\":2,"
                        "\"user\":\"\"}\n");
}

static void test_log_levels(void **state)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    enum log_level level;

    (void)state;
    log_debug("hidden");
    assert_string_equal(last_line, "");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("shown");
    assert_non_null(strstr(last_line, "level=debug event=shown"));
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("hidden");
    assert_null(strstr(last_line, "hidden"));
    for (size_t i = 0; i < 4; i++) {
        assert_true(log_level_parse(names[i], &level));
        assert_int_equal(level, i);
        assert_string_equal(log_level_name(level), names[i]);
    }
    assert_false(log_level_parse("warning", &level));
    assert_false(log_level_parse("", &level));
}

/* Whatever the lengths, a line is whole: one newline at its end, quotes closed, no character cut in two. */
static void test_long_lines_are_cut(void **state)
{
    static const char *const fills[] = {"x", "\"", "\n", "\xc3\xab", "\xf0\x9f\x90\x98", "\xff", "x y", "\xe2\x80\xae", "\xf3\xa0\x81\x81"};
    char text[3000];

    (void)state;
    for (size_t format = 0; format < 2; format++) {
        log_set_format(format ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
        for (size_t f = 0; f < sizeof fills / sizeof *fills; f++) {
            for (size_t len = 1700; len < 2100; len++) {
                size_t width = strlen(fills[f]), used = 0;
                for (; used + width <= len; used += width)
                    memcpy(text + used, fills[f], width);
                log_info("long", log_bytes("text", text, used), log_int("number", 1),
                         log_bytes("t", text, used));
                size_t total = strlen(last_line);
                assert_true(total <= 2048);
                assert_ptr_equal(strchr(last_line, '\n'), last_line + total - 1);
                assert_true(utf8_valid(last_line, total));
                size_t quotes = 0;
                for (size_t i = 0; i < total; i++) {
                    if (last_line[i] == '\\')
                        i++;
                    else if (last_line[i] == '"')
                        quotes++;
                }
                assert_int_equal(quotes % 2, 0);
                assert_int_equal(last_line[total - 2] == '}', format);
            }
        }
    }
    memset(text, 'e', sizeof text);
    text[sizeof text - 1] = '\0';
    log_info(text, log_int("number", 1));
    assert_true(strlen(last_line) <= 2048);
    log_set_instance(text);
    log_set_format(LOG_FORMAT_LOGFMT);
    log_info("x");
    assert_non_null(strstr(last_line, "eee event=x\n"));
    assert_int_equal(strspn(strstr(last_line, "instance=") + 9, "e"), 63);
}

#define LEAK_TEST(function) cmocka_unit_test_setup_teardown(function, install, check_leaks)
#define LOG_TEST(function)  cmocka_unit_test_setup_teardown(function, log_setup, log_teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        LEAK_TEST(test_alloc),
        LEAK_TEST(test_alloc_fails),
        cmocka_unit_test(test_list),
        LEAK_TEST(test_map),
        LEAK_TEST(test_map_keys_are_bytes),
        LEAK_TEST(test_map_memory_is_short),
        LEAK_TEST(test_buffer),
        LEAK_TEST(test_buffer_ceiling),
        LEAK_TEST(test_buffer_memory_is_short),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_utf8_table),
        cmocka_unit_test(test_utf8_every_character),
        LOG_TEST(test_logfmt),
        LOG_TEST(test_log_shows_what_is_hidden),
        LOG_TEST(test_log_json),
        LOG_TEST(test_log_levels),
        LOG_TEST(test_long_lines_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
