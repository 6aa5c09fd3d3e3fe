/* Signs of life and of progress, by numbers alone: no socket, no clock. */
#include "broker/pulse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t nonce = UINT64_C(0x0123456789abcdef);

static struct socket_progress at(uint64_t acked, uint64_t window)
{
    return (struct socket_progress){.acked = acked, .edge = acked + window};
}

static struct pulse pinged(void)
{
    struct pulse pulse = {0};

    pulse_ping(&pulse, nonce, at(1000, 60000));
    return pulse;
}

static void only_its_own_pong_answers(void **state)
{
    unsigned char wrong[PULSE_NONCE_SIZE + 1];
    struct pulse pulse = pinged();

    (void)state;
    memcpy(wrong, &nonce, PULSE_NONCE_SIZE);
    wrong[PULSE_NONCE_SIZE] = 0;
    assert_false(pulse_pong(&pulse, wrong, PULSE_NONCE_SIZE + 1));
    assert_false(pulse_pong(&pulse, wrong, PULSE_NONCE_SIZE - 1));
    assert_false(pulse_pong(&pulse, wrong, 0));
    for (size_t i = 0; i < PULSE_NONCE_SIZE * 8; i++) {
        wrong[i / 8] ^= (unsigned char)(1 << i % 8);
        assert_false(pulse_pong(&pulse, wrong, PULSE_NONCE_SIZE));
        wrong[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    assert_true(pulse_pong(&pulse, wrong, PULSE_NONCE_SIZE));
    assert_false(pulse_pong(&pulse, wrong, PULSE_NONCE_SIZE)); /* once */
}

static void without_a_ping_nothing_is_an_answer(void **state)
{
    static const uint64_t none = 0;
    struct pulse pulse = {0};

    (void)state;
    assert_false(pulse_pong(&pulse, &none, sizeof none));
}

static void silence_is_death(void **state)
{
    struct pulse pulse = pinged();

    (void)state;
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_DEAD);
    /* That its kernel took the ping, and tells its window in rounded steps, is nobody's life. */
    pulse = pinged();
    assert_int_equal(pulse_judge(&pulse, at(1010, 60000), false), PULSE_DEAD);
    /* On a system that tells nothing, too. */
    pulse_ping(&pulse, nonce, at(0, 0));
    assert_int_equal(pulse_judge(&pulse, at(0, 0), false), PULSE_DEAD);
}

static void a_message_is_life(void **state)
{
    struct pulse pulse = pinged();

    (void)state;
    pulse.heard = true;
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_ALIVE);
    assert_false(pulse_pong(&pulse, &nonce, sizeof nonce)); /* too late to count for the next one */
    pulse_ping(&pulse, nonce + 1, at(1000, 60000));
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_DEAD);
}

static void reading_on_is_life_for_as_long_as_it_goes_on(void **state)
{
    struct pulse pulse = pinged();

    (void)state;
    for (uint64_t i = 1; i < 100; i++)
        assert_int_equal(pulse_judge(&pulse, at(1000 + i * 500, 60000), false), PULSE_WAIT);
    assert_int_equal(pulse_judge(&pulse, at(1000 + 99 * 500, 60000), false), PULSE_DEAD);
    /* All is acknowledged, but its window opens: it reads what is in its kernel. */
    pulse = pinged();
    assert_int_equal(pulse_judge(&pulse, at(1000, 64000), false), PULSE_WAIT);
    /* What it takes while its window closes by as much is only its kernel's. */
    pulse = pinged();
    assert_int_equal(pulse_judge(&pulse, at(31000, 30000), false), PULSE_DEAD);
}

static void who_is_held_back_is_waited_for(void **state)
{
    struct pulse pulse = pinged();

    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(pulse_judge(&pulse, at(1000, 60000), true), PULSE_WAIT);
    assert_true(pulse_pong(&pulse, &nonce, sizeof nonce));
}

static void who_was_held_back_has_its_time_from_then_on(void **state)
{
    struct pulse pulse = pinged();

    (void)state;
    pulse_hold_back(&pulse);
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_WAIT);
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_DEAD);
    /* Let go between two looks, it could not have answered at the first. */
    pulse = pinged();
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), true), PULSE_WAIT);
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_WAIT);
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_DEAD);
    /* What was before the ping is over. */
    pulse_hold_back(&pulse);
    pulse_ping(&pulse, nonce, at(1000, 60000));
    assert_int_equal(pulse_judge(&pulse, at(1000, 60000), false), PULSE_DEAD);
}

static void only_acknowledged_bytes_are_progress(void **state)
{
    struct pulse pulse = {0};

    (void)state;
    pulse_stall(&pulse, 10000, at(5000, 0));
    assert_int_equal(pulse_still_ms(&pulse, 10000, at(5000, 0)), 0);
    assert_int_equal(pulse_still_ms(&pulse, 14000, at(5000, 0)), 4000);
    pulse.heard = true;
    assert_int_equal(pulse_still_ms(&pulse, 15000, at(5000, 3000)), 5000);
    assert_int_equal(pulse_still_ms(&pulse, 16000, at(5001, 0)), 0);
    assert_int_equal(pulse_still_ms(&pulse, 46000, at(5001, 0)), 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_its_own_pong_answers),
        cmocka_unit_test(without_a_ping_nothing_is_an_answer),
        cmocka_unit_test(silence_is_death),
        cmocka_unit_test(a_message_is_life),
        cmocka_unit_test(reading_on_is_life_for_as_long_as_it_goes_on),
        cmocka_unit_test(who_is_held_back_is_waited_for),
        cmocka_unit_test(who_was_held_back_has_its_time_from_then_on),
        cmocka_unit_test(only_acknowledged_bytes_are_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
