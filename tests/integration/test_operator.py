"""Redis as a public interface: with redis-cli alone, an operator lists, inspects, counts and reaches every session."""

import datetime
import re

import msgpack
import pytest

from lib import Broker, Cluster, wait_until


@pytest.fixture(scope="module")
def two():
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nobody_there(two):
    yield
    wait_until(lambda: two[0].stats()["online"] == 0, "all of this test are gone")


def cli(two, *words):
    return two.redis.cli(*words)


def table(text):
    """redis-cli's output of a hash: names and values in turn."""
    lines = text.split("\n")
    return dict(zip(lines[::2], lines[1::2]))


def is_recent(iso):
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", iso), iso
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(iso.replace("Z", "+00:00"))
    return datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)


# ---- reading


def test_a_session_is_a_readable_hash(two):
    with two[0].connect("/websocket/userSever/8080", headers={"User-Agent": "test/1.0"}) as client:
        shown = table(cli(two, "HGETALL", "sb:session:{userSever_8080}"))
        assert set(shown) == {"conn", "instance", "route", "user", "face", "remote", "agent", "connected_at"}
        assert re.fullmatch(r"[0-9a-z]{8,}", shown["conn"])
        assert shown["instance"] == two[0].instance
        assert shown["route"] == "/websocket/{relationId}/{userCode:int}"
        assert shown["user"] == ""
        assert shown["face"] == "plain"
        assert shown["remote"] == f"127.0.0.1:{client.local_port}"
        assert shown["agent"] == "test/1.0"
        assert is_recent(shown["connected_at"])


def test_a_users_sessions(two):
    with two[0].connect("/websocket/bob"), two[1].connect("/websocket/bob"):
        sessions = table(cli(two, "HGETALL", "sb:user:{bob}"))
        assert sorted(sessions.values()) == sorted(broker.instance for broker in two)
        for name, instance in sessions.items():
            shown = table(cli(two, "HGETALL", "sb:session:{%s}" % name))
            assert name == f"bob~{shown['conn']}"
            assert (shown["user"], shown["instance"]) == ("bob", instance)
    wait_until(lambda: cli(two, "EXISTS", "sb:user:{bob}") == "0", "the user is gone with the last session")


def test_conns_are_never_used_again(two):
    seen = set()
    for i in range(20):
        with two[i % 2].connect("/websocket/a/1"):
            seen.add(cli(two, "HGET", "sb:session:{a_1}", "conn"))
    assert len(seen) == 20


def test_instances(two):
    with two[0].connect("/websocket/bob"), two[0].connect("/websocket/a/1"), two[1].connect("/websocket/a/2"):
        listed = cli(two, "ZRANGE", "sb:instances", "0", "-1", "WITHSCORES").split("\n")
        assert sorted(listed[::2]) == sorted(broker.instance for broker in two)
        now = int(cli(two, "TIME").split("\n")[0]) * 1000
        assert all(abs(now - float(score)) < 10_000 for score in listed[1::2])
        for broker, names in ((two[0], 2), (two[1], 1)):
            key = "sb:instance:{%s}" % broker.instance
            wait_until(lambda: cli(two, "HGET", key, "sessions") == str(names), "the heartbeat brings the count")
            shown = table(cli(two, "HGETALL", key))
            assert set(shown) == {"host", "pid", "listen", "version", "started_at", "sessions", "heartbeat_at"}
            assert shown["pid"] == str(broker.pid)
            assert shown["listen"] == f"127.0.0.1:{broker.port}"
            assert shown["version"] == broker.stats()["version"]
            assert shown["host"]
            assert is_recent(shown["started_at"]) and is_recent(shown["heartbeat_at"])
        members = cli(two, "SMEMBERS", "sb:instance:{%s}:sessions" % two[0].instance).split("\n")
        assert "a_1" in members and len(members) == 2 and any(name.startswith("bob~") for name in members)


def test_a_stopped_instance_leaves_nothing(two):
    with Broker(redis=two.redis) as three:
        client = three.connect("/websocket/bob")
        assert cli(two, "ZCARD", "sb:instances") == "3"
    client.abort()
    assert not [key for key in cli(two, "KEYS", "sb:*").split("\n") if three.instance in key]
    assert three.instance not in cli(two, "ZRANGE", "sb:instances", "0", "-1")


def test_names_are_percent_encoded_where_keys_would_suffer(two):
    with two[0].connect("/websocket/a%20%7Bb%7D%25c/1") as keyed, two[1].connect("/websocket/%E7%8E%8B%20x") as user:
        assert cli(two, "EXISTS", "sb:session:{a%20%7Bb%7D%25c_1}") == "1"
        assert cli(two, "PUBLISH", "sb:session:{a%20%7Bb%7D%25c_1}", "found") == "1"
        assert keyed.recv() == "found"
        assert cli(two, "PUBLISH", "sb:user:{王%20x}", "你好") == "1"
        assert user.recv() == "你好"
        # The hash tag is the name: the braces in it are encoded.
        key = re.compile(r"sb:(instances|instance:\{[^{}\s]+\}(:sessions)?|(session|user):\{[^{}\s]+\})")
        assert not [found for found in cli(two, "KEYS", "sb:*").split("\n") if not key.fullmatch(found)]


# ---- reaching


@pytest.mark.parametrize("text", ["hello", "你好 🙂", "with \"quotes\" and \\ backslash", "{\"json\": [1]}", " leading space", "x" * 70000],
                         ids=["ascii", "unicode", "quotes", "json", "space", "70KB"])
def test_text_reaches_a_session(two, text):
    for broker in two:
        with broker.connect("/websocket/userSever/8080") as client:
            assert cli(two, "PUBLISH", "sb:session:{userSever_8080}", text) == "1"
            assert client.recv() == text
            client.expect_nothing()


def test_the_empty_text_too(two):
    with two[0].connect("/websocket/userSever/8080") as client:
        assert cli(two, "PUBLISH", "sb:session:{userSever_8080}", "") == "1"
        assert client.recv() == ""


def test_text_reaches_all_sessions_of_a_user(two):
    with two[0].connect("/websocket/bob") as one, two[1].connect("/websocket/bob") as other, \
            two[1].connect("/websocket/alice") as alice:
        assert cli(two, "PUBLISH", "sb:user:{bob}", "good morning") == "2"
        assert one.recv() == other.recv() == "good morning"
        alice.expect_nothing()


def test_text_reaches_one_session_of_a_user(two):
    with two[0].connect("/websocket/bob") as one:
        name = cli(two, "HKEYS", "sb:user:{bob}")
        with two[0].connect("/websocket/bob") as other:
            assert cli(two, "PUBLISH", "sb:session:{%s}" % name, "just you") == "1"
            assert one.recv() == "just you"
            other.expect_nothing()


def test_text_reaches_a_topic(two):
    with two[0].connect("/topics/news") as one, two[1].connect("/topics/news") as other:
        assert cli(two, "PUBLISH", "sb:topic:{news}", "flash") == "2"
        assert one.recv() == other.recv() == "flash"


def test_nobody_there_is_told(two):
    assert cli(two, "PUBLISH", "sb:session:{nobody_1}", "hello") == "0"


def test_bytes_that_are_no_text_arrive_as_binary(two):
    with two[0].connect("/websocket/userSever/8080") as client:
        two.redis.binary_client.publish("sb:session:{userSever_8080}", b"\xff\xfe\x00")
        assert client.recv() == b"\xff\xfe\x00"


def test_channels_show_who_is_subscribed(two):
    with two[0].connect("/websocket/bob"), two[1].connect("/websocket/bob"), two[0].connect("/topics/news"):
        channels = cli(two, "PUBSUB", "CHANNELS", "sb:*").split("\n")
        assert {"sb:user:{bob}", "sb:topic:{news}"} <= set(channels)
        assert {f"sb:instance:{{{broker.instance}}}" for broker in two} <= set(channels)
        assert cli(two, "PUBSUB", "NUMSUB", "sb:user:{bob}").split("\n") == ["sb:user:{bob}", "2"]
    wait_until(lambda: "sb:user:{bob}" not in cli(two, "PUBSUB", "CHANNELS", "sb:*"), "unsubscribed with the last session")


def publish_calls(two):
    return int(re.search(r"cmdstat_publish:calls=(\d+)", cli(two, "INFO", "commandstats"))[1])


def payload(envelope_bytes):
    return msgpack.unpackb(envelope_bytes, raw=False)[7].decode()


def test_listening_on_a_session_shows_what_it_gets(two):
    """From whichever broker the message comes; and the session gets it once. Only who begins to listen within 250 ms after a
    message may miss the next ones from the session's own broker."""
    with two[0].connect("/websocket/userSever/8080") as client, two[0].connect("/websocket/a/1") as here, \
            two[1].connect("/websocket/a/2") as there, two.redis.binary_client.pubsub() as watch:

        def send(sender, text):
            sender.send(text)
            assert client.recv() == text

        for number in range(10):
            send(here, f"early {number}")
        watch.subscribe("sb:session:{userSever_8080}")
        assert watch.get_message(timeout=10)["type"] == "subscribe"
        for number in range(20):
            send((here, there)[number % 2], f"late {number}")
        send(there, "end")
        seen = []
        while not seen or seen[-1] != "end":
            seen.append(payload(watch.get_message(timeout=10)["data"]))
        client.expect_nothing()
        assert len(seen) == len(set(seen))
        assert [text for text in seen if text[-1] in "13579"] == [f"late {number}" for number in range(1, 20, 2)]


def test_a_message_within_a_broker_does_not_wait_for_redis(two):
    with two[0].connect("/websocket/userSever/8080") as client, two[0].connect("/websocket/a/1") as sender:
        sender.send("first")
        # Only when both have come is nothing on its way through Redis.
        assert client.recv() and sender.recv()
        before, direct = publish_calls(two), two[0].counter("published_directly")
        for number in range(200):
            sender.send(str(number))
        assert len(client.recv_many(200)) == 200
        assert two[0].counter("published_directly") == direct + 200
        assert publish_calls(two) - before < 100


def test_direct_delivery_can_be_switched_off(two):
    with Cluster(1, args=["--direct-delivery=no"]) as cluster:
        with cluster[0].connect("/websocket/userSever/8080") as client, cluster[0].connect("/websocket/a/1") as sender:
            for number in range(20):
                sender.send(str(number))
                assert client.recv()
            assert cluster[0].counter("published_directly") == 0


# ---- what an operator can get wrong


def envelope(**changes):
    fields = {"version": 1, "id": "", "kind": 0, "from": "", "to": "session:userSever_8080", "time": 1, "content": 0,
              "payload": b"x", "correlation": "", **changes}
    return msgpack.packb(list(fields.values()), use_bin_type=True)


BROKEN = {
    "cut": envelope()[:-3], "one-byte": b"\x99", "empty-array": b"\x90", "too-few": msgpack.packb([1, "", 0]),
    "version-text": envelope(version="1"), "kind-99": envelope(kind=99), "kind-text": envelope(kind="data"),
    "kind-negative": envelope(kind=-1), "content-9": envelope(content=9),
    "payload-number": envelope(payload=7), "text-that-is-not-utf8": envelope(payload=b"\xff"), "to-number": envelope(to=5),
    "huge-claim": bytes.fromhex("9901a000a0a0" + "00" + "00" + "c6ffffffff"), "huge-array": b"\x99\xdd\xff\xff\xff\xff",
    "deep": b"\x91" * 1000, "too-large": envelope(payload=b"x" * (3 << 20))}


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_malformed_envelope_is_logged_and_dropped(two, broken):
    broker = two[0]
    with broker.connect("/websocket/userSever/8080") as client:
        before = broker.counter("bus_invalid")
        two.redis.binary_client.publish("sb:session:{userSever_8080}", BROKEN[broken])
        wait_until(lambda: broker.counter("bus_invalid") == before + 1, "it is counted")
        # One line a minute for each channel and reason.
        lines = broker.log("bus message dropped")
        assert all(line["level"] == "warn" and line["channel"] == "session:{userSever_8080}" for line in lines)
        assert len({line["reason"] for line in lines}) == len(lines) > 0
        cli(two, "PUBLISH", "sb:session:{userSever_8080}", "still here")
        assert client.recv() == "still here"
        client.expect_nothing()


def test_a_wellformed_envelope_is_delivered(two):
    with two[0].connect("/websocket/userSever/8080") as client:
        two.redis.binary_client.publish("sb:session:{userSever_8080}", envelope(payload="你好".encode()))
        two.redis.binary_client.publish("sb:session:{userSever_8080}", envelope(content=1, payload=b"\xff"))
        assert client.recv_many(2) == ["你好", b"\xff"]


def test_an_envelope_of_a_later_version_may_have_more_fields(two):
    with two[0].connect("/websocket/userSever/8080") as client:
        fields = msgpack.unpackb(envelope(payload=b"longer"), raw=False) + ["", "", 0, "new", {"in": "later"}]
        two.redis.binary_client.publish("sb:session:{userSever_8080}", msgpack.packb(fields, use_bin_type=True))
        assert client.recv() == "longer"


def test_kinds_that_are_not_for_clients_never_reach_one(two):
    """Takeover notices excepted, whatever is published under a session's name is data for it, or nothing."""
    with two[0].connect("/websocket/bob") as client:
        name = cli(two, "HKEYS", "sb:user:{bob}")
        for kind in (2, 5, 6):
            two.redis.binary_client.publish("sb:session:{%s}" % name, envelope(kind=kind))
        cli(two, "PUBLISH", "sb:session:{%s}" % name, "end")
        assert client.recv() == "end"


def test_nonsense_on_the_instances_own_channels_is_harmless(two):
    for channel in ("sb:instance:{%s}" % two[0].instance, "sb:control"):
        for nonsense in [b"", b"hello", b"\x99", b"\xff" * 100, *BROKEN.values()]:
            two.redis.binary_client.publish(channel, nonsense)
    for broker in two:
        broker.ready()
        with broker.connect("/echo") as client:
            client.send("hi")
            assert client.recv() == "hi"


def test_a_session_removed_by_hand_does_not_disconnect_the_client(two):
    with two[0].connect("/websocket/userSever/8080") as client:
        cli(two, "DEL", "sb:session:{userSever_8080}")
        assert cli(two, "PUBLISH", "sb:session:{userSever_8080}", "hello") == "1"
        assert client.recv() == "hello"


def test_another_prefix_is_another_world(two):
    with Cluster(1, redis=two.redis, prefix="other:", instance="elsewhere") as other:
        with two[0].connect("/websocket/bob") as here, other[0].connect("/websocket/bob") as there:
            assert cli(two, "PUBLISH", "other:user:{bob}", "there") == "1"
            assert there.recv() == "there"
            here.expect_nothing()
            assert cli(two, "HGET", "other:instance:{elsewhere}", "pid") == str(other[0].pid)
            assert other[0].stats()["online"] == 1 and two[0].stats()["online"] == 1
