"""A plain, a JSON and a MessagePack client talk to each other: all nine combinations, all three kinds of payload."""

import json
import re

import pytest

from lib.structured import payload_of

FACES = ("plain", "json", "msgpack")
TEXTS = ["hello", "", "新闻 🗞\n\"quoted\\\"\t", "x" * 70 * 1024]
BINARIES = [b"\x00\xff", b"", bytes(range(256)) * 300]
VALUES = [{"n": 7, "deep": [1, {"a": None}], "t": True, "ü": "🗞"}, [], {}, 0, -1, 1.5, "a string", None, False,
          [2 ** 63 - 1, -2 ** 63, 1e300, -0.25], "x" * 70000]
PAYLOADS = ([("text", one) for one in TEXTS] + [("binary", one) for one in BINARIES] + [("data", one) for one in VALUES])

sender_receiver = pytest.mark.parametrize("sender, receiver", [(a, b) for a in FACES for b in FACES])


@pytest.fixture
def enter(connect, connect_plain):
    """enter(i, face, path): a client of any face"""
    def enter_one(i, face, path):
        return connect_plain(i, path) if face == "plain" else connect(i, path, face)
    return enter_one


def say(client, face, name, kind, value):
    if face == "plain":
        client.send(value)
    else:
        assert client.call("publish", topic=name, **{kind: value})["receipt"] == "delivered"


def hear(client, face):
    if face == "plain":
        return client.recv()
    message = client.message()
    return payload_of(message)


@sender_receiver
def test_every_kind_arrives_as_what_it_was(enter, name, sender, receiver):
    source, target = enter(0, sender, f"/topics/{name}"), enter(1, receiver, f"/topics/{name}")
    for kind, value in PAYLOADS:
        if sender == "plain" and kind == "data":
            continue
        say(source, sender, name, kind, value)
        heard, wanted = hear(target, receiver), value if receiver == "plain" else (kind, value)
        if kind == "data" and receiver == "plain":
            assert json.loads(heard) == value
            assert not re.search(r"\s", re.sub(r'"(\\.|[^"\\])*"', "", heard)), "not compact"
        else:
            assert heard == wanted and type(heard) is type(wanted)
            if kind == "data" and receiver != "plain":
                assert type(heard[1]) is type(value)


@pytest.mark.parametrize("receiver", ["json", "msgpack"])
@pytest.mark.parametrize("sender", ["json", "msgpack"])
def test_no_payload_is_the_empty_text(connect, connect_plain, name, sender, receiver):
    source, target = connect(0, "/connect", sender), connect(1, f"/topics/{name}", receiver)
    plain = connect_plain(1, f"/topics/{name}")
    source.call("publish", topic=name)
    assert payload_of(target.message()) == ("text", "")
    assert plain.recv() == ""


@pytest.mark.parametrize("receiver", ["json", "msgpack"])
@pytest.mark.parametrize("sender", ["json", "msgpack"])
def test_numbers_keep_their_type(connect, name, sender, receiver):
    source, target = connect(0, "/connect", sender), connect(1, f"/connect?session={name}", receiver)
    for value in (1, 1.0, -1.0, 0, 0.0, 2 ** 53 + 1, 2 ** 62, 0.1, 1e-300):
        source.call("send", to=f"session:{name}", data=value)
        got = target.message()["data"]
        assert got == value and type(got) is type(value), (value, got)


@pytest.mark.parametrize("receiver", ["json", "msgpack"])
@pytest.mark.parametrize("sender", ["json", "msgpack"])
def test_questions_and_answers(connect, name, sender, receiver):
    """Plain clients are asked in test_requests.py, with a route for it."""
    asker = connect(0, "/connect", sender)
    target = connect(1, f"/connect?session={name}", receiver)
    for kind, value in PAYLOADS:
        number = asker.post("request", to=f"session:{name}", **{kind: value})
        request = target.push("request")
        assert payload_of(request) == (kind, value)
        assert target.call("reply", request=request["request"], **{kind: value}) == {}
        ok = asker.result(number)
        assert payload_of({key: ok[key] for key in ok if key != "from"}) == (kind, value)
        assert ok["from"] == f"session:{name}"


@pytest.mark.parametrize("face", ["json", "msgpack"])
def test_a_plain_user_route_tells_who_spoke(connect, connect_plain, face, name):
    plain, structured = connect_plain(0, f"/websocket/{name}"), connect(1, f"/websocket/{name}", face)
    plain.send("hi")
    message = structured.message()
    assert (message["text"], message["to"]) == (f"{name}:hi", f"user:{name}")
    assert message["from"].startswith(f"session:{name}~")
    assert plain.recv() == f"{name}:hi"
    structured.call("send", to=f"user:{name}", text="bare")
    assert plain.recv() == "bare"
    assert structured.message()["from"] == structured.session


@pytest.mark.parametrize("face", ["json", "msgpack"])
def test_an_operators_text_has_no_sender(peers, connect, face, name, request):
    if "memory" in request.node.callspec.id:
        pytest.skip("there is no Redis")
    client = connect(0, f"/connect?session={name}", face)
    import redis
    url = next(word for word in peers(0).command if word.startswith("redis://"))
    with redis.Redis.from_url(url) as server:
        assert server.publish(f"sb:session:{{{name}}}", "from an operator") == 1
    message = client.message()
    assert message["text"] == "from an operator" and "from" not in message and message["to"] == f"session:{name}"
