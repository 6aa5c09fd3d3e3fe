/* Messages for a process's own sessions, which don't wait for Redis: nobody may be able to tell, other than by the
 * time. test_storage_direct redis */
#include "proto/envelope.h"
#include "proto/errors.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/await.h"
#include "tests/lib/storage_world.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BOB "session:{bob}"

static struct message_fields numbered(char text[static 16], size_t number)
{
    size_t len = (size_t)snprintf(text, 16, "%zu", number);

    return (struct message_fields){.kind = MESSAGE_DATA, .from = slice_text("session:eve"), .payload = {text, len}};
}

/* The caller's to close. */
static struct buffer encoded(const struct message_fields *fields)
{
    struct buffer bytes;

    buffer_init(&bytes, 0);
    assert_true(envelope_encode(fields, &bytes));
    return bytes;
}

static struct call *publish(struct storage_world *world, struct peer *peer, const char *channel, size_t number)
{
    struct call *call = world_call(world);
    char text[16];
    const struct message_fields fields = numbered(text, number);
    struct buffer bytes = encoded(&fields);

    CALL(call, storage_publish, peer->storage, slice_text(channel), slice_from(bytes.data, bytes.len));
    buffer_close(&bytes);
    return call;
}

static struct call *store(struct storage_world *world, struct peer *peer, const char *channel, size_t number)
{
    struct call *call = world_call(world);
    char text[16];
    const struct message_fields fields = numbered(text, number);
    struct buffer bytes;

    buffer_init(&bytes, 0);
    assert_true(envelope_encode_open(&fields, &bytes));
    const struct storage_publication publication = {
        .bytes = {bytes.data, bytes.len}, .fields = &fields, .store = true};
    CALL(call, storage_publish_with, peer->storage, slice_text(channel), &publication);
    buffer_close(&bytes);
    return call;
}

static struct call *enroll(struct storage_world *world, struct peer *peer, const char *conn)
{
    static uint64_t clock = 1700000000000;
    const struct storage_session session = make_session("bob", conn, NULL, clock++);
    const struct message_fields notice = {.kind = MESSAGE_TAKEOVER, .correlation = slice_text(conn)};
    struct call *call = world_call(world);
    struct buffer bytes = encoded(&notice);

    CALL(call, storage_register, peer->storage, &session, slice_from(bytes.data, bytes.len), false);
    buffer_close(&bytes);
    return call;
}

/* A peer that holds bob. */
static struct peer *holder(struct storage_world *world, size_t index, const char *conn)
{
    struct peer *peer = world_peer(world, index);

    world_subscribe(world, peer, BOB);
    world_expect(world, enroll(world, peer, conn), ERROR_NONE, 0);
    return peer;
}

static bool is_notice(const struct seen_message *message)
{
    return envelope_kind(slice_from(message->bytes, message->len)) == MESSAGE_TAKEOVER;
}

/* The number in the message; -1: it has none. */
static int64_t number_of(const struct seen_message *message)
{
    struct message_fields fields;
    char text[16] = "";

    assert_null(envelope_decode(slice_from(message->bytes, message->len), &fields));
    if (fields.kind != MESSAGE_DATA)
        return -1;
    memcpy(text, fields.payload.data, fields.payload.len);
    return atoll(text);
}

/* How many messages for bob a peer has seen, notices aside. */
static size_t seen(const struct peer *peer)
{
    size_t count = 0;

    for (size_t i = 0; i < peer->message_count; i++)
        count += strcmp(peer->messages[i].channel, BOB) == 0 && !is_notice(&peer->messages[i]);
    return count;
}

static redisContext *operator_connection(void)
{
    redisContext *plain = redisConnect("127.0.0.1", world_redis.port);

    assert_non_null(plain);
    assert_int_equal(plain->err, 0);
    return plain;
}

/* How many PUBLISH there were, those of heartbeats' probes included. */
static size_t publish_count(redisContext *plain)
{
    redisReply *reply = redisCommand(plain, "INFO commandstats");
    const char *line = strstr(reply->str, "cmdstat_publish:calls=");
    size_t count = line ? (size_t)atoll(strchr(line, '=') + 1) : 0;

    freeReplyObject(reply);
    return count;
}

/* Publishes one message the ordinary way, so that the next ones need not take it. */
static void settle(struct storage_world *world, struct peer *peer)
{
    size_t before = seen(peer);

    world_expect(world, publish(world, peer, BOB, 0), ERROR_NONE, 1);
    AWAIT(world->base, seen(peer) == before + 1);
}

/* Publishes one and tells whether it was delivered while Redis stood still. */
static bool is_direct(struct storage_world *world, struct peer *peer, size_t number)
{
    size_t before = seen(peer);
    redis_fixture_pause(&world_redis);
    struct call *call = publish(world, peer, BOB, number);

    assert_int_equal(event_base_loop(world->base, EVLOOP_ONCE | EVLOOP_NONBLOCK), 0);
    redis_fixture_resume(&world_redis);
    bool at_once = seen(peer) == before + 1 && call->done == 1;
    AWAIT(world->base, call->done && seen(peer) == before + 1);
    assert_int_equal(call->error, ERROR_NONE);
    return at_once;
}

/* ---- what it is for ---- */

static void test_redis_is_not_asked(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = holder(world, 0, "c1");
    redisContext *plain = operator_connection();

    settle(world, peer);
    assert_true(is_direct(world, peer, 1)); /* and asks who else listens */
    world_drain(world, peer);
    size_t before = publish_count(plain), count = seen(peer);
    struct call *last = NULL;
    for (size_t i = 0; i < 1000; i++)
        last = publish(world, peer, BOB, i + 2);
    AWAIT(world->base, last->done);
    assert_int_equal(seen(peer), count + 1000);
    assert_in_range(publish_count(plain) - before, 0, 20);
    redisFree(plain);
}

static void test_not_without_a_registration(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    world_subscribe(world, peer, BOB);
    settle(world, peer);
    settle(world, peer);
    assert_false(is_direct(world, peer, 1));
}

static void test_not_for_what_others_may_share(void **state)
{
    static const char *const channels[] = {"user:{bob}", "topic:{bob}"};
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1"), *b = world_peer(world, 1);

    for (size_t i = 0; i < 2; i++) {
        world_subscribe(world, a, channels[i]);
        world_expect(world, publish(world, a, channels[i], 1), ERROR_NONE, 1);
        world_subscribe(world, b, channels[i]);
        world_expect(world, publish(world, a, channels[i], 2), ERROR_NONE, 2);
        AWAIT(world->base, peer_count(b, channels[i], NULL) == 1);
    }
}

static void test_switched_off(void **state)
{
    struct storage_world *world = *state;

    world_through_redis = true;
    struct peer *peer = holder(world, 0, "c1");
    world_through_redis = false;
    settle(world, peer);
    settle(world, peer);
    assert_false(is_direct(world, peer, 1));
}

/* ---- order ---- */

static void test_nothing_overtakes(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = holder(world, 0, "c1");
    size_t sent = 0, direct = 0;
    struct call *last = NULL, *calls[4 * 400];

    srand(1);
    for (size_t round = 0; round < 400; round++) {
        for (int burst = rand() % 4; burst >= 0; burst--) {
            bool stored = rand() % 8 == 0;
            size_t before = seen(peer);
            last = calls[sent] = stored ? store(world, peer, BOB, sent) : publish(world, peer, BOB, sent);
            sent++;
            if (!burst && !stored && before == sent - 1) {
                assert_int_equal(event_base_loop(world->base, EVLOOP_ONCE | EVLOOP_NONBLOCK), 0);
                direct += seen(peer) == sent;
            }
        }
        if (rand() % 3 == 0)
            AWAIT(world->base, last->done && seen(peer) == sent);
        else
            event_base_loop(world->base, EVLOOP_ONCE | (rand() % 2 ? EVLOOP_NONBLOCK : 0));
    }
    AWAIT(world->base, last->done && seen(peer) == sent);
    int64_t expected = 0;
    for (size_t i = 0; i < peer->message_count; i++)
        if (strcmp(peer->messages[i].channel, BOB) == 0 && !is_notice(&peer->messages[i]))
            assert_int_equal(number_of(&peer->messages[i]), expected++);
    assert_int_equal(expected, sent);
    for (size_t i = 1; i < sent; i++)
        assert_true(calls[i]->rank > calls[i - 1]->rank);
    assert_in_range(direct, 20, sent);
}

/* Redis writes to the subscriber before the publisher when it has had something for the publisher already. So the message
 * is often back before the answer, and the next one could be answered first. */
static void test_answers_are_in_order(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = holder(world, 0, "c1");

    for (size_t i = 0; i < 300; i++) {
        size_t before = seen(peer);
        struct call *calls[4];
        calls[0] = publish(world, peer, "user:{nobody}", i);
        calls[1] = store(world, peer, BOB, i);
        calls[2] = publish(world, peer, BOB, i);
        AWAIT(world->base, seen(peer) >= before + 2);
        calls[3] = publish(world, peer, BOB, i);
        AWAIT(world->base, calls[3]->done && seen(peer) == before + 3);
        for (size_t k = 1; k < 4; k++)
            assert_true(calls[k]->rank > calls[k - 1]->rank);
    }
}

static void test_a_callback_may_publish(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = holder(world, 0, "c1");

    settle(world, peer);
    for (size_t i = 1; i <= 5; i++)
        assert_true(is_direct(world, peer, i));
    world_expect(world, publish(world, peer, "session:{nobody}", 1), ERROR_NONE, 0);
}

/* ---- takeover ---- */

/* bob changes hands between two peers while both publish to him without a pause: each message is in one hand's
 * share, and each sender's are in order. A hand's share is what it got from its own notice to the next. */
static void test_each_message_is_in_one_hand(void **state)
{
    enum { CHANGES = 40, MESSAGES_MAX = 100000 };
    struct storage_world *world = *state;
    struct peer *peers[] = {holder(world, 0, "first"), world_peer(world, 1)};
    bool *taken = calloc(MESSAGES_MAX, sizeof *taken);
    unsigned char *sender = calloc(MESSAGES_MAX, 1);
    size_t sent = 0;
    struct call *last = NULL;

    for (size_t i = 0; i < 50; i++)
        settle(world, peers[0]);
    size_t from[2] = {peers[0]->message_count, 0};
    srand(2);
    for (size_t change = 1; change <= CHANGES; change++) {
        struct peer *next = peers[change % 2], *former = peers[1 - change % 2];
        char conn[16];
        snprintf(conn, sizeof conn, "c%zu", change);
        world_subscribe(world, next, BOB);
        struct call *enrolled = enroll(world, next, conn);
        size_t notices = 0, seen = former->message_count;
        /* The former one stops at the notice, and leaves at the end of that turn. */
        while (!notices) {
            assert_true(sent + 10 < MESSAGES_MAX);
            for (int burst = rand() % 3; burst > 0; burst--)
                sender[sent] = former == peers[1], last = publish(world, former, BOB, sent++);
            event_base_loop(world->base, EVLOOP_ONCE);
            for (; seen < former->message_count; seen++)
                notices += is_notice(&former->messages[seen]);
        }
        storage_unsubscribe(former->storage, slice_text(BOB));
        AWAIT(world->base, enrolled->done);
        /* Long enough to be used directly, or not. */
        for (int i = rand() % 6; i > 0; i--) {
            sender[sent] = next == peers[1], last = publish(world, next, BOB, sent++);
            if (rand() % 2)
                AWAIT(world->base, last->done);
        }
        AWAIT(world->base, last->done);
        world_drain(world, next);
    }
    /* Each peer's messages in its hands: from its own notice on until another's. */
    int64_t latest[2][2] = {{-1, -1}, {-1, -1}};
    size_t count = 0;
    for (size_t p = 0; p < 2; p++) {
        bool holds = p == 0;
        size_t turn = 0;
        for (size_t i = from[p]; i < peers[p]->message_count; i++) {
            const struct seen_message *message = &peers[p]->messages[i];
            struct message_fields fields;
            if (strcmp(message->channel, BOB) != 0)
                continue;
            assert_null(envelope_decode(slice_from(message->bytes, message->len), &fields));
            if (fields.kind == MESSAGE_TAKEOVER) {
                char conn[16] = "";
                memcpy(conn, fields.correlation.data, fields.correlation.len);
                turn = (size_t)atoll(conn + 1);
                holds = turn % 2 == p;
            } else if (holds) {
                int64_t number = number_of(message);
                assert_in_range(number, 0, sent - 1);
                assert_false(taken[number]);
                assert_true(number > latest[p][sender[number]]);
                latest[p][sender[number]] = number;
                taken[number] = true;
                count++;
            }
        }
    }
    free(taken);
    free(sender);
    assert_int_equal(count, sent);
}

static void test_another_connection_of_the_same_process(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = holder(world, 0, "c1");

    settle(world, peer);
    assert_true(is_direct(world, peer, 1));
    struct call *enrolled = enroll(world, peer, "c2");
    assert_false(is_direct(world, peer, 2)); /* behind the notice */
    AWAIT(world->base, enrolled->done);
    assert_int_equal(enrolled->number, STORAGE_REPLACED_SOMEBODY);
    settle(world, peer);
    assert_true(is_direct(world, peer, 3));
}

/* In one turn: a message is queued, then a notice is read. Nothing may be delivered here behind it. */
static void test_what_is_queued_at_a_notice_goes_through_redis(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1"), *b = world_peer(world, 1);
    redisContext *plain = operator_connection();
    const struct message_fields notice = {.kind = MESSAGE_TAKEOVER, .correlation = slice_text("c2")};
    struct buffer bytes;

    settle(world, a);
    world_subscribe(world, b, BOB);
    buffer_init(&bytes, 0);
    assert_true(envelope_encode(&notice, &bytes));
    redisReply *reply = redisCommand(plain, "PUBLISH %b%s %b", world_prefix, strlen(world_prefix), BOB, bytes.data, bytes.len);
    assert_int_equal(reply->integer, 2);
    freeReplyObject(reply);
    buffer_close(&bytes);
    size_t before = a->message_count;
    struct call *call = publish(world, a, BOB, 1);
    AWAIT(world->base, call->done);
    world_drain(world, a);
    world_drain(world, b);
    bool noticed = false, taken = false;
    for (size_t i = before; i < a->message_count; i++) {
        noticed = noticed || is_notice(&a->messages[i]);
        taken = taken || (!noticed && strcmp(a->messages[i].channel, BOB) == 0);
    }
    assert_true(noticed);
    assert_int_equal(seen(b), !taken);
    assert_false(is_direct(world, a, 2));
    redisFree(plain);
}

/* ---- whoever watches ---- */

static int64_t watched(redisContext *plain)
{
    struct message_fields fields;
    redisReply *reply = NULL;
    char text[16] = "";

    assert_int_equal(redisGetReply(plain, (void **)&reply), REDIS_OK);
    assert_int_equal(reply->elements, 3);
    assert_string_equal(reply->element[0]->str, "message");
    assert_null(envelope_decode(slice_from(reply->element[2]->str, reply->element[2]->len), &fields));
    memcpy(text, fields.payload.data, fields.payload.len);
    freeReplyObject(reply);
    return atoll(text);
}

static redisContext *watch(void)
{
    redisContext *plain = operator_connection();
    struct timeval patience = {.tv_sec = 20};

    redisSetTimeout(plain, patience);
    freeReplyObject(redisCommand(plain, "SUBSCRIBE %s" BOB, world_prefix));
    return plain;
}

static void test_who_watches_sees_everything(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1");

    settle(world, a);
    redisContext *plain = watch();
    for (size_t i = 1; i <= 100; i++) {
        assert_true(is_direct(world, a, i));
        assert_int_equal(watched(plain), i);
    }
    world_drain(world, a);
    assert_int_equal(seen(a), 101);
    redisFree(plain);
}

static void test_who_comes_later_sees_the_first_after_a_pause(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1");

    settle(world, a);
    for (size_t i = 1; i <= 10; i++)
        assert_true(is_direct(world, a, i));
    redisContext *plain = watch();
    /* The pause is the thing itself here: that nobody listened was learned within the last 250 ms. */
    AWAIT_FOR(world->base, 300, false);
    for (size_t i = 11; i <= 20; i++) {
        assert_true(is_direct(world, a, i));
        assert_int_equal(watched(plain), i);
    }
    redisFree(plain);
}

/* ---- ends ---- */

static void test_destroyed_with_a_message_queued(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1");

    settle(world, a);
    struct call *call = publish(world, a, BOB, 1);
    peer_close(a);
    assert_int_equal(call->done, 1);
    assert_int_equal(call->error, ERROR_CANCELLED);
}

static void test_after_an_outage_it_begins_anew(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1");

    settle(world, a);
    assert_true(is_direct(world, a, 1));
    redis_fixture_kill(&world_redis);
    AWAIT(world->base, a->down_count);
    world_expect(world, publish(world, a, BOB, 2), ERROR_UNAVAILABLE, 0);
    assert_true(redis_fixture_restart(&world_redis));
    AWAIT(world->base, a->up_count == 2);
    settle(world, a);
    assert_false(is_direct(world, a, 3)); /* not registered again yet */
    world_expect(world, enroll(world, a, "c1"), ERROR_NONE, 0);
    settle(world, a);
    assert_true(is_direct(world, a, 4));
}

static void test_memory_short(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = holder(world, 0, "c1");

    settle(world, a);
    world_drain(world, a);
    char *large = calloc(1, 100000);
    const struct message_fields fields = {.kind = MESSAGE_DATA, .payload = {large, 100000}};
    struct buffer bytes;
    buffer_init(&bytes, 0);
    assert_true(envelope_encode(&fields, &bytes));
    size_t before = seen(a);
    struct call *call = world_call(world);
    alloc_fixture_fail(1);
    CALL(call, storage_publish, a->storage, slice_text(BOB), slice_from(bytes.data, bytes.len));
    assert_true(alloc_fixture_failed());
    alloc_fixture_fail(0);
    world_expect(world, call, ERROR_NO_MEMORY, 0);
    assert_int_equal(seen(a), before);
    assert_true(is_direct(world, a, 1));
    buffer_close(&bytes);
    free(large);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        WORLD_TEST(test_redis_is_not_asked),
        WORLD_TEST(test_not_without_a_registration),
        WORLD_TEST(test_not_for_what_others_may_share),
        WORLD_TEST(test_switched_off),
        WORLD_TEST(test_nothing_overtakes),
        WORLD_TEST(test_answers_are_in_order),
        WORLD_TEST(test_a_callback_may_publish),
        WORLD_TEST(test_each_message_is_in_one_hand),
        WORLD_TEST(test_another_connection_of_the_same_process),
        WORLD_TEST(test_what_is_queued_at_a_notice_goes_through_redis),
        WORLD_TEST(test_who_watches_sees_everything),
        WORLD_TEST(test_who_comes_later_sees_the_first_after_a_pause),
        WORLD_TEST(test_destroyed_with_a_message_queued),
        WORLD_TEST(test_after_an_outage_it_begins_anew),
        WORLD_TEST(test_memory_short),
    };

    if (!world_begin(argc, argv) || !world_on_redis)
        return 1;
    alloc_fixture_install();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += alloc_fixture_remove() != 0;
    world_end();
    return failed;
}
