#include "tests/lib/session_fixture.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "broker/config.h"
#include "broker/loop.h"
#include "broker/outbox.h"
#include "broker/requests.h"
#include "broker/router.h"
#include "proto/envelope.h"
#include "proto/frame.h"
#include "storage/memory/storage_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { AMPLE = 1 << 24, SETTLE_TURNS = 12, SCRATCH = 4096 };

static const char configuration[] = "api = 127.0.0.1:0\n"
                                    "[route /users/{uid}]\n"
                                    "address = user:{uid}\n"
                                    "on_message = publish user:{uid} \"{uid}:{message}\"\n"
                                    "[route /names/{name}]\n"
                                    "address = session:{name}\n"
                                    "on_message = forward session:target\n"
                                    "reply = Got your message ({message}).Thanks !\n"
                                    "[route /to/{name}]\n"
                                    "on_message = forward session:{name}\n"
                                    "[route /topics/{name}]\n"
                                    "address = topic:{name}\n"
                                    "on_message = publish topic:{name}\n"
                                    "[route /asked/{name}]\n"
                                    "address = session:{name}\n"
                                    "on_message = publish topic:said\n"
                                    "on_request = next-message\n"
                                    "[route /echo]\n"
                                    "on_message = echo\n"
                                    "[route /ignore]\n"
                                    "on_message = ignore\n";

static void or_abort(bool good)
{
    if (!good)
        abort();
}

/* ---- the broker's core ---- */

static struct config *load_config(void)
{
    char path[] = "/tmp/switchboard-test-XXXXXX";
    char *const argv[] = {(char *)(uintptr_t) "switchboard", (char *)(uintptr_t) "-c", path, NULL};
    char *const environment[] = {NULL};
    struct config *config = NULL;
    int fd = mkstemp(path);

    or_abort(fd >= 0 && write(fd, configuration, sizeof configuration - 1) == sizeof configuration - 1);
    close(fd);
    or_abort(config_load(3, argv, environment, &config, stdout, stderr) == CONFIG_LOADED);
    unlink(path);
    return config;
}

static void on_message(void *data, struct slice channel, struct slice bytes)
{
    struct session_fixture *fixture = data;

    router_on_message(fixture->router, channel, bytes);
}

static void on_state(void *data, enum storage_state state)
{
    struct session_fixture *fixture = data;

    fixture->states++;
    if (state == STORAGE_DOWN)
        sessions_on_storage_down(fixture->sessions);
}

static void on_registry_lost(void *data)
{
    struct session_fixture *fixture = data;

    sessions_on_registry_lost(fixture->sessions);
}

static void on_reaped(void *data, struct slice instance, size_t session_count)
{
    (void)data;
    (void)instance;
    (void)session_count;
}

static void on_idle(void *data)
{
    struct session_fixture *fixture = data;

    fixture->idle++;
}

static void start_storage(struct session_fixture *fixture)
{
    const struct storage_events events = {.on_message = on_message,
                                          .on_state = on_state,
                                          .on_registry_lost = on_registry_lost,
                                          .on_reaped = on_reaped,
                                          .data = fixture};
    const struct storage_instance instance = {.id = "a1",
                                              .host = "broker.example",
                                              .listen = "127.0.0.1:8000",
                                              .version = "1.2.3",
                                              .pid = 1,
                                              .started_at_ms = clock_wall_ms(),
                                              .heartbeat_ms = 1000,
                                              .lease_ms = 3000};
    storage_start(fixture->storage, &events, &instance);
}

void session_fixture_open(struct session_fixture *fixture, const struct sessions_options *options,
                          bool memory_storage)
{
    static const struct sessions_options ample;
    struct sessions_options chosen = options ? *options : ample;

    *fixture = (struct session_fixture){.now_us = UINT64_C(1700000000000000)};
    clock_set_fake(&fixture->now_us);
    list_init(&fixture->clients);
    fixture->config = load_config();
    fixture->loop = loop_create();
    or_abort(fixture->loop);
    if (memory_storage) {
        fixture->storage = storage_memory_create(loop_base(fixture->loop));
    } else {
        fixture->fake = fake_storage_create();
        fixture->storage = &fixture->fake->storage;
    }
    or_abort(fixture->storage);
    fixture->router = router_create(fixture->storage, &fixture->metrics, AMPLE);
    or_abort(fixture->router);
    const struct requests_options requests = {.loop = fixture->loop,
                                              .storage = fixture->storage,
                                              .router = fixture->router,
                                              .metrics = &fixture->metrics};
    fixture->requests = requests_create(&requests);
    or_abort(fixture->requests);
    chosen.requests = fixture->requests;
    budget_init(&fixture->budget, fixture->loop, SIZE_MAX);
    chosen.budget = &fixture->budget;
    chosen.instance = "a1";
    chosen.loop = fixture->loop;
    chosen.storage = fixture->storage;
    chosen.router = fixture->router;
    chosen.metrics = &fixture->metrics;
    chosen.outbox_limit = chosen.outbox_limit ? chosen.outbox_limit : AMPLE;
    chosen.inflight_limit = chosen.inflight_limit ? chosen.inflight_limit : AMPLE;
    chosen.inflight_bytes = chosen.inflight_bytes ? chosen.inflight_bytes : AMPLE;
    chosen.inflight_total = chosen.inflight_total ? chosen.inflight_total : AMPLE;
    chosen.turn_commands = chosen.turn_commands ? chosen.turn_commands : AMPLE;
    chosen.turn_bytes = chosen.turn_bytes ? chosen.turn_bytes : AMPLE;
    chosen.session_reads = chosen.session_reads ? chosen.session_reads : AMPLE;
    reads_init(&fixture->reads, fixture->loop, &fixture->metrics, AMPLE);
    chosen.reads = &fixture->reads;
    keys_init(&fixture->keys, &fixture->metrics, AMPLE, AMPLE);
    chosen.keys = &fixture->keys;
    chosen.on_idle = on_idle;
    chosen.data = fixture;
    fixture->sessions = sessions_create(&chosen);
    or_abort(fixture->sessions);
    start_storage(fixture);
    if (memory_storage)
        session_fixture_settle(fixture);
}

void session_fixture_close(struct session_fixture *fixture)
{
    list_for_each (link, &fixture->clients)
        client_lose(container_of(link, struct client, link), 0);
    session_fixture_turn(fixture);
    reads_close(&fixture->reads);
    storage_destroy(fixture->storage);
    sessions_destroy(fixture->sessions);
    requests_destroy(fixture->requests);
    router_destroy(fixture->router);
    budget_close(&fixture->budget);
    loop_destroy(fixture->loop);
    config_unref(fixture->config);
    for (struct list *link; (link = list_pop(&fixture->clients));) {
        struct client *client = container_of(link, struct client, link);
        free(client->inbox);
        free(client->taken);
        free(client);
    }
    clock_set_fake(NULL);
}

/* ---- turns ---- */

struct turn {
    struct loop_task task;
    struct loop *loop;
    bool ran;
};

/* First at the start of loop_run(), then at the end of the turn that follows, which doesn't wait because of
 * it. */
static void on_turn(struct loop_task *task)
{
    struct turn *turn = container_of(task, struct turn, task);

    if (turn->ran)
        loop_stop(turn->loop);
    else
        loop_defer(turn->loop, task);
    turn->ran = true;
}

static void append(struct client *client, const char *text, size_t len)
{
    client->inbox = realloc(client->inbox, client->inbox_len + len + 1);
    or_abort(client->inbox);
    memcpy(client->inbox + client->inbox_len, text, len);
    client->inbox_len += len;
    client->inbox[client->inbox_len] = '\0';
}

/* One unmasked, final frame at `at`; returns its length. */
static size_t receive_frame(struct client *client, const unsigned char *at, size_t left)
{
    bool binary = (at[0] & 15) == FRAME_BINARY;
    size_t header = 2, len = at[1];

    or_abort(left >= 2 && at[0] & 0x80);
    if (len == 126) {
        len = (size_t)at[2] << 8 | at[3];
        header = 4;
    } else if (len == 127) {
        len = 0;
        for (size_t i = 2; i < 10; i++)
            len = len << 8 | at[i];
        header = 10;
    }
    or_abort(header + len <= left);
    client->messages++;
    append(client, "<", binary);
    append(client, (const char *)at + header, len);
    append(client, binary ? ">|" : "|", binary ? 2 : 1);
    return header + len;
}

static void drain(struct client *client)
{
    struct outbox *outbox = session_outbox(client->session);
    unsigned char scratch[SCRATCH];
    const unsigned char *data;
    uint32_t frames;

    if (!client->wanted || client->stalled || !outbox)
        return;
    client->wanted = false;
    for (size_t len; (len = outbox_gather(outbox, scratch, sizeof scratch, &data, &frames)) > 0;) {
        for (size_t at = 0; at < len;)
            at += receive_frame(client, data + at, len - at);
        outbox_pop(outbox, frames);
    }
}

static void serve_client(struct client *client)
{
    if (!client->session)
        return;
    drain(client);
    if (client->closes && !client->lingering)
        client_lose(client, 0);
}

void session_fixture_turn(struct session_fixture *fixture)
{
    struct turn turn = {.loop = fixture->loop};

    loop_task_init(&turn.task, on_turn);
    loop_defer(fixture->loop, &turn.task);
    or_abort(loop_run(fixture->loop) == 0);
    list_for_each (link, &fixture->clients)
        serve_client(container_of(link, struct client, link));
}

void session_fixture_settle(struct session_fixture *fixture)
{
    for (int i = 0; i < SETTLE_TURNS; i++)
        session_fixture_turn(fixture);
}

/* ---- clients ---- */

static void want_write(struct session_transport *transport)
{
    container_of(transport, struct client, transport)->wanted = true;
}

static void set_reading(struct session_transport *transport, bool on)
{
    struct client *client = container_of(transport, struct client, transport);

    client->pauses += client->reading && !on;
    client->reading = on;
}

static void on_close(struct session_transport *transport, int code)
{
    struct client *client = container_of(transport, struct client, transport);

    client->closes++;
    client->close_code = code;
    client->wanted = true;
}

static uint64_t still_ms(struct session_transport *transport)
{
    return container_of(transport, struct client, transport)->still_ms;
}

static void on_drop(struct session_transport *transport)
{
    struct client *client = container_of(transport, struct client, transport);

    client->drops++;
    session_keeps(client->session, BUDGET_UNSENT, 0);
    session_keeps(client->session, BUDGET_ASSEMBLY, 0);
}

bool client_match(const struct session_fixture *fixture, const char *path, struct route_match *match,
                  struct session_params *params)
{
    if (route_match(fixture->config, path, strlen(path), match) != ROUTE_OK)
        return false;
    *params = (struct session_params){.config = fixture->config,
                                      .route_params = &match->params,
                                      .face = FACE_PLAIN,
                                      .remote = slice_text("192.0.2.1:50000"),
                                      .agent = slice_text("Mozilla/5.0 (test)")};
    return true;
}

struct client *client_open_with(struct session_fixture *fixture, const struct session_params *params)
{
    static const struct session_transport_ops ops = {
        .want_write = want_write, .set_reading = set_reading, .close = on_close, .still_ms = still_ms, .drop = on_drop};
    struct client *client = calloc(1, sizeof *client);

    or_abort(client);
    client->fixture = fixture;
    client->transport.ops = &ops;
    list_append(&fixture->clients, &client->link);
    if (params)
        client->session = session_open(fixture->sessions, params, &client->transport);
    return client;
}

struct client *client_open(struct session_fixture *fixture, const char *path)
{
    struct route_match match;
    struct session_params params;

    return client_open_with(fixture, client_match(fixture, path, &match, &params) ? &params : NULL);
}

/* A connection that begins to close is no longer read. */
void client_send(struct client *client, const char *text)
{
    if (client->session && !client->closes)
        session_receive(client->session, CONTENT_TEXT, slice_text(text));
}

void client_send_binary(struct client *client, const char *data, size_t len)
{
    if (client->session && !client->closes)
        session_receive(client->session, CONTENT_BINARY, slice_from(data, len));
}

const char *client_take(struct client *client)
{
    free(client->taken);
    client->taken = client->inbox ? client->inbox : calloc(1, 1);
    or_abort(client->taken);
    client->inbox = NULL;
    client->inbox_len = 0;
    return client->taken;
}

void client_lose(struct client *client, int code)
{
    char text[16];
    struct session *session = client->session;

    if (!session)
        return;
    if (client->closes) {
        int len = snprintf(text, sizeof text, "#%d", client->close_code);
        append(client, text, (size_t)len);
    }
    client->session = NULL;
    session_detach(session, code);
}

struct slice client_conn(const struct client *client)
{
    return session_conn(client->session);
}

/* ---- with the fake storage ---- */

void client_bring_online(struct client *client)
{
    struct fake_storage *fake = client->fixture->fake;

    while (fake_storage_answer_next(fake, FAKE_SUBSCRIBE, ERROR_NONE, 0))
        ;
    struct fake_call *call = fake_storage_of(fake, FAKE_REGISTER, client_conn(client));
    or_abort(call);
    if (call->len) {
        char channel[ADDRESS_NAME_MAX + sizeof "session:{}"];
        snprintf(channel, sizeof channel, "session:{%s}", call->name);
        fake_storage_message(fake, channel, slice_from(call->bytes, call->len));
    }
    fake_storage_answer(call, ERROR_NONE, STORAGE_REPLACED_NOBODY);
}

struct client *client_open_online(struct session_fixture *fixture, const char *path)
{
    struct client *client = client_open(fixture, path);

    client_bring_online(client);
    fake_storage_answer_all(fixture->fake, FAKE_COUNT, ERROR_NONE, 1);
    return client;
}

bool session_fixture_gone(struct session_fixture *fixture)
{
    struct list *open = &fixture->fake->open;

    session_fixture_turn(fixture);
    while (!list_empty(open))
        fake_storage_answer(container_of(open->next, struct fake_call, link), ERROR_NONE, 0);
    session_fixture_turn(fixture);
    return sessions_total(fixture->sessions) == 0 && sessions_online(fixture->sessions) == 0 &&
           router_channel_count(fixture->router) == 0 && list_empty(open);
}

void fixture_notice(struct session_fixture *fixture, const char *name, struct slice conn)
{
    char to[ADDRESS_MAX + 1], channel[CHANNEL_MAX];
    struct buffer bytes;

    snprintf(to, sizeof to, "session:%s", name);
    snprintf(channel, sizeof channel, "session:{%s}", name);
    struct message_fields fields = {.kind = MESSAGE_TAKEOVER, .to = slice_text(to), .correlation = conn};
    buffer_init(&bytes, 0);
    or_abort(envelope_encode(&fields, &bytes));
    fake_storage_message(fixture->fake, channel, slice_from(bytes.data, bytes.len));
    buffer_close(&bytes);
}

void fixture_message(struct session_fixture *fixture, const char *channel, const char *text)
{
    fake_storage_message(fixture->fake, channel, slice_text(text));
}
