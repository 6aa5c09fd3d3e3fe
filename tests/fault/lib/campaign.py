"""The course of a siege: quiet, attack, quiet, attack; one at a time as long as each had its turn, then several at once."""

import asyncio
import json
import os
import random
import shutil
import sys
import time

from lib.paths import ROOT

from .judge import Baseline, verdict
from .watch import Watch
from .wire import http

QUIET, AGAIN, EVERY = 4.0, 2.5, 5  # seconds of the first quiet phase and the later ones, and after how many attacks
LATE_TIMES = 3
BRIEF = 6.5  # an attack lasts no longer where the whole siege takes a minute or less
_SETPRIV = [shutil.which("setpriv"), "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


async def spawn(module, *words):
    """A helper of this siege in a process of its own, which ends with this one."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"}
    return await asyncio.create_subprocess_exec(*_SETPRIV, sys.executable, "-W", "ignore", "-m", module, *words, env=env,
                                                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
                                                limit=64 << 20)


async def ended(process, timeout):
    """Waits for it; then ends it, by its pid."""
    try:
        await asyncio.wait_for(process.wait(), timeout)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()


class Bystanders:
    """The process of the well-behaved."""

    def __init__(self, world):
        self.world = world
        self.process = None

    async def start(self):
        self.process = await spawn("fault.lib.bystanders")
        answer = await self.order("start", 40, **self.world.given())
        if not answer or not answer["settled"]:
            raise RuntimeError(f"the bystanders found no peace before the siege began: {answer}")

    async def order(self, do, timeout=15, **more):
        """The answer; None when the process is gone or stuck."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            await self.process.stdin.drain()
            line = await asyncio.wait_for(self.process.stdout.readline(), timeout)
            return json.loads(line) if line else None
        except (OSError, asyncio.TimeoutError):
            return None

    async def stop(self):
        if self.process and self.process.returncode is None:
            self.process.stdin.close()
            await ended(self.process, 2)


class Campaign:
    def __init__(self, world, attacks, seed, say, timed=True):
        self.world, self.attacks, self.seed, self.say, self.timed = world, attacks, seed, say, timed
        self.random = random.Random(seed)
        self.baseline = Baseline()
        self.watch = Watch(world)
        self.bystanders = Bystanders(world)
        self.rows = []
        self.running = []

    # ---- the plan

    def plan(self, seconds):
        """Yields groups of attacks. In a minute or less: the short subset, several at a time, once. Otherwise each alone, and, if the
        time is given, three at a time from then on."""
        names = list(self.attacks)
        if self.brief(seconds):
            names = [name for name in names if self.attacks[name].short] or names
            rounds = min(max(1, int((seconds - QUIET - 4) / 7)), len(names))
            yield from (names[i::rounds] for i in range(rounds))
            return
        if seconds is not None and seconds < sum(self.attacks[name].seconds + 3.5 for name in names):
            self.random.shuffle(names)
        yield from ([name] for name in names)
        while seconds is not None:
            yield self.random.sample(names, min(3, len(names)))

    def brief(self, seconds):
        return seconds is not None and seconds <= 60

    async def run(self, seconds):
        """Runs the plan until the time is over (None: until each attack had its turn)."""
        end = None if seconds is None or self.brief(seconds) else time.monotonic() + seconds
        self.longest = BRIEF if self.brief(seconds) else 3600
        self.watch.start()
        await self.bystanders.start()
        await self.quiet(QUIET)
        try:
            for number, names in enumerate(self.plan(seconds)):
                length = max(self.attacks[name].seconds for name in names)
                if end is not None and time.monotonic() + length > end:
                    break
                if number and number % EVERY == 0:
                    await self.quiet(AGAIN)
                await self.attack(names)
        finally:
            await self.stop()

    async def stop(self):
        for process in self.running:
            process.kill()
        await self.bystanders.stop()
        await self.watch.stop()

    # ---- its parts

    async def quiet(self, seconds):
        self.watch.begin()
        await self.bystanders.order("begin")
        await asyncio.sleep(seconds)
        report = await self.bystanders.order("end")
        if report is None:
            raise RuntimeError("the bystanders ended in a quiet phase")
        self.baseline.add(report)
        row = verdict(self.world, self.baseline, self.watch.end(), report, {}, [])
        if row["failures"]:
            self.say(f"while it was quiet: {'; '.join(row['failures'])}")

    async def one(self, name):
        """Runs one attacker's process; returns its report."""
        seconds = min(self.attacks[name].seconds, self.longest)
        process = await spawn("fault.lib.attack", name)
        self.running.append(process)
        try:
            given = {**self.world.given(), "seconds": seconds, "seed": self.random.randrange(1 << 30)}
            process.stdin.write(json.dumps(given).encode() + b"\n")
            output, _ = await asyncio.wait_for(process.communicate(), seconds + 25)
            return json.loads(output) if output else {"counts": {}, "failures": {f"the attacker broke ({process.returncode})": 1}}
        except asyncio.TimeoutError:
            return {"counts": {}, "failures": {"the attacker found no end": 1}}
        finally:
            await ended(process, 0.1)
            self.running.remove(process)

    async def attack(self, names):
        """Where bystanders are late and nothing else is wrong, the attack is repeated: on a machine that others use too, late counts
        when it is so each time."""
        for attempt in range(LATE_TIMES):
            self.say(None, names)
            row, hung, report = await self.attempt(names)
            row["attempts"] = attempt + 1
            if row["failures"] or not row["late"] or not self.timed:
                break
        row["failures"] += row["late"] if self.timed else []
        self.rows.append(row)
        self.say(row)
        await self.recover(hung, report)

    async def attempt(self, names):
        self.watch.begin(full=any(self.attacks[name].full for name in names))
        await self.bystanders.order("begin")
        found = dict(zip(names, await asyncio.gather(*(self.one(name) for name in names))))
        await asyncio.sleep(0.3)
        report = await self.bystanders.order("end")
        hung = await self.hung()
        row = verdict(self.world, self.baseline, self.watch.end(), report, found, names)
        row["failures"] += [f"{broker.name} hangs" for broker in hung]
        return row, hung, report

    async def hung(self):
        return [broker for broker in self.world.brokers if broker.running and (await http(broker.api_port, "/healthz", timeout=5))[0] is None]

    async def recover(self, hung, report):
        """Until the next attack all is as it was: what died is started, what was left is removed, bystanders are connected."""
        try:
            mended = await asyncio.to_thread(self.world.repair, hung)
        except Exception as error:
            self.found(f"does not start again: {str(error).splitlines()[0]}")
            mended = await self.start_over()
        if mended:
            self.say(f"started again: {', '.join(mended)}")
        else:
            await asyncio.to_thread(self.world.clean)
        for broker in self.world.brokers:
            broker.reports.clear()
        if report is None:
            await self.bystanders.stop()
            await self.bystanders.start()
        answer = await self.bystanders.order("settle", 40)
        if not answer or not answer["settled"]:
            # Whatever it is, it outlived its cause: that is a finding, and the next attack deserves a world that works.
            self.found(f"no peace afterwards: {answer['missing'] if answer else 'the bystanders are gone'}")
            await self.start_over()
            await self.bystanders.stop()
            await self.bystanders.start()

    def found(self, text):
        """Something that came out after the verdict on the last attack."""
        self.rows[-1]["failures"].append(text)
        self.say(text)

    async def start_over(self):
        """Everything anew; what doesn't start now ends the siege."""
        try:
            return await asyncio.to_thread(self.world.repair, self.world.servers())
        except Exception as error:
            raise RuntimeError(f"the servers could not be started again: {error}") from None
