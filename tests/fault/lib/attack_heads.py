"""Requests that are no valid upgrade, and valid ones that look odd: each gets its answer, and a valid one its session."""

import asyncio

from lib.rawws import frame

from .attack import Attack
from .wire import ENDED, Conn, converse, head

REFUSED = range(400, 506)
BAD = (400,)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Cases(Attack):
    """A table of requests, each sent on a connection of its own to each door, in one segment and in two. cases() yields (label, bytes,
    the statuses that are right). Behind HAProxy any answer is right that isn't 101 where none is allowed."""

    phase = "head"
    then = "each gets its answer: a status and a sentence, or its session"
    seconds = 4.0
    mended = ()  # what HAProxy makes right on the way: labels, or parts of them

    def cases(self, ground):
        raise NotImplementedError

    async def run(self, ground):
        gate = asyncio.Semaphore(16)
        cases = list(self.cases(ground))
        await ground.gather(*(self.one(ground, gate, door, *case, split) for split in (False, True) for case in cases
                              for door in ground.doors), grace=4)

    async def one(self, ground, gate, door, label, data, right, split):
        async with gate:
            if not ground.more:
                ground.count("not reached")
                return
            ground.count("requests")
            status, headers, body = await (self.in_two(door, data) if split else converse(door, data, 4))
        where = f"{door}{' in two' if split else ''}: {label}"
        if status is None:
            ground.fail(f"{where}: no answer")
        elif door.proxied:
            ground.check(status != 101 or 101 in right or any(part in label for part in self.mended), f"{where}: 101")
        elif status not in right:
            ground.fail(f"{where}: {status or 'no answer, but an end'}")
        elif status >= 400:
            ground.check(body, f"{where}: {status} without a sentence")
            kind = headers.get("content-type", "").split(";")[0]
            ground.check(kind in ("text/plain", "application/problem+json"), f"{where}: {status} as {kind or 'nothing'}")

    async def in_two(self, door, data):
        """The request in two segments, cut in the middle of what is cut worst: a name or an end of line."""
        try:
            conn = await Conn.open(door)
        except (*ENDED, asyncio.TimeoutError):
            return 0, {}, b""
        try:
            middle = max(data.find(b"\r\n") + 1, len(data) // 2)
            await conn.send(data[:middle])
            await asyncio.sleep(0.02)
            await conn.send(data[middle:])
        except (*ENDED, asyncio.TimeoutError):
            pass
        await conn.response(4)
        conn.abort()
        return conn.status, conn.headers, conn.body


class Methods(Cases):
    """Upgrades by other methods, of other versions, and without a Host, or with two."""
    name, short = "methods", True
    mended = ("HTTP/",)

    def cases(self, ground):
        for method in ("POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "G", "X" * 300):
            # HEAD has no body, so no sentence either; it isn't looked at here.
            if method != "HEAD":
                yield f"{method} upgrade", head(method=method), REFUSED
        for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/9.9", "HTTP/2.0", "http/1.1", "HTTP/1.1x", ""):
            yield f"{version or 'no version'} upgrade", head(version=version), REFUSED
        yield "no Host", head(fields={"Host": None}), BAD
        yield "two Hosts", head(extra=["Host: other"]), BAD
        yield "a body", head(fields={"Content-Length": 5}) + b"hello", BAD
        yield "a chunked body", head(fields={"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n", BAD
        yield "two lengths", head(extra=["Content-Length: 0", "Content-Length: 5"]) + b"hello", BAD
        yield "POST with a body", head(method="POST", fields={"Content-Length": 5}) + b"hello", REFUSED


class Lines(Cases):
    """Field lines that RFC 9112 forbids."""
    name = "header-lines"
    mended = ("",)

    def cases(self, ground):
        lines = {"a name with a space": "X Y: 1", "a space before the colon": "X : 1", "no colon": "XY", "no name": ": 1",
                 "a folded line": "X: 1\r\n folded", "a folded line with a tab": "X: 1\r\n\tfolded", "NUL in a name": "X\0: 1",
                 "NUL in a value": "X: a\0b", "a control character": "X: a\x01b", "a bare CR": "X: a\rb", "DEL": "X: a\x7fb",
                 "a name of UTF-8": "Xé: 1", "a name with a parenthesis": "X(: 1", "a bare LF": "X: 1\nY: 2"}
        for label, line in lines.items():
            # A bare LF as the end of a line may be taken for one (RFC 9112, 2.2).
            yield label, head(extra=[line]), (*BAD, 101) if label == "a bare LF" else BAD
        yield "a first line that is folded", b"GET /echo HTTP/1.1\r\n" + b" X: 1\r\n" + head()[20:], BAD
        yield "a tab in the first line", head().replace(b"GET /echo", b"GET\t/echo"), BAD
        yield "two spaces in the first line", head().replace(b"GET /echo", b"GET  /echo"), BAD


class Websocket(Cases):
    """What RFC 6455 asks of a handshake."""
    name = "handshake-fields"

    def cases(self, ground):
        for label, fields in {
                "no key": {"Sec-WebSocket-Key": None}, "an empty key": {"Sec-WebSocket-Key": ""},
                "a short key": {"Sec-WebSocket-Key": "dGhl"}, "a key that is no base64": {"Sec-WebSocket-Key": "!" * 24},
                "a long key": {"Sec-WebSocket-Key": "A" * 500}, "version 12": {"Sec-WebSocket-Version": "12"},
                "no version": {"Sec-WebSocket-Version": None}, "version 13x": {"Sec-WebSocket-Version": "13x"},
                "an unknown subprotocol": {"Sec-WebSocket-Protocol": "mqtt"}, "no Connection": {"Connection": None},
                "Connection: close": {"Connection": "close"}, "another upgrade": {"Upgrade": "tls"},
                "an empty upgrade": {"Upgrade": ""}, "no upgrade": {"Upgrade": None}}.items():
            yield label, head(fields=fields), REFUSED
        yield "two keys", head(extra=["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]), REFUSED
        for label, fields in {"keep-alive, Upgrade": {"Connection": "keep-alive, Upgrade"}, "WebSocket": {"Upgrade": "WebSocket"},
                              "deflate": {"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=99"},
                              "extensions": {"Sec-WebSocket-Extensions": ", ".join(["x; y=1"] * 60)},
                              "500 subprotocols": {"Sec-WebSocket-Protocol": ", ".join([f"p{i}" for i in range(500)] + [
                                  "switchboard.json.v1"])}}.items():
            yield label, head(fields=fields), (101, 400)


class Prefixes(Cases):
    """Names that are the beginning of known ones, before Upgrade and before Host."""
    name, short = "header-prefixes", True
    then = "each gets its session"

    def cases(self, ground):
        for name in ("X-Auth", "X-Real", "X", "User", "Proxy", "X-Forwarded", "X-", "Sec-WebSocket", "Accept", "A", "Con", "U", "H"):
            line, rest = f"{name}: 1\r\n".encode(), head().split(b"\r\n", 2)
            yield f"{name} before Host", rest[0] + b"\r\n" + line + rest[1] + b"\r\n" + rest[2], (101,)
            yield f"{name} before Upgrade", rest[0] + b"\r\n" + rest[1] + b"\r\n" + line + rest[2], (101,)


class Sizes(Cases):
    """Heads around each size that a buffer somewhere may have, and first lines."""
    name, short = "head-sizes", True
    then = "heads up to 16 KiB get their session, longer ones 431"

    def cases(self, ground):
        for size in (2048, 4000, 4090, 4094, 4095, 4096, 4097, 4200, 8000, 8191, 8192, 8193, 12000, 16000):
            yield f"a head of {size}", self.padded(size), (101,)
        for size in (17000, 20000, 33000, 66000, 300000):
            yield f"a head of {size}", self.padded(size), (431, 413, 400)
        yield "2,000 fields", head(extra=[f"X{i}: 1" for i in range(2000)]), (431, 400)
        for size in (2000, 4000, 4015, 4050, 4094, 4096, 4100, 8192, 16300, 40000):
            yield f"a first line of {size}", head("/websocket/" + "a" * (size - 24)), (400, 404, 414, 431)

    def padded(self, size):
        plain = head(fields={"Cookie": ""})
        return head(fields={"Cookie": "c" * (size - len(plain))})


class Paths(Cases):
    """The raw path decides, once."""
    name, short = "paths", True
    then = "what is no route by its raw path is refused"

    def cases(self, ground):
        refused, name = (400, 404), ground.name_of(0)
        for path, right in {
                f"/websocket%2F{name}": refused, f"/x/../websocket/{name}": refused, f"/./websocket/{name}": refused,
                f"/websocket/{name}/..": refused, f"/%77ebsocket%2f{name}": refused, "/websocket/a%0d%0ab": (400,),
                "/websocket/a%00b": (400,), "/websocket/%zz": (400,), "/websocket/%": (400,), "/websocket/%f": (400,),
                "/websocket/%ff": (400,), "/websocket/%ed%a0%80": (400,), "/websocket/%1b%5b2J": (400,),
                "/websocket/": refused, "/websocket//x": refused, "///": (*refused, 426), "": (400,), "*": (400,), "websocket/a": (400,),
                f"//websocket/{name}": (101, *refused), f"/websocket/{name}?a=%zz": (101, 400), f"/websocket/{name}#x": (101, 400),
                f"http://localhost/websocket/{name}": (101, *refused), "http://localhost": refused, "http://": (400,),
                f"/websocket/{name}/007": (400, 404), f"/websocket/{name}/+5": (400, 404), "/websocket/" + "a" * 256: (400,),
                "/websocket/" + "%41" * 300: (400,), "/" + "a/" * 500: refused, "/" * 1000: (*refused, 426),
                "/" + "%2F" * 500: refused, "/" + "../" * 300 + "etc/passwd": refused, "/connect?user=a&user=b": (400,),
                "/connect?session=": (400,), "/connect?usr=a": (400,), "/connect?since=abc": (400,)}.items():
            yield f"{path[:40]!r}", head(path), right


class Pipelined(Attack):
    """Several requests on one connection, together and apart: only the first is judged, and none that comes later is judged by
    another rule."""
    name, phase, short = "pipelined", "head", True
    then = "no later request is admitted where a first one wouldn't be"

    get = b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n"
    page = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"

    async def run(self, ground):
        hidden = head(f"/websocket%2F{ground.name_of(0)}")
        bare = head(fields={"Sec-WebSocket-Version": "12"})
        rows = [[self.get + self.post], [self.post + self.get], [self.get * 50], [self.post * 50], [self.page * 20],
                [self.get, hidden], [self.get + hidden], [self.page, hidden], [self.post, hidden], [bare, hidden],
                [self.get[:-2] + b"Content-Length: 5\r\n\r\n" + b"hello" + hidden], [self.get + b"x" * 70000],
                [self.page + self.post + self.page], [b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden]]
        await ground.gather(*(self.one(ground, door, row) for door in ground.doors for row in rows))

    async def one(self, ground, door, pieces):
        while ground.more:
            conn = await Conn.open(door)
            ground.count("connections")
            try:
                for data in pieces:
                    await conn.send(data, 5)
                    for _ in range(1 if len(pieces) > 1 else 3):
                        await conn.response(0.5)
                        ground.check(conn.status != 101, f"{door}: 101 for a hidden path after another request")
            except ENDED:
                pass
            finally:
                conn.abort()
            await asyncio.sleep(0.05)


class H2c(Attack):
    """HTTP/2 where nobody asked for it: by upgrade, by prior knowledge, within TLS, for the page and for sessions."""
    name, phase, short = "h2c", "head", True
    then = "never 101"

    settings = "AAMAAABkAARAAAAAAAIAAAAA"
    # :method GET, :scheme http, :path /, all from the static table; then one with a path that is no route
    headers = [b"\0\0\3\1\5\0\0\0\3\x82\x86\x84", b"\0\0\3\1\5\0\0\0\1\x82\x86\x84",
               b"\0\0\x0c\1\5\0\0\0\5\x82\x86\x04\x08/echo/xy"[:9 + 12], b"\0\0\4\1\5\0\0\0\7\x83\x86\x84\x40"]

    async def run(self, ground):
        fields = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": self.settings,
                  "Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None}
        known = {**fields, "Sec-WebSocket-Version": "13"}
        openings = [head("/", fields), head("/none", known), head("/websocket/x", fields), head("/", {**fields, "Upgrade": "h2c, websocket"}),
                    head("/echo", known), head("/websocket/x", known), head("/echo", {**known, "Sec-WebSocket-Version": "12"}),
                    head("/echo", {"Upgrade": "websocket, h2c", "HTTP2-Settings": self.settings}), b""]
        await ground.gather(*(self.one(ground, door, opening) for door in ground.doors for opening in openings))

    async def one(self, ground, door, opening):
        while ground.more:
            conn = await Conn.open(door)
            ground.count("connections")
            follow = [PREFACE + b"\0\0\0\4\0\0\0\0\0", *self.headers, frame("x")]
            try:
                if opening and ground.random.random() < 0.7:
                    await conn.send(opening)
                    await conn.response(2)
                    ground.check(conn.status != 101 or not conn.headers.get("upgrade", "").startswith("h2"), f"{door}: 101 to h2c")
                    for piece in follow:
                        await conn.send(piece)
                        await asyncio.sleep(0.05)
                else:
                    await conn.send(opening + b"".join(follow))
                await conn.ended(0.3)
            except ENDED:
                pass
            finally:
                conn.abort()


class RandomHeads(Attack):
    """A valid head with bytes changed, taken away, put in and doubled, forever."""
    name, phase = "mutated-heads", "head"
    seconds = 6.0

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, door) for door in ground.doors for _ in range(6)))

    async def flood(self, ground, door):
        random = ground.random
        while ground.more:
            data = bytearray(head(random.choice(["/echo", f"/websocket/{ground.name_of(0)}", "/", "/none"])))
            for _ in range(random.randrange(1, 6)):
                at = random.randrange(len(data))
                kind = random.randrange(4)
                if kind == 0:
                    data[at] = random.randrange(256)
                elif kind == 1:
                    del data[at:at + random.randrange(1, 20)]
                elif kind == 2:
                    data[at:at] = random.choice([b"\r\n", b"\n", b"\0", b": ", b"\r\n ", b"%00", random.randbytes(8)])
                else:
                    data += data[at:at + 200]
            ground.count("requests")
            conn = await Conn.open(door)
            conn.post(bytes(data))
            await conn.response(0.05)
            conn.abort()
