"""HTTP/2 is not spoken: neither asked for, nor known beforehand, nor after a refusal. Whoever tries hurts nobody."""

import struct

import pytest

from lib import head, upgrade
from lib.door import KEY

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_HEADER = ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")
ASKING = [("Host", "localhost"), ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), SETTINGS_HEADER]
# What has all that a WebSocket's handshake has, but for the name.
DRESSED = [*ASKING, ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)]


def h2_frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header as HPACK writes it without any table."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def h2_request(stream=1, method=b"GET", path=b"/", extra=(), end=True):
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"), *extra]
    return h2_frame(1, 0x5 if end else 0x4, stream, b"".join(literal(*field) for field in fields))


SETTINGS, ACK = h2_frame(4), h2_frame(4, 1)
WEBSOCKET = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]
CONVERSATIONS = {
    "page": PREFACE + SETTINGS + h2_request(1),
    "page-on-3": PREFACE + SETTINGS + ACK + h2_request(3),
    "asset": PREFACE + SETTINGS + h2_request(1, path=b"/style.css"),
    "unknown": PREFACE + SETTINGS + h2_request(1, path=b"/none"),
    "route": PREFACE + SETTINGS + h2_request(1, path=b"/websocket/a"),
    "websocket": PREFACE + SETTINGS + h2_request(1, method=b"CONNECT", path=b"/echo", extra=WEBSOCKET, end=False),
    "post": PREFACE + SETTINGS + h2_request(1, method=b"POST", end=False) + h2_frame(0, 1, 1, b"hello"),
    "many": PREFACE + SETTINGS + b"".join(h2_request(n) for n in range(1, 41, 2)),
    "nothing": b"",
    "garbage": b"\x00" * 100,
}


@pytest.mark.parametrize("path", ["/", "/style.css", "/none", "/websocket/a", "/echo", "/websocket/a/b"])
@pytest.mark.parametrize("said", CONVERSATIONS)
def test_an_upgrade_to_h2c_is_not_taken(door, path, said):
    """The answer is HTTP/1.1's, as if there were no wish, or a refusal (RFC 9110 7.8); what follows is read by nobody."""
    for asking in (ASKING, DRESSED):
        answer = door.ask(head(path, asking) + CONVERSATIONS[said])
        assert answer.status in (200, 400, 404, 426), answer


@pytest.mark.parametrize("said", CONVERSATIONS)
def test_what_follows_a_refused_h2c_in_a_segment_of_its_own_is_not_served(door, said):
    with door.open() as wire:
        wire.send_all(head("/echo", DRESSED))
        answer = wire.read_answer()
        assert answer.status in (400, 426), answer
        wire.send_all(CONVERSATIONS[said])
        assert wire.read_end() == b""


@pytest.mark.parametrize("said", [name for name in CONVERSATIONS if name not in ("nothing", "garbage")])
def test_http_2_without_asking_is_refused(door, said):
    """Its preface is a request of HTTP/2.0, which we don't speak."""
    answer = door.refuses(CONVERSATIONS[said], 400, 405, 505)
    assert answer.version == "HTTP/1.1"


@pytest.mark.parametrize("tokens", ["h2c", "H2C", "h2", "h2c, TLS/1.0", "HTTP/2.0", "IRC/6.9", ",", "h2c,h2c"])
def test_upgrades_to_something_else_never_switch(door, tokens):
    headers = [(name, tokens if name == "Upgrade" else value) for name, value in DRESSED]
    assert door.ask(head("/", headers) + CONVERSATIONS["page"]).status in (200, 400, 404, 426)
    assert door.ask(head("/echo", headers) + CONVERSATIONS["page"]).status in (400, 426)


@pytest.mark.parametrize("tokens", ["websocket, h2c", "h2c, websocket"])
def test_a_choice_between_h2c_and_websocket_is_never_h2c(door, tokens):
    request = upgrade(change={"Upgrade": tokens, "Connection": "Upgrade, HTTP2-Settings"}, add=[SETTINGS_HEADER])
    with door.open() as wire:
        answer = wire.send_all(request).read_answer()
        assert answer.status in (101, 400, 426)
        if answer.status == 101:
            assert answer.tokens("upgrade") == ["websocket"]
            assert wire.echoes()


# ---- admission, asked once


@pytest.mark.parametrize("change", [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Version": "8"}])
@pytest.mark.parametrize("said", ["page", "route", "websocket"])
def test_a_refused_upgrade_admits_nothing_afterwards(door, change, said):
    """Neither over HTTP/2 nor otherwise does whoever was answered 426 come online."""
    with door.open() as wire:
        wire.send_all(upgrade("/websocket/stale", change=change) + CONVERSATIONS[said])
        assert wire.only_answer().status == 426
    with door.open() as wire:
        wire.send_all(upgrade("/websocket/stale", change=change) + head("/echo", DRESSED) + CONVERSATIONS[said])
        assert wire.only_answer().status == 426
    assert door.ask(head("/echo", DRESSED) + CONVERSATIONS[said]).status in (400, 426)
    # A witness of the time that has passed.
    mark = door.where.log_mark()
    door.serves(upgrade("/websocket/witness")).close()
    door.where.log_wait("session online", since=mark)
    assert not [line for line in door.where.log("session online") if "stale" in line["session"]]


@pytest.mark.parametrize("refused", ["/none", "/websocket/a/b", "/"])
def test_a_refused_upgrade_is_the_last_request(door, refused):
    with door.open() as wire:
        wire.send_all(upgrade(refused) + upgrade("/websocket/second"))
        assert wire.only_answer().status in (400, 404)
    assert not [line for line in door.where.log("session online") if "second" in line["session"]]
