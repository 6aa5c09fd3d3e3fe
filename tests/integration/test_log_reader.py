"""Whoever reads the log may be slow, or gone: the broker serves on, loses lines, and says how many."""

import fcntl
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import threading
import time

import pytest

from lib import PATIENCE, Broker, RawWs, RedisServer, parse_log_line, wait_until
from lib.broker import _CHECKED


class Quiet:
    """A broker whose standard error is the descriptor `err`, which nobody reads by himself."""

    def __init__(self, err, **options):
        self.broker = Broker(**{"ping_interval": "0", **options})
        env = {key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}
        self.popen = subprocess.Popen(self.broker.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
                                      env={**env, **_CHECKED}, preexec_fn=None if err is not None else lambda: os.close(2))

    def __enter__(self):
        wait_until(lambda: self.broker.readyz() == 200, "it is ready")
        return self

    def __exit__(self, *_):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(PATIENCE)

    def connect(self, count):
        for i in range(count):
            with RawWs(self.broker.port, "/echo") as client:
                client.send("hi")
                assert client.recv() == "hi", i

    def dropped(self):
        return self.broker.metrics()["switchboard_log_lines_dropped_total"]

    def end(self):
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE)


def read_until(fd, what, timeout=PATIENCE):
    """The text that comes until a line holds `what`."""
    text, end = b"", time.monotonic() + timeout
    while what not in text or not text.endswith(b"\n"):
        assert time.monotonic() < end, f"{what} did not come behind {text[-500:]}"
        if select.select([fd], [], [], 0.1)[0]:
            text += os.read(fd, 65536)
    return text.decode()


def fill(there):
    os.set_blocking(there, False)
    try:
        while True:
            os.write(there, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(there, True)


def open_pipe():
    return os.pipe()


def open_terminal():
    here, there = pty.openpty()
    mode = termios.tcgetattr(there)
    mode[1] &= ~termios.OPOST
    termios.tcsetattr(there, termios.TCSANOW, mode)
    return here, there


def open_socket():
    """As journald gives."""
    here, there = socket.socketpair()
    return here.detach(), there.detach()


READERS = {"pipe": open_pipe, "terminal": open_terminal, "socket": open_socket}


@pytest.fixture(params=READERS)
def ends(request):
    here, there = READERS[request.param]()
    yield here, there
    os.close(here), os.close(there)


def test_a_log_that_nobody_reads_freezes_nothing(ends):
    here, there = ends
    flags = fcntl.fcntl(there, fcntl.F_GETFL)
    with Quiet(there) as quiet:
        quiet.connect(1000)
        wait_until(lambda: quiet.broker.stats()["sessions"] == 0, "all have left")
        lost = quiet.dropped()
        assert lost > 500
        assert quiet.broker.stats()["counters"]["log_lines_dropped"] == lost
        # The descriptor is the shell's, too: what it is set to stays.
        assert fcntl.fcntl(there, fcntl.F_GETFL) == flags
        # Somebody reads again; nothing else happens meanwhile.
        text = read_until(here, b"log lines dropped")
        assert all(parse_log_line(line) for line in text.splitlines())
        text += read_until(here, f" total={lost:.0f}\n".encode()) if f" total={lost:.0f}\n" not in text else ""
        told = [int(line["lines"]) for line in map(parse_log_line, text.splitlines()) if line["event"] == "log lines dropped"]
        assert sum(told) == lost == quiet.dropped()
        quiet.connect(1)
        assert "session offline" in read_until(here, b"session offline")
        assert quiet.dropped() == lost
        assert quiet.end() == 0


def test_a_reader_that_is_gone_ends_nothing():
    here, there = os.pipe()
    with Quiet(there) as quiet:
        os.close(there)
        os.close(here)
        quiet.connect(50)
        assert quiet.dropped() > 50
        assert quiet.end() == 0


def test_a_terminal_that_is_stopped():
    """Control-S."""
    here, there = open_terminal()
    with Quiet(there) as quiet:
        termios.tcflow(there, termios.TCOOFF)
        quiet.connect(400)
        assert quiet.dropped() > 0
        termios.tcflow(there, termios.TCOON)
        read_until(here, b"log lines dropped")
        assert quiet.end() == 0
    os.close(here), os.close(there)


def pids(quiet):
    """Of the workers that live; nobody, as long as the API doesn't answer."""
    try:
        return {int(one["pid"]) for one in quiet.broker.api("/v1/instances")["instances"]}
    except (OSError, AssertionError):
        return set()


def test_workers_and_who_watches_them():
    here, there = os.pipe()
    with RedisServer() as redis:
        with Quiet(there, redis=redis, workers=2, instance="w") as quiet:
            wait_until(lambda: len(pids(quiet)) == 2, "both are there")
            quiet.connect(400)
            # Whoever watches has to log that they died, and starts them again.
            before = pids(quiet)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(pids(quiet) - before) == 2, "both are back")
            quiet.connect(400)
            # And when nobody reads at all any more.
            os.close(there)
            os.close(here)
            before = pids(quiet)
            os.kill(min(before), signal.SIGKILL)
            wait_until(lambda: pids(quiet) - before and min(before) not in pids(quiet), "it is back")
            quiet.connect(10)
            assert quiet.end() == 0


def test_without_standard_error_no_client_gets_the_log():
    with Quiet(None) as quiet:
        fds = os.listdir(f"/proc/{quiet.popen.pid}/fd")
        assert {"0", "1", "2"} <= set(fds) and os.readlink(f"/proc/{quiet.popen.pid}/fd/2") == "/dev/null"
        quiet.connect(3)
        assert quiet.end() == 0


def test_what_keeps_it_from_starting_is_said():
    """Also when the pipe is full at first."""
    here, there = os.pipe()
    with Broker() as broker:
        fill(there)
        command = broker.command
        env = {key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}
        popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=there, env=env)
        found = []
        reader = threading.Timer(0.3, lambda: found.append(read_until(here, b"level=error")))
        reader.start()
        assert popen.wait(PATIENCE) == 1
        reader.join()
        assert "listen" in found[0] or "in use" in found[0]
        # And it ends when nobody ever reads.
        fill(there)
        assert subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=there, env=env,
                              timeout=PATIENCE).returncode == 1
    os.close(here), os.close(there)
