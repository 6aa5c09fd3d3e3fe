/* The client against a broker that this file plays: one connection at a time, on the same loop, frame by frame. */
#include "client/json_text.h"
#include "client/switchboard.h"
#include "client/ws_codec.h"
#include "tests/lib/alloc_fixture.h"
#include "tests/lib/await.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FRAMES_MAX = 64 };

/* ---- the broker ---------------------------------------------------------------------------------------- */

struct broker {
    struct event_base *base;
    struct evconnlistener *listener;
    struct bufferevent *connection; /* the newest */
    unsigned connections;
    bool open, closed;
    bool silent;  /* no hello */
    bool refuses; /* the handshake, with 403 */
    const char *address;
    char path[512];
    char *frames[FRAMES_MAX]; /* received, in order, over all connections */
    size_t frame_count;
    char url[64];
};

static void broker_write(struct broker *broker, int opcode, const void *data, size_t len)
{
    unsigned char header[4] = {(unsigned char)(0x80 | opcode), (unsigned char)len};
    size_t header_len = 2;

    if (len > 125) {
        header[1] = 126;
        header[2] = (unsigned char)(len >> 8);
        header[3] = (unsigned char)len;
        header_len = 4;
    }
    bufferevent_write(broker->connection, header, header_len);
    bufferevent_write(broker->connection, data, len);
}

static void broker_say(struct broker *broker, const char *text)
{
    broker_write(broker, WS_TEXT, text, strlen(text));
}

static void broker_close(struct broker *broker, int code)
{
    const unsigned char payload[2] = {(unsigned char)(code >> 8), (unsigned char)code};

    broker_write(broker, WS_CLOSE, payload, sizeof payload);
    broker->closed = true;
}

static void broker_drop(struct broker *broker)
{
    bufferevent_free(broker->connection);
    broker->connection = NULL;
    broker->open = false;
}

static void broker_handshake(struct broker *broker, const char *request)
{
    char key[WS_KEY_SIZE], accept[WS_ACCEPT_SIZE], answer[512];

    assert_int_equal(sscanf(request, "GET %511s", broker->path), 1);
    assert_int_equal(sscanf(strstr(request, "Sec-WebSocket-Key: "), "Sec-WebSocket-Key: %24s", key), 1);
    ws_accept(key, accept);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
             "Sec-WebSocket-Protocol: switchboard.json.v1\r\n\r\n",
             accept);
    if (broker->refuses)
        snprintf(answer, sizeof answer, "HTTP/1.1 403 x\r\n\r\n");
    bufferevent_write(broker->connection, answer, strlen(answer));
    broker->open = !broker->refuses;
    if (!broker->open || broker->silent)
        return;
    snprintf(answer, sizeof answer,
             "{\"push\":\"hello\",\"session\":\"s\",\"conn\":\"c\",\"instance\":\"i\",%s%s%s\"version\":"
             "\"0\",\"limits\":"
             "{\"message\":1000}}",
             broker->address ? "\"address\":\"" : "", broker->address ? broker->address : "",
             broker->address ? "\"," : "");
    broker_say(broker, answer);
}

static void on_broker_read(struct bufferevent *bev, void *data)
{
    struct broker *broker = data;
    struct evbuffer *input = bufferevent_get_input(bev);

    if (!broker->open) {
        size_t len = evbuffer_get_length(input);
        char *text = strndup((const char *)evbuffer_pullup(input, -1), len);
        if (strstr(text, "\r\n\r\n")) {
            evbuffer_drain(input, len);
            broker_handshake(broker, text);
        }
        free(text);
        return;
    }
    for (;;) {
        size_t have = evbuffer_get_length(input);
        unsigned char *bytes = evbuffer_pullup(input, -1);
        size_t header = have < 2 ? 0 : (bytes[1] & 0x7f) == 126 ? 8 : 6;
        if (!header || have < header)
            return;
        size_t len = header == 8 ? (size_t)bytes[2] << 8 | bytes[3] : bytes[1] & 0x7f;
        if (have < header + len)
            return;
        ws_mask(bytes + header, bytes + header, len, bytes + header - 4, 0);
        if ((bytes[0] & 15) == WS_TEXT && broker->frame_count < FRAMES_MAX)
            broker->frames[broker->frame_count++] = strndup((char *)bytes + header, len);
        bool close = (bytes[0] & 15) == WS_CLOSE;
        evbuffer_drain(input, header + len);
        if (close) {
            if (!broker->closed)
                broker_close(broker, 1000);
            /* What was written goes out before the connection ends. */
            bufferevent_flush(bev, EV_WRITE, BEV_FLUSH);
            shutdown(bufferevent_getfd(bev), SHUT_WR);
            return;
        }
    }
}

static void on_broker_event(struct bufferevent *bev, short what, void *data)
{
    struct broker *broker = data;

    (void)what;
    bufferevent_free(bev);
    if (broker->connection == bev)
        broker->connection = NULL;
}

static void on_broker_drained(struct bufferevent *bev, void *data)
{
    struct broker *broker = data;

    if (broker->connection == bev && broker->closed)
        shutdown(bufferevent_getfd(bev), SHUT_WR);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int len,
                      void *data)
{
    struct broker *broker = data;

    (void)listener;
    (void)address;
    (void)len;
    broker->connection =
        bufferevent_socket_new(broker->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    broker->connections++;
    broker->open = broker->closed = false;
    bufferevent_setcb(broker->connection, on_broker_read, on_broker_drained, on_broker_event, broker);
    bufferevent_enable(broker->connection, EV_READ | EV_WRITE);
}

/* ---- the test ------------------------------------------------------------------------------------------ */

struct outcome {
    unsigned count; /* of the callback's runs */
    int error;
    enum swb_receipt receipt;
    bool recovered;
    char reply[64];
    size_t messages;
    uint64_t number;
};

struct world {
    struct event_base *base;
    struct broker broker;
    struct swb_client *client;
    unsigned online, down, stopped;
    struct swb_status last; /* strings are not kept */
    char message[64], recovery[64];
    unsigned messages;
    bool recovered;
    struct swb_request *request;
    bool cancelled;
    bool destroy_in_callback;
    struct outcome outcome;
};

static void on_state(struct swb_client *client, const struct swb_status *status, void *data)
{
    struct world *world = data;

    world->online += status->state == SWB_ONLINE;
    world->down += status->state == SWB_DOWN;
    world->stopped += status->state == SWB_STOPPED;
    world->last = *status;
    if (world->destroy_in_callback && status->state == SWB_DOWN) {
        swb_client_destroy(client);
        world->client = NULL;
    }
}

static void on_message(struct swb_client *client, const struct swb_message *message, void *data)
{
    struct world *world = data;

    world->messages++;
    snprintf(world->message, sizeof world->message, "%s", (const char *)message->payload.data);
    if (world->destroy_in_callback) {
        swb_client_destroy(client);
        world->client = NULL;
    }
}

static void on_recovery(struct swb_client *client, const struct swb_recovery *recovery, void *data)
{
    struct world *world = data;

    (void)client;
    snprintf(world->recovery, sizeof world->recovery, "%s", recovery->address);
    world->recovered = recovery->recovered;
}

static void on_result(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct outcome *outcome = data;

    (void)client;
    outcome->count++;
    outcome->error = result->error;
    outcome->receipt = result->receipt;
    outcome->recovered = result->recovered;
    outcome->messages = result->message_count;
    outcome->number = result->count;
    if (result->reply.to)
        snprintf(outcome->reply, sizeof outcome->reply, "%s", (const char *)result->reply.payload.data);
}

static void on_request(struct swb_client *client, struct swb_request *request, void *data)
{
    struct world *world = data;

    (void)client;
    world->request = request;
}

static void on_cancel(struct swb_request *request, void *data)
{
    struct world *world = data;

    (void)request;
    world->cancelled = true;
}

static void world_open(struct world *world, const struct swb_options *given)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct swb_options options = given ? *given : (struct swb_options)SWB_OPTIONS;
    socklen_t len = sizeof address;

    *world = (struct world){.base = event_base_new()};
    world->broker.base = world->base;
    world->broker.listener = evconnlistener_new_bind(world->base, on_accept, &world->broker,
                                                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, -1,
                                                     (struct sockaddr *)&address, sizeof address);
    assert_non_null(world->broker.listener);
    getsockname(evconnlistener_get_fd(world->broker.listener), (struct sockaddr *)&address, &len);
    snprintf(world->broker.url, sizeof world->broker.url, "ws://127.0.0.1:%d", ntohs(address.sin_port));
    options.data = world;
    options.on_state = on_state;
    options.on_message = on_message;
    options.on_recovery = on_recovery;
    world->client = swb_client_create(world->base, &options);
}

static void world_connect(struct world *world)
{
    unsigned online = world->online;

    assert_int_equal(swb_client_connect(world->client, world->broker.url), SWB_OK);
    AWAIT(world->base, world->online > online);
}

static void world_close(struct world *world)
{
    swb_client_destroy(world->client);
    if (world->broker.connection)
        bufferevent_free(world->broker.connection);
    evconnlistener_free(world->broker.listener);
    for (size_t i = 0; i < world->broker.frame_count; i++)
        free(world->broker.frames[i]);
    event_base_free(world->base);
}

/* Waits for the broker's n-th frame (from 0) and checks what it holds. */
static void expect_frame(struct world *world, size_t n, const char *part)
{
    AWAIT(world->base, world->broker.frame_count > n);
    if (!strstr(world->broker.frames[n], part))
        fail_msg("frame %zu is %s, without %s", n, world->broker.frames[n], part);
}

/* Answers the broker's n-th frame. */
static void answer(struct world *world, size_t n, const char *rest)
{
    char text[512];
    json_t *root = json_loads(world->broker.frames[n], 0, NULL);

    snprintf(text, sizeof text, "{\"id\":%lld,%s}",
             (long long)json_integer_value(json_object_get(root, "id")), rest);
    json_decref(root);
    broker_say(&world->broker, text);
}

/* The broker ends the connection, and the client comes back at once. */
static void come_back(struct world *world)
{
    unsigned online = world->online;

    broker_say(&world->broker, "{\"push\":\"disconnect\",\"code\":1012,\"reconnect\":true,\"delay\":1}");
    broker_close(&world->broker, 1012);
    AWAIT(world->base, world->online > online);
}

static void a_call_waits_for_the_connection(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    assert_int_equal(swb_begin_online(world.client, on_result, &world.outcome), SWB_OFFLINE);
    assert_int_equal(swb_client_connect(world.client, world.broker.url), SWB_OK);
    assert_int_equal(
        swb_begin_send(world.client, "user:bob", swb_text("hi"), NULL, on_result, &world.outcome), SWB_OK);
    expect_frame(&world, 0, ",\"cmd\":\"send\",\"to\":\"user:bob\",\"text\":\"hi\"}");
    assert_string_equal(world.broker.path, "/connect");
    assert_int_equal(world.online, 1);
    answer(&world, 0, "\"ok\":{\"receipt\":\"stored\",\"epoch\":\"e\",\"offset\":\"1\"}");
    AWAIT(world.base, world.outcome.count);
    assert_int_equal(world.outcome.error, SWB_OK);
    assert_int_equal(world.outcome.receipt, SWB_STORED);
    world_close(&world);
}

static void bad_arguments_are_refused_at_once(void **state)
{
    struct world world;
    static char large[2000];

    (void)state;
    world_open(&world, NULL);
    assert_int_equal(swb_client_connect(world.client, "nonsense"), SWB_BAD_REQUEST);
    world_connect(&world);
    assert_int_equal(swb_begin_send(world.client, NULL, swb_text("x"), NULL, NULL, NULL), SWB_BAD_REQUEST);
    assert_int_equal(swb_begin_send(world.client, "user:\xff", swb_text("x"), NULL, NULL, NULL),
                     SWB_BAD_REQUEST);
    assert_int_equal(swb_begin_send(world.client, "user:a", swb_text("\xff"), NULL, NULL, NULL),
                     SWB_BAD_REQUEST);
    assert_int_equal(swb_begin_send(world.client, "user:a", swb_json("{"), NULL, NULL, NULL),
                     SWB_BAD_REQUEST);
    memset(large, 'x', sizeof large - 1);
    assert_int_equal(swb_begin_send(world.client, "user:a", swb_text(large), NULL, NULL, NULL),
                     SWB_TOO_LARGE);
    assert_int_equal(swb_begin_online(world.client, on_result, &world.outcome), SWB_OK);
    expect_frame(&world, 0, "online");
    world_close(&world);
    assert_int_equal(world.outcome.error, SWB_CANCELLED);
    assert_int_equal(world.outcome.count, 1);
}

static void the_queue_is_bounded_and_its_calls_expire(void **state)
{
    struct swb_options options = SWB_OPTIONS;
    const struct swb_send_options send = {.timeout = 30};
    struct world world;

    (void)state;
    options.max_calls = 2;
    options.max_queue_bytes = 200;
    world_open(&world, &options);
    world.broker.silent = true;
    swb_client_connect(world.client, world.broker.url);
    char large[300] = "";
    memset(large, 'x', sizeof large - 1);
    assert_int_equal(
        swb_begin_send(world.client, "user:a", swb_text(large), &send, on_result, &world.outcome),
        SWB_QUEUE_FULL);
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            swb_begin_send(world.client, "user:a", swb_text("x"), &send, on_result, &world.outcome), SWB_OK);
    assert_int_equal(swb_begin_send(world.client, "user:a", swb_text("x"), &send, on_result, &world.outcome),
                     SWB_QUEUE_FULL);
    AWAIT(world.base, world.outcome.count == 2);
    assert_int_equal(world.outcome.error, SWB_OFFLINE);
    assert_int_equal(world.broker.frame_count, 0);
    world_close(&world);
}

static void a_broker_without_hello_is_given_up(void **state)
{
    struct swb_options options = SWB_OPTIONS;
    struct world world;

    (void)state;
    options.connect_timeout = 30;
    world_open(&world, &options);
    world.broker.silent = true;
    swb_client_connect(world.client, world.broker.url);
    AWAIT(world.base, world.down);
    assert_true(world.last.reconnect);
    assert_in_range(world.last.delay, 250, 500);
    world_close(&world);
}

static void a_refused_handshake_ends_it(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world.broker.refuses = true;
    swb_client_connect(world.client, world.broker.url);
    assert_int_equal(swb_begin_ping(world.client, on_result, &world.outcome), SWB_OK);
    AWAIT(world.base, world.down && world.outcome.count);
    assert_int_equal(world.last.http_status, 403);
    assert_false(world.last.reconnect);
    assert_int_equal(world.outcome.error, SWB_OFFLINE);
    world_close(&world);
}

static void a_lost_connection_repeats_what_is_harmless(void **state)
{
    const struct swb_send_options with_key = {.key = "k"};
    struct outcome send = {0}, keyed = {0}, online = {0};
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    swb_begin_send(world.client, "user:a", swb_text("1"), NULL, on_result, &send);
    swb_begin_send(world.client, "user:a", swb_text("2"), &with_key, on_result, &keyed);
    swb_begin_online(world.client, on_result, &online);
    expect_frame(&world, 2, "online");
    broker_drop(&world.broker);
    AWAIT(world.base, world.online == 2);
    assert_int_equal(send.count, 1);
    assert_int_equal(send.error, SWB_LOST);
    expect_frame(&world, 3, "\"text\":\"2\"");
    expect_frame(&world, 4, "online");
    answer(&world, 3, "\"ok\":{\"receipt\":\"absent\"}");
    answer(&world, 4, "\"ok\":{\"count\":7}");
    AWAIT(world.base, keyed.count && online.count);
    assert_int_equal(keyed.receipt, SWB_NOBODY);
    assert_int_equal(online.number, 7);
    world_close(&world);
}

static void close_codes_tell_whether_to_come_back(void **state)
{
    static const struct {
        int code;
        bool reconnect;
    } cases[] = {{1001, true},  {1012, true},  {4000, true},  {4008, true},  {1002, false},
                 {1007, false}, {1009, false}, {4500, false}, {4501, false}, {4502, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world world;
        world_open(&world, NULL);
        world_connect(&world);
        broker_close(&world.broker, cases[i].code);
        AWAIT(world.base, world.down);
        assert_int_equal(world.last.close_code, cases[i].code);
        assert_int_equal(world.last.reconnect, cases[i].reconnect);
        world_close(&world);
    }
}

static void the_brokers_delay_counts(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    broker_say(&world.broker, "{\"push\":\"disconnect\",\"code\":1012,\"reconnect\":true,\"delay\":1830}");
    broker_close(&world.broker, 1012);
    AWAIT(world.base, world.down);
    assert_int_equal(world.last.delay, 1830);
    world_close(&world);
}

#define SUBSCRIBE "\"cmd\":\"subscribe\",\"topic\":\"t\""

static void a_subscription_knows_its_position_and_recovers(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    assert_int_equal(swb_begin_subscribe(world.client, "t", NULL, on_result, &world.outcome), SWB_OK);
    expect_frame(&world, 0, "\"cmd\":\"history\",\"limit\":1,\"reverse\":true,\"address\":\"topic:t\"");
    answer(&world, 0, "\"ok\":{\"epoch\":\"e\",\"offset\":\"5\",\"messages\":[]}");
    expect_frame(&world, 1, SUBSCRIBE ",\"since\":{\"epoch\":\"e\",\"offset\":\"5\"}");
    answer(&world, 1, "\"ok\":{\"topic\":\"t\",\"recovered\":true,\"epoch\":\"e\",\"offset\":\"5\"}");
    AWAIT(world.base, world.outcome.count);
    assert_true(world.outcome.recovered);

    broker_say(&world.broker,
               "{\"push\":\"message\",\"to\":\"topic:t\",\"text\":\"m\",\"epoch\":\"e\",\"offset\":\"6\"}");
    AWAIT(world.base, world.messages == 1);
    come_back(&world);
    expect_frame(&world, 2, SUBSCRIBE ",\"since\":{\"epoch\":\"e\",\"offset\":\"6\"}");
    answer(&world, 2, "\"ok\":{\"topic\":\"t\",\"recovered\":false}");
    AWAIT(world.base, *world.recovery);
    assert_string_equal(world.recovery, "topic:t");
    assert_false(world.recovered);

    /* Nothing of the history is left: the next recovery is from its new beginning. */
    come_back(&world);
    expect_frame(&world, 3, SUBSCRIBE ",\"since\":{}");
    swb_begin_unsubscribe(world.client, "t", NULL, NULL);
    come_back(&world);
    assert_int_equal(swb_begin_ping(world.client, NULL, NULL), SWB_OK);
    AWAIT(world.base, strstr(world.broker.frames[world.broker.frame_count - 1], "ping"));
    assert_null(strstr(world.broker.frames[world.broker.frame_count - 2], SUBSCRIBE));
    world_close(&world);
    assert_int_equal(world.outcome.count, 1);
}

static void unsubscribing_ends_a_subscription_under_way(void **state)
{
    struct outcome over = {0};
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    swb_begin_subscribe(world.client, "t", NULL, on_result, &world.outcome);
    swb_begin_unsubscribe(world.client, "t", on_result, &over);
    assert_int_equal(world.outcome.count, 0);
    expect_frame(&world, 1, "unsubscribe");
    answer(&world, 0, "\"ok\":{\"messages\":[]}");
    answer(&world, 1, "\"ok\":{}");
    AWAIT(world.base, over.count && world.outcome.count);
    assert_int_equal(world.outcome.error, SWB_CANCELLED);
    assert_int_equal(world.broker.frame_count, 2);
    world_close(&world);
}

static void the_own_address_is_recovered_by_the_url(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world.broker.address = "user:bob";
    world_connect(&world);
    expect_frame(&world, 0, "\"cmd\":\"history\"");
    answer(&world, 0, "\"ok\":{\"messages\":[]}");
    broker_say(&world.broker,
               "{\"push\":\"message\",\"to\":\"user:bob\",\"data\":1.10,\"epoch\":\"e\",\"offset\":\"6-1\"}");
    AWAIT(world.base, world.messages);
    assert_string_equal(world.message, "1.10");
    come_back(&world);
    assert_string_equal(world.broker.path, "/connect?since=e%3A6-1");
    world_close(&world);
}

/* The broker takes no argument twice. */
static void the_urls_own_place_is_replaced(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    size_t len = strlen(world.broker.url);
    snprintf(world.broker.url + len, sizeof world.broker.url - len, "?since=&user=a+b&sinc=&since");
    world.broker.address = "user:bob";
    world_connect(&world);
    assert_string_equal(world.broker.path, "/connect?since=&user=a+b&sinc=&since");
    broker_say(&world.broker,
               "{\"push\":\"message\",\"to\":\"user:bob\",\"data\":1,\"epoch\":\"e\",\"offset\":\"6-1\"}");
    AWAIT(world.base, world.messages);
    come_back(&world);
    assert_string_equal(world.broker.path, "/connect?user=a+b&sinc=&since=e%3A6-1");
    world_close(&world);
}

static void requests_are_answered_once(void **state)
{
    static const char push[] =
        "{\"push\":\"request\",\"request\":\"r\",\"to\":\"session:s\",\"from\":\"session:a\",\"timeout\":99,"
        "\"text\":\"q\"}";
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    broker_say(&world.broker, push);
    expect_frame(&world, 0, "\"cmd\":\"reply\",\"request\":\"r\",\"refuse\":");

    swb_client_serve(world.client, on_request, &world);
    broker_say(&world.broker, push);
    AWAIT(world.base, world.request);
    assert_string_equal(swb_request_message(world.request)->payload.data, "q");
    assert_int_equal(swb_request_timeout(world.request), 99);
    assert_int_equal(swb_request_reply(world.request, swb_binary("\0\1", 2)), SWB_OK);
    expect_frame(&world, 1, "\"cmd\":\"reply\",\"request\":\"r\",\"binary\":\"AAE=\"");

    world.request = NULL;
    broker_say(&world.broker, push);
    AWAIT(world.base, world.request);
    swb_request_on_cancel(world.request, on_cancel, &world);
    broker_say(&world.broker, "{\"push\":\"cancel\",\"request\":\"r\"}");
    AWAIT(world.base, world.cancelled);
    assert_int_equal(swb_request_reply(world.request, swb_text("late")), SWB_GONE);

    /* It may outlive its client. */
    world.request = NULL;
    broker_say(&world.broker, push);
    AWAIT(world.base, world.request);
    struct swb_request *orphan = world.request;
    world_close(&world);
    assert_true(swb_request_cancelled(orphan));
    assert_int_equal(swb_request_refuse(orphan, "late"), SWB_GONE);
}

static void a_request_brings_its_reply(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    swb_begin_request(world.client, "session:x", swb_json("[1]"), 700, on_result, &world.outcome);
    expect_frame(&world, 0, "\"cmd\":\"request\",\"to\":\"session:x\",\"data\":[1]}");
    answer(&world, 0, "\"ok\":{\"from\":\"session:x\",\"data\":{\"a\":1.10}}");
    AWAIT(world.base, world.outcome.count);
    assert_string_equal(world.outcome.reply, "{\"a\":1.10}");
    swb_begin_request(world.client, "session:x", swb_text(""), 700, on_result, &world.outcome);
    expect_frame(&world, 1, "\"timeout\":");
    answer(&world, 1, "\"error\":{\"code\":404,\"name\":\"absent\",\"text\":\"nobody\",\"retry\":true}");
    AWAIT(world.base, world.outcome.count == 2);
    assert_int_equal(world.outcome.error, SWB_ABSENT);
    world_close(&world);
}

static void *stop_elsewhere(void *client)
{
    swb_client_stop(client);
    return NULL;
}

static void stopping_from_another_thread_ends_all_calls(void **state)
{
    pthread_t thread;
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    swb_begin_ping(world.client, on_result, &world.outcome);
    assert_int_equal(pthread_create(&thread, NULL, stop_elsewhere, world.client), 0);
    AWAIT(world.base, world.stopped);
    pthread_join(thread, NULL);
    assert_int_equal(world.outcome.count, 1);
    assert_int_equal(world.outcome.error, SWB_CANCELLED);
    assert_int_equal(swb_begin_ping(world.client, NULL, NULL), SWB_CANCELLED);
    assert_int_equal(swb_client_connect(world.client, world.broker.url), SWB_CANCELLED);
    world_close(&world);
    assert_int_equal(world.stopped, 1);
}

static void a_callback_may_destroy_the_client(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    swb_begin_ping(world.client, on_result, &world.outcome);
    expect_frame(&world, 0, "ping");
    world.destroy_in_callback = true;
    broker_say(&world.broker, "{\"push\":\"message\",\"to\":\"topic:t\",\"text\":\"1\"}\n"
                              "{\"push\":\"message\",\"to\":\"topic:t\",\"text\":\"2\"}");
    AWAIT(world.base, !world.client);
    assert_string_equal(world.message, "1");
    world_close(&world);
    assert_int_equal(world.outcome.error, SWB_CANCELLED);

    world_open(&world, NULL);
    world_connect(&world);
    world.destroy_in_callback = true;
    swb_begin_ping(world.client, on_result, &world.outcome);
    expect_frame(&world, 0, "ping");
    broker_drop(&world.broker);
    AWAIT(world.base, !world.client);
    world_close(&world);
    assert_int_equal(world.outcome.count, 1);
}

static void what_is_no_frame_ends_the_connection(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL);
    world_connect(&world);
    broker_say(&world.broker, "{\"push\":\"later\",\"x\":1}\n\n{\"id\":999,\"ok\":{}}");
    broker_say(&world.broker, "nonsense");
    AWAIT(world.base, world.down);
    assert_int_equal(world.messages, 0);
    world_close(&world);
}

/* ---- memory -------------------------------------------------------------------------------------------- */

/* A session's life; whatever can't be had, each call that was taken has one result. */
static bool live(struct world *world, size_t nth)
{
    unsigned taken = 0;
    struct outcome outcome = {0};
    const struct swb_options options = SWB_OPTIONS;

    world_open(world, &options);
    alloc_fixture_fail(nth);
    if (world->client && swb_client_connect(world->client, world->broker.url) == SWB_OK) {
        taken += swb_begin_subscribe(world->client, "t", NULL, on_result, &outcome) == SWB_OK;
        taken +=
            swb_begin_send(world->client, "user:a", swb_json("[1]"), NULL, on_result, &outcome) == SWB_OK;
        taken += swb_begin_history(world->client, "user:a", NULL, on_result, &outcome) == SWB_OK;
        swb_client_serve(world->client, on_request, world);
        AWAIT(world->base, world->down || outcome.count == taken || world->broker.frame_count >= taken);
        size_t frames = world->broker.frame_count;
        for (size_t i = 0; i < frames && world->broker.connection && world->broker.open; i++)
            answer(
                world, i,
                "\"ok\":{\"epoch\":\"e\",\"offset\":\"1\",\"messages\":[{\"to\":\"user:a\",\"data\":[1]}]}");
        if (world->broker.connection && world->broker.open) {
            broker_say(&world->broker,
                       "{\"push\":\"request\",\"request\":\"r\",\"to\":\"session:s\",\"data\":[1]}");
            broker_say(
                &world->broker,
                "{\"push\":\"message\",\"to\":\"topic:t\",\"data\":[1],\"epoch\":\"e\",\"offset\":\"1\"}");
        }
        AWAIT(world->base,
              world->down || world->messages || (world->outcome.count == taken && !world->broker.open));
    }
    if (world->request)
        swb_request_reply(world->request, swb_text("x"));
    bool failed = alloc_fixture_failed();
    alloc_fixture_fail(0);
    world_close(world);
    assert_int_equal(outcome.count, taken);
    return failed;
}

static void a_shortage_of_memory_hurts_one_call(void **state)
{
    (void)state;
    for (size_t nth = 1;; nth++) {
        struct world world;
        alloc_fixture_install();
        bool failed = live(&world, nth);
        assert_int_equal(alloc_fixture_remove(), 0);
        if (!failed)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_waits_for_the_connection),
        cmocka_unit_test(bad_arguments_are_refused_at_once),
        cmocka_unit_test(the_queue_is_bounded_and_its_calls_expire),
        cmocka_unit_test(a_broker_without_hello_is_given_up),
        cmocka_unit_test(a_refused_handshake_ends_it),
        cmocka_unit_test(a_lost_connection_repeats_what_is_harmless),
        cmocka_unit_test(close_codes_tell_whether_to_come_back),
        cmocka_unit_test(the_brokers_delay_counts),
        cmocka_unit_test(a_subscription_knows_its_position_and_recovers),
        cmocka_unit_test(unsubscribing_ends_a_subscription_under_way),
        cmocka_unit_test(the_own_address_is_recovered_by_the_url),
        cmocka_unit_test(the_urls_own_place_is_replaced),
        cmocka_unit_test(requests_are_answered_once),
        cmocka_unit_test(a_request_brings_its_reply),
        cmocka_unit_test(stopping_from_another_thread_ends_all_calls),
        cmocka_unit_test(a_callback_may_destroy_the_client),
        cmocka_unit_test(what_is_no_frame_ends_the_connection),
        cmocka_unit_test(a_shortage_of_memory_hurts_one_call),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
