"""However TCP or TLS cuts a head, and whatever comes with it, the answer is the same."""

import pytest

from lib import Door, frame, head, upgrade
from lib.rawws import CLOSE, PING, PONG, TEXT

FRAMES = frame("first", key=b"abcd") + frame(b"p", PING, key=b"efgh") + frame("second" * 30, key=b"ijkl")
SERVED = {"bare": b"", "frames": FRAMES, "half-a-frame": FRAMES[:-5]}
HOST = ("Host", "localhost")
H2C = [HOST, ("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABk")]
OTHERS = {
    "page": head("/"),
    "head": head("/", method="HEAD"),
    "unknown": head("/none"),
    "route": head("/websocket/a%2Fb"),
    "encoded-slash": upgrade("/websocket%2Fadmin"),
    "dots": upgrade("/x/../websocket/admin"),
    "control": upgrade("/websocket/a%0d%0ab"),
    "version": upgrade(change={"Sec-WebSocket-Version": "8"}),
    "no-host": upgrade(drop=["Host"]),
    "two-hosts": upgrade(add=[("Host", "other")]),
    "folded": upgrade(add=[("X-A", "b\r\n c")]),
    "length": upgrade(add=[("Content-Length", "5")]) + b"hello",
    "post": head("/", [HOST, ("Content-Length", "5")], method="POST") + b"hello",
    "two": head("/none") + head("/"),
    "h2c": head("/none", H2C) + b"PRI * HTTP/2.0\r\n\r\n",
    "prefix": head("/", [("X-Auth", "1"), HOST, ("Proxy", "2")]),
}


def expect_frames(wire):
    """What answers FRAMES; a pong may overtake a message or be overtaken."""
    found = [wire.recv_frame() for _ in range(3)]
    assert [one.payload for one in found if one.opcode == TEXT] == [b"first", b"second" * 30]
    assert [one.payload for one in found if one.opcode == PONG] == [b"p"]


def cut_everywhere(door, data, check, positions=None):
    """Sends data on many connections, cut at another position on each. That the broker has seen the first part when the
    second comes is known by a request served in between."""
    positions = list(positions or range(len(data) + 1))
    for begin in range(0, len(positions), 200):
        wires = [(at, door.open()) for at in positions[begin:begin + 200]]
        for at, wire in wires:
            wire.send_all(data[:at])
        assert door.alive(20) and door.alive(20)
        for at, wire in wires:
            wire.send_all(data[at:])
        for at, wire in wires:
            try:
                check(wire)
            except BaseException as error:
                raise AssertionError(f"cut at {at}, {data[max(at - 20, 0):at]!r}|{data[at:at + 20]!r}: {error}") from error
            finally:
                wire.close()


@pytest.mark.parametrize("behind", SERVED)
def test_an_upgrade_cut_anywhere_is_served(entrance, behind):
    """The early frames with it: none is lost, none is doubled."""

    def check(wire):
        assert wire.read_answer().status == 101
        if behind == "half-a-frame":
            wire.send_all(FRAMES[-5:])
        if behind != "bare":
            expect_frames(wire)
        assert wire.echoes()
        wire.send_close()
        assert wire.recv_frame().opcode == CLOSE

    cut_everywhere(entrance, upgrade("/echo?a=b", add=[("X-Auth", "1"), ("Cookie", "a=b")]) + SERVED[behind], check)


@pytest.mark.parametrize("case", OTHERS)
def test_an_answer_is_the_same_wherever_the_head_is_cut(entrance, case):
    data = OTHERS[case]
    whole = entrance.ask(data, "HEAD" if case == "head" else "GET")
    assert whole.status

    def check(wire):
        answer = wire.only_answer(case == "head")
        assert (answer.status, answer.body) == (whole.status, whole.body)

    cut_everywhere(entrance, data, check)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_a_long_head_in_any_pieces(house, way):
    data = upgrade(add=[("Cookie", "c" * 14000)]) + FRAMES

    def check(wire):
        assert wire.read_answer().status == 101
        expect_frames(wire)
        assert wire.echoes()

    cut_everywhere(Door(house(way), way), data, check,
                   [1, 10, 100, 500, 1000, *range(1450, 1470), 4000, *range(4090, 4100), 8000, 8192, 12000, 14000,
                    len(data) - 300, len(data) - 20, len(data) - 1])


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 17, 64, 100, 1000])
@pytest.mark.parametrize("case", ["served", *OTHERS])
def test_pieces_of_one_size(entrance, case, piece):
    """As fast as they can be sent."""
    with entrance.open() as wire:
        wire.send_bytes(upgrade() + FRAMES if case == "served" else OTHERS[case], piece)
        if case == "served":
            assert wire.read_answer().status == 101
            expect_frames(wire)
            assert wire.echoes()
        else:
            whole = entrance.ask(OTHERS[case], "HEAD" if case == "head" else "GET")
            answer = wire.only_answer(case == "head")
            assert (answer.status, answer.body) == (whole.status, whole.body)
