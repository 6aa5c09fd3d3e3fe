"""Floods of each kind of frame, right and wrong ones."""

import asyncio

from lib.rawws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

from .attack import Attack
from .wire import ENDED, NO_MASK


def plain(payload, opcode=TEXT, **details):
    return frame(payload, opcode, key=NO_MASK, **details)


class Flood(Attack):
    """Sends one burst after the other on `callers` connections, and reads what comes back."""

    phase = "frame"
    callers = 4
    path = "/echo"

    def burst(self, ground):
        raise NotImplementedError

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, i) for i in range(self.callers)))

    async def flood(self, ground, number):
        data = self.burst(ground)
        while ground.more:
            conn = await ground.upgraded(number, self.path.format(name=ground.name_of(number)))
            reading = asyncio.ensure_future(conn.swallow())
            try:
                while ground.more and not reading.done():
                    await conn.send(data, ground.left + 1)
                    ground.count("bursts")
            except (*ENDED, asyncio.TimeoutError):
                ground.count("cut")
            finally:
                reading.cancel()
                conn.abort()


class TextFlood(Flood):
    name = "text-flood"

    def burst(self, ground):
        return plain("flood") * 2000


class TopicFlood(Flood):
    """All on one topic: each message goes to each."""
    name, path = "topic-flood", "/topics/foe"

    def burst(self, ground):
        return plain("flood") * 200


class UserFlood(Flood):
    name, path = "user-flood", "/websocket/{name}"

    def burst(self, ground):
        return plain("flood") * 500


class BinaryFlood(Flood):
    name = "binary-flood"

    def burst(self, ground):
        return plain(bytes(60000), BINARY) * 16


class EmptyFlood(Flood):
    name = "empty-flood"

    def burst(self, ground):
        return plain("") * 8000


class PingFlood(Flood):
    name = "ping-flood"

    def burst(self, ground):
        return plain(bytes(125), PING) * 500


class PongFlood(Flood):
    name = "pong-flood"

    def burst(self, ground):
        return plain(bytes(125), PONG) * 500


class TinyFragments(Flood):
    """Messages of which each byte is a frame, with pings in between."""
    name = "tiny-fragments"

    def burst(self, ground):
        one = plain("a", fin=False) + (plain("b", CONTINUATION, fin=False) * 50 + plain("", PING)) * 20
        return (one + plain("", CONTINUATION)) * 5


class EmptyFragments(Flood):
    """A message of nothing but empty fragments, without an end."""
    name = "empty-fragments"

    def burst(self, ground):
        return plain("", fin=False) + plain("", CONTINUATION, fin=False) * 8000 + plain("", CONTINUATION)


class Wrong(Attack):
    """Frames that are wrong, each on connections of their own, again and again; `cases` has what closes them."""

    phase = "frame"
    then = "each connection is closed with the code that is right, in a close frame"
    before = b""

    def cases(self, ground):
        raise NotImplementedError

    async def run(self, ground):
        await ground.gather(*(self.one(ground, i, *case) for case in self.cases(ground) for i in range(len(ground.doors))))

    async def one(self, ground, number, label, data, right):
        while ground.more:
            conn = await ground.upgraded(number)
            ground.count("connections")
            try:
                await conn.send(data, 5)
            except (*ENDED, asyncio.TimeoutError):
                pass
            code = await conn.close_code(5)
            ground.check(code == right, f"{label}: {code}, not {right}")
            conn.abort()
            await asyncio.sleep(0.1)


class WrongFrames(Wrong):
    name, short = "wrong-frames", True

    def cases(self, ground):
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            yield f"opcode {opcode}", frame("hi", opcode) * 3, 1002
        for rsv in (1, 2, 4, 7):
            yield f"RSV {rsv}", frame("hi", rsv=rsv) * 3, 1002
            yield f"RSV {rsv} in a ping", frame("hi", PING, rsv=rsv), 1002
        yield "no mask", frame("hi", mask=False), 1002
        yield "a ping without a mask", frame("hi", PING, mask=False), 1002
        yield "a close without a mask", frame(close_payload(1000), CLOSE, mask=False), 1002
        yield "a continuation of nothing", frame("hi", CONTINUATION), 1002
        yield "an unfinished continuation of nothing", frame("hi", CONTINUATION, fin=False), 1002
        yield "text within fragments", frame("a", fin=False) + frame("b"), 1002
        yield "binary within fragments", frame("a", fin=False) + frame("b", BINARY), 1002
        yield "a fragmented ping", frame("a", PING, fin=False), 1002
        yield "a fragmented close", frame(close_payload(1000), CLOSE, fin=False), 1002
        yield "a ping of 126", frame(bytes(126), PING), 1002
        yield "a pong of 126", frame(bytes(126), PONG), 1002
        yield "a ping of 70,000", frame(bytes(70000), PING), 1002
        yield "a long form of a short length", frame("hi", form=16), 1002
        yield "the longest form of a short length", frame("hi", form=64), 1002
        yield "a length of 2^63", frame("hi", claim=1 << 63), 1002


class Closes(Wrong):
    name = "closes"

    def cases(self, ground):
        yield "a close of one byte", frame(b"\3", CLOSE), 1002
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
            yield f"close {code}", frame(close_payload(code), CLOSE), 1002
        yield "a reason that is no UTF-8", frame(close_payload(1000) + b"\xff", CLOSE), 1007
        yield "no code", frame(b"", CLOSE), 1005
        yield "many closes", frame(close_payload(1000), CLOSE) * 500, 1000
        yield "close and a flood", frame(close_payload(1000), CLOSE) + plain(bytes(60000), BINARY) * 20, 1000


class BadText(Wrong):
    name = "bad-text"

    def cases(self, ground):
        for text in (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"cut \xce"):
            yield f"{text!r}", frame(text), 1007
        yield "in fragments", frame(b"\xe4\xbd", fin=False) + frame(b"a", CONTINUATION), 1007


class TooLong(Wrong):
    """Messages beyond max_message, whole and in pieces, and lengths that only claim to be."""
    name, short = "too-long", True

    def cases(self, ground):
        half = plain(bytes(512 << 10), BINARY, fin=False)
        more = plain(bytes(512 << 10), CONTINUATION, fin=False)
        yield "2 MiB in one frame", plain(bytes(2 << 20), BINARY), 1009
        yield "one byte too many", plain(bytes((1 << 20) + 1), BINARY), 1009
        yield "three halves", half + more + plain(bytes(512 << 10), CONTINUATION), 1009
        yield "ten halves", half + more * 9, 1009
        yield "a claim of 1 TiB", plain(bytes(2 << 20), BINARY, claim=1 << 40), 1009
        yield "endless small pieces", plain(b"", BINARY, fin=False) + plain(bytes(1000), CONTINUATION, fin=False) * 1200, 1009


class Noise(Flood):
    """Random bytes for frames."""
    name, callers = "noise", 16

    def burst(self, ground):
        return ground.random.randbytes(4000)


class ManyPings(Attack):
    """Ten pings in one segment: each has its pong, or at least the last one (RFC 6455, 5.5.3), whatever arrives meanwhile."""
    name, phase = "pings-at-once", "frame"
    then = "the last ping of each segment is answered"

    async def run(self, ground):
        await ground.gather(*(self.one(ground, i) for i in range(8)))

    async def one(self, ground, number):
        while ground.more:
            conn = await ground.upgraded(number)
            ground.count("connections")
            for turn in range(20):
                last = f"{turn}.9".encode()
                await conn.send(b"".join(frame(f"{turn}.{i}", PING) for i in range(10)))
                try:
                    while (got := await conn.frame(3)) is not None and got.payload != last:
                        ground.count("pongs")
                except asyncio.TimeoutError:
                    ground.fail("the last ping of ten has no pong")
                    break
            conn.abort()


class Unfinished(Attack):
    """Messages of nearly 1 MiB, of which the end never comes: eight hundred at each broker."""
    name, phase = "unfinished-messages", "frame"
    then = "what they hold is bounded for all together"
    seconds = 10.0
    size = 1600

    async def run(self, ground):
        data = plain(bytes(300 << 10), BINARY, fin=False) + plain(bytes(300 << 10), CONTINUATION, fin=False) * 2
        held = []

        async def one(number):
            conn = await ground.upgraded(number, limit=1024)
            held.append(conn)
            await conn.send(data, 10)
            ground.count("held")
            return conn
        await asyncio.wait([asyncio.ensure_future(ground.crowd(self.size, one, at_once=32))], timeout=ground.left)
        while ground.more:  # they are alive, as anybody can see
            for conn in held:
                conn.nudge(plain("", PONG))
            await asyncio.sleep(0.5)
