/* Opens a socket to a server without blocking: name look-up, then each address in turn. */
#ifndef STORAGE_REDIS_DIAL_H
#define STORAGE_REDIS_DIAL_H

#include "storage/redis/redis_server.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/time.h>
#include <sys/un.h>

struct event;
struct event_base;
struct evdns_base;
struct redis_lookup;

enum { REDIS_DIAL_ADDRESSES = 8 };

union redis_sockaddr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

struct redis_dial {
    struct event_base *loop;
    const struct redis_server *server; /* the caller's */
    /* Called once per redis_dial_start(), never from inside it: with a connected, non-blocking socket, which
     * is the callee's from then on, or with -1 and a text that lives until the next call here. */
    void (*on_done)(void *data, int fd, const char *why);
    void *data;

    union redis_sockaddr addresses[REDIS_DIAL_ADDRESSES];
    size_t address_count, next;
    int fd;                 /* being connected, or -1 */
    struct event *watch;    /* `fd` became writable */
    struct event *step;     /* goes on from the loop */
    struct event *deadline; /* for the look-up, and for each address */
    struct timeval timeout;
    struct evdns_base *dns;      /* made when a name is first looked up */
    struct redis_lookup *lookup; /* under way, or NULL */
    char why[160];
};

/* False when memory is short; redis_dial_close() is allowed then too. */
bool redis_dial_init(struct redis_dial *dial, struct event_base *loop, const struct redis_server *server,
                     void (*on_done)(void *data, int fd, const char *why), void *data);
void redis_dial_close(struct redis_dial *dial);

void redis_dial_start(struct redis_dial *dial,
                      uint32_t timeout_ms);      /* for the look-up, and for each address */
void redis_dial_cancel(struct redis_dial *dial); /* on_done isn't called any more */

#endif
