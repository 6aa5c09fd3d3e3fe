"""A real Redis with deploy/redis.conf, on a port and a unix socket of its own."""

import os
import shutil
import subprocess
import tempfile

import redis

from .paths import DEPLOY, PATIENCE
from .ports import free_port
from .process import Process
from .waiting import wait_until


class RedisServer(Process):
    """persist: keep data on disk, so that a restart finds it again. Further options as in redis.conf, with _ for -."""

    def __init__(self, persist=False, port=None, password=None, **options):
        self.port = port or free_port()
        self.password = password
        # Not below pytest's own folder: a unix socket's path has 107 characters at most.
        self.folder = tempfile.mkdtemp(prefix="sb-redis-")
        self.socket = os.path.join(self.folder, "redis.sock")
        options = {"appendonly": "yes" if persist else "no", "save": "", "appendfsync": "no", "logfile": "", **options}
        if password:
            options["requirepass"] = password
        command = ["redis-server", DEPLOY / "redis.conf", "--port", self.port, "--bind", "127.0.0.1",
                   "--dir", self.folder, "--unixsocket", self.socket]
        for key, value in options.items():
            command += [f"--{key.replace('_', '-')}", value]
        super().__init__(f"redis:{self.port}", command)
        self._clients = []

    @property
    def url(self):
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self):
        return f"unix://{self.socket}"

    def start(self, wait=True):
        super().start()
        if wait:
            wait_until(self._answers, f"{self.name} answers")
        return self

    def _answers(self):
        if not self.running:
            raise AssertionError(f"{self.name} ended at its start with {self.returncode}:\n{self.log_tail()}")
        try:
            with redis.Redis(port=self.port, password=self.password, socket_timeout=1) as client:
                return client.ping()
        except redis.exceptions.RedisError:
            return False

    def restart(self):
        """An orderly stop and a new start; data survive with persist only."""
        self.terminate()
        return self.start()

    def stop(self):
        code = self.terminate()
        assert code == 0, f"{self.name} ended with {code}"

    def __exit__(self, kind, error, trace):
        try:
            for client in self._clients:
                client.close()
            super().__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def client(self):
        """A redis.Redis that returns text; for bytes use binary_client."""
        return self._client(True)

    @property
    def binary_client(self):
        return self._client(False)

    def _client(self, decode):
        client = redis.Redis(port=self.port, password=self.password, decode_responses=decode, socket_timeout=PATIENCE)
        self._clients.append(client)
        return client

    def cli(self, *words, input=None):
        """What an operator sees: the output of redis-cli, without its last newline."""
        auth = ["-a", self.password, "--no-auth-warning"] if self.password else []
        done = subprocess.run(["redis-cli", "-p", str(self.port), *auth, *map(str, words)], input=input, text=True,
                              stdin=None if input is not None else subprocess.DEVNULL, capture_output=True,
                              timeout=PATIENCE, check=True)
        return done.stdout.rstrip("\n")
