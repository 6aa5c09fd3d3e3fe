/* The connections of the HTTP server: how many there are, whose place a newcomer may take, and what is left when nothing is.
 *
 * A newcomer beyond the bound gets the place of one that only lingers, is idle, or has not said what it wants within a moment.
 * When all are at work it is surplus: a few of those are read for two seconds. When no descriptor is left, one that was kept for
 * that is given up for the next in the queue, so that health is told even then, and the queue doesn't keep the loop busy. */
#include "broker/api_http.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/api_http_internal.h"
#include "broker/listener.h"
#include "broker/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SURPLUS_MAX = 32,
    GRACE_MS = 1000, /* for a head, when its place is wanted */
    SPARE_TRIES = 64,
    LOG_EVERY_MS = 60000,
};

/* ---- memory ---- */

bool api_memory_take(struct api_server *server, size_t bytes)
{
    if (bytes > server->limits.memory || server->memory > server->limits.memory - bytes)
        return false;
    server->memory += bytes;
    return true;
}

void api_memory_give(struct api_server *server, size_t bytes)
{
    server->memory -= bytes;
}

/* ---- places ---- */

static struct api_conn *first_in(const struct api_pool *pool, enum api_conn_state state)
{
    const struct list *list = &pool->states[state];

    return list_empty(list) ? NULL : container_of(list->next, struct api_conn, link);
}

/* Whose place can be had, if anybody's: of those in the first of these states the one that is longest there. */
static struct api_conn *most_dispensable(const struct api_pool *pool, uint64_t grace_ms)
{
    static const struct {
        enum api_conn_state state;
        bool grace;
    } order[] = {{CONN_LINGERING, false}, {CONN_IDLE, false}, {CONN_FRESH, true}, {CONN_HEAD, true}};
    uint64_t now = clock_monotonic_ms();

    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        struct api_conn *conn = first_in(pool, order[i].state);
        if (conn && (!order[i].grace || now - conn->since_ms >= grace_ms))
            return conn;
    }
    return NULL;
}

static bool make_place(struct api_server *server)
{
    while (server->regular.count >= server->limits.connections) {
        struct api_conn *conn = most_dispensable(&server->regular, GRACE_MS);
        if (!conn)
            return false;
        server->options.metrics->api_displaced++;
        api_conn_destroy(conn);
    }
    return true;
}

static void log_full(struct api_server *server)
{
    uint64_t now = clock_monotonic_ms();

    server->options.metrics->api_surplus++;
    if (server->full_logged_ms && now - server->full_logged_ms < LOG_EVERY_MS)
        return;
    server->full_logged_ms = now;
    log_warn("the API's connections are all taken, newcomers are only told its health",
             log_int("api_connections", (int64_t)server->limits.connections));
}

/* It is read first: mostly it has said all it wants by now, and needs no place at all. */
static void take_surplus(struct api_server *server, struct api_conn *conn)
{
    if (!api_conn_read(conn) || server->surplus.count <= SURPLUS_MAX)
        return;
    struct api_conn *other = most_dispensable(&server->surplus, 0);
    api_conn_destroy(other ? other : conn);
}

void api_server_take(struct api_server *server, evutil_socket_t fd)
{
    bool regular = make_place(server);
    struct api_conn *conn = api_conn_create(server, regular ? &server->regular : &server->surplus, fd);

    if (!conn) {
        close(fd);
        return;
    }
    server->options.metrics->api_accepted++;
    if (regular) {
        api_conn_read(conn);
        return;
    }
    log_full(server);
    take_surplus(server, conn);
}

static void on_accept(void *data, evutil_socket_t fd, const struct sockaddr *peer, socklen_t peer_len)
{
    (void)peer;
    (void)peer_len;
    api_server_take(data, fd);
}

/* ---- without descriptors ---- */

static bool open_spare(struct api_server *server)
{
    if (server->spare < 0 && !server->on_spare)
        server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return server->spare >= 0;
}

void api_server_take_back_spare(struct api_server *server)
{
    server->on_spare = NULL;
    open_spare(server);
}

static void serve_on_spare(struct api_server *server, evutil_socket_t listening)
{
    close(server->spare);
    server->spare = -1;
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct api_conn *conn = fd < 0 ? NULL : api_conn_create(server, &server->surplus, fd);
    if (!conn) {
        if (fd >= 0)
            close(fd);
        open_spare(server);
        return;
    }
    server->options.metrics->api_surplus++;
    server->on_spare = conn;
    api_conn_read(conn);
}

/* One that hasn't said what it wants goes when another one waits. */
static void clear_spare(struct api_server *server)
{
    struct api_conn *conn = server->on_spare;

    if (conn && (conn->state == CONN_FRESH || conn->state == CONN_HEAD))
        api_conn_destroy(conn);
}

/* The listener pauses behind this, so what can't be served now waits in the queue until it comes again. */
static void on_exhausted(void *data, evutil_socket_t listening)
{
    struct api_server *server = data;
    struct pollfd queue = {.fd = listening, .events = POLLIN};

    for (int i = 0; i < SPARE_TRIES && poll(&queue, 1, 0) == 1; i++) {
        clear_spare(server);
        if (!open_spare(server))
            break;
        serve_on_spare(server, listening);
    }
}

/* ---- life ---- */

static void pool_init(struct api_pool *pool)
{
    for (size_t i = 0; i < CONN_STATES; i++)
        list_init(&pool->states[i]);
    pool->count = 0;
}

static void pool_close(struct api_pool *pool)
{
    for (size_t i = 0; i < CONN_STATES; i++)
        while (!list_empty(&pool->states[i]))
            api_conn_destroy(container_of(pool->states[i].next, struct api_conn, link));
}

struct api_server *api_server_create(const struct api_server_options *options)
{
    struct api_server *server = mem_calloc(1, sizeof *server);

    if (!server)
        return NULL;
    server->options = *options;
    server->limits = options->limits;
    server->spare = -1;
    pool_init(&server->regular);
    pool_init(&server->surplus);
    if (!options->address)
        return server;
    if (open_spare(server))
        server->listener = listener_create_alone(options->loop, options->address, on_accept, server);
    else
        log_error("the API can't keep a descriptor in reserve");
    if (!server->listener) {
        api_server_destroy(server);
        return NULL;
    }
    listener_on_exhausted(server->listener, on_exhausted);
    return server;
}

void api_server_destroy(struct api_server *server)
{
    if (!server)
        return;
    listener_destroy(server->listener);
    pool_close(&server->regular);
    pool_close(&server->surplus);
    if (server->spare >= 0)
        close(server->spare);
    mem_free(server);
}

const char *api_server_address(const struct api_server *server)
{
    return listener_address(server->listener);
}

void api_server_set_limits(struct api_server *server, const struct api_server_limits *limits)
{
    server->limits = *limits;
}

size_t api_server_connections(const struct api_server *server)
{
    return server->regular.count + server->surplus.count;
}

size_t api_server_memory(const struct api_server *server)
{
    return server->memory;
}
