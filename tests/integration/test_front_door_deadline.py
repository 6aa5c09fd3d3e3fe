"""A client has handshake_timeout for all of its way in: TLS, head, and answer. Nothing that it does prolongs that; and
nobody is put out by others who dawdle."""

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


class Hanging:
    """A connection that is watched until its end. drip: an iterator of what is sent now and then; None: nothing."""

    def __init__(self, wire, drip=None):
        self.wire, self.drip, self.start = wire, drip, time.monotonic()
        self.lasted = None

    def turn(self, readable):
        try:
            if readable and not self.wire.socket.recv(4096):
                self.lasted = time.monotonic() - self.start
            elif self.drip:
                self.wire.socket.sendall(next(self.drip))
        except OSError:
            self.lasted = time.monotonic() - self.start

    @property
    def waiting(self):
        return isinstance(self.wire.socket, ssl.SSLSocket) and self.wire.socket.pending()


def watch(hanging, longest=3 * LONG, every=0.05):
    """Watches all of them at once until they have ended; closes them."""
    deadline = time.monotonic() + longest
    while (left := [one for one in hanging if one.lasted is None]) and time.monotonic() < deadline:
        ready = select.select([one.wire.socket for one in left], [], [],
                              0 if any(one.waiting for one in left) else every)[0]
        for one in left:
            one.turn(one.waiting or one.wire.socket in ready)
    for one in hanging:
        one.wire.close()
    return hanging


def lasts(wire, drip=None):
    return watch([Hanging(wire, drip)])[0].lasted or 3 * LONG


def check_all(door, cases, drip=False, at_least=0):
    """cases: a dictionary of what is sent before the waiting, which all end in time."""
    hanging = {}
    for name, data in cases.items():
        wire = door.open()
        wire.send_all(data)
        hanging[name] = Hanging(wire, bytes_of(b"") if drip else None)
    watch(hanging.values())
    wrong = {name: one.lasted for name, one in hanging.items() if not at_least < (one.lasted or 3 * LONG) < LONG}
    assert not wrong


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


def test_who_stops_is_dropped_at_the_deadline(entrance):
    """Not before, and not long after."""
    check_all(entrance, SLOW, at_least=0.5)


@pytest.mark.parametrize("data", [head("/"), upgrade("/websocket/" + "b" * 200), upgrade(add=[("Cookie", "c" * 2000)])],
                         ids=["page", "upgrade", "cookie"])
def test_a_head_that_trickles_has_no_longer(entrance, data):
    """A byte at a time, each well before any deadline of its own."""
    with entrance.open() as wire:
        assert lasts(wire, bytes_of(data[:-1])) < LONG


H2C = [("Host", "localhost"), ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
ASKED = {
    "post": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    "post-unknown": b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    "chunks": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    "put": b"PUT /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    "get-with-body": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    "post-upgrade": upgrade(method="POST", add=[("Content-Length", "100000")]),
    "connect": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    "connect-slash": b"CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "h2c": head("/", H2C),
    "h2c-route": head("/echo", [*H2C, ("Sec-WebSocket-Version", "13")]),
    "h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "trace": b"TRACE / HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 9\r\n\r\n",
    "refused": upgrade("/none"),
    "version": upgrade(change={"Sec-WebSocket-Version": "8"}),
    "keep-alive": head("/none", [("Host", "localhost"), ("Connection", "keep-alive")]),
    "page": head("/"),
}


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "trickling"])
def test_nothing_that_was_asked_holds_a_connection(entrance, drip):
    check_all(entrance, ASKED, drip)


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
    hanging = []
    for begun in SLOW.values():
        hanging.append(Hanging(entrance.open().send_all(begun)))
        hanging[-1].wire.socket.shutdown(socket.SHUT_WR)
    assert all(one.lasted < LONG for one in watch(hanging))


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


def test_who_stops_within_the_hello_is_dropped(house):
    hello = client_hello()
    check_all(Door(house("tls")), {
        "nothing": b"", "a-byte": hello[:1], "half": hello[:len(hello) // 2], "all": hello,
        "head-of-a-record": b"\x16\x03\x01\x40\x00", "alert": b"\x15\x03\x01\x00\x02\x01\x00",
        "junk": b"\x16\x03\x01\x00\x05hello"})


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
    with Certificate() as certificate, Broker(max_connections=5, handshake_timeout="60s",
                                              tls=certificate if way == "tls" else None) as broker:
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


def test_a_full_house_lets_nobody_be_put_out():
    """With every place taken, those inside stay, and those at the door get their 503."""
    with Broker(max_connections=3, handshake_timeout="60s") as broker:
        door = Door(broker)
        inside = [door.serves(upgrade()) for _ in range(3)]
        wait_until(lambda: broker.stats()["online"] == 3, "all are inside")
        for _ in range(100):
            door.refuses(upgrade(), 503)
        for wire in inside:
            assert wire.echoes()
            wire.close()
