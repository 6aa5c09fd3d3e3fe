#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "web/assets.h"

static const char *const paths[] = {"/",        "/style.css",     "/app.js",      "/i18n.js",
                                    "/log.js",  "/plain.js",      "/favicon.svg", "/questions.js",
                                    "/show.js", "/structured.js", "/topics.js",   "/switchboard.js"};
enum { PATHS = sizeof paths / sizeof paths[0] };

static void each_file_is_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < PATHS; i++) {
        const struct web_asset *asset = web_asset_find(paths[i]);
        assert_non_null(asset);
        assert_true(asset->len > 100);
        assert_non_null(memchr(asset->data, '\n', asset->len));
    }
}

static void root_is_the_page(void **state)
{
    const struct web_asset *page = web_asset_find("/");
    static const char start[] = "<!doctype html>";

    (void)state;
    assert_ptr_equal(page, web_asset_find("/index.html"));
    assert_memory_equal(page->data, start, sizeof start - 1);
    assert_string_equal(page->content_type, "text/html; charset=utf-8");
}

static void content_types_fit(void **state)
{
    (void)state;
    assert_string_equal(web_asset_find("/style.css")->content_type, "text/css; charset=utf-8");
    assert_string_equal(web_asset_find("/app.js")->content_type, "text/javascript; charset=utf-8");
    assert_string_equal(web_asset_find("/favicon.svg")->content_type, "image/svg+xml");
}

static void etags_are_quoted_and_differ(void **state)
{
    (void)state;
    for (size_t i = 0; i < PATHS; i++) {
        const char *etag = web_asset_find(paths[i])->etag;
        assert_int_equal(strlen(etag), 34);
        assert_int_equal(etag[0], '"');
        assert_int_equal(etag[33], '"');
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(etag, web_asset_find(paths[j])->etag);
    }
}

static void other_paths_are_unknown(void **state)
{
    static const char *const unknown[] = {"",         "//",          "/app",    "app.js",
                                          "/app.js/", "/app.js?v=1", "/App.js", "/../web/app.js"};

    (void)state;
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_null(web_asset_find(unknown[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_file_is_there),      cmocka_unit_test(root_is_the_page),
        cmocka_unit_test(content_types_fit),       cmocka_unit_test(etags_are_quoted_and_differ),
        cmocka_unit_test(other_paths_are_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
