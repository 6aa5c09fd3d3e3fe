"""Frames, good and bad: what is wrong in one is named and the connection goes on; what is none ends it."""

import json
import time

import msgpack
import pytest

from lib import FACES, CommandError, StructuredClient
from lib.structured import encode

both = pytest.mark.parametrize("face", FACES)
MAX_ID = 2 ** 53 - 1


@pytest.fixture
def client(connect, face):
    return connect(0, "/connect", face)


def bad_request(client, number):
    with pytest.raises(CommandError) as error:
        client.result(number)
    assert error.value.name == "bad_request"
    return error.value.text


# ---- frames in messages


@both
@pytest.mark.parametrize("count", [2, 50])
def test_several_frames_in_one_message(client, face, count):
    frames = [encode(face, {"id": i, "cmd": "ping"}) for i in range(1, count + 1)]
    for i in range(1, count + 1):
        client.await_id(i)
    client.send_raw((b"" if face == "msgpack" else "\n").join(frames))
    assert all("time" in client.result(i) for i in range(1, count + 1))


@pytest.mark.parametrize("face", ["json"])
@pytest.mark.parametrize("message", ['{"id":1,"cmd":"ping"}\n', '\n\n{"id":1,"cmd":"ping"}', '{"id":1,\t"cmd" : "ping"} \r\n'])
def test_empty_lines_and_blanks_are_skipped(client, face, message):
    client.await_id(1)
    client.send_raw(message)
    assert "time" in client.result(1)
    client.expect_nothing()


@both
def test_an_empty_message_has_no_frames(client, face):
    client.send_raw(b"" if face == "msgpack" else "")
    client.expect_nothing()


@pytest.mark.parametrize("face", ["json"])
def test_a_bad_frame_does_not_hurt_its_neighbours(client, face):
    for i in (1, 2, 3):
        client.await_id(i)
    client.send_raw('{"id":1,"cmd":"ping"}\n{"id":2,"cmd":"send","to":7}\n{"id":3,"cmd":"ping"}')
    assert "time" in client.result(1) and "time" in client.result(3)
    assert "to" in bad_request(client, 2)


@both
def test_ids_from_one_to_the_largest(client, face):
    for number in (1, 255, 65536, 2 ** 32, MAX_ID):
        client.send_raw({"id": number, "cmd": "ping"})
        assert abs(client.result(number)["time"] - time.time() * 1000) < 60000


@both
@pytest.mark.parametrize("head", [{}, {"id": 0}], ids=["none", "zero"])
def test_without_an_id_there_is_no_answer(client, face, head, name):
    client.ws.send(encode(face, {**head, "cmd": "ping"}), encode(face, {**head, "cmd": "nonsense"}),
                   encode(face, {**head, "cmd": "send", "to": client.session, "text": "but done"}))
    assert client.message()["text"] == "but done"
    client.expect_nothing()


# ---- the version rule


@both
def test_unknown_fields_are_ignored(client, face):
    number = client.post("ping", later="x", deep={"a": [1, {"b": None}]}, many=list(range(50)))
    assert "time" in client.result(number)


@both
@pytest.mark.parametrize("cmd", ["nonsense", "", "PING", "ping ", "hello", "pïng"])
def test_unknown_commands_are_answered(client, face, cmd):
    assert client.fails(cmd).name == "unknown_command"
    client.call("ping")


# ---- malformed frames

WRONG = [
    ("send", {}, "to"),
    ("send", {"to": 5}, "to"),
    ("send", {"to": None}, "to"),
    ("send", {"to": ["user:a"]}, "to"),
    ("send", {"to": ""}, "to"),
    ("send", {"to": "bob"}, "to"),
    ("send", {"to": "nobody:bob"}, "to"),
    ("send", {"to": "instance:x"}, "to"),
    ("send", {"to": "user:"}, "to"),
    ("send", {"to": "user:" + "x" * 256}, "to"),
    ("send", {"to": "user:a\u0001"}, "to"),
    ("send", {"to": "user:a", "text": 5}, "text"),
    ("send", {"to": "user:a", "text": {"a": 1}}, "text"),
    ("send", {"to": "user:a", "binary": 5}, "binary"),
    ("send", {"to": "user:a", "text": "a", "data": 1}, "data"),
    ("send", {"to": "user:a", "store": 1}, "store"),
    ("send", {"to": "user:a", "store": "yes"}, "store"),
    ("send", {"to": "user:a", "store": True, "ttl": "1"}, "ttl"),
    ("send", {"to": "user:a", "store": True, "ttl": 1.0}, "ttl"),
    ("send", {"to": "user:a", "store": True, "ttl": -1}, "ttl"),
    ("send", {"to": "user:a", "ttl": 1000}, "ttl"),
    ("send", {"to": "user:a", "key": 1}, "key"),
    ("send", {"to": "user:a", "key": ""}, "key"),
    ("send", {"to": "user:a", "key": "k" * 65}, "key"),
    ("publish", {"to": "topic:x"}, "topic"),
    ("publish", {"topic": ""}, "topic"),
    ("publish", {"topic": "a\u0000b"}, "topic"),
    ("publish", {"topic": 1}, "topic"),
    ("request", {}, "to"),
    ("request", {"to": "topic:x"}, "to"),
    ("request", {"to": "user:a", "timeout": 0}, "timeout"),
    ("request", {"to": "user:a", "timeout": -5}, "timeout"),
    ("request", {"to": "user:a", "timeout": 300001}, "timeout"),
    ("request", {"to": "user:a", "timeout": 1.5}, "timeout"),
    ("reply", {}, "request"),
    ("reply", {"request": 5}, "request"),
    ("reply", {"request": "x", "refuse": True}, "refuse"),
    ("subscribe", {}, "topic"),
    ("subscribe", {"topic": ""}, "topic"),
    ("subscribe", {"topic": "x" * 256}, "topic"),
    ("subscribe", {"topic": "x", "since": "now"}, "since"),
    ("subscribe", {"topic": "x", "since": {"epoch": 1}}, "since"),
    ("subscribe", {"topic": "x", "since": {"epoch": "e", "offset": "no offset"}}, "since"),
    ("subscribe", {"topic": "x.*", "presence": True}, "presence"),
    ("subscribe", {"topic": "x.>", "events": True}, "events"),
    ("subscribe", {"topic": "x", "presence": 1}, "presence"),
    ("unsubscribe", {}, "topic"),
    ("unsubscribe", {"topic": []}, "topic"),
    ("history", {}, "address"),
    ("history", {"address": "orders"}, "address"),
    ("history", {"address": "topic:x", "limit": 0}, "limit"),
    ("history", {"address": "topic:x", "limit": 1001}, "limit"),
    ("history", {"address": "topic:x", "limit": "10"}, "limit"),
    ("history", {"address": "topic:x", "since": 5}, "since"),
    ("history", {"address": "topic:x", "since": "no offset"}, "since"),
    ("history", {"address": "topic:x", "reverse": "yes"}, "reverse"),
    ("presence", {}, "address"),
    ("presence", {"address": "x"}, "address"),
]


@both
@pytest.mark.parametrize("cmd, fields, named", WRONG, ids=[f"{one[0]}-{one[2]}-{i}" for i, one in enumerate(WRONG)])
def test_what_is_wrong_is_named(client, face, cmd, fields, named):
    error = client.fails(cmd, **fields)
    assert error.name == "bad_request"
    assert named in error.text, error.text
    client.call("ping")


@both
@pytest.mark.parametrize("frame, number", [
    ({}, 0), ({"cmd": "ping", "id": "7"}, 0), ({"cmd": "ping", "id": None}, 0), ({"cmd": "ping", "id": -1}, 0),
    ({"cmd": "ping", "id": 1.0}, 0), ({"cmd": "ping", "id": MAX_ID + 1}, 0), ({"cmd": "ping", "id": True}, 0),
    ({"cmd": "ping", "id": [1]}, 0), ({"cmd": "ping", "id": 2 ** 63 - 1}, 0), ({"id": 7}, 7), ({"id": 7, "cmd": 5}, 7),
    ({"id": 7, "cmd": None}, 7), ({"id": 7, "push": "message"}, 7)], ids=str)
def test_a_frame_that_is_no_command(client, face, frame, number):
    client.ws.send(encode(face, frame))
    client.await_id(number)
    assert ("id" if number == 0 and frame else "cmd") in bad_request(client, number)
    client.call("ping")


@pytest.mark.parametrize("face", ["json"])
@pytest.mark.parametrize("text", ["a", "aGk", "aGk=\n", "aG k=", "aGk=aGk=", "a-_=", "aGl=", "===="])
def test_base64_that_is_none(client, face, text):
    assert "binary" in client.fails("send", to="user:a", binary=text).text


@pytest.mark.parametrize("face", ["msgpack"])
@pytest.mark.parametrize("value", [
    b"bin", {"deep": [b"bin"]}, msgpack.ExtType(5, b"x"), 2 ** 63, 2 ** 64 - 1, float("nan"), float("inf"), -float("inf"),
    {1: 2}, {"a": {b"k": 1}}, msgpack.Timestamp(1, 2)], ids=str)
def test_data_that_json_does_not_have(client, face, value):
    assert "data" in client.fails("send", to="user:a", data=value).text
    client.call("ping")


@pytest.mark.parametrize("face", ["msgpack"])
def test_text_that_is_no_utf8(client, face):
    """{"id": 7, "cmd": "send", "to": client, "text": "\\xff"}"""
    to = msgpack.packb(client.session)
    client.await_id(7)
    client.ws.send(b"\x84\xa2id\x07\xa3cmd\xa4send\xa2to" + to + b"\xa4text\xa1\xff")
    assert "text" in bad_request(client, 7)
    client.call("ping")


# ---- no frames at all

DEEP = 40
NO_JSON = ["x", "{", "[]", "5", "null", '"ping"', "true", '{"id":1,"cmd":"ping"', '{"id":1 "cmd":"ping"}',
           "{'id':1}", '{"id":1,}', "\ufeff{}",
           '{"a":' + "[" * DEEP + "]" * DEEP + "}", '{"a":' + '{"a":' * DEEP + "1" + "}" * DEEP + "}"]
NO_MSGPACK = [b"\x00", b"\x90", b"\xc0", b"\xa4ping", b"\xc1", b"\x82", b"\x81\xa2id", b"\xdf\xff\xff\xff\xff",
              b"\x81\xa3cmd\xc6\xff\xff\xff\xff", b"\x81\xa1a" + b"\x91" * DEEP + b"\xc0", b"\x81\xa3cmd\xc1", b"{}"]


@pytest.mark.parametrize("face, message", [("json", one) for one in NO_JSON] + [("msgpack", one) for one in NO_MSGPACK],
                         ids=lambda value: repr(value)[:30])
def test_what_is_no_frame_closes(client, face, message):
    client.ws.send(message)
    closed = client.wait_closed()
    assert closed.code == 4500 and closed.reason
    push = client.push("disconnect")
    assert (push["code"], push["name"], push["reconnect"]) == (4500, "bad_frame", False)


@both
def test_the_wrong_type_of_message_closes(client, face):
    client.ws.send(json.dumps({"id": 1, "cmd": "ping"}) if face == "msgpack" else msgpack.packb({"id": 1, "cmd": "ping"}))
    assert client.wait_closed().code == 4500


@both
def test_commands_before_what_is_no_frame_are_carried_out(connect, face, name):
    """In one message: what was understood counts, and what stands behind does not."""
    receiver, sender = connect(1, f"/connect?session={name}"), connect(0, "/connect", face)
    good, bad = ({"cmd": "send", "to": f"session:{name}", "text": text} for text in ("before", "after"))
    if face == "json":
        sender.ws.send(f"{json.dumps(good)}\nrubbish\n{json.dumps(bad)}")
    else:
        sender.ws.send(msgpack.packb(good) + b"\xc1" + msgpack.packb(bad))
    assert sender.wait_closed().code == 4500
    assert receiver.message()["text"] == "before"
    receiver.expect_nothing()


@both
@pytest.mark.parametrize("depth", [1, 20, 28])
def test_nested_values_within_the_limit(client, face, depth):
    value = 1
    for _ in range(depth):
        value = [value]
    client.call("send", to=client.session, data=value)
    assert client.message()["data"] == value


@both
def test_duplicate_connections_do_not_share_ids(peers, face):
    with StructuredClient(peers(0).ws("/connect"), face) as one, StructuredClient(peers(1).ws("/connect"), face) as two:
        a, b = one.post("ping"), two.post("ping")
        assert a == b == 1
        assert "time" in one.result(a) and "time" in two.result(b)
