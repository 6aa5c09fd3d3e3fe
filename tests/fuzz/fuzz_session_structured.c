/* As fuzz_session.c, but the clients speak the structured faces: the input is a script of commands, of what the bus brings and
 * of the storage's answers, two bytes a step. A message holds one command or many, which are carried out by turns. Whatever
 * happens, no command is answered twice, hello comes first, when all is answered everybody is read and has all answers, and in the
 * end nothing is left. */
#include "base/log.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "fuzz.h"
#include "proto/envelope.h"
#include "tests/lib/session_fixture.h"

#include <stdio.h>
#include <string.h>

enum {
    CLIENTS = 3,
    STEPS_MAX = 300,
    ROUNDS_MAX = 64,
    PACKED_MAX = 24,
    IDS_MAX = STEPS_MAX * PACKED_MAX + 1,
    OUTBOX_LIMIT = 4096,
    INFLIGHT_LIMIT = 12,
    INFLIGHT_TOTAL = 20,
    TURN_COMMANDS = 5,
    TURN_BYTES = 600,
    SESSION_READS = 2,
    READS_LIMIT = 3,
    RECORDS = 3
};

static struct session_fixture fixture;
static struct client *clients[CLIENTS];
static unsigned sent; /* commands; their number is their id */
static bool answered[IDS_MAX];
static const struct client *owners[IDS_MAX]; /* who waits for the answer; NULL: it may never come */
static bool greeted[CLIENTS];
static unsigned stored; /* messages in the history */

static void write_nothing(const char *line, size_t len)
{
    (void)line;
    (void)len;
}

static struct client *client_at(uint8_t arg)
{
    return clients[arg % CLIENTS];
}

static bool is_live(const struct client *client)
{
    return client && client->session;
}

/* ---- what clients receive ---- */

static void check_frame(const char *frame)
{
    unsigned id;

    if (sscanf(frame, "{\"id\":%u,", &id) != 1 || id == 0)
        return;
    fuzz_require(id <= sent && !answered[id]);
    answered[id] = true;
}

/* Frames hold no "|" in these scripts, so it parts them. */
static void check_inbox(struct client *client)
{
    for (const char *frame = client_take(client); frame && *frame;) {
        check_frame(frame);
        frame = strchr(frame, '|');
        if (frame)
            frame++;
    }
}

static void read_all(void)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        if (!clients[i] || !clients[i]->inbox || !clients[i]->inbox_len)
            continue;
        /* Cut before it read anything, it is only told that. */
        if (!greeted[i] && !clients[i]->closes)
            fuzz_require(strncmp(clients[i]->inbox, "{\"push\":\"hello\"", 15) == 0);
        greeted[i] = true;
        check_inbox(clients[i]);
        if (clients[i]->session)
            session_drained(clients[i]->session);
    }
}

/* ---- the steps ---- */

static void connect_client(uint8_t arg)
{
    static const char *const paths[] = {"/users/a", "/names/a", "/topics/t", "/echo"};
    struct route_match match;
    struct session_params params;
    size_t place = arg % CLIENTS;

    if (is_live(clients[place]))
        client_lose(clients[place], 1001);
    read_all();
    fuzz_require(client_match(&fixture, paths[arg / CLIENTS % 4], &match, &params));
    params.face = FACE_JSON;
    params.since = arg & 0x40;
    if (arg & 0x80) {
        params.since_epoch = slice_text("e");
        params.since_offset = slice_text("1000-1");
    }
    clients[place] = client_open_with(&fixture, &params);
    fuzz_require(is_live(clients[place]));
    greeted[place] = false;
}

static void lose_client(uint8_t arg)
{
    if (is_live(client_at(arg)))
        client_lose(client_at(arg), 0);
}

static void end_client(uint8_t arg)
{
    if (!is_live(client_at(arg)))
        return;
    client_at(arg)->lingering = arg & 0x80;
    session_end(client_at(arg)->session, CLOSE_KICKED);
}

static const char *const bodies[] = {
    "\"subscribe\",\"topic\":\"t\"}",
    "\"subscribe\",\"topic\":\"t\",\"since\":{},\"presence\":true}",
    "\"subscribe\",\"topic\":\"t\",\"since\":{\"epoch\":\"e\",\"offset\":\"1000-1\"}}",
    "\"subscribe\",\"topic\":\"u\",\"presence\":true,\"events\":true}",
    "\"subscribe\",\"topic\":\"*\"}",
    "\"subscribe\",\"topic\":\"t.>\",\"since\":{}}",
    "\"unsubscribe\",\"topic\":\"t\"}",
    "\"unsubscribe\",\"topic\":\"u\"}",
    "\"unsubscribe\",\"topic\":\"*\"}",
    "\"publish\",\"topic\":\"t\",\"data\":{\"a\":[1.5,null]},\"store\":true,\"key\":\"k\"}",
    "\"send\",\"to\":\"user:a\",\"binary\":\"AP8=\"}",
    "\"request\",\"to\":\"session:a\",\"text\":\"?\",\"timeout\":60000}",
    "\"request\",\"to\":\"user:a\",\"timeout\":60000}",
    "\"reply\",\"request\":\"r.0\",\"text\":\"yes\"}",
    "\"reply\",\"request\":\"r.1\",\"refuse\":\"no\"}",
    "\"history\",\"address\":\"topic:t\",\"limit\":2}",
    "\"presence\",\"address\":\"topic:t\"}",
    "\"presence\",\"address\":\"user:a\"}",
    "\"online\"}",
    "\"ping\"}",
    "\"nonsense\"}",
};

/* Only what is read from a client, and a client is read once it was greeted; what was read already may still come. */
static bool takes_commands(const struct client *client, bool late)
{
    return is_live(client) && !client->closes &&
           (client->reading || (late && client->pauses && session_outbox(client->session)));
}

static void send_commands(struct client *client, unsigned count, size_t body)
{
    static char text[PACKED_MAX * 160];
    char *at = text;

    for (unsigned i = 0; i < count && sent + 1 < IDS_MAX; i++, body++) {
        const char *chosen = bodies[body % (sizeof bodies / sizeof *bodies)];
        at += sprintf(at, "{\"id\":%u,\"cmd\":%s%s", ++sent, chosen, i % 3 ? "\n" : " ");
        owners[sent] = strncmp(chosen, "\"request\"", 9) == 0 ? NULL : client;
    }
    if (at != text)
        client_send(client, text);
}

static void command(uint8_t arg)
{
    if (takes_commands(client_at(arg), false))
        send_commands(client_at(arg), 1, arg / CLIENTS);
}

static void commands(uint8_t arg)
{
    if (takes_commands(client_at(arg), arg & 0x80))
        send_commands(client_at(arg), 2u + arg / CLIENTS % (PACKED_MAX - 2), arg);
}

static void deliver(uint8_t arg)
{
    static const char *const channels[] = {"user:{a}", "session:{a}", "topic:{t}", "topic:{u}"};
    static const char *const addresses[] = {"user:a", "session:a", "topic:t", "topic:u"};
    static const enum message_kind kinds[] = {MESSAGE_DATA,   MESSAGE_DATA,    MESSAGE_REQUEST,
                                              MESSAGE_CANCEL, MESSAGE_CONTROL, MESSAGE_JOIN,
                                              MESSAGE_LEAVE,  MESSAGE_TAKEOVER};
    enum message_kind kind = kinds[arg / 4 % 8];
    char offset[24];
    struct buffer bytes;
    struct message_fields fields = {
        .kind = kind,
        .from = slice_text("session:asker"),
        .to = slice_text(addresses[arg % 4]),
        .correlation = slice_text(arg & 0x40 ? "r.1" : "r.0"),
        .payload = slice_text(kind == MESSAGE_CONTROL ? "{\"do\":\"kick\"}" : "payload"),
        .timeout_ms = arg,
    };

    if (kind == MESSAGE_DATA && arg & 0x80) {
        snprintf(offset, sizeof offset, "1000-%u", ++stored);
        fields.offset = slice_text(offset);
        fields.epoch = slice_text("e");
    }
    buffer_init(&bytes, 0);
    fuzz_require(envelope_encode(&fields, &bytes));
    fake_storage_message(fixture.fake, channels[arg % 4], slice_from(bytes.data, bytes.len));
    buffer_close(&bytes);
}

/* An answer to a request that a client asked: its first. */
static void answer_request(uint8_t arg)
{
    static const enum message_kind kinds[] = {MESSAGE_REPLY, MESSAGE_REFUSED, MESSAGE_GONE};
    char id[64];
    struct client *client = client_at(arg);

    if (!is_live(client))
        return;
    struct slice conn = client_conn(client);
    snprintf(id, sizeof id, "%.*s.%u", (int)conn.len, conn.data, 1 + arg / 64u);
    const struct message_fields fields = {.kind = kinds[arg / CLIENTS % 3],
                                          .from = slice_text(arg & 0x20 ? "session:b" : "instance:x"),
                                          .correlation = slice_text(id),
                                          .payload = slice_text("answer")};
    requests_on_answer(fixture.requests, &fields);
}

static struct fake_call *call_at(uint8_t arg)
{
    struct list *at = fixture.fake->open.next;

    for (unsigned i = 0; i < arg / 32u && at != &fixture.fake->open; i++)
        at = at->next;
    return at == &fixture.fake->open ? NULL : container_of(at, struct fake_call, link);
}

static void answer_some(uint8_t arg)
{
    static const int errors[] = {ERROR_NONE, ERROR_NONE,      ERROR_NONE,    ERROR_UNAVAILABLE,
                                 ERROR_NONE, ERROR_NO_MEMORY, ERROR_TIMEOUT, ERROR_BAD_REQUEST};

    fake_storage_answer(call_at(arg), errors[arg & 7], arg >> 3 & 1);
}

/* History and lists, with records. */
static void answer_with_records(uint8_t arg)
{
    struct storage_record records[RECORDS];
    struct storage_field fields[RECORDS][3];
    char offsets[RECORDS][24];
    struct fake_call *call = call_at(arg);
    unsigned first = 0;
    struct storage_result result = {.number = arg & 1, .records = records, .epoch = slice_text("e")};

    if (!call || (call->kind != FAKE_HISTORY && call->kind != FAKE_LIST && call->kind != FAKE_PRESENCE_LIST))
        return;
    sscanf(call->offset, "1000-%u", &first);
    for (unsigned i = 0; i < (arg >> 1) % (RECORDS + 1u); i++) {
        snprintf(offsets[i], sizeof offsets[i], "1000-%u", first + 1 + i);
        fields[i][0] = (struct storage_field){slice_text("epoch"), slice_text("e")};
        fields[i][1] = (struct storage_field){slice_text("payload"), slice_text("stored")};
        fields[i][2] = (struct storage_field){slice_text("content"), slice_text("text")};
        records[i] = (struct storage_record){slice_text(offsets[i]), fields[i], 3};
        result.record_count++;
        result.offset = slice_text(offsets[i]);
    }
    if (arg & 0x10 && result.record_count)
        result.cursor = result.offset;
    fake_storage_answer_with(call, ERROR_NONE, &result);
}

static void turn(uint8_t arg)
{
    fixture.now_us += arg * UINT64_C(1000);
    session_fixture_turn(&fixture);
    read_all();
}

static void break_or_mend(uint8_t arg)
{
    if (fixture.fake->storage.state == STORAGE_UP) {
        fake_storage_down(fixture.fake);
    } else {
        fake_storage_up(fixture.fake);
        fake_storage_lose_registry(fixture.fake);
    }
    (void)arg;
}

static void stall_or_wake(uint8_t arg)
{
    if (client_at(arg))
        client_at(arg)->stalled = arg & 0x80;
}

/* Everything is answered and everybody reads: then nobody who is online is kept waiting, or lacks an answer. */
static void calm_down(uint8_t arg)
{
    (void)arg;
    if (fixture.fake->storage.state != STORAGE_UP)
        break_or_mend(0);
    list_for_each (link, &fixture.clients)
        container_of(link, struct client, link)->stalled = false;
    for (int round = 0; round < 4 * ROUNDS_MAX; round++) {
        turn(0);
        for (int kind = 0; kind < FAKE_KIND_COUNT; kind++)
            fake_storage_answer_all(fixture.fake, (enum fake_kind)kind, ERROR_NONE, 0);
    }
    turn(0);
    for (size_t i = 0; i < CLIENTS; i++) {
        const struct client *client = clients[i];
        fuzz_require(!is_live(client) || client->closes || !session_outbox(client->session) ||
                     client->reading);
    }
    for (unsigned id = 1; id <= sent; id++)
        fuzz_require(answered[id] || !owners[id] || !owners[id]->session || owners[id]->closes);
    fuzz_require(fixture.reads.open == 0 && fixture.reads.waiting == 0);
}

static void (*const steps[])(uint8_t) = {connect_client,
                                         lose_client,
                                         end_client,
                                         command,
                                         command,
                                         commands,
                                         deliver,
                                         answer_request,
                                         answer_some,
                                         answer_some,
                                         answer_with_records,
                                         turn,
                                         break_or_mend,
                                         stall_or_wake,
                                         calm_down};

/* ---- the end ---- */

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
    for (int kind = 0; kind < FAKE_KIND_COUNT; kind++)
        fake_storage_answer_all(fixture.fake, (enum fake_kind)kind, ERROR_NONE, 0);
    fuzz_require(requests_open(fixture.requests) == 0);
    fuzz_require(list_empty(&fixture.fake->open));
    fuzz_require(fixture.metrics.sessions_opened == fixture.metrics.sessions_closed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct sessions_options options = {.outbox_limit = OUTBOX_LIMIT,
                                             .inflight_limit = INFLIGHT_LIMIT,
                                             .inflight_total = INFLIGHT_TOTAL,
                                             .turn_commands = TURN_COMMANDS,
                                             .turn_bytes = TURN_BYTES,
                                             .session_reads = SESSION_READS};

    log_set_sink(write_nothing);
    memset(clients, 0, sizeof clients);
    memset(answered, 0, sizeof answered);
    memset(owners, 0, sizeof owners);
    sent = stored = 0;
    session_fixture_open(&fixture, &options, false);
    reads_set_limit(&fixture.reads, READS_LIMIT);
    for (size_t i = 0; i + 1 < size && i < 2 * STEPS_MAX; i += 2)
        steps[data[i] % (sizeof steps / sizeof *steps)](data[i + 1]);
    /* Half of the scripts stop in the middle of everything, as a broker does that is told to end at once. */
    if (!size || data[size - 1] & 1)
        finish();
    session_fixture_close(&fixture);
    return 0;
}
