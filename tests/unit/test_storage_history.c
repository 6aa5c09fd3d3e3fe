/* Stored messages and idempotency keys, asked of one storage: test_storage_history memory | redis. */
#include "base/clock.h"
#include "proto/envelope.h"
#include "proto/errors.h"
#include "tests/lib/await.h"
#include "tests/lib/storage_world.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char topic[] = "topic:{orders.eu}";

static const struct message_fields plain = {.kind = MESSAGE_DATA,
                                            .content = CONTENT_TEXT,
                                            .time_ms = UINT64_C(1767225600000),
                                            .id = {"m1", 2},
                                            .from = {"session:amy", 11},
                                            .to = {"topic:orders.eu", 15},
                                            .payload = {"hello", 5}};

struct extras {
    bool store;
    uint64_t ttl_ms;
    const char *key;
    const char *sender;
};

static const struct extras stored = {.store = true};

static struct call *send_fields(struct storage_world *world, struct peer *peer, const char *channel,
                                const struct message_fields *fields, struct extras extras)
{
    struct call *call = world_call(world);
    struct buffer bytes;

    buffer_init(&bytes, 0);
    assert_true(extras.store ? envelope_encode_open(fields, &bytes) : envelope_encode(fields, &bytes));
    const struct storage_publication publication = {.bytes = slice_from(bytes.data, bytes.len),
                                                    .fields = fields,
                                                    .store = extras.store,
                                                    .ttl_ms = extras.ttl_ms,
                                                    .key = slice_text(extras.key),
                                                    .sender = slice_text(extras.sender)};
    CALL(call, storage_publish_with, peer->storage, slice_text(channel), &publication);
    buffer_close(&bytes);
    return call;
}

static struct call *send_text(struct storage_world *world, struct peer *peer, const char *channel,
                              const char *text, struct extras extras)
{
    struct message_fields fields = plain;

    fields.payload = slice_text(text);
    return send_fields(world, peer, channel, &fields, extras);
}

/* Stores "1" to "COUNT" and returns how the last one ended. */
static struct call *store_many(struct storage_world *world, struct peer *peer, unsigned count)
{
    struct call *call = NULL;
    char text[16];

    for (unsigned i = 1; i <= count; i++) {
        snprintf(text, sizeof text, "%u", i);
        call = send_text(world, peer, topic, text, stored);
    }
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, ERROR_NONE);
    return call;
}

static struct call *ask(struct storage_world *world, struct peer *peer, const char *channel,
                        const struct storage_history_query *query)
{
    struct call *call = world_call(world);

    CALL(call, storage_history, peer->storage, slice_text(channel), query);
    AWAIT(world->base, call->done);
    return call;
}

static struct call *read_query(struct storage_world *world, struct peer *peer, const char *channel,
                               const char *offset, const char *epoch, size_t limit, bool reverse)
{
    const struct storage_history_query query = {
        .offset = slice_text(offset), .epoch = slice_text(epoch), .limit = limit, .reverse = reverse};

    return ask(world, peer, channel, &query);
}

static struct call *read_all(struct storage_world *world, struct peer *peer)
{
    struct call *call = read_query(world, peer, topic, NULL, NULL, 1000, false);

    assert_int_equal(call->error, ERROR_NONE);
    return call;
}

static const char *payload(const struct call *call, size_t index)
{
    assert_true(index < call->record_count);
    return seen_value(&call->records[index], "payload");
}

/* The payloads, one after the other with a space before each. */
static void expect_payloads(const struct call *call, const char *expected)
{
    char text[256] = "";

    assert_int_equal(call->error, ERROR_NONE);
    for (size_t i = 0; i < call->record_count; i++) {
        strcat(text, " ");
        strcat(text, payload(call, i));
    }
    assert_string_equal(text, expected);
}

static uint64_t count_of(const char *offset)
{
    return strtoull(strchr(offset, '-') + 1, NULL, 10);
}

/* ---- storing ---- */

static void test_stored_message_has_its_place(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct message_fields got;
    uint64_t before = clock_wall_ms();

    world_subscribe(world, peer, topic);
    struct call *call = send_fields(world, peer, topic, &plain, stored);
    world_expect(world, call, ERROR_NONE, 1);
    assert_false(call->repeated);
    assert_in_range(strtoull(call->offset, NULL, 10), before, clock_wall_ms());
    assert_int_equal(count_of(call->offset), 1);
    assert_int_equal(strlen(call->epoch), 8);

    AWAIT(world->base, peer->message_count == 1);
    assert_null(envelope_decode(slice_from(peer->messages[0].bytes, peer->messages[0].len), &got));
    assert_true(slice_is(got.offset, call->offset));
    assert_true(slice_is(got.epoch, call->epoch));
    assert_true(slice_equal(got.payload, plain.payload));
    assert_true(slice_equal(got.from, plain.from));

    struct call *read = read_all(world, peer);
    assert_int_equal(read->number, 1);
    assert_int_equal(read->record_count, 1);
    assert_string_equal(read->offset, call->offset);
    assert_string_equal(read->epoch, call->epoch);
    assert_string_equal(read->cursor, "");
    assert_string_equal(read->records[0].key, call->offset);
    assert_int_equal(read->records[0].field_count, 6);
    assert_string_equal(seen_value(&read->records[0], "epoch"), call->epoch);
    assert_string_equal(seen_value(&read->records[0], "from"), "session:amy");
    assert_string_equal(seen_value(&read->records[0], "id"), "m1");
    assert_string_equal(seen_value(&read->records[0], "time"), "1767225600000");
    assert_string_equal(seen_value(&read->records[0], "content"), "text");
    assert_string_equal(payload(read, 0), "hello");
}

static void test_stored_for_nobody(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct call *call = send_text(world, peer, "user:{bob}", "later", stored);

    world_expect(world, call, ERROR_NONE, 0);
    assert_true(call->offset[0]);
    expect_payloads(read_query(world, peer, "user:{bob}", NULL, NULL, 10, false), " later");
    expect_payloads(read_query(world, peer, "session:{bob}", NULL, NULL, 10, false), "");
}

static void test_publishing_without_extras(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    world_subscribe(world, peer, topic);
    struct call *call = send_fields(world, peer, topic, &plain, (struct extras){.store = false});
    world_expect(world, call, ERROR_NONE, 1);
    assert_string_equal(call->offset, "");
    assert_string_equal(call->epoch, "");
    AWAIT(world->base, peer->message_count == 1);
    assert_int_equal(read_all(world, peer)->record_count, 0);
}

static void test_kinds_and_bytes_are_kept(void **state)
{
    static const char bytes[] = "\0\xff\r\n$5\r\n";
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct message_fields binary = plain, json = plain, empty = {.kind = MESSAGE_DATA};

    binary.content = CONTENT_BINARY;
    binary.payload = slice_from(bytes, sizeof bytes - 1);
    json.content = CONTENT_JSON;
    json.payload = slice_text("{\"n\":7}");
    send_fields(world, peer, topic, &binary, stored);
    send_fields(world, peer, topic, &json, stored);
    send_fields(world, peer, topic, &empty, stored);
    struct call *read = read_all(world, peer);
    assert_int_equal(read->record_count, 3);
    assert_string_equal(seen_value(&read->records[0], "content"), "binary");
    assert_memory_equal(payload(read, 0), bytes, sizeof bytes);
    assert_string_equal(seen_value(&read->records[1], "content"), "json");
    assert_string_equal(payload(read, 1), "{\"n\":7}");
    assert_string_equal(seen_value(&read->records[2], "from"), "");
    assert_string_equal(payload(read, 2), "");
}

static void test_order_of_stored_messages(void **state)
{
    enum { MANY = 1000 };
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    struct message_fields got;

    world_subscribe(world, peer, topic);
    store_many(world, peer, MANY);
    AWAIT(world->base, peer->message_count == MANY);
    struct call *read = read_all(world, peer);
    assert_int_equal(read->record_count, MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(strtoul(payload(read, i), NULL, 10), i + 1);
        assert_int_equal(count_of(read->records[i].key), i + 1);
        assert_null(envelope_decode(slice_from(peer->messages[i].bytes, peer->messages[i].len), &got));
        assert_true(slice_is(got.offset, read->records[i].key));
    }
    assert_string_equal(read->offset, read->records[MANY - 1].key);
}

/* ---- reading ---- */

static void test_reading_from_both_ends(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    store_many(world, peer, 5);
    struct call *all = read_all(world, peer);
    const char *third = all->records[2].key, *last = all->records[4].key;
    expect_payloads(all, " 1 2 3 4 5");
    expect_payloads(read_query(world, peer, topic, NULL, NULL, 1000, true), " 5 4 3 2 1");
    expect_payloads(read_query(world, peer, topic, third, NULL, 1000, false), " 4 5");
    expect_payloads(read_query(world, peer, topic, third, NULL, 1000, true), " 2 1");
    expect_payloads(read_query(world, peer, topic, last, NULL, 1000, false), "");
    expect_payloads(read_query(world, peer, topic, "1-0", NULL, 1000, true), "");
    expect_payloads(read_query(world, peer, topic, "1-0", NULL, 2, false), " 1 2");
    struct call *none = read_query(world, peer, topic, NULL, NULL, 0, false);
    expect_payloads(none, "");
    assert_string_equal(none->offset, last);
    assert_int_equal(none->number, 1);
}

static void test_reading_by_parts(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    store_many(world, peer, 100);
    for (int reverse = 0; reverse < 2; reverse++) {
        char cursor[64] = "";
        unsigned seen = 0;
        do {
            struct call *part = read_query(world, peer, topic, cursor, NULL, 33, reverse);
            assert_int_equal(part->error, ERROR_NONE);
            for (size_t i = 0; i < part->record_count; i++) {
                seen++;
                assert_int_equal(strtoul(payload(part, i), NULL, 10), reverse ? 101 - seen : seen);
            }
            assert_true(part->record_count <= 33);
            snprintf(cursor, sizeof cursor, "%s", part->cursor);
        } while (cursor[0]);
        assert_int_equal(seen, 100);
    }
}

static void test_large_messages_come_in_parts(void **state)
{
    enum { MANY = 30, LARGE = 1000000 };
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    char *large = malloc(LARGE + 1), cursor[64] = "";
    size_t seen = 0;

    memset(large, 'x', LARGE);
    large[LARGE] = '\0';
    for (size_t i = 0; i < MANY; i++)
        world_expect(world, send_text(world, peer, topic, large, stored), ERROR_NONE, 0);
    do {
        struct call *part = read_query(world, peer, topic, cursor, NULL, 1000, false);
        assert_int_equal(part->error, ERROR_NONE);
        assert_true(part->record_count > 0);
        for (size_t i = 0; i < part->record_count; i++)
            assert_string_equal(payload(part, i), large);
        seen += part->record_count;
        snprintf(cursor, sizeof cursor, "%s", part->cursor);
    } while (cursor[0]);
    assert_int_equal(seen, MANY);
    free(large);
}

static void test_reading_so_many_bytes(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    char large[1001] = "";
    struct storage_history_query query = {.limit = 1000, .bytes = 1};

    memset(large, 'x', 1000);
    for (int i = 0; i < 10; i++)
        send_text(world, peer, topic, large, stored);
    struct call *one = ask(world, peer, topic, &query);
    assert_int_equal(one->record_count, 1);
    assert_string_equal(one->cursor, one->records[0].key);
    query.bytes = 3500;
    struct call *some = ask(world, peer, topic, &query);
    assert_in_range(some->record_count, 3, 4);
    assert_string_equal(some->cursor, some->records[some->record_count - 1].key);
    query.bytes = 1000000;
    struct call *all = ask(world, peer, topic, &query);
    assert_int_equal(all->record_count, 10);
    assert_string_equal(all->cursor, "");
}

static void test_bad_offsets(void **state)
{
    static const char *const bad[] = {"x",
                                      "5",
                                      "-",
                                      "5-",
                                      "-5",
                                      "5-5-",
                                      "5-5 ",
                                      " 5-5",
                                      "0-0",
                                      "$-1",
                                      "5-+",
                                      "a-1",
                                      "1-a",
                                      "99999999999999999999-1",
                                      "1-99999999999999999999"};
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    store_many(world, peer, 2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct call *call = read_query(world, peer, topic, bad[i], NULL, 10, false);
        assert_int_equal(call->error, ERROR_BAD_REQUEST);
        assert_int_equal(call->record_count, 0);
        assert_string_equal(call->epoch, "");
    }
}

/* ---- what is missing ---- */

static void test_what_a_history_reaches(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer_with(world, 0, 5, 0);
    char second[64], third[64], eighth[64], future[64], epoch[32];

    struct call *nothing = read_query(world, peer, topic, NULL, NULL, 10, false);
    assert_int_equal(nothing->number, 1);
    assert_string_equal(nothing->offset, "");
    assert_string_equal(nothing->epoch, "");
    assert_int_equal(read_query(world, peer, topic, "5-1", NULL, 10, false)->number, 0);
    assert_int_equal(read_query(world, peer, topic, "5-1", "abcdefgh", 10, false)->number, 0);

    store_many(world, peer, 2);
    struct call *read = read_all(world, peer);
    snprintf(epoch, sizeof epoch, "%s", read->epoch);
    snprintf(second, sizeof second, "%s", read->offset);
    assert_int_equal(read->number, 1);
    store_many(world, peer, 1);
    snprintf(third, sizeof third, "%s", read_all(world, peer)->offset);
    struct call *last = store_many(world, peer, 5);
    snprintf(eighth, sizeof eighth, "%s", last->offset);
    snprintf(future, sizeof future, "%" PRIu64 "-9", clock_wall_ms() + 1000);

    /* Kept are the fourth to the eighth. */
    assert_int_equal(read_all(world, peer)->record_count, 5);
    assert_int_equal(count_of(read_all(world, peer)->records[0].key), 4);
    assert_int_equal(read_all(world, peer)->number, 0);
    assert_int_equal(read_query(world, peer, topic, second, epoch, 10, false)->number, 0);
    assert_int_equal(read_query(world, peer, topic, second, epoch, 10, false)->record_count, 5);
    assert_int_equal(read_query(world, peer, topic, third, epoch, 10, false)->number, 1);
    assert_int_equal(read_query(world, peer, topic, third, epoch, 10, false)->record_count, 5);
    assert_int_equal(read_query(world, peer, topic, third, NULL, 1, false)->number, 1);
    assert_int_equal(read_query(world, peer, topic, third, epoch, 10, true)->number, 1);
    assert_int_equal(read_query(world, peer, topic, eighth, epoch, 10, false)->number, 1);
    assert_int_equal(read_query(world, peer, topic, future, epoch, 10, false)->number, 0);

    /* Another epoch: the offset means nothing. */
    struct call *other = read_query(world, peer, topic, eighth, "zzzzzzzz", 10, false);
    assert_int_equal(other->number, 0);
    assert_int_equal(other->record_count, 5);
    assert_string_equal(other->epoch, epoch);
    other =
        read_query(world, peer, topic, third, "an epoch that is too long to be one of ours at all", 2, true);
    assert_int_equal(other->number, 0);
    assert_string_equal(other->records[0].key, eighth);
}

static void test_count_limit(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer_with(world, 0, 3, 0);

    store_many(world, peer, 10);
    expect_payloads(read_all(world, peer), " 8 9 10");
    world_expect(world, send_text(world, peer, "topic:{other}", "x", stored), ERROR_NONE, 0);
    expect_payloads(read_all(world, peer), " 8 9 10");
}

static void await_gone(struct storage_world *world, struct peer *peer)
{
    uint64_t deadline = clock_monotonic_ms() + 10000;

    while (read_all(world, peer)->offset[0])
        assert_true(clock_monotonic_ms() < deadline);
}

/* A message of `size` bytes, all that counts. */
static struct call *send_sized(struct storage_world *world, struct peer *peer, const char *channel,
                               const char *sender, size_t size)
{
    static char text[8192];
    struct extras extras = {.store = true, .sender = sender};

    assert_in_range(size, STORAGE_MESSAGE_OVERHEAD + plain.from.len, sizeof text);
    memset(text, 'x', sizeof text);
    text[size - STORAGE_MESSAGE_OVERHEAD - plain.from.len] = '\0';
    return send_text(world, peer, channel, text, extras);
}

static void expect_stored(struct storage_world *world, struct peer *peer, const char *channel,
                          const char *sender, size_t size)
{
    struct call *call = send_sized(world, peer, channel, sender, size);

    world_expect(world, call, ERROR_NONE, 0);
    assert_string_not_equal(call->offset, "");
}

static void expect_refused(struct storage_world *world, struct peer *peer, const char *channel,
                           const char *sender, size_t size, int error, const char *why)
{
    struct call *call = send_sized(world, peer, channel, sender, size);

    world_expect(world, call, error, 0);
    assert_string_equal(call->why, why);
    assert_string_equal(call->offset, "");
}

static size_t count_at(struct storage_world *world, struct peer *peer, const char *channel)
{
    return read_query(world, peer, channel, NULL, NULL, 1000, false)->record_count;
}

static void test_bytes_of_an_address(void **state)
{
    struct storage_world *world = *state;

    world_limits.history_bytes = 4000;
    struct peer *peer = world_peer(world, 0);
    for (int i = 0; i < 6; i++)
        expect_stored(world, peer, topic, "user:amy", 1000);
    assert_int_equal(count_at(world, peer, topic), 4);
    expect_stored(world, peer, topic, "user:bob", 2001);
    assert_int_equal(count_at(world, peer, topic), 2);
    expect_refused(world, peer, topic, "user:amy", 4001, ERROR_TOO_LARGE, "history_bytes");
    assert_int_equal(count_at(world, peer, topic), 2);
    expect_stored(world, peer, topic, "user:amy", 4000);
    assert_int_equal(count_at(world, peer, topic), 1);
}

static void test_bytes_of_all(void **state)
{
    struct storage_world *world = *state;

    world_limits.stored_bytes = 3000;
    world_limits.history_bytes = 2000;
    struct peer *peer = world_peer(world, 0);
    expect_stored(world, peer, "topic:{a}", "user:amy", 1000);
    expect_stored(world, peer, "topic:{b}", "user:bob", 2000);
    world_subscribe(world, peer, "topic:{c}");
    expect_refused(world, peer, "topic:{c}", "user:eve", 600, ERROR_LIMIT, "stored_bytes");
    expect_refused(world, peer, "topic:{a}", "user:amy", 1000, ERROR_LIMIT, "stored_bytes");
    world_drain(world, peer);
    assert_int_equal(peer_count(peer, "topic:{c}", NULL), 0); /* it wasn't published either */
    assert_int_equal(count_at(world, peer, "topic:{c}"), 0);
    /* What replaces as much is still taken. */
    expect_stored(world, peer, "topic:{b}", "user:eve", 1500);
    expect_stored(world, peer, "topic:{a}", "user:eve", 1200);
    expect_refused(world, peer, "topic:{a}", "user:eve", 600, ERROR_LIMIT, "stored_bytes");
}

static void test_bytes_of_a_sender(void **state)
{
    struct storage_world *world = *state;

    world_limits.sender_bytes = 2500;
    struct peer *peer = world_peer_with(world, 0, 2, 0);
    expect_stored(world, peer, "topic:{a}", "user:amy", 1000);
    expect_stored(world, peer, "topic:{b}", "user:amy", 1000);
    expect_refused(world, peer, "topic:{b}", "user:amy", 1000, ERROR_LIMIT, "sender_bytes");
    /* Others have their own. */
    expect_stored(world, peer, "topic:{b}", "user:bob", 1000);
    expect_stored(world, peer, "topic:{b}", "session:amy", 1000);
    /* And what others pushed out of a history counts no more. */
    expect_stored(world, peer, "topic:{c}", "user:amy", 1500);
    expect_refused(world, peer, "topic:{c}", "user:amy", 600, ERROR_LIMIT, "sender_bytes");
    assert_int_equal(count_at(world, peer, "topic:{c}"), 1);
}

static void test_addresses(void **state)
{
    struct storage_world *world = *state;

    world_limits.stored_addresses = 4;
    world_limits.sender_addresses = 2;
    struct peer *peer = world_peer_with(world, 0, 1, 0);
    expect_stored(world, peer, "topic:{a}", "user:amy", 600);
    expect_stored(world, peer, "user:{a}", "user:amy", 600);
    expect_refused(world, peer, "topic:{c}", "user:amy", 600, ERROR_LIMIT, "sender_addresses");
    expect_stored(world, peer, "topic:{a}", "user:amy", 600);
    expect_stored(world, peer, "topic:{c}", "user:bob", 600);
    /* Bob's takes the place of amy's. */
    expect_stored(world, peer, "topic:{a}", "user:bob", 600);
    expect_stored(world, peer, "topic:{d}", "user:amy", 600);
    expect_refused(world, peer, "topic:{e}", "api", 600, ERROR_LIMIT, "stored_addresses");
    expect_stored(world, peer, "topic:{d}", "api", 600);
}

/* Redis keeps account of what is too old for a little longer. */
static void await_stored(struct storage_world *world, struct peer *peer, const char *channel,
                         const char *sender, size_t size)
{
    uint64_t deadline = clock_monotonic_ms() + 10000;

    for (;;) {
        struct call *call = send_sized(world, peer, channel, sender, size);
        AWAIT(world->base, call->done);
        if (!call->error)
            return;
        assert_int_equal(call->error, ERROR_LIMIT);
        assert_true(clock_monotonic_ms() < deadline);
    }
}

/* What is too old counts no more, of whomever. */
static void test_limits_age(void **state)
{
    struct storage_world *world = *state;

    world_limits.stored_addresses = world_limits.sender_addresses = 1;
    world_limits.stored_bytes = world_limits.sender_bytes = 1000;
    struct peer *peer = world_peer_with(world, 0, 0, 250);
    expect_stored(world, peer, topic, "user:amy", 1000);
    expect_refused(world, peer, "topic:{b}", "user:bob", 600, ERROR_LIMIT, "stored_addresses");
    expect_refused(world, peer, topic, "user:amy", 600, ERROR_LIMIT, "stored_bytes");
    await_gone(world, peer);
    await_stored(world, peer, "topic:{b}", "user:bob", 1000);
    await_stored(world, peer, "topic:{c}", "user:amy", 1000);
    assert_int_equal(count_at(world, peer, "topic:{b}"), 0);
}

/* One sender's key is nobody else's, however it is written. */
static void test_keys_are_a_senders_own(void **state)
{
    static const struct extras keyed[] = {
        {.store = true, .key = "k", .sender = "user:amy"},
        {.store = true, .key = "k", .sender = "session:amy"},
        {.store = true, .key = "k", .sender = "user:bob"},
        {.store = true, .key = "k", .sender = "api"},
        {.store = true, .key = "b:k", .sender = "user:a"},
        {.store = true, .key = "k", .sender = "user:a:b"},
        {.store = true, .key = "k", .sender = "user:a%3Ab"},
        {.store = true, .key = "user:amy:k", .sender = "api"},
        {.store = true, .key = "k", .sender = "user:a b{}"},
    };
    enum { COUNT = sizeof keyed / sizeof *keyed };
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            struct call *call = send_text(world, peer, topic, "x", keyed[i]);
            world_expect(world, call, ERROR_NONE, 0);
            assert_int_equal(call->repeated, round == 1);
        }
    }
    assert_int_equal(read_all(world, peer)->record_count, COUNT);
}

static void test_age_limit(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer_with(world, 0, 0, 250);
    char epoch[32];

    struct call *call = send_text(world, peer, topic, "old", stored);
    world_expect(world, call, ERROR_NONE, 0);
    snprintf(epoch, sizeof epoch, "%s", call->epoch);
    await_gone(world, peer);
    struct call *lost = read_query(world, peer, topic, call->offset, epoch, 10, false);
    assert_int_equal(lost->number, 0);
    assert_int_equal(lost->record_count, 0);

    struct call *next = send_text(world, peer, topic, "new", stored);
    world_expect(world, next, ERROR_NONE, 0);
    assert_string_not_equal(next->epoch, epoch);
    assert_int_equal(count_of(next->offset), 1);
    struct call *read = read_query(world, peer, topic, call->offset, epoch, 10, false);
    assert_int_equal(read->number, 0);
    expect_payloads(read, " new");
}

static void test_ttl(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    send_text(world, peer, topic, "a", stored);
    send_text(world, peer, topic, "short", (struct extras){.store = true, .ttl_ms = 50});
    struct call *last = send_text(world, peer, topic, "b", (struct extras){.store = true, .ttl_ms = 100000});
    world_expect(world, last, ERROR_NONE, 0);
    uint64_t deadline = clock_monotonic_ms() + 10000;
    while (read_all(world, peer)->record_count != 2)
        assert_true(clock_monotonic_ms() < deadline);
    struct call *read = read_all(world, peer);
    expect_payloads(read, " a b");
    assert_int_equal(read->number, 1);
    assert_string_equal(read->offset, last->offset);
    read = read_query(world, peer, topic, read->records[0].key, NULL, 1, false);
    expect_payloads(read, " b");
    assert_int_equal(read->number, 1);
}

/* ---- keys ---- */

static void test_a_key_delivers_once(void **state)
{
    const struct extras keyed = {.store = true, .key = "k 1{}%:"}, unstored = {.key = "k2"};
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    world_subscribe(world, peer, topic);
    /* The second is made before the first is answered. */
    struct call *first = send_text(world, peer, topic, "1", keyed);
    struct call *second = send_text(world, peer, topic, "2", keyed);
    world_expect(world, first, ERROR_NONE, 1);
    world_expect(world, second, ERROR_NONE, 1);
    assert_false(first->repeated);
    assert_true(second->repeated);
    assert_string_equal(second->offset, first->offset);
    assert_string_equal(second->epoch, first->epoch);
    AWAIT(world->base, peer_count(peer, topic, NULL) == 1);
    storage_unsubscribe(peer->storage, slice_text(topic));
    struct call *third = send_text(world, peer, topic, "3", keyed);
    world_expect(world, third, ERROR_NONE, 1);
    assert_true(third->repeated);
    expect_payloads(read_all(world, peer), " 1");

    /* Another channel, another key, no key. */
    struct call *other = send_text(world, peer, "topic:{other}", "4", keyed);
    world_expect(world, other, ERROR_NONE, 0);
    assert_false(other->repeated);
    struct call *fifth = send_text(world, peer, topic, "5", unstored);
    struct call *again = send_text(world, peer, topic, "6", unstored);
    AWAIT(world->base, fifth->done);
    world_expect(world, again, ERROR_NONE, fifth->number);
    assert_true(again->repeated);
    assert_string_equal(again->offset, "");
    for (int i = 0; i < 2; i++)
        assert_false(send_text(world, peer, topic, "7", stored)->repeated);
    world_drain(world, peer);
    assert_int_equal(peer_count(peer, topic, NULL), 1);
}

static void test_key_lengths(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    char key[STORAGE_KEY_MAX + 2] = "";

    memset(key, ' ', STORAGE_KEY_MAX);
    world_expect(world, send_text(world, peer, topic, "1", (struct extras){.key = key}), ERROR_NONE, 0);
    struct call *call = send_text(world, peer, topic, "1", (struct extras){.key = key});
    world_expect(world, call, ERROR_NONE, 0);
    assert_true(call->repeated);
    memset(key, 'x', STORAGE_KEY_MAX + 1);
    world_expect(world, send_text(world, peer, topic, "1", (struct extras){.store = true, .key = key}),
                 ERROR_BAD_REQUEST, 0);
    assert_int_equal(read_all(world, peer)->record_count, 0);
}

/* ---- life ---- */

static void test_down_and_destroyed(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = &world->peers[0];
    const struct storage_instance instance = {
        .id = "a1", .heartbeat_ms = WORLD_HEARTBEAT_MS, .lease_ms = WORLD_LEASE_MS};

    peer_start_as(peer, world->base, world_storage(world->base), &instance);
    const struct storage_history_query query = {.limit = 1};
    struct call *early = send_text(world, peer, topic, "early", stored), *unread = world_call(world);
    CALL(unread, storage_history, peer->storage, slice_text(topic), &query);
    world_expect(world, early, ERROR_UNAVAILABLE, 0);
    world_expect(world, unread, ERROR_UNAVAILABLE, 0);
    AWAIT(world->base, peer->up_count);

    struct call *calls[3] = {send_text(world, peer, topic, "x", stored),
                             send_text(world, peer, topic, "x", (struct extras){.key = "k"}),
                             world_call(world)};
    CALL(calls[2], storage_history, peer->storage, slice_text(topic), &query);
    storage_destroy(peer->storage);
    peer->storage = NULL;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(calls[i]->done, 1);
        assert_int_equal(calls[i]->error, ERROR_CANCELLED);
        assert_string_equal(calls[i]->offset, "");
    }
}

/* ---- on Redis ---- */

static void test_two_instances_share_a_history(void **state)
{
    struct storage_world *world = *state;
    struct peer *a = world_peer(world, 0), *b = world_peer(world, 1);
    const struct extras keyed = {.store = true, .key = "k"};

    world_subscribe(world, a, topic);
    struct call *first = send_text(world, b, topic, "1", keyed);
    world_expect(world, first, ERROR_NONE, 1);
    struct call *again = send_text(world, a, topic, "2", keyed);
    world_expect(world, again, ERROR_NONE, 1);
    assert_true(again->repeated);
    assert_string_equal(again->offset, first->offset);
    struct call *next = send_text(world, a, topic, "3", stored);
    world_expect(world, next, ERROR_NONE, 1);
    assert_string_equal(next->epoch, first->epoch);
    assert_int_equal(count_of(next->offset), 2);
    expect_payloads(read_all(world, b), " 1 3");
    AWAIT(world->base, a->message_count == 2);
}

static redisReply *command(const char *format, ...)
{
    redisContext *redis = redisConnect("127.0.0.1", world_redis.port);
    va_list args;

    va_start(args, format);
    redisReply *reply = redisvCommand(redis, format, args);
    va_end(args);
    assert_non_null(reply);
    redisFree(redis);
    return reply;
}

static long long ask_number(const char *format, const char *key)
{
    redisReply *reply = command(format, key);
    long long number = reply->integer;

    assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
    freeReplyObject(reply);
    return number;
}

static void test_keys_are_as_documented(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    char key[128];

    struct call *call =
        send_text(world, peer, "topic:{a%20b}", "x",
                  (struct extras){.store = true, .ttl_ms = 1000, .key = "k 1", .sender = "session:b:a{"});
    world_expect(world, call, ERROR_NONE, 0);
    snprintf(key, sizeof key, "%shistory:topic:{a%%20b}", world_prefix);
    redisReply *reply = command("XRANGE %s - +", key);
    assert_int_equal(reply->elements, 1);
    assert_string_equal(reply->element[0]->element[0]->str, call->offset);
    assert_int_equal(reply->element[0]->element[1]->elements, 16);
    assert_string_equal(reply->element[0]->element[1]->element[14]->str, "expires");
    freeReplyObject(reply);
    /* A little more, so that not every message has to renew it. */
    assert_in_range(ask_number("PTTL %s", key), 27 * 3600 * 1000 - 5000, 27 * 3600 * 1000);
    snprintf(key, sizeof key, "%sonce:topic:{a%%20b}:session:b%%3Aa%%7B:k%%201", world_prefix);
    assert_in_range(ask_number("PTTL %s", key), STORAGE_KEY_LIFE_MS - 5000, STORAGE_KEY_LIFE_MS);
}

/* What an operator did to a history by hand. */
static void test_foreign_hands(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);
    char key[128];

    snprintf(key, sizeof key, "%shistory:topic:{orders.eu}", world_prefix);
    struct call *call = store_many(world, peer, 3);
    freeReplyObject(command("XTRIM %s MAXLEN 0", key));
    assert_int_equal(read_query(world, peer, topic, call->offset, call->epoch, 10, false)->number, 0);
    struct call *next = send_text(world, peer, topic, "x", stored);
    world_expect(world, next, ERROR_NONE, 0);
    assert_string_not_equal(next->epoch, call->epoch);
    freeReplyObject(command("XADD %s * payload foreign", key));
    struct call *read = read_all(world, peer);
    expect_payloads(read, " x foreign");
    assert_string_equal(seen_value(&read->records[1], "from"), "");
    world_expect(world, send_text(world, peer, topic, "y", stored), ERROR_NONE, 0);
    expect_payloads(read_all(world, peer), " x foreign y");

    freeReplyObject(command("SET %s text", key));
    world_expect(world, send_text(world, peer, topic, "z", stored), ERROR_INTERNAL, 0);
    assert_int_equal(read_query(world, peer, topic, NULL, NULL, 10, false)->error, ERROR_INTERNAL);
}

static void test_scripts_are_sent_again(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    freeReplyObject(command("SCRIPT FLUSH"));
    store_many(world, peer, 3);
    expect_payloads(read_all(world, peer), " 1 2 3");
}

static void test_outage(void **state)
{
    struct storage_world *world = *state;
    struct peer *peer = world_peer(world, 0);

    struct call *before = store_many(world, peer, 1);
    redis_fixture_kill(&world_redis);
    struct call *lost = send_text(world, peer, topic, "x", stored);
    AWAIT(world->base, peer->down_count);
    AWAIT(world->base, lost->done);
    assert_int_equal(lost->error, ERROR_UNAVAILABLE);
    world_expect(world, send_text(world, peer, topic, "x", stored), ERROR_UNAVAILABLE, 0);
    assert_true(redis_fixture_restart(&world_redis));
    AWAIT(world->base, peer->up_count == 2);
    struct call *read = read_query(world, peer, topic, before->offset, before->epoch, 10, false);
    assert_int_equal(read->number, 0);
    struct call *after = store_many(world, peer, 1);
    assert_string_not_equal(after->epoch, before->epoch);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest common[] = {
        WORLD_TEST(test_stored_message_has_its_place),
        WORLD_TEST(test_stored_for_nobody),
        WORLD_TEST(test_publishing_without_extras),
        WORLD_TEST(test_kinds_and_bytes_are_kept),
        WORLD_TEST(test_order_of_stored_messages),
        WORLD_TEST(test_reading_from_both_ends),
        WORLD_TEST(test_reading_by_parts),
        WORLD_TEST(test_large_messages_come_in_parts),
        WORLD_TEST(test_reading_so_many_bytes),
        WORLD_TEST(test_bad_offsets),
        WORLD_TEST(test_what_a_history_reaches),
        WORLD_TEST(test_count_limit),
        WORLD_TEST(test_age_limit),
        WORLD_TEST(test_ttl),
        WORLD_TEST(test_a_key_delivers_once),
        WORLD_TEST(test_key_lengths),
        WORLD_TEST(test_bytes_of_an_address),
        WORLD_TEST(test_bytes_of_all),
        WORLD_TEST(test_bytes_of_a_sender),
        WORLD_TEST(test_addresses),
        WORLD_TEST(test_limits_age),
        WORLD_TEST(test_keys_are_a_senders_own),
        WORLD_TEST(test_down_and_destroyed),
    };
    static const struct CMUnitTest shared[] = {
        WORLD_TEST(test_two_instances_share_a_history),
        WORLD_TEST(test_keys_are_as_documented),
        WORLD_TEST(test_foreign_hands),
        WORLD_TEST(test_scripts_are_sent_again),
        WORLD_TEST(test_outage),
    };

    if (!world_begin(argc, argv))
        return 1;
    int failed = cmocka_run_group_tests_name("common", common, NULL, NULL);
    if (world_on_redis)
        failed += cmocka_run_group_tests_name("shared", shared, NULL, NULL);
    world_end();
    return failed;
}
