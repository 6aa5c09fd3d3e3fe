"""Idle connections cost memory, and nothing else: what a delivery costs stays the same with thousands of them.

SWITCHBOARD_TEST_IDLE=18000 tries it with that many; the limit of open files must allow it.
"""
# ctest: RUN_SERIAL TRUE

import os

from lib import SANITIZED, VALGRIND, Broker, Crowd, WsClient, cpu_seconds, rss_bytes, wait_until

COUNT = int(os.environ.get("SWITCHBOARD_TEST_IDLE", "500" if VALGRIND else "5000"))
ROUNDS, BATCH = 5, 1000


def cost(broker, one, other):
    """Processor time of the broker for a message to two sessions; the least of several rounds, which others disturbed least."""
    found = []
    for _ in range(ROUNDS):
        before = cpu_seconds(broker)
        for _ in range(BATCH // 100):
            one.send(*["x" * 50] * 100)
            other.recv_many(100)
            one.recv_many(100)
        found.append((cpu_seconds(broker) - before) / BATCH)
    return min(found)


def test_idle_connections_leave_the_cost_of_a_delivery_unchanged():
    with Broker(log_level="warn", ping_interval="0") as broker:
        # Not connect(): who is online is not logged here.
        with WsClient(broker.ws("/websocket/active")) as one, WsClient(broker.ws("/websocket/active")) as other:
            wait_until(lambda: broker.stats()["online"] == 2, "both are online")
            cost(broker, one, other)  # warm
            alone, memory = cost(broker, one, other), rss_bytes(broker)
            with Crowd(broker.port, lambda i: f"/websocket/idle{i % 1000}", COUNT):
                wait_until(lambda: broker.stats()["online"] == COUNT + 2, "all are online")
                crowded = cost(broker, one, other)
                each = (rss_bytes(broker) - memory) / COUNT
                print(f"alone {alone * 1e6:.1f} us, among {COUNT}: {crowded * 1e6:.1f} us; {each:.0f} bytes each")
                assert crowded < alone * 1.6 + 2e-6
                if not SANITIZED and not VALGRIND:
                    assert each < 16_000
            wait_until(lambda: broker.stats()["online"] == 2, "the crowd is gone")
            one.send("x")
            assert one.recv() == other.recv() == "active:x"


def test_idle_connections_cost_no_processor_time():
    with Broker(log_level="warn", ping_interval="0") as broker:
        with Crowd(broker.port, lambda i: f"/websocket/idle{i}", COUNT):
            wait_until(lambda: broker.stats()["online"] == COUNT, "all are online")
            before, requests = cpu_seconds(broker), 0
            for _ in range(200):
                assert broker.readyz() == 200  # turns of the loop
                requests += 1
            # Far below a look at every connection in every turn.
            assert (cpu_seconds(broker) - before) / requests < (0.02 if SANITIZED or VALGRIND else 0.002)
