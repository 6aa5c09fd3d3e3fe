"""Well-behaved clients, who measure: python3 -m fault.lib.bystanders (the siege does). Orders come on standard input, a line of
JSON each, and each is answered by one: settle, begin, end."""

import asyncio
import json
import logging
import os
import sys
import time

import msgpack
from websockets.exceptions import WebSocketException
from websockets.legacy.client import connect

from .ledger import Ledger
from .wire import ENDED, Door, http, trusting

JSON, MSGPACK = "switchboard.json.v1", "switchboard.msgpack.v1"
RATE = 30.0  # messages a second of each stream
HOPS = 4  # processes between sender and receiver: HAProxy, a broker, Redis, the other broker


class Member:
    """One connection that is kept: when it is lost that is counted, and it is made again."""

    def __init__(self, group, door, path, on_message, protocol=None, on_open=None):
        self.group, self.door, self.path, self.protocol = group, door, path, protocol
        self.on_message, self.on_open = on_message, on_open
        self.socket = None
        self.leaving = False
        self.open = False
        self.task = asyncio.ensure_future(self.keep())

    async def keep(self):
        url = f"{'wss' if self.door.tls else 'ws'}://localhost:{self.door.port}{self.path}"
        while True:
            try:
                self.socket = await connect(url, host="127.0.0.1", port=self.door.port, compression=None, ping_interval=None, max_queue=None,
                                            open_timeout=5, close_timeout=1, ssl=trusting() if self.door.tls else None,
                                            subprotocols=[self.protocol] if self.protocol else None)
                if self.on_open:
                    await self.on_open(self)
                self.open = True
                async for message in self.socket:
                    for one in self.frames(message):
                        self.on_message(one)
                self.lost(f"closed with {self.socket.close_code} {self.socket.close_reason}")
            except (WebSocketException, *ENDED, asyncio.TimeoutError) as error:
                self.lost(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.05 if self.leaving else 0.2)
            self.leaving = False

    def lost(self, why):
        was, self.open = self.open, False
        if not self.leaving:
            if was:
                self.group.disconnected(f"{self.path} at {self.door}: {why}")
            else:
                self.group.refused += 1

    def frames(self, message):
        """Objects for structured clients, otherwise the message."""
        if self.protocol == MSGPACK:
            unpacker = msgpack.Unpacker(raw=False)
            unpacker.feed(message)
            return list(unpacker)
        return [json.loads(line) for line in message.split("\n") if line] if self.protocol else [message]

    async def send(self, message):
        if self.protocol:
            message = msgpack.packb(message) if self.protocol == MSGPACK else json.dumps(message)
        try:
            await self.socket.send(message)
        except (WebSocketException, *ENDED):
            pass  # keep() sees it

    async def leave(self):
        """Ends the connection on purpose; keep() makes the next."""
        self.leaving = True
        self.open = False
        await self.socket.close()


class Stream:
    """One kind of use: its members, its ledger, and turn(), which sends one message."""

    rate = RATE

    def __init__(self, group, doors):
        self.group, self.members = group, []
        self.setup(*doors)

    def join(self, door, path, on_message, **options):
        member = Member(self.group, door, path, on_message, **options)
        self.members.append(member)
        return member

    @property
    def ready(self):
        return all(member.open for member in self.members)

    async def run(self):
        """Paced by the clock, not by the answers: who waits for answers doesn't see how late they are."""
        at = time.perf_counter()
        while True:
            at = max(at + 1 / self.rate, time.perf_counter() - 0.1)
            await asyncio.sleep(max(at - time.perf_counter(), 0))
            if self.ready:
                await self.turn()
            else:
                self.ledger.forget()

    def number_of(self, text, before="", behind=""):
        """The number in a message that is otherwise known; None, and a mistake, for any other."""
        if isinstance(text, str) and text.startswith(before) and text.endswith(behind):
            middle = text[len(before):len(text) - len(behind)]
            if middle.isdecimal():
                return int(middle)
        self.ledger.mistake(f"got {text!r}")
        return None

    def arrive(self, receiver, text, before="", behind="", **options):
        number = self.number_of(text, before, behind)
        if number is not None:
            self.ledger.arrive(receiver, number, **options)


class Echo(Stream):
    def setup(self, a, b, h, ht):
        self.ledger = Ledger("echo", ["self"])
        self.one = self.join(a, "/echo", lambda text: self.arrive("self", text))

    async def turn(self):
        await self.one.send(str(self.ledger.send()))


class User(Stream):
    """All of a user's sessions hear each, the speaker too."""

    def setup(self, a, b, h, ht):
        self.ledger = Ledger("user", ["self", "other"])
        self.one = self.join(ht, "/websocket/by-user", lambda text: self.arrive("self", text, "by-user:"))
        self.join(b, "/websocket/by-user", lambda text: self.arrive("other", text, "by-user:"))

    async def turn(self):
        await self.one.send(str(self.ledger.send()))


class Keyed(Stream):
    def setup(self, a, b, h, ht):
        self.ledger = Ledger("keyed", ["target", "thanks"])
        self.join(b, "/websocket/userSever/8080", lambda text: self.arrive("target", text))
        self.one = self.join(h, "/websocket/by/1", lambda text: self.arrive("thanks", text, "Got your message (", ").Thanks !"))

    async def turn(self):
        await self.one.send(str(self.ledger.send()))


class Send(Stream):
    """JSON here, MessagePack there, with receipts."""

    def setup(self, a, b, h, ht):
        self.ledger = Ledger("send", ["bob"], unordered=["receipt"])
        self.amy = self.join(a, "/connect?user=by-amy", self.on_amy, protocol=JSON)
        self.join(b, "/connect?session=by-bob", self.on_bob, protocol=MSGPACK)

    async def turn(self):
        number = self.ledger.send()
        await self.amy.send({"id": number + 1, "cmd": "send", "to": "session:by-bob", "text": str(number)})

    def on_amy(self, frame):
        if "id" in frame:
            if frame.get("ok", {}).get("receipt") != "delivered":
                self.ledger.mistake(f"receipt {frame}")
            self.ledger.arrive("receipt", frame["id"] - 1)

    def on_bob(self, frame):
        if frame.get("push") == "message":
            self.arrive("bob", frame.get("text"))


class Request(Stream):
    def setup(self, a, b, h, ht):
        self.ledger = Ledger("request", ["asked"], unordered=["reply"])
        self.asks = self.join(h, "/connect?user=by-asks", self.on_reply, protocol=MSGPACK)
        self.asked = self.join(a, "/connect?session=by-asked", self.on_request, protocol=JSON)

    async def turn(self):
        number = self.ledger.send()
        await self.asks.send({"id": number + 1, "cmd": "request", "to": "session:by-asked", "text": str(number), "timeout": 20000})

    def on_request(self, frame):
        if frame.get("push") == "request":
            self.arrive("asked", frame.get("text"), measured=False)
            self.group.later(self.asked.send({"cmd": "reply", "request": frame["request"], "text": frame["text"] + "!"}))

    def on_reply(self, frame):
        if "id" in frame:
            number = frame["id"] - 1
            if frame.get("ok", {}).get("text") != f"{number}!":
                self.ledger.mistake(f"reply {frame}")
            self.ledger.arrive("reply", number)


class Topic(Stream):
    """A stored topic, whose reader goes away every few seconds and comes back for what it missed."""

    topic = "by.stored"

    def setup(self, a, b, h, ht):
        self.ledger = Ledger("topic", ["reader"], unordered=["receipt"])
        self.since = None
        self.live_from = 0
        self.writer = self.join(b, "/connect", self.on_receipt, protocol=JSON)
        self.reader = self.join(h, "/connect", self.on_message, protocol=JSON, on_open=self.subscribe)
        self.group.later(self.wander())

    @property
    def ready(self):
        return self.writer.open and (self.since is not None or self.reader.open)

    async def subscribe(self, member):
        await member.send({"id": 1, "cmd": "subscribe", "topic": self.topic, **({"since": self.since} if self.since else {})})

    async def wander(self):
        while True:
            await asyncio.sleep(2.5)
            if self.since and self.reader.open:
                await self.reader.leave()

    async def turn(self):
        number = self.ledger.send()
        await self.writer.send({"id": number + 1, "cmd": "publish", "topic": self.topic, "text": str(number), "store": True})

    def on_receipt(self, frame):
        if "id" in frame:
            if frame.get("ok", {}).get("receipt") not in ("delivered", "stored"):
                self.ledger.mistake(f"receipt {frame}")
            self.ledger.arrive("receipt", frame["id"] - 1, measured=False)

    def on_message(self, frame):
        if frame.get("id") == 1:
            if "error" in frame or (self.since and frame["ok"].get("recovered") is not True):
                self.ledger.mistake(f"not recovered: {frame}")
            self.live_from = self.ledger.number  # what comes before was read from the history: late on purpose
        elif frame.get("push") == "message":
            self.since = {"epoch": frame["epoch"], "offset": frame["offset"]}
            self.arrive("reader", frame.get("text"), measured=int(frame["text"]) >= self.live_from)


class Api(Stream):
    """A backend that sends by HTTP, each time on a new connection."""

    rate = 10.0

    def setup(self, a, b, h, ht):
        self.ledger = Ledger("api", ["reader"], unordered=["receipt"])
        self.join(ht, "/topics/by-api", lambda text: self.arrive("reader", text))

    async def run(self):
        self.waiting = asyncio.Queue()
        self.group.later(self.serve())
        await super().run()

    async def turn(self):
        self.waiting.put_nowait(self.ledger.send())

    async def serve(self):
        """One after the other, as a caller who wants their order kept must."""
        while True:
            number = await self.waiting.get()
            port = self.group.apis[number % 2]
            status, body = await http(port, "/v1/publish/by-api", "POST", str(number).encode(),
                                      {"Content-Type": "text/plain", "Authorization": f"Bearer {self.group.token}"}, timeout=10)
            if status != 200 or json.loads(body).get("receipt") != "delivered":
                self.ledger.mistake(f"HTTP {status} {body[:80]!r}")
            self.ledger.arrive("receipt", number)


class Control(Stream):
    """What the machine alone does to such clients: an echo without any broker, through as many processes as a message passes."""

    def setup(self, a, b, h, ht):
        self.ledger = Ledger("control", ["self"])
        self.writer = None
        self.group.later(self.start())

    @property
    def ready(self):
        return self.writer is not None

    async def start(self):
        self.processes, port = [], 0
        for _ in range(HOPS):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fault.lib.bystanders", "relay", str(port), stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE)
            self.processes.append(process)
            port = int(await process.stdout.readline())
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        while line := await self.reader.readline():
            self.arrive("self", line.decode().strip())

    async def turn(self):
        self.writer.write(b"%d\n" % self.ledger.send())


class Group:
    """All streams, and what befell their connections."""

    def __init__(self, given):
        doors = [Door(*one) for one in given["doors"]]
        self.apis, self.token = given["apis"], given["token"]
        self.tasks = set()
        self.losses, self.refused = [], 0
        self.streams = [kind(self, doors) for kind in (Echo, User, Keyed, Send, Request, Topic, Api, Control)]
        for stream in self.streams:
            self.later(stream.run())

    def later(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.done)

    def done(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.losses.append(f"a bystander's own mistake: {task.exception()!r}")

    def disconnected(self, why):
        self.losses.append(why)

    async def until(self, condition, timeout):
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return condition()

    async def settle(self):
        """All are connected, and what they send arrives."""
        def good():
            return all(stream.ready and stream.ledger.number - min(stream.ledger.next.values()) < 5 for stream in self.streams)
        if not await self.until(lambda: all(stream.ready for stream in self.streams), 20):
            return {"settled": False, "missing": [f"{member.path} at {member.door}" for stream in self.streams
                                                  for member in stream.members if not member.open]}
        for stream in self.streams:
            stream.ledger.forget()
        return {"settled": await self.until(good, 10), "missing": ["messages are late"]}

    async def begin(self):
        self.losses, self.refused = [], 0
        for stream in self.streams:
            stream.ledger.begin()
        return {}

    async def end(self):
        """What was sent by now has some seconds to arrive."""
        ledgers = [stream.ledger for stream in self.streams]
        marks = [ledger.number for ledger in ledgers]

        def through():
            return all(min(ledger.next.values()) >= mark and not any(n < mark for waiting in ledger.open.values() for n in waiting)
                       for ledger, mark in zip(ledgers, marks))
        await self.until(through, 5)
        reports = {}
        for ledger, mark in zip(ledgers, marks):
            late = sum(max(mark - at, 0) for at in ledger.next.values()) + sum(n < mark for w in ledger.open.values() for n in w)
            reports[ledger.name] = {**ledger.report(), "lost": ledger.lost + late}
        return {"streams": reports, "disconnected": self.losses, "refused": self.refused}


async def relay(behind):
    """A server that hands lines on to the port `behind` it, and the answers back; the last one (0) answers itself. Ends with
    whoever started it."""
    async def serve(reader, writer):
        there, back = (await asyncio.open_connection("127.0.0.1", behind)) if behind else (None, writer)

        async def answers():
            while line := await there.readline():
                writer.write(line)
        answering = asyncio.ensure_future(answers()) if behind else None
        while line := await reader.readline():
            back.write(line)
        if answering:
            answering.cancel()
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await orders(lambda order: None)


async def orders(handle):
    """Reads lines of standard input until its end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        answer = handle(json.loads(line))
        if answer is not None:
            print(json.dumps(await answer), flush=True)


async def main():
    group = None

    def handle(order):
        nonlocal group
        if order["do"] == "start":
            group = Group(order)
            return group.settle()
        return getattr(group, order["do"])()
    await orders(handle)
    os._exit(0)


if __name__ == "__main__":
    logging.disable()  # at the end of the siege each end of a connection would be told
    asyncio.run(relay(int(sys.argv[2])) if sys.argv[1:2] == ["relay"] else main())
