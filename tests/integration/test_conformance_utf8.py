"""Text is UTF-8, however it is cut (RFC 6455 8.1): category 6 of the well-known conformance suite."""

import pytest

from lib import frame
from lib.rawws import CLOSE, CONTINUATION, PING, PONG, TEXT

OPTIONS = {"ping_interval": "0"}

VALID = [
    "", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\x01", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000",
    "\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufeff", "\ufdd0", "\ufffe", "\U0001fffe", "\U0001ffff", "\U0002fffe",
    "\U0008ffff", "\U000ffffe", "\U0010fffe", "你好", "🙂" * 50, "é" * 63, "a" * 124 + "é"]
# Tests of decoders, by Markus Kuhn: sequences that are too long, of surrogates, cut off, alone, or beyond the last character.
INVALID = [
    b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80\xbf\x80\xbf\x80", bytes(range(0x80, 0xc0)), b"\xc0 \xc1 \xc2 ",
    b"\xe0 \xe1 ", b"\xf0 \xf1 ", b"\xf8 \xf9 ", b"\xfc \xfd ", b"\xc0", b"\xe0\x80", b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80", b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf",
    b"\xf8\x87\xbf\xbf\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xed\xa0\x80", b"\xed\xad\xbf",
    b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\xaf\xbf\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80",
    b"\xfb\xbf\xbf\xbf\xbf", b"\xfc\x84\x80\x80\x80\x80",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\xce", b"\xce\xba\xe1", b"\xce\xba\xe1\xbd",
    b"\xce\xba\xe1\xbd\xb9\xcf", b"good until here \xf0\x9f\x99", b"\xe4\xbd\xa0\xe5\xa5"]


def in_fragments(data, size):
    parts = [data[at:at + size] for at in range(0, len(data), size)] or [b""]
    last = len(parts) - 1
    return b"".join(frame(part, CONTINUATION if n else TEXT, fin=n == last) for n, part in enumerate(parts))


def is_1007(client, tail=b""):
    found, code = client.until_close()
    assert code == 1007 and not [one for one in found if one.opcode == TEXT], (code, found)


@pytest.mark.parametrize("piece", [None, 1])
def test_text_that_is_utf8_passes(echo, piece):
    client, published = echo(), echo("/websocket/u")
    for text in VALID:
        for size in (1, 2, 3, 1000):
            client.send_bytes(in_fragments(text.encode(), size), piece)
            assert client.recv() == text
        published.send_bytes(frame(text), piece)
        assert published.recv() == "u:" + text


def test_each_character_of_the_edges_passes_in_one_message(echo):
    client = echo()
    client.send("".join(VALID) * 20)
    assert client.recv() == "".join(VALID) * 20


@pytest.mark.parametrize("data", INVALID, ids=lambda data: data.hex()[:24])
def test_text_that_is_not_utf8_is_1007(echo, data):
    """Whole, in fragments of each size, octet by octet, after something valid, and before."""
    for sent, piece in ((frame(data, TEXT), None), (frame(data, TEXT), 1), (in_fragments(data, 1), None),
                        (in_fragments(data, 1), 1), (in_fragments(data, 2), None),
                        (frame(b"valid " * 50 + data, TEXT), None), (frame(data + b" valid", TEXT), None),
                        (in_fragments(b"\xc2\xb5" * 70 + data, 3), None)):
        client = echo()
        try:
            client.send_bytes(sent, piece)
        except OSError:
            pass
        is_1007(client)


@pytest.mark.parametrize("data", INVALID[::6], ids=lambda data: data.hex()[:24])
def test_text_that_is_not_utf8_is_1007_on_every_route(echo, data):
    for path in ("/websocket/u", "/websocket/u/1", "/topics/t"):
        client = echo(path)
        client.send_frame(data, TEXT)
        is_1007(client)


def test_binary_may_be_anything(echo):
    client = echo()
    for data in INVALID:
        client.send(data)
        assert client.recv() == data


GOOD, BAD, REST = "κόσμε".encode(), b"\xf4\x90\x80\x80", b"edited"


@pytest.mark.parametrize("bad", [BAD, b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"])
@pytest.mark.parametrize("fragmented", [True, False])
def test_6_4_what_can_be_no_utf8_any_more_fails_fast_or_at_the_end(echo, bad, fragmented):
    """The suite: at once is strict, at the message's end is allowed. With 1007 in any case; and a ping in between shows
    that the broker has seen it."""
    client = echo()
    if fragmented:
        client.send_bytes(frame(GOOD, TEXT, fin=False) + frame(bad, CONTINUATION, fin=False) + frame(b"seen", PING))
        found = client.recv_frame()
        assert found.opcode in (PONG, CLOSE)
        if found.opcode == CLOSE:
            assert found.close_code == 1007
            return
        client.send_frame(REST, CONTINUATION)
    else:
        whole = frame(GOOD + bad + REST, TEXT)
        client.send_bytes(whole[:-len(REST)])
        client.send_bytes(whole[-len(REST):])
    is_1007(client)


def test_a_character_cut_by_a_ping_is_one_character(echo):
    client = echo()
    client.send_bytes(frame(b"\xe4\xbd", TEXT, fin=False) + frame(b"p", PING) + frame(b"\xa0", CONTINUATION))
    found = [client.recv_frame(), client.recv_frame()]
    assert sorted((one.opcode, one.payload) for one in found) == [(TEXT, "你".encode()), (PONG, b"p")]


def test_what_one_message_lacks_the_next_does_not_give(echo):
    client = echo()
    client.send_bytes(frame(b"\xe4\xbd", TEXT) + frame(b"\xa0", TEXT))
    is_1007(client)
