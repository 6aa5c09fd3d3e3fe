"""Runs of the load generator."""

import json
import subprocess
import time

from .servers import Failed, find


class Load:
    """One run of bench_load against a peer: Load(options, peer, "fanout", sessions=1000).result()"""

    def __init__(self, options, peer, scenario, dialect=None, **settings):
        command = [find("setpriv"), "--pdeathsig", "KILL", "--", options.build_dir / "bench_load", scenario, "--ports",
                   ",".join(map(str, peer.ports)), "--dialect", dialect or peer.dialect]
        if peer.api_ports:
            command += ["--api-ports", ",".join(map(str, peer.api_ports))]
        for label, pid in peer.servers():
            command += ["--server", f"{label}={pid}"]
        for key, value in settings.items():
            command += ["--" + key.replace("_", "-"), value]
        self.popen = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, start_new_session=True)

    def await_ready(self):
        line = self.popen.stdout.readline()
        if '"ready"' not in line:
            self._fail()

    def go_on(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def _fail(self):
        _, errors = self.popen.communicate()
        raise Failed(errors.strip() or f"bench_load ended with {self.popen.returncode}")

    def result(self, timeout=300):
        try:
            output, errors = self.popen.communicate(timeout=timeout)
        except BaseException as error:
            self.popen.kill()
            self.popen.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"bench_load did not end within {timeout} s") from None
            raise
        if self.popen.returncode != 0:
            raise Failed(errors.strip() or f"bench_load ended with {self.popen.returncode}")
        return json.loads(output.strip().splitlines()[-1])

    def end(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


def measure(options, peer, scenario, **settings):
    load = Load(options, peer, scenario, **settings)
    try:
        return load.result()
    finally:
        load.end()


def measure_idle(options, peer, idle, **settings):
    """The memory that idle connections take of the brokers, and of Redis; then a while of them doing nothing."""
    before, redis_before = peer.memory(), peer.redis.used_memory() if peer.redis else 0
    load = Load(options, peer, "idle", idle=idle, **settings)
    try:
        load.await_ready()
        broker = (peer.memory() - before) / idle
        redis = (peer.redis.used_memory() - redis_before) / idle if peer.redis else None
        load.go_on()
        result = load.result()
    finally:
        load.end()
    return {**result, "memory": {"broker": broker, "redis": redis}}


def measure_storm(options, peer, **settings):
    """Kills one of the brokers under its clients, which come back to the others."""
    load = Load(options, peer, "storm", **settings)
    try:
        load.await_ready()
        time.sleep(0.2)
        peer.brokers[0].kill()
        return load.result()
    finally:
        load.end()
