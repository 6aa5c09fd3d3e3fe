"""Whoever can write to Redis, or a broker gone mad: hostile envelopes on each kind of channel, hostile values in each kind of key.

Aimed at names of the attacker's own and at what all brokers listen to; the others' sessions are promised nothing about
what is published to them by hand."""

import asyncio
import json
import struct

import msgpack
import redis

from lib.rawws import TEXT, frame

from .attack import Attack
from .wire import ENDED, Conn, Structured, http

KINDS = range(0, 14)


def envelope(kind=0, payload=b"x", to="", sender="session:nobody", correlation="", content=0, version=1, number="id", time=1, more=()):
    return msgpack.packb([version, number, kind, sender, to, time, content, payload, correlation, *more], use_bin_type=True)


class Envelopes(Attack):
    """Random bytes, truncated and huge envelopes, wrong types, forged notices, orders and replies."""
    name, phase, short = "hostile-envelopes", "redis", True
    then = "whoever is online and not addressed by an order stays"
    seconds = 5.0

    async def run(self, ground):
        self.client = redis.Redis(port=ground.redis_port, socket_timeout=5)
        self.instances = [one.decode() for one in self.client.zrange("sb:instances", 0, -1)]
        await ground.gather(*(self.victim(ground, i) for i in range(12)), self.publish(ground))

    async def victim(self, ground, number):
        """Holds what is published to."""
        name = ground.name_of(number % 4)
        while ground.more:
            door = ground.doors[number % len(ground.doors)]
            if number % 3 == 0:
                conn = await Conn.upgraded(door, f"/websocket/{name}/1")
            elif number % 3 == 1:
                client = await Structured.open(door, f"/connect?user={name}")
                await client.send(client.command("subscribe", topic=name, presence=True, events=True),
                                  client.command("subscribe", topic=f"{name}.>"))
                conn = client.conn
            else:
                conn = await Conn.upgraded(door, f"/topics/{name}")
            await conn.ended(ground.left)
            ground.count("victims")
            conn.abort()
            await asyncio.sleep(0.05)

    def channels(self, ground):
        for i in range(4):
            name = ground.name_of(i)
            yield from (f"sb:session:{{{name}_1}}", f"sb:user:{{{name}}}", f"sb:topic:{{{name}}}", f"sb:topic:{{{name}.a.b}}")
        yield from (f"sb:instance:{{{one}}}" for one in self.instances)
        yield from ("sb:control", "sb:pattern:{%s}" % ground.mark, "sb:topic:{}", "sb:session:{%zz}", "sb:session:", "sb:nonsense", "sb:")

    def bodies(self, ground):
        random = ground.random
        whole = envelope(0, b"hello", "user:a", more=("1-1", "abc", 5, b"\0" * 13))
        yield random.randbytes(random.randrange(1, 300))
        yield b"\x9d" + random.randbytes(100)
        yield b"\x99"
        yield whole[:random.randrange(len(whole))]
        yield whole + b"\0" * random.randrange(1, 50)
        for kind in KINDS:
            if kind not in (1, 6):  # orders and notices are obeyed: they are forged below
                yield envelope(kind, random.choice([b"", b"x", b"\xff\0", b"{}", b"x" * 300]), f"user:{ground.mark}",
                               correlation=random.choice(["", "a.1", "x" * 128, "x" * 129, f"{self.instances[0]}.1"]),
                               content=random.choice([0, 1, 2, 3, 255]))
        yield envelope(1, correlation="forged", to=f"session:{ground.name_of(0)}_1")
        yield envelope(1, correlation="")
        for order in (b"", b"{}", b"[", b'{"do":1}', b'{"do":"dance"}', b'{"do":"kick","code":99999}', b'{"do":"kick","code":"x"}',
                      b'{"do":"' + b"k" * 5000 + b'"}', b"[" * 10000, b'{"do":"kick","reason":"\\u0000\\u001b[2J"}'):
            yield envelope(6, order, content=2)
        for fields in ({"version": 0}, {"version": 255}, {"version": "1"}, {"number": 5}, {"number": "n" * 65}, {"sender": b"\xff"},
                       {"sender": "session:" + "a" * 300}, {"sender": "\x1b[2J\n"}, {"time": -1}, {"time": 2**63}, {"content": -1},
                       {"payload": "text"}, {"payload": None}, {"correlation": 7}, {"kind": -1}, {"kind": 2**40}, {"kind": None}):
            yield envelope(**fields)
        yield envelope(more=["o" * 49, "e" * 32, -1, b"short"])
        yield envelope(0, b"\xff\xfe", content=0)
        yield envelope(0, b'{"a":', content=2)
        yield envelope(0, b"[" * 5000, content=2)
        yield b"\x9f" + b"\xdd" + struct.pack("!I", 0xffffffff)
        yield b"\x99\x01" + b"\xdb" + struct.pack("!I", 0x7fffffff) + b"x"
        yield b"\x9a" + b"\x91" * 2000
        yield "plain text \u202e\x1b[2J\0".encode()

    async def publish(self, ground):
        await asyncio.sleep(0.3)
        large = [envelope(0, bytes(8 << 20), f"user:{ground.mark}"), bytes(8 << 20), b"\x9f" + bytes(8 << 20)]
        loop = asyncio.get_running_loop()
        while ground.more:
            with self.client.pipeline(transaction=False) as pipe:
                for channel in self.channels(ground):
                    for body in self.bodies(ground):
                        pipe.publish(channel, body)
                        ground.count("envelopes")
                if ground.random.random() < 0.1:
                    pipe.publish(ground.random.choice(list(self.channels(ground))), ground.random.choice(large))
                await loop.run_in_executor(None, pipe.execute)
            await asyncio.sleep(0.05)


class Values(Attack):
    """Keys of the wrong type, values of a megabyte, control characters, instances that never were: read by those who connect, by
    the API's lists, and by the reaper."""
    name, phase = "hostile-values", "redis"
    then = "the API's lists answer, with whatever can be told"
    seconds = 7.0

    async def run(self, ground):
        self.client = redis.Redis(port=ground.redis_port, socket_timeout=5)
        await asyncio.get_running_loop().run_in_executor(None, self.plant, ground)
        await ground.gather(*(self.come_and_go(ground, i) for i in range(8)), self.look(ground))
        self.client.zrem("sb:instances", *self.dead)

    def plant(self, ground):
        wrong = [lambda key: self.client.set(key, "x"), lambda key: self.client.lpush(key, "x"), lambda key: self.client.sadd(key, "x"),
                 lambda key: self.client.zadd(key, {"x": 1}), lambda key: self.client.xadd(key, {"a": "b"}),
                 lambda key: self.client.hset(key, "conn", "x"), lambda key: self.client.hset(key, mapping={
                     "conn": "c" * (1 << 20), "instance": "i" * (1 << 20), "user": "\x1b[2J\0\r\n", "connected_at": "\xff"}),
                 lambda key: self.client.hset(key, mapping={f"f{i}": "v" * 1000 for i in range(1000)})]
        for number, how in enumerate(wrong):
            name = ground.name_of(number)
            for key in (f"sb:session:{{{name}_1}}", f"sb:user:{{{name}}}", f"sb:presence:{{{name}}}", f"sb:history:topic:{{{name}}}",
                        f"sb:history:user:{{{name}}}", f"sb:presence:topic:{{{name}}}"):
                how(key)
        self.dead = [f"{ground.mark}dead", f"{ground.mark}\x1b[2J\r\n", f"{ground.mark}" + "l" * 100000, f"{ground.mark}\u202e",
                     f"{ground.mark}wrong", f"{ground.mark}many", b"foe\xff\xfe", "", f"{ground.mark}}}{{"]
        self.client.zadd("sb:instances", {one: 1 for one in self.dead})
        self.client.set(f"sb:instance:{{{ground.mark}wrong}}", "x")
        self.client.set(f"sb:instance:{{{ground.mark}wrong}}:sessions", "x")
        self.client.sadd(f"sb:instance:{{{ground.mark}many}}:sessions", *[f"{ground.name_of(0)}-{i}" for i in range(5000)],
                         "\x1b[2J", "", b"\xff", "x" * 100000, "}{")
        self.client.hset(f"sb:instance:{{{ground.mark}dead}}", mapping={"host": "h" * (1 << 20), "pid": "x", "sessions": "-5"})
        self.client.xadd(f"sb:history:topic:{{{ground.mark}}}", {"payload": b"\xff" * 100, "content": "9", "time": "x"})
        self.client.xadd(f"sb:history:topic:{{{ground.mark}}}", {"a": "b"}, id="9223372036854775807-1")

    async def come_and_go(self, ground, number):
        while ground.more:
            name = ground.name_of(number)
            for path in (f"/websocket/{name}/1", f"/websocket/{name}"):
                try:
                    conn = await ground.upgraded(number, path)
                    ground.count("sessions")
                    if not path.endswith("/1"):  # what is said there goes to a bystander
                        conn.post(frame("x"))
                    await conn.ended(0.2)
                    conn.abort()
                except (*ENDED, asyncio.TimeoutError):
                    ground.count("refused")
            try:
                client = await Structured.open(ground.doors[number % 2], f"/connect?user={name}&since=")
                for cmd, fields in (("history", {"address": f"topic:{name}"}), ("presence", {"address": f"topic:{name}"}),
                                    ("presence", {"address": f"user:{name}"}), ("presence", {"address": f"session:{name}_1"}),
                                    ("subscribe", {"topic": name, "since": {}, "presence": True}),
                                    ("history", {"address": f"topic:{ground.mark}"}),
                                    ("send", {"to": f"topic:{ground.mark}", "store": True, "text": "x"})):
                    await client.call(cmd, **fields)
                    ground.count("commands")
                client.conn.abort()
            except (*ENDED, asyncio.TimeoutError):
                ground.count("refused")

    async def look(self, ground):
        while ground.more:
            for port in ground.apis:
                for path in ("/v1/sessions?limit=1000", "/v1/instances", "/v1/topics", "/v1/stats", f"/v1/users/{ground.name_of(6)}",
                             f"/v1/topics/{ground.name_of(7)}/presence", f"/v1/topics/{ground.mark}/history"):
                    status, _ = await http(port, path, fields=ground.bearer)
                    ground.count("lists")
                    # What can't be read may be told as 500, but an outage it is not.
                    ground.check(status and status not in (502, 503, 504), f"{path.split('?')[0].replace(ground.mark, 'FOE')}: {status}")
            await asyncio.sleep(0.1)


class Replies(Attack):
    """The answers that requests wait for, from somebody who wasn't asked, and twice, and as every kind of message."""
    name, phase = "forged-replies", "redis"
    then = "each request has one answer"

    async def run(self, ground):
        client = redis.Redis(port=ground.redis_port, socket_timeout=5)
        asked = await Structured.open(ground.doors[0], f"/connect?session={ground.name_of(0)}q")
        asks = await Structured.open(ground.doors[1], f"/connect?session={ground.name_of(1)}q")
        while ground.more:
            await asks.send(asks.command("request", to=f"session:{ground.name_of(0)}q", text="?", timeout=300))
            ground.count("requests")
            push = {}
            while push.get("push") != "request":
                got = await asked.conn.frame(5)
                if got is None:
                    return
                push = json.loads(got.payload.split(b"\n")[0]) if got.opcode == TEXT else {}
            for kind in (4, 7, 8, 5, 3, 4):
                client.publish(f"sb:session:{{{ground.name_of(1)}q}}",
                               envelope(kind, b"forged", correlation=push["request"], sender=f"session:{ground.name_of(0)}q"))
            await asked.send(asked.command("reply", request=push["request"], text="yes"))
            answers = 0
            try:
                while (got := await asks.conn.frame(0.5)) is not None:
                    answers += sum(f'"id":{asks.next - 1},' in line for line in got.payload.decode().split("\n"))
            except asyncio.TimeoutError:
                pass
            ground.check(answers == 1, f"{answers} answers to one request")
