#include "broker/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/loop.h"

#define BACKLOG    4096
#define PAUSE_MS   100
#define EPISODE_MS 10000 /* errors closer together are one episode */

struct listener {
    struct evconnlistener *acceptor; /* NULL when stopped */
    struct event resume;
    uint64_t last_error_ms; /* monotonic; 0: none yet */
    listener_accept_cb on_accept;
    void (*on_exhausted)(void *data, evutil_socket_t listening); /* NULL: nobody wants to know */
    void *data;
    char address[NI_MAXHOST + sizeof "[]:65535"];
};

static int parse_port(const char *text, unsigned *port)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    unsigned long number = strtoul(text, &end, 10);
    if (*end || number > 65535)
        return -1;
    *port = (unsigned)number;
    return 0;
}

int listener_parse(const char *address, char *host, size_t host_size, unsigned *port, const char **problem)
{
    const char *colon = strrchr(address, ':');
    const char *start = address;
    const char *end = colon;
    *problem = "needs to be HOST:PORT, [IPV6]:PORT or :PORT";
    if (!colon)
        return -1;
    if (*start == '[') {
        start++;
        end--;
        if (end <= start || *end != ']')
            return -1;
    } else if (memchr(start, ':', (size_t)(end - start))) {
        *problem = "an IPv6 address needs brackets, as in [::1]:8080";
        return -1;
    }
    if (parse_port(colon + 1, port) != 0) {
        *problem = "the port needs to be a number from 0 to 65535";
        return -1;
    }
    size_t len = (size_t)(end - start);
    if (len == 1 && *start == '*')
        len = 0;
    if (len >= host_size) {
        *problem = "the host is too long";
        return -1;
    }
    memcpy(host, start, len);
    host[len] = '\0';
    return 0;
}

/* A bound socket, or -1 with errno set. Connections inherit its TCP_NODELAY. */
static evutil_socket_t bind_socket(const struct addrinfo *where, bool shared)
{
    int on = 1;
    int off = 0;
    int fd = socket(where->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (evutil_make_listen_socket_reuseable(fd) == 0 && (!shared || evutil_make_listen_socket_reuseable_port(fd) == 0) &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
        (where->ai_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
        bind(fd, where->ai_addr, where->ai_addrlen) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

/* Binds to the first address of `host` that can be had. -1 with a text in *problem. */
static evutil_socket_t bind_host(const char *host, unsigned port, bool shared, const char **problem)
{
    char service[sizeof "65535"];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    snprintf(service, sizeof service, "%u", port);
    /* "All" is the IPv6 wildcard, which takes IPv4 too, or the IPv4 one on a machine without IPv6. */
    int failed = getaddrinfo(*host ? host : "::", service, &hints, &found);
    if (failed) {
        *problem = gai_strerror(failed);
        return -1;
    }
    evutil_socket_t fd = -1;
    for (const struct addrinfo *where = found; where && fd < 0; where = where->ai_next)
        fd = bind_socket(where, shared);
    int reason = errno;
    freeaddrinfo(found);
    *problem = strerror(reason);
    if (fd < 0 && !*host && (reason == EAFNOSUPPORT || reason == EADDRNOTAVAIL))
        return bind_host("0.0.0.0", port, shared, problem);
    return fd;
}

size_t listener_format(const struct sockaddr *address, socklen_t len, char *out, size_t size)
{
    char host[NI_MAXHOST];
    unsigned port;
    if (address->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        /* Much cheaper than getnameinfo(), which knows the scopes of IPv6 addresses. */
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        port = ntohs(in->sin_port);
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
    } else if (address->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6) &&
               getnameinfo(address, len, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0) {
        port = ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    } else {
        return 0;
    }
    int written = snprintf(out, size, address->sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, port);
    return written > 0 && (size_t)written < size ? (size_t)written : 0;
}

size_t listener_format_own(evutil_socket_t fd, char *out, size_t size)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len) != 0)
        return 0;
    return listener_format((struct sockaddr *)&name, len, out, size);
}

static void on_connection(struct evconnlistener *acceptor, evutil_socket_t fd, struct sockaddr *peer,
                          int peer_len, void *data)
{
    struct listener *listener = data;
    (void)acceptor;
    listener->on_accept(listener->data, fd, peer, (socklen_t)peer_len);
}

/* The pending connection keeps the listening socket readable, so going on at once would only spin. */
static void on_accept_error(struct evconnlistener *acceptor, void *data)
{
    struct listener *listener = data;
    int reason = EVUTIL_SOCKET_ERROR();
    struct timeval pause = {.tv_usec = PAUSE_MS * 1000};
    uint64_t now = clock_monotonic_ms();
    if (!listener->last_error_ms || now - listener->last_error_ms >= EPISODE_MS)
        log_warn("connections can't be accepted, trying again", log_str("address", listener->address),
                 log_str("reason", strerror(reason)), log_int("pause_ms", PAUSE_MS));
    listener->last_error_ms = now;
    if (listener->on_exhausted && (reason == EMFILE || reason == ENFILE))
        listener->on_exhausted(listener->data, evconnlistener_get_fd(acceptor));
    if (event_add(&listener->resume, &pause) == 0)
        evconnlistener_disable(acceptor);
}

static void on_resume(evutil_socket_t fd, short what, void *data)
{
    struct listener *listener = data;
    (void)fd;
    (void)what;
    if (listener->acceptor)
        evconnlistener_enable(listener->acceptor);
}

static void report_failure(const char *address, const char *problem)
{
    log_error("can't listen", log_str("address", address), log_str("reason", problem));
}

static struct listener *create(struct loop *loop, const char *address, bool shared,
                               listener_accept_cb on_accept, void *data)
{
    char host[NI_MAXHOST];
    unsigned port;
    const char *problem;
    if (listener_parse(address, host, sizeof host, &port, &problem) != 0) {
        report_failure(address, problem);
        return NULL;
    }
    evutil_socket_t fd = bind_host(host, port, shared, &problem);
    if (fd < 0) {
        report_failure(address, problem);
        return NULL;
    }
    struct listener *listener = mem_calloc(1, sizeof *listener);
    if (!listener) {
        report_failure(address, strerror(ENOMEM));
        close(fd);
        return NULL;
    }
    listener->on_accept = on_accept;
    listener->data = data;
    event_assign(&listener->resume, loop_base(loop), -1, 0, on_resume, listener);
    errno = 0;
    listener->acceptor = evconnlistener_new(loop_base(loop), on_connection, listener,
                                            LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, fd);
    if (!listener->acceptor) {
        report_failure(address, strerror(errno ? errno : ENOMEM));
        close(fd);
        mem_free(listener);
        return NULL;
    }
    evconnlistener_set_error_cb(listener->acceptor, on_accept_error);
    listener_format_own(fd, listener->address, sizeof listener->address);
    return listener;
}

struct listener *listener_create(struct loop *loop, const char *address, listener_accept_cb on_accept,
                                 void *data)
{
    return create(loop, address, true, on_accept, data);
}

struct listener *listener_create_alone(struct loop *loop, const char *address, listener_accept_cb on_accept,
                                       void *data)
{
    return create(loop, address, false, on_accept, data);
}

void listener_destroy(struct listener *listener)
{
    if (!listener)
        return;
    listener_stop(listener);
    mem_free(listener);
}

void listener_on_exhausted(struct listener *listener,
                           void (*on_exhausted)(void *data, evutil_socket_t listening))
{
    listener->on_exhausted = on_exhausted;
}

const char *listener_address(const struct listener *listener)
{
    return listener->address;
}

void listener_stop(struct listener *listener)
{
    if (!listener->acceptor)
        return;
    event_del(&listener->resume);
    evconnlistener_free(listener->acceptor);
    listener->acceptor = NULL;
}

size_t listener_set_fd_limit(size_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        log_warn("limit of open files unknown", log_str("reason", strerror(errno)));
        return (size_t)sysconf(_SC_OPEN_MAX);
    }
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        log_warn("limit of open files not set", log_str("reason", strerror(errno)));
        limit.rlim_cur = before;
    }
    log_info("limit of open files", log_int("limit", (int64_t)limit.rlim_cur),
             log_int("before", (int64_t)before), log_int("hard", (int64_t)limit.rlim_max));
    return (size_t)limit.rlim_cur;
}
