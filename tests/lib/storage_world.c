#include "tests/lib/storage_world.h"

#include "proto/errors.h"
#include "storage/memory/storage_memory.h"
#include "storage/redis/storage_redis.h"
#include "tests/lib/await.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

bool world_on_redis, world_through_redis;
struct redis_fixture world_redis;
char world_prefix[32];
struct storage_limits world_limits;

bool world_begin(int argc, char **argv)
{
    world_on_redis = argc > 1 && strcmp(argv[1], "redis") == 0;
    return !world_on_redis || redis_fixture_start(&world_redis);
}

void world_end(void)
{
    if (world_on_redis)
        redis_fixture_kill(&world_redis);
}

int world_open(void **state)
{
    static unsigned tests;
    struct storage_world *world = calloc(1, sizeof *world);

    /* With what a pattern must not take for its own. */
    snprintf(world_prefix, sizeof world_prefix, "t[%u]*?\\:", ++tests);
    world_limits = (struct storage_limits){.history_bytes = 0};
    world->base = event_base_new();
    list_init(&world->calls);
    *state = world;
    return 0;
}

int world_close(void **state)
{
    struct storage_world *world = *state;
    int wrong = 0;

    for (size_t i = 0; i < WORLD_PEERS; i++)
        peer_close(&world->peers[i]);
    list_for_each (link, &world->calls) {
        struct call *call = container_of(link, struct call, link);
        if (call->done != 1 || call->inside) {
            print_error("a request was called back %u times%s\n", call->done,
                        call->inside ? ", from inside a call" : "");
            wrong = -1;
        }
    }
    calls_free(&world->calls);
    event_base_free(world->base);
    free(world);
    return wrong;
}

struct storage *world_storage(struct event_base *base)
{
    const struct storage_redis_options options = {.host = "127.0.0.1",
                                                  .port = (uint16_t)world_redis.port,
                                                  .prefix = world_prefix,
                                                  .timeout_ms = 5000,
                                                  .backoff_max_ms = 100,
                                                  .always_through_redis = world_through_redis};

    return world_on_redis ? storage_redis_create(base, &options) : storage_memory_create(base);
}

struct peer *world_peer_with(struct storage_world *world, size_t index, uint32_t history_count,
                             uint64_t history_age_ms)
{
    static const char *const ids[WORLD_PEERS] = {"a1", "b2"};
    struct peer *peer = &world->peers[index];
    const struct storage_instance instance = {.id = ids[index],
                                              .host = "broker.example",
                                              .listen = "127.0.0.1:8080",
                                              .version = "1.2.3",
                                              .pid = getpid(),
                                              .started_at_ms = UINT64_C(1700000000123),
                                              .heartbeat_ms = WORLD_HEARTBEAT_MS,
                                              .lease_ms = WORLD_LEASE_MS,
                                              .history_count = history_count,
                                              .history_age_ms = history_age_ms,
                                              .limits = world_limits};
    struct storage *storage = world_storage(world->base);

    assert_non_null(storage);
    peer_start_as(peer, world->base, storage, &instance);
    AWAIT(world->base, peer->up_count);
    return peer;
}

struct peer *world_peer(struct storage_world *world, size_t index)
{
    return world_peer_with(world, index, 0, 0);
}

struct call *world_call(struct storage_world *world)
{
    return call_new(&world->calls);
}

void world_expect(struct storage_world *world, struct call *call, int error, int64_t number)
{
    AWAIT(world->base, call->done);
    assert_int_equal(call->error, error);
    assert_int_equal(call->number, number);
}

void world_subscribe(struct storage_world *world, struct peer *peer, const char *channel)
{
    struct call *call = world_call(world);

    CALL(call, storage_subscribe, peer->storage, slice_text(channel));
    world_expect(world, call, ERROR_NONE, 0);
}

struct call *world_publish(struct storage_world *world, struct peer *peer, const char *channel,
                           const char *text)
{
    struct call *call = world_call(world);

    CALL(call, storage_publish, peer->storage, slice_text(channel), slice_text(text));
    return call;
}

void world_drain(struct storage_world *world, struct peer *peer)
{
    size_t before = peer_count(peer, "user:{drain}", NULL);

    world_subscribe(world, peer, "user:{drain}");
    world_publish(world, peer, "user:{drain}", "drained");
    AWAIT(world->base, peer_count(peer, "user:{drain}", NULL) == before + 1);
}
