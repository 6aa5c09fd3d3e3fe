#include "proto/errors.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct error_info rows[] = {
#define ROW(symbol, code, name, retry, text) {symbol, (name), (retry), (text)},
    ERROR_LIST(ROW)
#undef ROW
};

enum { COUNT = sizeof rows / sizeof *rows, FIRST_CLOSE_CODE = 1000 };

static void test_every_entry_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        const struct error_info *info = error_find(rows[i].code);
        assert_int_equal(info->code, rows[i].code);
        assert_string_equal(info->name, rows[i].name);
        assert_string_equal(error_name(rows[i].code), rows[i].name);
        assert_int_equal(info->retry, rows[i].retry);
        assert_true(strlen(info->text) > 0);
        for (const char *at = info->name; *at; at++)
            assert_true(islower((unsigned char)*at) || *at == '_');
    }
    assert_string_equal(error_name(1), "unknown");
    assert_string_equal(error_find(-1)->text, "unknown");
    assert_string_equal(error_name(ERROR_NONE), "unknown");
}

/* A name may mean an error and a close code alike ("internal"), but only one of each. */
static void test_codes_and_names_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = i + 1; j < COUNT; j++) {
            assert_int_not_equal(rows[i].code, rows[j].code);
            if ((rows[i].code < FIRST_CLOSE_CODE) == (rows[j].code < FIRST_CLOSE_CODE))
                assert_string_not_equal(rows[i].name, rows[j].name);
        }
    }
}

static void test_close_codes_say_whether_to_reconnect(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        int code = rows[i].code;
        assert_true(code >= 400);
        if (code < FIRST_CLOSE_CODE)
            assert_true(code < 600); /* they double as HTTP status codes */
        else if (code < 4000)
            assert_in_range(code, 1000, 1014); /* those that RFC 6455 and its registry define */
        else if (code < 4500)
            assert_true(rows[i].retry);
        else
            assert_false(rows[i].retry);
        assert_true(code < 5000);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_entry_is_found),
        cmocka_unit_test(test_codes_and_names_are_unique),
        cmocka_unit_test(test_close_codes_say_whether_to_reconnect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
