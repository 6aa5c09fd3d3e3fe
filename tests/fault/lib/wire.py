"""Sockets for attackers and for those who measure: bytes as they are, on asyncio, each wait with an end."""

import asyncio
import base64
import hashlib
import json
import os
import socket
import ssl
import struct

from lib.rawws import BINARY, CLOSE, PING, PONG, TEXT, Frame, frame

ENDED = (OSError, ssl.SSLError, asyncio.IncompleteReadError, EOFError)
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
           "Sec-WebSocket-Version": "13"}
NO_MASK = b"\0\0\0\0"  # a mask that changes nothing: large frames then cost their sender nothing


def trusting():
    """A client's TLS that takes any certificate: whom it talks to is known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Door:
    """A way in: name, port, whether it speaks TLS, and whether HAProxy stands before it."""

    def __init__(self, name, port, tls=False, proxied=False):
        self.name, self.port, self.tls, self.proxied = name, port, tls, proxied

    def __str__(self):
        return self.name


def head(path="/echo", fields=None, method="GET", version="HTTP/1.1", extra=()):
    """A request's head. A field that is None is left out; extra: lines as they are."""
    lines = [f"{name}: {value}" for name, value in {**UPGRADE, **(fields or {})}.items() if value is not None]
    text = "\r\n".join([f"{method} {path} {version}", *lines, *extra, "", ""])
    return text.encode("utf-8", "surrogateescape")


class Conn:
    """One connection. Use open(), which has shaken hands with TCP and TLS."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.status, self.headers, self.body = None, {}, b""

    @classmethod
    async def open(cls, door, tls=None, rcvbuf=None, limit=65536, timeout=5, source=None):
        """tls: otherwise than the door wants it. limit: bytes read ahead, twice of it at most. source: the address to come from."""
        one = socket.socket()
        try:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if rcvbuf:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            if source:
                one.bind((source, 0))
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", door.port)), timeout)
            secure = door.tls if tls is None else tls
            options = {"ssl": trusting(), "server_hostname": "localhost"} if secure else {}
            return cls(*await asyncio.wait_for(asyncio.open_connection(sock=one, limit=limit, **options), timeout))
        except BaseException:
            one.close()
            raise

    @classmethod
    async def upgraded(cls, door, path="/echo", fields=None, protocol=None, **options):
        """A WebSocket; ConnectionRefusedError when the answer is another."""
        conn = await cls.open(door, **options)
        try:
            if protocol:
                fields = {**(fields or {}), "Sec-WebSocket-Protocol": protocol}
            await conn.send(head(path, fields))
            if await conn.response(5) != 101:
                raise ConnectionRefusedError(f"{path} at {door}: {conn.status} {conn.body[:80]!r}")
            return conn
        except BaseException:
            conn.abort()
            raise

    async def send(self, data, timeout=20):
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), timeout)

    def post(self, data):
        """Sends without waiting: what the socket doesn't take stays in memory."""
        if self.writer.is_closing():
            raise ConnectionResetError("the connection is gone")
        self.writer.write(data)

    def nudge(self, data):
        """post(), where there is still somebody."""
        if not self.writer.is_closing():
            self.writer.write(data)

    @property
    def unsent(self):
        return self.writer.transport.get_write_buffer_size()

    def stop_reading(self):
        self.writer.transport.pause_reading()

    async def response(self, timeout=5):
        """The status of an HTTP response; 0 when the connection ended instead, None when nothing came in time."""
        try:
            text = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), timeout)
            first, *lines = text.decode("latin-1").rstrip("\r\n").split("\r\n")
            self.status = int(first.split()[1])
            self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(self.headers.get("content-length", 0))
            if self.status != 101 and length:
                self.body = await asyncio.wait_for(self.reader.readexactly(length), timeout)
        except asyncio.TimeoutError:
            self.status = None
        except (*ENDED, ValueError, IndexError, asyncio.LimitOverrunError):
            self.status = 0
        return self.status

    async def frame(self, timeout=5):
        """The next frame; None at the end of the connection. asyncio.TimeoutError when there was none in time."""
        return await asyncio.wait_for(self._frame(), timeout)

    async def _frame(self):
        try:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack("!H", await self.reader.readexactly(2))[0]
            elif length == 127:
                length = struct.unpack("!Q", await self.reader.readexactly(8))[0]
            payload = await self.reader.readexactly(length)
        except ENDED:
            return None
        return Frame(first & 15, payload, bool(first & 0x80), first >> 4 & 7, bool(second & 0x80))

    async def close_code(self, timeout=5):
        """Skips to the close frame; 1006: the connection ended without one, None: neither within the time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        try:
            while (got := await self.frame(max(end - loop.time(), 0.01))) is not None:
                if got.opcode == CLOSE:
                    return got.close_code or 1005
        except asyncio.TimeoutError:
            return None
        return 1006

    async def swallow(self):
        """Reads, and forgets, until the connection ends."""
        try:
            while await self.reader.read(1 << 18):
                pass
        except ENDED:
            pass

    async def ended(self, timeout):
        """Whether the other side ended the connection within the time."""
        try:
            await asyncio.wait_for(self.swallow(), timeout)
            return True
        except asyncio.TimeoutError:
            return False

    def half_close(self):
        if self.writer.can_write_eof():
            self.writer.write_eof()

    def abort(self):
        self.writer.transport.abort()


async def converse(door, data, timeout=5, **options):
    """Sends bytes on a connection of their own; returns (status, headers, body) as Conn.response() has them."""
    try:
        conn = await Conn.open(door, timeout=timeout, **options)
    except asyncio.TimeoutError:
        return None, {}, b""
    except ENDED:
        return 0, {}, b""
    try:
        try:
            await conn.send(data, timeout)
        except (*ENDED, asyncio.TimeoutError):
            pass  # an answer may have come before the end
        await conn.response(timeout)
        return conn.status, conn.headers, conn.body
    finally:
        conn.abort()


async def http(port, path, method="GET", body=b"", fields=None, timeout=5):
    """One request to the API's port: (status, body)."""
    lines = {"Host": f"127.0.0.1:{port}", "Connection": "close", **(fields or {})}
    if body or method == "POST":
        lines["Content-Length"] = len(body)
    text = "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in lines.items()), "", ""]).encode()
    status, _, body = await converse(Door("api", port), text + body, timeout)
    return status, body


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def random_key():
    return base64.b64encode(os.urandom(16)).decode()


class Structured:
    """A JSON client over a Conn: commands are written, replies read by whoever wants them."""

    def __init__(self, conn):
        self.conn = conn
        self.next = 1

    @classmethod
    async def open(cls, door, path="/connect", hello=True, **options):
        one = cls(await Conn.upgraded(door, path, protocol="switchboard.json.v1", **options))
        if hello:
            await one.conn.frame(10)
        return one

    def command(self, cmd, **fields):
        """The text of a command, with an id of its own."""
        self.next += 1
        return json.dumps({"id": self.next - 1, "cmd": cmd, **fields}, separators=(",", ":"))

    async def send(self, *commands):
        """All commands in one message."""
        await self.conn.send(frame("\n".join(commands), TEXT, key=NO_MASK))

    async def call(self, cmd, timeout=10, **fields):
        """Sends, and skips to the reply."""
        number = self.next
        await self.send(self.command(cmd, **fields))
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            got = await self.conn.frame(max(end - loop.time(), 0.01))
            if got is None or got.opcode == CLOSE:
                raise ConnectionResetError(f"{cmd}: closed with {got.close_code if got else 1006}")
            if got.opcode == PING:
                self.conn.post(frame(got.payload, PONG))
            elif got.opcode in (TEXT, BINARY):
                for line in got.payload.split(b"\n"):
                    if line and (answer := json.loads(line)).get("id") == number:
                        return answer
