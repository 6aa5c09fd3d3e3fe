/* Sessions without sockets: a broker's core (loop, router, sessions) on a storage of the test's choice, and
 * clients that write down what they receive. Time is fake. */
#ifndef TESTS_LIB_SESSION_FIXTURE_H
#define TESTS_LIB_SESSION_FIXTURE_H

#include "broker/budget.h"
#include "broker/keys.h"
#include "broker/metrics.h"
#include "broker/reads.h"
#include "broker/route.h"
#include "broker/session.h"
#include "proto/errors.h"
#include "tests/lib/fake_storage.h"

struct config;
struct loop;
struct requests;
struct router;

struct session_fixture {
    struct loop *loop;
    struct config *config;
    struct storage *storage;
    struct fake_storage *fake; /* the storage, when it is that one */
    struct router *router;
    struct requests *requests; /* those that sessions ask */
    struct reads reads;
    struct keys keys; /* ample, unless a test sets the limits */
    struct sessions *sessions;
    struct metrics metrics;
    struct budget budget; /* no limit, unless a test sets one */
    struct list clients;
    uint64_t now_us; /* the fake clock */
    unsigned idle;   /* how often on_idle was called */
    unsigned states; /* how often the storage's state changed */
};

/* One client and its connection. */
struct client {
    struct list link;
    struct session_fixture *fixture;
    struct session_transport transport;
    struct session *session; /* NULL once the connection is gone, or was refused */
    bool reading;            /* the broker reads from it */
    bool wanted;             /* the broker asked to write */
    bool stalled;            /* it doesn't read: nothing is taken from its outbox */
    uint64_t still_ms;       /* what the transport answers to still_ms() */
    unsigned drops;          /* how often the broker gave up what waited for it */
    bool lingering;          /* it doesn't finish a close by itself */
    unsigned closes;         /* how often the broker closed it */
    unsigned pauses;         /* how often it was no longer read */
    int close_code;
    char *inbox; /* owned: what it received, each message followed by a | */
    size_t inbox_len, messages;
    char *taken; /* owned: the last answer of client_take() */
};

/* Builds everything. The limits are those that `options` names; zero: ample. */
void session_fixture_open(struct session_fixture *fixture, const struct sessions_options *options,
                          bool memory_storage);

/* Cuts the clients off, destroys everything; the storage cancels what is open. */
void session_fixture_close(struct session_fixture *fixture);

/* Runs one turn of the loop without waiting, then writes what waits for clients and ends closed connections.
 */
void session_fixture_turn(struct session_fixture *fixture);

/* As many turns as everything takes that is under way in the memory storage. */
void session_fixture_settle(struct session_fixture *fixture);

/* Connects a client to a path; its session is NULL when that was refused. It lives as long as the fixture. */
struct client *client_open(struct session_fixture *fixture, const char *path);

/* The same with parameters of the test's choice, which client_match() fills in for a path; NULL: refused before. */
bool client_match(const struct session_fixture *fixture, const char *path, struct route_match *match,
                  struct session_params *params);
struct client *client_open_with(struct session_fixture *fixture, const struct session_params *params);

/* A message from the client; lost when its connection is closed or closing. */
void client_send(struct client *client, const char *text);
void client_send_binary(struct client *client, const char *data, size_t len);

/* What it received since the last call, like "one|two|"; binary messages in < >, a close as #CODE. Borrowed.
 */
const char *client_take(struct client *client);

/* The connection is lost, or was closed by the client with `code`. */
void client_lose(struct client *client, int code);

struct slice client_conn(const struct client *client); /* while it has a session */

/* ---- with the fake storage ---- */

/* Answers whatever is asked until the client is online or closed, as if nobody held the name before. */
void client_bring_online(struct client *client);

/* Connects a client and brings it online; nothing of that is open afterwards. */
struct client *client_open_online(struct session_fixture *fixture, const char *path);

/* Answers everything that is open, also what that leads to; true when no session and no channel is left then. */
bool session_fixture_gone(struct session_fixture *fixture);

/* A takeover notice on session:{NAME}. */
void fixture_notice(struct session_fixture *fixture, const char *name, struct slice conn);

/* A text message on a channel. */
void fixture_message(struct session_fixture *fixture, const char *channel, const char *text);

#endif
