/* bench_floor: what delivering costs at the least without further thought: one epoll, one read, one send(2) for each
 * recipient, nothing checked and nothing registered. It speaks the plain dialect's paths:
 * /topic/NAME, /publish/NAME, /session/NAME/TARGET with names made of a letter and a number. */
#include "base/alloc.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NAMES = 32768, FRAME = 1 << 17, HEADER = 4 };

struct peer {
    int fd;
    bool open, publishes;
    unsigned place;    /* in names: whom it belongs to, or sends to */
    struct peer *next; /* of the same place */
    char *kept;        /* the beginning of a frame */
    size_t kept_len;
};

static struct peer *names[2][NAMES]; /* topics and sessions, by number */
static int epoll;
static char input[FRAME], output[FRAME];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct peer **place_of(bool topic, unsigned number)
{
    return &names[topic][number % NAMES];
}

static void answer(struct peer *peer, const char *request)
{
    char accept_text[64], text[128], reply[256];
    unsigned char hash[SHA_DIGEST_LENGTH];
    const char *key = strstr(request, "Sec-WebSocket-Key: ");
    if (!key) {
        return;
    }
    int len = snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key + 19);
    SHA1((unsigned char *)text, (size_t)len, hash);
    EVP_EncodeBlock((unsigned char *)accept_text, hash, sizeof hash);
    len = snprintf(reply, sizeof reply,
                   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Accept: %s\r\n\r\n",
                   accept_text);
    unsigned number = 0, target = 0;
    peer->open = true;
    if (sscanf(request, "GET /session/%*c%u/%*c%u", &number, &target) == 2) {
        peer->place = target;
        *place_of(false, number) = peer;
    } else if (sscanf(request, "GET /publish/%*c%u", &number) == 1) {
        peer->place = number;
        peer->publishes = true;
    } else if (sscanf(request, "GET /topic/%*c%u", &number) == 1) {
        peer->next = *place_of(true, number);
        *place_of(true, number) = peer;
    }
    if (send(peer->fd, reply, (size_t)len, MSG_NOSIGNAL) != len) {
        die("send");
    }
}

static void deliver(const struct peer *peer, const char *frame, size_t len)
{
    if (peer->publishes) {
        for (struct peer *to = *place_of(true, peer->place); to; to = to->next) {
            send(to->fd, frame, len, MSG_NOSIGNAL);
        }
        return;
    }
    struct peer *to = *place_of(false, peer->place);
    if (to) {
        send(to->fd, frame, len, MSG_NOSIGNAL);
    }
}

/* Takes the frame at the front of `data`; 0: it isn't whole. The copy is unmasked, and has a server's header. */
static size_t frame_take(const struct peer *peer, const unsigned char *data, size_t len)
{
    size_t size = len > 1 ? data[1] & 0x7f : 0, start = 6, at = 2;
    if (len >= 4 && size == 126) {
        size = (size_t)data[2] << 8 | data[3];
        start = 8;
        at = 4;
    }
    if (len < start || len - start < size || size + HEADER > FRAME) {
        return 0;
    }
    memcpy(output, data, at);
    output[1] = (char)(data[1] & 0x7f);
    for (size_t i = 0; i < size; i++) {
        output[at + i] = (char)(data[start + i] ^ data[start - 4 + i % 4]);
    }
    if ((data[0] & 0x0f) < 8) {
        deliver(peer, output, at + size);
    }
    return start + size;
}

static void peer_end(struct peer *peer)
{
    close(peer->fd); /* the rest stays until the end of the process, which serves one run */
    peer->fd = -1;
}

static void readable(struct peer *peer)
{
    memcpy(input, peer->kept, peer->kept_len);
    ssize_t got = recv(peer->fd, input + peer->kept_len, sizeof input - 1 - peer->kept_len, 0);
    if (got <= 0) {
        peer_end(peer);
        return;
    }
    size_t len = peer->kept_len + (size_t)got, at = 0;
    if (!peer->open) {
        input[len] = '\0';
        const char *end = strstr(input, "\r\n\r\n");
        if (end) {
            at = (size_t)(end - input) + 4;
            answer(peer, input);
        }
    }
    for (size_t taken = 1; peer->open && taken > 0; at += taken) {
        taken = frame_take(peer, (const unsigned char *)input + at, len - at);
    }
    peer->kept_len = len - at;
    mem_free(peer->kept);
    peer->kept = peer->kept_len > 0 ? mem_dup(input + at, peer->kept_len) : NULL;
}

static void accept_one(int listener)
{
    int yes = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct peer *peer = fd < 0 ? NULL : mem_calloc(1, sizeof *peer);
    if (!peer) {
        die("accept");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    peer->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) {
        die("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)(argc == 2 ? atoi(argv[1]) : 0)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (argc != 2 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        fputs("Usage: bench_floor PORT\n", stderr);
        return 2;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer) {
                accept_one(listener);
            } else {
                readable(peer);
            }
        }
    }
}
