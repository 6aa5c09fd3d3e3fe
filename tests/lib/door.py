"""The clients' port as a stranger meets it: bytes in, answers out. Everything here is written from RFC 9110, 9112 and
6455 on bare sockets, so that no library puts right what a test means to be wrong.

    door = Door(broker, "tls-bytes")
    door.refuses(upgrade("/websocket/a", drop=["Host"]), 400)
    with door.serves(upgrade("/websocket/a")) as wire: ...
"""

import base64
import hashlib
import re
import ssl
import time

from .paths import PATIENCE
from .rawws import GUID, RawWs
from .waiting import Timeout

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455
UPGRADE = (("Host", "localhost"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", KEY),
           ("Sec-WebSocket-Version", "13"))

# How a request's bytes are cut on their way: None: one segment or record holds all; else so many bytes each.
WAYS = {"plain": (False, None), "plain-bytes": (False, 1), "tls": (True, None), "tls-records": (True, 50),
        "tls-bytes": (True, 1)}


def head(target="/", headers=(("Host", "localhost"),), method="GET", version="HTTP/1.1"):
    """The bytes of a request's head; headers are pairs, so that one can be there twice."""
    lines = [f"{method} {target} {version}".encode("utf-8", "surrogateescape")]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])


def upgrade(target="/echo", add=(), drop=(), change=None, first=(), **options):
    """The head of a WebSocket handshake. add: header pairs at its end; first: before all others; drop: names to leave out;
    change: a dictionary of other values."""
    fields = [(name, (change or {}).get(name, value)) for name, value in UPGRADE if name not in drop]
    return head(target, [*first, *fields, *add], **options)


PLAIN_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()


class Answer:
    """status 0: the connection ended without one. headers: pairs in the order they came, names in lower case."""

    def __init__(self, status=0, version="", headers=(), body=b""):
        self.status, self.version, self.headers, self.body = status, version, list(headers), body

    def get(self, name):
        """The value of a header; several are joined as a list is. None: not there."""
        found = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(found) if found else None

    def tokens(self, name):
        return [token.strip().lower() for token in (self.get(name) or "").split(",") if token.strip()]

    @property
    def text(self):
        return self.body.decode()

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:200]!r}>"


class Wire(RawWs):
    """A connection without a handshake, that reads answers strictly."""

    def __init__(self, port, tls=None, piece=None, **options):
        self.piece = piece
        super().__init__(port, handshake=False, tls=tls, **options)

    def send_all(self, data):
        """Sends in pieces. A peer that ended the connection meanwhile shows in what is read."""
        try:
            self.send_bytes(data, self.piece)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass
        return self

    def read_answer(self, without_body=False):
        """Reads one answer, and holds it to RFC 9112."""
        while b"\r\n\r\n" not in self._input:
            if not self._fill():
                assert not self._input, f"half an answer: {bytes(self._input)!r}"
                return Answer()
        first, *lines = self._take(self._input.index(b"\r\n\r\n") + 4)[:-4].decode("latin-1").split("\r\n")
        found = re.fullmatch(r"(HTTP/1\.[01]) (\d{3}) [ -~]*", first)
        assert found, f"no status line: {first!r}"
        headers = []
        for line in lines:
            field = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", line)
            assert field, f"no header: {line!r}"
            headers.append((field[1].lower(), field[2]))
        answer = Answer(int(found[2]), found[1], headers)
        if answer.status == 101 or answer.status == 304 or without_body:
            return answer
        length = answer.get("content-length")
        assert length is not None and length.isdigit(), f"the body's length is not said: {answer}"
        while len(self._input) < int(length) and self._fill():
            pass
        answer.body = self._take(int(length))
        assert len(answer.body) == int(length), f"half a body: {answer}"
        return answer

    def read_end(self, timeout=None):
        """Reads to the end of the connection; what came until then."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while self._fill(deadline):
            pass
        return self._take(len(self._input))

    def only_answer(self, without_body=False):
        """The one answer that a connection gets; no second one, and the end after it."""
        answer = self.read_answer(without_body)
        if answer.status not in (0, 101):
            assert "close" in answer.tokens("connection"), f"the connection would go on: {answer}"
            rest = self.read_end()
            assert rest == b"", f"{rest[:200]!r} after {answer}"
        return answer

    def ended(self, within):
        """Whether the connection ends within so many seconds; what is read meanwhile is kept."""
        deadline = time.monotonic() + within
        try:
            while self._fill(deadline):
                pass
            return True
        except Timeout:
            return False

    def echoes(self, message="hello"):
        """A session is behind it, that echoes."""
        self.send(message)
        got = self.recv()
        assert got == message, f"{got[:100]!r} instead of {message[:100]!r}"
        return True


class Door:
    """A way to a port: directly or through a proxy, plain or in TLS, in one piece or many. where: a Broker or a Proxy."""

    def __init__(self, where, way="plain"):
        self.where, self.way = where, way
        tls, self.piece = WAYS[way]
        self.tls = where.tls if tls else None
        assert not tls or self.tls

    @property
    def port(self):
        return self.where.port

    def open(self, **options):
        return Wire(self.port, self.tls, self.piece, **options)

    def ask(self, data, method="GET", **options):
        """The one answer to these bytes."""
        with self.open(**options) as wire:
            return wire.send_all(data).only_answer(method == "HEAD")

    def serves(self, data):
        """These bytes open a WebSocket: the wire."""
        wire = self.open()
        try:
            answer = wire.send_all(data).read_answer()
            assert answer.status == 101, answer
            key = re.search(rb"\nsec-websocket-key:\s*([^\s]*)", data, re.I)
            accept = base64.b64encode(hashlib.sha1(key[1] + GUID.encode()).digest()).decode()
            assert answer.get("sec-websocket-accept") == accept
            assert answer.tokens("upgrade") == ["websocket"] and "upgrade" in answer.tokens("connection")
            wire.answer = answer
            return wire
        except BaseException:
            wire.close()
            raise

    def refuses(self, data, *statuses, method="GET"):
        """These bytes are answered with one of these statuses, and a sentence; then the connection ends."""
        answer = self.ask(data, method)
        assert answer.status in statuses, f"{answer} instead of {statuses} for {data[:300]!r}"
        check_refusal(answer, method)
        return answer

    def alive(self, timeout=5):
        """Others are still served."""
        try:
            with Wire(self.port, self.tls, timeout=timeout) as wire:
                return wire.send_all(PLAIN_GET).read_answer().status == 200
        except (OSError, AssertionError):
            return False


def check_refusal(answer, method="GET"):
    """A refusal is a status, a plain text or problem details, and a sentence."""
    kind = (answer.get("content-type") or "").split(";")[0].strip()
    assert kind in ("text/plain", "application/problem+json"), answer
    if method != "HEAD":
        assert len(answer.text.split()) >= 3, f"no sentence: {answer}"
    if answer.status == 405:
        assert set(answer.tokens("allow")) >= {"get", "head"}, answer
    if answer.status == 426:
        assert "websocket" in answer.tokens("upgrade"), answer
    if answer.status == 503:
        assert int(answer.get("retry-after")) >= 1, answer
