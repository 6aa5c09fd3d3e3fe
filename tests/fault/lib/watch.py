"""The watchman: all the time, whatever the attack, it asks whether everybody lives, answers, and stays within bounds."""

import asyncio
import collections
import glob
import re
import shutil
import time

from lib.rawws import frame

from .wire import ENDED, Conn, http
from .world import rss

HEALTH_BOUND, SESSION_BOUND = 3.0, 5.0  # seconds; twice that with sanitizers
_SS = shutil.which("ss")


async def socket_bytes(ports):
    """What the kernel holds for the connections accepted at these ports: port → bytes. As `ss` tells it: received and not read, sent
    and not acknowledged, with their overhead."""
    held = collections.Counter()
    if _SS is None:
        for path in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in open(path).readlines()[1:]:
                local, queues = line.split()[1], line.split()[4]
                held[int(local.rsplit(":", 1)[1], 16)] += sum(int(part, 16) for part in queues.split(":"))
        return held
    words = " or ".join(f"sport = :{port}" for port in ports)
    process = await asyncio.create_subprocess_exec(_SS, "-tmnHO", f"( {words} )", stdout=asyncio.subprocess.PIPE,
                                                   stderr=asyncio.subprocess.DEVNULL)
    output, _ = await process.communicate()
    for line in output.decode().splitlines():
        local = re.search(r":(\d+) ", line)
        memory = re.search(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+)", line)
        if local and memory:
            held[int(local[1])] += sum(map(int, memory.groups()))
    return held


def processor(pid):
    """(seconds that a process ran, seconds that it could have run and had to wait for a processor)."""
    ran = waited = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path) as file:
                on, off, _ = map(int, file.read().split())
        except (OSError, ValueError):
            continue
        ran, waited = ran + on / 1e9, waited + off / 1e9
    return ran, waited


class Watch:
    """begin() and end() stand around an attack; what was found between them is in the dictionary that end() returns."""

    def __init__(self, world):
        self.world = world
        self.patience = 2 if world.sanitized else 1
        self.tasks = []
        self.begin()

    def begin(self, full=False):
        self.full = full
        self.found = collections.Counter()
        self.hung = set()
        self.peak = collections.Counter()
        self.redis_wait = [0.0]
        self.newcomers = []
        self.redis_memory = []
        self.log_before = {broker.name: broker.counted.copy() for broker in self.world.brokers}
        self.log_bytes = {broker.name: broker.log_bytes for broker in self.world.brokers}
        self.processors = {one.name: (one.pid, processor(one.pid)) for one in self.world.servers() if one.running}
        self.since = time.monotonic()

    def stretch(self):
        """How many times longer than it ran a busy server took, since it had to wait for a processor that others had."""
        worst = 1.0
        for one in self.world.servers():
            pid, (ran, waited) = self.processors.get(one.name, (None, (0, 0)))
            if one.running and one.pid == pid:
                now_ran, now_waited = processor(pid)
                if now_ran - ran > 0.02 * (time.monotonic() - self.since):
                    worst = max(worst, 1 + (now_waited - waited) / (now_ran - ran))
        return worst

    def start(self):
        rounds = [(self.memory, 0.5), (self.redis, 0.1)]
        for broker in self.world.brokers:
            rounds += [(lambda broker=broker: self.health(broker), 0.5)]
        for door in self.world.doors:
            rounds += [(lambda door=door: self.newcomer(door), 0.5)]
        self.tasks = [asyncio.ensure_future(self.repeat(*one)) for one in rounds]

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def repeat(self, what, pause):
        while True:
            try:
                await what()
            except (*ENDED, asyncio.TimeoutError) as error:
                self.found[f"the watchman met {type(error).__name__}: {error}"] += 1
            await asyncio.sleep(pause)

    # ---- what it looks at

    async def health(self, broker):
        if not broker.running:
            return
        for path in ("/healthz", "/readyz"):
            status, body = await http(broker.api_port, path, timeout=HEALTH_BOUND * self.patience)
            if status is None:
                self.found[f"{broker.name}: no answer to {path} within {HEALTH_BOUND * self.patience:.0f} s"] += 1
                self.hung.add(broker)
            elif status != 200:
                if broker.running:
                    self.found[f"{broker.name}: {path} says {status or 'nothing'} {body[:60].decode(errors='replace').strip()}"] += 1
            else:
                self.hung.discard(broker)

    async def newcomer(self, door):
        """A new session, one message, and gone."""
        began = time.perf_counter()
        bound = SESSION_BOUND * self.patience
        conn = None
        try:
            conn = await Conn.upgraded(door, "/echo", timeout=bound)
            await conn.send(frame("new"), bound)
            while (got := await conn.frame(bound)) is not None and got.payload != b"new":
                pass
            if got is None:
                self.found[f"a newcomer at {door}: the connection ended"] += 1
            else:
                self.newcomers.append(time.perf_counter() - began)
        except ConnectionRefusedError as refusal:
            if not (self.full and ": 503" in str(refusal)):
                self.found[f"a newcomer at {door}: {refusal}"] += 1
        except asyncio.TimeoutError:
            self.found[f"a newcomer at {door}: nothing within {bound:.0f} s"] += 1
        except ENDED as error:
            self.found[f"a newcomer at {door}: {type(error).__name__}"] += 1
        finally:
            if conn:
                conn.abort()

    async def memory(self):
        held = await socket_bytes([port for broker in self.world.brokers for port in (broker.port, broker.api_port)])
        for broker in self.world.brokers:
            if broker.running:
                user, kernel = rss(broker.pid), held[broker.port] + held[broker.api_port]
                self.peak[broker.name, "user"] = max(self.peak[broker.name, "user"], user)
                self.peak[broker.name, "kernel"] = max(self.peak[broker.name, "kernel"], kernel)
                self.peak[broker.name, "all"] = max(self.peak[broker.name, "all"], user + kernel)

    async def redis(self):
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.world.redis.port)
        try:
            writer.write(b"PING\r\nINFO memory\r\n")
            await asyncio.wait_for(reader.readline(), 30)
            self.redis_wait.append(time.perf_counter() - began)
            length = int((await asyncio.wait_for(reader.readline(), 30))[1:])
            text = await asyncio.wait_for(reader.readexactly(length), 30)
            self.redis_memory.append(int(re.search(rb"used_memory:(\d+)", text)[1]))
        finally:
            writer.transport.abort()

    # ---- what came of it

    def end(self):
        dead = [f"{one.name} ended with {one.popen.returncode}" for one in self.world.servers() if not one.running]
        logs = {}
        for broker in self.world.brokers:
            counted = broker.counted - self.log_before[broker.name]
            logs[broker.name] = {" ".join(map(str, kind)): number for kind, number in counted.most_common(8)}
        return {"dead": dead, "found": dict(self.found), "peak": {f"{name} {kind}": value for (name, kind), value in self.peak.items()},
                "redis_wait": max(self.redis_wait), "newcomer": max(self.newcomers, default=0),
                "redis_memory": max(self.redis_memory, default=0) - min(self.redis_memory, default=0), "logs": logs,
                "log_bytes": {broker.name: broker.log_bytes - self.log_bytes[broker.name] for broker in self.world.brokers},
                "seconds": time.monotonic() - self.since, "stretch": self.stretch(),
                "reports": [line for broker in self.world.brokers for line in broker.reports]}
