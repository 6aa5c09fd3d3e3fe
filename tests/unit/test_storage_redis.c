/* What the Redis storage promises when processes, connections, data or Redis itself are lost, and the keys an
 * operator sees. */
#include "base/clock.h"
#include "proto/errors.h"
#include "proto/message.h"
#include "storage/redis/storage_redis.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/await.h"
#include "tests/lib/redis_fixture.h"
#include "tests/lib/storage_fixture.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { HEARTBEAT_MS = 150, LEASE_MS = 900, TIMEOUT_MS = 400 };

struct world {
    struct event_base *base;
    struct list calls;
    struct redis_fixture redis;
    redisContext *plain; /* a plain connection, as redis-cli has */
    struct peer a, b;
    pid_t child; /* another broker; 0: none */
};

static struct storage *create_with(struct event_base *base, const struct redis_fixture *redis,
                                   const char *password, uint32_t database)
{
    const struct storage_redis_options options = {.host = "127.0.0.1",
                                                  .port = (uint16_t)redis->port,
                                                  .password = password,
                                                  .database = database,
                                                  .prefix = "sb:",
                                                  .timeout_ms = TIMEOUT_MS,
                                                  .backoff_max_ms = 100};
    return storage_redis_create(base, &options);
}

static void start_peer(struct world *world, struct peer *peer, const char *id)
{
    struct storage *storage = create_with(world->base, &world->redis, NULL, 0);

    assert_non_null(storage);
    peer_start(peer, world->base, storage, id, HEARTBEAT_MS, LEASE_MS);
}

static void connect_operator(struct world *world)
{
    world->plain = redisConnect("127.0.0.1", world->redis.port);
    assert_non_null(world->plain);
    assert_int_equal(world->plain->err, 0);
}

/* A Redis, and no peer yet. */
static int open_redis(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    world->base = event_base_new();
    list_init(&world->calls);
    *state = world;
    if (!redis_fixture_start(&world->redis))
        return -1;
    connect_operator(world);
    return 0;
}

static int open_world(void **state)
{
    if (open_redis(state) != 0)
        return -1;
    struct world *world = *state;
    start_peer(world, &world->a, "a1");
    AWAIT(world->base, world->a.up_count);
    return 0;
}

static int close_world(void **state)
{
    struct world *world = *state;
    int wrong = 0;

    peer_close(&world->a);
    peer_close(&world->b);
    if (world->child) {
        kill(world->child, SIGKILL);
        waitpid(world->child, NULL, 0);
    }
    list_for_each (link, &world->calls) {
        struct call *call = container_of(link, struct call, link);
        wrong -= call->done != 1 || call->inside;
    }
    if (wrong)
        print_error("%d requests were not called back once\n", -wrong);
    calls_free(&world->calls);
    if (world->plain)
        redisFree(world->plain);
    redis_fixture_kill(&world->redis);
    event_base_free(world->base);
    free(world);
    return wrong;
}

static struct call *new_call(struct world *world)
{
    return call_new(&world->calls);
}

static void expect(struct world *world, struct call *call, int error, int64_t number)
{
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, error);
    assert_int_equal(call->number, number);
}

static void subscribe(struct world *world, struct peer *peer, const char *channel)
{
    struct call *call = new_call(world);

    CALL(call, storage_subscribe, peer->storage, slice_text(channel));
    expect(world, call, ERROR_NONE, 0);
}

static struct call *publish(struct world *world, struct peer *peer, const char *channel, const char *text)
{
    struct call *call = new_call(world);

    CALL(call, storage_publish, peer->storage, slice_text(channel), slice_text(text));
    return call;
}

static struct call *enter(struct world *world, struct peer *peer, const struct storage_session *session,
                          const char *notice, bool restore)
{
    struct call *call = new_call(world);

    CALL(call, storage_register, peer->storage, session, slice_text(notice), restore);
    return call;
}

static int64_t count_sessions(struct world *world, struct peer *peer)
{
    struct call *call = new_call(world);

    CALL(call, storage_count, peer->storage);
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    return call->number;
}

/* ---- the operator ---- */

static redisReply *ask(struct world *world, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    redisReply *reply = redisvCommand(world->plain, format, args);
    va_end(args);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s: %s", format, reply->str);
    return reply;
}

static long long ask_number(struct world *world, const char *format, const char *arg)
{
    redisReply *reply = ask(world, format, arg);
    long long number = reply->integer;

    assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
    freeReplyObject(reply);
    return number;
}

static void tell(struct world *world, const char *command)
{
    freeReplyObject(ask(world, command));
}

/* The hash has exactly these fields; a value of NULL stands for any. */
static void expect_hash(struct world *world, const char *key, const char *const *pairs, size_t pair_count)
{
    redisReply *reply = ask(world, "HGETALL %s", key);

    assert_int_equal(reply->elements, 2 * pair_count);
    for (size_t i = 0; i < pair_count; i++) {
        const char *value = NULL;
        for (size_t j = 0; j < reply->elements; j += 2)
            if (strcmp(reply->element[j]->str, pairs[2 * i]) == 0)
                value = reply->element[j + 1]->str;
        if (!value)
            fail_msg("%s has no %s", key, pairs[2 * i]);
        if (pairs[2 * i + 1])
            assert_string_equal(value, pairs[2 * i + 1]);
    }
    freeReplyObject(reply);
}

/* All keys but Redis's own, one a line, sorted. */
static void expect_keys(struct world *world, const char *const *keys, size_t count)
{
    redisReply *reply = ask(world, "KEYS *");

    for (size_t i = 0; i < reply->elements; i++) {
        bool known = false;
        for (size_t j = 0; j < count; j++)
            known = known || strcmp(reply->element[i]->str, keys[j]) == 0;
        if (!known)
            fail_msg("there is a key %s", reply->element[i]->str);
    }
    assert_int_equal(reply->elements, count);
    freeReplyObject(reply);
}

static void test_keys_are_as_documented(void **state)
{
    static const char *const session_fields[] = {"conn",         "c1",
                                                 "instance",     "a1",
                                                 "route",        "/websocket/{uid}",
                                                 "user",         "u 1",
                                                 "face",         "plain",
                                                 "remote",       "192.0.2.1:50000",
                                                 "agent",        "Mozilla/5.0 (test)",
                                                 "connected_at", "2023-11-14T22:13:20.123Z"};
    static const char *const user_fields[] = {"bob {1}", "a1"};
    static const char *const keys[] = {"sb:session:{bob%20%7B1%7D}", "sb:user:{u%201}", "sb:instance:{a1}",
                                       "sb:instance:{a1}:sessions", "sb:instances"};
    static const char *const idle[] = {"sb:instance:{a1}", "sb:instances"};
    struct world *world = *state;
    struct storage_session session = make_session("bob {1}", "c1", "u 1", UINT64_C(1700000000123));
    char pid[24];

    subscribe(world, &world->a, "session:{bob%20%7B1%7D}");
    assert_int_equal(ask_number(world, "PUBLISH %s hello", "sb:session:{bob%%20%%7B1%%7D}"), 0);
    assert_int_equal(ask_number(world, "PUBLISH %s hello", "sb:session:{bob%20%7B1%7D}"), 1);
    expect(world, enter(world, &world->a, &session, "notice", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    AWAIT(world->base, world->a.message_count == 2);
    assert_true(seen_is(&world->a.messages[0], "session:{bob%20%7B1%7D}", "hello"));

    expect_keys(world, keys, 5);
    expect_hash(world, keys[0], session_fields, 8);
    expect_hash(world, keys[1], user_fields, 1);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    const char *const instance_fields[] = {"host",         "broker.example",
                                           "pid",          pid,
                                           "listen",       "127.0.0.1:8080",
                                           "version",      "1.2.3",
                                           "started_at",   "2023-11-14T22:13:20.123Z",
                                           "sessions",     "1",
                                           "heartbeat_at", NULL};
    expect_hash(world, "sb:instance:{a1}", instance_fields, 7);
    redisReply *reply = ask(world, "SMEMBERS sb:instance:{a1}:sessions");
    assert_int_equal(reply->elements, 1);
    assert_string_equal(reply->element[0]->str, "bob {1}");
    freeReplyObject(reply);
    reply = ask(world, "ZSCORE sb:instances a1");
    double now = (double)clock_wall_ms();
    assert_true(atof(reply->str) > now - 5000 && atof(reply->str) < now + 5000);
    freeReplyObject(reply);
    assert_int_equal(ask_number(world, "PUBLISH %s stop", "sb:instance:{a1}"), 1);
    assert_int_equal(ask_number(world, "PUBLISH %s stop", "sb:control"), 1);

    struct call *gone = new_call(world), *left = new_call(world);
    CALL(gone, storage_unregister, world->a.storage, &session);
    expect(world, gone, ERROR_NONE, 1);
    expect_keys(world, idle, 2);
    CALL(left, storage_leave, world->a.storage);
    expect(world, left, ERROR_NONE, 0);
    expect_keys(world, NULL, 0);
}

/* ---- another broker, in a process of its own ---- */

enum { CHILD_SESSIONS = 1200 };

static void run_child(int port, int ready)
{
    struct world world = {.redis.port = port};
    struct call *last = NULL;
    char name[16];

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
    world.base = event_base_new();
    list_init(&world.calls);
    start_peer(&world, &world.b, "b2");
    AWAIT(world.base, world.b.up_count);
    subscribe(&world, &world.b, "session:{bob}");
    struct storage_session bob = make_session("bob", "b-bob", "u", 1000);
    enter(&world, &world.b, &bob, "", false);
    for (size_t i = 1; i < CHILD_SESSIONS; i++) {
        snprintf(name, sizeof name, "s%zu", i);
        struct storage_session session = make_session(name, name, i % 2 ? "u" : NULL, i);
        last = enter(&world, &world.b, &session, "", false);
    }
    AWAIT(world.base, last->done);
    if (write(ready, "x", 1) == 1)
        event_base_loop(world.base, EVLOOP_NO_EXIT_ON_EMPTY);
    _exit(1);
}

static void start_child(struct world *world)
{
    int ends[2];
    char byte;

    assert_int_equal(pipe(ends), 0);
    world->child = fork();
    if (world->child == 0)
        run_child(world->redis.port, ends[1]);
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    close(ends[0]);
}

static void kill_child(struct world *world)
{
    kill(world->child, SIGKILL);
    waitpid(world->child, NULL, 0);
    world->child = 0;
}

static void test_killed_instance_is_reaped(void **state)
{
    static const char *const left[] = {"sb:instance:{a1}", "sb:instances", "sb:session:{mine}", "sb:user:{u}",
                                       "sb:instance:{a1}:sessions"};
    struct world *world = *state;
    struct storage_session mine = make_session("mine", "c1", "u", 1);

    subscribe(world, &world->a, "session:{mine}");
    expect(world, enter(world, &world->a, &mine, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    start_child(world);
    AWAIT(world->base, count_sessions(world, &world->a) == CHILD_SESSIONS + 1);

    kill_child(world);
    uint64_t killed = clock_monotonic_ms();
    AWAIT(world->base, count_sessions(world, &world->a) == 1);
    assert_true(clock_monotonic_ms() - killed < LEASE_MS / 2); /* long before it is reaped */
    assert_int_equal(world->a.reaped_count, 0);
    AWAIT(world->base, world->a.reaped_count == 1);
    assert_in_range(clock_monotonic_ms() - killed, LEASE_MS / 2, LEASE_MS + 1000);
    assert_string_equal(world->a.reaped_instance, "b2");
    assert_int_equal(world->a.reaped_sessions, CHILD_SESSIONS);
    expect_keys(world, left, 5);
    assert_int_equal(ask_number(world, "HLEN %s", "sb:user:{u}"), 1);
    assert_int_equal(count_sessions(world, &world->a), 1);
    assert_int_equal(world->a.lost_count, 0);
}

static void test_reaping_spares_what_moved(void **state)
{
    struct world *world = *state;
    struct storage_session bob = make_session("bob", "a-bob", "u", 2000);

    start_child(world);
    subscribe(world, &world->a, "session:{bob}");
    expect(world, enter(world, &world->a, &bob, "notice", false), ERROR_NONE, STORAGE_REPLACED_SOMEBODY);
    kill_child(world);
    AWAIT(world->base, world->a.reaped_count == 1);
    assert_int_equal(world->a.reaped_sessions, CHILD_SESSIONS - 1);
    struct call *found = new_call(world), *listed = new_call(world);
    CALL(found, storage_find_session, world->a.storage, slice_text("bob"));
    expect(world, found, ERROR_NONE, 0);
    assert_int_equal(found->record_count, 1);
    assert_string_equal(seen_value(&found->records[0], "conn"), "a-bob");
    CALL(listed, storage_list_user, world->a.storage, slice_text("u"));
    expect(world, listed, ERROR_NONE, 0);
    assert_int_equal(listed->record_count, 1);
}

static void test_only_one_survivor_reaps(void **state)
{
    struct world *world = *state;

    start_peer(world, &world->b, "c3");
    AWAIT(world->base, world->b.up_count);
    start_child(world);
    kill_child(world);
    AWAIT(world->base, world->a.reaped_count + world->b.reaped_count);
    AWAIT_FOR(world->base, 2 * LEASE_MS, false);
    assert_int_equal(world->a.reaped_count + world->b.reaped_count, 1);
}

static void test_same_id_waits_for_the_lease(void **state)
{
    struct world *world = *state;

    start_peer(world, &world->b, "a1");
    AWAIT_FOR(world->base, 2 * LEASE_MS, world->b.up_count);
    assert_int_equal(world->b.up_count, 0);
    assert_int_equal(world->a.lost_count + world->a.down_count, 0);
    expect(world, publish(world, &world->a, "instance:{a1}", "still mine"), ERROR_NONE, 1);
    peer_close(&world->a);
    AWAIT(world->base, world->b.up_count);
}

/* PUBLISH counts a receiver who has just stopped to listen. */
static void test_what_comes_too_late_is_told(void **state)
{
    struct world *world = *state;

    subscribe(world, &world->a, "session:{bob}");
    assert_int_equal(ask_number(world, "PUBLISH %s heard", "sb:session:{bob}"), 1);
    AWAIT(world->base, world->a.message_count == 1);
    storage_unsubscribe(world->a.storage, slice_text("session:{bob}"));
    assert_int_equal(ask_number(world, "PUBLISH %s stray", "sb:session:{bob}"), 1);
    AWAIT(world->base, world->a.stray_count == 1);
    assert_int_equal(world->a.message_count, 1);
}

/* Whatever somebody wrote there, a shared session keeps its name, and what can't be a name any more is reaped. */
static void test_a_forged_hash_ousts_no_shared_session(void **state)
{
    struct world *world = *state;
    struct storage_session bob = make_session("bob~c1", "c1", "bob", 1);

    subscribe(world, &world->a, "session:{bob~c1}");
    expect(world, enter(world, &world->a, &bob, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    tell(world, "HSET sb:session:{bob~c1} conn c9 instance b2 user eve presence x connected_at 2999-01-01T00:00:00.000Z");
    expect(world, enter(world, &world->a, &bob, "", true), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(ask_number(world, "HEXISTS %s presence", "sb:session:{bob~c1}"), 0);
    struct call *found = new_call(world);
    CALL(found, storage_find_session, world->a.storage, slice_text("bob~c1"));
    expect(world, found, ERROR_NONE, 0);
    assert_string_equal(seen_value(&found->records[0], "conn"), "c1");
    assert_string_equal(seen_value(&found->records[0], "user"), "bob");
}

static void test_hidden_names_are_reaped(void **state)
{
    struct world *world = *state;

    start_child(world);
    tell(world, "SADD sb:instance:{b2}:sessions \xe2\x80\xae");
    tell(world, "HSET sb:session:{\xe2\x80\xae} conn c9 instance b2 user \xef\xbb\xbf");
    tell(world, "HSET sb:user:{\xef\xbb\xbf} \xe2\x80\xae b2");
    kill_child(world);
    AWAIT(world->base, world->a.reaped_count == 1);
    assert_int_equal(ask_number(world, "EXISTS %s", "sb:session:{\xe2\x80\xae}"), 0);
    assert_int_equal(ask_number(world, "EXISTS %s", "sb:user:{\xef\xbb\xbf}"), 0);
}

/* ---- lost data, lost connections ---- */

static void test_lost_data_is_noticed(void **state)
{
    struct world *world = *state;
    struct storage_session session = make_session("bob", "c1", "u", 1);

    subscribe(world, &world->a, "session:{bob}");
    expect(world, enter(world, &world->a, &session, "n1", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    tell(world, "FLUSHALL");
    AWAIT(world->base, world->a.lost_count);
    assert_int_equal(world->a.down_count, 0);
    expect(world, enter(world, &world->a, &session, "n2", true), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(count_sessions(world, &world->a), 1);
    assert_int_equal(ask_number(world, "EXISTS %s", "sb:session:{bob}"), 1);
    assert_int_equal(ask_number(world, "HLEN %s", "sb:instance:{a1}"), 7);
    assert_int_equal(ask_number(world, "SCARD %s", "sb:instance:{a1}:sessions"), 1);
    assert_int_equal(ask_number(world, "HLEN %s", "sb:user:{u}"), 1);
}

static void test_scripts_are_sent_again(void **state)
{
    struct world *world = *state;
    struct storage_session session = make_session("bob", "c1", "u", 1);
    struct call *gone = new_call(world);

    tell(world, "SCRIPT FLUSH");
    expect(world, enter(world, &world->a, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    tell(world, "SCRIPT FLUSH");
    CALL(gone, storage_unregister, world->a.storage, &session);
    expect(world, gone, ERROR_NONE, 1);
    assert_int_equal(world->a.down_count, 0);
}

static void test_redis_restarted(void **state)
{
    enum { OPEN = 200 };
    struct world *world = *state;
    struct storage_session session = make_session("bob", "c1", "u", 1);
    struct call *open[OPEN];

    subscribe(world, &world->a, "session:{bob}");
    subscribe(world, &world->a, "topic:{dropped}");
    expect(world, enter(world, &world->a, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    unsigned lost_before = world->a.lost_count;
    for (size_t i = 0; i < OPEN; i++)
        open[i] = publish(world, &world->a, "session:{bob}", "in flight");
    redis_fixture_kill(&world->redis);
    AWAIT(world->base, world->a.down_count);
    assert_int_equal(storage_state(world->a.storage), STORAGE_DOWN);
    for (size_t i = 0; i < OPEN; i++) {
        AWAIT(world->base, open[i]->done);
        assert_true(open[i]->error == ERROR_NONE || open[i]->error == ERROR_UNAVAILABLE);
    }
    struct call *refused[6];
    for (size_t i = 0; i < 6; i++)
        refused[i] = new_call(world);
    CALL(refused[0], storage_publish, world->a.storage, slice_text("session:{bob}"), slice_text("x"));
    CALL(refused[1], storage_subscribe, world->a.storage, slice_text("topic:{x}"));
    CALL(refused[2], storage_register, world->a.storage, &session, slice_text(""), true);
    CALL(refused[3], storage_count, world->a.storage);
    CALL(refused[4], storage_probe, world->a.storage);
    CALL(refused[5], storage_list_instances, world->a.storage);
    event_base_loop(world->base, EVLOOP_NONBLOCK); /* at once: in this turn of the loop */
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(refused[i]->done, 1);
        assert_int_equal(refused[i]->error, ERROR_UNAVAILABLE);
    }
    storage_unsubscribe(world->a.storage, slice_text("topic:{dropped}"));

    redisFree(world->plain);
    world->plain = NULL;
    assert_true(redis_fixture_restart(&world->redis));
    AWAIT(world->base, world->a.up_count == 2 && world->a.lost_count > lost_before);
    connect_operator(world);
    assert_int_equal(ask_number(world, "PUBLISH %s back", "sb:session:{bob}"), 1);
    assert_int_equal(ask_number(world, "PUBLISH %s back", "sb:topic:{dropped}"), 0);
    assert_int_equal(ask_number(world, "PUBLISH %s back", "sb:topic:{x}"), 0);
    const struct seen_message *last = NULL;
    AWAIT(world->base,
          peer_count(&world->a, "session:{bob}", &last) && seen_is(last, "session:{bob}", "back"));
    expect(world, enter(world, &world->a, &session, "n", true), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(count_sessions(world, &world->a), 1);
}

static void test_each_connection_is_restored(void **state)
{
    static const char *const kills[] = {"CLIENT KILL TYPE pubsub", "CLIENT KILL TYPE normal SKIPME yes"};
    struct world *world = *state;

    subscribe(world, &world->a, "topic:{x}");
    for (unsigned i = 0; i < 2; i++) {
        tell(world, kills[i]);
        AWAIT(world->base, world->a.down_count == i + 1);
        AWAIT(world->base, world->a.up_count == i + 2);
        expect(world, publish(world, &world->a, "topic:{x}", "again"), ERROR_NONE, 1);
        AWAIT(world->base, peer_count(&world->a, "topic:{x}", NULL) == i + 1);
    }
}

static void test_many_subscriptions_are_restored(void **state)
{
    enum { CHANNELS = 5000 };
    struct world *world = *state;
    struct call *last = NULL;
    char channel[32];

    for (size_t i = 0; i < CHANNELS; i++) {
        snprintf(channel, sizeof channel, "topic:{%zu}", i);
        last = new_call(world);
        CALL(last, storage_subscribe, world->a.storage, slice_text(channel));
    }
    expect(world, last, ERROR_NONE, 0);
    tell(world, "CLIENT KILL TYPE pubsub");
    AWAIT(world->base, world->a.up_count == 2);
    for (size_t i = 0; i < CHANNELS; i += 7) {
        snprintf(channel, sizeof channel, "sb:topic:{%zu}", i);
        assert_int_equal(ask_number(world, "PUBLISH %s x", channel), 1);
    }
}

/* ---- a Redis that does not answer ---- */

static void test_silent_redis_times_out(void **state)
{
    struct world *world = *state;
    struct call *calls[4];
    struct storage_session session = make_session("bob", "c1", "u", 1);

    for (size_t i = 0; i < 4; i++)
        calls[i] = new_call(world);
    redis_fixture_pause(&world->redis);
    uint64_t paused = clock_monotonic_ms();
    CALL(calls[0], storage_publish, world->a.storage, slice_text("topic:{x}"), slice_text("x"));
    CALL(calls[1], storage_subscribe, world->a.storage, slice_text("topic:{x}"));
    CALL(calls[2], storage_register, world->a.storage, &session, slice_text("n"), false);
    CALL(calls[3], storage_probe, world->a.storage);
    for (size_t i = 0; i < 4; i++) {
        AWAIT(world->base, calls[i]->done);
        assert_true(calls[i]->error == ERROR_TIMEOUT || calls[i]->error == ERROR_UNAVAILABLE);
    }
    assert_true(clock_monotonic_ms() - paused < 4 * TIMEOUT_MS);
    AWAIT(world->base, world->a.down_count == 1);
    assert_true(clock_monotonic_ms() - paused < 4 * TIMEOUT_MS + 2 * HEARTBEAT_MS);
    struct call *refused = publish(world, &world->a, "topic:{x}", "x");
    event_base_loop(world->base, EVLOOP_NONBLOCK);
    assert_int_equal(refused->done, 1);
    assert_int_equal(refused->error, ERROR_UNAVAILABLE);
    redis_fixture_resume(&world->redis);
    AWAIT(world->base, world->a.up_count == 2);
    subscribe(world, &world->a, "topic:{x}");
    expect(world, publish(world, &world->a, "topic:{x}", "x"), ERROR_NONE, 1);
}

/* Nobody asks anything: the storage's own probe has to find out. */
static void test_idle_storage_notices_silence(void **state)
{
    struct world *world = *state;

    redis_fixture_pause(&world->redis);
    uint64_t paused = clock_monotonic_ms();
    AWAIT(world->base, world->a.down_count == 1);
    assert_true(clock_monotonic_ms() - paused < 2 * (HEARTBEAT_MS + TIMEOUT_MS) + 500);
    redis_fixture_resume(&world->redis);
    AWAIT(world->base, world->a.up_count == 2);
}

static void test_forbidden_channels_keep_it_down(void **state)
{
    struct world *world = *state;

    tell(world, "ACL SETUSER default resetchannels"); /* Redis closes the subscribed connection */
    AWAIT(world->base, world->a.down_count == 1);
    AWAIT_FOR(world->base, 3 * HEARTBEAT_MS, world->a.up_count == 2);
    assert_int_equal(world->a.up_count, 1);
    tell(world, "ACL SETUSER default allchannels");
    AWAIT(world->base, world->a.up_count == 2);
}

static void test_full_redis_refuses_the_request(void **state)
{
    struct world *world = *state;
    struct storage_session session = make_session("bob", "c1", "u", 1);

    tell(world, "CONFIG SET maxmemory 1");
    struct call *call = enter(world, &world->a, &session, "", false);
    AWAIT(world->base, call->done);
    assert_int_not_equal(call->error, ERROR_NONE);
    tell(world, "CONFIG SET maxmemory 0");
    AWAIT(world->base, storage_state(world->a.storage) == STORAGE_UP);
    expect(world, enter(world, &world->a, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(count_sessions(world, &world->a), 1);
}

/* ---- logging in ---- */

static void test_password_and_database(void **state)
{
    struct world *world = *state;
    struct storage *storage;

    tell(world, "CONFIG SET requirepass s3cret");
    storage = create_with(world->base, &world->redis, "wrong", 0);
    peer_start(&world->b, world->base, storage, "b2", HEARTBEAT_MS, LEASE_MS);
    AWAIT_FOR(world->base, 500, world->b.up_count);
    assert_int_equal(world->b.up_count, 0);
    peer_close(&world->b);

    storage = create_with(world->base, &world->redis, "s3cret", 3);
    peer_start(&world->b, world->base, storage, "b2", HEARTBEAT_MS, LEASE_MS);
    AWAIT(world->base, world->b.up_count);
    struct storage_session session = make_session("bob", "c1", "u", 1);
    expect(world, enter(world, &world->b, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(ask_number(world, "EXISTS %s", "sb:session:{bob}"), 0);
    tell(world, "SELECT 3");
    assert_int_equal(ask_number(world, "EXISTS %s", "sb:session:{bob}"), 1);
}

static void test_redis_started_late(void **state)
{
    struct world *world = *state;

    redis_fixture_kill(&world->redis);
    start_peer(world, &world->b, "b2");
    AWAIT_FOR(world->base, 300, world->b.up_count);
    assert_int_equal(world->b.up_count, 0);
    assert_true(redis_fixture_restart(&world->redis));
    AWAIT(world->base, world->b.up_count && world->a.up_count == 2);
}

/* ---- memory ---- */

/* One request of each kind; true when all were answered, whatever the answer, in time. */
static bool ask_everything(struct world *world, struct storage *storage)
{
    enum { COUNT = 17 };
    struct storage_session session = make_session("bob", "c1", "u", 1);
    const struct slice topic = slice_text("topic:{x}");
    const struct message_fields fields = {.payload = slice_text("x")};
    const struct storage_publication publication = {
        .bytes = slice_text("x"), .fields = &fields, .store = true, .key = slice_text("k")};
    const struct storage_history_query query = {.limit = 10};
    struct call *calls[COUNT];

    for (size_t i = 0; i < COUNT; i++)
        calls[i] = new_call(world);
    CALL(calls[0], storage_subscribe, storage, slice_text("session:{bob}"));
    CALL(calls[1], storage_register, storage, &session, slice_text("notice"), false);
    CALL(calls[2], storage_publish, storage, slice_text("session:{bob}"), slice_text("x"));
    CALL(calls[3], storage_count, storage);
    CALL(calls[4], storage_list_sessions, storage, slice_text(""), (size_t)10);
    CALL(calls[5], storage_find_session, storage, slice_text("bob"));
    CALL(calls[6], storage_list_user, storage, slice_text("u"));
    CALL(calls[7], storage_list_instances, storage);
    CALL(calls[8], storage_probe, storage);
    CALL(calls[9], storage_subscribe_pattern, storage, slice_text("topic:{*}"));
    CALL(calls[10], storage_publish_with, storage, topic, &publication);
    CALL(calls[11], storage_history, storage, topic, &query);
    CALL(calls[12], storage_presence_join, storage, topic, &session);
    CALL(calls[13], storage_presence_list, storage, topic, (size_t)10);
    CALL(calls[14], storage_list_topics, storage, (size_t)10);
    if (!AWAIT_FOR(world->base, 10 * TIMEOUT_MS, calls[12]->done))
        return false;
    CALL(calls[15], storage_presence_leave, storage, slice_text("topic:{y}"), &session);
    CALL(calls[16], storage_unregister, storage, &session);
    for (size_t i = 0; i < COUNT; i++)
        if (!AWAIT_FOR(world->base, 10 * TIMEOUT_MS, calls[i]->done))
            return false;
    return true;
}

/* The n-th allocation fails, wherever that is: every request is answered, the storage comes back, and nothing
 * is left behind. */
static void test_any_allocation_may_fail(void **state)
{
    struct world *world = *state;
    bool failed = true;

    for (size_t n = 1; failed; n++) {
        alloc_fixture_install();
        alloc_fixture_fail(n);
        struct storage *storage = create_with(world->base, &world->redis, NULL, 0);
        if (!storage) {
            assert_true(alloc_fixture_failed());
            assert_int_equal(alloc_fixture_remove(), 0);
            continue;
        }
        peer_start(&world->a, world->base, storage, "a1", HEARTBEAT_MS, LEASE_MS);
        AWAIT_FOR(world->base, 10 * TIMEOUT_MS, world->a.up_count || alloc_fixture_failed());
        bool answered = ask_everything(world, storage);
        failed = alloc_fixture_failed();
        peer_close(&world->a);
        size_t left = alloc_fixture_remove();
        if (!answered || left)
            fail_msg("allocation %zu: %s, %zu blocks left", n, answered ? "answered" : "not answered", left);
        tell(world, "FLUSHALL"); /* the next one need not wait for this one's lease */
    }
}

#define REDIS_TEST(function) cmocka_unit_test_setup_teardown(function, open_world, close_world)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        REDIS_TEST(test_keys_are_as_documented),
        REDIS_TEST(test_killed_instance_is_reaped),
        REDIS_TEST(test_reaping_spares_what_moved),
        REDIS_TEST(test_only_one_survivor_reaps),
        REDIS_TEST(test_same_id_waits_for_the_lease),
        REDIS_TEST(test_what_comes_too_late_is_told),
        REDIS_TEST(test_a_forged_hash_ousts_no_shared_session),
        REDIS_TEST(test_hidden_names_are_reaped),
        REDIS_TEST(test_lost_data_is_noticed),
        REDIS_TEST(test_scripts_are_sent_again),
        REDIS_TEST(test_redis_restarted),
        REDIS_TEST(test_each_connection_is_restored),
        REDIS_TEST(test_many_subscriptions_are_restored),
        REDIS_TEST(test_silent_redis_times_out),
        REDIS_TEST(test_idle_storage_notices_silence),
        REDIS_TEST(test_forbidden_channels_keep_it_down),
        REDIS_TEST(test_full_redis_refuses_the_request),
        REDIS_TEST(test_password_and_database),
        REDIS_TEST(test_redis_started_late),
        cmocka_unit_test_setup_teardown(test_any_allocation_may_fail, open_redis, close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
