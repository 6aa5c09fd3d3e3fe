/* Structured sessions in orders of events that reality seldom shows: what is asked of the storage stays open while the session
 * ends, subscribes again, or the storage goes away. */
#include "base/log.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "proto/envelope.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/await.h"
#include "tests/lib/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct session_fixture fixture;

static int open_fake(void **state)
{
    *state = &fixture;
    alloc_fixture_install();
    session_fixture_open(&fixture, NULL, false);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    alloc_fixture_fail(0);
    session_fixture_close(&fixture);
    return alloc_fixture_remove() == 0 ? 0 : -1;
}

static void write_nothing(const char *line, size_t len)
{
    (void)line;
    (void)len;
}

/* ---- clients ---- */

/* since: "EPOCH:OFFSET", or NULL. */
static struct client *open_json(const char *path, const char *since)
{
    struct route_match match;
    struct session_params params;
    const char *colon = since ? strchr(since, ':') : NULL;

    assert_true(client_match(&fixture, path, &match, &params));
    params.face = FACE_JSON;
    params.since = since != NULL;
    if (colon) {
        params.since_epoch = slice_from(since, (size_t)(colon - since));
        params.since_offset = slice_text(colon + 1);
    }
    return client_open_with(&fixture, &params);
}

static struct client *online(const char *path)
{
    struct client *client = open_json(path, NULL);

    client_bring_online(client);
    fake_storage_answer_all(fixture.fake, FAKE_COUNT, ERROR_NONE, 1);
    session_fixture_turn(&fixture);
    assert_non_null(strstr(client_take(client), "{\"push\":\"hello\""));
    return client;
}

static bool answer(enum fake_kind kind, int error, int64_t number)
{
    return fake_storage_answer_next(fixture.fake, kind, error, number);
}

static const char *received(struct client *client)
{
    session_fixture_turn(&fixture);
    return client_take(client);
}

static void expect(struct client *client, const char *text)
{
    const char *got = received(client);

    if (!strstr(got, text))
        fail_msg("no %s in %s", text, got);
}

static void expect_nothing(struct client *client)
{
    assert_string_equal(received(client), "");
}

static size_t times(const char *text, const char *part)
{
    size_t count = 0;

    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

static void expect_gone(void)
{
    list_for_each (link, &fixture.clients)
        client_lose(container_of(link, struct client, link), 0);
    assert_true(session_fixture_gone(&fixture));
    assert_int_equal(requests_open(fixture.requests), 0);
    assert_int_equal(fixture.metrics.sessions_opened, fixture.metrics.sessions_closed);
}

/* ---- the bus and the history ---- */

static void deliver(const char *channel, struct message_fields fields)
{
    struct buffer bytes;

    buffer_init(&bytes, 0);
    assert_true(envelope_encode(&fields, &bytes));
    fake_storage_message(fixture.fake, channel, slice_from(bytes.data, bytes.len));
    buffer_close(&bytes);
}

/* The n-th stored message of epoch e on topic:t. */
static void deliver_stored(int n)
{
    char offset[24], text[24];

    snprintf(offset, sizeof offset, "1000-%d", n);
    snprintf(text, sizeof text, "m%d;", n);
    deliver("topic:{t}", (struct message_fields){.to = slice_text("topic:t"),
                                                 .payload = slice_text(text),
                                                 .offset = slice_text(offset),
                                                 .epoch = slice_text("e")});
}

/* Answers the oldest question for history with the messages from `first` to `last`; `more`: there are others. */
static bool answer_history(int first, int last, bool more, bool recovered)
{
    struct storage_record records[16];
    struct storage_field fields[16][3];
    char offsets[16][24], payloads[16][24];
    struct storage_result result = {.number = recovered, .records = records, .epoch = slice_text("e")};

    for (int n = first; n <= last; n++) {
        size_t i = result.record_count++;
        snprintf(offsets[i], sizeof offsets[i], "1000-%d", n);
        snprintf(payloads[i], sizeof payloads[i], "m%d;", n);
        fields[i][0] = (struct storage_field){slice_text("epoch"), slice_text("e")};
        fields[i][1] = (struct storage_field){slice_text("payload"), slice_text(payloads[i])};
        fields[i][2] = (struct storage_field){slice_text("content"), slice_text("text")};
        records[i] = (struct storage_record){slice_text(offsets[i]), fields[i], 3};
    }
    result.offset = slice_text("1000-99");
    if (more)
        result.cursor = slice_text(offsets[result.record_count - 1]);
    return fake_storage_answer_with(fake_storage_next(fixture.fake, FAKE_HISTORY), ERROR_NONE, &result);
}

static void expect_question(const char *epoch, const char *offset)
{
    const struct fake_call *call = fake_storage_next(fixture.fake, FAKE_HISTORY);

    assert_non_null(call);
    assert_string_equal(call->epoch, epoch);
    assert_string_equal(call->offset, offset);
}

/* The storage is back, and every session registered again. */
static void bring_back(void)
{
    fake_storage_up(fixture.fake);
    fake_storage_lose_registry(fixture.fake);
    session_fixture_turn(&fixture);
    while (answer(FAKE_REGISTER, ERROR_NONE, STORAGE_REPLACED_NOBODY))
        ;
    session_fixture_turn(&fixture);
}

/* ---- hello ---- */

static void nothing_comes_before_hello(void **state)
{
    struct client *c = open_json("/names/amy", "e:1000-1");

    (void)state;
    client_bring_online(c);
    deliver("session:{amy}", (struct message_fields){.kind = MESSAGE_REQUEST,
                                                     .from = slice_text("session:bob"),
                                                     .to = slice_text("session:amy"),
                                                     .correlation = slice_text("r1"),
                                                     .timeout_ms = 5000});
    deliver("session:{amy}",
            (struct message_fields){.to = slice_text("session:amy"), .payload = slice_text("live")});
    expect_nothing(c);
    expect_question("e", "1000-1");
    assert_false(c->reading);
    assert_true(answer_history(2, 3, false, true));
    assert_true(c->reading);
    const char *got = received(c);
    const char *hello = strstr(got, "\"hello\""), *m2 = strstr(got, "m2;"), *m3 = strstr(got, "m3;"),
               *live = strstr(got, "live"), *request = strstr(got, "\"request\":\"r1\"");
    assert_true(hello && m2 && m3 && live && request);
    assert_true(hello < m2 && m2 < m3 && m3 < live && hello < request);
    assert_non_null(strstr(got, "\"recovered\":true,\"epoch\":\"e\",\"offset\":\"1000-99\""));
    expect_gone();
}

static void a_session_that_ends_before_hello(void **state)
{
    struct client *kicked = open_json("/names/amy", "e:1000-1"), *lost = open_json("/users/bob", "");

    (void)state;
    client_bring_online(kicked);
    client_bring_online(lost);
    session_end(kicked->session, CLOSE_KICKED);
    client_lose(lost, 0);
    session_fixture_turn(&fixture);
    assert_string_equal(received(kicked), "#4502");
    expect_gone();
}

static void the_storage_fails_before_hello(void **state)
{
    struct client *c = open_json("/names/amy", "e:1000-1"), *d = open_json("/names/bob", "e:1000-1");

    (void)state;
    client_bring_online(c);
    client_bring_online(d);
    assert_true(answer(FAKE_HISTORY, ERROR_TIMEOUT, 0));
    expect(c, "\"recovered\":false}");
    fake_storage_down(fixture.fake);
    expect(d, "\"recovered\":false}");
    bring_back();
    assert_false(c->closes || d->closes);
    expect_gone();
}

/* ---- subscribing ---- */

static struct client *subscribed(const char *since)
{
    struct client *c = online("/users/bob");
    char text[160];

    snprintf(text, sizeof text, "{\"id\":1,\"cmd\":\"subscribe\",\"topic\":\"t\"%s%s}",
             since ? ",\"since\":" : "", since ? since : "");
    client_send(c, text);
    return c;
}

#define SINCE_1 "{\"epoch\":\"e\",\"offset\":\"1000-1\"}"

static void missed_then_live_each_once(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    expect_nothing(c);
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    expect_question("e", "1000-1");
    deliver_stored(3);
    deliver_stored(4);
    expect_nothing(c);
    assert_true(answer_history(2, 3, false, true));
    deliver_stored(4); /* the live copy comes late */
    deliver_stored(5);
    const char *got = received(c);
    for (int n = 2; n <= 5; n++) {
        char text[8];
        snprintf(text, sizeof text, "m%d;", n);
        assert_int_equal(times(got, text), 1);
    }
    assert_true(strstr(got, "\"ok\"") < strstr(got, "m2;") && strstr(got, "m3;") < strstr(got, "m4;"));
    expect_gone();
}

static void pages_are_read_as_the_client_reads(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    c->stalled = true;
    assert_true(answer_history(2, 3, true, true));
    session_fixture_turn(&fixture);
    assert_null(fake_storage_next(fixture.fake, FAKE_HISTORY));
    c->stalled = false;
    expect(c, "m3;");
    session_drained(c->session);
    expect_question("e", "1000-3");
    assert_true(answer_history(4, 5, false, true));
    expect(c, "m5;");
    expect_gone();
}

/* The second page shows that messages left the history meanwhile. */
static void a_gap_in_the_middle_is_told(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    assert_true(answer_history(2, 3, true, true));
    expect(c, "\"ok\":{\"topic\":\"t\",\"recovered\":true");
    session_drained(c->session);
    assert_true(answer_history(8, 9, false, false));
    const char *got = received(c);
    const char *told = strstr(got, "{\"push\":\"recovered\",\"address\":\"topic:t\",\"recovered\":false");
    assert_true(told && told < strstr(got, "m8;"));
    expect_gone();
}

static void a_page_that_fails_is_a_gap(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    assert_true(answer_history(2, 3, true, true));
    expect(c, "m3;");
    session_drained(c->session);
    deliver_stored(9);
    assert_true(answer(FAKE_HISTORY, ERROR_TIMEOUT, 0));
    const char *got = received(c);
    assert_non_null(strstr(got, "\"recovered\":false"));
    assert_non_null(strstr(got, "m9;"));
    expect_gone();
}

static void an_outage_between_pages_goes_on_where_it_was(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    assert_true(answer_history(2, 3, true, true));
    expect(c, "m3;");
    session_drained(c->session);
    deliver_stored(9);
    fake_storage_down(fixture.fake);
    expect_nothing(c);
    bring_back();
    expect_question("e", "1000-3");
    assert_true(answer_history(4, 9, false, true));
    const char *got = received(c);
    assert_non_null(strstr(got, "{\"push\":\"recovered\",\"address\":\"topic:t\",\"recovered\":true"));
    assert_int_equal(times(got, "m9;"), 1);
    assert_int_equal(times(got, "m4;"), 1);
    expect_gone();
}

static void an_outage_after_everything(void **state)
{
    struct client *c = subscribed(NULL);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    deliver_stored(1);
    expect(c, "m1;");
    for (int round = 0; round < 3; round++) {
        fake_storage_down(fixture.fake);
        bring_back();
        expect_question("e", round ? "1000-2" : "1000-1");
        if (round < 1)
            assert_true(answer_history(2, 2, false, true));
        else
            fake_storage_answer_with(fake_storage_next(fixture.fake, FAKE_HISTORY), ERROR_NONE,
                                     &(struct storage_result){.number = 1});
        const char *got = received(c);
        assert_non_null(strstr(got, "\"address\":\"topic:t\",\"recovered\":true"));
        assert_int_equal(times(got, "m2;"), round == 0);
    }
    expect_gone();
}

static void an_outage_before_the_reply(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    fake_storage_down(fixture.fake);
    expect(c, "{\"id\":1,\"error\":{\"code\":503");
    bring_back();
    assert_null(fake_storage_next(fixture.fake, FAKE_HISTORY));
    expect_gone();
}

static void each_subscribe_has_its_one_reply(void **state)
{
    struct client *c = subscribed(SINCE_1);

    (void)state;
    /* Again before the bus confirmed, again while the history is read, and away. */
    client_send(c, "{\"id\":2,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":" SINCE_1 "}");
    expect(c, "{\"id\":1,\"error\":{\"code\":409");
    while (answer(FAKE_SUBSCRIBE, ERROR_NONE, 0))
        ;
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_HISTORY), 1);
    client_send(c, "{\"id\":3,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":" SINCE_1 "}");
    expect(c, "{\"id\":2,\"error\":{\"code\":409");
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_HISTORY), 2);
    assert_true(answer_history(2, 3, false, true));
    expect_nothing(c);
    assert_true(answer_history(2, 3, false, true));
    const char *got = received(c);
    assert_int_equal(times(got, "{\"id\":3,\"ok\":"), 1);
    assert_int_equal(times(got, "m2;"), 1);
    client_send(c, "{\"id\":4,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":" SINCE_1 "}");
    client_send(c, "{\"id\":5,\"cmd\":\"unsubscribe\",\"topic\":\"t\"}");
    got = received(c);
    assert_non_null(strstr(got, "{\"id\":4,\"error\":{\"code\":409"));
    assert_non_null(strstr(got, "{\"id\":5,\"ok\":{}}"));
    assert_true(answer_history(2, 3, false, true));
    deliver_stored(9);
    expect_nothing(c);
    assert_int_equal(fixture.metrics.commands, 5);
    expect_gone();
}

static void a_subscribe_that_fails(void **state)
{
    struct client *c = subscribed(NULL);

    (void)state;
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_UNAVAILABLE, 0));
    expect(c, "{\"id\":1,\"error\":{\"code\":503");
    client_send(c, "{\"id\":2,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":" SINCE_1 "}");
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    assert_true(answer(FAKE_HISTORY, ERROR_BAD_REQUEST, 0));
    expect(c, "\"since\\\"");
    deliver_stored(9);
    expect_nothing(c);
    expect_gone();
}

/* ---- sessions that end while something is open ---- */

static void ended_while_everything_is_open(void **state)
{
    static const char *const commands[] = {
        "{\"id\":2,\"cmd\":\"send\",\"to\":\"user:x\",\"text\":\"hi\"}",
        "{\"id\":3,\"cmd\":\"publish\",\"topic\":\"x\",\"store\":true,\"key\":\"k\"}",
        "{\"id\":4,\"cmd\":\"history\",\"address\":\"topic:t\"}",
        "{\"id\":5,\"cmd\":\"presence\",\"address\":\"topic:t\"}",
        "{\"id\":6,\"cmd\":\"presence\",\"address\":\"user:x\"}",
        "{\"id\":7,\"cmd\":\"presence\",\"address\":\"session:x\"}",
        "{\"id\":8,\"cmd\":\"online\"}",
        "{\"id\":9,\"cmd\":\"request\",\"to\":\"session:x\"}",
        "{\"id\":10,\"cmd\":\"subscribe\",\"topic\":\"a.*\"}",
        "{\"id\":11,\"cmd\":\"subscribe\",\"topic\":\"p\",\"presence\":true,\"events\":true}",
        "{\"id\":12,\"cmd\":\"subscribe\",\"topic\":\"q\",\"since\":{}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        for (int confirmed = 0; confirmed < 2; confirmed++) {
            struct client *c = online("/users/bob");
            client_send(c, commands[i]);
            if (confirmed) {
                answer(FAKE_SUBSCRIBE, ERROR_NONE, 0);
                answer(FAKE_SUBSCRIBE_PATTERN, ERROR_NONE, 0);
            }
            assert_false(list_empty(&fixture.fake->open) && confirmed == 0);
            client_lose(c, 0);
            session_fixture_turn(&fixture);
            expect_gone();
        }
    }
}

static void closed_while_everything_is_open(void **state)
{
    struct client *c = online("/users/bob");

    (void)state;
    client_send(c, "{\"id\":1,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":{},\"presence\":true}\n"
                   "{\"id\":2,\"cmd\":\"history\",\"address\":\"topic:t\"}\n"
                   "{\"id\":3,\"cmd\":\"request\",\"to\":\"session:x\"}\n"
                   "{\"id\":4,\"cmd\":\"subscribe\",\"topic\":\"t.>\"}\n"
                   "{\"id\":5,\"cmd\":\"online\"}");
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    c->lingering = true;
    session_end(c->session, CLOSE_RESTART);
    deliver_stored(9);
    while (answer(FAKE_HISTORY, ERROR_NONE, 1) || answer(FAKE_PRESENCE_JOIN, ERROR_NONE, 1) ||
           answer(FAKE_COUNT, ERROR_NONE, 1) || answer(FAKE_SUBSCRIBE_PATTERN, ERROR_NONE, 0))
        ;
    const char *got = received(c);
    assert_non_null(strstr(got, "{\"push\":\"disconnect\",\"code\":1012"));
    assert_null(strstr(got, "m9;"));
    assert_int_equal(times(got, "\"id\":"), 0);
    expect_gone();
}

static void a_dropped_subscription_with_open_questions(void **state)
{
    struct client *c = online("/users/bob");

    (void)state;
    client_send(c, "{\"id\":1,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":{},\"presence\":true}");
    assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    client_send(c, "{\"id\":2,\"cmd\":\"unsubscribe\",\"topic\":\"t\"}");
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_PRESENCE_JOIN), 1);
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_PRESENCE_LEAVE), 1);
    client_lose(c, 0);
    session_fixture_turn(&fixture);
    assert_true(answer_history(1, 3, true, true));
    assert_true(answer(FAKE_PRESENCE_JOIN, ERROR_TIMEOUT, 0));
    assert_null(fake_storage_next(fixture.fake, FAKE_HISTORY));
    expect_gone();
}

/* ---- requests ---- */

static const char question[] = "{\"id\":7,\"cmd\":\"request\",\"to\":\"session:target\",\"timeout\":60000}";

static void an_answer(struct client *c, enum message_kind kind, const char *from, const char *payload)
{
    char id[64], to[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct slice conn = client_conn(c);

    snprintf(id, sizeof id, "%.*s.1", (int)conn.len, conn.data);
    snprintf(to, sizeof to, "session:bob~%.*s", (int)conn.len, conn.data);
    snprintf(channel, sizeof channel, "session:{bob~%.*s}", (int)conn.len, conn.data);
    deliver(channel, (struct message_fields){.kind = kind,
                                             .from = slice_text(from),
                                             .to = slice_text(to),
                                             .correlation = slice_text(id),
                                             .payload = slice_text(payload)});
}

static void a_request_is_answered_once(void **state)
{
    static const struct {
        enum message_kind kind;
        const char *told;
    } rows[] = {{MESSAGE_REPLY, "{\"id\":7,\"ok\":{\"from\":\"session:target\",\"text\":\"why\"}}|"},
                {MESSAGE_REFUSED, "\"refused\",\"text\":\"why\""},
                {MESSAGE_GONE, "\"name\":\"gone\""}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int early = 0; early < 2; early++) {
            struct client *c = online("/users/bob");
            client_send(c, question);
            /* The answer may come before the publication's own. */
            if (!early)
                assert_true(answer(FAKE_PUBLISH, ERROR_NONE, 1));
            an_answer(c, rows[i].kind, "session:target", "why");
            expect(c, rows[i].told);
            an_answer(c, MESSAGE_REPLY, "session:target", "late");
            if (early)
                assert_true(answer(FAKE_PUBLISH, ERROR_NONE, 0));
            expect_nothing(c);
            expect_gone();
        }
    }
}

static void a_request_that_reaches_nobody(void **state)
{
    static const struct {
        int error;
        const char *told;
    } rows[] = {{ERROR_NONE, "\"name\":\"absent\""},
                {ERROR_UNAVAILABLE, "\"name\":\"unavailable\""},
                {ERROR_NO_MEMORY, "\"name\":\"no_memory\""}};
    struct client *c = online("/users/bob");

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        client_send(c, question);
        assert_true(answer(FAKE_PUBLISH, rows[i].error, 0));
        expect(c, rows[i].told);
    }
    expect_gone();
}

static void a_request_whose_deadline_passes(void **state)
{
    struct client *c = online("/users/bob");

    (void)state;
    client_send(c, "{\"id\":7,\"cmd\":\"request\",\"to\":\"session:target\",\"timeout\":1}");
    AWAIT(loop_base(fixture.loop), requests_open(fixture.requests) == 0);
    expect(c, "\"name\":\"timeout\"");
    /* The question's own answer comes last; those asked are told. */
    assert_int_equal(fake_storage_open(fixture.fake, FAKE_PUBLISH), 2);
    expect_gone();
}

static void requests_of_a_session_that_leaves_are_cancelled(void **state)
{
    struct client *c = online("/users/bob");

    (void)state;
    client_send(c, question);
    client_send(c, question);
    assert_int_equal(requests_open(fixture.requests), 2);
    client_lose(c, 0);
    session_fixture_turn(&fixture);
    assert_int_equal(requests_open(fixture.requests), 0);
    assert_int_equal(fixture.fake->made[FAKE_PUBLISH], 4);
    expect_gone();
}

static void ask(const char *name, const char *id, uint64_t timeout_ms)
{
    char channel[CHANNEL_MAX], to[ADDRESS_MAX + 1];

    snprintf(channel, sizeof channel, "session:{%s}", name);
    snprintf(to, sizeof to, "session:%s", name);
    deliver(channel, (struct message_fields){.kind = MESSAGE_REQUEST,
                                             .from = slice_text("session:asker"),
                                             .to = slice_text(to),
                                             .correlation = slice_text(id),
                                             .timeout_ms = timeout_ms});
}

static void replies_and_what_becomes_of_them(void **state)
{
    struct client *c = online("/names/amy");
    static const char *const outcomes[] = {"{\"id\":1,\"ok\":{}}", "\"name\":\"gone\"",
                                           "\"name\":\"unavailable\""};

    (void)state;
    for (int i = 0; i < 3; i++) {
        ask("amy", "r1", 5000);
        expect(c, "\"request\":\"r1\"");
        client_send(c, "{\"id\":1,\"cmd\":\"reply\",\"request\":\"r1\",\"text\":\"yes\"}");
        expect_nothing(c);
        assert_true(answer(FAKE_PUBLISH, i == 2 ? ERROR_UNAVAILABLE : ERROR_NONE, i == 0));
        expect(c, outcomes[i]);
        client_send(c, "{\"id\":2,\"cmd\":\"reply\",\"request\":\"r1\",\"text\":\"again\"}");
        expect(c, "{\"id\":2,\"error\":{\"code\":410");
    }
    expect_gone();
}

static void a_request_is_forgotten_when_nobody_waits(void **state)
{
    struct client *c = online("/names/amy");

    (void)state;
    ask("amy", "r1", 5000);
    ask("amy", "r2", 5000);
    expect(c, "\"request\":\"r2\"");
    deliver("session:{amy}",
            (struct message_fields){.kind = MESSAGE_CANCEL, .correlation = slice_text("r1")});
    deliver("session:{amy}",
            (struct message_fields){.kind = MESSAGE_CANCEL, .correlation = slice_text("r1")});
    assert_string_equal(received(c), "{\"push\":\"cancel\",\"request\":\"r1\"}|");
    fixture.now_us += 5001000;
    client_send(c, "{\"id\":2,\"cmd\":\"reply\",\"request\":\"r2\",\"text\":\"late\"}");
    expect(c, "{\"id\":2,\"error\":{\"code\":410");
    assert_int_equal(fixture.fake->made[FAKE_PUBLISH], 0);
    expect_gone();
}

static void whoever_leaves_says_so_when_it_is_unregistered(void **state)
{
    struct client *c = online("/names/amy");

    (void)state;
    ask("amy", "r1", 5000);
    client_lose(c, 0);
    session_fixture_turn(&fixture);
    assert_int_equal(fixture.fake->made[FAKE_PUBLISH], 0);
    assert_true(answer(FAKE_UNREGISTER, ERROR_NONE, 1));
    assert_int_equal(fixture.fake->made[FAKE_PUBLISH], 1);
    assert_string_equal(fake_storage_next(fixture.fake, FAKE_PUBLISH)->channel, "session:{asker}");
    expect_gone();
}

static void no_more_requests_than_the_limit(void **state)
{
    struct client *c = online("/users/bob"), *d = online("/names/amy");
    size_t limit = fixture.config->requests_limit;

    (void)state;
    for (size_t i = 0; i < limit; i++) {
        char id[24];
        client_send(c, question);
        snprintf(id, sizeof id, "r%zu", i);
        ask("amy", id, 5000);
    }
    expect_nothing(c);
    client_send(c, question);
    expect(c, "\"name\":\"limit\"");
    assert_int_equal(requests_open(fixture.requests), limit);
    assert_int_equal(times(received(d), "\"push\":\"request\""), limit);
    size_t before = fixture.fake->made[FAKE_PUBLISH];
    ask("amy", "one more", 5000);
    expect_nothing(d);
    assert_int_equal(fixture.fake->made[FAKE_PUBLISH], before + 1);
    expect_gone();
}

static void no_more_subscriptions_than_the_limit(void **state)
{
    struct client *c = online("/users/bob");
    char text[80];

    (void)state;
    for (uint64_t i = 0; i < fixture.config->subscriptions_limit; i++) {
        snprintf(text, sizeof text, "{\"id\":1,\"cmd\":\"subscribe\",\"topic\":\"t%llu\"}",
                 (unsigned long long)i);
        client_send(c, text);
        assert_true(answer(FAKE_SUBSCRIBE, ERROR_NONE, 0));
    }
    expect(c, "\"ok\"");
    client_send(c, "{\"id\":2,\"cmd\":\"subscribe\",\"topic\":\"more\"}");
    expect(c, "{\"id\":2,\"error\":{\"code\":429");
    expect_gone();
}

/* The channel of the next message on its way to the bus, which is taken by `receivers`; "" when there is none. */
static const char *next_publish(int64_t receivers, struct message_fields *fields)
{
    static char channel[CHANNEL_MAX];
    struct fake_call *call = fake_storage_next(fixture.fake, FAKE_PUBLISH);

    if (!call)
        return "";
    snprintf(channel, sizeof channel, "%s", call->channel);
    if (fields)
        assert_null(envelope_decode(slice_from(call->bytes, call->len), fields));
    if (fields)
        *fields = (struct message_fields){.kind = fields->kind, .content = fields->content, .timeout_ms = fields->timeout_ms};
    assert_true(answer(FAKE_PUBLISH, ERROR_NONE, receivers));
    return channel;
}

static void send_back(const char *name, const char *id, const char *text)
{
    char channel[CHANNEL_MAX];

    snprintf(channel, sizeof channel, "session:{%s}", name);
    deliver(channel, (struct message_fields){.kind = MESSAGE_LATE,
                                             .from = slice_text("session:asker"),
                                             .payload = slice_text(text),
                                             .correlation = slice_text(id)});
}

/* A plain session that may be asked, one thing at a time. */
static void a_plain_session_answers(void **state)
{
    struct client *c = client_open_online(&fixture, "/asked/amy");
    struct message_fields sent;

    (void)state;
    ask("amy", "r1", 5000);
    assert_string_equal(received(c), "|");
    for (int i = 0; i < 3; i++) {
        ask("amy", "r2", 5000);
        assert_string_equal(next_publish(1, &sent), "session:{asker}");
        assert_int_equal(sent.kind, MESSAGE_REFUSED);
        assert_string_equal(received(c), "");
    }
    client_send(c, "text");
    assert_string_equal(next_publish(1, &sent), "session:{asker}");
    assert_int_equal(sent.kind, MESSAGE_REPLY);
    assert_true(sent.timeout_ms != 0);
    client_send(c, "text");
    assert_string_equal(next_publish(1, NULL), "topic:{said}");
    ask("amy", "r3", 5000);
    assert_string_equal(received(c), "|");
    client_send(c, "text");
    assert_string_equal(next_publish(1, NULL), "session:{asker}");
    expect_gone();
}

/* What was no answer, since nobody waited for it any more, is an ordinary message; and each is one or the other. */
static void a_plain_answer_that_comes_too_late(void **state)
{
    struct client *c = client_open_online(&fixture, "/asked/amy");

    (void)state;
    /* The deadline is over here. */
    ask("amy", "r1", 5000);
    fixture.now_us += 5000 * 1000;
    client_send(c, "one");
    assert_string_equal(next_publish(1, NULL), "topic:{said}");
    assert_string_equal(next_publish(1, NULL), "");

    /* It was over there, too early for us to know. */
    ask("amy", "r2", 5000);
    client_send(c, "two");
    assert_string_equal(next_publish(1, NULL), "session:{asker}");
    send_back("amy", "r1", "never said");
    assert_string_equal(next_publish(1, NULL), "");
    send_back("amy", "r2", "two");
    assert_string_equal(next_publish(1, NULL), "topic:{said}");
    send_back("amy", "r2", "two");
    assert_string_equal(next_publish(1, NULL), "");

    /* Whoever asked is gone. */
    ask("amy", "r3", 5000);
    client_send(c, "three");
    assert_string_equal(next_publish(0, NULL), "session:{asker}");
    assert_string_equal(next_publish(1, NULL), "topic:{said}");
    assert_string_equal(next_publish(1, NULL), "");

    /* While it comes back, the next one is asked already; that one is not answered by it. */
    ask("amy", "r4", 5000);
    client_send(c, "four");
    assert_string_equal(next_publish(1, NULL), "session:{asker}");
    ask("amy", "r5", 5000);
    send_back("amy", "r4", "four");
    assert_string_equal(next_publish(1, NULL), "topic:{said}");
    client_send(c, "five");
    assert_string_equal(next_publish(1, NULL), "session:{asker}");

    /* After a while it can't come back any more. */
    fixture.now_us += 3600 * UINT64_C(1000000);
    ask("amy", "r6", 5000);
    send_back("amy", "r5", "five");
    assert_string_equal(next_publish(1, NULL), "");
    expect_gone();
}

/* ---- idempotency keys ---- */

static void no_more_keys_than_the_limits(void **state)
{
    static const char *const keyed[] = {
        "{\"id\":1,\"cmd\":\"send\",\"to\":\"user:x\",\"text\":\"hi\",\"key\":\"k\"}",
        "{\"id\":2,\"cmd\":\"publish\",\"topic\":\"t\",\"text\":\"hi\",\"key\":\"k\",\"store\":true}",
    };

    (void)state;
    struct client *c = online("/users/bob"), *d = online("/users/amy");
    keys_set_limits(&fixture.keys, 3, 2);
    for (size_t i = 0; i < 2; i++) {
        client_send(c, keyed[i]);
        assert_true(answer(FAKE_PUBLISH_WITH, ERROR_NONE, 1));
        expect(c, "delivered");
    }
    for (size_t i = 0; i < 2; i++) {
        client_send(c, keyed[i]);
        assert_false(answer(FAKE_PUBLISH_WITH, ERROR_NONE, 1));
        expect(c, "\"code\":429,\"name\":\"limit\",\"text\":\"too many idempotency keys within five minutes (session_keys)\"");
    }
    client_send(d, keyed[0]);
    assert_true(answer(FAKE_PUBLISH_WITH, ERROR_NONE, 1));
    expect(d, "delivered");
    client_send(d, keyed[0]);
    expect(d, "(keys_limit)");
    assert_int_equal(fixture.metrics.keys_refused, 3);
    /* What has no key goes on. */
    client_send(c, "{\"id\":3,\"cmd\":\"send\",\"to\":\"user:x\",\"text\":\"hi\"}");
    assert_true(answer(FAKE_PUBLISH, ERROR_NONE, 1));
    expect(c, "{\"id\":3,\"ok\"");
    /* What is malformed costs nothing; and the keys are gone after their time. */
    fixture.now_us += (STORAGE_KEY_LIFE_MS + KEYS_MINUTE_MS) * UINT64_C(1000);
    for (unsigned i = 0; i < 5; i++)
        client_send(c, "{\"id\":4,\"cmd\":\"send\",\"to\":\"nobody\",\"text\":\"hi\",\"key\":\"k\"}");
    expect(c, "bad_request");
    client_send(c, keyed[1]);
    assert_true(answer(FAKE_PUBLISH_WITH, ERROR_NONE, 1));
    expect(c, "delivered");
    expect_gone();
}

/* ---- memory ---- */

static const char *const script[] = {
    "{\"id\":1,\"cmd\":\"subscribe\",\"topic\":\"t\",\"since\":{},\"presence\":true,\"events\":true}",
    "{\"id\":2,\"cmd\":\"subscribe\",\"topic\":\"a.>\"}",
    "{\"id\":3,\"cmd\":\"publish\",\"topic\":\"t\",\"data\":{\"a\":1},\"store\":true,\"key\":\"k\"}",
    "{\"id\":4,\"cmd\":\"send\",\"to\":\"user:bob\",\"binary\":\"AP8=\"}",
    "{\"id\":5,\"cmd\":\"request\",\"to\":\"user:bob\",\"text\":\"?\"}",
    "{\"id\":6,\"cmd\":\"history\",\"address\":\"topic:t\"}",
    "{\"id\":7,\"cmd\":\"presence\",\"address\":\"user:bob\"}",
    "{\"id\":8,\"cmd\":\"online\"}",
    "{\"id\":9,\"cmd\":\"unsubscribe\",\"topic\":\"t\"}",
    "{\"id\":10,\"cmd\":\"ping\"}\n{\"id\":11,\"cmd\":\"nonsense\"}",
};

static void expect_one_reply_at_most(const char *got)
{
    for (int id = 1; id <= 11; id++) {
        char text[16];
        snprintf(text, sizeof text, "{\"id\":%d,", id);
        assert_true(times(got, text) <= 1);
    }
}

/* Every command of the script is answered, or the connection closed. */
static bool live_through(size_t n, void (*arm)(size_t))
{
    struct client *c = open_json("/users/bob", "");
    bool failed;

    arm(n);
    session_fixture_settle(&fixture);
    for (size_t i = 0; i < sizeof script / sizeof *script; i++) {
        client_send(c, script[i]);
        session_fixture_settle(&fixture);
    }
    client_send(c, "{\"id\":12,\"cmd\":\"reply\",\"request\":\"x\",\"refuse\":\"no\"}");
    session_fixture_settle(&fixture);
    failed = alloc_fixture_failed();
    alloc_fixture_fail(0);
    const char *got = client_take(c);
    expect_one_reply_at_most(got);
    /* Whatever memory was too short for, the client was told, by an error or by the end of its connection. */
    if (c->session && !c->closes) {
        for (int id = 1; id <= 11; id++) {
            char text[16];
            snprintf(text, sizeof text, "{\"id\":%d,", id);
            if (id != 5) /* its own request, which it does not answer */
                assert_int_equal(times(got, text), 1);
        }
    }
    client_lose(c, 0);
    session_fixture_settle(&fixture);
    assert_int_equal(sessions_total(fixture.sessions), 0);
    assert_int_equal(router_channel_count(fixture.router), 0);
    return failed;
}

static int open_memory(void **state)
{
    *state = &fixture;
    alloc_fixture_install();
    session_fixture_open(&fixture, NULL, true);
    return 0;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    for (size_t n = 1; live_through(n, alloc_fixture_fail); n++)
        assert_true(n < 3000);
}

static void all_allocations_fail_from_some_point_on(void **state)
{
    (void)state;
    for (size_t n = 1; live_through(n, alloc_fixture_fail_from); n++)
        assert_true(n < 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define FAKE_TEST(name)   cmocka_unit_test_setup_teardown(name, open_fake, close_all)
#define MEMORY_TEST(name) cmocka_unit_test_setup_teardown(name, open_memory, close_all)
        FAKE_TEST(nothing_comes_before_hello),
        FAKE_TEST(a_session_that_ends_before_hello),
        FAKE_TEST(the_storage_fails_before_hello),
        FAKE_TEST(missed_then_live_each_once),
        FAKE_TEST(pages_are_read_as_the_client_reads),
        FAKE_TEST(a_gap_in_the_middle_is_told),
        FAKE_TEST(a_page_that_fails_is_a_gap),
        FAKE_TEST(an_outage_between_pages_goes_on_where_it_was),
        FAKE_TEST(an_outage_after_everything),
        FAKE_TEST(an_outage_before_the_reply),
        FAKE_TEST(each_subscribe_has_its_one_reply),
        FAKE_TEST(a_subscribe_that_fails),
        FAKE_TEST(ended_while_everything_is_open),
        FAKE_TEST(closed_while_everything_is_open),
        FAKE_TEST(a_dropped_subscription_with_open_questions),
        FAKE_TEST(a_request_is_answered_once),
        FAKE_TEST(a_request_that_reaches_nobody),
        FAKE_TEST(a_request_whose_deadline_passes),
        FAKE_TEST(requests_of_a_session_that_leaves_are_cancelled),
        FAKE_TEST(replies_and_what_becomes_of_them),
        FAKE_TEST(a_request_is_forgotten_when_nobody_waits),
        FAKE_TEST(whoever_leaves_says_so_when_it_is_unregistered),
        FAKE_TEST(no_more_requests_than_the_limit),
        FAKE_TEST(no_more_subscriptions_than_the_limit),
        FAKE_TEST(a_plain_session_answers),
        FAKE_TEST(a_plain_answer_that_comes_too_late),
        FAKE_TEST(no_more_keys_than_the_limits),
        MEMORY_TEST(each_allocation_fails_once),
        MEMORY_TEST(all_allocations_fail_from_some_point_on),
    };
    /* A sweep would fill the screen. */
    log_set_sink(write_nothing);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
