#include "broker/keys.h"

#include "base/clock.h"
#include "broker/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint64_t now_us;
static struct metrics metrics;
static struct keys keys;

static int open_all(void **state)
{
    (void)state;
    now_us = UINT64_C(1000000) * 3600;
    clock_set_fake(&now_us);
    metrics = (struct metrics){0};
    keys_init(&keys, &metrics, 10, 4);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    clock_set_fake(NULL);
    return 0;
}

static void pass(unsigned seconds)
{
    now_us += UINT64_C(1000000) * seconds;
}

/* Takes as many as it may; how many, and why not more. */
static unsigned take_all(struct keys_count *session, const char *limit)
{
    const char *refused = NULL;
    unsigned taken = 0;

    while (taken < 1000 && !(refused = keys_take(&keys, session)))
        taken++;
    assert_non_null(refused);
    assert_non_null(strstr(refused, limit));
    return taken;
}

static void one_session_has_its_share(void **state)
{
    struct keys_count amy = {0}, bob = {0};

    (void)state;
    assert_int_equal(take_all(&amy, "session_keys"), 4);
    assert_int_equal(take_all(&bob, "session_keys"), 4);
    assert_int_equal(metrics.keys_refused, 2);
}

static void all_sessions_have_theirs(void **state)
{
    struct keys_count sessions[3] = {0};

    (void)state;
    take_all(&sessions[0], "session_keys");
    take_all(&sessions[1], "session_keys");
    assert_int_equal(take_all(&sessions[2], "keys_limit"), 2);
    /* Whoever connects anew has nothing left of the others' either. */
    struct keys_count anew = {0};
    assert_int_equal(take_all(&anew, "keys_limit"), 0);
    assert_int_equal(keys_alive(&keys.sessions), 10);
    assert_int_equal(keys_alive(&anew), 0);
    assert_int_equal(metrics.keys_refused, 4);
}

static void callers_are_counted_apart(void **state)
{
    struct keys_count amy = {0};

    (void)state;
    assert_int_equal(take_all(NULL, "keys_limit"), 10);
    assert_int_equal(take_all(&amy, "session_keys"), 4);
    assert_int_equal(take_all(NULL, "keys_limit"), 0);
}

static void a_key_counts_as_long_as_it_lives(void **state)
{
    struct keys_count amy = {0};

    (void)state;
    /* At the last and at the first moment of a minute. */
    for (unsigned offset = 0; offset < 2; offset++) {
        amy = (struct keys_count){0};
        keys_init(&keys, &metrics, 10, 4);
        now_us = UINT64_C(1000000) * 7200 - 1 + offset;
        take_all(&amy, "session_keys");
        pass(STORAGE_KEY_LIFE_MS / 1000 - 1);
        assert_int_equal(take_all(&amy, "session_keys"), 0);
        pass(1 + KEYS_MINUTE_MS / 1000);
        assert_int_equal(take_all(&amy, "session_keys"), 4);
    }
}

static void the_oldest_minute_goes_first(void **state)
{
    struct keys_count amy = {0};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_null(keys_take(&keys, &amy));
        pass(60);
    }
    assert_int_equal(take_all(&amy, "session_keys"), 0); /* after 240 s */
    pass(120);
    assert_int_equal(take_all(&amy, "session_keys"), 1);
    assert_int_equal(keys_alive(&keys.sessions), 4);
}

static void a_long_silence_forgets_everything(void **state)
{
    struct keys_count amy = {0};

    (void)state;
    take_all(&amy, "session_keys");
    pass(30 * 24 * 3600);
    assert_int_equal(keys_alive(&amy), 0);
    assert_int_equal(take_all(&amy, "session_keys"), 4);
}

static void new_limits_count_at_once(void **state)
{
    struct keys_count amy = {0};

    (void)state;
    take_all(&amy, "session_keys");
    keys_set_limits(&keys, 10, 6);
    assert_int_equal(take_all(&amy, "session_keys"), 2);
    keys_set_limits(&keys, 3, 100);
    assert_int_equal(take_all(&amy, "keys_limit"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_session_has_its_share, open_all, close_all),
        cmocka_unit_test_setup_teardown(all_sessions_have_theirs, open_all, close_all),
        cmocka_unit_test_setup_teardown(callers_are_counted_apart, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_key_counts_as_long_as_it_lives, open_all, close_all),
        cmocka_unit_test_setup_teardown(the_oldest_minute_goes_first, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_long_silence_forgets_everything, open_all, close_all),
        cmocka_unit_test_setup_teardown(new_limits_count_at_once, open_all, close_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
