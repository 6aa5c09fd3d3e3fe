"""What an attack is, the table of all, and the program that runs one: python3 -m fault.lib.attack NAME (the siege does)."""

import asyncio
import importlib
import json
import logging
import os
import random
import resource
import signal
import sys
import time

import redis

from .wire import ENDED, Conn, Door

MODULES = ("handshake", "heads", "frames", "readers", "commands", "payloads", "registry", "api")
PHASES = ("handshake", "head", "frame", "reader", "command", "payload", "redis", "api", "log")
ATTACKS = {}
FATE = (*ENDED, asyncio.TimeoutError, redis.exceptions.RedisError)  # what may befall an attacker


class Attack:
    """One row of the table. What must be true for everybody else holds in each attack and isn't repeated here; `then` says
    what must be true of the attacker's own connections."""

    name = None
    phase = None
    then = "the others notice nothing"
    seconds = 4.0
    short = False        # part of the subset of half a minute
    full = False         # it may use up max_connections: newcomers may be told 503 meanwhile

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        cls.short = cls.__dict__.get("short", False)  # of this one only, not of those made from it
        if cls.name:
            assert cls.phase in PHASES and cls.name not in ATTACKS, cls.name
            ATTACKS[cls.name] = cls

    async def run(self, ground):
        raise NotImplementedError


class Ground:
    """Where an attack takes place: the doors and ports, the time that is left, and what it found."""

    def __init__(self, given):
        self.doors = [Door(*one) for one in given["doors"]]
        self.apis = given["apis"]
        self.token = given["token"]
        self.redis_port = given["redis"]
        self.handshake_timeout = given["handshake_timeout"]
        self.ping_time = given["ping_time"]
        self.sanitized = given["sanitized"]
        self.binary = given["binary"]
        self.random = random.Random(given["seed"])
        self.seconds = given["seconds"]
        self.deadline = time.monotonic() + self.seconds
        self.counts = {}
        self.failures = {}
        self.names = 0
        self.mark = f"foe{given['seed'] % 100000}"

    @property
    def direct(self):
        return [door for door in self.doors if not door.proxied]

    @property
    def left(self):
        return max(self.deadline - time.monotonic(), 0)

    @property
    def more(self):
        return time.monotonic() < self.deadline

    @property
    def bearer(self):
        return {"Authorization": f"Bearer {self.token}"}

    def count(self, what, number=1):
        self.counts[what] = self.counts.get(what, 0) + number

    def fail(self, text):
        self.failures[text] = self.failures.get(text, 0) + 1

    def check(self, good, text):
        if not good:
            self.fail(text)

    def name_of(self, number):
        """The name of an attacker's session; each that is used may be named in the log."""
        self.names = max(self.names, number + 1)
        return f"{self.mark}n{number}"

    async def gather(self, *coroutines, grace=3):
        """Runs all until the attack's time is over; what the connections of attackers come to is their own matter."""
        async def quiet(coroutine):
            try:
                await coroutine
            except FATE:
                self.count("cut")
        tasks = [asyncio.ensure_future(quiet(one)) for one in coroutines]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self.left + grace)
        for one in late:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in tasks:
            if one.done() and not one.cancelled() and one.exception():
                raise one.exception()

    async def crowd(self, count, make, at_once=64):
        """make(i) for each i below count, so many at a time; the results of those that succeeded."""
        gate = asyncio.Semaphore(at_once)

        async def one(number):
            async with gate:
                try:
                    return await make(number)
                except (*ENDED, asyncio.TimeoutError):
                    self.count("refused")
                    return None
        found = await asyncio.gather(*(one(i) for i in range(count)))
        return [one for one in found if one is not None]

    async def upgraded(self, number, path="/echo", **options):
        """A WebSocket at one of the doors, in turn."""
        return await Conn.upgraded(self.doors[number % len(self.doors)], path, **options)

    def report(self):
        return {"counts": self.counts, "failures": self.failures, "names": self.names}


def load():
    """Fills the table."""
    for module in MODULES:
        importlib.import_module(f"fault.lib.attack_{module}")
    return ATTACKS


def raise_fd_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def _main(attack, ground):
    task = asyncio.ensure_future(attack.run(ground))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await asyncio.wait_for(task, ground.seconds + 15)
    except asyncio.TimeoutError:
        ground.fail("the attack itself found no end: something it waited for never came")
    except asyncio.CancelledError:
        ground.count("ended early")
    except FATE as error:
        ground.count(f"ended by {type(error).__name__}")


def main():
    os.nice(19)  # attackers are elsewhere in the world: here they must not take the processors from those they attack
    raise_fd_limit()
    logging.disable()  # asyncio speaks of each write to a connection that is gone
    given = json.loads(sys.stdin.readline())
    attack, ground = load()[sys.argv[1]](), Ground(given)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # connections that were torn down mid-way
    loop.run_until_complete(_main(attack, ground))
    print(json.dumps(ground.report()), flush=True)
    os._exit(0)  # thousands of connections needn't be closed one by one


if __name__ == "__main__":
    # As a module of its own name: the attacks import it, and must find the same table.
    from fault.lib import attack as self_module
    self_module.main()
