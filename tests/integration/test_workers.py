"""Several worker processes behind one port (`workers`)."""

import os
import signal
import subprocess

from lib import Broker, RedisServer, free_port, wait_until
from lib.http import request
from lib.paths import BINARY


def workers_of(broker):
    """Number of the worker -> pid of its newest start."""
    return {int(line["worker"]): int(line["pid"]) for line in broker.log("worker started")}


def all_ready(broker, count):
    def check():
        try:
            return all(request(broker.api_port + i, "/readyz").status == 200 for i in range(count))
        except OSError:
            return False
    wait_until(check, "every worker is ready")


def api_ports(count):
    """The first of `count` ports in a row."""
    ports = [free_port() for _ in range(count)]
    while ports != list(range(ports[0], ports[0] + count)):
        ports = ports[1:] + [free_port()]
    return ports[0]


def test_they_share_the_port_and_the_load():
    with RedisServer() as redis, Broker(redis, workers=2, api_port=api_ports(2), instance="w", log_level="info") as broker:
        all_ready(broker, 2)
        clients = [broker.connect("/websocket/bob") for _ in range(20)]
        counts = [request(broker.api_port + i, "/v1/stats").json["sessions"] for i in range(2)]
        assert sum(counts) == 20 and all(counts), counts
        clients[0].send("hello")
        assert [client.recv() for client in clients] == ["bob:hello"] * 20
        assert sorted(redis.cli("ZRANGE", "sb:instances", "0", "-1").split()) == ["w-1", "w-2"]


def test_one_that_dies_comes_back_and_the_other_serves_on():
    with RedisServer() as redis, Broker(redis, workers=2, api_port=api_ports(2), log_level="info") as broker:
        all_ready(broker, 2)
        victim = workers_of(broker)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: workers_of(broker)[0] != victim, "the worker is started again")
        assert broker.log("worker died")[-1]["signal"] == "9"
        all_ready(broker, 2)
        with broker.connect("/websocket/bob") as client:
            client.send("x")
            assert client.recv() == "bob:x"


def test_they_drain_together():
    with RedisServer() as redis:
        with Broker(redis, workers=3, api_port=api_ports(3), log_level="info") as broker:
            all_ready(broker, 3)
            clients = [broker.connect(f"/websocket/u{i}") for i in range(12)]
            broker.signal(signal.SIGTERM)
            assert {client.wait_closed().code for client in clients} == {1012}
            assert broker.wait() == 0
        assert redis.client.keys("sb:*") == []


def test_a_port_that_is_taken_ends_all():
    with RedisServer() as redis, Broker(redis) as other:
        result = subprocess.run([BINARY, "--workers", "2", "--redis", redis.url, "--listen", f"127.0.0.1:{free_port()}",
                                 "--api", f"127.0.0.1:{other.api_port}"], capture_output=True, text=True, timeout=20, env={})
        assert result.returncode == 1
        assert "can't listen" in result.stderr and "worker failed to start" in result.stderr


def test_without_redis_it_is_an_error():
    result = subprocess.run([BINARY, "--workers", "2"], capture_output=True, text=True, timeout=20, env={})
    assert result.returncode == 2 and "needs Redis" in result.stderr
