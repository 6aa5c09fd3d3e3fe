/* One connection to Redis: commands pipelined in order, or subscriptions (RESP2).
 *
 * It runs on two events of its own rather than on a bufferevent, because libevent 2.1 reads a socket in
 * pieces of 4 KiB with an ioctl before each, and takes two epoll_ctl calls and one more wake-up per burst
 * written. Here a read takes up to 64 KiB, and everything commanded in one turn of the loop leaves in one
 * write at its end. Encryption fits in where the socket is read and written.
 *
 * A connection is opened, becomes ready after its handshake (AUTH, SELECT, PING), and ends once: by an error,
 * a deadline or redis_conn_close(). Every command calls back exactly once, in the order given. */
#ifndef STORAGE_REDIS_CONN_H
#define STORAGE_REDIS_CONN_H

#include "base/buffer.h"
#include "storage/redis/redis_dial.h"
#include "storage/redis/redis_reply.h"

struct redis_conn;

/* `reply` lives until the function returns. It is NULL when the command wasn't answered; `error` is then
 * ERROR_TIMEOUT, ERROR_UNAVAILABLE or ERROR_CANCELLED. For an error reply, `error` is what it maps to. */
typedef void redis_on_reply(void *data, const struct redis_reply *reply, int error);

struct redis_conn_events {
    void (*on_ready)(void *data);
    /* It ended by itself; called before its commands call back. `why` lives until the function returns. */
    void (*on_down)(void *data, const char *why);
    /* A message on a subscribed connection. */
    void (*on_message)(void *data, struct slice channel, struct slice bytes);
    /* The turn is over and its commands are about to be written: the last chance to add some. */
    void (*on_turn_end)(void *data);
    void *data;
};

enum redis_conn_state { REDIS_CONN_CLOSED, REDIS_CONN_DIALING, REDIS_CONN_GREETING, REDIS_CONN_READY };

struct redis_pending; /* a command that waits for its reply */

struct redis_conn {
    enum redis_conn_state state;
    struct event_base *loop;
    const struct redis_server *server; /* the caller's */
    const char *name;                  /* for logs and CLIENT LIST; the caller's */
    struct redis_conn_events events;
    uint32_t timeout_ms;
    struct redis_dial dial;
    int fd;
    struct event *readable, *writable;
    struct event *turn;     /* made active by the first command of a turn */
    struct event *deadline; /* of the oldest command */
    struct buffer out;      /* not yet written */
    size_t written;         /* of `out`, when the socket was full */
    bool turn_pending, write_blocked;
    bool errored; /* writing failed; ended from the loop */
    char why[200];
    struct redis_replies *replies;
    char *chunk;                   /* where the socket is read into */
    struct redis_pending *pending; /* a ring */
    size_t pending_first, pending_count, pending_capacity;
    uint64_t answered;         /* commands, ever; with pending_count, how many were made */
    uint64_t turn_deadline_ms; /* of the commands of this turn */
    uint64_t received;         /* bytes in all, to tell silence from delay */
};

/* False when memory is short; redis_conn_destroy() is allowed then too. */
bool redis_conn_init(struct redis_conn *conn, struct event_base *loop, const struct redis_server *server,
                     const char *name, uint32_t timeout_ms, const struct redis_conn_events *events);

/* Closes it and frees what it owns. Not from inside a callback. */
void redis_conn_destroy(struct redis_conn *conn);

void redis_conn_open(struct redis_conn *conn); /* it must be closed */

/* Ends it without on_down; its commands call back with `error` before this returns. Idempotent. */
void redis_conn_close(struct redis_conn *conn, int error);

/* Sends one command. 0, or an error from proto/errors.h and then nothing was sent and nothing calls back:
 * ERROR_UNAVAILABLE, ERROR_NO_MEMORY, ERROR_LIMIT (too much is waiting already). Arguments are copied. */
int redis_conn_command(struct redis_conn *conn, const struct slice *args, size_t count,
                       redis_on_reply *on_reply, void *data) __attribute__((warn_unused_result));

/* The same for arguments already formatted as bulk strings. */
int redis_conn_command_raw(struct redis_conn *conn, struct slice bulks, size_t count,
                           redis_on_reply *on_reply, void *data) __attribute__((warn_unused_result));

/* Formats one argument for the above. */
bool redis_bulk_append(struct buffer *out, struct slice arg);

/* SUBSCRIBE and its opposite, which are answered once a channel: announces one reply. After a command's
 * `count` announcements, redis_conn_subscription() sends it with its channels. */
int redis_conn_announce(struct redis_conn *conn, redis_on_reply *on_reply, void *data)
    __attribute__((warn_unused_result));
void redis_conn_subscription(struct redis_conn *conn, const char *verb, struct slice channels, size_t count);

/* Asks for on_turn_end at the end of this turn. */
void redis_conn_want_turn(struct redis_conn *conn);

/* Reads what has already arrived, so that this process's own delay isn't taken for the server's. */
void redis_conn_poll(struct redis_conn *conn);

/* Ends the connection from the loop, as an error of it. */
void redis_conn_fail(struct redis_conn *conn, const char *why);

#endif
