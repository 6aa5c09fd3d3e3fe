"""/echo: every message comes back exactly as it was; in the example configuration only."""

import pytest

from lib import Broker, Frame, RawWs, frame

MIB = 1 << 20


@pytest.fixture(scope="module")
def one():
    with Broker() as broker:
        yield broker


@pytest.mark.parametrize("message", [
    "hello", "", "你好 wörld 🙂", "{message}", "x" * 125, "x" * 126, "x" * 65535, "x" * 65536, "x" * 70 * 1024, "x" * MIB,
    b"", b"\x00", b"\xff" * 125, b"\xff" * 126, bytes(range(256)) * 256, b"\xfe" * MIB], ids=lambda m: f"{type(m).__name__}-{len(m)}")
def test_messages_come_back_as_they_were(one, message):
    with one.connect("/echo") as client:
        client.send(message)
        assert client.recv() == message
        client.expect_nothing()


def test_frames_are_exact(one):
    with RawWs(one.port, "/echo") as client:
        for payload, opcode in ((b"", 1), (b"text", 1), (b"", 2), (b"\xff", 2), (b"x" * 200, 2), (b"x" * 70000, 1)):
            client.send_frame(payload, opcode)
            assert client.recv_frame() == Frame(opcode, payload, True, 0, False)


@pytest.mark.parametrize("piece", [1, 3, 1021, 1024, 4096])
def test_messages_in_pieces_of_any_size(one, piece):
    """However TCP cuts the bytes."""
    messages = ["a", "b" * 130, "ü" * 3000, ""]
    with RawWs(one.port, "/echo") as client:
        client.send_bytes(b"".join(frame(message) for message in messages), piece)
        assert [client.recv() for _ in messages] == messages


def test_thousands_of_messages_in_order(one):
    messages = [f"{i} " + "." * (i % 700) for i in range(3000)]
    with one.connect("/echo") as client:
        client.send(*messages)
        assert client.recv_many(len(messages)) == messages


def test_pings_are_answered_with_what_they_carry(one):
    with RawWs(one.port, "/echo") as client:
        for payload in (b"", b"\x00\xff", b"p" * 125):
            client.send_frame(payload, 9)
            assert client.recv_frame() == Frame(10, payload, True, 0, False)
        client.send_frame(b"unasked", 10)
        client.send("still there")
        assert client.recv() == "still there"


@pytest.mark.parametrize("code, reason", [(1000, ""), (1001, "bye"), (3000, ""), (4999, "é" * 61)])
def test_a_close_is_answered_with_its_code(one, code, reason):
    with RawWs(one.port, "/echo") as client:
        client.send_close(code, reason)
        assert client.recv_close()[0] == code


def test_without_a_configuration_there_is_no_echo():
    with Broker(config="") as broker, RawWs(broker.port, "/echo") as client:
        assert client.status == 404
