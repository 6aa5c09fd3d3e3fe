"""A Redis without room, or that refuses writes, is told of at once, and hurts nobody for longer than it lasts."""

import os
import time

import pytest

from lib import FACES, Broker, CommandError, RedisServer, StructuredClient, wait_until

BIG = "x" * 60000
FAST = {"heartbeat": "200ms", "lease": "600ms"}


def readiness(broker):
    answer = broker.api("/readyz", expect=None)
    return answer.status, answer.text


def fill(redis, spare=0):
    """From now on Redis has so many bytes left."""
    redis.client.config_set("maxmemory", redis.client.info("memory")["used_memory"] + spare)


def relieve(redis):
    redis.client.config_set("maxmemory", 0)


def store_until_refused(client, topics=50):
    for i in range(5000):
        begun = time.monotonic()
        try:
            client.call("publish", topic=f"t{i % topics}", text=BIG, store=True)
        except CommandError as error:
            return error, time.monotonic() - begun
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize("face", FACES)
def test_stored_messages_stay_within_maxmemory(face):
    """Each store to an address that has none begins with what Redis checks; the sender is told why, and soon."""
    with RedisServer() as redis, Broker(redis=redis, **FAST) as broker, \
            StructuredClient(broker.ws("/connect?user=bob"), face) as client:
        fill(redis, 4 << 20)
        error, took = store_until_refused(client)
        assert (error.name, error.retry, error.text) == ("no_memory", True, "Redis has no memory left")
        assert took < 1
        info = redis.client.info("memory")
        assert info["used_memory"] < info["maxmemory"] + (1 << 20)
        for i in range(200):
            with pytest.raises(CommandError, match="no_memory"):
                client.call("send", to=f"session:new{i}", text=BIG, store=True)
        assert redis.client.info("memory")["used_memory"] < info["maxmemory"] + (1 << 20)
        assert broker.counter("publish_failed") >= 201
        assert broker.counter("stored_refused") == 0


def test_refused_is_neither_stored_nor_delivered_nor_remembered():
    """The same key succeeds once there is room: the refusal was not the outcome, and nothing came of it."""
    with RedisServer() as redis, Broker(redis=redis, **FAST) as broker, \
            StructuredClient(broker.ws("/connect")) as bob, StructuredClient(broker.ws("/connect")) as amy:
        amy.call("subscribe", topic="t")
        fill(redis)
        for fields in ({"store": True}, {"key": "k"}, {"store": True, "key": "k"}):
            with pytest.raises(CommandError, match="no_memory"):
                bob.call("publish", topic="t", text="refused", **fields)
        amy.expect_nothing()
        # What needs no memory goes on.
        assert bob.call("publish", topic="t", text="plain") == {"receipt": "delivered"}
        assert amy.message()["text"] == "plain"
        assert bob.call("history", address="topic:t")["messages"] == []
        relieve(redis)
        assert bob.call("publish", topic="t", text="taken", key="k") == {"receipt": "delivered"}
        assert amy.message()["text"] == "taken"


def test_readiness_says_that_memory_is_full_and_that_it_is_not():
    with RedisServer() as redis, Broker(redis=redis, instance="one", heartbeat="1m", lease="2m") as broker:
        assert readiness(broker) == (200, "ready\n")
        for _ in range(3):
            fill(redis)
            status, text = readiness(broker)
            assert status == 503 and text.startswith("not ready: ") and "OOM" in text
            relieve(redis)
            assert readiness(broker) == (200, "ready\n")
        assert len(broker.log("redis refuses writes")) == 3
        assert len(broker.log("redis takes writes again")) == 3


def test_a_lease_goes_on_while_memory_is_full():
    """Sessions stay where they are, and a dead broker's are removed, which makes room."""
    with RedisServer() as redis, Broker(redis=redis, instance="one", **FAST) as one:
        with Broker(redis=redis, instance="two", **FAST) as two, StructuredClient(one.ws("/connect?session=amy")) as amy:
            doomed = StructuredClient(two.ws("/connect?session=bob"))
            fill(redis)
            time.sleep(1.5)  # longer than a lease: time itself is what is tested here
            assert {row["instance"] for row in one.api("/v1/instances")["instances"]} == {"one", "two"}
            assert redis.client.exists("sb:session:{bob}") == 1
            two.kill()
            wait_until(lambda: redis.client.exists("sb:session:{bob}") == 0, "what the dead one left is gone")
            doomed.abort()
            assert redis.client.exists("sb:session:{amy}") == 1
            assert amy.call("ping")["time"]
            assert not one.log("registry lost this instance")


def test_a_name_is_not_lost_by_a_takeover_that_is_refused():
    with RedisServer() as redis, Broker(redis=redis, **FAST) as broker, \
            StructuredClient(broker.ws("/connect?session=bob")) as bob, StructuredClient(broker.ws("/connect")) as amy:
        before = redis.client.hgetall("sb:session:{bob}")
        fill(redis)
        late = StructuredClient(broker.ws("/connect?session=bob"), hello=False)
        assert late.wait_closed().code == 4000
        assert redis.client.hgetall("sb:session:{bob}") == before
        amy.call("send", to="session:bob", text="still here")
        assert bob.message()["text"] == "still here"
        relieve(redis)
        with StructuredClient(broker.ws("/connect?session=bob")) as again:
            amy.call("send", to="session:bob", text="new here")
            assert again.message()["text"] == "new here"


def misconf(redis):
    """A snapshot that can't be written, as on a full disk."""
    os.mkdir(os.path.join(redis.folder, "taken"))
    open(os.path.join(redis.folder, "taken", "file"), "w").close()
    redis.client.config_set("dbfilename", "taken")
    redis.client.config_set("save", "3600 1")
    redis.client.bgsave()
    wait_until(lambda: redis.client.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot failed")


def misconf_over(redis):
    redis.client.config_set("dbfilename", "free")
    redis.client.bgsave()
    wait_until(lambda: redis.client.info("persistence")["rdb_last_bgsave_status"] == "ok", "the snapshot is written")


REFUSALS = {
    "MISCONF": (misconf, misconf_over),
    "NOREPLICAS": (lambda redis: redis.client.config_set("min-replicas-to-write", 1),
                   lambda redis: redis.client.config_set("min-replicas-to-write", 0)),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_readiness_says_why_writes_are_refused(code):
    begin, end = REFUSALS[code]
    with RedisServer(enable_protected_configs="yes") as redis, Broker(redis=redis, instance="one", **FAST) as broker, \
            StructuredClient(broker.ws("/connect?session=bob")) as bob:
        begin(redis)
        status, text = readiness(broker)
        assert status == 503 and code in text
        with pytest.raises(CommandError, match="unavailable"):
            bob.call("publish", topic="t", text="x", store=True)
        end(redis)
        wait_until(lambda: readiness(broker) == (200, "ready\n"), "writes are taken again")
        bob.call("publish", topic="t", text="x", store=True)
        assert broker.log_wait("redis refuses writes")["reason"].startswith(code)


def test_a_replica_is_not_ready():
    with RedisServer() as redis, Broker(redis=redis, **FAST) as broker:
        redis.client.replicaof("127.0.0.1", "1")
        wait_until(lambda: readiness(broker)[0] == 503, "a replica takes no writes")
        assert "READONLY" in broker.log_wait("redis refuses writes")["reason"]
        redis.client.replicaof("no", "one")
        broker.ready()


# ---- limits of the configuration


LIMITS = {"sender_bytes": "64KiB", "sender_addresses": "3", "stored_addresses": "5"}


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_what_a_sender_may_store(storage):
    with RedisServer() as redis, Broker(**({"redis": redis} if storage == "redis" else {}), **LIMITS) as broker, \
            StructuredClient(broker.ws("/connect?user=bob")) as bob, StructuredClient(broker.ws("/connect?user=bob")) as other, \
            StructuredClient(broker.ws("/connect?user=eve")) as eve, StructuredClient(broker.ws("/connect")) as amy:
        amy.call("subscribe", topic="b")
        bob.call("publish", topic="a", text="x" * 40000, store=True)
        for one in (bob, other):
            with pytest.raises(CommandError) as refused:
                one.call("publish", topic="b", text="x" * 40000, store=True)
            assert (refused.value.name, refused.value.text) == ("limit", "what is stored has reached sender_bytes")
        amy.expect_nothing()
        eve.call("publish", topic="b", text="x" * 40000, store=True)
        assert len(amy.message()["text"]) == 40000
        for i in range(2):
            other.call("send", to=f"session:s{i}", text="x", store=True)
        with pytest.raises(CommandError, match="sender_addresses"):
            bob.call("send", to="session:s2", text="x", store=True)
        # All callers of the API are one sender.
        broker.api("/v1/send/session:s3?store=true", "POST", body="x")
        answer = broker.api("/v1/send/session:s4?store=true", "POST", body="x", expect=None)
        assert answer.status == 429 and answer.json["detail"] == "what is stored has reached stored_addresses"
        assert answer.json["name"] == "limit"
        lines = '{"id":1,"cmd":"send","to":"session:s4","text":"x","store":true}\n'
        assert broker.api("/v1/batch", "POST", body=lines, expect=None).json["error"]["name"] == "limit"
        assert broker.counter("stored_refused") == 5
        # What isn't stored is not counted.
        assert bob.call("send", to="session:s9", text="x") == {"receipt": "absent"}


# ---- idempotency keys


@pytest.mark.parametrize("storage", ["memory", "redis"])
@pytest.mark.parametrize("store", [False, True])
def test_somebody_elses_key_swallows_nothing(storage, store):
    with RedisServer() as redis, Broker(**({"redis": redis} if storage == "redis" else {})) as broker, \
            StructuredClient(broker.ws("/connect?user=eve")) as eve, StructuredClient(broker.ws("/connect?user=bob")) as bob, \
            StructuredClient(broker.ws("/connect?session=bob")) as namesake, StructuredClient(broker.ws("/connect")) as amy:
        amy.call("subscribe", topic="orders")
        order = {"topic": "orders", "key": "order-17", "store": store}
        eve.call("publish", text="junk", **order)
        first = bob.call("publish", text="real", **order)
        namesake.call("publish", text="mine", **order)
        path = f"/v1/publish/orders?store={'true' if store else 'false'}"
        broker.api(path, "POST", body="api", headers={"Idempotency-Key": "order-17"})
        assert amy.payloads(4) == ["junk", "real", "mine", "api"]
        # The same sender again, on another connection: answered with the first result.
        with StructuredClient(broker.ws("/connect?user=bob")) as again:
            assert again.call("publish", text="again", **order) == first
        broker.api(path, "POST", body="api again", headers={"Idempotency-Key": "order-17"})
        amy.expect_nothing()
        if storage == "redis":
            keys = set(redis.client.keys("sb:once:*"))
            assert keys == {f"sb:once:topic:{{orders}}:{sender}:order-17"
                            for sender in ("user:eve", "user:bob", "session:bob", "api")}
