/* The input is all that a client ever sends to the clients' port, over a socket: the first byte says how it is cut into
 * segments, and whether a valid upgrade goes before it. Whatever it is, the broker neither hangs nor keeps anything of it when
 * the client has gone, and what it answers is HTTP. */
#include "base/log.h"
#include "broker/connect.h"
#include "broker/ws_internal.h"
#include "fuzz.h"
#include "tests/lib/session_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS_MAX = 400, WHOLE = 0x40, UPGRADED = 0x80 };

static struct session_fixture fixture;
static struct connect_routes *routes;
static struct ws_server *server;

static void write_nothing(const char *line, size_t len)
{
    (void)line;
    (void)len;
}

static void start(void)
{
    log_set_sink(write_nothing);
    session_fixture_open(&fixture, NULL, true);
    /* Nothing is to time out: what ends must end because the client has gone. */
    fixture.config->listen = (struct config_address){.text = "127.0.0.1:0"};
    fixture.config->handshake_timeout = fixture.config->close_timeout = fixture.config->ping_timeout = 3600000;
    routes = connect_routes_create();
    const struct ws_options options = {
        .loop = fixture.loop,
        .config = fixture.config,
        .connect = routes,
        .sessions = fixture.sessions,
        .storage = fixture.storage,
        .metrics = &fixture.metrics,
        .budget = &fixture.budget,
        .max_connections = 100,
        .max_handshakes = 100,
    };
    server = ws_server_create(&options);
    fuzz_require(server != NULL);
}

static int connect_client(void)
{
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int pair[2];

    fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    ws_newcomer_accept(server, pair[0], (const struct sockaddr *)&address, sizeof address);
    return pair[1];
}

/* Reads what there is; the first bytes must be an answer. */
static void read_answer(int fd, size_t *total)
{
    static const char version[] = "HTTP/1.1 ";
    char bytes[65536];
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        if (*total == 0)
            fuzz_require(got >= 9 && memcmp(bytes, version, 9) == 0);
        *total += (size_t)got;
    }
}

static void send_piece(int fd, const void *data, size_t len, size_t *answered)
{
    /* A server that doesn't want it any more is no failure. */
    (void)!send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (int i = 0; i < 3; i++)
        session_fixture_turn(&fixture);
    read_answer(fd, answered);
}

static void end_client(int fd, size_t *answered)
{
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 8; i++)
        session_fixture_turn(&fixture);
    read_answer(fd, answered);
    close(fd);
    for (int i = 0; i < TURNS_MAX && (server->newcomer_count || sessions_total(fixture.sessions)); i++)
        session_fixture_turn(&fixture);
    fuzz_require(server->newcomer_count == 0 && sessions_total(fixture.sessions) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char upgrade[] = "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    size_t answered = 0;

    if (!server)
        start();
    if (!size || size > 60000)
        return 0;
    int fd = connect_client();
    size_t step = data[0] & WHOLE ? size : data[0] % 64u + 1;
    if (data[0] & UPGRADED)
        send_piece(fd, upgrade, sizeof upgrade - 1, &answered);
    /* Two hundred pieces tell as much as a thousand. */
    step = step < size / 200 ? size / 200 : step;
    for (size_t at = 1; at < size; at += step)
        send_piece(fd, data + at, size - at < step ? size - at : step, &answered);
    end_client(fd, &answered);
    return 0;
}
