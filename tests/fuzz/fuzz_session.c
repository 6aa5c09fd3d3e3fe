/* The input is a script: what clients, bus and storage do, two bytes a step, in orders that no storage would come up
 * with. Whatever happens, the books balance after each step, and when everybody left and everything was answered,
 * nothing is left. */
#include "base/log.h"
#include "broker/outbox.h"
#include "broker/router.h"
#include "fuzz.h"
#include "tests/lib/session_fixture.h"

#include <string.h>

enum {
    CLIENTS = 6,
    STEPS_MAX = 400,
    ROUNDS_MAX = 64,
    CALM_MAX = 8 * STEPS_MAX, /* what came of each step may take some turns */
    OUTBOX_LIMIT = 256,
    INFLIGHT_LIMIT = 4,
    INFLIGHT_BYTES = 200,
    INFLIGHT_TOTAL = 8,
    TURN_COMMANDS = 3,
    TURN_BYTES = 150
};

static struct session_fixture fixture;
static struct client *clients[CLIENTS]; /* the newest connection in each place; NULL: none yet */

static void write_nothing(const char *line, size_t len)
{
    (void)line;
    (void)len;
}

/* ---- the steps; each gets the step's second byte ---- */

static struct client *client_at(uint8_t arg)
{
    return clients[arg % CLIENTS];
}

static bool is_live(const struct client *client)
{
    return client && client->session;
}

static void connect_client(uint8_t arg)
{
    static const char *const paths[] = {"/users/a",  "/names/a", "/names/target",
                                        "/topics/a", "/echo",    "/to/a"};
    struct client **place = &clients[arg % CLIENTS];

    if (is_live(*place))
        client_lose(*place, 1001);
    *place = client_open(&fixture, paths[arg / CLIENTS % (sizeof paths / sizeof *paths)]);
    fuzz_require(is_live(*place));
    (*place)->stalled = arg & 0x80;
}

static void lose_client(uint8_t arg)
{
    if (is_live(client_at(arg)))
        client_lose(client_at(arg), arg & 0x80 ? 1000 : 0);
}

static void end_client(uint8_t arg)
{
    if (!is_live(client_at(arg)))
        return;
    client_at(arg)->lingering = arg & 0x80;
    session_end(client_at(arg)->session, CLOSE_KICKED);
}

static void send_message(uint8_t arg)
{
    static char bytes[128];

    memset(bytes, 'm', sizeof bytes);
    if (!is_live(client_at(arg)) || !session_outbox(client_at(arg)->session))
        return;
    /* Also past a pause and a close: what was read already still comes. */
    session_receive(client_at(arg)->session, arg & 0x40 ? CONTENT_BINARY : CONTENT_TEXT,
                    slice_from(bytes, arg & 0x80 ? sizeof bytes : arg & 7));
}

static void send_burst(uint8_t arg)
{
    for (unsigned i = 0; i < 2u + arg / CLIENTS % 16; i++)
        send_message((uint8_t)(arg % CLIENTS));
}

static void deliver_message(uint8_t arg)
{
    static const char *const channels[] = {"user:{a}", "session:{a}", "session:{target}", "topic:{a}",
                                           "user:{b}"};
    static const char *const texts[] = {
        "", "hello", "\x90", "\x99\x01\xa0",
        "a text that is long enough to fill an outbox soon, when it is sent more often"};

    fixture_message(&fixture, channels[arg % 5], texts[arg / 5 % 5]);
}

static void give_notice(uint8_t arg)
{
    struct client *client = client_at(arg);
    struct slice conn = is_live(client) && !(arg & 0x40) ? client_conn(client) : slice_text("another");

    fixture_notice(&fixture, arg & 0x80 ? "target" : "a", conn);
}

static void answer_some(uint8_t arg)
{
    static const int errors[] = {ERROR_NONE, ERROR_NONE,      ERROR_NONE,     ERROR_UNAVAILABLE,
                                 ERROR_NONE, ERROR_NO_MEMORY, ERROR_CONFLICT, ERROR_TIMEOUT};
    struct list *at = fixture.fake->open.next;

    for (unsigned i = 0; i < arg / 16u && at != &fixture.fake->open; i++)
        at = at->next;
    if (at != &fixture.fake->open)
        fake_storage_answer(container_of(at, struct fake_call, link), errors[arg & 7], arg >> 3 & 1);
}

static void answer_all(uint8_t arg)
{
    fake_storage_answer_all(fixture.fake, (enum fake_kind)(arg % FAKE_KIND_COUNT), ERROR_NONE,
                            arg & 0x80 ? 1 : 0);
}

static void turn(uint8_t arg)
{
    fixture.now_us += arg;
    session_fixture_turn(&fixture);
}

static void break_or_mend(uint8_t arg)
{
    if (arg & 1) {
        fake_storage_lose_registry(fixture.fake);
    } else if (fixture.fake->storage.state == STORAGE_UP) {
        fake_storage_down(fixture.fake);
    } else {
        fake_storage_up(fixture.fake);
        fake_storage_lose_registry(fixture.fake);
    }
}

static void end_some(uint8_t arg)
{
    size_t left = sessions_end_some(fixture.sessions, arg % 4u, CLOSE_RESTART);

    fuzz_require(left <= sessions_total(fixture.sessions));
}

static void wake_client(uint8_t arg)
{
    if (client_at(arg))
        client_at(arg)->stalled = client_at(arg)->lingering = arg & 0x80;
}

static bool anybody_waits(void)
{
    list_for_each (link, &fixture.clients) {
        const struct client *client = container_of(link, struct client, link);
        if (client->session && !client->closes && session_outbox(client->session) && !client->reading)
            return true;
    }
    return false;
}

/* Everything is answered and everybody reads: then nobody who is online is kept waiting. */
static void calm_down(uint8_t arg)
{
    (void)arg;
    if (fixture.fake->storage.state != STORAGE_UP)
        break_or_mend(0);
    list_for_each (link, &fixture.clients)
        container_of(link, struct client, link)->stalled = false;
    for (int round = 0; round < 2 || anybody_waits(); round++) {
        fuzz_require(round < CALM_MAX);
        session_fixture_turn(&fixture);
        for (int kind = 0; kind < FAKE_KIND_COUNT; kind++)
            fake_storage_answer_all(fixture.fake, (enum fake_kind)kind, ERROR_NONE, 0);
    }
}

static void (*const steps[])(uint8_t) = {
    connect_client, lose_client, end_client,    send_message, deliver_message, give_notice, answer_some,
    answer_all,     turn,        break_or_mend, end_some,     wake_client,     send_burst,  calm_down};

/* ---- what must hold ---- */

static void check_books(void)
{
    size_t online = 0, live = 0;

    list_for_each (link, &fixture.clients) {
        const struct client *client = container_of(link, struct client, link);
        fuzz_require(client->closes <= 1);
        fuzz_require(!client->closes == !client->close_code);
        if (!client->session)
            continue;
        const struct outbox *outbox = session_outbox(client->session);
        live++;
        online += outbox && !client->closes;
        fuzz_require(outbox || !client->reading);
        fuzz_require(!outbox || outbox->count <= 1 || outbox->bytes <= OUTBOX_LIMIT);
        fuzz_require(!outbox || !outbox->count || client->wanted);
    }
    fuzz_require(online == sessions_online(fixture.sessions));
    fuzz_require(live <= sessions_total(fixture.sessions));
    fuzz_require(fixture.metrics.sessions_opened - fixture.metrics.sessions_closed >= online);
}

static void finish(void)
{
    fixture.fake->storage.state = STORAGE_UP;
    list_for_each (link, &fixture.clients)
        client_lose(container_of(link, struct client, link), 0);
    for (int round = 0; sessions_total(fixture.sessions) || router_channel_count(fixture.router); round++) {
        fuzz_require(round < ROUNDS_MAX);
        session_fixture_turn(&fixture);
        fake_storage_lose_registry(fixture.fake);
        for (int kind = 0; kind < FAKE_KIND_COUNT; kind++)
            fake_storage_answer_all(fixture.fake, (enum fake_kind)kind, ERROR_NONE, 0);
    }
    fuzz_require(list_empty(&fixture.fake->open));
    fuzz_require(sessions_online(fixture.sessions) == 0);
    fuzz_require(fixture.metrics.sessions_opened == fixture.metrics.sessions_closed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct sessions_options options = {.outbox_limit = OUTBOX_LIMIT,
                                             .inflight_limit = INFLIGHT_LIMIT,
                                             .inflight_bytes = INFLIGHT_BYTES,
                                             .inflight_total = INFLIGHT_TOTAL,
                                             .turn_commands = TURN_COMMANDS,
                                             .turn_bytes = TURN_BYTES};

    log_set_sink(write_nothing);
    memset(clients, 0, sizeof clients);
    session_fixture_open(&fixture, &options, false);
    for (size_t i = 0; i + 1 < size && i < 2 * STEPS_MAX; i += 2) {
        steps[data[i] % (sizeof steps / sizeof *steps)](data[i + 1]);
        check_books();
    }
    /* Half of the scripts stop in the middle of everything, as a broker does that is told to end at once. */
    if (!size || data[size - 1] & 1)
        finish();
    session_fixture_close(&fixture);
    return 0;
}
