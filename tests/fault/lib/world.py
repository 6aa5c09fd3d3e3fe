"""What is besieged: a Redis, two brokers, and HAProxy before them with the shipped configuration."""

import collections
import os
import re
import resource
import subprocess

from lib import Broker, Certificate, HAProxy, RedisServer
from lib.broker import parse_log_line
from lib.paths import BINARY, DEPLOY, SANITIZED

from .wire import Door

TOKEN = "siege-token-of-nobody"
MAX_CONNECTIONS = 2000
DESCRIPTORS = 4200  # of a broker: few enough for attackers to use them up
HANDSHAKE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT = 3, 2, 3
REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")
# Short times and small numbers, so that an attack shows within seconds what it would do within minutes; the rest is the default.
OPTIONS = {"handshake_timeout": f"{HANDSHAKE_TIMEOUT}s", "ping_interval": f"{PING_INTERVAL}s", "ping_timeout": f"{PING_TIMEOUT}s",
           "stall_timeout": "3s", "handshakes_limit": "256", "close_timeout": "1s", "max_connections": str(MAX_CONNECTIONS), "api_token": TOKEN,
           "log_level": "info"}


def settings():
    """What the broker knows to configure, with its values: key → text."""
    done = subprocess.run([BINARY, "-c", str(DEPLOY / "switchboard.conf"), "--print-config"], capture_output=True, text=True, check=True,
                          env={"PATH": os.environ.get("PATH", "")})
    return {key: value.strip() for key, value in re.findall(r"^(\w+) =([^;\n]*)", done.stdout, re.M)}


def size_of(text):
    number, unit = re.fullmatch(r"(\d+) *(|KiB|MiB|GiB|B)", text).groups()
    return int(number) << {"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[unit]


class Besieged(Broker):
    """A broker whose log is counted, not kept: lines(kind) a second. Only what a sanitizer says is kept whole, and the end."""

    def __init__(self, **options):
        self.counted = collections.Counter()
        self.reports = []
        self.log_bytes = 0
        super().__init__(**options)

    def _read(self, stream):
        for raw in stream:
            line = raw.decode("utf-8", "backslashreplace").rstrip("\n")
            fields = parse_log_line(line)
            with self._changed:
                self.log_bytes += len(raw)
                self.lines.append(line)
                if len(self.lines) > 4000:
                    del self.lines[:2000]
                self.counted[(fields.get("level"), fields.get("event")) if fields else ("other", line[:60])] += 1
                if REPORT.search(line):
                    self.reports.append(line)
                self._changed.notify_all()
        stream.close()

    def check_reports(self):
        assert not self.reports, f"{self.name}: {self.reports[0]}"


class World:
    def __init__(self):
        self.settings = settings()
        self.sanitized = SANITIZED
        self.budget = size_of(self.settings.get("memory_budget", "512MiB"))
        self.parts = []

    def start(self):
        self.certificate = self.part(Certificate())
        self.redis = self.part(RedisServer())
        options = {key: value for key, value in OPTIONS.items() if key in self.settings}
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        under = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"] if hard >= DESCRIPTORS else []
        # A freed block that waits in a sanitizer's quarantine is no broker's memory.
        env = {"ASAN_OPTIONS": "exitcode=99:detect_leaks=1:strict_string_checks=1:abort_on_error=0:quarantine_size_mb=16:malloc_context_size=8"}
        self.brokers = [self.part(Besieged(redis=self.redis, instance=name, tls=tls, under=under, env=env, **options))
                        for name, tls in (("A", None), ("B", self.certificate))]
        self.proxy = self.part(HAProxy(self.brokers, edit=self.edit))
        # At the start nobody has used anything yet: what that is, is no attacker's doing.
        self.base = {broker.name: rss(broker.pid) for broker in self.brokers}
        a, b = self.brokers
        self.doors = [Door("A", a.port), Door("B", b.port, tls=True), Door("H", self.proxy.port, proxied=True),
                      Door("HT", self.tls_port, tls=True, proxied=True)]
        return self

    def part(self, one):
        one.__enter__()
        self.parts.append(one)
        return one

    def edit(self, text):
        """HAProxy ends TLS at a second port, and speaks it with the broker that does."""
        from lib import free_port
        self.tls_port = free_port()
        text, count = re.subn(r"^( *)bind (\S+)$", rf"\g<0>\n\g<1>bind 127.0.0.1:{self.tls_port} ssl crt {self.certificate.both} alpn http/1.1",
                              text, flags=re.M)
        text, servers = re.subn(r"^( *server broker2 .*)$", r"\1 ssl verify none no-check-ssl", text, flags=re.M)
        assert (count, servers) == (1, 1)
        return text

    def given(self):
        """What an attacker or a bystander is told, as JSON can hold it."""
        return {"doors": [[door.name, door.port, door.tls, door.proxied] for door in self.doors], "token": TOKEN,
                "apis": [broker.api_port for broker in self.brokers], "redis": self.redis.port, "binary": BINARY,
                "handshake_timeout": HANDSHAKE_TIMEOUT, "ping_time": PING_INTERVAL + PING_TIMEOUT, "sanitized": self.sanitized}

    def allowance(self, broker):
        """The budget, what it had at the start, and what isn't in the budget: code, sessions, buffers that are kept."""
        return (self.budget + (128 << 20)) * (2 if self.sanitized else 1) + self.base[broker.name]

    def servers(self):
        return [*self.brokers, self.redis, self.proxy]

    def repair(self, hung=()):
        """Starts again what has ended, and ends what hangs; returns the names. AssertionError: it doesn't start."""
        broken = [one for one in self.servers() if not one.running or one in hung]
        for one in broken:
            if one.running:
                one.popen.kill()
            one._collect(20)
        self.clean()  # what was left behind must not keep it from starting
        for one in broken:
            one.start()
        return [one.name for one in broken]

    def clean(self):
        """Removes what attackers left in Redis."""
        if not self.redis.running:
            return
        client = self.redis.binary_client
        client.zrem("sb:instances", *[one for one in client.zrange("sb:instances", 0, -1) if one not in (b"A", b"B")] or [b"-"])
        for pattern in ("sb:*foe*", "sb:once:*foe*"):
            batch = []
            for key in client.scan_iter(pattern, count=2000):
                batch.append(key)
                if len(batch) >= 2000:
                    client.unlink(*batch)
                    batch.clear()
            if batch:
                client.unlink(*batch)
        client.close()

    def stop(self):
        """Ends all, last started first; returns what went wrong with it."""
        problems = []
        while self.parts:
            one = self.parts.pop()
            try:
                one.__exit__(None, None, None)
            except BaseException as error:
                problems.append(str(error).split("\n")[0])
        return problems


def rss(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0
