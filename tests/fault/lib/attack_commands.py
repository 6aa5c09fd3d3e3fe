"""Floods of each command of the structured clients, and of the plain ones' counterpart."""

import asyncio

from lib.rawws import frame

from .attack import Attack
from .wire import ENDED, Structured, http


class Commands(Attack):
    """`callers` clients that send the same long message of commands again and again, and read the replies or don't."""

    phase = "command"
    callers = 4
    in_one = 600
    reading = True

    async def prepare(self, ground):
        """Before the flood begins."""

    def commands(self, ground, client, number):
        """The commands of one message."""
        raise NotImplementedError

    async def run(self, ground):
        await self.prepare(ground)
        await ground.gather(*(self.flood(ground, i) for i in range(self.callers)))

    async def flood(self, ground, number):
        while ground.more:
            client = await Structured.open(ground.doors[number % len(ground.doors)], f"/connect?user={ground.name_of(number)}")
            reading = asyncio.ensure_future(client.conn.swallow()) if self.reading else None
            try:
                while ground.more and not (reading and reading.done()):
                    commands = list(self.commands(ground, client, number))
                    await asyncio.wait_for(client.send(*commands), ground.left + 1)
                    ground.count("commands", len(commands))
            except (*ENDED, asyncio.TimeoutError):
                ground.count("cut")
            finally:
                if reading:
                    reading.cancel()
                client.conn.abort()


class HistoryFlood(Commands):
    """600 reads of a thousand messages each, in one message of 23 kB."""
    name, short = "history-flood", True
    seconds = 5.0

    async def prepare(self, ground):
        self.topic = f"{ground.mark}.history"
        lines = b"\n".join(b'{"cmd":"publish","topic":"%s","store":true,"text":"%s"}' % (self.topic.encode(), b"x" * 2000)
                           for _ in range(1000))
        await http(ground.apis[0], "/v1/batch", "POST", lines, ground.bearer, timeout=20)

    def commands(self, ground, client, number):
        for _ in range(self.in_one):
            yield client.command("history", address=f"topic:{self.topic}", limit=1000)


class RecoveryFlood(HistoryFlood):
    """The same by subscribing since the beginning, over and over."""
    name = "recovery-flood"

    def commands(self, ground, client, number):
        for _ in range(self.in_one // 2):
            yield client.command("subscribe", topic=self.topic, since={})
            yield client.command("unsubscribe", topic=self.topic)


class PresenceFlood(Commands):
    """Who is there, of a crowd, 600 times in one message."""
    name = "presence-flood"
    seconds = 5.0
    crowd = 300

    async def prepare(self, ground):
        self.topic = f"{ground.mark}.crowd"

        async def one(number):
            client = await Structured.open(ground.doors[number % len(ground.doors)],
                                           f"/connect?user={ground.name_of(number)}{'y' * 100}")
            await client.send(client.command("subscribe", topic=self.topic, presence=True))
            return client
        self.held = await ground.crowd(self.crowd, one)

    def commands(self, ground, client, number):
        for _ in range(self.in_one):
            yield client.command("presence", address=f"topic:{self.topic}")


class PresenceChurn(Commands):
    """In and out of a presence that a crowd watches."""
    name = "presence-churn"

    async def prepare(self, ground):
        self.topic = f"{ground.mark}.watched"

        async def one(number):
            client = await Structured.open(ground.doors[number % len(ground.doors)], limit=65536)
            await client.send(client.command("subscribe", topic=self.topic, events=True))
            return asyncio.ensure_future(client.conn.swallow())
        self.held = await ground.crowd(100, one)

    def commands(self, ground, client, number):
        for _ in range(100):
            yield client.command("subscribe", topic=self.topic, presence=True)
            yield client.command("unsubscribe", topic=self.topic)


class SubscribeChurn(Commands):
    name = "subscribe-churn"

    def commands(self, ground, client, number):
        for i in range(200):
            yield client.command("subscribe", topic=f"{ground.mark}.{number}.{i}")
        for i in range(200):
            yield client.command("unsubscribe", topic=f"{ground.mark}.{number}.{i}")


class PatternChurn(Commands):
    name = "pattern-churn"

    def commands(self, ground, client, number):
        for i in range(100):
            yield client.command("subscribe", topic=f"{ground.mark}.{number}.{i}.>")
            yield client.command("unsubscribe", topic=f"{ground.mark}.{number}.{i}.>")


class Patterns(Attack):
    """100 idle clients with 256 patterns each: what others publish must not cost more."""
    name, phase = "many-patterns", "command"
    then = "a pattern that is refused is told so"
    seconds = 6.0
    form = "{mark}.a{i}.*.b.>"

    async def run(self, ground):
        async def one(number):
            client = await Structured.open(ground.doors[number % len(ground.doors)])
            await client.send(*(client.command("subscribe", topic=self.form.format(mark=ground.mark, i=f"{number}x{i}"))
                                for i in range(256)))
            ground.count("patterns", 256)
            return asyncio.ensure_future(client.conn.swallow())
        await ground.crowd(100, one)
        await asyncio.sleep(ground.left)


class WildPatterns(Patterns):
    """And those that begin with a wildcard, so that they concern everything."""
    name = "wild-patterns"
    form = "*.c{i}.>"


class DeepPatterns(Patterns):
    """A hundred tokens each, and topics of as many."""
    name = "deep-patterns"
    form = "{mark}" + ".*" * 100 + ".x{i}"

    async def run(self, ground):
        await ground.gather(super().run(ground), self.publish(ground))

    async def publish(self, ground):
        client = await Structured.open(ground.doors[0])
        reading = asyncio.ensure_future(client.conn.swallow())
        while ground.more and not reading.done():
            await client.send(*(client.command("publish", topic=ground.mark + ".a" * 101, text="x") for _ in range(50)))
            await asyncio.sleep(0.02)
        reading.cancel()


class SilentRequests(Attack):
    """256 requests each of 400 clients, to ones that never answer."""
    name, phase, short = "silent-requests", "command", True
    then = "all are answered by their deadline"
    seconds = 6.0
    callers = 400

    async def run(self, ground):
        async def silent(number):
            client = await Structured.open(ground.doors[number % len(ground.doors)],
                                           f"/connect?session={ground.name_of(number)}s")
            return asyncio.ensure_future(client.conn.swallow())
        held = await ground.crowd(40, silent)

        async def one(number):
            client = await Structured.open(ground.doors[number % len(ground.doors)])
            to = f"session:{ground.name_of(number % max(len(held), 1))}s"
            await client.send(*(client.command("request", to=to, text="?", timeout=60000) for _ in range(256)))
            ground.count("requests", 256)
            return asyncio.ensure_future(client.conn.swallow())
        await ground.crowd(self.callers, one)
        await asyncio.sleep(ground.left)


class AbsentSends(Commands):
    """To addresses that nobody holds: each is one command of Redis, and a line of the log if nobody thought of it."""
    name = "absent-sends"

    def commands(self, ground, client, number):
        for i in range(self.in_one):
            yield client.command("send", to=f"session:{ground.mark}absent{i}", text="x")


class KeyedSends(Commands):
    """Idempotency keys, each a key in Redis for five minutes."""
    name = "keyed-sends"
    seconds = 5.0

    def commands(self, ground, client, number):
        for _ in range(self.in_one):
            yield client.command("send", to=f"topic:{ground.mark}.keyed", text="x", key=f"{number}.{client.next}.{'k' * 40}")


class StoredSends(Commands):
    """Stored messages to as many addresses as it can think of."""
    name = "stored-sends"
    seconds = 5.0

    def commands(self, ground, client, number):
        for _ in range(200):
            yield client.command("send", to=f"user:{ground.mark}{number}-{client.next}", text="x" * 2000, store=True)


class LargeStored(Commands):
    """And large ones to one address."""
    name = "large-stored"
    seconds = 5.0

    def commands(self, ground, client, number):
        yield client.command("publish", topic=f"{ground.mark}.large{number}", text="x" * 900000, store=True)


class Cheap(Commands):
    """Commands that cost a reply and nothing else, and ones that there aren't."""
    name = "ping-commands"

    def commands(self, ground, client, number):
        for _ in range(self.in_one):
            yield client.command("ping")
            yield client.command("dance")


class OnlineFlood(Commands):
    name = "online-flood"

    def commands(self, ground, client, number):
        for _ in range(self.in_one):
            yield client.command("online")


class ReplyFlood(Commands):
    """Answers to what nobody asked, and to what others might have."""
    name = "reply-flood"

    def commands(self, ground, client, number):
        for i in range(self.in_one):
            yield client.command("reply", request=f"{ground.mark}.{i}", text="x")


class SelfRequests(Commands):
    """Asks itself, and never answers."""
    name = "self-requests"

    def commands(self, ground, client, number):
        for i in range(256):
            yield client.command("request", to=f"user:{ground.name_of(number)}", text="?", timeout=50 + i)


class LongNames(Attack):
    """Topics with names as long as they may be, each with its subscriber and its messages."""
    name, phase = "long-names", "command"

    async def run(self, ground):
        await ground.gather(*(self.one(ground, i) for i in range(8)))

    async def one(self, ground, number):
        conn = await ground.upgraded(number, f"/topics/{ground.mark}{'z' * 200}{number}")
        reading = asyncio.ensure_future(conn.swallow())
        while ground.more and not reading.done():
            await conn.send(frame("x") * 200)
            ground.count("messages", 200)
        conn.abort()
