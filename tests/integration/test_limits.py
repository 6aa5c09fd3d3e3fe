"""Full is answered, and passes: max_connections, and the descriptors of the process."""

import resource

import pytest

from lib import Broker, RawWs, RedisServer, fd_count, wait_until


def status(broker, path="/websocket/x"):
    with RawWs(broker.port, path) as client:
        return client.status


def test_past_max_connections_newcomers_get_503():
    with Broker(max_connections=5) as broker:
        clients = [broker.connect(f"/websocket/u{i}") for i in range(5)]
        for _ in range(20):
            with RawWs(broker.port, "/websocket/x") as client:
                assert client.status == 503
                assert int(client.headers["retry-after"]) >= 1
                assert client.body
        assert broker.counter("connections_refused_full") == 20
        # Said once, not twenty times.
        assert len(broker.log("connections refused")) == 1
        assert broker.request("/").status == 200
        for i, client in enumerate(clients):
            client.send("x")
            assert client.recv() == f"u{i}:x"
        clients.pop().close()
        wait_until(lambda: broker.stats()["online"] == 4, "one has left")
        clients.append(broker.connect("/websocket/late"))
        clients[-1].send("x")
        assert clients[-1].recv() == "late:x"
        assert status(broker) == 503
        wait_until(lambda: len(broker.log("connections refused")) == 2, "a new episode is told of")
        for client in clients:
            client.close()
        wait_until(lambda: broker.stats()["online"] == 0, "all have left")
        assert status(broker) == 101


def test_refusals_cost_nothing_for_long():
    with Broker(max_connections=1) as broker, broker.connect("/websocket/a"):
        assert status(broker) == 503
        before = fd_count(broker)
        for _ in range(300):
            assert status(broker) == 503
        wait_until(lambda: fd_count(broker) <= before, "the descriptors are back")


class Confined(Broker):
    """Runs with a lowered limit of open files, hard and soft."""

    def __init__(self, files, **options):
        super().__init__(**options)
        self.command = ["prlimit", f"--nofile={files}:{files}", "--", *self.command]


def open_files(broker):
    """The limit, soft and hard."""
    with open(f"/proc/{broker.pid}/limits") as limits:
        soft, hard = next(line for line in limits if line.startswith("Max open files")).split()[3:5]
    return int(soft), int(hard)


@pytest.mark.parametrize("wanted", [100, 3000, 1000000])
def test_the_limit_of_descriptors_is_what_connections_need(wanted):
    with Broker(max_connections=str(wanted)) as broker:
        soft, hard = open_files(broker)
        assert soft == min(hard, wanted + 1024 + 2048)
        assert broker.log("limit of open files")[0]["limit"] == str(soft)
        assert broker.stats()["max_connections"] == min(wanted, soft - 128 - min(1024, soft // 8))


def test_a_reload_can_raise_connections_as_far_as_descriptors_were_reserved():
    with Broker(config="max_connections = 100\n") as broker:
        for wanted, allowed in ((1500, 1500), (5000, 3172 - 128 - 3172 // 8), (50, 50)):
            broker.configure(f"max_connections = {wanted}\n")
            broker.reload()
            wait_until(lambda: broker.stats()["max_connections"] == allowed, f"{allowed} connections are allowed")


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_before_descriptors_run_out_newcomers_get_503(storage):
    """max_connections is lowered to what fits: refusals, the page, the API and Redis still get theirs."""
    with RedisServer() as redis, Confined(400, **({"redis": redis} if storage == "redis" else {})) as broker:
        limit = broker.stats()["max_connections"]
        assert 100 < limit < 400
        assert broker.log("max_connections lowered to what descriptors allow")
        clients = []
        while len(clients) < 500:
            client = RawWs(broker.port, f"/websocket/u{len(clients)}")
            if client.status != 101:
                break
            broker.online(client)
            clients.append(client)
        assert client.status == 503
        assert len(clients) == limit
        for _ in range(50):
            assert status(broker) == 503
        assert broker.readyz() == 200 and broker.request("/").status == 200
        clients[0].send("x")
        assert clients[0].recv() == "u0:x"
        for client in clients:
            client.close()
        wait_until(lambda: status(broker) == 101, "there is room again")


def test_out_of_descriptors_the_accept_loop_survives():
    """The limit is lowered under the running broker, and connections that never shake hands take all there are; sessions go
    on, and when those are gone newcomers come in."""
    with Broker(handshake_timeout="2s") as broker, broker.connect("/websocket/a") as client:
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (100, 100))
        idle = [RawWs(broker.port, handshake=False) for _ in range(200)]
        broker.line_wait(lambda line: "level=warn" in line and ("descriptor" in line or "accept" in line or "file" in line))
        for _ in range(10):
            client.send("x")
            assert client.recv() == "a:x"
        # Not a line for each of the hundred that have to wait.
        assert sum("level=warn" in line or "level=error" in line for line in broker.lines) < 20
        for one in idle:
            one.close()
        with broker.connect("/websocket/b") as other:
            other.send("x")
            assert other.recv() == "b:x"


def test_a_client_that_sends_faster_than_redis_takes_is_only_slowed(redis):
    """inflight_limit: it is read no further, and nothing is lost."""
    with Broker(redis=redis, inflight_limit=4) as broker, broker.connect("/websocket/bob") as client:
        client.send(*map(str, range(3000)))
        assert client.recv_many(3000) == [f"bob:{i}" for i in range(3000)]
