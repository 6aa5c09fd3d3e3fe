"""Names: which a client may take, and that what can't be seen never gets far. And the query of a URL, which gives them."""

import urllib.parse

import pytest

from lib import ROOT, Broker, Cluster, RawWs, Refused, StructuredClient, WsClient, wait_until

quote = urllib.parse.quote

CONFIG = """
[route /hold/{name}]
address = session:{name}
on_message = publish topic:said-by-{name}

[route /hold/{first}/{second}]
address = session:{first}_{second}

[route /users/{uid}]
address = user:{uid}
on_message = publish session:{uid}
"""


@pytest.fixture(scope="module")
def one():
    with Broker(config=CONFIG) as broker:
        yield broker


@pytest.fixture(scope="module")
def pair():
    with Cluster(2, config=CONFIG) as cluster:
        yield cluster


def refusal(broker, path):
    """The sentence with which an upgrade is answered 400."""
    with pytest.raises(Refused) as refused:
        WsClient(broker.ws(path))
    assert refused.value.status == 400, path
    with RawWs(broker.port, path) as client:
        assert client.status == 400
        return client.body.decode()


# ---- ~


@pytest.mark.parametrize("path", ["/connect?session={}", "/hold/{}", "/hold/x/{}", "/hold/{}/x", "//hold/{}"])
@pytest.mark.parametrize("tilde", ["~", "%7E", "%7e"])
def test_nobody_takes_a_shared_session_over(pair, name, path, tilde):
    """The name is told to everybody, by presence and in `from`."""
    watcher = StructuredClient(pair[0].ws("/connect"))
    with watcher, StructuredClient(pair[0].ws(f"/connect?user={name}")) as bob:
        bob.call("subscribe", topic=name, presence=True)
        wait_until(lambda: watcher.call("presence", address=f"topic:{name}")["count"] == 1, "bob is present")
        seen = watcher.call("presence", address=f"topic:{name}")["sessions"][0]["session"]
        assert seen == bob.hello["session"] and "~" in seen
        for broker in pair:
            assert "~ is reserved" in refusal(broker, path.format(seen.replace("~", tilde)))
        for broker in pair:
            hashed = broker.api(f"/v1/sessions/{quote(seen)}")
            assert hashed["conn"] == bob.hello["conn"] and hashed["user"] == name
        with StructuredClient(pair[1].ws("/connect")) as sender:
            assert sender.call("send", to=f"session:{seen}", text="yours")["receipt"] == "delivered"
        assert bob.message()["text"] == "yours"
        bob.expect_nothing()


def test_a_tilde_stays_allowed_elsewhere(one):
    with one.connect("/users/a~b") as client, StructuredClient(one.ws("/connect?user=a~b")) as other:
        assert other.hello["session"].startswith("a~b~")
        assert other.call("send", to="user:a~b", text="hi")["receipt"] == "delivered"
        assert client.recv() == "hi"


def test_a_route_can_not_give_such_a_name(tmp_path):
    broker = Broker(config="[route /x/{a}]\naddress = session:{a}~\n", wait=False).start()
    assert broker.wait() == 2
    assert any("~ is reserved" in line for line in broker.lines)


def test_the_script_replaces_no_shared_session(pair, name):
    """Whoever calls it, by whatever broker."""
    script, redis = (ROOT / "storage/redis/register.lua").read_text(), pair.redis.client
    with StructuredClient(pair[0].ws(f"/connect?user={name}")) as bob:
        session, conn = bob.hello["session"], bob.hello["conn"]
        key = f"sb:session:{{{session}}}"

        def register(notice, restore, by):
            return redis.eval(script, 1, key, notice, restore, by, "b9", "/x", "", "json", "r", "a",
                                      "2999-01-01T00:00:00.000Z")

        for notice in ("", "notice"):
            for restore in ("0", "1"):
                assert register(notice, restore, "thief") == [2]
        assert redis.hget(key, "conn") == conn
        assert redis.hget(key, "user") == name
        # A forged hash doesn't keep its owner from it.
        redis.hset(key, mapping={"conn": "thief", "connected_at": "3999-01-01T00:00:00.000Z"})
        assert register("", "1", conn) == [0]
        assert redis.hget(key, "conn") == conn


# ---- the query


WRONG = {
    "user=": '"user"', "session=": '"session"', "user": '"user"', "user=a&user=a": '"user"', "user=a&session=b": '"session"',
    "since=abc": '"since"', "since=e": '"since"', "since=:1-1": '"since"', "since=e:": '"since"', "since=e:x": '"since"',
    "since=&since=": '"since"', "x=1": '"x"', "user=a&x": '"x"', "user=%zz": '"user"', "user=%4": '"user"', "user=a&": "empty",
    "&user=a": "empty", "=": "empty", "User=a": '"User"', "user=%00": '"user"', "user=a%0d%0ab": '"user"', "user=%ff": '"user"',
    "user=" + "u" * 256: '"user"', "session=" + "%41" * 256: '"session"', "user=" + "u" * 2000: '"user"',
    "user=%E2%80%AE": '"user"', "session=bob~x": '"session"', "since=" + "e" * 40 + ":1-1": '"since"',
}


@pytest.mark.parametrize("query", WRONG)
def test_connect_takes_no_wrong_argument(one, query):
    with RawWs(one.port, f"/connect?{query}") as client:
        assert client.status == 400
        assert WRONG[query] in client.body.decode() and client.body.isascii()


@pytest.mark.parametrize("query", ["", "?", "?user=a", "?session=a", "?since=", "?since=&user=b", "?%75ser=a", "?since=e:1-1&user=c"])
def test_connect_takes_right_arguments(one, query):
    with RawWs(one.port, f"/connect{query}") as client:
        assert client.status == 101


@pytest.mark.parametrize("query, status", [
    ("x", 101), ("x=1&x=2", 101), ("&&=", 101), ("user=&session=a~b", 101), ("since=", 101), ("since=e:1-1", 101), ("xsince=abc", 101),
    ("since=abc", 400), ("since", 400), ("since=&since=", 400), ("a=b&%73ince=x", 400), ("since=e:1-1:", 400)])
def test_other_routes_look_at_since_only(one, query, status):
    with RawWs(one.port, f"/users/bob?{query}") as client:
        assert client.status == status
        assert status == 101 or '"since"' in client.body.decode()


# ---- what can't be seen


HIDDEN = ["\x80", "\x9b", "\x9f", "\u00ad", "\u061c", "\u200b", "\u200e", "\u200f", "\u2028", "\u2029", "\u202a", "\u202e",
          "\u2060", "\u2066", "\u2069", "\ufeff", "\ufdd0", "\uffff", "\U000e0041", "\U0001ffff", "\u3164"]


@pytest.mark.parametrize("character", HIDDEN, ids=lambda c: f"U+{ord(c):04X}")
def test_a_name_that_hides_something_is_refused(one, character):
    hidden = quote(f"a{character}b")
    for path in (f"/users/{hidden}", f"/hold/x/{hidden}", f"/connect?user={hidden}", f"/connect?session={hidden}"):
        assert "character" in refusal(one, path)
    with StructuredClient(one.ws("/connect")) as client:
        for command, fields in (("subscribe", {"topic": f"a{character}b"}), ("publish", {"topic": f"a{character}b"}),
                                ("send", {"to": f"user:a{character}b"}), ("presence", {"address": f"topic:a{character}b"})):
            assert client.fails(command, **fields).code == 400
    assert one.api(f"/v1/users/{hidden}", expect=None).status == 400


@pytest.mark.parametrize("uid", ["王", "ë", "אב", "می\u200cخ", "👩\u200d💻", "❤\ufe0f", "山田\u3000太郎", "葛\U000e0100"])
def test_honest_names_stay(one, uid):
    with one.connect(f"/users/{quote(uid)}"), StructuredClient(one.ws("/connect")) as client:
        assert client.call("send", to=f"user:{uid}", text="hi")["receipt"] == "delivered"


def test_the_log_shows_what_nobody_sees(one):
    mark = one.log_mark()
    with one.connect(f"/users/{quote('me' + chr(0x200d))}"):
        pass
    found = one.log_wait("session offline", since=mark)
    assert found["session"].startswith("me\u200d~")  # as it is read back
    line = next(line for line in one.lines if "session offline" in line and "session=\"me" in line)
    assert '"me\\u200d~' in line and "\u200d" not in line
