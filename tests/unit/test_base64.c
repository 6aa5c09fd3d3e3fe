/* Base64, with OpenSSL as the oracle for what is valid. */
#include "proto/base64.h"
#include "tests/lib/alloc_fixture.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

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

/* RFC 4648 section 10. */
static const struct {
    const char *bytes, *text;
} vectors[] = {{"", ""},
               {"f", "Zg=="},
               {"fo", "Zm8="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"fooba", "Zm9vYmE="},
               {"foobar", "Zm9vYmFy"},
               {"\xff\xfe\xfd", "//79"}};

static void test_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        buffer_clear(&out);
        assert_true(base64_encode(slice_text(vectors[i].bytes), &out));
        assert_true(slice_is(slice_from(out.data, out.len), vectors[i].text));
        buffer_clear(&out);
        assert_true(base64_decode(slice_text(vectors[i].text), &out));
        assert_true(slice_is(slice_from(out.data, out.len), vectors[i].bytes));
    }
}

static void test_all_lengths_and_bytes(void **state)
{
    unsigned char bytes[600], text[804];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    for (size_t len = 0; len < sizeof bytes; len++) {
        int expected = EVP_EncodeBlock(text, bytes, (int)len);
        buffer_clear(&out);
        assert_true(base64_encode(slice_from(bytes, len), &out));
        assert_true(slice_equal(slice_from(out.data, out.len), slice_from(text, (size_t)expected)));
        buffer_clear(&out);
        assert_true(base64_decode(slice_from(text, (size_t)expected), &out));
        assert_true(slice_equal(slice_from(out.data, out.len), slice_from(bytes, len)));
    }
}

static void test_it_appends(void **state)
{
    (void)state;
    assert_true(buffer_append_text(&out, "<"));
    assert_true(base64_encode(slice_text("f"), &out));
    assert_true(base64_encode(slice_text("foo"), &out));
    assert_true(buffer_append_text(&out, ">"));
    assert_true(slice_is(slice_from(out.data, out.len), "<Zg==Zm9v>"));
    buffer_clear(&out);
    assert_true(base64_decode(slice_text("Zg=="), &out));
    assert_true(base64_decode(slice_text("Zm9v"), &out));
    assert_true(slice_is(slice_from(out.data, out.len), "ffoo"));
}

static void test_what_is_not_canonical_is_refused(void **state)
{
    static const char *const texts[] = {"Z",     "Zg",         "Zg=",      "Zg===",       "=",    "==",
                                        "===",   "====",       "Z===",     "Zh==",        "Zm9=", "Zm 9v",
                                        "Zm9\n", "Zm-_",       "Zg==Zg==", "Z=g=",        "Zg=g", "=Zg=",
                                        "Zm9v=", "\xc3\xbcZg", "Zm9v ",    "Zm9v\n\n\n\n"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        buffer_clear(&out);
        assert_false(base64_decode(slice_text(texts[i]), &out));
    }
    buffer_clear(&out);
    assert_false(base64_decode(slice_from("Zg\0=", 4), &out));
}

/* Each four characters are taken exactly when they are what encoding gives. */
static void test_every_last_group(void **state)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    struct buffer again;

    (void)state;
    buffer_init(&again, 0);
    for (size_t i = 0; i < 65 * 65 * 65; i++) {
        const char text[] = {alphabet[i % 65], alphabet[i / 65 % 65], alphabet[i / 65 / 65],
                             alphabet[i % 3 ? 64 : i % 65]};
        buffer_clear(&out);
        buffer_clear(&again);
        if (base64_decode(slice_from(text, 4), &out)) {
            assert_true(base64_encode(slice_from(out.data, out.len), &again));
            assert_true(slice_equal(slice_from(text, 4), slice_from(again.data, again.len)));
        }
    }
    buffer_close(&again);
}

static void test_memory_is_short(void **state)
{
    (void)state;
    alloc_fixture_fail(1);
    assert_false(base64_encode(slice_text("foo"), &out));
    assert_true(out.failed);
    buffer_clear(&out);
    alloc_fixture_fail(1);
    assert_false(base64_decode(slice_text("Zm9v"), &out));
    alloc_fixture_fail(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, install, check_leaks)
        TEST(test_vectors),          TEST(test_all_lengths_and_bytes),
        TEST(test_it_appends),       TEST(test_what_is_not_canonical_is_refused),
        TEST(test_every_last_group), TEST(test_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
