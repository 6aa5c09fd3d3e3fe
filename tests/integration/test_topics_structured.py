"""subscribe, unsubscribe and publish; wildcards; limits."""

import pytest

from lib import FACES, wait_until

OPTIONS = {"subscriptions_limit": "20", "args": ["--wildcards"]}

both = pytest.mark.parametrize("face", FACES)

# pattern, the names that match, the names that don't
MATRIX = [
    ("a.*", ["a.b", "a.longer", "a.*x"], ["a", "a.b.c", "b.a", "ab", "ab.c"]),
    ("a.>", ["a.b", "a.b.c", "a.b.c.d.e"], ["a", "ab", "b.a", "ab.c"]),
    ("*.b", ["a.b", "x.b"], ["b", "a.b.c", "a.c"]),
    ("a.*.c", ["a.b.c", "a.x.c"], ["a.c", "a.b.b.c", "a.b.c.d"]),
    ("a.*.*", ["a.b.c"], ["a.b", "a.b.c.d"]),
    ("a.*.>", ["a.b.c", "a.b.c.d"], ["a.b", "b.b.c"]),
    ("*", ["lonely", "x"], ["x.y"]),
    ("*.*", ["x.y"], ["x", "x.y.z"]),
    (">", ["x", "x.y", "x.y.z"], []),
    ("新.*", ["新.闻"], ["新", "闻.新"]),
]


@both
def test_subscribed_is_subscribed(connect, face, name):
    """What is published after the reply arrives, and nothing after the reply to unsubscribe."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    assert publisher.call("publish", topic=name, text="too early") == {"receipt": "absent"}
    for i in range(10):
        assert client.call("subscribe", topic=name) == {"topic": name}
        assert publisher.call("publish", topic=name, data=i) == {"receipt": "delivered"}
        message = client.message()
        assert (message["to"], message["from"], message["data"]) == (f"topic:{name}", publisher.session, i)
        assert client.call("unsubscribe", topic=name) == {}
        publisher.call("publish", topic=name, text="too late")
    client.expect_nothing()


@both
def test_unsubscribing_at_full_speed(connect, face, name):
    """Whatever is in the pipe: no message comes after the reply."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    for _ in range(20):
        client.call("subscribe", topic=name)
        publisher.post_all([("publish", {"topic": name, "text": "x" * 100})] * 20)
        client.message()
        client.call("unsubscribe", topic=name)
        client.take()
        publisher.barrier()
        publisher.call("publish", topic=name)
        client.expect_nothing()


@both
def test_unsubscribing_what_is_not_subscribed(connect, face, name):
    client = connect(0, "/connect", face)
    assert client.call("unsubscribe", topic=name) == client.call("unsubscribe", topic=f"{name}.*") == {}


@both
def test_the_publisher_hears_itself(connect, face, name):
    client = connect(0, "/connect", face)
    client.call("subscribe", topic=name)
    assert client.call("publish", topic=name, text="me")["receipt"] == "delivered"
    assert client.message()["from"] == client.session


@both
def test_subscribed_twice_arrives_once(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    for _ in range(3):
        client.call("subscribe", topic=name)
        client.call("subscribe", topic=f"{name}*.x")
    publisher.call("publish", topic=name, text="once")
    assert client.message()["text"] == "once"
    client.expect_nothing()
    client.call("unsubscribe", topic=name)
    assert publisher.call("publish", topic=name) == {"receipt": "absent"}


@both
def test_resubscribing_in_the_stream_loses_nothing(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    client.call("subscribe", topic=name)
    sent = 0
    for _ in range(20):
        publisher.post_all([("publish", {"topic": name, "data": sent + i}) for i in range(10)])
        sent += 10
        client.call("subscribe", topic=name)
    assert client.payloads(sent, "data") == list(range(sent))
    client.expect_nothing()


@both
def test_once_per_subscription_that_matches(connect, face, name):
    """Two patterns and the name itself."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    for topic in (f"{name}.a", f"{name}.*", f"{name}.>"):
        client.call("subscribe", topic=topic)
    publisher.call("publish", topic=f"{name}.a", text="thrice")
    publisher.call("publish", topic=f"{name}.a.b", text="once")
    assert client.payloads(4) == ["thrice"] * 3 + ["once"]
    client.expect_nothing()


@both
@pytest.mark.parametrize("pattern, matching, others", MATRIX, ids=[one[0] for one in MATRIX])
def test_wildcards(connect, face, name, pattern, matching, others):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    # Patterns that begin with a wildcard hear everything of this file; so the names are this test's own elsewhere.
    own = "" if pattern[0] in "*>" else name + "."
    assert client.call("subscribe", topic=own + pattern) == {"topic": own + pattern}
    for topic in matching + others:
        if "*" not in topic:
            publisher.call("publish", topic=own + topic, text=own + topic)
    wanted = [own + topic for topic in matching if "*" not in topic]
    messages = [client.message() for _ in wanted]
    assert [message["text"] for message in messages] == wanted
    assert [message["to"] for message in messages] == ["topic:" + topic for topic in wanted]
    client.call("unsubscribe", topic=own + pattern)
    publisher.call("publish", topic=own + matching[0])
    client.expect_nothing()


@both
def test_a_pattern_confirmed_counts_as_a_receiver(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    client.call("subscribe", topic=f"{name}.>")
    assert publisher.call("publish", topic=f"{name}.x.y") == {"receipt": "delivered"}
    assert publisher.call("publish", topic=name) == {"receipt": "absent"}


@both
@pytest.mark.parametrize("topic", ["a.*", "*", "a.>", ">"])
def test_nobody_publishes_to_a_pattern(connect, face, topic):
    client = connect(0, "/connect", face)
    assert client.fails("publish", topic=topic).name == "bad_request"
    assert client.fails("send", to=f"topic:{topic}").name == "bad_request"


@both
@pytest.mark.parametrize("topic", ["a*", "a.b*", "a.>.b", "a>", "..", "a..b"])
def test_stars_inside_of_tokens_are_ordinary(connect, face, name, topic):
    """A wildcard is a whole token, and > the last one."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    topic = f"{name}.{topic}"
    client.call("subscribe", topic=topic)
    assert publisher.call("publish", topic=topic, text="itself") == {"receipt": "delivered"}
    assert client.message()["text"] == "itself"


@both
def test_no_more_topics_than_the_limit(connect, face, name):
    client = connect(0, "/connect", face)
    limit = client.hello["limits"]["subscriptions"]
    assert limit == 20
    for i in range(limit):
        client.call("subscribe", topic=f"{name}.{i}" if i % 2 else f"{name}.{i}.*")
    error = client.fails("subscribe", topic=f"{name}.more")
    assert error.name == "limit" and error.retry
    client.call("subscribe", topic=f"{name}.1")
    client.call("unsubscribe", topic=f"{name}.1")
    client.call("subscribe", topic=f"{name}.more")
    client.call("publish", topic=f"{name}.more", text="works")
    assert client.message()["text"] == "works"


@both
def test_each_publisher_is_heard_in_order_by_everybody(connect, face, name):
    clients = [connect(i, "/connect", face) for i in range(4)]
    for client in clients:
        client.call("subscribe", topic=name)
    for number, client in enumerate(clients):
        client.post_all([("publish", {"topic": name, "data": [number, i]}) for i in range(100)])
    for client in clients:
        heard = client.payloads(400, "data")
        for number in range(4):
            assert [i for who, i in heard if who == number] == list(range(100))
        client.expect_nothing()


@both
def test_the_route_of_a_topic_and_the_command_are_one(connect, connect_plain, face, name):
    plain, client = connect_plain(0, f"/topics/{name}"), connect(1, "/connect", face)
    client.call("subscribe", topic=name)
    plain.send("by URL")
    assert plain.recv() == client.message()["text"] == "by URL"
    client.call("publish", topic=name, text="by command")
    assert plain.recv() == client.message()["text"] == "by command"


@both
def test_whoever_left_is_no_receiver(connect, face, name):
    publisher = connect(0, "/connect", face)
    for end in ("close", "abort"):
        client = connect(1, "/connect", face)
        client.call("subscribe", topic=name), client.call("subscribe", topic=f"{name}.*")
        getattr(client, end)()
        for topic in (name, f"{name}.x"):
            wait_until(lambda: publisher.call("publish", topic=topic) == {"receipt": "absent"}, "nobody is there")
