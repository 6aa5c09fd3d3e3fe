# ctest: unsanitized
"""What a delivered message costs: instructions and system calls, counted, not timed. The bounds are about twice what is
needed today, so that they catch a change of kind, such as a copy for each receiver or a system call for each frame."""

import os
import re
import signal

from lib import Broker, RawWs, RedisServer

RECEIVERS, MESSAGES = 50, 100

MAX_INSTRUCTIONS = 1800  # for a delivery, libraries included
MAX_SYSTEM_CALLS = 1.5   # for a delivery


def fan_out(broker, rounds):
    """Sends MESSAGES messages to RECEIVERS clients, one by one, `rounds` times; returns the number of deliveries."""
    clients = [RawWs(broker.port, "/topics/t") for _ in range(RECEIVERS)]
    for i in range(rounds * MESSAGES):
        text = f"{i:0100}"
        clients[0].send(text)
        for client in clients:
            assert client.recv() == text
    for client in clients:
        client.close()
    return rounds * MESSAGES * RECEIVERS


def instructions(rounds, redis, folder):
    """Of a whole run, from start to end."""
    out = os.path.join(folder, f"callgrind.{rounds}")
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"]
    with Broker(redis, under=under, log_level="warn", ping_interval="0", heartbeat="10s", lease="30s") as broker:
        fan_out(broker, rounds)
        broker.stop()
    with open(out) as file:
        return int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.MULTILINE)[1])


def test_instructions_of_a_delivery(tmp_path):
    with RedisServer() as redis:
        once, thrice = instructions(1, redis, tmp_path), instructions(3, redis, tmp_path)
    each = (thrice - once) / (2 * MESSAGES * RECEIVERS)
    print(f"{each:.0f} instructions a delivery")
    assert each < MAX_INSTRUCTIONS


def test_system_calls_of_a_delivery(tmp_path):
    calls = {}
    with RedisServer() as redis:
        for rounds in (1, 3):
            out = tmp_path / f"strace.{rounds}"
            with Broker(redis, under=["strace", "-f", "-c", "-o", out], ping_interval="0", heartbeat="10s",
                        lease="30s") as broker:
                fan_out(broker, rounds)
                # strace itself would only let go of it.
                os.kill(int(broker.log("started")[0]["pid"]), signal.SIGTERM)
                assert broker.wait() == 0
            calls[rounds] = int(re.search(r"(\d+) +(?:\d+ +)?total", out.read_text())[1])
    each = (calls[3] - calls[1]) / (2 * MESSAGES * RECEIVERS)
    print(f"{each:.2f} system calls a delivery")
    assert each < MAX_SYSTEM_CALLS
