"""The command line."""

import os
import pathlib
import subprocess

from .paths import BINARY, PATIENCE
from .process import Process

SWB = str(pathlib.Path(BINARY).parent / "swb")


class Swb:
    """Runs swb with a home of its own."""

    def __init__(self, home):
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("SWITCHBOARD_", "XDG_"))}
        self.env["HOME"] = str(home)

    def at(self, broker):
        self.env["SWITCHBOARD_URL"] = broker.ws("/connect")
        self.env["SWITCHBOARD_API"] = f"http://127.0.0.1:{broker.api_port}"
        return self

    def __call__(self, *words, stdin="", code=0, binary=False):
        done = subprocess.run([SWB, *map(str, words)], env=self.env, input=stdin if binary else stdin.encode(),
                              capture_output=True, timeout=PATIENCE * 2)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}"
        self.errors = done.stderr.decode()
        return done.stdout.decode()

    def start(self, *words):
        return Process(f"swb {words[0]}", [SWB, *map(str, words)], env=self.env, inherit=False)

    def listen(self, *words):
        """Started, and online."""
        process = self.start(words[0], "-v", *words[1:]).start()
        process.line_wait("online as")
        return process
