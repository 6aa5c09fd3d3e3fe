"""The closing handshake (RFC 6455 5.5.1 and 7): category 7 of the well-known conformance suite."""

import pytest

from lib import frame
from lib.rawws import CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, fragments

OPTIONS = {"ping_interval": "0", "close_timeout": "500ms"}


def closes(client, *codes):
    """The close is answered with one of these codes, and the server ends the connection; what came before."""
    found, code = client.until_close()
    assert code in codes, f"{code} after {[one[:2] for one in found]}"
    return found


@pytest.mark.parametrize("piece", [None, 1])
def test_7_1_a_close_is_answered(echo, piece):
    client = echo()
    client.send_bytes(frame("Hello World!") + frame(close_payload(1000), CLOSE), piece)
    assert [one.payload for one in closes(client, 1000)] == [b"Hello World!"]


@pytest.mark.parametrize("behind",
                         [frame(close_payload(1000), CLOSE), frame(b"p", PING), frame("too late"), frame("x", fin=False),
                          b"\xff" * 20, frame("x", rsv=7), frame("not masked", mask=False)], ids=["close", "ping", "text",
                         "fragment", "garbage", "rsv", "unmasked"])
def test_7_1_what_follows_a_close_is_not_taken(echo, behind):
    other, client = echo("/websocket/closing"), echo("/websocket/closing")
    client.send_bytes(frame("said") + frame(close_payload(1000), CLOSE) + behind)
    assert all(one.payload == b"closing:said" for one in closes(client, 1000))
    assert other.recv() == "closing:said"
    other.send("on")
    assert other.recv() == "closing:on"


def test_7_1_5_a_close_within_a_message(echo):
    client = echo()
    client.send_bytes(frame("fragment1", fin=False) + frame(close_payload(1000), CLOSE) + frame("fragment2", CONTINUATION))
    assert closes(client, 1000) == []


@pytest.mark.parametrize("size", [256 * 1024, 1 << 20])
def test_7_1_6_a_close_behind_a_large_message(echo, size):
    """The suite leaves open whether the message comes back; the close does."""
    client = echo()
    client.send_bytes(frame("B" * size) + frame("Hello World!") + frame(close_payload(1000), CLOSE) + frame(b"", PING))
    found = [one.payload for one in closes(client, 1000)]
    assert found == [b"B" * size, b"Hello World!"][:len(found)]


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize("payload, codes", [
    (b"", (1000, 1005)), (b"\x03", (1002,)), (close_payload(1000), (1000,)),
    (close_payload(1000, "Hello World!"), (1000,)), (close_payload(1000, "*" * 123), (1000,)),
    (close_payload(1000, "*" * 124), (1002,)), (close_payload(1000, "é" * 61), (1000,))], ids=["empty", "one-byte",
    "code", "reason", "longest", "too-long", "utf8"])
def test_7_3_payloads_of_all_lengths(echo, payload, codes, piece):
    client = echo()
    client.send_bytes(frame(payload, CLOSE), piece)
    closes(client, *codes)


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize("reason",
                         [b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\xff", b"\xc3",
                          b"ok \xc0\xaf", b"\xf4\x90\x80\x80"])
def test_7_5_a_reason_is_utf8(echo, reason, piece):
    """1007, or the suite's 1002: it is no valid payload."""
    client = echo()
    client.send_bytes(frame(b"\x03\xe8" + reason, CLOSE), piece)
    closes(client, 1007, 1002)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_7_7_codes_that_may_be_sent_are_answered(echo, code):
    for reason in ("", "because"):
        client = echo()
        client.send_close(code, reason)
        closes(client, code, 1000)


@pytest.mark.parametrize("code", [1012, 1013, 1014])
def test_7_7_codes_that_were_registered_later(echo, code):
    client = echo()
    client.send_close(code)
    closes(client, code, 1000, 1002)


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999])
def test_7_9_codes_that_may_not_be_sent_are_1002(echo, code):
    for reason in ("", "because"):
        client = echo()
        client.send_close(code, reason)
        closes(client, 1002)


@pytest.mark.parametrize("code", [5000, 10000, 65535])
def test_7_13_codes_that_mean_nothing(echo, code):
    """Informational in the suite; the connection ends in order."""
    client = echo()
    client.send_close(code)
    closes(client, 1002, 1000, code)


def test_a_server_ends_the_connection_that_it_closes(echo):
    """Though the client answers nothing and closes nothing: at close_timeout, and no deadline of anybody else's. Whoever
    has sent a close of its own needn't answer another."""
    for data, code in ((frame(b"", 3), 1002), (frame(b"\x03", CLOSE), 1002), (frame(b"\x03\xe8\xff", CLOSE), 1007),
                       (frame(close_payload(1000), CLOSE), 1000)):
        client = echo()
        client.send_bytes(data)
        found = client.recv_frame()
        assert found.opcode == CLOSE and found.close_code == code
        client.recv_eof(timeout=4)


def test_nothing_comes_behind_the_close(echo):
    client = echo()
    client.send_bytes(b"".join(frame(f"{n}") for n in range(100)) + frame("", 7) + frame(b"", PING))
    found = closes(client, 1002)
    assert [one.payload for one in found] == [b"%d" % n for n in range(100)][:len(found)]
    assert not [one for one in found if one.opcode == PONG]


@pytest.mark.parametrize("size", [100, 5000, 70000])
def test_a_close_between_fragments_of_any_size(echo, size):
    client = echo()
    client.send_bytes(b"".join(fragments("x" * size * 3, size)[:2]) + frame(close_payload(1001, "bye"), CLOSE))
    assert closes(client, 1001) == []


def test_many_close_at_once(echo):
    clients = [echo() for _ in range(50)]
    for n, client in enumerate(clients):
        client.send_bytes(frame("last", TEXT) + frame(close_payload(3000 + n), CLOSE))
    for n, client in enumerate(clients):
        assert [one.payload for one in closes(client, 3000 + n)] == [b"last"]
