"""send, publish, history, online and ping; what becomes of a connection; what an operator does to it."""

import threading
import time
import urllib.parse

import pytest

from lib import FACES, Broker, StructuredClient, wait_until
from lib.structured import from_wire, payload_of

both = pytest.mark.parametrize("face", FACES)


# ---- receipts


@both
def test_the_receipt_says_what_became_of_it(connect, face, name):
    sender, receiver = connect(0, "/connect", face), connect(1, f"/connect?user={name}", face)
    for to in (f"user:{name}", receiver.session):
        assert sender.call("send", to=to, text="hi") == {"receipt": "delivered"}
        message = receiver.message()
        assert (message["to"], message["from"], message["text"]) == (to, sender.session, "hi")
        assert abs(message["time"] - time.time() * 1000) < 60000
    for to in (f"user:{name}-nobody", f"session:{name}-nobody", f"topic:{name}-nobody"):
        assert sender.call("send", to=to, text="hi") == {"receipt": "absent"}
    receiver.expect_nothing()


@both
def test_a_stored_message_has_a_place(connect, face, name):
    sender, receiver = connect(0, "/connect", face), connect(1, f"/connect?session={name}", face)
    one = sender.call("send", to=f"session:{name}", text="1", store=True)
    two = sender.call("send", to=f"session:{name}", text="2", store=True)
    assert one["receipt"] == two["receipt"] == "delivered"
    assert one["offset"] != two["offset"] and one["epoch"] == two["epoch"]
    for text, receipt in (("1", one), ("2", two)):
        message = receiver.message()
        assert message["text"] == text
        assert (message["offset"], message["epoch"]) == (receipt["offset"], receipt["epoch"])
    kept = sender.call("send", to=f"user:{name}-nobody", text="3", store=True)
    assert kept["receipt"] == "stored" and kept["offset"] and kept["epoch"]


@both
def test_all_of_a_users_sessions_and_the_sender_too(connect, face, name):
    clients = [connect(i, f"/connect?user={name}", face) for i in range(4)]
    clients[0].call("send", to=f"user:{name}", text="all")
    assert [client.message()["text"] for client in clients] == ["all"] * 4


@both
def test_messages_of_one_sender_arrive_in_order(connect, face, name):
    sender, receiver = connect(0, "/connect", face), connect(1, f"/connect?session={name}", face)
    numbers = sender.post_all([("send", {"to": f"session:{name}", "data": i, **({"store": True} if i % 3 == 0 else {})})
                               for i in range(500)])
    assert receiver.payloads(500, "data") == list(range(500))
    assert {sender.result(number)["receipt"] for number in numbers} == {"delivered"}


# ---- ttl, key


@both
def test_ttl_ends_what_is_kept(connect, face, name):
    client = connect(0, "/connect", face)
    client.call("publish", topic=name, text="short", store=True, ttl=300)
    client.call("publish", topic=name, text="long", store=True, ttl=3600000)
    client.call("publish", topic=name, text="for good", store=True)
    other = connect(1, "/connect", face)

    def texts():
        return [message["text"] for message in other.call("history", address=f"topic:{name}")["messages"]]
    wait_until(lambda: texts() == ["long", "for good"], "the short-lived message is gone")
    assert other.call("subscribe", topic=name, since={})["topic"] == name
    assert other.payloads(2) == ["long", "for good"]
    other.expect_nothing()


@both
@pytest.mark.parametrize("store", [False, True])
def test_the_same_key_is_delivered_once(connect, face, name, store):
    senders = [connect(i, f"/connect?user={name}", face) for i in range(3)]  # one sender, wherever it is connected
    receiver = connect(1, f"/connect?session={name}", face)
    receipts = [sender.call("send", to=f"session:{name}", text=f"{i}", key="order 7", store=store)
                for i, sender in enumerate(senders)]
    assert receipts[0]["receipt"] == "delivered"
    assert receipts == [receipts[0]] * 3
    assert ("offset" in receipts[0]) == store
    senders[0].call("send", to=f"session:{name}", text="other key", key="order 8")
    assert receiver.payloads(2) == ["0", "other key"]
    receiver.expect_nothing()


@both
def test_a_key_is_of_one_address_and_the_first_result_counts(connect, face, name):
    client = connect(0, "/connect", face)
    key = "k" * 64
    assert client.call("send", to=f"session:{name}", text="1", key=key) == {"receipt": "absent"}
    receiver, other = connect(1, f"/connect?session={name}", face), connect(1, f"/connect?session={name}-2", face)
    assert client.call("send", to=f"session:{name}", text="2", key=key) == {"receipt": "absent"}
    assert client.call("send", to=f"session:{name}-2", text="3", key=key) == {"receipt": "delivered"}
    assert other.message()["text"] == "3"
    receiver.expect_nothing()


@both
def test_the_same_key_at_the_same_moment(connect, face, name):
    senders = [connect(i, f"/connect?user={name}", face) for i in range(3)]  # one sender, wherever it is connected
    receiver = connect(1, f"/connect?session={name}", face)
    numbers = [(sender, sender.post("send", to=f"session:{name}", text=f"{key}", key=f"{key}", store=True))
               for key in range(30) for sender in senders]
    receipts = [sender.result(number) for sender, number in numbers]
    assert all(receipts[i:i + 3] == [receipts[i]] * 3 for i in range(0, 90, 3))
    assert sorted(receiver.payloads(30), key=int) == [str(key) for key in range(30)]
    receiver.expect_nothing()


# ---- history


@both
def test_history_in_both_directions_and_in_pieces(connect, face, name):
    client, reader = connect(0, "/connect", face), connect(1, "/connect", face)
    receipts = [client.call("publish", topic=name, data=i, store=True) for i in range(25)]
    client.call("publish", topic=name, data="not stored")
    address, last = f"topic:{name}", receipts[-1]

    def numbers(**question):
        ok = reader.call("history", address=address, **question)
        assert (ok["epoch"], ok["offset"]) == (last["epoch"], last["offset"])
        for message in ok["messages"]:
            assert message["to"] == address and message["from"] == client.session and message["epoch"] == last["epoch"]
            assert message["offset"] == receipts[message["data"]]["offset"]
        return [message["data"] for message in ok["messages"]]

    assert numbers() == list(range(25))
    assert numbers(limit=10) == list(range(10))
    assert numbers(limit=10, since=receipts[9]["offset"]) == list(range(10, 20))
    assert numbers(since=receipts[19]["offset"]) == list(range(20, 25))
    assert numbers(since=last["offset"]) == []
    assert numbers(reverse=True) == list(range(24, -1, -1))
    assert numbers(reverse=True, limit=3) == [24, 23, 22]
    assert numbers(reverse=True, limit=3, since=receipts[22]["offset"]) == [21, 20, 19]
    assert numbers(reverse=True, since=receipts[0]["offset"]) == []
    assert numbers(limit=1) == [0] and numbers(limit=1000) == list(range(25))


@both
def test_history_of_nothing(connect, face, name):
    client = connect(0, "/connect", face)
    for address in (f"topic:{name}", f"user:{name}", f"session:{name}"):
        assert client.call("history", address=address) == {"messages": []}


@both
def test_history_has_a_hundred_by_default_and_fits_one_message(connect, face, name):
    client = connect(0, "/connect", face)
    for number in client.post_all([("publish", {"topic": name, "data": i, "store": True}) for i in range(120)]):
        client.result(number)
    assert len(client.call("history", address=f"topic:{name}")["messages"]) == 100
    for number in client.post_all([("publish", {"topic": name + "-big", "text": "x" * 60000, "store": True})
                                   for _ in range(40)]):
        client.result(number)
    got, since = 0, {}
    while messages := client.call("history", address=f"topic:{name}-big", limit=1000, **since)["messages"]:
        assert sum(len(message["text"]) for message in messages) <= 1048576
        got += len(messages)
        since = {"since": messages[-1]["offset"]}
    assert got == 40


@both
def test_history_keeps_each_kind(connect, face, name):
    sender = connect(0, "/connect", "msgpack" if face == "json" else "json")
    reader = connect(1, "/connect", face)
    payloads = [("text", "täxt"), ("text", ""), ("binary", b"\x00\xff"), ("data", {"a": [1.5, None, "x"]}), ("data", None)]
    for kind, value in payloads:
        sender.call("send", to=f"user:{name}", store=True, **{kind: value})
    messages = reader.call("history", address=f"user:{name}")["messages"]
    assert [payload_of(from_wire(face, message)) for message in messages] == payloads


# ---- online, ping


@both
def test_online_counts_everybody(connect, peers, face):
    client = connect(0, "/connect", face)
    before = client.call("online")["count"]
    assert before >= 1
    more = [connect(i, "/connect", face) for i in range(5)]
    wait_until(lambda: client.call("online")["count"] == before + 5, "all are counted")
    for one in more:
        one.close()
    wait_until(lambda: client.call("online")["count"] == before, "nobody is counted who left")


@both
def test_ping_tells_the_time(connect, face):
    client = connect(0, "/connect", face)
    assert list(client.call("ping")) == ["time"]
    assert abs(client.call("ping")["time"] - time.time() * 1000) < 60000


# ---- limits


@both
def test_a_message_that_is_too_large_closes(connect, face):
    client = connect(0, "/connect", face)
    client.ws.send("x" * (client.hello["limits"]["message"] + 1))
    assert client.wait_closed().code == 1009


@both
def test_the_largest_message_passes(connect, face, name):
    """One message's bytes are the limit for the sender; what the receiver gets may be longer by its head."""
    sender, receiver = connect(0, "/connect", face), connect(1, f"/connect?session={name}", face)
    text = "x" * (sender.hello["limits"]["message"] - 200)
    assert sender.call("send", to=f"session:{name}", text=text)["receipt"] == "delivered"
    assert receiver.message()["text"] == text


# ---- the end of a connection


@both
def test_a_client_that_is_sent_away_is_told_when_to_come_again(face):
    with Broker(drain_time="1s", drain_delay="2s") as broker:
        clients = [StructuredClient(broker.ws("/connect"), face) for _ in range(8)]
        stop = threading.Thread(target=broker.stop)
        stop.start()
        for client in clients:
            closed = client.wait_closed()
            assert (closed.code, closed.reason) == (1012, "restart")
            push = client.push("disconnect")
            assert (push["code"], push["name"], push["reconnect"]) == (1012, "restart", True)
            assert push["text"] and push["delay"] >= 0
        stop.join()


@both
def test_a_replaced_session_is_told(connect, face, name):
    old = connect(0, f"/connect?session={name}", face)
    new = connect(1, f"/connect?session={name}", face)
    closed = old.wait_closed()
    assert (closed.code, closed.reason) == (4501, "replaced")
    push = old.push("disconnect")
    assert (push["code"], push["name"], push["reconnect"]) == (4501, "replaced", False)
    new.call("ping")


@both
@pytest.mark.parametrize("code, reason", [(None, None), (4400, "come again"), (4400, None), (4999, "genug für heute"),
                                          (1000, None)])
def test_a_kicked_session_is_told(connect, peers, face, name, code, reason):
    client = connect(0, f"/connect?session={name}", face)
    query = urllib.parse.urlencode({key: value for key, value in (("code", code), ("reason", reason)) if value is not None})
    assert peers(1).api(f"/v1/sessions/{name}?{query}", "DELETE", expect=202) == {"receipt": "delivered"}
    closed = client.wait_closed()
    name_of_code = "normal" if code == 1000 else "kicked"
    assert (closed.code, closed.reason) == (code or 4502, reason or name_of_code)
    push = client.push("disconnect")
    assert (push["code"], push["name"], push["reconnect"]) == (code or 4502, name_of_code, code == 4400)
    assert push["text"] == reason if reason else push["text"]
