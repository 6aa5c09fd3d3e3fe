#include "base/log.h"
#include "broker/address_limit.h"
#include "broker/network.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage address = {0};

    if (strchr(text, ':')) {
        address.ss_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&address)->sin6_addr), 1);
    } else {
        address.ss_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &((struct sockaddr_in *)&address)->sin_addr), 1);
    }
    return address;
}

static bool holds(const char *network_text, const char *address_text)
{
    struct network network;
    struct network_address address;
    struct sockaddr_storage socket_address = address_of(address_text);

    assert_true(network_parse(network_text, &network));
    assert_true(network_address_of((struct sockaddr *)&socket_address, &address));
    return network_holds(&network, &address);
}

static void test_networks_hold_addresses(void **state)
{
    (void)state;
    assert_true(holds("10.0.0.0/8", "10.1.2.3"));
    assert_false(holds("10.0.0.0/8", "11.0.0.0"));
    assert_true(holds("192.0.2.128/25", "192.0.2.200"));
    assert_false(holds("192.0.2.128/25", "192.0.2.100"));
    assert_true(holds("192.0.2.7", "192.0.2.7"));
    assert_false(holds("192.0.2.7", "192.0.2.8"));
    assert_true(holds("0.0.0.0/0", "1.2.3.4"));
    assert_false(holds("0.0.0.0/0", "2001:db8::1"));
    assert_true(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
    assert_true(holds("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(holds("2001:db8::/33", "2001:db8:8000::1"));
}

static void test_what_is_no_network(void **state)
{
    static const char *const bad[] = {"", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "x", "10.0.0.0/", "10.0.0.0/8x",
                                      "2001:db8::/129", "2001:db8::1/64", "10.0.0.0/-1", "::1/64/3"};
    struct network network;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(network_parse(bad[i], &network));
}

static char *trusted[] = {(char *)(uintptr_t) "192.0.2.0/24"};
static const struct config config = {.address_limit = 2, .trusted_proxies = {.items = trusted, .count = 1}};

static enum address_outcome take(struct address_limit *limit, const char *from, struct address_share **share)
{
    struct sockaddr_storage address = address_of(from);

    return address_limit_take(limit, &config, (struct sockaddr *)&address, share);
}

static unsigned lines;

static void count_line(const char *line, size_t len)
{
    (void)line;
    (void)len;
    lines++;
}

static void test_an_address_has_its_share_and_no_more(void **state)
{
    struct address_limit *limit = address_limit_create();
    struct address_share *shares[4], *none;

    (void)state;
    log_set_sink(count_line);
    assert_int_equal(take(limit, "203.0.113.5", &shares[0]), ADDRESS_TAKEN);
    assert_int_equal(take(limit, "::ffff:203.0.113.5", &shares[1]), ADDRESS_TAKEN);
    for (int i = 0; i < 5; i++)
        assert_int_equal(take(limit, "203.0.113.5", &none), ADDRESS_REFUSED);
    assert_int_equal(lines, 1);
    assert_int_equal(take(limit, "203.0.113.6", &shares[2]), ADDRESS_TAKEN);
    address_share_release(shares[0]);
    assert_int_equal(take(limit, "203.0.113.5", &shares[0]), ADDRESS_TAKEN);
    for (int i = 0; i < 3; i++)
        address_share_release(shares[i]);
    address_limit_destroy(limit);
    log_set_sink(NULL);
}

static void test_a_network_of_64_bits_is_one_address(void **state)
{
    struct address_limit *limit = address_limit_create();
    struct address_share *shares[3], *none;

    (void)state;
    log_set_sink(count_line);
    assert_int_equal(take(limit, "2001:db8::1", &shares[0]), ADDRESS_TAKEN);
    assert_int_equal(take(limit, "2001:db8::ffff:2", &shares[1]), ADDRESS_TAKEN);
    assert_int_equal(take(limit, "2001:db8::3", &none), ADDRESS_REFUSED);
    assert_int_equal(take(limit, "2001:db8:0:1::3", &shares[2]), ADDRESS_TAKEN);
    for (int i = 0; i < 3; i++)
        address_share_release(shares[i]);
    address_limit_destroy(limit);
    log_set_sink(NULL);
}

static void test_loopback_and_trusted_proxies_are_not_counted(void **state)
{
    struct address_limit *limit = address_limit_create();
    struct address_share *none;

    (void)state;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(take(limit, "127.0.0.1", &none), ADDRESS_FREE);
        assert_int_equal(take(limit, "::1", &none), ADDRESS_FREE);
        assert_int_equal(take(limit, "192.0.2.9", &none), ADDRESS_FREE);
        assert_null(none);
    }
    address_limit_destroy(limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks_hold_addresses),
        cmocka_unit_test(test_what_is_no_network),
        cmocka_unit_test(test_an_address_has_its_share_and_no_more),
        cmocka_unit_test(test_a_network_of_64_bits_is_one_address),
        cmocka_unit_test(test_loopback_and_trusted_proxies_are_not_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
