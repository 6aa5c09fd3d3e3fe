"""How a structured connection begins: the subprotocol, and hello."""

import re
import time

import pytest

from lib import FACES, Refused, StructuredClient, WsClient
from lib.structured import SUBPROTOCOLS

pytestmark = pytest.mark.parametrize("face", FACES)


def test_hello_has_all_that_is_documented(peers, connect, face, name):
    client = connect(0, f"/connect?user={name}", face)
    hello = client.hello
    assert hello["address"] == f"user:{name}"
    assert hello["session"] == f"{name}~{hello['conn']}"
    assert hello["instance"] == peers(0).instance
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", hello["version"])
    assert abs(hello["time"] - time.time() * 1000) < 60000
    assert (hello["ping_interval"], hello["ping_timeout"]) == (25000, 10000)
    assert hello["limits"] == {"message": 1048576, "name": 255, "subscriptions": 256, "requests": 256, "timeout": 300000}
    assert not {"recovered", "epoch", "offset"} & set(hello)


@pytest.mark.parametrize("path, address", [
    ("/connect?user={}", "user:{}"), ("/connect?session={}", "session:{}"), ("/connect", None),
    ("/websocket/{}", "user:{}"), ("/websocket/{}/8080", "session:{}_8080"), ("/topics/{}", "topic:{}"),
    ("/WebSocketTest/websocket/{}", "user:{}"), ("/echo", None)])
def test_hello_names_the_address(connect, face, name, path, address):
    hello = connect(0, path.format(name), face).hello
    assert hello.get("address") == (address and address.format(name))
    if address and address.startswith("session:"):
        assert hello["session"] == address.format(name).removeprefix("session:")


def test_a_name_in_the_query_is_percent_encoded(connect, face, name):
    assert connect(0, f"/connect?user=%E6%96%B0%20%26{name}", face).hello["address"] == f"user:新 &{name}"


def test_conn_is_never_the_same(connect, face, name):
    hellos = [connect(i, f"/connect?user={name}", face).hello for i in range(6)]
    assert len({hello["conn"] for hello in hellos}) == len({hello["session"] for hello in hellos}) == 6


def test_hello_means_reachable(connect, face, name):
    """Whoever read it is found at once, from everywhere."""
    sender = connect(0)
    for i in range(20):
        receiver = connect(i, f"/connect?session={name}-{i}", face)
        assert sender.call("send", to=f"session:{name}-{i}", text="hi") == {"receipt": "delivered"}
        assert receiver.message()["text"] == "hi"


def test_commands_before_hello_wait(peers, face, name):
    with StructuredClient(peers(0).ws(f"/connect?user={name}"), face, hello=False) as client:
        numbers = client.post_all([("ping", {}), ("send", {"to": f"user:{name}", "text": "me"})])
        client.wait_hello()
        assert "time" in client.result(numbers[0])
        assert client.result(numbers[1]) == {"receipt": "delivered"}
        assert client.message()["text"] == "me"


def test_the_first_known_subprotocol_is_taken(peers, face):
    mine = SUBPROTOCOLS[face]
    other = next(one for one in SUBPROTOCOLS.values() if one != mine)
    for offer in ([mine], [mine, other], ["unknown.v9", mine, other]):
        with WsClient(peers(0).ws("/connect"), subprotocols=offer) as client:
            assert client.subprotocol == mine


def test_only_unknown_subprotocols_are_refused(peers, face):
    with pytest.raises(Refused) as refused:
        WsClient(peers(0).ws("/connect"), subprotocols=[SUBPROTOCOLS[face] + "x", "mqtt"])
    assert refused.value.status == 400


@pytest.mark.parametrize("query", ["user=", "session=", "user=%01", "user=%ff", "session=" + "x" * 256])
def test_a_name_that_is_none_is_refused(peers, face, query):
    with pytest.raises(Refused) as refused:
        StructuredClient(peers(0).ws(f"/connect?{query}"), face)
    assert refused.value.status == 400
