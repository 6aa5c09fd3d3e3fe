"""Patterns of topics: what they match and what the receipt says, what they may cost, and that no instance publishes past
one that is confirmed."""

import signal
import time

import pytest

from lib import FACES, Broker, Cluster, CommandError, StructuredClient, wait_until

OPTIONS = {"patterns_limit": "4", "pattern_tokens": "5", "max_patterns": "12"}

both = pytest.mark.parametrize("face", FACES)
json = pytest.mark.parametrize("face", ["json"])

# Of a pattern, what it matches and what it doesn't; {n} is the test's own first token.
RECEIPTS = [
    ("{n}.*", ["{n}.a", "{n}.>x"], ["{n}", "{n}.a.b", "{n}.", "{n}.a.", "{n}..", "x{n}.a"]),
    ("{n}.>", ["{n}.a", "{n}.a.b", "{n}.a.", "{n}.a..b"], ["{n}", "{n}.", "{n}..a"]),
    ("{n}.a.*", ["{n}.a.b"], ["{n}.a", "{n}.b.b", "{n}.a.", "{n}.a.b.c"]),
    ("{n}..*", ["{n}..a"], ["{n}.a.a", "{n}.a", "{n}.."]),
    ("{n}.*.c.>", ["{n}.x.c.d"], ["{n}..c.d", "{n}.x.c.", "{n}.x.c"]),
]


@json
@pytest.mark.parametrize("pattern, heard, others", RECEIPTS, ids=[row[0] for row in RECEIPTS])
def test_a_receipt_says_what_is_delivered(connect, face, name, pattern, heard, others):
    """Empty tokens too, and on every storage the same."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    client.call("subscribe", topic=pattern.replace("{n}", name))
    for topic in heard + others:
        topic = topic.replace("{n}", name)
        receipt = "delivered" if topic.replace(name, "{n}") in heard else "absent"
        assert publisher.call("publish", topic=topic, text=topic) == {"receipt": receipt}, topic
        if receipt == "delivered":
            assert client.message()["text"] == topic
    client.expect_nothing()


@json
def test_all_that_is_published_comes_in_order(connect, face, name):
    """Stored, with a key, or plain: one sender, one topic."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    client.call("subscribe", topic=f"{name}.>")
    kinds = ({}, {"store": True}, {"key": "k"}, {"store": True, "ttl": 60000})
    publisher.post_all([("publish", {"topic": f"{name}.a", "data": i,
                                     **({"key": f"k{i}"} if "key" in (kind := kinds[i % 4]) else kind)})
                        for i in range(200)])
    messages = [client.message() for _ in range(200)]
    assert [message["data"] for message in messages] == list(range(200))
    assert all(("offset" in message) == (i % 4 in (1, 3)) for i, message in enumerate(messages))
    client.expect_nothing()


@json
def test_the_outcome_under_a_key_knows_of_patterns(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    client.call("subscribe", topic=f"{name}.*")
    for _ in range(2):
        assert publisher.call("publish", topic=f"{name}.a", text="once", key="k")["receipt"] == "delivered"
    assert client.message()["text"] == "once"
    client.expect_nothing()


@json
def test_a_confirmed_pattern_misses_nothing(connect, face, name):
    """Each has a first token that nobody held before."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    for i in range(100):
        client.call("subscribe", topic=f"{name}x{i}.*")
        assert publisher.call("publish", topic=f"{name}x{i}.a", data=i) == {"receipt": "delivered"}
        assert client.message()["data"] == i
        client.call("unsubscribe", topic=f"{name}x{i}.*")


# ---- limits


@both
def test_patterns_of_a_session(connect, peers, face, name):
    client = connect(0, "/connect", face)
    before = peers(0).metrics()["switchboard_patterns_refused_limit_total"]
    for i in range(4):
        client.call("subscribe", topic=f"{name}.{i}.*")
    error = client.fails("subscribe", topic=f"{name}.more.*")
    assert (error.name, "patterns_limit" in error.text) == ("limit", True)
    assert peers(0).metrics()["switchboard_patterns_refused_limit_total"] == before + 1
    client.call("subscribe", topic=f"{name}.0.*")  # one that it has
    client.call("subscribe", topic=f"{name}.plain")
    client.call("unsubscribe", topic=f"{name}.1.*")
    client.call("subscribe", topic=f"{name}.more.*")


@both
def test_tokens_of_a_pattern(connect, peers, face, name):
    client = connect(0, "/connect", face)
    client.call("subscribe", topic=f"{name}.2.3.4.>")
    error = client.fails("subscribe", topic=f"{name}.2.3.4.5.>")
    assert (error.name, "pattern_tokens" in error.text) == ("too_large", True)
    client.call("subscribe", topic=f"{name}.2.3.4.5.6.7.8")  # names may be as deep as they like
    assert peers(0).metrics()["switchboard_patterns_refused_tokens_total"] >= 1


@both
@pytest.mark.parametrize("pattern", ["*", ">", "*.a", "*.>"])
def test_no_pattern_begins_with_a_wildcard(connect, peers, face, pattern):
    client = connect(0, "/connect", face)
    error = client.fails("subscribe", topic=pattern)
    assert (error.name, "wildcards" in error.text) == ("forbidden", True)
    client.call("subscribe", topic=">.a")  # there it is an ordinary token
    assert peers(0).metrics()["switchboard_patterns_refused_wild_total"] >= 1


@json
def test_patterns_of_an_instance(connect, peers, face, name):
    clients = [connect(0, "/connect", face) for _ in range(5)]
    wait_until(lambda: peers(0).metrics()["switchboard_patterns"] == 0, "those of former tests are gone")
    for number, client in enumerate(clients[:3]):
        for i in range(4):
            client.call("subscribe", topic=f"{name}.{number}.{i}.*")
    assert peers(0).metrics()["switchboard_patterns"] == peers(0).stats()["patterns"] == 12
    assert clients[3].fails("subscribe", topic=f"{name}.more.*").name == "limit"
    assert peers(0).metrics()["switchboard_patterns_refused_full_total"] >= 1
    clients[3].call("subscribe", topic=f"{name}.0.0.*")  # one that somebody has costs no more
    clients[0].call("unsubscribe", topic=f"{name}.0.1.*")
    clients[4].call("subscribe", topic=f"{name}.more.*")


# ---- on Redis


@pytest.fixture(scope="module")
def cluster():
    with Cluster(2, args=["--wildcards"], lease="2s", heartbeat="300ms") as cluster:
        yield cluster


@pytest.fixture
def clients(cluster):
    opened = []

    def connect(broker, path="/connect"):
        opened.append(StructuredClient(broker.ws(path)))
        return opened[-1]

    yield connect
    for client in opened:
        client.abort()


def members(redis, broker):
    return redis.client.smembers("sb:instance:{%s}:patterns" % broker.instance)


def test_redis_compares_nothing(cluster, clients, name):
    """Redis knows no pattern, and an unrelated message goes to nobody."""
    client = clients(cluster[0])
    for i in range(60):
        client.call("subscribe", topic=f"{name}.{i}.*")
    client.call("subscribe", topic=f"*.{name}")
    redis = cluster.redis.client
    assert redis.info("stats")["pubsub_patterns"] == redis.pubsub_numpat() == 0
    assert redis.pubsub_numsub("sb:pattern:{%s}" % name, "sb:pattern:{*}") == [
        ("sb:pattern:{%s}" % name, 1), ("sb:pattern:{*}", 1)]
    before = redis.info("commandstats")["cmdstat_publish"]["calls"]
    publisher = clients(cluster[1])
    for i in range(50):
        publisher.call("publish", topic=f"{name}.none.of.them", text="x")
        publisher.call("publish", topic=f"other{i}.x", text="x")
    calls = redis.info("commandstats")["cmdstat_publish"]["calls"] - before
    assert 100 <= calls < 150, "one PUBLISH a message, and what heartbeats cost"


def test_keys_and_channels(cluster, clients, name):
    """What operators find, as docs/operations.md says."""
    one, redis = clients(cluster[0]), cluster.redis
    one.call("subscribe", topic=f"{name}.a b.*")
    one.call("subscribe", topic=f"{name}.>")
    assert {f"{name}.a%20b.*", f"{name}.>"} <= members(redis, cluster[0])
    one.call("unsubscribe", topic=f"{name}.>")
    wait_until(lambda: f"{name}.>" not in members(redis, cluster[0]), "the set follows")
    one.abort()
    wait_until(lambda: redis.client.pubsub_numsub("sb:pattern:{%s}" % name)[0][1] == 0, "nobody listens")


def test_an_operator_publishes(cluster, clients, name):
    client, redis = clients(cluster[0]), cluster.redis.client
    client.call("subscribe", topic=f"{name}.*")
    assert redis.publish("sb:topic:{%s.a}" % name, "not for patterns") == 0
    assert redis.publish("sb:pattern:{%s}" % name, f"{name}.a hello there") == 1
    message = client.message()
    assert (message["to"], message["text"]) == (f"topic:{name}.a", "hello there")
    for nonsense in ("", " ", f"{name}.a", "other.a hello", " hello", "x" * 5000, b"\x99\x01\x02", f"{name}.a.b no"):
        redis.publish("sb:pattern:{%s}" % name, nonsense)
        redis.publish("sb:patterns", nonsense)
        redis.publish("sb:instance:{%s}" % cluster[0].instance, b"heard " + str(nonsense).encode())
    redis.publish("sb:patterns", "ghost 18446744073709551616 +a.*")
    redis.publish("sb:patterns", f"ghost 1 +{'a' * 3000}.* -{name}.* + - +no_pattern")
    redis.publish("sb:patterns", "ghost 0 !")
    client.expect_nothing()
    assert clients(cluster[1]).call("publish", topic=f"{name}.a", text="works") == {"receipt": "delivered"}
    assert client.message()["text"] == "works"


def test_somebody_watches(cluster, clients, name):
    """redis-cli on the channel of changes never confirms one, and holds nobody up."""
    watcher = cluster.redis.client.pubsub()
    watcher.subscribe("sb:patterns")
    wait_until(lambda: cluster.redis.client.pubsub_numsub("sb:patterns")[0][1] == 3, "it watches")
    client, publisher = clients(cluster[0]), clients(cluster[1])
    began = time.monotonic()
    for i in range(10):
        client.call("subscribe", topic=f"{name}{i}.*")
        assert publisher.call("publish", topic=f"{name}{i}.a", text="x") == {"receipt": "delivered"}
    assert time.monotonic() - began < 1, "it didn't wait for a heartbeat each time"
    watcher.close()


def test_both_kinds_of_pattern(cluster, clients, name):
    """Once for each subscription, and each only once."""
    client, publisher = clients(cluster[0]), clients(cluster[1])
    for topic in (f"{name}.a", f"{name}.*", f"*.a", f"{name}.>"):
        client.call("subscribe", topic=topic)
    assert publisher.call("publish", topic=f"{name}.a", text="four") == {"receipt": "delivered"}
    assert publisher.call("publish", topic=f"{name}.a", text="stored", store=True)["receipt"] == "delivered"
    assert sorted(client.payloads(8)) == ["four"] * 4 + ["stored"] * 4
    client.expect_nothing()


def test_a_newcomer_knows_them(cluster, clients, name):
    client = clients(cluster[0])
    client.call("subscribe", topic=f"{name}.*")
    with Broker(cluster.redis, heartbeat="300ms", lease="2s") as late:
        publisher = StructuredClient(late.ws("/connect"))
        assert publisher.call("publish", topic=f"{name}.a", text="hi") == {"receipt": "delivered"}
        assert client.message()["text"] == "hi"
        publisher.abort()


def test_whoever_dies_takes_them_along(cluster, clients, name):
    publisher = clients(cluster[1])
    clients(cluster[1]).call("subscribe", topic=f"{name}.b")
    with Broker(cluster.redis, heartbeat="300ms", lease="2s") as victim:
        client = StructuredClient(victim.ws("/connect"))
        client.call("subscribe", topic=f"{name}.*")
        assert publisher.call("publish", topic=f"{name}.a", text="x") == {"receipt": "delivered"}
        assert members(cluster.redis, victim)
        victim.kill()
        client.abort()
        wait_until(lambda: publisher.call("publish", topic=f"{name}.a") == {"receipt": "absent"}, "nobody is there", 1)
        wait_until(lambda: not members(cluster.redis, victim), "it is reaped", 4)


def test_whoever_leaves_takes_them_along(cluster, clients, name):
    with Broker(cluster.redis, heartbeat="300ms", lease="2s") as leaver:
        client = StructuredClient(leaver.ws("/connect"))
        client.call("subscribe", topic=f"{name}.*")
        leaver.stop()
        assert not members(cluster.redis, leaver)
    assert clients(cluster[1]).call("publish", topic=f"{name}.a") == {"receipt": "absent"}


def test_the_same_id_again(cluster, clients, name):
    """A new process under a known id holds nothing of the former's."""
    broker = Broker(cluster.redis, heartbeat="300ms", lease="1s")
    publisher, other = clients(cluster[1]), clients(cluster[0])
    other.call("subscribe", topic=f"{name}.other.>")
    with broker:
        client = StructuredClient(broker.ws("/connect"))
        client.call("subscribe", topic=f"{name}.*")
        broker.kill()
        client.abort()
        broker.start()
        assert not members(cluster.redis, broker)
        assert publisher.call("publish", topic=f"{name}.a") == {"receipt": "absent"}
        client = StructuredClient(broker.ws("/connect"))
        client.call("subscribe", topic=f"{name}.*")
        assert publisher.call("publish", topic=f"{name}.a", text="anew") == {"receipt": "delivered"}
        assert client.message()["text"] == "anew"
        client.abort()


def receipt(publisher, topic, **fields):
    """The receipt, or the error's name."""
    try:
        return publisher.call("publish", topic=topic, **fields)["receipt"]
    except CommandError as error:
        return error.name


def test_a_stopped_broker_holds_nobody_up_for_longer_than_its_lease(cluster, clients, name):
    client, publisher = clients(cluster[0]), clients(cluster[1])
    with Broker(cluster.redis, heartbeat="300ms", lease="2s") as sleeper:
        asleep, waiting = StructuredClient(sleeper.ws("/connect")), []
        for i in range(100):
            waiting.append(StructuredClient(sleeper.ws("/connect")))
        sleeper.signal(signal.SIGSTOP)
        for one in waiting:
            one.post("ping")  # so that their sockets are ready before the bus is
        began = time.monotonic()
        client.call("subscribe", topic=f"{name}.*")
        assert time.monotonic() - began < 4
        assert publisher.call("publish", topic=f"{name}.a", text="1") == {"receipt": "delivered"}
        assert client.message()["text"] == "1"
        # What waits for it when it wakes is told to come again, or arrives: it doesn't pass the pattern by.
        posted = [(one, one.post("publish", topic=f"{name}.a", text="waiting", **({"key": f"k{i}"} if i % 2 else {})))
                  for i, one in enumerate(waiting)]
        sleeper.signal(signal.SIGCONT)
        delivered = 0
        for one, number in posted:
            try:
                assert one.result(number) == {"receipt": "delivered"}
                delivered += 1
            except CommandError as error:
                assert error.name == "unavailable"
        assert client.payloads(delivered) == ["waiting"] * delivered
        client.expect_nothing()
        wait_until(lambda: receipt(asleep, f"{name}.b.none") == "absent", "it is awake")
        assert receipt(asleep, f"{name}.a", text="2") == "delivered"
        assert client.message()["text"] == "2"
        for one in [asleep, *waiting]:
            one.abort()


def test_redis_loses_all(cluster, clients, name):
    client = clients(cluster[0])
    client.call("subscribe", topic=f"{name}.*")
    cluster.redis.client.flushall()
    wait_until(lambda: f"{name}.*" in members(cluster.redis, cluster[0]), "it is written again")
    assert clients(cluster[1]).call("publish", topic=f"{name}.a", text="x") == {"receipt": "delivered"}
    assert client.message()["text"] == "x"


@pytest.mark.parametrize("victims", ["normal", "pubsub", "both"])
def test_connections_are_lost(cluster, clients, name, victims):
    """Of both brokers at once; what is published when both are up again arrives."""
    one, two = clients(cluster[0]), clients(cluster[1])
    one.call("subscribe", topic=f"{name}.*")
    two.call("subscribe", topic=f"{name}.>")
    counts = [broker.counter("storage_outages") for broker in cluster]
    for kind in ("normal", "pubsub") if victims == "both" else (victims,):
        cluster.redis.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    for broker, count in zip(cluster, counts):
        wait_until(lambda: broker.counter("storage_outages") > count and broker.readyz() == 200, "it is back")
    for publisher in (one, two):
        assert publisher.call("publish", topic=f"{name}.a", text="x") == {"receipt": "delivered"}
    for client in (one, two):
        assert client.payloads(2) == ["x", "x"]


def test_many_patterns_come_and_go(cluster, clients, name):
    """At full speed from many sessions, on both brokers; in the end nothing is left."""
    for _ in range(3):
        here = [clients(cluster[i % 2]) for i in range(8)]
        for number, client in enumerate(here):
            client.post_all([("subscribe", {"topic": f"{name}.{(number + i) % 64}.*"}) for i in range(60)])
        for client in here:
            client.call("publish", topic=f"{name}.{0}.x", text="x")
            client.abort()
    for broker in cluster:
        wait_until(lambda: not any(one.startswith(name) for one in members(cluster.redis, broker)), "the sets are empty")
    wait_until(lambda: clients(cluster[0]).call("publish", topic=f"{name}.0.x") == {"receipt": "absent"}, "nobody")
