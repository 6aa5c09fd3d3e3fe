"""Clients who don't read what they are sent."""

import asyncio

from lib.rawws import BINARY, PONG, TEXT, frame

from .attack import Attack
from .wire import ENDED, NO_MASK, Structured, http

PONG_FRAME = frame("", PONG, key=NO_MASK)


class NeverRead(Attack):
    """Each asks for more than its outbox holds, reads nothing, and says with pongs nobody asked for that it lives."""
    name, phase, short = "never-read-with-pongs", "reader", True
    then = "each is cut at its limits"
    seconds = 8.0
    callers = 240  # 60 at each door
    pongs = True

    async def run(self, ground):
        await ground.gather(*(self.one(ground, i) for i in range(self.callers)))

    async def one(self, ground, number):
        conn = await ground.upgraded(number, rcvbuf=4096, limit=1024)
        conn.stop_reading()
        ground.count("held")
        data = frame(bytes(60000), BINARY, key=NO_MASK)
        try:
            for _ in range(140):  # 8 MiB: what outbox and kernel hold, and more
                await conn.send(data, 2)
                ground.count("bytes", len(data))
        except asyncio.TimeoutError:
            pass
        while ground.more:
            if self.pongs and conn.unsent < 1 << 20:
                conn.post(PONG_FRAME * 10)
            await asyncio.sleep(0.2)


class NeverReadSilent(NeverRead):
    name, pongs = "never-read", False


class SlowlyRead(Attack):
    """Reads a little now and then: enough to live, never enough to catch up."""
    name, phase = "slowly-read", "reader"
    then = "each is cut, or what it holds stays within the budget"
    seconds = 6.0

    async def run(self, ground):
        await ground.gather(*(self.one(ground, i) for i in range(60)))

    async def one(self, ground, number):
        conn = await ground.upgraded(number, rcvbuf=4096, limit=1024)
        conn.stop_reading()
        sending = asyncio.ensure_future(self.ask(ground, conn))
        try:
            while ground.more:
                await asyncio.sleep(0.3)
                conn.writer.transport.resume_reading()
                await conn.reader.read(2000)
                conn.writer.transport.pause_reading()
                conn.post(PONG_FRAME)
        finally:
            sending.cancel()

    async def ask(self, ground, conn):
        data = frame(bytes(60000), BINARY, key=NO_MASK)
        try:
            while ground.more:
                await conn.send(data, ground.left + 1)
        except (*ENDED, asyncio.TimeoutError):
            ground.count("cut")


class TopicReaders(Attack):
    """A busy topic of which nobody reads."""
    name, phase = "unread-topic", "reader"
    seconds = 6.0

    async def run(self, ground):
        topic = f"{ground.mark}.busy"

        async def one(number):
            conn = await ground.upgraded(number, f"/topics/{topic}", rcvbuf=4096, limit=1024)
            conn.stop_reading()
            return conn
        held = await ground.crowd(150, one)
        ground.count("held", len(held))
        speaker = await ground.upgraded(0, f"/topics/{topic}")
        reading = asyncio.ensure_future(speaker.swallow())
        data = frame("x" * 30000, TEXT, key=NO_MASK)
        try:
            while ground.more:
                await speaker.send(data, ground.left + 1)
                ground.count("messages")
                for conn in held:
                    if conn.unsent < 65536:
                        conn.nudge(PONG_FRAME)
                await asyncio.sleep(0.01)
        except asyncio.TimeoutError:
            pass
        finally:
            reading.cancel()


class UnreadReplies(Attack):
    """Structured clients that ask for long answers, and read none."""
    name, phase = "unread-replies", "reader"
    then = "each is read no further, or cut"
    seconds = 6.0

    async def run(self, ground):
        topic = f"{ground.mark}.long"
        for i in range(100):
            await http(ground.apis[0], f"/v1/publish/{topic}?store=true", "POST", b"x" * 5000, ground.bearer)
        await ground.gather(*(self.one(ground, i, topic) for i in range(40)))

    async def one(self, ground, number, topic):
        client = await Structured.open(ground.doors[number % len(ground.doors)], rcvbuf=4096, limit=65536)
        client.conn.stop_reading()
        ground.count("held")
        while ground.more:
            try:
                await client.send(*(client.command("history", address=f"topic:{topic}", limit=100) for _ in range(20)))
                ground.count("commands", 20)
            except asyncio.TimeoutError:
                pass
            client.conn.post(PONG_FRAME)
            await asyncio.sleep(0.05)
