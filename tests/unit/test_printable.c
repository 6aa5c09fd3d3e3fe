#include "base/printable.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_classes(void **state)
{
    static const struct {
        uint32_t first, last;
        enum printable class;
    } rows[] = {
        {0x00, 0x1f, PRINTABLE_HIDDEN},     {' ', '~', PRINTABLE_SEEN},
        {0x7f, 0x9f, PRINTABLE_HIDDEN},     {0xa0, 0xa0, PRINTABLE_FAINT},
        {0xa1, 0xac, PRINTABLE_SEEN},       {0xad, 0xad, PRINTABLE_HIDDEN},
        {0xae, 0x34e, PRINTABLE_SEEN},      {0x61c, 0x61c, PRINTABLE_HIDDEN},
        {0x5d0, 0x5ea, PRINTABLE_SEEN},     {0x180b, 0x180f, PRINTABLE_FAINT},
        {0x200b, 0x200b, PRINTABLE_HIDDEN}, {0x200c, 0x200d, PRINTABLE_FAINT},
        {0x200e, 0x200f, PRINTABLE_HIDDEN}, {0x2010, 0x2027, PRINTABLE_SEEN},
        {0x2028, 0x202e, PRINTABLE_HIDDEN}, {0x2060, 0x206f, PRINTABLE_HIDDEN},
        {0x2070, 0x27ff, PRINTABLE_SEEN},   {0x3000, 0x3000, PRINTABLE_FAINT},
        {0x4e00, 0x9fff, PRINTABLE_SEEN},   {0xe000, 0xf8ff, PRINTABLE_SEEN},
        {0xfdd0, 0xfdef, PRINTABLE_HIDDEN}, {0xfe00, 0xfe0f, PRINTABLE_FAINT},
        {0xfeff, 0xfeff, PRINTABLE_HIDDEN}, {0xfff0, 0xfffb, PRINTABLE_HIDDEN},
        {0xfffc, 0xfffd, PRINTABLE_SEEN},   {0xfffe, 0xffff, PRINTABLE_HIDDEN},
        {0x1f300, 0x1f6ff, PRINTABLE_SEEN}, {0x1fffe, 0x1ffff, PRINTABLE_HIDDEN},
        {0xe0000, 0xe00ff, PRINTABLE_HIDDEN}, {0xe0100, 0xe01ef, PRINTABLE_FAINT},
        {0xe01f0, 0xe0fff, PRINTABLE_HIDDEN}, {0x10fffe, 0x10ffff, PRINTABLE_HIDDEN},
        {0x110000, 0x120000, PRINTABLE_HIDDEN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint32_t c = rows[i].first; c <= rows[i].last; c++)
            if (printable_class(c) != rows[i].class)
                fail_msg("U+%04X is %d", (unsigned)c, (int)printable_class(c));
}

static void test_names(void **state)
{
    static const struct {
        const char *text;
        enum printable_fault fault;
    } rows[] = {
        {"", PRINTABLE_OK},
        {"bob smith ~{}", PRINTABLE_OK},
        {"\xe7\x8e\x8b \xd7\x90\xd7\x91", PRINTABLE_OK},
        {"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", PRINTABLE_OK}, /* two emoji and a joiner */
        {"\xe2\x9d\xa4\xef\xb8\x8f", PRINTABLE_OK},                     /* with a variation selector */
        {"\xd9\x85\xdb\x8c\xe2\x80\x8c\xd8\xae", PRINTABLE_OK},         /* Persian */
        {"a\tb", PRINTABLE_HAS_CONTROL},
        {"a\x7f", PRINTABLE_HAS_CONTROL},
        {"a\xc2\x80", PRINTABLE_HAS_CONTROL},
        {"a\xc2\x9f", PRINTABLE_HAS_CONTROL},
        {"a\xc2\xad", PRINTABLE_HAS_HIDDEN},
        {"a\xe2\x80\xae", PRINTABLE_HAS_HIDDEN},
        {"\xef\xbb\xbf", PRINTABLE_HAS_HIDDEN},
        {"\xf3\xa0\x81\x81", PRINTABLE_HAS_HIDDEN},
        {"\xef\xbf\xbf", PRINTABLE_HAS_HIDDEN},
        {"a\xc2", PRINTABLE_NOT_UTF8},
        {"\xed\xa0\x80", PRINTABLE_NOT_UTF8},
        {"\xff", PRINTABLE_NOT_UTF8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(printable_check(rows[i].text, strlen(rows[i].text)), rows[i].fault);
    assert_int_equal(printable_check("a\0b", 3), PRINTABLE_HAS_CONTROL);
}

static void assert_escape(uint32_t character, const char *expected)
{
    char out[PRINTABLE_ESCAPE_SIZE];

    assert_int_equal(printable_escape(character, out), strlen(expected));
    assert_string_equal(out, expected);
}

static void test_escapes(void **state)
{
    (void)state;
    assert_escape(0, "\\u0000");
    assert_escape(0x202e, "\\u202e");
    assert_escape(0xffff, "\\uffff");
    assert_escape(0x10000, "\\ud800\\udc00");
    assert_escape(0xe0041, "\\udb40\\udc41");
    assert_escape(0x10ffff, "\\udbff\\udfff");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_escapes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
