"""What is delivered can be received: sizes are judged in the encoding in which a message is largest, before the receipt."""

import json

import msgpack
import pytest

from lib import FACES, Broker, CommandError, RedisServer, StructuredClient, WsClient, wait_until

MESSAGE = 64 << 10
FRAME = 2 * MESSAGE + (64 << 10)  # the largest that a client gets
OPTIONS = {"max_message": "64KiB"}
TINY = 1.1754943508222875e-38  # four bytes in a MessagePack float 32, 22 in JSON


def floats(count):
    return {"data": [TINY] * count}


def pack(fields):
    return msgpack.packb(fields, use_bin_type=True, use_single_float=True)


@pytest.fixture(scope="module", params=["memory", "redis"])
def broker(request):
    with RedisServer() as redis, Broker(**({"redis": redis} if request.param == "redis" else {}), **OPTIONS) as broker:
        broker.redis = redis if request.param == "redis" else None
        yield broker


def outcome(client, number):
    try:
        return client.result(number)
    except CommandError as error:
        return error


def send(client, **fields):
    """A command as it is written here, floats in four bytes if it is MessagePack."""
    number = 10 ** 6 + send.count
    send.count += 1
    client.await_id(number)
    command = {"id": number, "cmd": "publish", **fields}
    client.ws.send(pack(command) if client.face == "msgpack" else json.dumps(command, ensure_ascii=False))
    return outcome(client, number)


send.count = 0

PAYLOADS = {
    "floats": ("msgpack", floats(12000), False),
    "fewer floats": ("msgpack", floats(6500), True),
    "doubles": ("msgpack", {"data": [0.1 + 0.2] * 7000}, True),
    "floats of JSON": ("json", {"data": [0.1] * 12000}, True),
    "control characters": ("msgpack", {"text": "\x01" * 60000}, False),
    "quotes": ("msgpack", {"text": '"\\' * 32000}, True),
    "tabs": ("msgpack", {"text": "\t\r\f\b" * 16000}, True),
    "binary": ("msgpack", {"binary": b"\xff" * 65000}, True),
    "text": ("json", {"text": "ü" * 32000}, True),
    "strings in arrays": ("msgpack", {"data": ["\x01\x02"] * 20000}, False),
    "keys": ("msgpack", {"data": {"\x01" * 30000: 1, "\x02" * 30000: 2}}, False),
    "empty strings": ("msgpack", {"data": [""] * 40000}, True),
    "nested": ("msgpack", {"data": [[[[{}]]]] * 9000}, True),
    "integers": ("msgpack", {"data": [-9000] * 20000}, True),
    "large integers": ("msgpack", {"data": [2 ** 62] * 7000}, True),
}


@pytest.mark.parametrize("what", PAYLOADS)
@pytest.mark.parametrize("store", [False, True])
def test_what_is_delivered_is_received(broker, name, what, store):
    face, payload, fits = PAYLOADS[what]
    with StructuredClient(broker.ws("/connect"), face) as sender, \
            StructuredClient(broker.ws("/connect"), "json") as one, \
            StructuredClient(broker.ws("/connect"), "msgpack") as two, \
            broker.connect(f"/topics/{name}") as plain:
        for client in (one, two):
            client.call("subscribe", topic=name)
        receipt = send(sender, topic=name, store=store, **payload)
        if not fits:
            assert isinstance(receipt, CommandError), receipt
            assert (receipt.name, receipt.code, receipt.retry) == ("too_large", 413, False)
            for client in (one, two):
                client.expect_nothing()
            assert one.call("history", address=f"topic:{name}")["messages"] == []
            return
        assert receipt["receipt"] == "delivered"
        (kind, value), = payload.items()
        for client in (one, two):
            got = client.message()[kind]
            assert got == value or kind == "data" and len(got) == len(value)
        got = plain.recv()
        assert (json.loads(got) if kind == "data" else got) is not None
        assert len(got) <= FRAME
        if store:
            for client in (one, two):
                assert len(client.call("history", address=f"topic:{name}")["messages"]) == 1


@pytest.mark.parametrize("face", FACES)
def test_a_history_comes_in_answers_that_fit(broker, name, face):
    with StructuredClient(broker.ws("/connect"), "msgpack") as sender, \
            StructuredClient(broker.ws("/connect"), face) as reader:
        sent = [send(sender, topic=name, store=True, **floats(300 * (1 + i % 9))) for i in range(40)]
        sent += [send(sender, topic=name, store=True, text='"' * 3000 * (1 + i % 9)) for i in range(40)]
        since, got = {}, []
        while True:
            number = reader.post("history", address=f"topic:{name}", limit=1000, **since)
            raw = reader.ws.recv()
            reader._file(json.loads(raw) if face == "json" else msgpack.unpackb(raw))
            messages = reader.result(number)["messages"]
            if not messages:
                break
            assert len(messages) == 1 or len(raw) <= MESSAGE
            got += [message["offset"] for message in messages]
            since = {"since": got[-1]}
        assert got == [receipt["offset"] for receipt in sent]


def test_over_http(broker, name):
    too_large = [({"Content-Type": "text/plain"}, b"\x01" * 60000)]
    fine = [({"Content-Type": "application/octet-stream"}, b"\x01" * 65536),
            ({"Content-Type": "application/json"}, b"[" + b",".join([b"0.1"] * 16000) + b"]"),
            ({"Content-Type": "text/plain"}, b'"' * 65536)]
    with StructuredClient(broker.ws(f"/connect?session={name}")) as client:
        for path in (f"/v1/send/session:{name}", f"/v1/request/session:{name}?timeout=50"):
            for headers, body in too_large:
                answer = broker.api(path, "POST", body=body, headers=headers, expect=None)
                assert (answer.status, answer.json["name"]) == (413, "too_large")
        client.expect_nothing()
        for headers, body in fine:
            assert broker.api(f"/v1/send/session:{name}", "POST", body=body, headers=headers) == {"receipt": "delivered"}
            client.message()
        line = json.dumps({"id": 1, "cmd": "send", "to": f"session:{name}", "text": "\x01" * 60000})
        answer = broker.api("/v1/batch", "POST", body=line + "\n", expect=None)
        assert answer.json["error"]["name"] == "too_large"
        client.expect_nothing()


def test_requests_and_replies(broker, name):
    with StructuredClient(broker.ws(f"/connect?session={name}"), "msgpack") as asked, \
            StructuredClient(broker.ws("/connect"), "msgpack") as asking:
        with pytest.raises(CommandError, match="too_large"):
            asking.call("request", to=f"session:{name}", text="\x01" * 60000)
        number = asking.post("request", to=f"session:{name}", text="?")
        request = asked.push("request")["request"]
        for answer in ({"text": "\x01" * 60000}, {"refuse": "\x01" * 60000}):
            with pytest.raises(CommandError, match="too_large"):
                asked.call("reply", request=request, **answer)
        # It can still be answered.
        asked.call("reply", request=request, text="yes")
        assert asking.result(number)["text"] == "yes"


def test_a_plain_client_is_closed(broker, name):
    """It has no other way to learn of it. What fits in any encoding isn't touched."""
    with broker.connect(f"/websocket/{name}") as other, broker.connect(f"/websocket/{name}") as client:
        for fine in ("x" * 65536, '"' * 65536):
            client.send(fine)
            assert other.recv() == client.recv() == f"{name}:{fine}"
        client.send(b"\x01" * 65536)
        assert other.recv() == client.recv() == b"\x01" * 65536
        client.send("\x01" * 65536)
        assert client.wait_closed().code == 1009
        assert broker.log_wait("message refused", reason="too large in JSON or MessagePack")
        other.send("x")
        assert other.recv() == f"{name}:x"


def test_what_an_operator_says_is_bounded_too(broker, name):
    if not broker.redis:
        pytest.skip("there is no operator")
    with StructuredClient(broker.ws("/connect")) as client, broker.connect(f"/topics/{name}") as plain:
        client.call("subscribe", topic=name)
        assert broker.redis.client.publish(f"sb:topic:{{{name}}}", "\x01" * 60000) == 1
        assert plain.recv() == "\x01" * 60000
        assert broker.log_wait("message dropped", reason="too_large")
        client.expect_nothing()


@pytest.mark.parametrize("face", FACES)
def test_presence_fits_an_answer(face):
    with Broker(max_message="4KiB") as broker, StructuredClient(broker.ws("/connect"), face) as looker:
        names = ['"' * 200 + str(i) for i in range(30)]
        clients = [StructuredClient(broker.ws(f"/connect?session={'%22' * 200}{i}")) for i in range(30)]
        for client in clients:
            client.call("subscribe", topic="t", presence=True)
        number = looker.post("presence", address="topic:t")
        raw = looker.ws.recv()
        looker._file(json.loads(raw) if face == "json" else msgpack.unpackb(raw))
        ok = looker.result(number)
        assert len(raw) <= 4096 and ok["count"] == 30
        assert 5 <= len(ok["sessions"]) < 30 and {row["session"] for row in ok["sessions"]} <= set(names)
        for client in clients:
            client.close()
