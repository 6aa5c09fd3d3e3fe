"""The broker under test, and several of them on one Redis."""

import json
import os
import re
import shutil
import signal
import tempfile

from .http import request
from .paths import BINARY, DEPLOY, PATIENCE, VALGRIND
from .ports import free_port
from .process import Process
from .redis_server import RedisServer
from .rawws import RawWs
from .waiting import Timeout, wait_until
from .ws import WsClient

# A report of a sanitizer makes the exit code 99, and shows in the log.
_CHECKED = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=1:strict_string_checks=1:check_initialization_order=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    "LSAN_OPTIONS": "exitcode=99",
}
_REPORTS = re.compile(r"ERROR: (Address|Leak)Sanitizer|runtime error:|==\d+== (Invalid|Conditional jump|.*lost: [1-9])")
_VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite",
             "--track-fds=no"]

_LOGFMT = re.compile(r'([a-z_0-9]+)=("(?:[^"\\]|\\.)*"|[^ ]*)')


def parse_log_line(line):
    """The fields of a line of the broker's log, as text; None for a line that is none. JSON or logfmt."""
    if line.startswith("{"):
        try:
            return {key: str(value) for key, value in json.loads(line).items()}
        except ValueError:
            return None
    if not line.startswith("time="):
        return None
    return {key: json.loads(value) if value.startswith('"') else value for key, value in _LOGFMT.findall(line)}


class Broker(Process):
    """Runs deploy/switchboard.conf, or `config`: the text of a file. Further options as in the table of the
    configuration: Broker(redis=server, max_connections=5, ping_interval="200ms"). redis: a RedisServer or a URL; without
    it memory storage serves. An option that is None is left to the file. args and env go to the program as they are.
    under: the words of a command that runs it, like strace."""

    _count = 0

    def __init__(self, redis=None, config=None, port=None, api_port=None, instance=None, args=(), env=None, wait=True,
                 tls=None, under=(), **options):
        Broker._count += 1
        self.port = port or free_port()
        self.api_port = api_port or free_port()
        self.instance = instance or f"b{Broker._count}"
        self.tls = tls
        self.wait_ready = wait
        self.folder = tempfile.mkdtemp(prefix="sb-broker-")
        self.config = str(DEPLOY / "switchboard.conf")
        if config is not None:
            self.configure(config)
        options = {"log_level": "debug", "drain_time": "0s", **options}
        if redis is not None:
            options["redis"] = redis if isinstance(redis, str) else redis.url
        if tls:
            options.update(tls_cert=tls.cert, tls_key=tls.key)
        command = (list(under) or (_VALGRIND if VALGRIND else [])) + [BINARY, "-c", self.config, "--listen", f"127.0.0.1:{self.port}",
                                                     "--api", f"127.0.0.1:{self.api_port}", "--instance", self.instance]
        for key, value in options.items():
            if value is not None:
                command += [f"--{key.replace('_', '-')}", value]
        # What the environment of whoever runs the tests says about brokers is not meant for these.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}
        super().__init__(f"broker:{self.instance}", command + list(args), env={**kept, **_CHECKED, **(env or {})},
                         inherit=False)

    def configure(self, text):
        """Writes the configuration file, for a start or a SIGHUP to come."""
        self.config = os.path.join(self.folder, "switchboard.conf")
        with open(self.config, "w") as file:
            file.write(text)

    # ---- life

    def start(self):
        super().start()
        if self.wait_ready:
            self.ready()
        return self

    def ready(self, timeout=PATIENCE):
        """Waits for /readyz."""
        def check():
            if not self.running:
                raise AssertionError(f"{self.name} ended with {self.wait()}:\n{self.log_tail()}")
            return self.readyz() == 200
        wait_until(check, f"{self.name} is ready", timeout)

    def unready(self, timeout=PATIENCE):
        wait_until(lambda: self.readyz() == 503, f"{self.name} is not ready", timeout)

    def readyz(self):
        """The status of /readyz; None when nobody answers."""
        try:
            return request(self.api_port, "/readyz", timeout=PATIENCE).status
        except OSError:
            return None

    def stop(self, timeout=PATIENCE):
        """SIGTERM: the orderly end, which must succeed."""
        code = self.terminate(timeout)
        self.check_reports()
        assert code == 0, f"{self.name} ended with {code}"

    def kill(self):
        super().kill()
        self.check_reports()

    def restart(self):
        self.stop()
        return self.start()

    def reload(self):
        self.signal(signal.SIGHUP)

    def check_reports(self):
        bad = [line for line in self.lines if _REPORTS.search(line)]
        assert not bad, f"{self.name}: {bad[0]}\n{self.log_tail(400)}"

    def __exit__(self, kind, error, trace):
        try:
            super().__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- where it is, and what it says

    def ws(self, path):
        return f"{'wss' if self.tls else 'ws'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}{path}"

    def connect(self, path, **options):
        """A WsClient whose session is online."""
        return self.online(WsClient(self.ws(path), tls=self.tls, **options))

    def raw(self, path, **options):
        """A RawWs whose session is online, unless the handshake was refused."""
        client = RawWs(self.port, path, tls=self.tls, **options)
        return self.online(client) if client.status == 101 else client

    def online(self, client, timeout=PATIENCE):
        """Waits until the session of a client that just connected is online; returns the client."""
        remote = f"127.0.0.1:{client.local_port}"
        try:
            self.line_wait(lambda line: remote in line and _match(line, "session online", {"remote": remote}), timeout)
        except BaseException:
            client.abort()
            raise
        return client

    def stats(self):
        return self.api("/v1/stats")

    def counter(self, name):
        return self.stats()["counters"][name]

    def request(self, path="/", **options):
        """A request to the port of the clients."""
        return request(self.port, path, tls=self.tls and self.tls.client_context, **options)

    def api(self, path, method="GET", expect=200, **options):
        """The JSON that the API answers; with expect=None the Response as it is."""
        answer = request(self.api_port, path, method, **options)
        if expect is None:
            return answer
        assert answer.status == expect, f"{method} {path}: {answer}"
        return answer.json if answer.body else None

    def metrics(self):
        """All of /metrics as a dictionary: 'name{label="value"}' → number."""
        values = {}
        for line in request(self.api_port, "/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def log(self, event=None, **fields):
        """The log lines with these fields, as dictionaries."""
        return [found for line in list(self.lines) if (found := _match(line, event, fields))]

    def log_wait(self, event=None, timeout=PATIENCE, since=0, **fields):
        """Waits for a log line with these fields, and returns it as a dictionary: log_wait("session online", user="bob")"""
        try:
            return self.line_wait(lambda line: _match(line, event, fields), timeout, since)
        except Timeout:
            raise Timeout(f"{self.name}: no event {event!r} with {fields} within {timeout} s") from None


def _match(line, event, fields):
    found = parse_log_line(line)
    if found is None or (event is not None and found.get("event") != event):
        return None
    return found if all(found.get(key) == str(value) for key, value in fields.items()) else None


class Cluster:
    """Brokers on one Redis: cluster[0], cluster.redis; len() and iteration work. redis: an existing server, which then
    isn't ended here."""

    def __init__(self, count=2, redis=None, **options):
        self.count = count
        self.options = options
        self.redis = redis
        self._own_redis = redis is None
        self.brokers = []

    def add(self, **options):
        """Starts one broker more and returns it."""
        broker = Broker(redis=self.redis, **{**self.options, **options})
        self.brokers.append(broker)
        return broker.start()

    def __enter__(self):
        try:
            if self._own_redis:
                self.redis = RedisServer()
                self.redis.start()
            for _ in range(self.count):
                self.brokers.append(Broker(redis=self.redis, **{**self.options, "wait": False}).start())
            for broker in self.brokers:
                broker.wait_ready = self.options.get("wait", True)
                if broker.wait_ready:
                    broker.ready()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, error, trace):
        problem = None
        for one in [*self.brokers, *([self.redis] if self._own_redis and self.redis else [])]:
            try:
                one.__exit__(kind, error, trace)
            except Exception as caught:
                problem = problem or caught
        if problem and kind is None:
            raise problem

    def __getitem__(self, index):
        return self.brokers[index]

    def __len__(self):
        return len(self.brokers)

    def __iter__(self):
        return iter(self.brokers)
