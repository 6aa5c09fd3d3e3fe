/* The world of the tests that ask one storage implementation for its promises: memory, or a Redis of its own
 * with up to two instances of the broker. */
#ifndef TESTS_LIB_STORAGE_WORLD_H
#define TESTS_LIB_STORAGE_WORLD_H

#include "tests/lib/redis_fixture.h"
#include "tests/lib/storage_fixture.h"

enum { WORLD_PEERS = 2, WORLD_HEARTBEAT_MS = 150, WORLD_LEASE_MS = 900 };

struct storage_world {
    struct event_base *base;
    struct list calls;
    struct peer peers[WORLD_PEERS];
};

extern bool world_on_redis;
extern bool world_through_redis; /* peers started now send even to themselves through Redis */
extern struct redis_fixture world_redis;
extern struct storage_limits world_limits; /* of peers started now; zeroed for each test */
extern char world_prefix[32]; /* one for each test, so that none sees what an earlier one left behind */

/* From main()'s arguments: memory | redis. False when Redis doesn't start. */
bool world_begin(int argc, char **argv);
void world_end(void);

/* A test's setup (no peer yet) and teardown, which checks that every request was called back exactly once and
 * never from inside its call. */
int world_open(void **state);
int world_close(void **state);

/* Starts a peer and awaits that it is up; its histories keep so much (0: the default). */
struct peer *world_peer_with(struct storage_world *world, size_t index, uint32_t history_count,
                             uint64_t history_age_ms);
struct peer *world_peer(struct storage_world *world, size_t index);
struct storage *world_storage(struct event_base *base);

struct call *world_call(struct storage_world *world);
void world_expect(struct storage_world *world, struct call *call, int error, int64_t number);
void world_subscribe(struct storage_world *world, struct peer *peer, const char *channel);
struct call *world_publish(struct storage_world *world, struct peer *peer, const char *channel,
                           const char *text);

/* Everything published before has arrived when this returns. */
void world_drain(struct storage_world *world, struct peer *peer);

#define WORLD_TEST(function) cmocka_unit_test_setup_teardown(function, world_open, world_close)

#endif
