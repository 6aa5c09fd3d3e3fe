"""A WebSocket client by hand on a socket, for what a library would never send: every bit of every frame can be wrong."""

import base64
import collections
import hashlib
import os
import socket
import struct
import time

from .paths import PATIENCE
from .waiting import Timeout

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Frame(collections.namedtuple("Frame", "opcode payload fin rsv masked")):
    @property
    def text(self):
        return self.payload.decode()

    @property
    def close_code(self):
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None

    @property
    def close_reason(self):
        return self.payload[2:].decode()


def frame(payload=b"", opcode=TEXT, fin=True, rsv=0, mask=True, key=None, claim=None, form=None):
    """The bytes of a frame. claim: the length to state instead of the true one. form: 7, 16 or 64, the size of the
    length field in bits, where it is not to be the shortest."""
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload) if claim is None else claim
    form = form or (7 if length < 126 else 16 if length < 65536 else 64)
    head = bytes([(0x80 if fin else 0) | (rsv << 4) | opcode])
    bit = 0x80 if mask else 0
    if form == 7:
        head += bytes([bit | length])
    elif form == 16:
        head += bytes([bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", length)
    if mask:
        key = os.urandom(4) if key is None else key
        head += key
        if payload:
            number = int.from_bytes(payload, "big")
            pattern = (key * (len(payload) // 4 + 1))[:len(payload)]
            payload = (number ^ int.from_bytes(pattern, "big")).to_bytes(len(payload), "big")
    return head + payload


def fragments(message, size, opcode=None):
    """The frames of a message in pieces of so many bytes each; each is masked anew."""
    if opcode is None:
        opcode = TEXT if isinstance(message, str) else BINARY
    data = message.encode() if isinstance(message, str) else message
    starts = range(0, len(data), size) or [0]
    return [frame(data[at:at + size], CONTINUATION if at else opcode, fin=at + size >= len(data)) for at in starts]


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


class RawWs:
    """Connects, and shakes hands unless handshake=False. `extra` goes out in the same segment as the handshake's request.
    rcvbuf: a small receive buffer, so that a reader that does not read is soon full. A context manager that closes the socket."""

    def __init__(self, port, path="/", headers=None, handshake=True, extra=b"", host="127.0.0.1", tls=None, rcvbuf=None,
                 subprotocols=(), timeout=PATIENCE):
        self.host, self.port, self.path, self.timeout = host, port, path, timeout
        self.status = None
        self.headers = {}  # names in lower case
        self.body = b""  # of a refusal
        self._input = bytearray()
        self._eof = False
        self.was_reset = False
        self.socket = socket.socket()
        try:
            if rcvbuf is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(timeout)
            self.socket.connect((host, port))
            if tls is not None:
                self.socket = tls.client_context.wrap_socket(self.socket, server_hostname="localhost")
            if handshake:
                self.handshake(headers, extra, subprotocols)
        except BaseException:
            self.socket.close()
            raise

    # ---- handshake

    def request_bytes(self, headers=None, subprotocols=()):
        """The request of a handshake; a header given as None is left out."""
        self.key = base64.b64encode(os.urandom(16)).decode()
        fields = {"Host": f"{self.host}:{self.port}", "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec-WebSocket-Key": self.key, "Sec-WebSocket-Version": "13"}
        if subprotocols:
            fields["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        fields.update(headers or {})
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([f"GET {self.path} HTTP/1.1", *lines, "", ""]).encode()

    def handshake(self, headers=None, extra=b"", subprotocols=()):
        """Returns the status; with 101, the accept key is right."""
        self.send_bytes(self.request_bytes(headers, subprotocols) + extra)
        self.read_response()
        if self.status == 101:
            accept = base64.b64encode(hashlib.sha1((self.key + GUID).encode()).digest()).decode()
            assert self.headers.get("sec-websocket-accept") == accept, self.headers
        return self.status

    def read_response(self):
        """Reads the head of an HTTP response, and the body if there is one; 0 when the connection ended instead."""
        while b"\r\n\r\n" not in self._input:
            if not self._fill():
                self.status = 0
                return 0
        head = self._take(self._input.index(b"\r\n\r\n") + 4)
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        if self.status != 101:
            length = int(self.headers.get("content-length", 0))
            while len(self._input) < length and self._fill():
                pass
            self.body = self._take(length)
        return self.status

    # ---- sending

    def send_bytes(self, data, piece=None):
        """Sends bytes as they are; in writes of `piece` bytes each, where that is given."""
        if piece is None:
            self.socket.sendall(data)
        else:
            for at in range(0, len(data), piece):
                self.socket.sendall(data[at:at + piece])

    def send(self, message):
        """One whole message: str is text, bytes is binary."""
        self.send_frame(message, TEXT if isinstance(message, str) else BINARY)

    def send_frame(self, payload=b"", opcode=TEXT, **details):
        self.send_bytes(frame(payload, opcode, **details))

    def send_close(self, code=1000, reason=""):
        self.send_frame(close_payload(code, reason), CLOSE)

    # ---- receiving

    def _fill(self, deadline=None):
        """Reads once; False at the end of the connection."""
        if self._eof:
            return False
        left = self.timeout if deadline is None else deadline - time.monotonic()
        self.socket.settimeout(max(left, 0.001))
        try:
            data = self.socket.recv(262144)
        except TimeoutError:
            raise Timeout(f"{self.path}: nothing came; unread so far: {bytes(self._input[:64])!r}") from None
        except (ConnectionResetError, BrokenPipeError):
            self.was_reset = True
            data = b""
        finally:
            self.socket.settimeout(self.timeout)
        self._eof = not data
        self._input += data
        return bool(data)

    def _take(self, count):
        taken = bytes(self._input[:count])
        del self._input[:count]
        return taken

    def _parse(self):
        """A whole frame off the input; None when there is not one yet."""
        data = self._input
        if len(data) < 2:
            return None
        length, at = data[1] & 0x7F, 2
        if length == 126:
            if len(data) < 4:
                return None
            length, at = struct.unpack("!H", data[2:4])[0], 4
        elif length == 127:
            if len(data) < 10:
                return None
            length, at = struct.unpack("!Q", data[2:10])[0], 10
        masked = bool(data[1] & 0x80)
        if masked:
            at += 4
        if len(data) < at + length:
            return None
        first = data[0]
        payload = self._take(at + length)[at:]
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, masked)

    def recv_frame(self, timeout=None):
        """The next frame of whatever kind; None when the connection ended."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while (found := self._parse()) is None:
            if not self._fill(deadline):
                return None
        return found

    def recv(self, timeout=None):
        """The next text (str) or binary (bytes) message, put together; pings are answered on the way. A close frame or
        the end of the connection is a failure."""
        parts, kind = [], None
        while True:
            got = self.recv_frame(timeout)
            assert got is not None, "the connection ended"
            assert got.opcode != CLOSE, f"closed with {got.close_code} {got.payload[2:]!r}"
            if got.opcode == PING:
                self.send_frame(got.payload, PONG)
            elif got.opcode in (TEXT, BINARY, CONTINUATION):
                kind = got.opcode if got.opcode != CONTINUATION else kind
                parts.append(got.payload)
                if got.fin:
                    whole = b"".join(parts)
                    return whole.decode() if kind == TEXT else whole

    def recv_close(self, timeout=None):
        """Skips to the close frame and the end of the connection after it; returns (code, reason). (1006, ""): the end
        came without one."""
        while (got := self.recv_frame(timeout)) is not None:
            if got.opcode == CLOSE:
                try:
                    self.send_frame(got.payload, CLOSE)
                except OSError:
                    pass
                self.recv_eof(timeout)
                return (got.close_code, got.close_reason) if got.payload else (1005, "")
        return (1006, "")

    def until_close(self, timeout=None, clean=False):
        """What comes before the close frame, and its code; 1005: it has none. A connection that ends without one fails.
        The close is answered, and the server then ends the connection. clean: it waited for that answer, and there is
        no reset, which lets other clients lose the close frame."""
        before = []
        while (got := self.recv_frame(timeout)) is not None and got.opcode != CLOSE:
            before.append(got)
        assert got is not None, f"ended without a close frame (1006), after {[one[:2] for one in before][-3:]}"
        assert got.fin and not got.rsv and not got.masked and len(got.payload) in (0, *range(2, 126)), got
        got.payload[2:].decode()  # a reason is UTF-8
        try:
            self.send_frame(got.payload, CLOSE)
        except OSError:
            self.was_reset = True
        self.recv_eof(timeout)
        assert not clean or not self.was_reset, f"a reset, after the close frame with {got.close_code}"
        return before, got.close_code or 1005

    def recv_eof(self, timeout=None):
        """Waits for the end of the connection, whatever comes before."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while self._fill(deadline):
            self._input.clear()

    # ---- the end

    @property
    def local_port(self):
        return self.socket.getsockname()[1]

    def close(self):
        self.socket.close()

    def abort(self):
        """Ends the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
