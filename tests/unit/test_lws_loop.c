/* A real libwebsockets server on our loop, and clients in a forked process that speak the protocol byte by
 * byte. */
#include <event2/event.h>
#include <libwebsockets.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/listener.h"
#include "broker/loop.h"
#include "broker/lws_loop.h"

#define BIG            (200 * 1024)
#define PIECE          (16 * 1024)
#define MANY           2000
#define IDLE_MS        300
#define MAX_IDLE_TURNS 6

/* ---- the server ---- */

struct peer {
    unsigned char *message; /* LWS_PRE bytes, then what came */
    size_t len, sent;
    bool binary, sending, paused;
};

struct world {
    struct loop *loop;
    struct lws_loop *lws;
    struct listener *listener;
    struct lws_vhost *vhost;
    struct event *idle_over;
    char *certificate, *key;
    unsigned short port;
    int online, online_peak, closed;
    int writable_calls;
    lws_sorted_usec_list_t timer;
    uint64_t timer_due, timer_late_max;
    int timers_left;
};

static struct world world;

static int append(struct peer *peer, const void *data, size_t len)
{
    unsigned char *message = realloc(peer->message, LWS_PRE + peer->len + len);
    if (!message)
        return -1;
    peer->message = message;
    if (len)
        memcpy(message + LWS_PRE + peer->len, data, len);
    peer->len += len;
    return 0;
}

static bool is_text(const struct peer *peer, const char *text)
{
    return peer->len == strlen(text) && memcmp(peer->message + LWS_PRE, text, peer->len) == 0;
}

static int send_piece(struct lws *wsi, struct peer *peer)
{
    if (!peer->sending)
        return 0;
    size_t len = peer->len - peer->sent < PIECE ? peer->len - peer->sent : PIECE;
    bool last = peer->sent + len == peer->len;
    int flags = lws_write_ws_flags(peer->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT, peer->sent == 0, last);
    if (lws_write(wsi, peer->message + LWS_PRE + peer->sent, len, (enum lws_write_protocol)flags) < 0)
        return -1;
    peer->sent += len;
    if (!last)
        return lws_callback_on_writable(wsi) < 0 ? -1 : 0;
    peer->len = peer->sent = 0;
    peer->sending = false;
    if (peer->paused)
        lws_rx_flow_control(wsi, 1);
    peer->paused = false;
    return 0;
}

static int on_message(struct lws *wsi, struct peer *peer)
{
    if (is_text(peer, "close")) {
        lws_close_reason(wsi, (enum lws_close_status)4321, (unsigned char *)"enough", 6);
        return -1;
    }
    if (is_text(peer, "timer")) {
        lws_set_timer_usecs(wsi, 50 * LWS_US_PER_MS);
        return 0;
    }
    if (is_text(peer, "pause")) {
        peer->paused = true;
        lws_rx_flow_control(wsi, 0);
        lws_set_timer_usecs(wsi, 20 * LWS_US_PER_MS);
        return 0;
    }
    peer->sending = true;
    lws_callback_on_writable(wsi);
    return 0;
}

static int on_http(struct lws *wsi)
{
    unsigned char buffer[LWS_PRE + 512];
    unsigned char *start = buffer + LWS_PRE;
    unsigned char *at = start;
    unsigned char *end = buffer + sizeof buffer - 1;
    if (lws_add_http_common_headers(wsi, HTTP_STATUS_OK, "text/plain", 5, &at, end) ||
        lws_finalize_write_http_header(wsi, start, &at, end))
        return 1;
    lws_callback_on_writable(wsi);
    return 0;
}

static int on_http_writable(struct lws *wsi)
{
    unsigned char buffer[LWS_PRE + 5];
    memcpy(buffer + LWS_PRE, "plain", 5);
    if (lws_write(wsi, buffer + LWS_PRE, 5, LWS_WRITE_HTTP_FINAL) != 5)
        return 1;
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct peer *peer = user;
    switch (reason) {
    case LWS_CALLBACK_HTTP:
        return on_http(wsi);
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return on_http_writable(wsi);
    case LWS_CALLBACK_ESTABLISHED:
        if (++world.online > world.online_peak)
            world.online_peak = world.online;
        return 0;
    case LWS_CALLBACK_CLOSED:
        world.online--;
        world.closed++;
        free(peer->message);
        peer->message = NULL;
        return 0;
    case LWS_CALLBACK_RECEIVE:
        if (append(peer, in, len) != 0)
            return -1;
        peer->binary = lws_frame_is_binary(wsi);
        if (!lws_is_final_fragment(wsi) || lws_remaining_packet_payload(wsi))
            return 0;
        if (on_message(wsi, peer) != 0)
            return -1;
        if (!peer->sending)
            peer->len = 0;
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        world.writable_calls++;
        return send_piece(wsi, peer);
    case LWS_CALLBACK_TIMER:
        if (append(peer, "tick", 4) != 0)
            return -1;
        peer->sending = true;
        lws_callback_on_writable(wsi);
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, len);
    }
}

static void on_accept(void *data, evutil_socket_t fd, const struct sockaddr *peer, socklen_t peer_len)
{
    (void)data;
    (void)peer;
    (void)peer_len;
    assert_non_null(lws_adopt_socket_vhost(world.vhost, fd));
}

/* A self-signed certificate and its key, as PEM. */
static void make_certificate(char **certificate, char **key)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, pair);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    assert_true(X509_sign(cert, pair, EVP_sha256()) > 0);
    BIO *cert_text = BIO_new(BIO_s_mem());
    BIO *key_text = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(cert_text, cert);
    PEM_write_bio_PrivateKey(key_text, pair, NULL, NULL, 0, NULL, NULL);
    char *data;
    long len = BIO_get_mem_data(cert_text, &data);
    *certificate = strndup(data, (size_t)len);
    len = BIO_get_mem_data(key_text, &data);
    *key = strndup(data, (size_t)len);
    BIO_free(cert_text);
    BIO_free(key_text);
    X509_free(cert);
    EVP_PKEY_free(pair);
}

static int start(bool tls)
{
    static const struct lws_protocols protocols[] = {
        {.name = "echo",
         .callback = on_event,
         .per_session_data_size = sizeof(struct peer),
         .rx_buffer_size = 1024,
         .tx_packet_size = 65536},
        {.name = NULL},
    };
    struct lws_context_creation_info info = {.port = CONTEXT_PORT_NO_LISTEN_SERVER,
                                             .protocols = protocols,
                                             .pt_serv_buf_size = 4096,
                                             .alpn = "http/1.1"};
    memset(&world, 0, sizeof world);
    listener_set_fd_limit(1 << 14);
    if (tls) {
        make_certificate(&world.certificate, &world.key);
        info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
        info.server_ssl_cert_mem = world.certificate;
        info.server_ssl_cert_mem_len = (unsigned)strlen(world.certificate) + 1;
        info.server_ssl_private_key_mem = world.key;
        info.server_ssl_private_key_mem_len = (unsigned)strlen(world.key) + 1;
    }
    world.loop = loop_create();
    world.lws = lws_loop_create(world.loop, &info);
    if (!world.lws)
        return -1;
    world.vhost = lws_get_vhost_by_name(lws_loop_context(world.lws), "default");
    world.listener = listener_create(world.loop, "127.0.0.1:0", on_accept, NULL);
    if (!world.listener || !world.vhost)
        return -1;
    world.port = (unsigned short)atoi(strrchr(listener_address(world.listener), ':') + 1);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return start(false);
}

static int setup_tls(void **state)
{
    (void)state;
    return start(true);
}

static int teardown(void **state)
{
    (void)state;
    listener_destroy(world.listener);
    lws_loop_destroy(world.lws);
    loop_destroy(world.loop);
    free(world.certificate);
    free(world.key);
    return world.online == 0 ? 0 : -1;
}

/* ---- the clients, in a process of their own ---- */

struct client {
    int fd;
    SSL *ssl;
};

static void check(bool condition, const char *what, int line)
{
    if (condition)
        return;
    fprintf(stderr, "client, line %d: %s\n", line, what);
    _exit(1);
}

#define CHECK(condition) check((condition), #condition, __LINE__)

static void put(struct client *client, const void *data, size_t len)
{
    const char *at = data;
    while (len) {
        int chunk = len < 1 << 20 ? (int)len : 1 << 20;
        ssize_t n = client->ssl ? SSL_write(client->ssl, at, chunk) : send(client->fd, at, len, MSG_NOSIGNAL);
        CHECK(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

/* False at the end of the stream. */
static bool get(struct client *client, void *data, size_t len)
{
    char *at = data;
    while (len) {
        ssize_t n = client->ssl ? SSL_read(client->ssl, at, (int)len) : recv(client->fd, at, len, 0);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void dial(struct client *client, bool tls)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(world.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 60};
    *client = (struct client){.fd = socket(AF_INET, SOCK_STREAM, 0)};
    CHECK(client->fd >= 0);
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    CHECK(connect(client->fd, (struct sockaddr *)&to, sizeof to) == 0);
    if (!tls)
        return;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    client->ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(client->ssl, client->fd);
    CHECK(SSL_connect(client->ssl) == 1);
}

static void hang_up(struct client *client)
{
    SSL_free(client->ssl);
    close(client->fd);
}

/* Reads up to and including the empty line after the headers. */
static void get_head(struct client *client, char *head, size_t size)
{
    size_t len = 0;
    do {
        CHECK(len + 1 < size && get(client, head + len, 1));
        head[++len] = '\0';
    } while (len < 4 || strcmp(head + len - 4, "\r\n\r\n") != 0);
}

static void upgrade(struct client *client, bool tls)
{
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char head[1024];
    dial(client, tls);
    put(client, request, sizeof request - 1);
    get_head(client, head, sizeof head);
    CHECK(strncmp(head, "HTTP/1.1 101 ", 13) == 0);
    CHECK(strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

/* One masked frame (the mask is zero), appended to `out`. */
static size_t frame(unsigned char *out, unsigned char opcode, const void *data, size_t len)
{
    size_t at = 0;
    out[at++] = (unsigned char)(0x80 | opcode);
    if (len < 126) {
        out[at++] = (unsigned char)(0x80 | len);
    } else {
        out[at++] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            out[at++] = (unsigned char)((uint64_t)len >> shift);
    }
    memset(out + at, 0, 4);
    memcpy(out + at + 4, data, len);
    return at + 4 + len;
}

static void put_message(struct client *client, unsigned char opcode, const void *data, size_t len)
{
    unsigned char *bytes = malloc(len + 14);
    put(client, bytes, frame(bytes, opcode, data, len));
    free(bytes);
}

/* One message, put together from its frames; its length. */
static size_t get_message(struct client *client, unsigned char *opcode, unsigned char *data, size_t size)
{
    size_t total = 0;
    unsigned char head[10];
    do {
        CHECK(get(client, head, 2));
        size_t len = head[1];
        size_t more = len == 126 ? 2 : len == 127 ? 8 : 0;
        CHECK(len < 128 && get(client, head + 2, more));
        if (more)
            len = 0;
        for (size_t i = 0; i < more; i++)
            len = len << 8 | head[2 + i];
        if (total == 0 && (head[0] & 15))
            *opcode = head[0] & 15;
        CHECK(total + len <= size && get(client, data + total, len));
        total += len;
    } while (!(head[0] & 0x80));
    return total;
}

static void expect(struct client *client, unsigned char opcode, const void *data, size_t len)
{
    unsigned char got = 0;
    unsigned char *text = malloc(len + 1);
    CHECK(get_message(client, &got, text, len + 1) == len);
    CHECK(got == opcode && memcmp(text, data, len) == 0);
    free(text);
}

static void echo(struct client *client, unsigned char opcode, const void *data, size_t len)
{
    put_message(client, opcode, data, len);
    expect(client, opcode, data, len);
}

static void on_child_gone(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    (void)data;
    loop_stop(world.loop);
}

/* Runs `clients` in a child while the loop serves it; its checks must hold. */
static void serve(void (*clients)(void))
{
    int alive[2]; /* the child holds the one end; its death is the end of file at the other */
    assert_int_equal(pipe(alive), 0);
    pid_t child = fork();
    if (child == 0) {
        close(alive[0]);
        clients();
        _exit(0);
    }
    close(alive[1]);
    struct event *gone = event_new(loop_base(world.loop), alive[0], EV_READ, on_child_gone, NULL);
    event_add(gone, NULL);
    assert_int_equal(loop_run(world.loop), 0);
    int status = -1;
    waitpid(child, &status, 0);
    event_free(gone);
    close(alive[0]);
    assert_int_equal(status, 0);
}

static unsigned char *big_text(void)
{
    unsigned char *text = malloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        text[i] = (unsigned char)('a' + i % 23);
    return text;
}

static void exchange(bool tls)
{
    struct client client;
    unsigned char *big = big_text();
    upgrade(&client, tls);
    echo(&client, 1, "hello", 5);
    echo(&client, 2, "\0\1\2\377", 4);
    echo(&client, 1, "", 0);
    echo(&client, 1, big, BIG);
    echo(&client, 2, big, BIG);
    echo(&client, 1, "after", 5);
    free(big);
    hang_up(&client);
}

static void exchange_plainly(void)
{
    exchange(false);
}

static void exchange_over_tls(void)
{
    exchange(true);
}

static void messages_are_echoed(void **state)
{
    (void)state;
    serve(exchange_plainly);
    assert_int_equal(world.online_peak, 1);
    assert_in_range(world.writable_calls, 4 + 2 * (BIG / PIECE), 6 + 2 * (BIG / PIECE + 1));
}

/* Records hold 16 KiB, and the server reads 1 KiB at a time: what is left shows at no descriptor. */
static void messages_are_echoed_over_tls(void **state)
{
    (void)state;
    serve(exchange_over_tls);
    assert_int_equal(world.online_peak, 1);
}

static void ask_over_http(void)
{
    char head[1024];
    char body[5];
    struct client client;
    dial(&client, false);
    for (int i = 0; i < 2; i++) { /* the second time on the kept connection */
        static const char request[] = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";
        put(&client, request, sizeof request - 1);
        get_head(&client, head, sizeof head);
        CHECK(strncmp(head, "HTTP/1.1 200 ", 13) == 0);
        CHECK(get(&client, body, 5) && memcmp(body, "plain", 5) == 0);
    }
    hang_up(&client);
}

static void http_is_answered(void **state)
{
    (void)state;
    serve(ask_over_http);
    assert_int_equal(world.online_peak, 0);
}

static void ask_for_close(void)
{
    struct client client;
    char byte;
    upgrade(&client, false);
    put_message(&client, 1, "close", 5);
    expect(&client, 8,
           "\x10\xe1"
           "enough",
           8);
    put_message(&client, 8, "\x10\xe1", 2);
    CHECK(!get(&client, &byte, 1));
    hang_up(&client);
}

static void close_frames_arrive(void **state)
{
    (void)state;
    serve(ask_for_close);
    assert_int_equal(world.closed, 1);
}

static void ask_for_timer(void)
{
    struct client client;
    upgrade(&client, false);
    for (int i = 0; i < 3; i++) {
        uint64_t begin = clock_monotonic_us();
        put_message(&client, 1, "timer", 5);
        expect(&client, 1, "tick", 4);
        uint64_t took = clock_monotonic_us() - begin;
        CHECK(took >= 50000 && took < 150000);
    }
    hang_up(&client);
}

static void connection_timers_fire(void **state)
{
    (void)state;
    serve(ask_for_timer);
}

/* Both messages come in one read; the second one is in libwebsockets' memory while receiving is off. */
static void send_past_a_pause(void)
{
    unsigned char bytes[64];
    struct client client;
    upgrade(&client, false);
    size_t len = frame(bytes, 1, "pause", 5);
    len += frame(bytes + len, 1, "held", 4);
    put(&client, bytes, len);
    expect(&client, 1, "tick", 4);
    expect(&client, 1, "held", 4);
    echo(&client, 1, "more", 4);
    hang_up(&client);
}

static void input_held_back_is_served(void **state)
{
    (void)state;
    serve(send_past_a_pause);
}

static void on_timer(lws_sorted_usec_list_t *timer)
{
    uint64_t now = clock_monotonic_us();
    assert_true(now >= world.timer_due);
    if (now - world.timer_due > world.timer_late_max)
        world.timer_late_max = now - world.timer_due;
    if (--world.timers_left == 0) {
        loop_stop(world.loop);
        return;
    }
    lws_usec_t wait = 7 * LWS_US_PER_MS * world.timers_left;
    world.timer_due = now + (uint64_t)wait;
    lws_sul_schedule(lws_loop_context(world.lws), 0, timer, on_timer, wait);
}

static void timers_are_exact(void **state)
{
    (void)state;
    world.timers_left = 6;
    world.timer_due = clock_monotonic_us() + 1000;
    lws_sul_schedule(lws_loop_context(world.lws), 0, &world.timer, on_timer, LWS_US_PER_MS);
    loop_run(world.loop);
    assert_int_equal(world.timers_left, 0);
    assert_in_range(world.timer_late_max, 0, 40000);
    assert_in_range(loop_turns(world.loop), 6, 30);
}

/* Twice, so that the second time descriptors are those of the first. */
static void come_and_go(void)
{
    static struct client clients[MANY];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MANY; i++)
            upgrade(&clients[i], false);
        for (int i = 0; i < MANY; i += 7)
            echo(&clients[i], 1, "still here", 10);
        for (int i = 0; i < MANY; i++) {
            if (i % 2)
                put_message(&clients[i], 8, "\x03\xe8", 2);
            else
                hang_up(&clients[i]);
        }
        for (int i = 1; i < MANY; i += 2) {
            expect(&clients[i], 8, "\x03\xe8", 2);
            hang_up(&clients[i]);
        }
    }
}

static void many_connections_come_and_go(void **state)
{
    (void)state;
    serve(come_and_go);
    assert_int_equal(world.closed, 2 * MANY);
    assert_int_equal(world.online, 0);
    assert_true(world.online_peak >= MANY);
}

static uint64_t idle_turns;

static void on_idle_over(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    (void)data;
    idle_turns = loop_turns(world.loop) - idle_turns;
    loop_stop(world.loop);
}

static void dial_and_stay(void)
{
    char byte;
    struct client clients[3];
    for (int i = 0; i < 3; i++) {
        upgrade(&clients[i], false);
        echo(&clients[i], 1, "hello", 5);
    }
    CHECK(!get(&clients[0], &byte, 1)); /* until the server is torn down */
}

static void on_third_echo(struct loop_hook *hook)
{
    struct event *over = world.idle_over;
    struct timeval wait = {.tv_usec = IDLE_MS * 1000};
    if (world.writable_calls < 3)
        return;
    idle_turns = loop_turns(world.loop);
    event_add(over, &wait);
    loop_hook_remove(hook);
}

static void an_idle_loop_sleeps(void **state)
{
    (void)state;
    struct loop_hook hook;
    pid_t child = fork();
    if (child == 0) {
        dial_and_stay();
        _exit(0);
    }
    world.idle_over = event_new(loop_base(world.loop), -1, 0, on_idle_over, NULL);
    loop_hook_add(world.loop, &hook, on_third_echo);
    loop_run(world.loop);
    event_free(world.idle_over);
    assert_in_range(idle_turns, 0, MAX_IDLE_TURNS);
    assert_int_equal(world.online, 3);

    /* And the context takes three connections with it. */
    lws_loop_destroy(world.lws);
    world.lws = NULL;
    assert_int_equal(world.online, 0);
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(messages_are_echoed, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_are_echoed_over_tls, setup_tls, teardown),
        cmocka_unit_test_setup_teardown(http_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(close_frames_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(connection_timers_fire, setup, teardown),
        cmocka_unit_test_setup_teardown(input_held_back_is_served, setup, teardown),
        cmocka_unit_test_setup_teardown(timers_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(many_connections_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(an_idle_loop_sleeps, setup, teardown),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
