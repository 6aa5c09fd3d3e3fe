"""Callers who never finish: slowloris in each phase of a connection, half-closed ones, churn, and hoarding."""

import asyncio
import os

from lib.rawws import BINARY, CONTINUATION, PING, PONG, TEXT, frame

from .attack import Attack, raise_fd_limit
from .wire import ENDED, Conn, head

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(32))  # its beginning: 200 bytes are claimed


class Slow(Attack):
    """Connects `callers` times at each door, does what `hold` does, and watches how long it is let."""

    phase = "handshake"
    then = "the broker ends each within handshake_timeout"
    seconds = 6.0
    callers = 25
    plain_too = True
    bound = "handshake"  # or "ping", for those that are online; None: they may stay

    async def prepare(self, door):
        return await Conn.open(door)

    async def hold(self, conn, ground):
        await asyncio.sleep(ground.left)

    async def run(self, ground):
        doors = [door for door in ground.doors if door.tls or self.plain_too]
        await ground.gather(*(self.one(ground, door) for door in doors for _ in range(self.callers)))

    async def one(self, ground, door):
        try:
            conn = await self.prepare(door)
        except (*ENDED, asyncio.TimeoutError):
            ground.count("refused")
            return
        ground.count("held")
        holding = asyncio.ensure_future(self.hold(conn, ground))
        try:
            limit = {"handshake": ground.handshake_timeout + 2, "ping": ground.ping_time + 2}.get(self.bound, ground.left)
            ended = await conn.ended(min(limit, ground.left + 2))
            ground.count("ended by the broker" if ended else "still held")
            if self.bound and not door.proxied:
                ground.check(ended, f"{door}: not ended after {limit:.0f} s")
        finally:
            holding.cancel()
            conn.abort()

    async def trickle(self, conn, ground, data, pause=0.2):
        for at in range(len(data)):
            conn.post(data[at:at + 1])
            await asyncio.sleep(pause)


class SilentTcp(Slow):
    name = "tcp-silent"


class HalfRequestLine(Slow):
    name = "half-request-line"

    async def hold(self, conn, ground):
        conn.post(b"GET /web")


class HalfHead(Slow):
    name, short = "half-head", True

    async def hold(self, conn, ground):
        conn.post(head()[:-20])


class TrickledHead(Slow):
    name = "trickled-head"

    async def hold(self, conn, ground):
        await self.trickle(conn, ground, b"GET /echo HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: slow\r\n" * 100)


class TrickledBody(Slow):
    """A request that isn't an upgrade must not buy time."""
    name = "trickled-body"

    async def hold(self, conn, ground):
        conn.post(b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        await self.trickle(conn, ground, b"x" * 1000)


class KeptAlive(Slow):
    """Nor may requests that are answered, one after the other."""
    name = "kept-alive"

    async def hold(self, conn, ground):
        while True:
            conn.post(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(0.3)


class Connect(Slow):
    name = "connect-method"

    async def hold(self, conn, ground):
        conn.post(b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n")
        await self.trickle(conn, ground, b"x" * 1000)


class HalfHello(Slow):
    name = "tls-half-hello"
    plain_too = False

    async def prepare(self, door):
        return await Conn.open(door, tls=False)

    async def hold(self, conn, ground):
        conn.post(CLIENT_HELLO)


class TrickledHello(HalfHello):
    name = "tls-trickled-hello"

    async def hold(self, conn, ground):
        await self.trickle(conn, ground, CLIENT_HELLO + bytes(160), pause=0.05)


class TlsThenSilence(Slow):
    name = "tls-then-silence"
    plain_too = False


class SilentSession(Slow):
    name = "upgrade-then-silence"
    then = "each is cut when it answers no ping"
    bound, seconds = "ping", 8.0

    async def prepare(self, door):
        return await Conn.upgraded(door)


class HalfFrame(SilentSession):
    name = "half-frame"

    async def hold(self, conn, ground):
        conn.post(frame("x" * 300)[:100])


class TrickledFrame(SilentSession):
    name = "trickled-frame"
    then = "each is cut, or costs no more than the bytes it sent"
    bound = None

    async def hold(self, conn, ground):
        await self.trickle(conn, ground, frame("x" * 60000))


class EndlessMessage(SilentSession):
    """A fragment now and then, of a message that never ends."""
    name = "endless-message"
    then = "each is cut, or costs no more than the bytes it sent"
    bound = None

    async def hold(self, conn, ground):
        conn.post(frame("", TEXT, fin=False))
        while True:
            conn.post(frame("x", CONTINUATION, fin=False))
            await asyncio.sleep(0.2)


class MalformedTls(Attack):
    """Records that are none, of each type, with lengths that are lies, before and after a handshake."""
    name, phase, short = "tls-malformed", "handshake", True
    then = "each connection ends within handshake_timeout"

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, door) for door in ground.doors if door.tls for _ in range(10)))

    def record(self, random):
        kind, length = random.choice([0, 20, 21, 22, 23, 24, 128, 255]), random.choice([0, 1, 5, 200, 16384, 16385, 65535])
        return bytes([kind, random.choice([3, 2, 9]), random.randrange(5)]) + length.to_bytes(2, "big") + random.randbytes(
            min(length, 600))

    async def flood(self, ground, door):
        while ground.more:
            conn = await Conn.open(door, tls=False)
            ground.count("connections")
            data = b"".join(self.record(ground.random) for _ in range(ground.random.randrange(1, 5)))
            conn.post((CLIENT_HELLO if ground.random.random() < 0.3 else b"") + data)
            if ground.random.random() < 0.5:
                conn.half_close()
            if not await conn.ended(ground.handshake_timeout + 2) and not door.proxied:
                ground.fail(f"{door}: not ended after {ground.handshake_timeout + 2:.0f} s")
            conn.abort()


class WrongLayer(Attack):
    """HTTP to a port of TLS, TLS to a port of HTTP, and noise to both."""
    name, phase = "wrong-layer", "handshake"

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, door) for door in ground.doors for _ in range(5)))

    async def flood(self, ground, door):
        while ground.more:
            conn = await Conn.open(door, tls=False)
            ground.count("connections")
            conn.post(ground.random.choice([head(), CLIENT_HELLO, ground.random.randbytes(2000), b"\0" * 5000,
                                            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + head(), b"\r\n" * 2000,
                                            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), b"\x80\x9e\1\3\1"]))
            await conn.ended(0.2)
            conn.abort()


class HalfClosed(Attack):
    """Upgrades, says that it won't send any more, and stays: once in the head, once as a session."""
    name, phase, short = "half-closed", "handshake", True
    then = "each connection ends within handshake_timeout or ping_timeout"
    seconds = 7.0

    async def run(self, ground):
        doors = [door for door in ground.doors if not door.tls]
        await ground.gather(*(self.one(ground, door, online) for door in doors for online in (True, False) for _ in range(50)))

    async def one(self, ground, door, online):
        conn = await (Conn.upgraded(door) if online else Conn.open(door))
        conn.post(frame("bye") if online else head()[:40])
        conn.half_close()
        ground.count("held")
        limit = ground.ping_time + 2 if online else ground.handshake_timeout + 2
        if not await conn.ended(min(limit, ground.left + 2)) and not door.proxied:
            ground.fail(f"{door}: a half-closed {'session' if online else 'head'} not ended after {limit:.0f} s")
        conn.abort()


class Churn(Attack):
    """Comes and goes: with a session, in the middle of its head, before it, each time by a reset or an orderly end."""
    name, phase = "churn", "handshake"

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, door, i) for door in ground.doors for i in range(8)))

    async def flood(self, ground, door, number):
        path = f"/websocket/{ground.name_of(number)}"
        while ground.more:
            kind = ground.random.randrange(4)
            conn = await Conn.open(door)
            ground.count("connections")
            if kind:
                conn.post(head(path)[:None if kind > 1 else 50] + (frame("x") if kind > 2 else b""))
            if kind == 3:
                await conn.response(5)
            if ground.random.random() < 0.5:
                conn.abort()
            else:
                conn.writer.close()


class TakeoverStorm(Attack):
    """Many connections fight over one exclusive name."""
    name, phase = "takeover-storm", "handshake"

    async def run(self, ground):
        ground.name_of(0)
        await ground.gather(*(self.fight(ground, i) for i in range(20)))

    async def fight(self, ground, number):
        while ground.more:
            conn = await ground.upgraded(number, f"/websocket/{ground.mark}/7")
            ground.count("takeovers")
            await asyncio.sleep(0.01)
            conn.abort()


class Hoard(Attack):
    """Most of max_connections from one address, idle, and answering pings."""
    name, phase = "hoard-sessions", "handshake"
    then = "newcomers still come in"
    seconds = 6.0
    size = 1500

    async def run(self, ground):
        async def one(number):
            return await ground.upgraded(number)
        held = await ground.crowd(min(self.size, raise_fd_limit() - 100), one)
        ground.count("held", len(held))
        await ground.gather(*(self.pong(conn) for conn in held), grace=0)

    async def pong(self, conn):
        while (got := await conn._frame()) is not None:
            if got.opcode == PING:
                conn.post(frame(got.payload, PONG, key=b"\0\0\0\0"))


class HoardAll(Hoard):
    """More than max_connections."""
    name = "hoard-beyond"
    then = "those beyond are told 503, and nobody who is in is put out"
    full, size, seconds = True, 5000, 8.0


class HoardHalfOpen(Attack):
    """More than handshakes_limit in the middle of their handshake, renewed as they are dropped, while an honest one shakes hands."""
    name, phase = "hoard-handshakes", "handshake"
    then = "newcomers still come in"
    seconds = 5.0

    async def run(self, ground):
        await ground.gather(*(self.hold(ground, door) for door in ground.doors for _ in range(400)))

    async def hold(self, ground, door):
        while ground.more:
            conn = await Conn.open(door)
            ground.count("connections")
            conn.post(head()[:-30])
            await conn.ended(ground.left)
            conn.abort()


class EarlyFlood(Attack):
    """Megabytes behind a head, before its answer."""
    name, phase = "early-flood", "handshake"

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, i) for i in range(24)))

    async def flood(self, ground, number):
        door = ground.doors[number % len(ground.doors)]
        data = frame(os.urandom(60000), BINARY, key=b"\0\0\0\0") * 30
        while ground.more:
            conn = await Conn.open(door)
            ground.count("connections")
            conn.post(head(ground.random.choice(["/echo", "/none", f"/topics/{ground.name_of(0)}"])) + data)
            await conn.ended(0.5)
            conn.abort()
