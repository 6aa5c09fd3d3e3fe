/* The memory storage when allocations fail, and what it leaves behind: nothing. */
#include "base/alloc.h"
#include "proto/errors.h"
#include "proto/message.h"
#include "storage/memory/storage_memory.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/await.h"
#include "tests/lib/storage_fixture.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct world {
    struct event_base *base;
    struct list calls;
    struct peer peer;
    size_t under_way;
};

static int open_world(void **state)
{
    struct world *world = calloc(1, sizeof *world);

    alloc_fixture_install();
    world->base = event_base_new();
    list_init(&world->calls);
    *state = world;
    peer_start(&world->peer, world->base, storage_memory_create(world->base), "a1", 1000, 3000);
    AWAIT(world->base, world->peer.up_count);
    return 0;
}

static int close_world(void **state)
{
    struct world *world = *state;
    int wrong = 0;

    alloc_fixture_fail(0);
    peer_close(&world->peer);
    list_for_each (link, &world->calls) {
        struct call *call = container_of(link, struct call, link);
        wrong += call->done != 1 || call->inside;
    }
    calls_free(&world->calls);
    event_base_free(world->base);
    free(world);
    size_t left = alloc_fixture_remove();
    if (left || wrong)
        print_error("%zu blocks left, %d requests called back wrongly\n", left, wrong);
    return left || wrong ? -1 : 0;
}

static const struct storage_session bob = {.name = {"bob", 3},
                                           .conn = {"c1", 2},
                                           .user = {"u", 1},
                                           .route = {"/", 1},
                                           .face = {"plain", 5},
                                           .remote = {"h:1", 3},
                                           .agent = {"", 0},
                                           .connected_at_ms = 1};

static void subscribe(struct storage *storage, struct call *call)
{
    CALL(call, storage_subscribe, storage, slice_text("topic:{x}"));
}

static void publish_small(struct storage *storage, struct call *call)
{
    CALL(call, storage_publish, storage, slice_text("topic:{x}"), slice_text("hello"));
}

static void publish_large(struct storage *storage, struct call *call)
{
    static const char bytes[100000];

    CALL(call, storage_publish, storage, slice_text("topic:{x}"), slice_from(bytes, sizeof bytes));
}

static void enter(struct storage *storage, struct call *call)
{
    CALL(call, storage_register, storage, &bob, slice_text("notice"), false);
}

static void leave(struct storage *storage, struct call *call)
{
    CALL(call, storage_unregister, storage, &bob);
}

static void count(struct storage *storage, struct call *call)
{
    CALL(call, storage_count, storage);
}

static void list_sessions(struct storage *storage, struct call *call)
{
    CALL(call, storage_list_sessions, storage, slice_text(""), (size_t)10);
}

static void find(struct storage *storage, struct call *call)
{
    CALL(call, storage_find_session, storage, slice_text("bob"));
}

static void list_user(struct storage *storage, struct call *call)
{
    CALL(call, storage_list_user, storage, slice_text("u"));
}

static void list_instances(struct storage *storage, struct call *call)
{
    CALL(call, storage_list_instances, storage);
}

static void probe(struct storage *storage, struct call *call)
{
    CALL(call, storage_probe, storage);
}

static void subscribe_pattern(struct storage *storage, struct call *call)
{
    CALL(call, storage_subscribe_pattern, storage, slice_text("topic:{*}"));
}

/* With a key, stored, and to a pattern besides. */
static void publish_with(struct storage *storage, struct call *call)
{
    static const struct message_fields fields = {.payload = {"hello", 5}};
    const struct storage_publication publication = {
        .bytes = slice_text("hello"), .fields = &fields, .store = true, .key = slice_text("k")};

    CALL(call, storage_publish_with, storage, slice_text("topic:{x}"), &publication);
}

static void history(struct storage *storage, struct call *call)
{
    const struct storage_history_query query = {.limit = 10};

    CALL(call, storage_history, storage, slice_text("topic:{x}"), &query);
}

static void join(struct storage *storage, struct call *call)
{
    CALL(call, storage_presence_join, storage, slice_text("topic:{x}"), &bob);
}

static void list_presence(struct storage *storage, struct call *call)
{
    CALL(call, storage_presence_list, storage, slice_text("topic:{x}"), (size_t)10);
}

static void part(struct storage *storage, struct call *call)
{
    CALL(call, storage_presence_leave, storage, slice_text("topic:{x}"), &bob);
}

static void list_topics(struct storage *storage, struct call *call)
{
    CALL(call, storage_list_topics, storage, (size_t)10);
}

static int64_t ask(struct world *world, void (*request)(struct storage *, struct call *), size_t *records)
{
    struct call *call = call_new(&world->calls);

    alloc_fixture_fail(0);
    request(world->peer.storage, call);
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    *records = call->record_count;
    return call->number;
}

/* Fails the first allocation of the request, then the second, and so on until one gets through untouched. */
static void fail_each_allocation(struct world *world, void (*request)(struct storage *, struct call *))
{
    size_t before, after;

    for (size_t n = 1;; n++) {
        int64_t sessions = ask(world, count, &before);
        ask(world, list_user, &before);
        /* More requests under way than ever before leave nothing in the pool: the next one must allocate.
         * One request takes up to two places: a message's besides its own. */
        struct storage *storage = world->peer.storage;
        struct call *held = NULL, *call = call_new(&world->calls);
        world->under_way += 2;
        for (size_t i = 0; i < world->under_way; i++) {
            held = call_new(&world->calls);
            count(storage, held);
        }
        alloc_fixture_fail_from(n);
        request(storage, call);
        bool failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        AWAIT(world->base, call->done && held->done);
        if (!failed) {
            assert_true(n > 1);
            assert_int_equal(call->error, ERROR_NONE);
            return;
        }
        assert_int_equal(call->error, ERROR_NO_MEMORY);
        assert_int_equal(call->number, 0);
        assert_int_equal(ask(world, count, &after), sessions);
        ask(world, list_user, &after);
        assert_int_equal(before, after);
        assert_true(n < 50);
    }
}

static void test_each_request_when_memory_is_short(void **state)
{
    struct world *world = *state;

    fail_each_allocation(world, subscribe);
    fail_each_allocation(world, publish_small);
    fail_each_allocation(world, publish_large);
    fail_each_allocation(world, enter);
    fail_each_allocation(world, enter); /* in the place of itself */
    fail_each_allocation(world, count);
    fail_each_allocation(world, list_sessions);
    fail_each_allocation(world, find);
    fail_each_allocation(world, list_user);
    fail_each_allocation(world, list_instances);
    fail_each_allocation(world, probe);
    fail_each_allocation(world, subscribe_pattern);
    fail_each_allocation(world, publish_small);
    fail_each_allocation(world, publish_with);
    fail_each_allocation(world, history);
    fail_each_allocation(world, join);
    fail_each_allocation(world, list_presence);
    fail_each_allocation(world, list_topics);
    fail_each_allocation(world, part);
    fail_each_allocation(world, leave);
}

/* What was refused for want of memory left no trace: the message is stored once, under a key that is free. */
static void test_refused_messages_are_not_stored(void **state)
{
    struct world *world = *state;
    size_t records;

    fail_each_allocation(world, publish_with);
    ask(world, history, &records);
    assert_int_equal(records, 1);
    struct call *again = call_new(&world->calls);
    publish_with(world->peer.storage, again);
    AWAIT(world->base, again->done);
    assert_true(again->repeated);
}

static void test_start_without_memory(void **state)
{
    struct world *world = *state;
    struct peer peer = {.storage = NULL};

    for (size_t n = 1; !peer.up_count; n++) {
        alloc_fixture_fail(0);
        peer_close(&peer);
        alloc_fixture_fail_from(n);
        struct storage *storage = storage_memory_create(world->base);
        if (!storage) {
            assert_true(alloc_fixture_failed());
            continue;
        }
        peer_start(&peer, world->base, storage, "b2", 1000, 3000);
        bool failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        struct call *call = call_new(&world->calls);
        publish_small(storage, call);
        AWAIT(world->base, call->done);
        assert_int_equal(call->error, ERROR_UNAVAILABLE);
        assert_int_equal(peer.up_count, failed ? 0 : 1);
        assert_true(n < 50);
    }
    peer_close(&peer);
}

static void test_starved_requests_are_cancelled_too(void **state)
{
    struct world *world = *state;
    struct call *calls[10];

    alloc_fixture_fail_from(1);
    for (size_t i = 0; i < 10; i++) {
        calls[i] = call_new(&world->calls);
        publish_large(world->peer.storage, calls[i]);
    }
    storage_destroy(world->peer.storage);
    world->peer.storage = NULL;
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(calls[i]->error, ERROR_CANCELLED);
}

static void publish_for_ever(struct call *call)
{
    struct world *world = call->data;

    if (call->error)
        return;
    struct call *next = call_new(&world->calls);
    next->then = publish_for_ever;
    next->data = world;
    publish_small(world->peer.storage, next);
}

static void on_timer(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    *(bool *)data = true;
}

/* Callbacks that always ask again must not keep the loop from its sockets and timers. */
static void test_endless_requests_leave_the_loop_alive(void **state)
{
    struct world *world = *state;
    struct call *first = call_new(&world->calls);
    bool fired = false;
    struct event *timer = evtimer_new(world->base, on_timer, &fired);

    event_add(timer, &(struct timeval){.tv_usec = 1000});
    first->then = publish_for_ever;
    first->data = world;
    publish_small(world->peer.storage, first);
    AWAIT(world->base, fired);
    event_free(timer);
}

#define SHORTAGE_TEST(function) cmocka_unit_test_setup_teardown(function, open_world, close_world)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SHORTAGE_TEST(test_each_request_when_memory_is_short),
        SHORTAGE_TEST(test_refused_messages_are_not_stored),
        SHORTAGE_TEST(test_start_without_memory),
        SHORTAGE_TEST(test_starved_requests_are_cancelled_too),
        SHORTAGE_TEST(test_endless_requests_leave_the_loop_alive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
