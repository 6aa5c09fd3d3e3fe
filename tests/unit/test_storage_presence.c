/* Presence, asked of one storage: test_storage_presence memory | redis. */
#include "proto/envelope.h"
#include "proto/errors.h"
#include "tests/lib/await.h"
#include "tests/lib/storage_world.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char topic[] = "topic:{orders.eu}";

static void enter(struct storage_world *world, struct peer *peer, const struct storage_session *session,
                  bool restore)
{
    struct call *call = world_call(world);

    CALL(call, storage_register, peer->storage, session, slice_text(NULL), restore);
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
}

static void unregister(struct storage_world *world, struct peer *peer, const struct storage_session *session,
                       int64_t number)
{
    struct call *call = world_call(world);

    CALL(call, storage_unregister, peer->storage, session);
    world_expect(world, call, ERROR_NONE, number);
}

static struct call *join(struct storage_world *world, struct peer *peer, const char *channel,
                         const struct storage_session *session)
{
    struct call *call = world_call(world);

    CALL(call, storage_presence_join, peer->storage, slice_text(channel), session);
    return call;
}

static struct call *leave(struct storage_world *world, struct peer *peer, const char *channel,
                          const struct storage_session *session)
{
    struct call *call = world_call(world);

    CALL(call, storage_presence_leave, peer->storage, slice_text(channel), session);
    return call;
}

static struct call *list(struct storage_world *world, struct peer *peer, const char *channel, size_t limit)
{
    struct call *call = world_call(world);

    CALL(call, storage_presence_list, peer->storage, slice_text(channel), limit);
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    return call;
}

static void expect_present(struct storage_world *world, struct peer *peer, const char *channel, size_t count)
{
    struct call *call = list(world, peer, channel, 100);

    assert_int_equal(call->number, count);
    assert_int_equal(call->record_count, count);
}

/* Awaits the topic's next message, number `index`, and sees what it tells. */
static void expect_event(struct storage_world *world, struct peer *peer, size_t index, enum message_kind kind,
                         const char *from, const char *user)
{
    struct message_fields fields;

    AWAIT(world->base, peer->message_count > index);
    const struct seen_message *message = &peer->messages[index];
    assert_null(envelope_decode(slice_from(message->bytes, message->len), &fields));
    assert_int_equal(fields.kind, kind);
    assert_true(slice_is(fields.from, from));
    assert_true(slice_is(fields.payload, user));
    assert_true(fields.time_ms > 0);
    if (strcmp(message->channel, topic) == 0)
        assert_true(slice_is(fields.to, "topic:orders.eu"));
}

static void test_joining_and_leaving(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob~c1", "c1", "bob", 1);
    struct storage_session amy = make_session("amy", "c2", NULL, 2);

    world_subscribe(world, peer, topic);
    enter(world, peer, &bob, false);
    enter(world, peer, &amy, false);
    expect_present(world, peer, topic, 0);
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 1);
    expect_event(world, peer, 0, MESSAGE_JOIN, "session:bob~c1", "bob");
    world_expect(world, join(world, peer, topic, &amy), ERROR_NONE, 1);
    expect_event(world, peer, 1, MESSAGE_JOIN, "session:amy", "");
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 0);

    struct call *call = list(world, peer, topic, 100);
    assert_int_equal(call->number, 2);
    assert_int_equal(call->record_count, 2);
    assert_int_equal(call->records[0].field_count, 1);
    assert_string_equal(seen_value(call_record(call, "bob~c1"), "user"), "bob");
    assert_string_equal(seen_value(call_record(call, "amy"), "user"), "");

    world_expect(world, leave(world, peer, topic, &bob), ERROR_NONE, 1);
    expect_event(world, peer, 2, MESSAGE_LEAVE, "session:bob~c1", "bob");
    world_expect(world, leave(world, peer, topic, &bob), ERROR_NONE, 0);
    expect_present(world, peer, topic, 1);
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 1);
    world_drain(world, peer);
    assert_int_equal(peer_count(peer, topic, NULL), 4);
}

static void test_unregistering_leaves(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob", "c1", "u", 1);
    char channel[32];

    enter(world, peer, &bob, false);
    for (int i = 0; i < 20; i++) {
        snprintf(channel, sizeof channel, "topic:{t%d}", i);
        world_expect(world, join(world, peer, channel, &bob), ERROR_NONE, 1);
    }
    world_expect(world, leave(world, peer, "topic:{t3}", &bob), ERROR_NONE, 1);
    world_subscribe(world, peer, "topic:{t3}");
    world_subscribe(world, peer, "topic:{t19}");
    unregister(world, peer, &bob, 1);
    expect_event(world, peer, 0, MESSAGE_LEAVE, "session:bob", "u");
    for (int i = 0; i < 20; i++) {
        snprintf(channel, sizeof channel, "topic:{t%d}", i);
        expect_present(world, peer, channel, 0);
    }
    world_drain(world, peer);
    assert_int_equal(peer_count(peer, "topic:{t19}", NULL), 1);
    assert_int_equal(peer_count(peer, "topic:{t3}", NULL), 0);
    unregister(world, peer, &bob, 0);
}

/* Joining, then going before that is answered: nobody stays behind. */
static void test_leaving_right_away(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob", "c1", "u", 1);

    enter(world, peer, &bob, false);
    join(world, peer, topic, &bob);
    world_expect(world, leave(world, peer, topic, &bob), ERROR_NONE, 1);
    expect_present(world, peer, topic, 0);
    join(world, peer, topic, &bob);
    unregister(world, peer, &bob, 1);
    expect_present(world, peer, topic, 0);
}

static void test_who_may_join(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob", "c1", "u", 1), other = make_session("bob", "c2", "u", 2);
    struct storage_session nameless = make_session("", "c3", "u", 3);

    world_expect(world, join(world, peer, topic, &bob), ERROR_ABSENT, 0);
    enter(world, peer, &bob, false);
    world_expect(world, join(world, peer, topic, &other), ERROR_CONFLICT, 0);
    world_expect(world, join(world, peer, "user:{bob}", &bob), ERROR_BAD_REQUEST, 0);
    world_expect(world, join(world, peer, "topic:{}", &bob), ERROR_BAD_REQUEST, 0);
    world_expect(world, join(world, peer, topic, &nameless), ERROR_BAD_REQUEST, 0);
    expect_present(world, peer, topic, 0);
}

static void test_a_successor_begins_without(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session old = make_session("bob", "c1", "u", 1), young = make_session("bob", "c2", "v", 2);

    world_subscribe(world, peer, topic);
    enter(world, peer, &old, false);
    world_expect(world, join(world, peer, topic, &old), ERROR_NONE, 1);
    world_expect(world, join(world, peer, "topic:{other}", &old), ERROR_NONE, 1);
    enter(world, peer, &young, false);
    expect_event(world, peer, 1, MESSAGE_LEAVE, "session:bob", "u");
    expect_present(world, peer, topic, 0);
    expect_present(world, peer, "topic:{other}", 0);

    world_expect(world, join(world, peer, topic, &young), ERROR_NONE, 1);
    world_expect(world, leave(world, peer, topic, &old), ERROR_NONE, 0);
    world_expect(world, leave(world, peer, "topic:{other}", &old), ERROR_NONE, 0);
    unregister(world, peer, &old, 0);
    struct call *call = list(world, peer, topic, 10);
    assert_int_equal(call->number, 1);
    assert_string_equal(seen_value(call_record(call, "bob"), "user"), "v");
}

static void test_restoring_keeps_presence(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob", "c1", "u", 1);

    world_subscribe(world, peer, topic);
    enter(world, peer, &bob, false);
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 1);
    enter(world, peer, &bob, true);
    enter(world, peer, &bob, true);
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 0);
    expect_present(world, peer, topic, 1);
    unregister(world, peer, &bob, 1);
    expect_present(world, peer, topic, 0);
    world_drain(world, peer);
    assert_int_equal(peer_count(peer, topic, NULL), 2);
}

static void test_names_and_limits(void **state)
{
    static const char *const names[] = {"with space", "{braces}",   "100%",
                                        "a.b*c",      "Zo\xc3\xab", "\xe3\x80\x80x"};
    enum { COUNT = sizeof names / sizeof *names };
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    for (size_t i = 0; i < COUNT; i++) {
        struct storage_session session = make_session(names[i], "c1", names[i], 1);
        enter(world, peer, &session, false);
        world_expect(world, join(world, peer, "topic:{%20%7Bx}", &session), ERROR_NONE, 1);
        world_expect(world, join(world, peer, "topic:{y}", &session), ERROR_NONE, 1);
    }
    struct call *call = list(world, peer, "topic:{%20%7Bx}", 100);
    assert_int_equal(call->record_count, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_string_equal(seen_value(call_record(call, names[i]), "user"), names[i]);
    call = list(world, peer, "topic:{%20%7Bx}", 4);
    assert_int_equal(call->number, COUNT);
    assert_int_equal(call->record_count, 4);
    call = list(world, peer, "topic:{%20%7Bx}", 0);
    assert_int_equal(call->number, COUNT);
    assert_int_equal(call->record_count, 0);
    for (size_t i = 0; i < COUNT; i++) {
        struct storage_session session = make_session(names[i], "c1", names[i], 1);
        unregister(world, peer, &session, 1);
    }
    expect_present(world, peer, "topic:{%20%7Bx}", 0);
    expect_present(world, peer, "topic:{y}", 0);
}

static void test_down_and_destroyed(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session bob = make_session("bob", "c1", "u", 1);
    const struct storage_instance instance = {
        .id = "a1", .heartbeat_ms = WORLD_HEARTBEAT_MS, .lease_ms = WORLD_LEASE_MS};

    peer_start_as(peer, world->base, world_storage(world->base), &instance);
    for (int round = 0; round < 2; round++) {
        struct call *calls[] = {join(world, peer, topic, &bob), leave(world, peer, topic, &bob),
                                world_call(world)};
        CALL(calls[2], storage_presence_list, peer->storage, slice_text(topic), (size_t)1);
        if (round == 1) {
            storage_destroy(peer->storage);
            peer->storage = NULL;
        }
        for (size_t i = 0; i < 3; i++)
            world_expect(world, calls[i], round ? ERROR_CANCELLED : ERROR_UNAVAILABLE, 0);
        AWAIT(world->base, peer->up_count);
    }
}

/* ---- on Redis ---- */

static void test_a_crashed_instance_leaves(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = world_peer(world, 0), *b = world_peer(world, 1);
    struct storage_session bob = make_session("bob", "c1", "u", 1), amy = make_session("amy", "c2", "v", 2);

    world_subscribe(world, a, topic);
    enter(world, a, &amy, false);
    enter(world, b, &bob, false);
    world_expect(world, join(world, a, topic, &amy), ERROR_NONE, 1);
    world_expect(world, join(world, b, topic, &bob), ERROR_NONE, 1);
    world_expect(world, join(world, b, "topic:{other}", &bob), ERROR_NONE, 1);
    expect_present(world, a, topic, 2);
    peer_close(b);
    expect_event(world, a, 2, MESSAGE_LEAVE, "session:bob", "u");
    AWAIT(world->base, a->reaped_count);
    expect_present(world, a, topic, 1);
    expect_present(world, a, "topic:{other}", 0);
}

static void test_a_takeover_between_instances_leaves(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = world_peer(world, 0), *b = world_peer(world, 1);
    struct storage_session old = make_session("bob", "c1", "u", 1), young = make_session("bob", "c2", "u", 2);

    world_subscribe(world, a, topic);
    enter(world, a, &old, false);
    world_expect(world, join(world, a, topic, &old), ERROR_NONE, 1);
    enter(world, b, &young, false);
    expect_event(world, a, 1, MESSAGE_LEAVE, "session:bob", "u");
    world_expect(world, join(world, b, topic, &young), ERROR_NONE, 1);
    world_expect(world, leave(world, a, topic, &old), ERROR_NONE, 0);
    unregister(world, a, &old, 0);
    expect_present(world, a, topic, 1);
}

static void test_joining_again_after_data_loss(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob", "c1", "u", 1);

    world_subscribe(world, peer, topic);
    enter(world, peer, &bob, false);
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 1);
    redis_fixture_kill(&world_redis);
    AWAIT(world->base, peer->down_count);
    assert_true(redis_fixture_restart(&world_redis));
    AWAIT(world->base, peer->lost_count);
    world_expect(world, join(world, peer, topic, &bob), ERROR_ABSENT, 0);
    enter(world, peer, &bob, true);
    world_expect(world, join(world, peer, topic, &bob), ERROR_NONE, 1);
    expect_present(world, peer, topic, 1);
}

static char *ask_text(const char *command, const char *key, const char *field)
{
    redisContext *redis = redisConnect("127.0.0.1", world_redis.port);
    redisReply *reply = redisCommand(redis, "%s %s %s", command, key, field);

    assert_non_null(reply);
    char *text = reply->str ? strdup(reply->str) : NULL;
    freeReplyObject(reply);
    redisFree(redis);
    return text;
}

static void test_keys_are_as_documented(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct storage_session bob = make_session("bob b", "c1", "u", 1);
    char presence[128], session[128], *text;

    snprintf(presence, sizeof presence, "%spresence:{a%%20b}", world_prefix);
    snprintf(session, sizeof session, "%ssession:{bob%%20b}", world_prefix);
    enter(world, peer, &bob, false);
    world_expect(world, join(world, peer, "topic:{a%20b}", &bob), ERROR_NONE, 1);
    world_expect(world, join(world, peer, "topic:{c}", &bob), ERROR_NONE, 1);
    assert_string_equal(text = ask_text("HGET", presence, "bob b"), "u");
    free(text);
    assert_string_equal(text = ask_text("HGET", session, "presence"), "a%20b c");
    free(text);
    world_expect(world, leave(world, peer, "topic:{a%20b}", &bob), ERROR_NONE, 1);
    assert_null(ask_text("HGET", presence, "bob b"));
    assert_string_equal(text = ask_text("HGET", session, "presence"), "c");
    free(text);
    world_expect(world, leave(world, peer, "topic:{c}", &bob), ERROR_NONE, 1);
    assert_null(ask_text("HGET", session, "presence"));
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest common[] = {
        WORLD_TEST(test_joining_and_leaving),        WORLD_TEST(test_unregistering_leaves),
        WORLD_TEST(test_leaving_right_away),         WORLD_TEST(test_who_may_join),
        WORLD_TEST(test_a_successor_begins_without), WORLD_TEST(test_restoring_keeps_presence),
        WORLD_TEST(test_names_and_limits),           WORLD_TEST(test_down_and_destroyed),
    };
    static const struct CMUnitTest shared[] = {
        WORLD_TEST(test_a_crashed_instance_leaves),
        WORLD_TEST(test_a_takeover_between_instances_leaves),
        WORLD_TEST(test_joining_again_after_data_loss),
        WORLD_TEST(test_keys_are_as_documented),
    };

    if (!world_begin(argc, argv))
        return 1;
    int failed = cmocka_run_group_tests_name("common", common, NULL, NULL);
    if (world_on_redis)
        failed += cmocka_run_group_tests_name("shared", shared, NULL, NULL);
    world_end();
    return failed;
}
