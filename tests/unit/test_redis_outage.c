/* The Redis storage finding its server, and cleaning up after outages and dead instances. */
#include "base/log.h"
#include "proto/errors.h"
#include "storage/redis/storage_redis.h"
#include "tests/lib/await.h"
#include "tests/lib/redis_fixture.h"
#include "tests/lib/storage_fixture.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HEARTBEAT_MS = 200, LEASE_MS = 1000, TIMEOUT_MS = 400, PEERS = 2 };

struct world {
    struct event_base *base;
    struct list calls;
    struct peer peers[PEERS];
};

static struct redis_fixture redis;
static char log_text[65536]; /* what was logged since the test began */
static size_t log_len;

static void keep_log(const char *line, size_t len)
{
    if (log_len + len < sizeof log_text) {
        memcpy(log_text + log_len, line, len);
        log_len += len;
        log_text[log_len] = '\0';
    }
}

/* Asks the server directly; the answer is the caller's to free. */
static redisReply *ask(const char *format, ...)
{
    redisContext *context = redisConnect("127.0.0.1", redis.port);
    va_list args;

    assert_non_null(context);
    va_start(args, format);
    redisReply *reply = redisvCommand(context, format, args);
    va_end(args);
    redisFree(context);
    assert_non_null(reply);
    return reply;
}

static long long ask_number(const char *command)
{
    redisReply *reply = ask(command);
    assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
    long long number = reply->integer;

    freeReplyObject(reply);
    return number;
}

static void tell(const char *command)
{
    redisReply *reply = ask(command);

    assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
    freeReplyObject(reply);
}

static struct peer *open_peer_with(struct world *world, size_t index, const char *id,
                                   struct storage_redis_options options)
{
    struct peer *peer = &world->peers[index];

    options.host = options.host ? options.host : "127.0.0.1";
    options.port = (uint16_t)redis.port;
    options.prefix = "sb:";
    options.timeout_ms = TIMEOUT_MS;
    options.backoff_max_ms = 100;
    struct storage *storage = storage_redis_create(world->base, &options);
    assert_non_null(storage);
    peer_start(peer, world->base, storage, id, HEARTBEAT_MS, LEASE_MS);
    return peer;
}

static struct peer *open_peer(struct world *world, size_t index, const char *id)
{
    struct peer *peer = open_peer_with(world, index, id, (struct storage_redis_options){0});

    AWAIT(world->base, peer->up_count);
    return peer;
}

static int open_world(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    log_len = 0;
    log_text[0] = '\0';
    tell("FLUSHALL");
    world->base = event_base_new();
    list_init(&world->calls);
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    struct world *world = *state;
    int wrong = 0;

    for (size_t i = 0; i < PEERS; i++)
        peer_close(&world->peers[i]);
    list_for_each (link, &world->calls) {
        struct call *call = container_of(link, struct call, link);
        if (call->done != 1 || call->inside)
            wrong = -1;
    }
    calls_free(&world->calls);
    event_base_free(world->base);
    free(world);
    if (!redis.pid && !redis_fixture_restart(&redis))
        return -1;
    return wrong;
}

static struct call *publish(struct world *world, struct peer *peer, const char *channel)
{
    struct call *call = call_new(&world->calls);

    CALL(call, storage_publish, peer->storage, slice_text(channel), slice_text("hello"));
    return call;
}

static struct call *subscribe(struct world *world, struct peer *peer, const char *channel)
{
    struct call *call = call_new(&world->calls);

    CALL(call, storage_subscribe, peer->storage, slice_text(channel));
    return call;
}

static struct call *enter(struct world *world, struct peer *peer, const char *name, bool restore)
{
    struct storage_session session = make_session(name, name, "u", 1);
    struct call *call = call_new(&world->calls);

    CALL(call, storage_register, peer->storage, &session, slice_text(""), restore);
    return call;
}

static struct call *leave(struct world *world, struct peer *peer, const char *name)
{
    struct storage_session session = make_session(name, name, "u", 1);
    struct call *call = call_new(&world->calls);

    CALL(call, storage_unregister, peer->storage, &session);
    return call;
}

static void expect(struct world *world, struct call *call, int error, int64_t number)
{
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, error);
    assert_int_equal(call->number, number);
}

static void expect_serving(struct world *world, struct peer *peer)
{
    size_t before = peer_count(peer, "topic:{x}", NULL);

    expect(world, publish(world, peer, "topic:{x}"), ERROR_NONE, 1);
    AWAIT(world->base, peer_count(peer, "topic:{x}", NULL) == before + 1);
}

static void test_unregistered_while_down(void **state)
{
    struct world *world = *state;
    struct peer *peer = open_peer(world, 0, "a1");

    expect(world, enter(world, peer, "stays", false), ERROR_NONE, 0);
    expect(world, enter(world, peer, "goes", false), ERROR_NONE, 0);
    tell("CLIENT KILL TYPE normal");
    AWAIT(world->base, peer->down_count == 1);
    expect(world, leave(world, peer, "goes"), ERROR_UNAVAILABLE, 0);
    AWAIT(world->base, peer->up_count == 2);
    AWAIT(world->base, strstr(log_text, "leftovers removed"));
    assert_int_equal(ask_number("EXISTS sb:session:{goes}"), 0);
    assert_int_equal(ask_number("EXISTS sb:session:{stays}"), 1);
    assert_int_equal(ask_number("HLEN sb:user:{u}"), 1);
    assert_int_equal(ask_number("SCARD sb:instance:{a1}:sessions"), 1);
}

static void test_dead_instance_is_reaped(void **state)
{
    enum { SESSIONS = 350 };
    struct world *world = *state;
    struct peer *peer = open_peer(world, 0, "a1"), *dying = open_peer(world, 1, "b2");
    struct call *last = NULL;
    char name[16];

    for (size_t i = 0; i < SESSIONS; i++) {
        snprintf(name, sizeof name, "s%zu", i);
        last = enter(world, dying, name, false);
    }
    expect(world, last, ERROR_NONE, 0);
    expect(world, enter(world, peer, "s7", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    peer_close(dying);
    struct call *count = call_new(&world->calls);
    CALL(count, storage_count, peer->storage);
    expect(world, count, ERROR_NONE, 1);
    assert_true(AWAIT_FOR(world->base, LEASE_MS + 1000, peer->reaped_count));
    assert_string_equal(peer->reaped_instance, "b2");
    assert_int_equal(peer->reaped_sessions, SESSIONS - 1);
    assert_int_equal(ask_number("DBSIZE"), 5); /* of a1: session, user, instance, its set, instances */
    assert_int_equal(ask_number("HLEN sb:user:{u}"), 1);
}

static void test_many_channels(void **state)
{
    enum { CHANNELS = 5000 };
    struct world *world = *state;
    struct peer *peer = open_peer(world, 0, "a1");
    struct call *last = NULL;
    char channel[32];

    expect(world, subscribe(world, peer, "topic:{x}"), ERROR_NONE, 0);
    for (size_t i = 0; i < CHANNELS; i++) {
        snprintf(channel, sizeof channel, "topic:{c%zu}", i);
        last = subscribe(world, peer, channel);
    }
    expect(world, last, ERROR_NONE, 0);
    tell("CLIENT KILL TYPE pubsub");
    AWAIT(world->base, peer->down_count == 1);
    for (size_t i = 0; i < CHANNELS; i += 2) {
        snprintf(channel, sizeof channel, "topic:{c%zu}", i);
        storage_unsubscribe(peer->storage, slice_text(channel));
    }
    AWAIT(world->base, peer->up_count == 2);
    expect_serving(world, peer);
    expect(world, publish(world, peer, "topic:{c1001}"), ERROR_NONE, 1);
    expect(world, publish(world, peer, "topic:{c1000}"), ERROR_NONE, 0);
    redisReply *channels = ask("PUBSUB CHANNELS *");
    /* topic:{x} and the three of every instance: its own, patterns, control. */
    assert_int_equal(channels->elements, CHANNELS / 2 + 4);
    freeReplyObject(channels);
}

static void test_wrong_password(void **state)
{
    struct world *world = *state;

    open_peer_with(world, 0, "a1", (struct storage_redis_options){.username = "bob", .password = "no"});
    AWAIT(world->base, strstr(log_text, "WRONGPASS"));
    assert_non_null(strstr(log_text, "check user and password"));
    assert_int_equal(world->peers[0].up_count, 0);
}

static void test_wrong_database(void **state)
{
    struct world *world = *state;

    open_peer_with(world, 0, "a1", (struct storage_redis_options){.database = 99});
    AWAIT(world->base, strstr(log_text, "check the database"));
    assert_int_equal(world->peers[0].up_count, 0);
}

static void test_name_of_host(void **state)
{
    struct world *world = *state;
    struct peer *peer = open_peer_with(world, 0, "a1", (struct storage_redis_options){.host = "localhost"});

    AWAIT(world->base, peer->up_count);
    open_peer_with(world, 1, "b2", (struct storage_redis_options){.host = "no-such-host.invalid"});
    AWAIT(world->base, strstr(log_text, "looking the name up"));
}

#define OUTAGE_TEST(function) cmocka_unit_test_setup_teardown(function, open_world, close_world)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        OUTAGE_TEST(test_unregistered_while_down), OUTAGE_TEST(test_dead_instance_is_reaped),
        OUTAGE_TEST(test_many_channels),           OUTAGE_TEST(test_wrong_password),
        OUTAGE_TEST(test_wrong_database),          OUTAGE_TEST(test_name_of_host),
    };

    if (!redis_fixture_start(&redis))
        return 1;
    log_set_sink(keep_log);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    redis_fixture_kill(&redis);
    return failed;
}
