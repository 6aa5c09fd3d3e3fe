/* The router: who is subscribed on the bus and when, who gets what, and what happens when that fails. */
#include "base/buffer.h"
#include "broker/metrics.h"
#include "broker/router.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/fake_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_MESSAGE = 100 };

static struct fake_storage *fake;
static struct metrics metrics;
static struct router *router;

struct receiver {
    struct subscriber subscriber;
    unsigned confirmed, failed, received;
    int error;
    struct message *last; /* a reference */
};

static void on_subscribed(struct subscriber *subscriber, int error)
{
    struct receiver *receiver = container_of(subscriber, struct receiver, subscriber);

    receiver->confirmed += error == 0;
    receiver->failed += error != 0;
    receiver->error = error;
}

static void on_deliver(struct subscriber *subscriber, struct message *message)
{
    struct receiver *receiver = container_of(subscriber, struct receiver, subscriber);

    receiver->received++;
    message_unref(receiver->last);
    receiver->last = message_ref(message);
}

static struct receiver make_receiver(void)
{
    return (struct receiver){.subscriber = {.on_subscribed = on_subscribed, .deliver = on_deliver}};
}

static void subscribe(struct receiver *receiver, const char *channel)
{
    subscriber_init(&receiver->subscriber);
    router_subscribe(router, slice_text(channel), &receiver->subscriber);
}

static void leave(struct receiver *receiver)
{
    router_unsubscribe(router, &receiver->subscriber);
    message_unref(receiver->last);
    receiver->last = NULL;
}

static void on_message(void *data, struct slice channel, struct slice bytes)
{
    (void)data;
    router_on_message(router, channel, bytes);
}

static int open_router(void **state)
{
    const struct storage_events events = {.on_message = on_message};
    const struct storage_instance instance = {.id = "a1"};

    (void)state;
    alloc_fixture_install();
    metrics = (struct metrics){0};
    fake = fake_storage_create();
    storage_start(&fake->storage, &events, &instance);
    router = router_create(&fake->storage, &metrics, MAX_MESSAGE);
    return router ? 0 : -1;
}

static int close_router(void **state)
{
    (void)state;
    storage_destroy(&fake->storage);
    router_destroy(router);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static void say(const char *channel, const char *text)
{
    fake_storage_message(fake, channel, slice_text(text));
}

/* ---- subscribing ---- */

static void first_subscriber_subscribes_and_last_one_unsubscribes(void **state)
{
    struct receiver a = make_receiver(), b = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    assert_int_equal(a.confirmed, 0);
    assert_string_equal(fake_storage_next(fake, FAKE_SUBSCRIBE)->channel, "user:{x}");
    subscribe(&b, "user:{x}");
    assert_int_equal(fake->made[FAKE_SUBSCRIBE], 1);
    assert_int_equal(router_channel_count(router), 1);
    assert_true(fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0));
    assert_int_equal(a.confirmed, 1);
    assert_int_equal(b.confirmed, 1);
    leave(&a);
    assert_int_equal(fake->unsubscribed, 0);
    leave(&b);
    assert_int_equal(fake->unsubscribed, 1);
    assert_int_equal(router_channel_count(router), 0);
    leave(&b); /* not subscribed: nothing happens */
    assert_int_equal(fake->unsubscribed, 1);
}

static void latecomer_is_confirmed_at_once(void **state)
{
    struct receiver a = make_receiver(), b = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
    subscribe(&b, "user:{x}");
    assert_int_equal(b.confirmed, 1);
    assert_int_equal(fake->made[FAKE_SUBSCRIBE], 1);
    leave(&a);
    leave(&b);
}

static void channels_are_apart(void **state)
{
    struct receiver a = make_receiver(), b = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    subscribe(&b, "user:{xy}");
    assert_int_equal(fake_storage_answer_all(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0), 2);
    say("user:{x}", "1");
    say("user:{xy}", "2");
    say("user:{xyz}", "3");
    assert_int_equal(a.received, 1);
    assert_int_equal(b.received, 1);
    assert_int_equal(metrics.bus_messages, 3);
    assert_int_equal(metrics.bus_invalid, 0);
    leave(&a);
    leave(&b);
}

static void failed_subscription_tells_everybody(void **state)
{
    struct receiver a = make_receiver(), b = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    subscribe(&b, "user:{x}");
    fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_UNAVAILABLE, 0);
    assert_int_equal(a.error, ERROR_UNAVAILABLE);
    assert_int_equal(a.failed + b.failed, 2);
    assert_int_equal(router_channel_count(router), 0);
    assert_int_equal(fake->unsubscribed, 0);
    /* The next one tries anew. */
    subscribe(&a, "user:{x}");
    fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
    assert_int_equal(a.confirmed, 1);
    leave(&a);
    leave(&b);
}

static void leaving_while_subscribing_waits_for_the_answer(void **state)
{
    struct receiver a = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    leave(&a);
    assert_int_equal(fake->unsubscribed, 0);
    fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
    assert_int_equal(a.confirmed, 0);
    assert_int_equal(fake->unsubscribed, 1);
    assert_int_equal(router_channel_count(router), 0);

    subscribe(&a, "user:{x}");
    leave(&a);
    fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_TIMEOUT, 0);
    assert_int_equal(a.failed, 0);
    assert_int_equal(fake->unsubscribed, 1);
    assert_int_equal(router_channel_count(router), 0);
}

static void coming_back_while_subscribing_joins(void **state)
{
    struct receiver a = make_receiver(), b = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    leave(&a);
    subscribe(&b, "user:{x}");
    assert_int_equal(fake->made[FAKE_SUBSCRIBE], 1);
    fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0);
    assert_int_equal(a.confirmed, 0);
    assert_int_equal(b.confirmed, 1);
    leave(&b);
    assert_int_equal(fake->unsubscribed, 1);
}

/* ---- messages ---- */

static void messages_come_before_the_confirmation_too(void **state)
{
    struct receiver a = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    say("user:{x}", "early");
    assert_int_equal(a.received, 1);
    assert_int_equal(a.confirmed, 0);
    leave(&a);
    say("user:{x}", "late");
    assert_int_equal(a.received, 1);
}

static void all_receivers_share_one_message(void **state)
{
    struct receiver a = make_receiver(), b = make_receiver();

    (void)state;
    subscribe(&a, "user:{x}");
    subscribe(&b, "user:{x}");
    say("user:{x}", "hello");
    assert_ptr_equal(a.last, b.last);
    assert_int_equal(a.last->refs, 2);
    assert_true(slice_is(a.last->fields.payload, "hello"));
    assert_int_equal(a.last->fields.content, CONTENT_TEXT);
    leave(&a);
    leave(&b);
}

static void bad_and_oversized_ones_are_dropped(void **state)
{
    char large[MAX_MESSAGE + 1];
    struct receiver a = make_receiver();

    (void)state;
    memset(large, 'x', sizeof large);
    subscribe(&a, "user:{x}");
    fake_storage_message(fake, "user:{x}", slice_from(large, MAX_MESSAGE));
    assert_int_equal(a.received, 1);
    fake_storage_message(fake, "user:{x}", slice_from(large, sizeof large));
    fake_storage_message(fake, "user:{x}", slice_text("\x99\x01"));
    fake_storage_message(fake, "user:{x}", slice_text("\x9f"));
    assert_int_equal(a.received, 1);
    assert_int_equal(metrics.bus_invalid, 3);
    /* Nobody is here for it: not even looked at. */
    fake_storage_message(fake, "user:{y}", slice_text("\x99"));
    assert_int_equal(metrics.bus_invalid, 3);
    leave(&a);
}

static unsigned published;

static void on_published(struct storage_request *request, int error, const struct storage_result *result)
{
    (void)request;
    (void)error;
    (void)result;
    published++;
}

static void published_message_comes_back_the_same(void **state)
{
    struct receiver a = make_receiver();
    struct storage_request request = {.on_done = on_published};
    const struct message_fields fields = {.kind = MESSAGE_DATA,
                                          .content = CONTENT_BINARY,
                                          .time_ms = 12345,
                                          .from = slice_text("session:a"),
                                          .to = slice_text("user:x"),
                                          .payload = slice_from("\0\x90\xff", 3)};

    (void)state;
    subscribe(&a, "user:{x}");
    assert_true(router_publish(router, slice_text("user:{x}"), &fields, &request));
    assert_int_equal(metrics.published, 1);
    struct fake_call *call = fake_storage_next(fake, FAKE_PUBLISH);
    assert_string_equal(call->channel, "user:{x}");
    fake_storage_message(fake, call->channel, slice_from(call->bytes, call->len));
    published = 0;
    fake_storage_answer(call, ERROR_NONE, 1);
    assert_int_equal(published, 1);
    assert_int_equal(a.received, 1);
    assert_int_equal(a.last->fields.content, CONTENT_BINARY);
    assert_int_equal(a.last->fields.time_ms, 12345);
    assert_true(slice_equal(a.last->fields.payload, fields.payload));
    assert_true(slice_is(a.last->fields.from, "session:a"));
    leave(&a);
}

/* ---- memory ---- */

/* Everything the router does for one channel; each allocation fails once. */
static void every_failing_allocation_is_survived(void **state)
{
    const struct message_fields fields = {.kind = MESSAGE_DATA, .payload = slice_text("hello")};
    bool failed = true;

    (void)state;
    for (size_t n = 1; failed; n++) {
        struct receiver a = make_receiver(), b = make_receiver();
        struct storage_request request = {.on_done = on_published};
        router_destroy(router);
        router = router_create(&fake->storage, &metrics, MAX_MESSAGE);
        size_t live = alloc_fixture_live();
        published = 0;
        alloc_fixture_fail(n);
        subscribe(&a, "user:{x}");
        subscribe(&b, "user:{x}");
        while (fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0))
            ;
        assert_int_equal(a.confirmed + a.failed, 1);
        assert_int_equal(b.confirmed + b.failed, 1);
        assert_int_equal(a.failed, a.error == ERROR_NO_MEMORY);
        bool sent = router_publish(router, slice_text("user:{x}"), &fields, &request);
        assert_int_equal(fake_storage_open(fake, FAKE_PUBLISH), sent);
        say("user:{x}", "hello");
        fake_storage_answer_next(fake, FAKE_PUBLISH, ERROR_NONE, 1);
        assert_int_equal(published, sent);
        failed = alloc_fixture_failed();
        alloc_fixture_fail(0);
        assert_true(failed || (sent && a.received == 1 && b.received == 1));
        leave(&a);
        leave(&b);
        assert_int_equal(router_channel_count(router), 0);
        assert_true(alloc_fixture_live() <= live + 2); /* the map's table and the scratch stay */
    }
}

static void no_router_without_memory(void **state)
{
    (void)state;
    alloc_fixture_fail(1);
    assert_null(router_create(&fake->storage, &metrics, MAX_MESSAGE));
    router_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROUTER_TEST(name) cmocka_unit_test_setup_teardown(name, open_router, close_router)
        ROUTER_TEST(first_subscriber_subscribes_and_last_one_unsubscribes),
        ROUTER_TEST(latecomer_is_confirmed_at_once),
        ROUTER_TEST(channels_are_apart),
        ROUTER_TEST(failed_subscription_tells_everybody),
        ROUTER_TEST(leaving_while_subscribing_waits_for_the_answer),
        ROUTER_TEST(coming_back_while_subscribing_joins),
        ROUTER_TEST(messages_come_before_the_confirmation_too),
        ROUTER_TEST(all_receivers_share_one_message),
        ROUTER_TEST(bad_and_oversized_ones_are_dropped),
        ROUTER_TEST(published_message_comes_back_the_same),
        ROUTER_TEST(every_failing_allocation_is_survived),
        ROUTER_TEST(no_router_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
