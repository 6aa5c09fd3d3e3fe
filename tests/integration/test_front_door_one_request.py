"""One request a connection: what comes behind it is not served, and does no harm."""

import time

import pytest

from lib import Door, cpu_seconds, head, upgrade

BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"


def get(path="/", **options):
    return head(path, [("Host", "localhost"), ("Connection", "keep-alive")], **options)




BEHIND = {
    "a-body": BODY,
    "half-a-body": BODY[:-3],
    "two-bodies": BODY + BODY,
    "chunks": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "put": BODY.replace(b"POST", b"PUT"),
    "a-get": get("/"),
    "twenty-gets": get("/") * 20,
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "an-upgrade": upgrade("/echo"),
    "garbage": b"\x00\xff" * 500,
    "empty-lines": b"\r\n" * 10,
    "half-a-head": get("/")[:-3],
    "a-long-head": b"GET / HTTP/1.1\r\nX-Long: " + b"y" * 17000,
}
FIRST = {"page": (get("/"), 200), "asset": (get("/style.css"), 200), "unknown": (get("/none"), 404),
         "route": (get("/websocket/a"), 426), "parameter": (get("/websocket/a/b"), 400),
         "method": (get("/", method="DELETE"), 405)}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("first", FIRST)
def test_what_comes_behind_a_request_is_not_served(door, first, behind):
    """One answer, and the end, whatever is in the same segment or record."""
    data, status = FIRST[first]
    assert door.ask(data + BEHIND[behind]).status == status


@pytest.mark.parametrize("first", FIRST)
def test_a_second_request_in_a_segment_of_its_own_is_not_served(door, first):
    data, status = FIRST[first]
    with door.open() as wire:
        wire.send_all(data)
        assert wire.read_answer().status == status
        wire.send_all(get("/"))
        assert wire.read_end() == b""


@pytest.mark.parametrize("first", ["/none", "/", "/websocket/a"])
def test_a_body_behind_a_request_makes_nothing_spin(house, first):
    broker = house("plain")
    door = Door(broker)
    for _ in range(5):
        with door.open() as wire:
            wire.send_all(get(first) + BODY)
            wire.read_answer()
            before, start = cpu_seconds(broker), time.monotonic()
            assert door.alive(), "the broker hangs"
            assert wire.ended(5)
            assert cpu_seconds(broker) - before < 0.5 * (time.monotonic() - start) + 0.2


@pytest.mark.parametrize("request_bytes", [
    BODY, BODY[:-5], b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", BEHIND["chunks"], BEHIND["put"],
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n" + b"x" * 5000],
    ids=["body", "no-body", "unknown-path", "chunks", "put", "expecting", "huge"])
def test_requests_with_bodies_are_refused_without_waiting_for_them(door, request_bytes):
    door.refuses(request_bytes, 400, 405)


@pytest.mark.parametrize("version, connection",
                         [("HTTP/1.1", "keep-alive"), ("HTTP/1.1", "close"), ("HTTP/1.1", "Keep-Alive, x"),
                          ("HTTP/1.1", None), ("HTTP/1.0", "keep-alive")])
def test_every_answer_closes_whatever_was_wished_for(door, version, connection):
    headers = [("Host", "localhost")] + ([("Connection", connection)] if connection else [])
    for path, status in (("/", 200), ("/none", 404), ("/echo", 426)):
        answer = door.ask(head(path, headers, version=version))
        assert answer.status == status or (version == "HTTP/1.0" and answer.status in (400, 426, 505))


def test_who_never_closes_is_closed(door):
    """Nobody holds a descriptor with the answer in hand."""
    with door.open() as wire:
        wire.send_all(get("/none"))
        assert wire.read_answer().status == 404
        assert wire.ended(5)


def test_a_hundred_at_once(door):
    wires = [door.open() for _ in range(100)]
    for n, wire in enumerate(wires):
        wire.send_all(get("/none") + (BODY if n % 2 else get("/")))
    for wire in wires:
        assert wire.only_answer().status == 404
        wire.close()
