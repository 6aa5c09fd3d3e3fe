"""A client has handshake_timeout for all of its way in: TLS, head, and answer. Nothing that it does prolongs that; and nobody is
put out by others who dawdle."""

import select
import socket
import ssl
import time

import pytest

from lib import Broker, Certificate, Door, fd_count, head, upgrade, wait_until
from lib.door import Wire

OPTIONS = {"handshake_timeout": "1s", "ping_interval": "0"}
# Well below: what an answered refusal takes. Well above: what is no deadline any more.
LONG = 5


def lasts(wire, drip=None, every=0.05):
    """How long the connection lasts while a byte of `drip` is sent now and then; drip: an endless iterator, or None."""
    start = time.monotonic()
    raw = wire.socket
    while time.monotonic() - start < 3 * LONG:
        if not (isinstance(raw, ssl.SSLSocket) and raw.pending()):
            ready = select.select([raw], [], [], every)[0]
        else:
            ready = [raw]
        try:
            if ready and not raw.recv(4096):
                break
            if drip:
                raw.sendall(next(drip))
        except OSError:
            break
    return time.monotonic() - start


def bytes_of(data, forever=b"x"):
    for byte in data:
        yield bytes([byte])
    while True:
        yield forever


SLOW = {
    "nothing": b"",
    "a-byte": b"G",
    "half-a-line": b"GET /websocket/bob",
    "half-a-head": head("/")[:-2],
    "half-an-upgrade": upgrade()[:-2],
    "an-empty-line": b"\r\n",
    "half-a-preface": b"PRI * HT",
}


@pytest.mark.parametrize("begun", SLOW)
def test_who_stops_is_dropped_at_the_deadline(entrance, begun):
    with entrance.open() as wire:
        wire.send_all(SLOW[begun])
        assert 0.5 < lasts(wire) < LONG


@pytest.mark.parametrize("data", [head("/"), upgrade("/websocket/" + "b" * 200), head("/", [("Host", "localhost"), ("Cookie", "c" * 2000)])], ids=["page", "upgrade", "cookie"])
def test_a_head_that_trickles_has_no_longer(entrance, data):
    """A byte at a time, each well before any deadline of its own."""
    with entrance.open() as wire:
        assert lasts(wire, bytes_of(data[:-1])) < LONG


@pytest.mark.parametrize("data", [
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"PUT /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", upgrade(method="POST", add=[("Content-Length", "100000")]),
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", b"CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    head("/", [("Host", "localhost"), ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]),
    head("/echo", [("Host", "localhost"), ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk"),
                   ("Sec-WebSocket-Version", "13")]),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"TRACE / HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 9\r\n\r\n",
    upgrade("/none"), upgrade(change={"Sec-WebSocket-Version": "8"}), head("/none", [("Host", "localhost"), ("Connection", "keep-alive")]), head("/")],
    ids=["post", "post-unknown", "chunks", "put", "get-with-body", "post-upgrade", "connect", "connect-slash", "h2c", "h2c-route", "h2", "trace", "refused", "version",
         "keep-alive", "page"])
@pytest.mark.parametrize("drips", [False, True], ids=["silent", "trickling"])
def test_nothing_that_was_asked_holds_a_connection(entrance, data, drips):
    with entrance.open() as wire:
        wire.send_all(data)
        assert lasts(wire, bytes_of(b"") if drips else None) < LONG


def test_requests_again_and_again_hold_no_connection(entrance):
    def requests():
        while True:
            yield head("/", [("Host", "localhost"), ("Connection", "keep-alive")])

    with entrance.open() as wire:
        assert lasts(wire, requests()) < LONG


def test_who_reads_nothing_holds_no_connection(house):
    """Nor does one that asks for much and reads none of it."""
    for way in ("plain", "tls"):
        broker = house(way)
        before = fd_count(broker)
        wires = [Door(broker, way).open(rcvbuf=2048) for _ in range(20)]
        for wire in wires:
            wire.send_all(head("/structured.js") * 50)
        wait_until(lambda: fd_count(broker) <= before, "the descriptors are back", LONG + 5)
        for wire in wires:
            wire.close()


def test_the_end_of_sending_in_the_middle_of_a_head(entrance):
    """Is the end: nobody waits for the rest."""
    for begun in SLOW.values():
        with entrance.open() as wire:
            wire.send_all(begun)
            wire.socket.shutdown(socket.SHUT_WR)
            assert lasts(wire) < LONG


# ---- TLS's own handshake


def client_hello():
    hello, answers = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_bio(answers, hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return hello.read()


def test_a_hello_that_trickles_has_no_longer(house):
    with Wire(house("tls").port) as wire:
        assert lasts(wire, bytes_of(client_hello()[:-1])) < LONG


@pytest.mark.parametrize("sent", ["nothing", "a-byte", "half", "all", "head-of-a-record", "alert", "junk"])
def test_who_stops_within_the_hello_is_dropped(house, sent):
    hello = client_hello()
    data = {"nothing": b"", "a-byte": hello[:1], "half": hello[:len(hello) // 2], "all": hello, "head-of-a-record": b"\x16\x03\x01\x40\x00",
            "alert": b"\x15\x03\x01\x00\x02\x01\x00", "junk": b"\x16\x03\x01\x00\x05hello"}[sent]
    with Wire(house("tls").port) as wire:
        wire.send_all(data)
        assert lasts(wire) < LONG


def test_hello_and_head_share_one_deadline(house):
    """Not one for each."""
    broker = house("tls")
    with socket.create_connection(("127.0.0.1", broker.port)) as raw:
        start = time.monotonic()
        select.select([raw], [], [], 0.7)
        with Wire.__new__(Wire) as wire:
            wire.socket = broker.tls.client_context.wrap_socket(raw, server_hostname="localhost")
            lasts(wire, bytes_of(upgrade()[:-1]))
        assert time.monotonic() - start < 3


# ---- one's own way in is nobody else's


@pytest.mark.parametrize("way", ["plain", "tls"])
@pytest.mark.parametrize("others", ["silent", "half-a-head", "half-a-line"])
def test_a_client_in_its_handshake_is_not_put_out_by_others(way, others):
    """They come from another address, and are many more than there is room for."""
    with Certificate() as certificate, Broker(max_connections=5, handshake_timeout="60s", tls=certificate if way == "tls" else None) as broker:
        door = Door(broker, way)
        with door.open() as honest:
            honest.send_all(upgrade()[:-4])
            crowd = []
            for _ in range(300):
                one = socket.socket()
                one.bind(("127.0.0.2", 0))
                one.connect(("127.0.0.1", broker.port))
                if way == "plain" and others != "silent":
                    try:
                        one.sendall(upgrade()[:-4] if others == "half-a-head" else b"GET /ec")
                    except OSError:
                        pass
                crowd.append(one)
            assert broker.readyz() == 200
            honest.send_all(upgrade()[-4:])
            assert honest.read_answer().status == 101
            assert honest.echoes()
            # Who comes now gets in as well.
            with door.serves(upgrade()) as late:
                assert late.echoes()
            for one in crowd:
                one.close()


def test_a_full_house_lets_nobody_be_put_out(house):
    """With every place taken, those inside stay, and those at the door get their 503."""
    with Broker(max_connections=3, handshake_timeout="60s") as broker:
        door = Door(broker)
        inside = [broker.online(door.serves(upgrade())) for _ in range(3)]
        for _ in range(100):
            door.refuses(upgrade(), 503)
        for wire in inside:
            assert wire.echoes()
            wire.close()
