"""The servers under measurement: started on free loopback ports, in a folder of their own, and ended by their pids."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / "bench/peers"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "switchboard/bench"
PATIENCE = 20

_path = os.environ["PATH"] + ":/usr/sbin:/sbin"
_next_port = 16000 + os.getpid() % 1500


class Missing(Exception):
    """A program that isn't there: the reason, for people."""


class Failed(Exception):
    """A server or a run that went wrong."""


def find(program):
    found = shutil.which(program, path=_path)
    if not found:
        raise Missing(f"{program} is not installed (deploy/packages, set bench)")
    return found


def free_port():
    """Below the kernel's range of outgoing connections, so that none of those takes it before the server does."""
    global _next_port
    while True:
        _next_port = 16000 + (_next_port - 15999) % 3900
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port))
            except OSError:
                continue
            return _next_port


def first_line(*command):
    """What a program says of its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if text else "?"


class Process:
    """A server process. `label` is what its processor time is booked under."""

    def __init__(self, label, command, folder, cwd=None, env=None):
        self.label = label
        self.log = open(pathlib.Path(folder) / f"{label}-{len(os.listdir(folder))}.log", "w+b")
        # Whoever starts it may be killed: then it ends as well.
        command = [find("setpriv"), "--pdeathsig", "TERM", "--", *map(str, command)]
        self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=cwd,
                                      env=env, start_new_session=True)

    @property
    def pid(self):
        return self.popen.pid

    def pids(self):
        """Its own, and those of its children."""
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                todo += map(int, task.read_text().split())
        return found

    def tail(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")[-2000:]

    def await_http(self, port, path="/", statuses=(200,)):
        """Until it answers with one of these."""
        self.wait_for(lambda: _http_status(port, path) in statuses, f"port {port}")

    def wait_for(self, test, what):
        deadline = time.monotonic() + PATIENCE
        while not test():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.label} does not serve {what}:\n{self.tail()}")
            time.sleep(0.02)

    def kill(self):
        """With its children, which may outlive it otherwise."""
        if self.popen.poll() is None:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
            self.popen.wait()

    def ask_to_end(self):
        if self.popen.poll() is None:
            self.popen.terminate()

    def end(self):
        self.ask_to_end()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.log.close()


def _http_status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, http.client.HTTPException):
        return None


class Redis(Process):
    def __init__(self, folder):
        self.port = free_port()
        super().__init__("redis", [find("redis-server"), ROOT / "deploy/redis.conf", "--port", self.port, "--bind", "127.0.0.1",
                                   "--dir", folder, "--save", "", "--appendonly", "no"], folder)
        self.wait_for(self._answers, f"port {self.port}")

    def _command(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 5) as link:
            link.sendall(" ".join(words).encode() + b"\r\n")
            data = b""
            while chunk := link.recv(65536):
                data += chunk
                if data[:1] != b"$" or len(data) > int(data[1:data.index(b"\r\n")]) + 2:
                    return data.decode()
        return ""

    def _answers(self):
        try:
            return self._command("PING").startswith("+PONG")
        except OSError:
            return False

    def used_memory(self):
        text = self._command("INFO", "memory")
        return int(text.split("used_memory:")[1].split()[0])


class Peer:
    """A product with its instances. Subclasses start them; `with` ends them."""

    name = title = dialect = ""
    requests = None  # the dialect in which it is asked, if it can be
    most = 4  # instances

    def __init__(self, instances=2):
        self.instances = min(instances, self.most)
        self.folder = None
        self.processes = []
        self.brokers = []
        self.redis = None
        self.ports = []
        self.api_ports = []

    @classmethod
    def prepare(cls, options):
        """Raises Missing when it can't be run here."""

    @classmethod
    def version(cls):
        return "?"

    def start(self):
        raise NotImplementedError

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="switchboard-bench-")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.ask_to_end()
        for process in self.processes:
            process.end()
        self.processes = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, label, *command, **options):
        process = Process(label, command, self.folder, **options)
        self.processes.append(process)
        if label != "redis":
            self.brokers.append(process)
        return process

    def start_redis(self):
        self.redis = Redis(self.folder)
        self.processes.append(self.redis)
        return self.redis

    def config(self, source, **words):
        """A configuration of bench/peers with its words filled in."""
        text = (PEERS / source).read_text()
        head, rest = [], []
        for line in text.splitlines(keepends=True):
            (head if line.lstrip().startswith("#") else rest).append(line)
        text = "".join(rest)
        for word, value in words.items():
            text = text.replace(word, str(value))
        target = pathlib.Path(self.folder) / f"{words.get('INSTANCE', words.get('PORT'))}-{source}"
        target.write_text(text)
        return target

    def servers(self):
        """(label, pid) of every process there is, children included."""
        return [(process.label, pid) for process in self.processes for pid in process.pids()]

    def memory(self):
        """Bytes of memory of the brokers' own, what they share with others counted in part."""
        total = 0
        for process in self.brokers:
            for pid in process.pids():
                for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total


class Switchboard(Peer):
    name, title, dialect = "switchboard", "Switchboard", "plain"
    requests = "json"
    binary = None  # set by prepare()
    storage = "redis"
    most = 8

    @classmethod
    def prepare(cls, options):
        cls.binary = options.build_dir / "switchboard"
        if not cls.binary.exists():
            raise Missing(f"{cls.binary} is not there")

    @classmethod
    def version(cls):
        return first_line(cls.binary, "--version").removeprefix("switchboard ")

    def start_broker(self, name, *options):
        """Returns its port, and that of its API."""
        port, api = free_port(), free_port()
        # What the environment says of an operator's own broker is not for these.
        env = {key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}
        self.run("broker", self.binary, "-c", PEERS / "switchboard.conf", "--listen", f"127.0.0.1:{port}", "--api",
                 f"127.0.0.1:{api}", "--instance", name, "--redis", f"redis://127.0.0.1:{self.redis.port}/0", *options, env=env)
        return port, api

    def start(self):
        self.title = f"Switchboard ×{self.instances}"
        self.start_redis()
        for i in range(self.instances):
            port, api = self.start_broker(f"bench{i}")
            self.ports.append(port)
            self.api_ports.append(api)
        for broker, api in zip(self.brokers, self.api_ports):
            broker.await_http(api, "/readyz")


class SwitchboardWorkers(Switchboard):
    """As many processes on one port, over which the kernel spreads the connections."""

    def start(self):
        self.start_redis()
        port, api = self.start_broker("bench", "--workers", self.instances)
        self.ports = [port]
        self.api_ports = [api + i for i in range(self.instances)]
        for worker in self.api_ports:
            self.brokers[0].await_http(worker, "/readyz")


class Nchan(Peer):
    name, title, dialect, mode = "nchan", "nchan + Redis", "plain", "nostore"
    module = "/usr/lib/nginx/modules/ngx_nchan_module.so"

    @classmethod
    def prepare(cls, options):
        find("nginx")
        if not os.path.exists(cls.module):
            raise Missing("libnginx-mod-nchan is not installed (deploy/packages, set bench)")

    @classmethod
    def version(cls):
        module = first_line("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan")
        return f"{module}, {first_line(find('nginx'), '-v').removeprefix('nginx version: ')}"

    def start(self):
        redis = self.start_redis()
        for i in range(self.instances):
            port = free_port()
            folder = pathlib.Path(self.folder) / f"nginx{i}"
            folder.mkdir()
            # nginx leaves root for nobody, who has to get through here.
            os.chmod(self.folder, 0o755)
            config = self.config("nchan.conf", PORT=port, REDIS=redis.port, DIR=folder, MODE=self.mode)
            broker = self.run("broker", find("nginx"), "-p", folder, "-e", folder / "error.log", "-c", config)
            self.ports.append(port)
            broker.await_http(port, "/ready", statuses=(200, 404))


class NchanDistributed(Nchan):
    """nchan's default, which stores each message in Redis."""

    name, title, mode = "nchan-distributed", "nchan + Redis, storing", "distributed"


class Nats(Peer):
    name, title, dialect = "nats", "NATS", "nats"
    requests = "nats"

    @classmethod
    def prepare(cls, options):
        find("nats-server")

    @classmethod
    def version(cls):
        return first_line(find("nats-server"), "--version").removeprefix("nats-server: ")

    def start(self):
        clusters = [free_port() for _ in range(self.instances)]
        for i in range(self.instances):
            port = free_port()
            routes = ", ".join(f'"nats://127.0.0.1:{other}"' for other in clusters if other != clusters[i])
            config = self.config("nats.conf", INSTANCE=f"bench{i}", PORT=port, PLAIN=free_port(), CLUSTER=clusters[i],
                                 ROUTES=routes)
            broker = self.run("broker", find("nats-server"), "-c", config)
            self.ports.append(port)
            broker.await_http(port, statuses=range(100, 600))


class Mosquitto(Peer):
    name, title, dialect = "mosquitto", "mosquitto", "mqtt"
    most = 2

    @classmethod
    def prepare(cls, options):
        find("mosquitto")

    @classmethod
    def version(cls):
        return first_line(find("mosquitto"), "-h").removeprefix("mosquitto version ")

    def start(self):
        bridge_to = None
        for i in range(self.instances):
            port, plain = free_port(), free_port()
            config = self.config("mosquitto.conf", PORT=port, PLAIN=plain)
            if bridge_to:
                # Everything goes both ways, so that each instance serves all clients.
                with open(config, "a") as file:
                    file.write(f"\nconnection bench\naddress 127.0.0.1:{bridge_to}\ntopic # both 0\ntry_private true\n"
                               "notifications false\nrestart_timeout 1\n")
            broker = self.run("broker", find("mosquitto"), "-c", config)
            bridge_to = plain
            self.ports.append(port)
            broker.wait_for(lambda port=port: _connects(port), f"port {port}")


def _connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class _Npm(Peer):
    """Peers that npm installs, with the versions of bench/peers/package-lock.json, outside of the source tree."""

    folder_npm = CACHE / "npm"
    package = ""

    @classmethod
    def prepare(cls, options):
        cls.folder_npm.mkdir(parents=True, exist_ok=True)
        wanted = [(PEERS / name).read_bytes() for name in ("package.json", "package-lock.json")]
        stamp = cls.folder_npm / "installed"
        if not stamp.exists() or stamp.read_bytes() != b"".join(wanted):
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PEERS / name, cls.folder_npm / name)
            done = subprocess.run([find("npm"), "ci", "--no-audit", "--no-fund", "--silent"], cwd=cls.folder_npm,
                                  capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                raise Missing(f"npm can't install {cls.package}: {(done.stderr or done.stdout).strip()[-300:]}")
            stamp.write_bytes(b"".join(wanted))

    @classmethod
    def package_version(cls, package):
        return json.loads((cls.folder_npm / "node_modules" / package / "package.json").read_text())["version"]

    def copy(self, source):
        """A module finds its packages beside itself."""
        return shutil.copy(PEERS / source, self.folder_npm / source)


class SocketIo(_Npm):
    name, title, dialect, package = "socketio", "Socket.IO + Redis", "socketio", "socket.io"
    requests = "socketio"

    @classmethod
    def prepare(cls, options):
        find("node")
        super().prepare(options)

    @classmethod
    def version(cls):
        return (f"{cls.package_version('socket.io')}, redis-adapter {cls.package_version('@socket.io/redis-adapter')}, "
                f"Node {first_line(find('node'), '--version').lstrip('v')}")

    def start(self):
        redis = self.start_redis()
        program = self.copy("socketio.mjs")
        for _ in range(self.instances):
            port = free_port()
            broker = self.run("broker", find("node"), program, port, redis.port, env={**os.environ, "NODE_ENV": "production"})
            self.ports.append(port)
            broker.await_http(port, statuses=range(100, 600))


class Bun(_Npm):
    name, title, dialect, package = "bun", "Bun, in memory", "plain", "bun"
    most = 1

    @classmethod
    def executable(cls):
        """Where the package's install script moves it to; else, without install scripts, where it came."""
        modules = cls.folder_npm / "node_modules"
        for program in (modules / "bun/bin/bun.exe", modules / "@oven/bun-linux-x64/bin/bun", modules / "@oven/bun-linux-aarch64/bin/bun"):
            if program.exists() and program.stat().st_size > 1 << 20:
                os.chmod(program, 0o755)
                return program
        raise Missing("npm installed no bun for this machine")

    @classmethod
    def prepare(cls, options):
        super().prepare(options)
        cls.executable()

    @classmethod
    def version(cls):
        return first_line(cls.executable(), "--version")

    def start(self):
        port = free_port()
        broker = self.run("broker", self.executable(), self.copy("bun.js"), port)
        self.ports.append(port)
        broker.await_http(port)


class Floor(Peer):
    name, title, dialect = "floor", "bare epoll, one send each", "plain"
    most = 1
    binary = None

    @classmethod
    def prepare(cls, options):
        cls.binary = options.build_dir / "bench_floor"
        if not cls.binary.exists():
            raise Missing(f"{cls.binary} is not there")

    @classmethod
    def version(cls):
        return "this tree's"

    def start(self):
        port = free_port()
        broker = self.run("broker", self.binary, port)
        self.ports.append(port)
        broker.wait_for(lambda: _connects(port), f"port {port}")


ALL = {peer.name: peer for peer in (Switchboard, Nchan, NchanDistributed, Nats, Mosquitto, SocketIo, Bun, Floor)}
