"""What no honest client sends: each gets its close code or its refusal, and the broker serves on with nothing leaked."""

import socket
import struct

import pytest

from lib import Broker, RawWs, fd_count, frame, wait_until
from lib.rawws import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_payload

MAX = 64 * 1024


@pytest.fixture(scope="module")
def one():
    with Broker(max_message="64KiB", outbox_limit="1MiB", handshake_timeout="1s", close_timeout="500ms",
                ping_interval="0") as broker:
        yield broker


@pytest.fixture(autouse=True)
def serves_on(one):
    """After each test the broker serves others as before, and holds no connection more."""
    wait_until(lambda: one.stats()["online"] == 0, "no session is left of the test before")
    with RawWs(one.port, "/echo") as witness:
        witness.send("before")
        assert witness.recv() == "before"
        before = fd_count(one)
        yield
        witness.send("after")
        assert witness.recv() == "after"
        wait_until(lambda: fd_count(one) <= before, "the descriptors are back")


def closed_with(client):
    """The code of the close frame; 1006 when the connection ends without one."""
    while (got := client.recv_frame()) is not None:
        if got.opcode == CLOSE:
            return got.close_code
    return 1006


# ---- messages


@pytest.mark.parametrize("path", ["/echo", "/websocket/big", "/websocket/big/1"])
def test_a_message_over_the_limit_is_1009_and_logged(one, path):
    mark = one.log_mark()
    with RawWs(one.port, path) as client:
        client.send("x" * (MAX + 1))
        assert closed_with(client) == 1009
    line = one.log_wait("message refused", since=mark)
    assert line["reason"] == "too_big" and line["level"] == "warn" and line["session"]


def test_a_message_at_the_limit_passes(one):
    with RawWs(one.port, "/echo") as client:
        for kind in (str, bytes):
            message = "x" * MAX if kind is str else b"\xff" * MAX
            client.send(message)
            assert client.recv() == message


def test_fragments_count_together(one):
    with RawWs(one.port, "/echo") as client:
        client.send_frame("x" * 40000, TEXT, fin=False)
        client.send_frame("x" * 40000, CONTINUATION)
        assert closed_with(client) == 1009


def test_endless_fragments_are_cut(one):
    with RawWs(one.port, "/echo") as client:
        client.send_frame(b"", BINARY, fin=False)
        try:
            for _ in range(200):
                client.send_frame(b"x" * 1000, CONTINUATION, fin=False)
        except OSError:
            pass
        assert closed_with(client) in (1009, 1006)
    one.log_wait("message refused", reason="too_big")


@pytest.mark.parametrize("claim", [1 << 30, 1 << 40, (1 << 63) - 1])
def test_a_huge_length_reserves_nothing(one, claim):
    """The claim alone costs nothing; what comes of it is counted."""
    with RawWs(one.port, "/echo") as client:
        client.send_frame(b"x" * 1000, BINARY, claim=claim)
        try:
            for _ in range(100):
                client.send_bytes(b"x" * 1000)
        except OSError:
            pass
        assert closed_with(client) in (1009, 1002, 1006)


@pytest.mark.parametrize("payload", [
    b"\xff", b"\xc3", b"\xc3\x28", b"\xa0\xa1", b"\xe2\x28\xa1", b"\xf0\x28\x8c\x28", b"\xc0\xaf", b"\xe0\x80\xaf",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"good until here \xce"])
def test_text_that_is_not_utf8_is_1007(one, payload):
    for path in ("/echo", "/websocket/bad"):
        with RawWs(one.port, path) as client:
            client.send_frame(payload, TEXT)
            assert closed_with(client) == 1007


def test_text_that_is_not_utf8_in_fragments_is_1007(one):
    with RawWs(one.port, "/echo") as client:
        client.send_frame(b"\xe4\xbd", TEXT, fin=False)
        client.send_frame(b"a", CONTINUATION)
        assert closed_with(client) == 1007


def test_bad_messages_harm_no_other_session_of_the_user(one):
    with one.connect("/websocket/carol") as honest, RawWs(one.port, "/websocket/carol") as hostile:
        hostile.send_frame(b"\xff", TEXT)
        assert closed_with(hostile) == 1007
        honest.send("hi")
        assert honest.recv() == "carol:hi"


# ---- frames


@pytest.mark.parametrize("bytes_", [
    frame("hi", opcode=3), frame("hi", opcode=7), frame("", opcode=11), frame("", opcode=15),
    frame("hi", rsv=1), frame("hi", rsv=2), frame("hi", rsv=4), frame("hi", rsv=7), frame("p", PING, rsv=4),
    frame(b"p", PING, fin=False), frame(close_payload(1000), CLOSE, fin=False),
    frame("hi", CONTINUATION), frame("hi", CONTINUATION, fin=False),
    frame("a", fin=False) + frame("b"),
    frame(b"\x03", CLOSE), frame(close_payload(999), CLOSE), frame(close_payload(1005), CLOSE),
    frame(close_payload(1006), CLOSE), frame(close_payload(5000), CLOSE),
], ids=["opcode-3", "opcode-7", "opcode-11", "opcode-15", "rsv1", "rsv2", "rsv3", "rsv-all", "rsv-ping",
        "fragmented-ping", "fragmented-close", "continuation", "continuation-unfinished", "text-in-fragments",
        "short-close", "close-999", "close-1005", "close-1006", "close-5000"])
def test_a_frame_against_the_protocol_is_1002(one, bytes_):
    with RawWs(one.port, "/echo") as client:
        client.send_bytes(bytes_)
        assert closed_with(client) == 1002


@pytest.mark.parametrize("opcode", [PING, CLOSE, 10])
def test_a_control_frame_over_125_bytes_ends_the_connection(one, opcode):
    with RawWs(one.port, "/echo") as client:
        client.send_frame(b"\x03\xe8" + b"x" * 124, opcode)
        assert closed_with(client) in (1002, 1006)


def test_a_frame_without_a_mask_is_1002(one):
    with RawWs(one.port, "/echo") as client:
        client.send_frame("hi", mask=False)
        assert client.recv_frame().close_code == 1002


def test_a_close_reason_must_be_utf8(one):
    with RawWs(one.port, "/echo") as client:
        client.send_frame(struct.pack("!H", 1000) + b"\xff\xfe", CLOSE)
        assert closed_with(client) == 1007


def test_what_follows_a_close_is_not_taken(one):
    with one.connect("/websocket/dave") as other, RawWs(one.port, "/websocket/dave") as client:
        client.send_bytes(frame("said") + frame(close_payload(1000), CLOSE) + frame("too late"))
        assert closed_with(client) == 1000
        assert other.recv() == "dave:said"
        other.expect_nothing()


@pytest.mark.parametrize("cut", range(1, 9))
def test_half_a_frame_and_gone(one, cut):
    for end in (RawWs.close, RawWs.abort):
        client = RawWs(one.port, "/echo", extra=frame("hello")[:cut])
        end(client)


def test_a_flood_of_pings_is_answered_or_cut_never_hoarded(one):
    with RawWs(one.port, "/echo") as client:
        client.send_bytes(frame(b"p" * 125, PING) * 5000)
        client.send("end")
        assert client.recv() == "end"


def test_random_bytes_instead_of_frames(one):
    for seed in range(30):
        with RawWs(one.port, "/echo") as client:
            client.send_bytes(bytes((seed * 31 + i * i * 7) % 256 for i in range(500)))
            client.abort()


# ---- handshakes


def refused(one, data, expect=(0, 400, 403, 404, 405, 414, 426, 431)):
    with RawWs(one.port, "/echo", handshake=False) as client:
        try:
            client.send_bytes(data)
        except OSError:
            return
        assert client.read_response() in expect


@pytest.mark.parametrize("data", [
    b"\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200, b"HELLO\r\n\r\n",
    b"GET\r\n\r\n", b"GET /echo\r\n\r\n", b"GET /echo HTTP/9.9\r\n\r\n", b"\xff\xfe\xfd\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nno colon here\r\n\r\n", b"GET /echo HTTP/1.1\r\n: nothing\r\n\r\n"],
    ids=["empty", "zeros", "tls", "word", "no-path", "no-version", "version-9", "bytes", "http2", "no-colon", "no-name"])
def test_garbage_instead_of_a_handshake(one, data):
    """Answered with an error or not at all; whatever stays open is dropped at the handshake timeout."""
    with RawWs(one.port, "/echo", handshake=False) as client:
        client.send_bytes(data)
        client.recv_eof()


def test_a_header_of_100_kilobytes(one):
    refused(one, b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 100_000 + b"\r\n\r\n")
    refused(one, b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    refused(one, b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n")


@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Key": None}, {"Host": None}, {"Sec-WebSocket-Version": "7"},
                                     {"Sec-WebSocket-Version": None}, {"Sec-WebSocket-Key": "x" * 200}],
                         ids=["no-key", "no-host", "version-7", "no-version", "long-key"])
def test_a_handshake_that_lacks_something_never_becomes_a_session(one, headers):
    with RawWs(one.port, "/echo", headers=headers, handshake=False) as client:
        client.send_bytes(client.request_bytes(headers))
        assert client.read_response() in (0, 400, 403, 404, 426)


@pytest.mark.parametrize("offer", [["chat"], ["switchboard.json.v99"], ["a", "b", "c"], ["x" * 200]])
def test_only_unknown_subprotocols_are_refused_with_an_answer(one, offer):
    with RawWs(one.port, "/echo", subprotocols=offer) as client:
        assert client.status == 400
        assert b"subprotocol" in client.body


def test_a_slow_handshake_is_dropped_at_its_timeout(one):
    """Bytes that keep trickling in prolong nothing."""
    with RawWs(one.port, "/echo", handshake=False) as client:
        client.send_bytes(b"GET /echo HTTP/1.1\r\n")
        sent = 0
        client.socket.settimeout(0.1)
        with pytest.raises(OSError):
            while sent < 200:  # 20 s
                client.send_bytes(b"X")
                sent += 1
                try:
                    assert client.socket.recv(1) != b"X"
                    break
                except TimeoutError:
                    continue
            client.socket.settimeout(1)
            while True:
                client.send_bytes(b"X")
        assert sent < 100


def test_silent_connections_are_dropped_at_the_handshake_timeout(one):
    clients = [RawWs(one.port, "/echo", handshake=False) for _ in range(50)]
    for client in clients:
        client.recv_eof()
        client.close()


def test_connections_that_come_and_go(one):
    for i in range(200):
        client = RawWs(one.port, "/echo", handshake=False)
        if i % 3:
            client.send_bytes(client.request_bytes()[:i])
        client.abort() if i % 2 else client.close()


def test_a_half_closed_connection_ends(one):
    """A client that only closes its sending side, without a close frame, is gone."""
    with RawWs(one.port, "/websocket/half") as client:
        client.socket.shutdown(socket.SHUT_WR)
        client.recv_eof()
