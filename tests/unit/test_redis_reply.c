/* Replies of Redis: what the parser makes of whole, cut and hostile streams. */
#include "storage/redis/redis_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct redis_reply *next(struct redis_replies *replies)
{
    const char *error;
    const struct redis_reply *reply = redis_replies_next(replies, &error);

    assert_null(error);
    return reply;
}

static void feed(struct redis_replies *replies, const char *text)
{
    assert_true(redis_replies_feed(replies, text, strlen(text)));
}

static int open_replies(void **state)
{
    *state = redis_replies_create();
    return *state ? 0 : -1;
}

static int close_replies(void **state)
{
    redis_replies_destroy(*state);
    return 0;
}

static void test_every_type(void **state)
{
    struct redis_replies *replies = *state;

    feed(replies, "+OK\r\n-ERR no\r\n:-42\r\n$5\r\nhe\0lo\r\n");
    const struct redis_reply *reply = next(replies);
    assert_int_equal(reply->type, REDIS_TYPE_STATUS);
    assert_true(slice_is(reply->text, "OK"));
    reply = next(replies);
    assert_true(redis_reply_is_error(reply, "ERR"));
    assert_false(redis_reply_is_error(reply, "ER"));
    assert_string_equal(reply->text.data, "ERR no");
    reply = next(replies);
    assert_int_equal(reply->type, REDIS_TYPE_INTEGER);
    assert_int_equal(reply->integer, -42);
    assert_null(next(replies)); /* the text above ends at its NUL */
    assert_true(redis_replies_feed(replies, "\0lo\r\n$-1\r\n$0\r\n\r\n*-1\r\n", 21));
    reply = next(replies);
    assert_int_equal(reply->text.len, 5);
    assert_memory_equal(reply->text.data, "he\0lo", 6);
    assert_int_equal(next(replies)->type, REDIS_TYPE_NIL);
    assert_int_equal(next(replies)->text.len, 0);
    assert_int_equal(next(replies)->type, REDIS_TYPE_NIL);
    assert_null(next(replies));
}

static void check_nested(const struct redis_reply *reply)
{
    assert_int_equal(reply->type, REDIS_TYPE_ARRAY);
    assert_int_equal(reply->count, 4);
    assert_true(slice_is(redis_reply_text(reply, 0), "message"));
    assert_int_equal(reply->elements[1].count, 2);
    assert_int_equal(redis_reply_integer(&reply->elements[1], 0), 7);
    assert_true(slice_is(redis_reply_text(&reply->elements[1], 1), "x"));
    assert_int_equal(reply->elements[2].count, 0);
    assert_int_equal(reply->elements[3].type, REDIS_TYPE_NIL);
    /* What isn't there, or is something else, reads as nothing. */
    assert_int_equal(redis_reply_text(reply, 1).len, 0);
    assert_int_equal(redis_reply_text(reply, 9).len, 0);
    assert_int_equal(redis_reply_integer(reply, 0), 0);
    assert_int_equal(redis_reply_integer(&reply->elements[0], 0), 0);
}

static void test_cut_anywhere(void **state)
{
    static const char text[] = "*4\r\n$7\r\nmessage\r\n*2\r\n:7\r\n$1\r\nx\r\n*0\r\n$-1\r\n";
    struct redis_replies *replies = *state;
    size_t len = sizeof text - 1;

    for (size_t cut = 0; cut <= len; cut++) {
        assert_true(redis_replies_feed(replies, text, cut));
        if (cut < len)
            assert_null(next(replies));
        assert_true(redis_replies_feed(replies, text + cut, len - cut));
        check_nested(next(replies));
        assert_null(next(replies));
    }
    for (size_t i = 0; i < len; i++) {
        assert_null(next(replies));
        assert_true(redis_replies_feed(replies, text + i, 1));
    }
    check_nested(next(replies));
}

static void test_large_text(void **state)
{
    enum { SIZE = 3 * 1024 * 1024 };
    struct redis_replies *replies = *state;
    char *text = malloc(SIZE);
    char head[32];

    memset(text, 'a', SIZE);
    snprintf(head, sizeof head, "$%d\r\n", SIZE);
    for (int i = 0; i < 3; i++) {
        feed(replies, head);
        assert_true(redis_replies_feed(replies, text, SIZE));
        feed(replies, "\r\n:1\r\n");
        const struct redis_reply *reply = next(replies);
        assert_int_equal(reply->text.len, SIZE);
        assert_memory_equal(reply->text.data, text, SIZE);
        assert_int_equal(next(replies)->integer, 1);
    }
    free(text);
}

static void test_broken(void **state)
{
    static const char *const streams[] = {
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "*1048577\r\n",
        "*2147483648\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        "*-2\r\n",
        "$-2\r\n",
        "\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        struct redis_replies *replies = redis_replies_create();
        const char *error = NULL;
        feed(replies, streams[i]);
        assert_null(redis_replies_next(replies, &error));
        assert_non_null(error);
        assert_true(strlen(error) > 0);
        error = NULL;
        assert_null(redis_replies_next(replies, &error)); /* for good */
        assert_non_null(error);
        redis_replies_destroy(replies);
    }
}

static void test_arena(void **state)
{
    struct redis_arena arena;
    (void)state;

    redis_arena_init(&arena);
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < 100000; size = size * 3 + 1) {
            char *bytes = redis_arena_alloc(&arena, size);
            assert_non_null(bytes);
            assert_int_equal((uintptr_t)bytes % 16, 0);
            memset(bytes, 1, size);
        }
        struct slice copy = redis_arena_copy(&arena, slice_text("bob"));
        assert_string_equal(copy.data, "bob");
        assert_int_equal(redis_arena_copy(&arena, slice_from(NULL, 0)).len, 0);
        redis_arena_reset(&arena);
        assert_int_equal(arena.total, 0);
    }
    redis_arena_close(&arena);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_type, open_replies, close_replies),
        cmocka_unit_test_setup_teardown(test_cut_anywhere, open_replies, close_replies),
        cmocka_unit_test_setup_teardown(test_large_text, open_replies, close_replies),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_arena),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
