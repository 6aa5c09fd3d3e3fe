"""A well-behaved client that measures while others do what they like.

    with Bystander(broker) as bystander, Flood(floods.plain, broker.port):
        late = bystander.measure(seconds=3)          # .p50, .p99 and .max in seconds

A flood runs in a process of its own, so that it doesn't slow down the one who measures.
"""

import json
import multiprocessing
import time

from .rawws import RawWs

JSON = "switchboard.json.v1"


class Delays(list):
    def at(self, share):
        return sorted(self)[min(len(self) - 1, int(len(self) * share))]

    @property
    def p50(self):
        return self.at(0.5)

    @property
    def p99(self):
        return self.at(0.99)

    @property
    def max(self):
        return max(self)

    def __str__(self):
        return f"{len(self)} answers, p50 {self.p50 * 1e3:.2f} ms, p99 {self.p99 * 1e3:.2f} ms, max {self.max * 1e3:.2f} ms"


class Bystander(RawWs):
    """Publishes to a topic that nobody hears, one message after the other, a hundred a second: each answer has been in Redis."""

    def __init__(self, broker, name="bystander"):
        super().__init__(broker.port, f"/connect?session={name}", subprotocols=[JSON])
        assert '"hello"' in self.recv()
        self.number = 0

    def ask(self):
        self.number += 1
        self.send(json.dumps({"id": self.number, "cmd": "publish", "topic": "nobody", "text": "x"}))
        answer = json.loads(self.recv())
        assert answer["id"] == self.number and "ok" in answer, answer

    def measure(self, seconds, pause=0.01):
        delays, end = Delays(), time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            self.ask()
            delays.append(time.monotonic() - begin)
            time.sleep(max(0, pause - delays[-1]))  # the pace of the measurement, not a wait for something
        return delays


class Flood:
    """Runs function(*arguments) in another process until the block ends; it ends by itself after a minute."""

    def __init__(self, function, *arguments):
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(function, arguments), daemon=True)

    @staticmethod
    def _run(function, arguments):
        import signal
        signal.alarm(60)
        function(*arguments)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()
