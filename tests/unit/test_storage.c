/* What storage.h promises, asked of one implementation: test_storage memory | redis. */
#include "proto/address.h"
#include "proto/errors.h"
#include "storage/memory/storage_memory.h"
#include "storage/redis/storage_redis.h"
#include "tests/lib/await.h"
#include "tests/lib/redis_fixture.h"
#include "tests/lib/storage_fixture.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { PEERS = 2, HEARTBEAT_MS = 500, LEASE_MS = 5000 };

struct world {
    struct event_base *base;
    struct list calls;
    struct peer peers[PEERS];
};

static bool on_redis;
static struct redis_fixture redis;
static char prefix[32]; /* one for each test, so that none sees what an earlier one left behind */

static struct storage *create_storage(struct event_base *base)
{
    if (!on_redis)
        return storage_memory_create(base);
    const struct storage_redis_options options = {.host = "127.0.0.1",
                                                  .port = (uint16_t)redis.port,
                                                  .prefix = prefix,
                                                  .timeout_ms = 5000,
                                                  .backoff_max_ms = 200};
    return storage_redis_create(base, &options);
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

static struct peer *open_peer(struct world *world, size_t index)
{
    static const char *const ids[PEERS] = {"a1", "b2"};
    struct peer *peer = &world->peers[index];

    struct storage *storage = create_storage(world->base);
    assert_non_null(storage);
    peer_start(peer, world->base, storage, ids[index], HEARTBEAT_MS, LEASE_MS);
    AWAIT(world->base, peer->up_count);
    return peer;
}

static int open_world(void **state)
{
    static unsigned tests;
    struct world *world = calloc(1, sizeof *world);

    snprintf(prefix, sizeof prefix, "t%u:", ++tests);
    world->base = event_base_new();
    list_init(&world->calls);
    *state = world;
    open_peer(world, 0);
    return 0;
}

/* Whatever a test did: every request was called back exactly once, and never from inside its call. */
static int close_world(void **state)
{
    struct world *world = *state;
    int wrong = 0;

    for (size_t i = 0; i < PEERS; i++)
        peer_close(&world->peers[i]);
    list_for_each (link, &world->calls) {
        struct call *call = container_of(link, struct call, link);
        if (call->done != 1 || call->inside) {
            print_error("a request was called back %u times%s\n", call->done,
                        call->inside ? ", from inside a call" : "");
            wrong = -1;
        }
    }
    calls_free(&world->calls);
    event_base_free(world->base);
    free(world);
    return wrong;
}

static void subscribe(struct world *world, struct peer *peer, const char *channel)
{
    struct call *call = new_call(world);

    CALL(call, storage_subscribe, peer->storage, slice_text(channel));
    expect(world, call, ERROR_NONE, 0);
}

static struct call *publish(struct world *world, struct peer *peer, const char *channel, struct slice bytes)
{
    struct call *call = new_call(world);

    CALL(call, storage_publish, peer->storage, slice_text(channel), bytes);
    return call;
}

/* Everything published before has arrived when this returns: a message is one more in the same order. */
static void drain(struct world *world, struct peer *peer)
{
    size_t before = peer_count(peer, "topic:{drain}", NULL);

    subscribe(world, peer, "topic:{drain}");
    publish(world, peer, "topic:{drain}", slice_text("drained"));
    AWAIT(world->base, peer_count(peer, "topic:{drain}", NULL) == before + 1);
}

static struct call *enter(struct world *world, struct peer *peer, const struct storage_session *session,
                          const char *notice, bool restore)
{
    struct call *call = new_call(world);

    CALL(call, storage_register, peer->storage, session, slice_text(notice), restore);
    return call;
}

static struct call *leave(struct world *world, struct peer *peer, const struct storage_session *session)
{
    struct call *call = new_call(world);

    CALL(call, storage_unregister, peer->storage, session);
    return call;
}

static struct call *find(struct world *world, struct peer *peer, const char *name)
{
    struct call *call = new_call(world);

    CALL(call, storage_find_session, peer->storage, slice_text(name));
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    return call;
}

static void expect_conn(struct world *world, struct peer *peer, const char *name, const char *conn)
{
    struct call *call = find(world, peer, name);

    assert_int_equal(call->record_count, conn ? 1 : 0);
    if (conn)
        assert_string_equal(seen_value(&call->records[0], "conn"), conn);
}

static int64_t count_sessions(struct world *world, struct peer *peer)
{
    struct call *call = new_call(world);

    CALL(call, storage_count, peer->storage);
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    return call->number;
}

/* ---- life ---- */

static void test_comes_up_from_the_loop(void **state)
{
    struct world *world = *state;
    struct storage *storage = create_storage(world->base);
    struct peer *peer = &world->peers[1];

    assert_int_equal(storage_state(storage), STORAGE_DOWN);
    peer_start(peer, world->base, storage, "b2", HEARTBEAT_MS, LEASE_MS);
    assert_int_equal(peer->up_count, 0);
    assert_int_equal(storage_state(storage), STORAGE_DOWN);
    expect(world, publish(world, peer, "topic:{x}", slice_text("early")), ERROR_UNAVAILABLE, 0);
    AWAIT(world->base, peer->up_count == 1);
    assert_int_equal(storage_state(storage), STORAGE_UP);
    assert_int_equal(peer->down_count, 0);
    assert_string_equal(storage_name(storage), on_redis ? "redis" : "memory");
}

static void test_leave_removes_the_instance(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct call *before = new_call(world), *left = new_call(world), *after = new_call(world);

    CALL(before, storage_list_instances, peer->storage);
    expect(world, before, ERROR_NONE, 0);
    assert_int_equal(before->record_count, 1);
    CALL(left, storage_leave, peer->storage);
    expect(world, left, ERROR_NONE, 0);
    CALL(after, storage_list_instances, peer->storage);
    expect(world, after, ERROR_NONE, 0);
    assert_int_equal(after->record_count, 0);
}

static void test_destroy_cancels_what_is_open(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session session = make_session("bob", "c1", "u1", 1);
    struct call *calls[11];

    for (size_t i = 0; i < 11; i++)
        calls[i] = new_call(world);
    CALL(calls[0], storage_subscribe, peer->storage, slice_text("topic:{x}"));
    CALL(calls[1], storage_publish, peer->storage, slice_text("topic:{x}"), slice_text("hello"));
    CALL(calls[2], storage_probe, peer->storage);
    CALL(calls[3], storage_register, peer->storage, &session, slice_text("notice"), false);
    CALL(calls[4], storage_unregister, peer->storage, &session);
    CALL(calls[5], storage_count, peer->storage);
    CALL(calls[6], storage_list_sessions, peer->storage, slice_text(""), (size_t)10);
    CALL(calls[7], storage_find_session, peer->storage, slice_text("bob"));
    CALL(calls[8], storage_list_user, peer->storage, slice_text("u1"));
    CALL(calls[9], storage_list_instances, peer->storage);
    CALL(calls[10], storage_leave, peer->storage);
    storage_destroy(peer->storage);
    peer->storage = NULL;
    for (size_t i = 0; i < 11; i++) {
        assert_int_equal(calls[i]->done, 1);
        assert_int_equal(calls[i]->error, ERROR_CANCELLED);
        assert_int_equal(calls[i]->number, 0);
        assert_int_equal(calls[i]->record_count, 0);
    }
    assert_int_equal(peer->message_count, 0);
}

static void test_destroy_before_up(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[1];

    storage_destroy(NULL);
    storage_destroy(create_storage(world->base));
    peer_start(peer, world->base, create_storage(world->base), "b2", HEARTBEAT_MS, LEASE_MS);
    peer_close(peer);
}

/* ---- bus ---- */

static void test_subscriber_receives(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    char text[] = "hello";

    subscribe(world, peer, "topic:{news}");
    struct call *call = publish(world, peer, "topic:{news}", slice_text(text));
    text[0] = 'X'; /* it was copied */
    expect(world, call, ERROR_NONE, 1);
    AWAIT(world->base, peer->message_count == 1);
    assert_true(seen_is(&peer->messages[0], "topic:{news}", "hello"));
}

static void test_nobody_receives(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];

    subscribe(world, peer, "topic:{new}");
    expect(world, publish(world, peer, "topic:{news}", slice_text("hello")), ERROR_NONE, 0);
    expect(world, publish(world, peer, "topic:{new}", slice_text("x")), ERROR_NONE, 1);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "topic:{news}", NULL), 0);
    assert_int_equal(peer_count(peer, "topic:{new}", NULL), 1);
}

static void test_own_channels_are_subscribed(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];

    expect(world, publish(world, peer, "instance:{a1}", slice_text("to you")), ERROR_NONE, 1);
    expect(world, publish(world, peer, "control", slice_text("to all")), ERROR_NONE, 1);
    AWAIT(world->base, peer_count(peer, "instance:{a1}", NULL) && peer_count(peer, "control", NULL));
}

static void test_subscribing_twice_delivers_once(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];

    subscribe(world, peer, "topic:{x}");
    subscribe(world, peer, "topic:{x}");
    expect(world, publish(world, peer, "topic:{x}", slice_text("1")), ERROR_NONE, 1);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "topic:{x}", NULL), 1);
}

static void test_unsubscribe_at_once(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];

    subscribe(world, peer, "topic:{x}");
    struct call *call = publish(world, peer, "topic:{x}", slice_text("missed"));
    storage_unsubscribe(peer->storage, slice_text("topic:{x}"));
    storage_unsubscribe(peer->storage, slice_text("topic:{x}"));
    storage_unsubscribe(peer->storage, slice_text("topic:{never}"));
    AWAIT(world->base, call->done);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "topic:{x}", NULL), 0);
    expect(world, publish(world, peer, "topic:{x}", slice_text("nobody")), ERROR_NONE, 0);

    subscribe(world, peer, "topic:{x}");
    expect(world, publish(world, peer, "topic:{x}", slice_text("back")), ERROR_NONE, 1);
    AWAIT(world->base, peer_count(peer, "topic:{x}", NULL) == 1);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "topic:{x}", NULL), 1);
}

static void test_unsubscribe_while_subscribing(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct call *first = new_call(world), *second = new_call(world);

    CALL(first, storage_subscribe, peer->storage, slice_text("topic:{x}"));
    storage_unsubscribe(peer->storage, slice_text("topic:{x}"));
    CALL(second, storage_subscribe, peer->storage, slice_text("topic:{x}"));
    AWAIT(world->base, first->done && second->done);
    assert_int_equal(second->error, ERROR_NONE);
    expect(world, publish(world, peer, "topic:{x}", slice_text("1")), ERROR_NONE, 1);
    AWAIT(world->base, peer_count(peer, "topic:{x}", NULL) == 1);

    struct call *third = new_call(world);
    CALL(third, storage_subscribe, peer->storage, slice_text("topic:{y}"));
    storage_unsubscribe(peer->storage, slice_text("topic:{y}"));
    AWAIT(world->base, third->done);
    expect(world, publish(world, peer, "topic:{y}", slice_text("1")), ERROR_NONE, 0);
}

static void test_payloads_arrive_unchanged(void **state)
{
    enum { LARGE = 1 << 20 };
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    char binary[256];
    char *large = malloc(LARGE);

    for (size_t i = 0; i < sizeof binary; i++)
        binary[i] = (char)i;
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (char)(i * 31 >> 3);
    const struct slice payloads[] = {slice_from(binary, sizeof binary), slice_from(NULL, 0),
                                     slice_from("\0\r\n", 3), slice_from(large, LARGE), slice_text("end")};
    enum { COUNT = sizeof payloads / sizeof *payloads };
    subscribe(world, peer, "topic:{x}");
    for (size_t i = 0; i < COUNT; i++)
        publish(world, peer, "topic:{x}", payloads[i]);
    AWAIT(world->base, peer->message_count == COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        struct slice got = slice_from(peer->messages[i].bytes, peer->messages[i].len);
        assert_true(slice_equal(got, payloads[i]));
    }
    free(large);
}

static void test_order_of_many(void **state)
{
    enum { MANY = 10000 };
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct call **calls = calloc(MANY, sizeof(struct call *));
    char text[16];

    subscribe(world, peer, "topic:{x}");
    for (size_t i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "%zu", i);
        calls[i] = publish(world, peer, "topic:{x}", slice_text(text));
    }
    AWAIT(world->base, calls[MANY - 1]->done && peer->message_count == MANY);
    for (size_t i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "%zu", i);
        assert_true(seen_is(&peer->messages[i], "topic:{x}", text));
        assert_int_equal(calls[i]->error, ERROR_NONE);
        assert_int_equal(calls[i]->number, 1);
        assert_true(i == 0 || calls[i]->rank > calls[i - 1]->rank);
    }
    free(calls);
}

static void test_channel_names(void **state)
{
    static const char *const names[] = {"plain",    "with space", "{braces}",  "}{",
                                        "100%",     "%7B",        "a\tb",      "Zo\xc3\xab",
                                        "名前 ☺",   "*",          "[a-z]?",    "\\x",
                                        "quote\"'", "a:b:{c}",    "trailing ", "\xc2\xa0nb",
                                        "-",        "$",          "(nil)",     "\xf0\x9f\x90\x98"};
    enum { COUNT = sizeof names / sizeof *names };
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    char channels[COUNT][CHANNEL_MAX];

    for (size_t i = 0; i < COUNT; i++) {
        struct address address = {.kind = ADDRESS_TOPIC, .name = slice_text(names[i])};
        address_channel(&address, channels[i]);
        subscribe(world, peer, channels[i]);
    }
    for (size_t i = 0; i < COUNT; i++)
        expect(world, publish(world, peer, channels[i], slice_text(names[i])), ERROR_NONE, 1);
    AWAIT(world->base, peer->message_count == COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(seen_is(&peer->messages[i], channels[i], names[i]));
}

struct chain {
    struct world *world;
    struct peer *peer;
    unsigned left;
};

static void publish_again(struct call *call)
{
    struct chain *chain = call->data;

    if (!chain->left--)
        return;
    struct call *next = new_call(chain->world);
    next->then = publish_again;
    next->data = chain;
    CALL(next, storage_publish, chain->peer->storage, slice_text("topic:{x}"), slice_text("again"));
}

static void test_callback_makes_requests(void **state)
{
    struct world *world = *state;
    struct chain chain = {.world = world, .peer = &world->peers[0], .left = 50};
    struct call *first = new_call(world);

    first->then = publish_again;
    first->data = &chain;
    CALL(first, storage_subscribe, chain.peer->storage, slice_text("topic:{x}"));
    AWAIT(world->base, chain.peer->message_count == 50);
}

static void test_probe(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct call *first = new_call(world), *second = new_call(world);

    CALL(first, storage_probe, peer->storage);
    CALL(second, storage_probe, peer->storage);
    expect(world, first, ERROR_NONE, 0);
    expect(world, second, ERROR_NONE, 0);
}

/* ---- registry ---- */

static void test_session_record(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session session = make_session("Zoë {1}", "c1", "u 1", UINT64_C(1700000000123));

    subscribe(world, peer, "session:{Zoë%20%7B1%7D}");
    expect(world, enter(world, peer, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    struct call *call = find(world, peer, "Zoë {1}");
    assert_int_equal(call->record_count, 1);
    const struct seen_record *record = &call->records[0];
    assert_string_equal(record->key, "Zoë {1}");
    assert_string_equal(seen_value(record, "conn"), "c1");
    assert_string_equal(seen_value(record, "instance"), "a1");
    assert_string_equal(seen_value(record, "route"), "/websocket/{uid}");
    assert_string_equal(seen_value(record, "user"), "u 1");
    assert_string_equal(seen_value(record, "face"), "plain");
    assert_string_equal(seen_value(record, "remote"), "192.0.2.1:50000");
    assert_string_equal(seen_value(record, "agent"), "Mozilla/5.0 (test)");
    assert_string_equal(seen_value(record, "connected_at"), "2023-11-14T22:13:20.123Z");
    assert_int_equal(find(world, peer, "Zoë")->record_count, 0);
}

static void test_instance_record(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct call *call = new_call(world);
    char pid[24];

    CALL(call, storage_list_instances, peer->storage);
    expect(world, call, ERROR_NONE, 0);
    const struct seen_record *record = call_record(call, "a1");
    assert_non_null(record);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    assert_string_equal(seen_value(record, "pid"), pid);
    assert_string_equal(seen_value(record, "host"), "broker.example");
    assert_string_equal(seen_value(record, "listen"), "127.0.0.1:8080");
    assert_string_equal(seen_value(record, "version"), "1.2.3");
    assert_string_equal(seen_value(record, "started_at"), "2023-11-14T22:13:20.123Z");
    assert_string_equal(seen_value(record, "sessions"), "0");
    assert_int_equal(strlen(seen_value(record, "heartbeat_at")), strlen("2023-11-14T22:13:20.123Z"));
}

static void test_bad_sessions_are_refused(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    char longest[ADDRESS_NAME_MAX + 2];

    memset(longest, '{', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    const struct storage_session bad[] = {
        make_session("", "c1", "u", 1),       make_session("a\nb", "c1", "u", 1),
        make_session(longest, "c1", "u", 1),  make_session("bob", "", "u", 1),
        make_session("bob", "c1", "\xff", 1), make_session("bob", "c1", longest, 1)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct call *found = new_call(world);
        expect(world, enter(world, peer, &bad[i], "notice", false), ERROR_BAD_REQUEST, 0);
        CALL(found, storage_find_session, peer->storage, bad[i].name);
        AWAIT(world->base, found->done);
        assert_int_equal(found->record_count, 0);
    }
    struct storage_session good = make_session(longest + 1, "c1", longest + 1, 1);
    expect(world, enter(world, peer, &good, "notice", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(count_sessions(world, peer), 1);
}

static struct call *list_user(struct world *world, struct peer *peer, const char *user)
{
    struct call *call = new_call(world);

    CALL(call, storage_list_user, peer->storage, slice_text(user));
    expect(world, call, ERROR_NONE, 0);
    return call;
}

static void test_sessions_of_a_user(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session one = make_session("u~1", "1", "u", 1), two = make_session("u~2", "2", "u", 2);
    struct storage_session other = make_session("v~3", "3", "v", 3), none = make_session("w", "4", NULL, 4);

    assert_int_equal(list_user(world, peer, "u")->record_count, 0);
    enter(world, peer, &one, "", false);
    enter(world, peer, &two, "", false);
    enter(world, peer, &other, "", false);
    expect(world, enter(world, peer, &none, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    struct call *call = list_user(world, peer, "u");
    assert_int_equal(call->record_count, 2);
    assert_non_null(call_record(call, "u~1"));
    assert_string_equal(seen_value(call_record(call, "u~2"), "instance"), "a1");
    assert_int_equal(call_record(call, "u~2")->field_count, 1);
    expect(world, leave(world, peer, &one), ERROR_NONE, 1);
    call = list_user(world, peer, "u");
    assert_int_equal(call->record_count, 1);
    assert_non_null(call_record(call, "u~2"));
    expect(world, leave(world, peer, &two), ERROR_NONE, 1);
    assert_int_equal(list_user(world, peer, "u")->record_count, 0);
    assert_int_equal(count_sessions(world, peer), 2);
}

static void test_count(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session session = make_session("bob", "c1", "u", 1);

    assert_int_equal(count_sessions(world, peer), 0);
    expect(world, enter(world, peer, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(count_sessions(world, peer), 1);
    session.conn = slice_text("c2");
    expect(world, enter(world, peer, &session, "", false), ERROR_NONE, STORAGE_REPLACED_SOMEBODY);
    assert_int_equal(count_sessions(world, peer), 1);
    expect(world, leave(world, peer, &session), ERROR_NONE, 1);
    expect(world, leave(world, peer, &session), ERROR_NONE, 0);
    assert_int_equal(count_sessions(world, peer), 0);
    expect_conn(world, peer, "bob", NULL);
}

/* The name of a shared session bears its connection: everybody sees it, and nobody else can have it. */
static void test_nobody_replaces_a_shared_session(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session bob = make_session("bob~c1", "c1", "bob", 1000);
    struct storage_session thief = make_session("bob~c1", "c2", NULL, 2000);
    static const char *const names[] = {"bob~c1", "~", "~c1", "bob~", "bob~2", "bob~cc2", "c2", "bob~c2~"};

    subscribe(world, peer, "session:{bob~c1}");
    expect(world, enter(world, peer, &bob, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    for (int restore = 0; restore < 2; restore++)
        for (int notice = 0; notice < 2; notice++)
            expect(world, enter(world, peer, &thief, notice ? "notice" : "", restore), ERROR_BAD_REQUEST, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        thief.name = slice_text(names[i]);
        assert_int_equal(storage_may_bear(&thief), strcmp(names[i], "c2") == 0);
    }
    thief.name = slice_text("bob~c1~c2");
    assert_true(storage_may_bear(&thief));
    drain(world, peer);
    assert_int_equal(peer->message_count, 1); /* the mark that drain() waits for */
    expect_conn(world, peer, "bob~c1", "c1");
    assert_non_null(call_record(list_user(world, peer, "bob"), "bob~c1"));
    expect(world, enter(world, peer, &bob, "", true), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    expect(world, leave(world, peer, &bob), ERROR_NONE, 1);
    assert_int_equal(count_sessions(world, peer), 0);
}

static void test_successor_may_change_user(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session session = make_session("bob", "c1", "u", 1);

    enter(world, peer, &session, "", false);
    session.conn = slice_text("c2");
    session.user = slice_text("v");
    expect(world, enter(world, peer, &session, "", false), ERROR_NONE, STORAGE_REPLACED_SOMEBODY);
    assert_int_equal(list_user(world, peer, "u")->record_count, 0);
    assert_int_equal(list_user(world, peer, "v")->record_count, 1);
}

static void test_takeover_is_in_order(void **state)
{
    static const char *const expected[] = {"notice 1", "before", "notice 2", "after"};
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session old = make_session("bob", "c1", "u", 1), young = make_session("bob", "c2", "u", 2);

    subscribe(world, peer, "session:{bob}");
    struct call *first = enter(world, peer, &old, "notice 1", false);
    publish(world, peer, "session:{bob}", slice_text("before"));
    struct call *second = enter(world, peer, &young, "notice 2", false);
    publish(world, peer, "session:{bob}", slice_text("after"));
    expect(world, first, ERROR_NONE, STORAGE_REPLACED_NOBODY);
    expect(world, second, ERROR_NONE, STORAGE_REPLACED_SOMEBODY);
    AWAIT(world->base, peer->message_count == 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(seen_is(&peer->messages[i], "session:{bob}", expected[i]));

    expect(world, leave(world, peer, &old), ERROR_NONE, 0);
    expect_conn(world, peer, "bob", "c2");
    expect(world, leave(world, peer, &young), ERROR_NONE, 1);
    expect_conn(world, peer, "bob", NULL);
}

static void test_empty_notice_is_not_published(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session session = make_session("bob", "c1", "u", 1);

    subscribe(world, peer, "session:{bob}");
    expect(world, enter(world, peer, &session, "", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "session:{bob}", NULL), 0);
}

static void test_restore(void **state)
{
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct storage_session old = make_session("bob", "c1", "u", 1000);
    struct storage_session young = make_session("bob", "c2", "u", 2000);

    subscribe(world, peer, "session:{bob}");
    /* Nobody there: entered and announced. */
    expect(world, enter(world, peer, &old, "n1", true), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    AWAIT(world->base, peer_count(peer, "session:{bob}", NULL) == 1);
    /* Still ours: nothing to say. */
    expect(world, enter(world, peer, &old, "n2", true), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "session:{bob}", NULL), 1);
    /* An older holder: replaced. */
    expect(world, enter(world, peer, &young, "n3", true), ERROR_NONE, STORAGE_REPLACED_SOMEBODY);
    AWAIT(world->base, peer_count(peer, "session:{bob}", NULL) == 2);
    /* A newer holder: left alone. */
    expect(world, enter(world, peer, &old, "n4", true), ERROR_CONFLICT, 0);
    drain(world, peer);
    assert_int_equal(peer_count(peer, "session:{bob}", NULL), 2);
    expect_conn(world, peer, "bob", "c2");
    assert_int_equal(count_sessions(world, peer), 1);
}

/* Walks the whole list; sets seen[i] for every session "s<i>" and returns how many rows came. */
static size_t walk(struct world *world, struct peer *peer, size_t limit, unsigned char *seen, size_t sessions)
{
    char cursor[256] = "";
    size_t rows = 0;

    do {
        struct call *call = new_call(world);
        CALL(call, storage_list_sessions, peer->storage, slice_text(cursor), limit);
        expect(world, call, ERROR_NONE, 0);
        for (size_t i = 0; i < call->record_count; i++) {
            size_t number = strtoul(call->records[i].key + 1, NULL, 10);
            assert_true(number < sessions);
            assert_string_equal(seen_value(&call->records[i], "instance"), "a1");
            assert_non_null(seen_value(&call->records[i], "connected_at"));
            seen[number]++;
        }
        rows += call->record_count;
        assert_true(strlen(call->cursor) < sizeof cursor);
        strcpy(cursor, call->cursor);
    } while (cursor[0] && rows < 10 * sessions);
    return rows;
}

static void test_listing_by_pages(void **state)
{
    enum { SESSIONS = 1000 };
    struct world *world = *state;
    struct peer *peer = &world->peers[0];
    struct call *last = NULL;
    unsigned char seen[SESSIONS] = {0};
    char name[16];

    assert_int_equal(walk(world, peer, 100, seen, SESSIONS), 0);
    for (size_t i = 0; i < SESSIONS; i++) {
        snprintf(name, sizeof name, "s%zu", i);
        struct storage_session session = make_session(name, name, "u", i);
        last = enter(world, peer, &session, "", false);
    }
    expect(world, last, ERROR_NONE, STORAGE_REPLACED_NOBODY);
    assert_int_equal(count_sessions(world, peer), SESSIONS);
    assert_int_equal(list_user(world, peer, "u")->record_count, SESSIONS);
    for (size_t limit = 7; limit < 10 * SESSIONS; limit *= 11) {
        memset(seen, 0, sizeof seen);
        walk(world, peer, limit, seen, SESSIONS);
        for (size_t i = 0; i < SESSIONS; i++)
            assert_in_range(seen[i], 1, 2);
    }
}

/* ---- two instances ---- */

static void test_two_instances_receive(void **state)
{
    struct world *world = *state;
    struct peer *a = &world->peers[0], *b = open_peer(world, 1);

    subscribe(world, a, "topic:{x}");
    expect(world, publish(world, b, "topic:{x}", slice_text("1")), ERROR_NONE, 1);
    subscribe(world, b, "topic:{x}");
    expect(world, publish(world, b, "topic:{x}", slice_text("2")), ERROR_NONE, 2);
    expect(world, publish(world, a, "control", slice_text("3")), ERROR_NONE, 2);
    expect(world, publish(world, a, "instance:{b2}", slice_text("4")), ERROR_NONE, 1);
    AWAIT(world->base, a->message_count == 3 && b->message_count == 3);
    assert_true(seen_is(&a->messages[1], "topic:{x}", "2"));
    assert_true(seen_is(&b->messages[0], "topic:{x}", "2"));
    assert_true(seen_is(&b->messages[2], "instance:{b2}", "4"));
    storage_unsubscribe(a->storage, slice_text("topic:{x}"));
    drain(world, a);
    expect(world, publish(world, a, "topic:{x}", slice_text("5")), ERROR_NONE, 1);
}

static void test_takeover_between_instances(void **state)
{
    struct world *world = *state;
    struct peer *a = &world->peers[0], *b = open_peer(world, 1);
    struct storage_session old = make_session("bob", "c1", "u", 1), young = make_session("bob", "c2", "u", 2);

    subscribe(world, a, "session:{bob}");
    expect(world, enter(world, a, &old, "n1", false), ERROR_NONE, STORAGE_REPLACED_NOBODY);
    subscribe(world, b, "session:{bob}");
    publish(world, b, "session:{bob}", slice_text("before"));
    struct call *call = enter(world, b, &young, "n2", false);
    publish(world, b, "session:{bob}", slice_text("after"));
    expect(world, call, ERROR_NONE, STORAGE_REPLACED_SOMEBODY);
    AWAIT(world->base, a->message_count == 4 && b->message_count == 3);
    for (size_t i = 0; i < 3; i++) {
        static const char *const expected[] = {"before", "n2", "after"};
        assert_true(seen_is(&a->messages[i + 1], "session:{bob}", expected[i]));
        assert_true(seen_is(&b->messages[i], "session:{bob}", expected[i]));
    }
    expect(world, leave(world, a, &old), ERROR_NONE, 0);
    struct call *found = find(world, a, "bob");
    assert_string_equal(seen_value(&found->records[0], "instance"), "b2");
    assert_int_equal(count_sessions(world, a), 1);
    assert_int_equal(count_sessions(world, b), 1);
    struct call *listed = list_user(world, a, "u");
    assert_int_equal(listed->record_count, 1);
    assert_string_equal(seen_value(&listed->records[0], "instance"), "b2");

    struct call *both = new_call(world);
    CALL(both, storage_list_instances, a->storage);
    expect(world, both, ERROR_NONE, 0);
    assert_int_equal(both->record_count, 2);
    assert_string_equal(seen_value(call_record(both, "a1"), "sessions"), "0");
    assert_string_equal(seen_value(call_record(both, "b2"), "sessions"), "1");
    expect(world, enter(world, a, &old, "n3", true), ERROR_CONFLICT, 0);
}

#define STORAGE_TEST(function) cmocka_unit_test_setup_teardown(function, open_world, close_world)

int main(int argc, char **argv)
{
    static const struct CMUnitTest common[] = {
        STORAGE_TEST(test_comes_up_from_the_loop),
        STORAGE_TEST(test_leave_removes_the_instance),
        STORAGE_TEST(test_destroy_cancels_what_is_open),
        STORAGE_TEST(test_destroy_before_up),
        STORAGE_TEST(test_subscriber_receives),
        STORAGE_TEST(test_nobody_receives),
        STORAGE_TEST(test_own_channels_are_subscribed),
        STORAGE_TEST(test_subscribing_twice_delivers_once),
        STORAGE_TEST(test_unsubscribe_at_once),
        STORAGE_TEST(test_unsubscribe_while_subscribing),
        STORAGE_TEST(test_payloads_arrive_unchanged),
        STORAGE_TEST(test_order_of_many),
        STORAGE_TEST(test_channel_names),
        STORAGE_TEST(test_callback_makes_requests),
        STORAGE_TEST(test_probe),
        STORAGE_TEST(test_session_record),
        STORAGE_TEST(test_instance_record),
        STORAGE_TEST(test_bad_sessions_are_refused),
        STORAGE_TEST(test_sessions_of_a_user),
        STORAGE_TEST(test_count),
        STORAGE_TEST(test_nobody_replaces_a_shared_session),
        STORAGE_TEST(test_successor_may_change_user),
        STORAGE_TEST(test_takeover_is_in_order),
        STORAGE_TEST(test_empty_notice_is_not_published),
        STORAGE_TEST(test_restore),
        STORAGE_TEST(test_listing_by_pages),
    };
    static const struct CMUnitTest between[] = {
        STORAGE_TEST(test_two_instances_receive),
        STORAGE_TEST(test_takeover_between_instances),
    };
    const char *kind = argc > 1 ? argv[1] : "memory";

    on_redis = strcmp(kind, "redis") == 0;
    if (on_redis && !redis_fixture_start(&redis))
        return 1;
    int failed = cmocka_run_group_tests_name(kind, common, NULL, NULL);
    if (on_redis)
        failed += cmocka_run_group_tests_name("two instances", between, NULL, NULL);
    redis_fixture_kill(&redis);
    return failed;
}
