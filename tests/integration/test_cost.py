# ctest: unsanitized
"""What a delivered message costs: instructions and system calls, counted, not timed. The bounds are about twice what is
needed today, so that they catch a change of kind, such as a copy for each receiver or a system call for each frame."""

import contextlib
import os
import re
import signal
import subprocess

from lib import Broker, RawWs, RedisServer

RECEIVERS, MESSAGES, IDLE = 50, 200, 1000

MAX_INSTRUCTIONS = 1800  # for a delivery, libraries included
MAX_SYSTEM_CALLS = 1.5   # for a delivery
MAX_GROWTH = 1.1         # beside IDLE other connections, each with a topic of its own

QUIET = {"log_level": "info", "ping_interval": "0", "heartbeat": "10s", "lease": "30s"}


@contextlib.contextmanager
def connected(broker, idle=0):
    clients = [RawWs(broker.port, f"/topics/idle{i}") for i in range(idle)]
    clients += [RawWs(broker.port, "/topics/t") for _ in range(RECEIVERS)]
    yield clients[idle:]
    for client in clients:
        client.close()


def fan_out(clients, messages):
    """Sends messages to all, one after the other."""
    for i in range(messages):
        text = f"{i:0100}"
        clients[0].send(text)
        for client in clients:
            assert client.recv() == text


def control(broker, option):
    """Resets the counts (-z), or writes them to a file (-d)."""
    pid = broker.log("started")[0]["pid"]
    subprocess.run(["callgrind_control", option, pid], check=True, capture_output=True, timeout=30)


def instructions(folder, idle=0):
    """For a delivery."""
    out = folder / f"callgrind.{idle}"
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"]
    with RedisServer() as redis, Broker(redis, under=under, **QUIET) as broker, \
            connected(broker, idle) as clients:
        fan_out(clients, MESSAGES // 10)
        control(broker, "-z")
        fan_out(clients, MESSAGES)
        control(broker, "-d")
        text = out.with_name(out.name + ".1").read_text()
    return int(re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)[1]) / (MESSAGES * RECEIVERS)


def test_instructions_of_a_delivery(tmp_path):
    alone, beside = instructions(tmp_path), instructions(tmp_path, IDLE)
    print(f"{alone:.0f} instructions a delivery, {beside:.0f} beside {IDLE} idle connections")
    assert alone < MAX_INSTRUCTIONS
    assert beside < alone * MAX_GROWTH


def test_system_calls_of_a_delivery(tmp_path):
    calls = {}
    with RedisServer() as redis:
        for messages in (MESSAGES // 2, 3 * MESSAGES // 2):
            out = tmp_path / f"strace.{messages}"
            with Broker(redis, under=["strace", "-f", "-c", "-o", out], **QUIET) as broker:
                with connected(broker) as clients:
                    fan_out(clients, messages)
                # strace itself would only let go of it.
                os.kill(int(broker.log("started")[0]["pid"]), signal.SIGTERM)
                assert broker.wait() == 0
            calls[messages] = int(re.search(r"(\d+) +(?:\d+ +)?total", out.read_text())[1])
    each = (calls[3 * MESSAGES // 2] - calls[MESSAGES // 2]) / (MESSAGES * RECEIVERS)
    print(f"{each:.2f} system calls a delivery")
    assert each < MAX_SYSTEM_CALLS
