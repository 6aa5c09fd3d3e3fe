"""A server process: started, its output collected line by line, and ended for certain."""

import concurrent.futures
import os
import shutil
import signal
import subprocess
import threading
import time

from .paths import PATIENCE
from .waiting import Timeout

# A process dies with the thread that started it (setpriv --pdeathsig), so that nothing outlives a killed test run; this
# thread lives as long as the interpreter.
_spawner = concurrent.futures.ThreadPoolExecutor(1)
_SETPRIV = shutil.which("setpriv")
_all = []


class Process:
    """One run of a program at a time; start() again after it ended keeps the log. env is added to the environment; with
    inherit=False it is all of it."""

    def __init__(self, name, command, env=None, cwd=None, inherit=True):
        self.name = name
        self.command = [str(word) for word in command]
        self.env = {**(os.environ if inherit else {}), **(env or {})}
        self.cwd = cwd
        self.popen = None
        self.lines = []
        self._changed = threading.Condition()
        self._reader = None
        self._collected = False

    # ---- life

    def start(self):
        assert not self.running, f"{self.name} runs already"
        command = [_SETPRIV, "--pdeathsig", "KILL", "--"] + self.command
        self.popen = _spawner.submit(
            subprocess.Popen, command, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT).result()
        self._collected = False
        self._reader = threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()
        if self not in _all:
            _all.append(self)
        return self

    @property
    def running(self):
        return self.popen is not None and self.popen.poll() is None

    @property
    def pid(self):
        return self.popen.pid

    @property
    def returncode(self):
        return self.popen.returncode

    def signal(self, number):
        self.popen.send_signal(number)

    def pause(self):
        """SIGSTOP: alive for the kernel, silent for everybody else."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """kill -9, and waits until it is gone."""
        if self.running:
            self.signal(signal.SIGKILL)
        self._collect(PATIENCE)

    def terminate(self, timeout=PATIENCE):
        """SIGTERM, and waits until it is gone; returns the exit code (negative: the signal it died of)."""
        if self.running:
            self.resume()
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout=PATIENCE):
        """Waits until it ends by itself; returns the exit code."""
        try:
            self._collect(timeout)
        except subprocess.TimeoutExpired:
            raise Timeout(f"{self.name} did not end within {timeout} s") from None
        return self.popen.returncode

    def _collect(self, timeout):
        self.popen.wait(timeout)
        self._reader.join(timeout)
        self._collected = True

    def stop(self):
        """The ordinary end; kinds of servers add what they expect of it."""
        self.terminate()

    def __enter__(self):
        if not self.running:
            try:
                self.start()
            except BaseException as error:
                self.__exit__(type(error), error, None)
                raise
        return self

    def __exit__(self, kind, error, trace):
        if self.popen is None:
            return
        if kind is None:
            if not self._collected:  # else the test ended it; what ended by itself fails in stop()
                self.stop()
        else:
            try:  # the first failure is the one to show
                self.terminate()
            except Exception:
                self.kill()

    # ---- log

    def _read(self, stream):
        for raw in stream:
            with self._changed:
                self.lines.append(raw.decode("utf-8", "backslashreplace").rstrip("\n"))
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._changed.notify_all()

    def line_wait(self, match, timeout=PATIENCE, since=0):
        """Waits for a line (a substring, or a function that tells); lines before index `since` do not count. Returns what
        the function returned, or the line."""
        test = match if callable(match) else lambda line: line if match in line else None
        deadline = time.monotonic() + timeout
        at = since
        with self._changed:
            while True:
                while at < len(self.lines):
                    found = test(self.lines[at])
                    if found:
                        return found
                    at += 1
                left = deadline - time.monotonic()
                if not self._reader.is_alive():
                    raise Timeout(f"{self.name} ended without a line {match!r}")
                if left <= 0:
                    raise Timeout(f"{self.name}: no line {match!r} within {timeout} s")
                self._changed.wait(min(left, 0.2))

    def log_mark(self):
        """Where the log ends now, for `since`."""
        return len(self.lines)

    def log_tail(self, count=200):
        head = f"$ {' '.join(self.command)}\n"
        state = "running" if self.running else f"ended with {self.popen.returncode}" if self.popen else "not started"
        left_out = len(self.lines) - count
        if left_out > 0:
            head += f"({left_out} lines left out)\n"
        return head + "\n".join(self.lines[-count:]) + f"\n({state})"


def of_this_test():
    """All that this test used: what it started, and what fixtures of its whole file did."""
    return list(_all)


def running():
    return [one for one in _all if one.running]


def forget_ended():
    _all[:] = running()


def end_all(but=()):
    """Kills what is left of this test, except for these; returns the names."""
    left = [one for one in running() if one not in but]
    for one in left:
        one.kill()
    return [one.name for one in left]
