/* Sessions: what the broker knows of each live connection, from its handshake until it has left the registry.
 *
 * A session knows routes, the router and the storage, and of its connection only three calls; it does not
 * know libwebsockets, so it is tested without sockets. */
#ifndef BROKER_SESSION_H
#define BROKER_SESSION_H

#include "base/list.h"
#include "broker/budget.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct loop;
struct metrics;
struct outbox;
struct reads;
struct route_params;
struct router;
struct session;
struct session_transport;
struct sessions;
struct storage;

/* What a session asks of its connection. Each may be called at any time until session_detach(). */
struct session_transport_ops {
    /* There is something in session_outbox(); write it soon, at the latest at the end of this turn. */
    void (*want_write)(struct session_transport *transport);

    /* Stop or resume reading from the client; what it sent meanwhile waits in the kernel. */
    void (*set_reading)(struct session_transport *transport, bool on);

    /* Write what is in the outbox, then close with `code` (proto/errors.h); session_detach() follows, not
     * from inside. */
    void (*close)(struct session_transport *transport, int code);

    /* For how long, in ms, the client has taken nothing of what waits for it, or not gone on with a message that it has
     * begun; 0 when neither is so. */
    uint64_t (*still_ms)(struct session_transport *transport);

    /* After close(): give back at once what is kept for the session, session_keeps() included. A client that doesn't read is not
     * told why, then, and session_detach() may follow from inside: neither may be in use. */
    void (*drop)(struct session_transport *transport);
};

struct session_transport {
    const struct session_transport_ops *ops;
};

struct sessions_options {
    struct loop *loop;
    struct storage *storage;
    struct router *router;
    struct metrics *metrics;
    struct requests *requests;
    struct budget *budget; /* its holders are the sessions */
    const char *instance;  /* this instance's id */
    size_t outbox_limit;   /* bytes */
    size_t inflight_limit; /* messages of one client that wait for the storage before it is no longer read */
    size_t inflight_bytes; /* the same in bytes */
    size_t inflight_total; /* of all clients together, before only those are read who have little in flight */
    size_t turn_commands;  /* messages or commands of one client that are carried out in a turn of the loop */
    size_t turn_bytes;     /* the same in bytes; the one that reaches it is still carried out */
    size_t session_reads;  /* reads of one client that are open at a time */
    struct reads *reads;   /* whose turn it is to read */
    struct keys *keys;     /* how many idempotency keys there may be */
    void (*on_idle)(void *data); /* the last session is gone; may be NULL */
    void *data;
};

/* NULL when memory is short. All that `options` names must outlive it. */
struct sessions *sessions_create(const struct sessions_options *options);

/* Every session must be gone, or the storage destroyed before: what it could not unregister is forgotten then.
 * NULL is allowed. */
void sessions_destroy(struct sessions *sessions);

/* Limits as in the options; the sessions that are there follow them too. */
void sessions_set_limits(struct sessions *sessions, size_t outbox_limit, size_t inflight_limit,
                         size_t inflight_bytes);

/* The same for what one client may do while others wait. */
void sessions_set_shares(struct sessions *sessions, size_t turn_commands, size_t turn_bytes,
                         size_t inflight_total, size_t session_reads);

/* What the storage reports (storage.h). */
void sessions_on_storage_down(struct sessions *sessions);
void sessions_on_registry_lost(struct sessions *sessions);

size_t sessions_online(const struct sessions *sessions);
size_t sessions_total(const struct sessions *sessions); /* those that come and go included */

/* Ends up to `count` sessions with `code`, the oldest first; returns how many were left to end. */
size_t sessions_end_some(struct sessions *sessions, size_t count, int code);

/* ---- one session ---- */

struct session_params {
    struct config *config;                   /* whose route it is; a reference is taken */
    const struct route_params *route_params; /* copied */
    enum face face;
    struct slice remote;                    /* HOST:PORT of the client; copied */
    struct slice agent;                     /* User-Agent; copied, cut */
    bool since;                             /* recover the stored messages of the route's address first */
    struct slice since_epoch, since_offset; /* after this one; both empty: from the beginning; copied */
};

/* Starts a session: it subscribes, registers and comes online by itself; until then nothing may be read from
 * the client (the transport begins with reading stopped). NULL when memory is short or the route's address is
 * no good. */
struct session *session_open(struct sessions *sessions, const struct session_params *params,
                             struct session_transport *transport);

/* A whole message from the client. Text is valid UTF-8. */
void session_receive(struct session *session, enum message_content content, struct slice payload);

/* It isn't read for now because of what it asked for: that nothing is heard of the client says nothing about it. */
bool session_is_busy(const struct session *session);

/* What waits to be written, to be taken by the transport; NULL while the session isn't online yet. */
struct outbox *session_outbox(struct session *session);

/* The outbox is empty again: who waits for room in it goes on. */
void session_drained(struct session *session);

/* Closes the connection with `code` and unregisters the session. Idempotent: the first code counts. */
void session_end(struct session *session, int code);

/* The connection is gone, closed with `code` (0: lost without a close frame). The transport forgets the
 * session. */
void session_detach(struct session *session, int code);

/* What the transport keeps for the session beyond the outbox, BUDGET_UNSENT or BUDGET_ASSEMBLY: replaces what the last call said
 * about this kind. */
void session_keeps(struct session *session, enum budget_kind kind, size_t bytes);

enum session_cut {
    CUT_OUTBOX_LIMIT, /* more waits for the client than may */
    CUT_STALL,        /* it has taken nothing for stall_timeout */
    CUT_MEMORY,       /* memory_budget is used up, and it is this one's turn */
    CUT_UNFINISHED    /* a message of it was not complete at message_timeout */
};

/* Drops what waits for the client, and ends the session: with 4008, or 4009 for what it sent too slowly. Logged and counted. */
void session_cut(struct session *session, enum session_cut why);

/* Whether a line about what this client did may be logged: one a minute. `*left_out`: how many were not since the last. */
bool session_may_log(struct session *session, uint64_t *left_out);

/* The text that goes with the close code; valid as long as the session. */
struct slice session_close_reason(const struct session *session);

/* For log lines. */
struct slice session_name(const struct session *session);
struct slice session_conn(const struct session *session);

#endif
