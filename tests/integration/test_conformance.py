"""RFC 6455's framing, as the well-known conformance suite asks for it: its categories 1 to 5 and 10, against a route that
echoes. What the suite calls not strict, or informational, is left open here too."""

import pytest

from lib import Frame, frame
from lib.rawws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, fragments

OPTIONS = {"ping_interval": "0"}
PIECES = [None, 1]  # whole, and octet by octet


def answers(client, count):
    """The texts and binaries, and the payloads of the pongs, among so many frames. A pong may overtake a message."""
    found = [client.recv_frame() for _ in range(count)]
    assert None not in found and CLOSE not in [one.opcode for one in found], found
    return [one.payload for one in found if one.opcode != PONG], [one.payload for one in found if one.opcode == PONG]


def say(client, data, piece=None):
    """Sends what fails the connection; how much of it can still be sent is not said."""
    try:
        client.send_bytes(data, piece)
    except OSError:
        pass


def fails(client, before=()):
    """It is closed with 1002; what was sent back before is the beginning of `before`."""
    found, code = client.until_close(timeout=5)
    assert code == 1002
    messages = [one.payload for one in found if one.opcode != PONG]
    assert messages == list(before)[:len(messages)], messages
    return found


# ---- 1: messages in one frame


@pytest.mark.parametrize("piece", [None, 1, 997])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
def test_1_messages_of_all_sizes(echo, size, piece):
    if piece == 1 and size > 1000:
        piece = 97
    client = echo()
    for payload, opcode in ((b"*" * size, TEXT), (b"\xfe" * size, BINARY)):
        client.send_bytes(frame(payload, opcode), piece)
        assert client.recv_frame() == Frame(opcode, payload, True, 0, False)


def test_1_messages_of_a_route_that_publishes(echo):
    client = echo("/websocket/1")
    for size in (0, 125, 126, 65536):
        client.send_frame("*" * size)
        assert client.recv() == "1:" + "*" * size
        client.send_frame(b"\xfe" * size, BINARY)
        assert client.recv() == b"\xfe" * size


@pytest.mark.parametrize("form", [16, 64])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
def test_1_a_length_is_written_as_short_as_can_be(echo, form, opcode):
    """RFC 6455 5.2: it MUST be. A control frame has no longer form at all."""
    client = echo()
    client.send_frame(b"hello", opcode, form=form)
    fails(client)


def test_1_a_length_has_63_bits(echo):
    client = echo()
    client.send_frame(b"", BINARY, form=64, claim=1 << 63)
    fails(client)


# ---- 2: pings and pongs


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("payload", [b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
def test_2_pings_are_answered_with_what_they_bear(echo, payload, piece):
    client = echo()
    client.send_bytes(frame(payload, PING), piece)
    assert client.recv_frame() == Frame(PONG, payload, True, 0, False)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("length", [126, 127, 200, 65536])
def test_2_control_frames_have_125_bytes_at_most(echo, length, opcode, piece):
    """The close frame is there to be read, though the client was still sending."""
    client = echo()
    say(client, frame(b"\x03\xe8" + b"x" * (length - 2), opcode), piece if length < 1000 else None)
    fails(client)


def test_2_pongs_that_nobody_asked_for_are_ignored(echo):
    client = echo()
    client.send_frame(b"", PONG)
    client.send_frame(b"unasked", PONG)
    client.send_frame(b"asked", PING)
    assert client.recv_frame() == Frame(PONG, b"asked", True, 0, False)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("count", [2, 10, 100])
def test_2_of_many_pings_the_last_at_least_is_answered(echo, count, piece):
    """RFC 6455 5.5.3: all, or the most recent one of those that wait. Never one twice, or out of order."""
    client = echo()
    pings = [f"ping {n}".encode() for n in range(count)]
    client.send_bytes(b"".join(frame(payload, PING) for payload in pings), piece)
    got = []
    while pings[-1] not in got:
        found = client.recv_frame(timeout=5)
        assert found.opcode == PONG
        got.append(found.payload)
    assert got == [payload for payload in pings if payload in got]
    client.send("on")
    assert client.recv_frame().text == "on"


def test_2_ten_pings_between_messages(echo):
    client = echo()
    client.send_bytes(b"".join(frame(b"%d" % n, PING) + frame(f"m{n}") for n in range(10)))
    messages, pongs = [], []
    while len(messages) < 10 or b"9" not in pongs:
        found = client.recv_frame(timeout=5)
        (pongs if found.opcode == PONG else messages).append(found.payload)
    assert messages == [b"m%d" % n for n in range(10)]
    assert pongs == sorted(pongs)


# ---- 3: reserved bits


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("rsv", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_3_reserved_bits_are_zero(echo, rsv, opcode, piece):
    payload = close_payload(1000) if opcode == CLOSE else b"Hello"
    client = echo()
    say(client, frame("first") + frame(payload, opcode, rsv=rsv) + frame(b"", PING), piece)
    assert all(one.opcode != PONG for one in fails(client, [b"first"]))


@pytest.mark.parametrize("rsv", [1, 2, 4])
def test_3_reserved_bits_are_zero_in_a_continuation(echo, rsv):
    client = echo()
    say(client, frame("a", fin=False) + frame("b", CONTINUATION, rsv=rsv))
    fails(client)


# ---- 4: opcodes


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("payload", [b"", b"reserved opcode payload"])
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_4_reserved_opcodes_fail(echo, opcode, payload, piece):
    client = echo()
    say(client, frame("first") + frame(payload, opcode) + frame(b"", PING), piece)
    assert all(one.opcode != PONG for one in fails(client, [b"first"]))


@pytest.mark.parametrize("opcode", [3, 11])
def test_4_reserved_opcodes_fail_within_a_message(echo, opcode):
    client = echo()
    say(client, frame("a", fin=False) + frame("", opcode) + frame("b", CONTINUATION))
    fails(client)


# ---- 5: fragments


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_5_control_frames_are_not_fragmented(echo, opcode, piece):
    first, second = (close_payload(1000), b"x") if opcode == CLOSE else (b"fragment1", b"fragment2")
    client = echo()
    say(client, frame(first, opcode, fin=False) + frame(second, CONTINUATION), piece)
    fails(client)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("parts",
                         [["fragment1", "fragment2"], ["", ""], ["", "x", ""], ["x", "", "", "y"], list("abcdefghij")])
def test_5_fragments_make_one_message(echo, parts, piece):
    client = echo()
    last = len(parts) - 1
    client.send_bytes(b"".join(frame(part, CONTINUATION if n else TEXT, fin=n == last) for n, part in enumerate(parts)),
                      piece)
    assert client.recv_frame() == Frame(TEXT, "".join(parts).encode(), True, 0, False)


@pytest.mark.parametrize("piece", PIECES)
def test_5_pings_between_fragments_are_answered(echo, piece):
    client = echo()
    for _ in range(2):
        client.send_bytes(frame("fragment1", fin=False) + frame(b"ping", PING) + frame("fragment2", CONTINUATION), piece)
        assert answers(client, 2) == ([b"fragment1fragment2"], [b"ping"])


def test_5_pings_between_fragments_are_answered_at_once(echo):
    """5.20: before the message is whole."""
    client = echo()
    for n in range(5):
        client.send_frame(f"part{n}", CONTINUATION if n else TEXT, fin=False)
        client.send_frame(b"%d" % n, PING)
        assert client.recv_frame() == Frame(PONG, b"%d" % n, True, 0, False)
    client.send_frame("end", CONTINUATION)
    assert client.recv_frame().text == "part0part1part2part3part4end"


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", ["", "non-continuation payload"])
def test_5_a_continuation_of_nothing_fails(echo, payload, fin, piece):
    client = echo()
    say(client, frame(payload, CONTINUATION, fin=fin) + frame("Hello, world!"), piece)
    fails(client)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("fin", [True, False])
def test_5_a_continuation_after_the_end_of_a_message_fails(echo, fin, piece):
    client = echo()
    say(client, frame("one", fin=False) + frame("two", CONTINUATION) + frame("three", CONTINUATION, fin=fin)
                      + frame("four", CONTINUATION), piece)
    fails(client, [b"onetwo"])


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_5_a_message_within_a_message_fails(echo, opcode, fin, piece):
    client = echo()
    say(client, frame("fragment1", fin=False) + frame("fragment2", opcode, fin=fin), piece)
    fails(client)


# ---- 10: messages that a sender fragments by itself


@pytest.mark.parametrize("size", [1, 100, 1300, 65535, 65536])
@pytest.mark.parametrize("length", [65536, 100000])
def test_10_a_message_in_fragments_of_one_size(echo, size, length):
    client = echo()
    for message in ("*" * length, b"\xfe" * length):
        client.send_bytes(b"".join(fragments(message, size)))
        assert client.recv() == message


# ---- masks (RFC 6455 5.1)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("payload, opcode", [
    (b"hello", TEXT), (b"", TEXT), (b"hello", BINARY), (b"p", PING), (b"", PING), (b"p", PONG),
    (close_payload(1000), CLOSE), (b"", CLOSE), (b"x" * 126, TEXT), (b"x" * 70000, BINARY)], ids=range(10))
def test_a_frame_without_a_mask_fails(echo, payload, opcode, piece):
    """In whatever place it comes; and it isn't carried out."""
    if piece and len(payload) > 1000:
        piece = 997
    for before in ((), ("first",), ("first", "second")):
        client = echo()
        data = b"".join(map(frame, before)) + frame(payload, opcode, mask=False) + frame("after")
        say(client, data, piece)
        assert all(one.opcode != PONG for one in fails(client, [text.encode() for text in before]))


def test_fragments_without_a_mask_fail(echo):
    for first, second in ((True, False), (False, True), (False, False)):
        client = echo()
        say(client, frame("a", fin=False, mask=first) + frame("b", CONTINUATION, mask=second))
        fails(client)


def test_a_message_without_a_mask_reaches_nobody(echo):
    other, client = echo("/websocket/masked"), echo("/websocket/masked")
    other.send("hello")
    assert [other.recv(), client.recv()] == ["masked:hello"] * 2
    say(client, frame("secret", mask=False))
    fails(client)
    other.send("on")
    assert other.recv() == "masked:on"


@pytest.mark.parametrize("key", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\xff\x00\xff", b"abcd"])
def test_masks_of_all_kinds_are_taken_off(echo, key):
    client = echo()
    for size in (1, 2, 3, 4, 5, 1000, 4099):
        client.send_frame(b"m" * size, BINARY, key=key)
        assert client.recv() == b"m" * size
