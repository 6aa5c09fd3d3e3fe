"""SIGTERM and SIGINT: unready, no newcomers, everybody told to go elsewhere over the drain time, unregistered, exit 0."""

import signal
import socket
import time

import pytest

from lib import Broker, Cluster, RawWs, frame, wait_until


def connectable(broker):
    try:
        socket.create_connection(("127.0.0.1", broker.port), timeout=5).close()
        return True
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_everybody_is_told_and_it_ends_with_0(storage, number, redis):
    options = {"redis": redis} if storage == "redis" else {}
    with Broker(drain_time="1s", **options) as broker:
        clients = [broker.connect(f"/websocket/u{i}") for i in range(20)] + [broker.connect("/websocket/a/1")]
        broker.signal(number)
        for client in clients:
            closed = client.wait_closed()
            assert (closed.code, closed.reason) == (1012, "restart")
        assert broker.wait() == 0
        assert broker.log("drained")[0]["sessions_left"] == "0"
        broker.check_reports()
    if storage == "redis":
        assert redis.client.keys("*") == []


def test_ready_turns_red_and_the_listener_closes_first():
    with Broker(drain_time="3s") as broker, broker.connect("/websocket/bob") as first, broker.connect("/echo") as last:
        broker.signal(signal.SIGTERM)
        broker.log_wait("draining")
        assert broker.readyz() == 503
        assert broker.stats()["draining"] is True
        assert broker.api("/healthz", expect=None).status == 200
        assert not connectable(broker)
        assert first.wait_closed().code == 1012
        # Those whose turn has not come are served as ever.
        last.send("still here")
        assert last.recv() == "still here"
        assert last.wait_closed().code == 1012
        assert broker.wait() == 0


def test_closes_are_spread_over_the_drain_time():
    with Broker(drain_time="2s") as broker:
        clients = [broker.raw(f"/websocket/u{i}") for i in range(40)]
        start = time.monotonic()
        broker.signal(signal.SIGTERM)
        times = []
        for client in clients:
            assert client.recv_close()[0] == 1012
            times.append(time.monotonic() - start)
            client.close()
        assert broker.wait() == 0
        # Evenly: about a quarter in each quarter of the time, with room for a busy machine.
        for quarter in range(4):
            share = sum(quarter * 0.5 <= at < quarter * 0.5 + 0.5 for at in times)
            assert 3 <= share <= 20, times
        assert times[-1] < 4


def test_what_is_on_its_way_still_arrives():
    """Each client gets what was sent to it before its close."""
    with Broker(drain_time="0s") as broker, broker.raw("/websocket/bob") as client:
        client.send_bytes(b"".join(frame(str(i)) for i in range(100)))
        wait_until(lambda: broker.counter("messages_received") == 100, "all are taken")
        broker.signal(signal.SIGTERM)
        got = []
        while (found := client.recv_frame()).opcode != 8:
            got.append(found.text)
        assert got == [f"bob:{i}" for i in range(100)]
        assert found.close_code == 1012
        client.close()
        assert broker.wait() == 0


def test_clients_of_others_are_undisturbed_and_the_count_follows():
    with Cluster(2) as cluster:
        gone, stays = cluster
        with stays.connect("/websocket/bob") as bob:
            others = [gone.connect("/websocket/bob") for _ in range(10)]
            assert stays.stats()["online"] == 11
            gone.stop()
            assert stays.stats()["online"] == 1
            assert len(cluster.redis.client.hgetall("sb:user:{bob}")) == 1
            assert cluster.redis.client.zrange("sb:instances", 0, -1) == [stays.instance]
            bob.send("hi")
            assert bob.recv() == "bob:hi"
            bob.expect_nothing()
        for other in others:
            assert other.wait_closed().code == 1012


def test_one_that_does_not_answer_the_close_holds_nothing_up():
    with Broker(drain_time="0s", close_timeout="500ms") as broker, broker.raw("/websocket/bob") as silent:
        start = time.monotonic()
        broker.stop()
        assert time.monotonic() - start < 5
        assert silent.recv_close()[0] == 1012


def test_a_second_signal_ends_it_at_once():
    with Broker(drain_time="60s") as broker:
        clients = [broker.raw("/websocket/bob") for _ in range(5)]
        broker.signal(signal.SIGTERM)
        broker.log_wait("draining")
        broker.signal(signal.SIGTERM)
        assert broker.wait(5) != 0
        broker.check_reports()
        for client in clients:
            client.close()


def test_without_clients_it_ends_at_once():
    with Broker(drain_time="60s") as broker:
        start = time.monotonic()
        broker.stop(5)
        assert time.monotonic() - start < 3


def test_it_ends_when_the_last_client_leaves_by_itself():
    with Broker(drain_time="60s") as broker:
        with broker.connect("/websocket/a"), broker.connect("/websocket/b"):
            broker.signal(signal.SIGTERM)
            broker.log_wait("draining")
        assert broker.wait(5) == 0


def test_a_port_is_free_for_the_next_right_away():
    with Broker(drain_time="2s") as old:
        client = old.connect("/websocket/bob")
        old.signal(signal.SIGTERM)
        old.log_wait("draining")
        with Broker(port=old.port) as new, new.connect("/websocket/bob") as other:
            other.send("hi")
            assert other.recv() == "bob:hi"
            assert client.wait_closed().code == 1012
            assert old.wait() == 0


def test_half_open_connections_hold_nothing_up():
    with Broker(drain_time="0s") as broker:
        with RawWs(broker.port, handshake=False), RawWs(broker.port, handshake=False) as half:
            half.send_bytes(b"GET / HT")
            start = time.monotonic()
            broker.stop()
            assert time.monotonic() - start < 3
