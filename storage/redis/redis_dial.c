#include "storage/redis/redis_dial.h"

#include "base/alloc.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A look-up in progress. It outlives a cancelled dial, because the resolver answers even then. */
struct redis_lookup {
    struct redis_dial *dial; /* NULL once cancelled */
    struct evdns_getaddrinfo_request *request;
};

static void finish(struct redis_dial *dial, int fd)
{
    if (fd < 0 && !dial->why[0])
        snprintf(dial->why, sizeof dial->why, "there is no address to connect to");
    dial->fd = -1;
    redis_dial_cancel(dial);
    dial->on_done(dial->data, fd, fd < 0 ? dial->why : NULL);
}

static void fail(struct redis_dial *dial, const char *what, const char *reason)
{
    snprintf(dial->why, sizeof dial->why, "%s: %s", what, reason);
}

static void drop_socket(struct redis_dial *dial)
{
    event_del(dial->watch);
    if (dial->fd >= 0)
        close(dial->fd);
    dial->fd = -1;
}

static void set_options(int fd, bool tcp)
{
    int on = 1, idle_s = 15, interval_s = 5, count = 3;

    if (!tcp)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static socklen_t sockaddr_len(const union redis_sockaddr *address)
{
    if (address->any.sa_family == AF_INET)
        return sizeof address->v4;
    return address->any.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->local;
}

/* Begins to connect to the next address; false when it failed at once. */
static bool try_address(struct redis_dial *dial, const union redis_sockaddr *address)
{
    int family = address->any.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        fail(dial, "socket", strerror(errno));
        return false;
    }
    dial->fd = fd;
    set_options(fd, family != AF_UNIX);
    if (connect(fd, &address->any, sockaddr_len(address)) == 0 || errno == EINPROGRESS) {
        event_assign(dial->watch, dial->loop, fd, EV_WRITE, event_get_callback(dial->watch), dial);
        if (event_add(dial->watch, NULL) == 0)
            return true;
    }
    fail(dial, "connect", strerror(errno));
    drop_socket(dial);
    return false;
}

static void try_next(struct redis_dial *dial)
{
    while (dial->next < dial->address_count)
        if (try_address(dial, &dial->addresses[dial->next++]))
            return;
    finish(dial, -1);
}

static void on_writable(evutil_socket_t fd, short what, void *data)
{
    struct redis_dial *dial = data;
    int error = 0;
    socklen_t len = sizeof error;

    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (!error) {
        event_del(dial->watch);
        finish(dial, fd);
        return;
    }
    fail(dial, "connect", strerror(error));
    drop_socket(dial);
    try_next(dial);
}

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    struct redis_dial *dial = data;

    (void)fd, (void)what;
    fail(dial, dial->lookup ? "looking the name up" : "connect", "no answer in time");
    drop_socket(dial);
    event_add(dial->deadline, &dial->timeout);
    if (dial->lookup)
        finish(dial, -1);
    else
        try_next(dial);
}

static void on_step(evutil_socket_t fd, short what, void *data)
{
    (void)fd, (void)what;
    try_next(data);
}

static void take_addresses(struct redis_dial *dial, const struct evutil_addrinfo *info)
{
    for (; info && dial->address_count < REDIS_DIAL_ADDRESSES; info = info->ai_next)
        if (info->ai_addrlen <= sizeof *dial->addresses)
            memcpy(&dial->addresses[dial->address_count++], info->ai_addr, info->ai_addrlen);
}

static void on_looked_up(int result, struct evutil_addrinfo *info, void *data)
{
    struct redis_lookup *lookup = data;
    struct redis_dial *dial = lookup->dial;

    if (dial) {
        dial->lookup = NULL;
        if (result)
            fail(dial, "looking the name up", evutil_gai_strerror(result));
        take_addresses(dial, info);
        event_active(dial->step, 0, 0);
    }
    if (info)
        evutil_freeaddrinfo(info);
    mem_free(lookup);
}

/* Reads the resolver's files anew each time, so that a change of the network is seen. */
static bool make_resolver(struct redis_dial *dial)
{
    if (dial->dns)
        evdns_base_free(dial->dns, 1);
    dial->dns = evdns_base_new(dial->loop, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!dial->dns)
        return false;
    /* Failing to read it leaves a local server as the only one to ask, and the hosts file is read apart. */
    evdns_base_resolv_conf_parse(dial->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
    evdns_base_load_hosts(dial->dns, "/etc/hosts");
    return true;
}

static void look_up(struct redis_dial *dial, const char *host, const char *port)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct evutil_addrinfo *info = NULL;
    struct redis_lookup *lookup;

    hints.ai_flags = EVUTIL_AI_NUMERICHOST | EVUTIL_AI_NUMERICSERV;
    if (evutil_getaddrinfo(host, port, &hints, &info) == 0) {
        take_addresses(dial, info);
        evutil_freeaddrinfo(info);
        event_active(dial->step, 0, 0);
        return;
    }
    lookup = mem_calloc(1, sizeof *lookup);
    if (!lookup || !make_resolver(dial)) {
        mem_free(lookup);
        fail(dial, "looking the name up", "memory is short");
        event_active(dial->step, 0, 0);
        return;
    }
    hints.ai_flags = EVUTIL_AI_NUMERICSERV;
    lookup->dial = dial;
    dial->lookup = lookup;
    /* A name from the hosts file is answered from inside this call, and `lookup` is gone then. */
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(dial->dns, host, port, &hints, on_looked_up, lookup);
    if (dial->lookup)
        dial->lookup->request = request;
}

bool redis_dial_init(struct redis_dial *dial, struct event_base *loop, const struct redis_server *server,
                     void (*on_done)(void *data, int fd, const char *why), void *data)
{
    *dial = (struct redis_dial){.loop = loop, .server = server, .on_done = on_done, .data = data, .fd = -1};
    dial->watch = event_new(loop, -1, EV_WRITE, on_writable, dial);
    dial->step = event_new(loop, -1, 0, on_step, dial);
    dial->deadline = evtimer_new(loop, on_deadline, dial);
    return dial->watch && dial->step && dial->deadline;
}

void redis_dial_cancel(struct redis_dial *dial)
{
    drop_socket(dial);
    event_del(dial->step);
    event_del(dial->deadline);
    if (dial->lookup) {
        dial->lookup->dial = NULL;
        if (dial->lookup->request)
            evdns_getaddrinfo_cancel(dial->lookup->request);
        dial->lookup = NULL;
    }
}

void redis_dial_close(struct redis_dial *dial)
{
    if (dial->watch && dial->step && dial->deadline)
        redis_dial_cancel(dial);
    if (dial->dns)
        evdns_base_free(dial->dns, 1);
    struct event *events[] = {dial->watch, dial->step, dial->deadline};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    *dial = (struct redis_dial){.fd = -1};
}

void redis_dial_start(struct redis_dial *dial, uint32_t timeout_ms)
{
    const struct redis_server *server = dial->server;
    char port[8];

    dial->address_count = dial->next = 0;
    dial->why[0] = '\0';
    dial->timeout =
        (struct timeval){.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    event_add(dial->deadline, &dial->timeout);
    if (server->path) {
        struct sockaddr_un *local = &dial->addresses[0].local;
        *local = (struct sockaddr_un){.sun_family = AF_UNIX};
        memcpy(local->sun_path, server->path, strlen(server->path) + 1);
        dial->address_count = 1;
        event_active(dial->step, 0, 0);
        return;
    }
    snprintf(port, sizeof port, "%u", (unsigned)server->port);
    look_up(dial, server->host, port);
}
