#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "broker/listener.h"
#include "broker/loop.h"

static char log_text[4096];

static void keep_log(const char *line, size_t len)
{
    size_t have = strlen(log_text);
    if (have + len < sizeof log_text)
        memcpy(log_text + have, line, len);
}

struct world {
    struct loop *loop;
    struct listener *listener;
    int accepted, expected;
    int fds[8];
};

static int setup(void **state)
{
    static struct world world;
    memset(&world, 0, sizeof world);
    memset(log_text, 0, sizeof log_text);
    world.loop = loop_create();
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < world->accepted; i++)
        close(world->fds[i]);
    listener_destroy(world->listener);
    loop_destroy(world->loop);
    return 0;
}

static void on_accept(void *data, evutil_socket_t fd, const struct sockaddr *peer, socklen_t peer_len)
{
    struct world *world = data;
    assert_true(peer->sa_family == AF_INET || peer->sa_family == AF_INET6);
    assert_true(peer_len >= sizeof(struct sockaddr_in));
    world->fds[world->accepted++] = fd;
    if (world->accepted == world->expected)
        loop_stop(world->loop);
}

static void listen_on(struct world *world, const char *address)
{
    world->listener = listener_create(world->loop, address, on_accept, world);
    assert_non_null(world->listener);
}

static unsigned short port_of(const struct listener *listener)
{
    return (unsigned short)atoi(strrchr(listener_address(listener), ':') + 1);
}

/* The kernel completes the handshake from the backlog, so this needs no turn of the loop. */
static int dial(const struct listener *listener)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port_of(listener)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

static void addresses_are_split(void **state)
{
    static const struct {
        const char *address, *host;
        int port; /* -1: refused */
    } cases[] = {
        {"127.0.0.1:80", "127.0.0.1", 80},
        {"[::1]:0", "::1", 0},
        {":8080", "", 8080},
        {"*:65535", "", 65535},
        {"name:1", "name", 1},
        {"127.0.0.1", NULL, -1},
        {"::1:80", NULL, -1},
        {"[::1]80", NULL, -1},
        {"[]:80", NULL, -1},
        {"[::1:80", NULL, -1},
        {"host:", NULL, -1},
        {"host:65536", NULL, -1},
        {"host:+1", NULL, -1},
        {"host:1x", NULL, -1},
        {"", NULL, -1},
        {":", NULL, -1},
        {"host: 1", NULL, -1},
        {"a-host-name-too-long-for-the-room:1", NULL, -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char host[24];
        unsigned port = 0;
        const char *problem = NULL;
        int result = listener_parse(cases[i].address, host, sizeof host, &port, &problem);
        assert_int_equal(result, cases[i].port < 0 ? -1 : 0);
        if (result == 0) {
            assert_string_equal(host, cases[i].host);
            assert_int_equal(port, cases[i].port);
        } else {
            assert_non_null(problem);
        }
    }
}

static void a_connection_is_handed_on_ready_for_use(void **state)
{
    struct world *world = *state;
    listen_on(world, "127.0.0.1:0");
    assert_int_equal(strncmp(listener_address(world->listener), "127.0.0.1:", 10), 0);
    assert_int_not_equal(port_of(world->listener), 0);
    int client = dial(world->listener);
    world->expected = 1;
    loop_run(world->loop);
    int on = 0;
    socklen_t len = sizeof on;
    assert_int_equal(getsockopt(world->fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_true(on);
    assert_true(fcntl(world->fds[0], F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(world->fds[0], F_GETFD) & FD_CLOEXEC);
    close(client);
}

static void all_addresses_include_ipv4(void **state)
{
    struct world *world = *state;
    listen_on(world, ":0");
    int client = dial(world->listener);
    assert_true(client >= 0);
    world->expected = 1;
    loop_run(world->loop);
    close(client);
}

static void a_used_port_is_named(void **state)
{
    struct world *world = *state;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof name;
    char address[32];
    int other = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(other, (struct sockaddr *)&name, len), 0);
    assert_int_equal(listen(other, 1), 0);
    getsockname(other, (struct sockaddr *)&name, &len);
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(name.sin_port));
    log_set_sink(keep_log);
    assert_null(listener_create(world->loop, address, on_accept, world));
    log_set_sink(NULL);
    assert_non_null(strstr(log_text, address));
    assert_non_null(strstr(log_text, "Address already in use"));
    close(other);
}

static void two_listeners_share_a_port(void **state)
{
    struct world *world = *state;
    listen_on(world, "127.0.0.1:0");
    struct listener *second =
        listener_create(world->loop, listener_address(world->listener), on_accept, world);
    assert_non_null(second);
    listener_destroy(second);
}

static void after_a_stop_nobody_gets_in_and_connections_stay(void **state)
{
    struct world *world = *state;
    char byte = 0;
    listen_on(world, "127.0.0.1:0");
    int client = dial(world->listener);
    world->expected = 1;
    loop_run(world->loop);
    listener_stop(world->listener);
    listener_stop(world->listener);
    assert_int_equal(dial(world->listener), -1);
    assert_int_equal(write(world->fds[0], "x", 1), 1);
    assert_int_equal(read(client, &byte, 1), 1);
    close(client);
}

#define SPARES 1024

struct shortage {
    struct world *world;
    int spare[SPARES];
    int count, late_client;
};

/* Dials once more, because under valgrind a connection that met the shortage is lost. */
static void end_shortage(evutil_socket_t fd, short what, void *data)
{
    struct shortage *shortage = data;
    (void)fd;
    (void)what;
    while (shortage->count)
        close(shortage->spare[--shortage->count]);
    shortage->late_client = dial(shortage->world->listener);
}

static void a_shortage_of_descriptors_pauses_and_passes(void **state)
{
    struct world *world = *state;
    struct shortage shortage = {.world = world};
    struct rlimit before, small;
    getrlimit(RLIMIT_NOFILE, &before);
    small = before;
    small.rlim_cur = 256;
    setrlimit(RLIMIT_NOFILE, &small);

    listen_on(world, "127.0.0.1:0");
    struct event *end = event_new(loop_base(world->loop), -1, 0, end_shortage, &shortage);
    int client = dial(world->listener);
    int fd;
    while (shortage.count < SPARES && (fd = open("/dev/null", O_RDONLY)) >= 0)
        shortage.spare[shortage.count++] = fd;
    assert_int_equal(errno, EMFILE);

    struct timeval later = {.tv_usec = 350 * 1000};
    event_add(end, &later);
    log_set_sink(keep_log);
    world->expected = 1;
    loop_run(world->loop);
    log_set_sink(NULL);
    assert_in_range(world->accepted, 1, 2);
    assert_in_range(loop_turns(world->loop), 3, 12);
    char *line = strstr(log_text, "level=warn");
    assert_non_null(line);
    assert_null(strstr(line + 1, "level=warn"));

    event_free(end);
    close(client);
    close(shortage.late_client);
    setrlimit(RLIMIT_NOFILE, &before);
}

static void the_descriptor_limit_is_what_is_wanted_or_possible(void **state)
{
    static const size_t wanted[] = {300, 200, SIZE_MAX / 2};
    struct rlimit limit, before;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    limit = before;
    limit.rlim_cur = 256;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        size_t set = listener_set_fd_limit(wanted[i]);
        getrlimit(RLIMIT_NOFILE, &limit);
        assert_int_equal(set, limit.rlim_cur);
        assert_int_equal(set, limit.rlim_max < wanted[i] ? limit.rlim_max : wanted[i]);
    }
    setrlimit(RLIMIT_NOFILE, &before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_split),
        cmocka_unit_test_setup_teardown(a_connection_is_handed_on_ready_for_use, setup, teardown),
        cmocka_unit_test_setup_teardown(all_addresses_include_ipv4, setup, teardown),
        cmocka_unit_test_setup_teardown(a_used_port_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(two_listeners_share_a_port, setup, teardown),
        cmocka_unit_test_setup_teardown(after_a_stop_nobody_gets_in_and_connections_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shortage_of_descriptors_pauses_and_passes, setup, teardown),
        cmocka_unit_test(the_descriptor_limit_is_what_is_wanted_or_possible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
