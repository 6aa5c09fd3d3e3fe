/* Patterns of topics and the list of topics, asked of one storage: test_storage_patterns memory | redis. */
#include "proto/errors.h"
#include "tests/lib/await.h"
#include "tests/lib/storage_world.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct call *subscribe_pattern(struct storage_world *world, struct peer *peer, const char *pattern)
{
    struct call *call = world_call(world);

    CALL(call, storage_subscribe_pattern, peer->storage, slice_text(pattern));
    return call;
}

static void hold_pattern(struct storage_world *world, struct peer *peer, const char *pattern)
{
    world_expect(world, subscribe_pattern(world, peer, pattern), ERROR_NONE, 0);
}

static size_t count_matches(const struct peer *peer, const char *pattern, const char *channel)
{
    size_t count = 0;

    for (size_t i = 0; i < peer->match_count; i++)
        count +=
            strcmp(peer->matches[i].pattern, pattern) == 0 && strcmp(peer->matches[i].channel, channel) == 0;
    return count;
}

static const struct {
    const char *pattern, *channel;
    bool matches;
} cases[] = {
    {"topic:{orders.*}", "topic:{orders.eu}", true},
    {"topic:{orders.*}", "topic:{orders.eu.paris}", false},
    {"topic:{orders.*}", "topic:{orders}", false},
    {"topic:{orders.*}", "topic:{order.eu}", false},
    {"topic:{orders.*}", "user:{orders.eu}", false},
    {"topic:{orders.>}", "topic:{orders.eu}", true},
    {"topic:{orders.>}", "topic:{orders.eu.paris}", true},
    {"topic:{orders.>}", "topic:{orders}", false},
    {"topic:{*.eu}", "topic:{orders.eu}", true},
    {"topic:{*.eu}", "topic:{orders.us}", false},
    {"topic:{*}", "topic:{orders}", true},
    {"topic:{>}", "topic:{orders.eu.paris}", true},
    {"topic:{a.*.c}", "topic:{a.b.c}", true},
    {"topic:{a.*.c}", "topic:{a.b.d}", false},
    {"topic:{[a-z]?.*}", "topic:{[a-z]?.x}", true},
    {"topic:{[a-z]?.*}", "topic:{bc.x}", false},
    {"topic:{back\\slash.*}", "topic:{back\\slash.x}", true},
    {"topic:{a*b.*}", "topic:{a*b.x}", true},
    {"topic:{a*b.*}", "topic:{axb.x}", false},
    {"topic:{a>.*}", "topic:{a>.x}", true},
    {"topic:{with%20space.*}", "topic:{with%20space.%7Bx%7D}", true},
};

static void test_what_matches(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hold_pattern(world, peer, cases[i].pattern);
        struct call *call = world_publish(world, peer, cases[i].channel, "x");
        AWAIT(world->base, call->done);
        /* Redis may give more, never less. */
        if (cases[i].matches)
            AWAIT(world->base, count_matches(peer, cases[i].pattern, cases[i].channel));
        world_drain(world, peer);
        size_t count = count_matches(peer, cases[i].pattern, cases[i].channel);
        assert_true(count == cases[i].matches || (world_on_redis && count == 1));
        assert_true(call->number == (int64_t)count);
        storage_unsubscribe_pattern(peer->storage, slice_text(cases[i].pattern));
    }
    assert_int_equal(peer_count(peer, "topic:{orders.eu}", NULL), 0);
}

static void test_bytes_and_order(void **state)
{
    enum { MANY = 1000 };
    static const char bytes[] = "\0\r\n$-1\r\n";
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct call *call = world_call(world);
    char text[16];

    hold_pattern(world, peer, "topic:{a.>}");
    CALL(call, storage_publish, peer->storage, slice_text("topic:{a.b}"), slice_from(bytes, sizeof bytes));
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "%d", i);
        world_publish(world, peer, i % 2 ? "topic:{a.b}" : "topic:{a.c.d}", text);
    }
    AWAIT(world->base, peer->match_count == MANY + 1);
    assert_int_equal(peer->matches[0].len, sizeof bytes);
    assert_memory_equal(peer->matches[0].bytes, bytes, sizeof bytes);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(strtol(peer->matches[i + 1].bytes, NULL, 10), i);
}

static void test_each_subscription_receives(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    hold_pattern(world, peer, "topic:{a.*}");
    hold_pattern(world, peer, "topic:{a.*}");
    hold_pattern(world, peer, "topic:{a.>}");
    world_subscribe(world, peer, "topic:{a.b}");
    world_publish(world, peer, "topic:{a.b}", "1");
    AWAIT(world->base, peer->message_count == 1 && peer->match_count == 2);
    assert_int_equal(count_matches(peer, "topic:{a.*}", "topic:{a.b}"), 1);
    assert_int_equal(count_matches(peer, "topic:{a.>}", "topic:{a.b}"), 1);

    storage_unsubscribe_pattern(peer->storage, slice_text("topic:{a.*}"));
    storage_unsubscribe_pattern(peer->storage, slice_text("topic:{a.*}"));
    storage_unsubscribe_pattern(peer->storage, slice_text("topic:{never.*}"));
    world_publish(world, peer, "topic:{a.b}", "2");
    AWAIT(world->base, peer->message_count == 2 && peer->match_count == 3);
    storage_unsubscribe(peer->storage, slice_text("topic:{a.b}"));
    world_publish(world, peer, "topic:{a.b}", "3");
    AWAIT(world->base, peer->match_count == 4);
    world_drain(world, peer);
    assert_int_equal(count_matches(peer, "topic:{a.*}", "topic:{a.b}"), 1);
    assert_int_equal(count_matches(peer, "topic:{a.>}", "topic:{a.b}"), 3);
    assert_int_equal(peer_count(peer, "topic:{a.b}", NULL), 2);
}

static void test_unsubscribe_at_once(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    hold_pattern(world, peer, "topic:{a.*}");
    struct call *call = world_publish(world, peer, "topic:{a.b}", "missed");
    storage_unsubscribe_pattern(peer->storage, slice_text("topic:{a.*}"));
    struct call *again = subscribe_pattern(world, peer, "topic:{b.*}");
    storage_unsubscribe_pattern(peer->storage, slice_text("topic:{b.*}"));
    AWAIT(world->base, call->done && again->done);
    world_expect(world, world_publish(world, peer, "topic:{b.x}", "nobody"), ERROR_NONE, 0);
    world_drain(world, peer);
    assert_int_equal(peer->match_count, 0);
    hold_pattern(world, peer, "topic:{a.*}");
    world_expect(world, world_publish(world, peer, "topic:{a.b}", "back"), ERROR_NONE, 1);
    AWAIT(world->base, peer->match_count == 1);
}

static void test_receipts_of_stored_messages(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct call *call = world_call(world);
    const struct storage_publication publication = {.bytes = slice_text("x"), .key = slice_text("k")};

    hold_pattern(world, peer, "topic:{a.*}");
    CALL(call, storage_publish_with, peer->storage, slice_text("topic:{a.b}"), &publication);
    world_expect(world, call, ERROR_NONE, 1);
    AWAIT(world->base, peer->match_count == 1);
    assert_string_equal(peer->matches[0].bytes, "x");
}

/* ---- topics ---- */

static struct call *list_topics(struct storage_world *world, struct peer *peer, size_t limit)
{
    struct call *call = world_call(world);

    CALL(call, storage_list_topics, peer->storage, limit);
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    return call;
}

static void test_list_of_topics(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    assert_int_equal(list_topics(world, peer, 10)->number, 0);
    world_subscribe(world, peer, "topic:{a}");
    world_subscribe(world, peer, "topic:{with%20space%7B}");
    world_subscribe(world, peer, "user:{a}");
    hold_pattern(world, peer, "topic:{b.*}");
    struct call *call = list_topics(world, peer, 10);
    assert_int_equal(call->number, 2);
    assert_int_equal(call->record_count, 2);
    assert_string_equal(seen_value(call_record(call, "a"), "instances"), "1");
    assert_string_equal(seen_value(call_record(call, "with space{"), "instances"), "1");
    call = list_topics(world, peer, 1);
    assert_int_equal(call->number, 2);
    assert_int_equal(call->record_count, 1);
    assert_int_equal(list_topics(world, peer, 0)->record_count, 0);
    storage_unsubscribe(peer->storage, slice_text("topic:{a}"));
    world_drain(world, peer);
    assert_int_equal(list_topics(world, peer, 10)->number, 1);
}

static void test_list_of_many_topics(void **state)
{
    enum { MANY = 3000 };
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct call *last = NULL;
    char channel[32];

    for (int i = 0; i < MANY; i++) {
        snprintf(channel, sizeof channel, "topic:{%d}", i);
        last = world_call(world);
        CALL(last, storage_subscribe, peer->storage, slice_text(channel));
    }
    world_expect(world, last, ERROR_NONE, 0);
    struct call *call = list_topics(world, peer, 2500);
    assert_int_equal(call->number, MANY);
    assert_int_equal(call->record_count, 2500);
    for (size_t i = 0; i < call->record_count; i++)
        assert_string_equal(seen_value(&call->records[i], "instances"), "1");
}

static void test_down_and_destroyed(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = &world->peers[0];
    const struct storage_instance instance = {
        .id = "a1", .heartbeat_ms = WORLD_HEARTBEAT_MS, .lease_ms = WORLD_LEASE_MS};
    struct call *early = world_call(world), *cancelled = world_call(world);

    peer_start_as(peer, world->base, world_storage(world->base), &instance);
    CALL(early, storage_list_topics, peer->storage, (size_t)1);
    struct call *refused = subscribe_pattern(world, peer, "topic:{a.*}");
    world_expect(world, early, ERROR_UNAVAILABLE, 0);
    world_expect(world, refused, ERROR_UNAVAILABLE, 0);
    AWAIT(world->base, peer->up_count);
    struct call *held = subscribe_pattern(world, peer, "topic:{a.*}");
    CALL(cancelled, storage_list_topics, peer->storage, (size_t)1);
    storage_destroy(peer->storage);
    peer->storage = NULL;
    assert_int_equal(held->error, ERROR_CANCELLED);
    assert_int_equal(cancelled->error, ERROR_CANCELLED);
}

/* ---- on Redis ---- */

static void test_two_instances(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = world_peer(world, 0), *b = world_peer(world, 1);

    hold_pattern(world, a, "topic:{x.*}");
    world_subscribe(world, a, "topic:{x.y}");
    world_subscribe(world, b, "topic:{x.y}");
    world_publish(world, b, "topic:{x.y}", "1");
    AWAIT(world->base, a->match_count == 1 && a->message_count == 1 && b->message_count == 1);
    assert_int_equal(b->match_count, 0);
    struct call *call = list_topics(world, b, 10);
    assert_int_equal(call->number, 1);
    assert_string_equal(seen_value(call_record(call, "x.y"), "instances"), "2");
}

static void test_restored_after_an_outage(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    hold_pattern(world, peer, "topic:{a.*}");
    hold_pattern(world, peer, "topic:{b.>}");
    hold_pattern(world, peer, "topic:{c.>}");
    redis_fixture_kill(&world_redis);
    AWAIT(world->base, peer->down_count);
    storage_unsubscribe_pattern(peer->storage, slice_text("topic:{c.>}"));
    assert_true(redis_fixture_restart(&world_redis));
    AWAIT(world->base, peer->up_count == 2);
    world_expect(world, world_publish(world, peer, "topic:{a.x}", "1"), ERROR_NONE, 1);
    world_expect(world, world_publish(world, peer, "topic:{b.x.y}", "2"), ERROR_NONE, 1);
    world_expect(world, world_publish(world, peer, "topic:{c.x}", "3"), ERROR_NONE, 0);
    AWAIT(world->base, peer->match_count == 2);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest common[] = {
        WORLD_TEST(test_what_matches),
        WORLD_TEST(test_bytes_and_order),
        WORLD_TEST(test_each_subscription_receives),
        WORLD_TEST(test_unsubscribe_at_once),
        WORLD_TEST(test_receipts_of_stored_messages),
        WORLD_TEST(test_list_of_topics),
        WORLD_TEST(test_list_of_many_topics),
        WORLD_TEST(test_down_and_destroyed),
    };
    static const struct CMUnitTest shared[] = {
        WORLD_TEST(test_two_instances),
        WORLD_TEST(test_restored_after_an_outage),
    };

    if (!world_begin(argc, argv))
        return 1;
    int failed = cmocka_run_group_tests_name("common", common, NULL, NULL);
    if (world_on_redis)
        failed += cmocka_run_group_tests_name("shared", shared, NULL, NULL);
    world_end();
    return failed;
}
