"""JSON and MessagePack that is hostile, each as a message of its own, to both structured faces."""

import asyncio
import json
import struct

from lib.rawws import BINARY, CLOSE, PING, TEXT, frame

from .attack import Attack
from .wire import ENDED, NO_MASK, Conn

ANSWERED = "an answer"


class Payloads(Attack):
    """Each case goes out on a connection of its own: it must be answered, by an error, a reply or a close frame, within seconds."""

    phase = "payload"
    then = "each is answered, or closed with 4500, 1007 or 1009"
    protocol, opcode = None, None

    def cases(self, ground):
        raise NotImplementedError

    async def run(self, ground):
        gate = asyncio.Semaphore(12)
        cases = list(self.cases(ground))
        while ground.more:
            await ground.gather(*(self.one(ground, gate, i, *case) for i, case in enumerate(cases)))
            await asyncio.sleep(0.1)

    async def one(self, ground, gate, number, label, data):
        async with gate:
            if not ground.more:
                return
            door = ground.doors[ground.random.randrange(len(ground.doors))]
            conn = await Conn.upgraded(door, "/connect", protocol=self.protocol)
            ground.count("messages")
            try:
                await conn.frame(5)  # hello
                await conn.send(frame(data, self.opcode, key=NO_MASK), 5)
                code = await self.answer(conn)
                ground.check(code in (ANSWERED, 4500, 1007, 1009), f"{label}: {code or 'no answer'}")
            except (asyncio.TimeoutError, *ENDED) as error:
                ground.fail(f"{label}: {type(error).__name__}")
            finally:
                conn.abort()

    async def answer(self, conn):
        while True:
            try:
                got = await conn.frame(5)
            except asyncio.TimeoutError:
                return None
            if got is None:
                return 1006
            if got.opcode == CLOSE:
                return got.close_code or 1005
            if got.opcode != PING:
                return ANSWERED


class Json(Payloads):
    name, short = "hostile-json", True
    protocol, opcode = "switchboard.json.v1", TEXT

    def cases(self, ground):
        def around(value):
            return '{"id":1,"cmd":"send","to":"topic:%s","data":%s}' % (ground.mark, value)
        for depth in (30, 31, 32, 33, 100, 100000):
            yield f"arrays {depth} deep", around("[" * depth + "]" * depth)
            yield f"objects {depth} deep", around('{"a":' * depth + "1" + "}" * depth)
            yield f"{depth} deep and open", around("[" * depth)
        for number in ("1e308", "1e309", "-1e999999", "9" * 1000, "0." + "0" * 5000 + "1", "1" + "0" * 400 + "e-400", "-0", "01", "1.",
                       "9223372036854775808", "1e20", "NaN", "Infinity", "0x10", "1e-5000", "123456789012345678901234567890e5"):
            yield f"the number {number[:20]}", around(number)
            yield f"the id {number[:20]}", '{"id":%s,"cmd":"ping"}' % number
        for label, text in {
                "a member twice": '{"id":1,"cmd":"ping","cmd":"ping"}', "an id twice": '{"id":1,"id":2,"cmd":"ping"}',
                "NUL in a name": '{"id":1,"cmd":"ping","a\\u0000b":1}', "NUL in a value": around('"a\\u0000b"'),
                "a lone high surrogate": around('"\\ud800"'), "a lone low one": around('"\\udc00"'), "a swapped pair":
                around('"\\udc00\\ud800"'), "a half at the end": around('"\\ud83d'), "an escape cut": around('"\\u12'),
                "a raw control character": around('"\x01"'), "an empty message": " ", "nothing but lines": "\n" * 5000,
                "a text": '"x"', "a list": "[]", "null": "null", "open": "{", "open text": '{"id":1,"cmd":"pi', "two frames and half":
                '{"id":1,"cmd":"ping"}\n{"id":2,"cmd":"ping"}\n{', "cmd a list": '{"id":1,"cmd":[]}', "cmd an object":
                '{"id":1,"cmd":{}}', "no cmd": '{"id":1}', "an id of text": '{"id":"1","cmd":"ping"}', "a long cmd":
                '{"id":1,"cmd":"%s"}' % ("x" * 100000), "a long name": '{"id":1,"cmd":"ping","%s":1}' % ("x" * 100000),
                "10,000 members": '{"id":1,"cmd":"ping",%s}' % ",".join(f'"m{i}":1' for i in range(10000)),
                "100,000 numbers": around("[" + "1," * 99999 + "1]"), "100,000 names": around(
                    "[" + ",".join('{"a":1}' for _ in range(50000)) + "]"), "a BOM": "\ufeff" + '{"id":1,"cmd":"ping"}',
                "an address of NUL": '{"id":1,"cmd":"send","to":"user:a\\u0000b"}', "an address of ESC":
                '{"id":1,"cmd":"send","to":"user:\\u001b[2J"}', "an invisible address": '{"id":1,"cmd":"send","to":"user:\\u202ea"}',
                "an address of braces": '{"id":1,"cmd":"send","to":"user:}{"}', "a long address": '{"id":1,"cmd":"send","to":"user:%s"}' %
                ("a" * 256), "two payloads": '{"id":1,"cmd":"send","to":"user:a","text":"","data":1}', "bad base64":
                '{"id":1,"cmd":"send","to":"user:a","binary":"%%%"}', "a negative ttl":
                '{"id":1,"cmd":"send","to":"user:a","store":true,"ttl":-1}', "a huge limit":
                '{"id":1,"cmd":"history","address":"user:a","limit":1000000000000}', "since as a list":
                '{"id":1,"cmd":"subscribe","topic":"a","since":[]}', "since of lies":
                '{"id":1,"cmd":"subscribe","topic":"%s","since":{"epoch":"\\u0000","offset":"9999999999999999999-1"}}' % ground.mark}.items():
            yield label, text
        yield "bytes that are no UTF-8", b'{"id":1,"cmd":"\xff"}'


class Msgpack(Payloads):
    name = "hostile-msgpack"
    protocol, opcode = "switchboard.msgpack.v1", BINARY

    def cases(self, ground):
        head = b"\x84\xa2id\x01\xa3cmd\xa4send\xa2to" + bytes([0xa0 | (6 + len(ground.mark))]) + f"topic:{ground.mark}".encode() + b"\xa4data"
        for size in (0xffffffff, 0x7fffffff, 0x10000000, 100000):
            for mark in (0xdd, 0xdf, 0xdb, 0xc6, 0xc9):
                data = bytes([mark]) + struct.pack("!I", size)
                yield f"{mark:#x} of {size}", data
                yield f"{mark:#x} of {size} as data", head + data
        for depth in (31, 32, 33, 100000):
            yield f"arrays {depth} deep", head + b"\x91" * depth + b"\xc0"
            yield f"maps {depth} deep", head + b"\x81\xa1a" * depth + b"\xc0"
        for label, data in {
                "ext": b"\xc7\x05\x01hello", "fixext": b"\xd4\x01x", "a timestamp": b"\xd6\xff\0\0\0\0", "ext32 of nothing":
                b"\xc9\0\0\0\0\1", "NaN": b"\xcb\x7f\xf8\0\0\0\0\0\0", "infinity": b"\xcb\x7f\xf0\0\0\0\0\0\0", "the least float":
                b"\xcb\0\0\0\0\0\0\0\1", "uint64": b"\xcf" + b"\xff" * 8, "bin": b"\xc4\x02hi", "str of no UTF-8": b"\xa2\xff\xfe",
                "an int as a key": b"\x81\x01\x01", "a map as a key": b"\x81\x80\x01", "a key twice": b"\x82\xa1a\1\xa1a\2",
                "the reserved byte": b"\xc1", "nothing": b""}.items():
            yield f"{label} as data", head + data
            yield label, data or b"\xc0"
        yield "90,000 floats", head + b"\xdd" + struct.pack("!I", 90000) + b"\xcb\x3f\xd5\x55\x55\x55\x55\x55\x55" * 90000
        yield "a million nils", head + b"\xdd" + struct.pack("!I", 1000000) + b"\xc0" * 1000000
        yield "a million empty maps", head + b"\xdd" + struct.pack("!I", 1000000) + b"\x80" * 1000000
        yield "10,000 frames", b"\x81\xa3cmd\xa4ping" * 10000 + b"\x82\xa2id\1\xa3cmd\xa4ping"
        yield "JSON", b'{"id":1,"cmd":"ping"}'
        yield "cut", b"\x82\xa2id\1\xa3cm"


class FloatGrowth(Attack):
    """Floats in MessagePack that are longer in JSON than max_message: whoever is told `delivered` must be right."""
    name, phase = "float-growth", "payload"
    then = "a message with the receipt delivered arrives"

    async def run(self, ground):
        import msgpack

        from .wire import Structured
        topic = f"{ground.mark}.floats"
        while ground.more:
            reader = await Structured.open(ground.doors[0], limit=4 << 20)
            await reader.call("subscribe", topic=topic)
            writer = await Conn.upgraded(ground.doors[1], "/connect", protocol="switchboard.msgpack.v1")
            await writer.frame(5)
            count = ground.random.choice([40000, 70000, 100000])
            await writer.send(frame(msgpack.packb({"id": 1, "cmd": "publish", "topic": topic, "data": [1 / 3 + i for i in range(count)]}),
                                    BINARY, key=NO_MASK))
            ground.count("messages")
            answer = None
            while answer is None or answer.opcode == PING:
                answer = await writer.frame(5)
            told = msgpack.unpackb(answer.payload) if answer.opcode == BINARY else {}
            if told.get("ok", {}).get("receipt") == "delivered":
                try:
                    got = await reader.conn.frame(5)
                    ground.check(got is not None and got.opcode == TEXT and json.loads(got.payload).get("push") == "message",
                                 "told delivered, and nothing came")
                except asyncio.TimeoutError:
                    ground.fail("told delivered, and nothing came")
            reader.conn.abort()
            writer.abort()
            await asyncio.sleep(0.2)


class MutatedCommands(Attack):
    """Valid commands with bytes changed, in both faces."""
    name, phase = "mutated-commands", "payload"
    seconds = 6.0

    async def run(self, ground):
        await ground.gather(*(self.flood(ground, i) for i in range(12)))

    async def flood(self, ground, number):
        import msgpack
        random = ground.random
        commands = [{"id": 1, "cmd": "send", "to": f"user:{ground.mark}", "text": "hi", "store": True, "ttl": 1000, "key": "k"},
                    {"id": 2, "cmd": "subscribe", "topic": ground.mark, "since": {"epoch": "a", "offset": "1-1"}, "presence": True},
                    {"id": 3, "cmd": "history", "address": f"topic:{ground.mark}", "limit": 10, "reverse": True},
                    {"id": 4, "cmd": "request", "to": f"session:{ground.mark}", "data": {"a": [1, 2.5, None, True]}, "timeout": 5},
                    {"id": 5, "cmd": "reply", "request": "a.1", "refuse": "no"}, {"id": 6, "cmd": "presence", "address": "user:a"}]
        while ground.more:
            binary = random.random() < 0.5
            conn = await Conn.upgraded(ground.doors[number % len(ground.doors)], "/connect",
                                       protocol=f"switchboard.{'msgpack' if binary else 'json'}.v1")
            for _ in range(50):
                chosen = random.choice(commands)
                data = bytearray(msgpack.packb(chosen) if binary else json.dumps(chosen).encode())
                for _ in range(random.randrange(3)):
                    data[random.randrange(len(data))] = random.randrange(256)
                conn.post(frame(bytes(data), BINARY if binary else TEXT))
                ground.count("messages")
            await conn.ended(0.05)
            conn.abort()
