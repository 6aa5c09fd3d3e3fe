"""Outages that are no clean end: Redis stopped, connections cut by an operator, data lost, the bus mute, names taken
meanwhile."""

import threading
import time

import pytest

from lib import Cluster, RawWs, wait_until
from lib.outage import wait_down, wait_up

OPTIONS = {"lease": "3s", "heartbeat": "300ms", "redis_timeout": "1s", "redis_backoff_max": "300ms"}


@pytest.fixture
def two():
    with Cluster(2, **OPTIONS) as cluster:
        yield cluster


def registered(redis):
    return len(redis.client.keys("sb:session:*"))


def test_a_stopped_redis_is_an_outage_within_its_timeout(two):
    """It accepts and says nothing. Requests are answered at their deadline, then at once."""
    here, there = two
    with here.connect("/websocket/bob") as one, there.connect("/websocket/bob") as two_:
        before = here.counter("publish_failed")
        two.redis.pause()
        try:
            start = time.monotonic()
            one.send("into the void")
            wait_until(lambda: here.counter("publish_failed") == before + 1, "the send is answered")
            assert time.monotonic() - start < 4
            wait_down(two)
            assert here.readyz() == there.readyz() == 503
            with RawWs(here.port, "/websocket/newcomer") as client:
                assert client.status == 503 and client.headers["retry-after"]
            start = time.monotonic()
            one.send("again")
            wait_until(lambda: here.counter("publish_failed") == before + 2, "at once now")
            assert time.monotonic() - start < 1
        finally:
            two.redis.resume()
        wait_up(two)
        wait_until(lambda: registered(two.redis) == 2, "both are registered")
        one.send("hi")
        messages = []
        while not messages or messages[-1] != "bob:hi":
            messages.append(two_.recv())
        # What was on its way when Redis stopped may have arrived after all, but in order and once.
        assert messages in (["bob:hi"], ["bob:into the void", "bob:hi"])


def test_a_newcomer_whose_registration_hangs_is_told(two):
    """It was let in before the outage was known: closed with a code that says to come again, or served afterwards."""
    two.redis.pause()
    try:
        with RawWs(two[0].port, "/websocket/bob") as client:
            if client.status == 101:
                got = client.recv_frame()
                assert got.close_code == 4000
            else:
                assert client.status == 503
    finally:
        two.redis.resume()
    wait_up(two)
    wait_until(lambda: registered(two.redis) == 0, "nothing is left of it")
    for broker in two:
        wait_until(lambda: broker.stats()["online"] == 0, "nor counted")


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_connections_cut_by_an_operator_come_back(two, kind):
    with two[0].connect("/websocket/bob") as one, two[1].connect("/websocket/bob") as other, \
            two[0].connect("/websocket/userSever/8080") as server, two[1].connect("/websocket/c/1") as client:
        for _ in range(3):
            marks = [broker.log_mark() for broker in two]
            two.redis.cli("CLIENT", "KILL", "TYPE", kind)
            for broker, mark in zip(two, marks):
                broker.log_wait("storage down", since=mark)
            wait_up(two)
            wait_until(lambda: registered(two.redis) == 4, "all are registered")
            one.send("hi")
            assert one.recv() == other.recv() == "bob:hi"
            client.send("q")
            assert server.recv() == "q"
            assert client.recv() == "Got your message (q).Thanks !"
        for each in (one, other, server, client):
            each.expect_nothing()


def test_lost_data_is_registered_again_at_the_next_heartbeat(two):
    """FLUSHALL: nobody is disconnected, messages flow on, and within a moment Redis knows everybody again."""
    clients = [two[i % 2].connect(f"/websocket/u{i}") for i in range(300)]
    keyed = two[0].connect("/websocket/userSever/8080")
    one, other = two[0].connect("/websocket/bob"), two[1].connect("/websocket/bob")
    two.redis.cli("FLUSHALL")
    one.send("meanwhile")
    assert one.recv() == other.recv() == "bob:meanwhile"
    wait_until(lambda: registered(two.redis) == 303, "all are registered again", 5)
    client = two.redis.client
    assert sorted(client.hvals("sb:user:{bob}")) == sorted(broker.instance for broker in two)
    assert client.hget("sb:session:{userSever_8080}", "route") == "/websocket/{relationId}/{userCode:int}"
    assert client.zcard("sb:instances") == 2
    for broker in two:
        assert client.hget("sb:instance:{%s}" % broker.instance, "pid") == str(broker.pid)
        wait_until(lambda: broker.stats()["online"] == 303, "counted again")
        assert not broker.log("storage down")
    for each in [*clients, keyed, one, other]:
        assert not each.closed
        each.close()
    wait_until(lambda: registered(two.redis) == 0, "all are gone")


def test_a_flush_of_the_scripts_is_no_matter(two):
    for _ in range(3):
        two.redis.cli("SCRIPT", "FLUSH")
        with two[0].connect("/websocket/a/1") as old, two[1].connect("/websocket/a/1"):
            assert old.wait_closed().code == 4501
    assert not any(broker.log("storage down") for broker in two)


def test_a_mute_bus_is_an_outage(two):
    """Commands are answered but nothing published arrives: the operator took a subscription away. The probe notices."""
    here = two[0]
    with here.connect("/websocket/bob") as client:
        # Redis refuses publishing to everybody: the probe is lost, whatever else is answered.
        two.redis.cli("ACL", "SETUSER", "default", "-publish")
        here.log_wait("storage down")
        wait_until(lambda: here.readyz() == 503, "not ready")
        two.redis.cli("ACL", "SETUSER", "default", "+publish")
        wait_up(two)
        client.send("hi")
        assert client.recv() == "bob:hi"


def test_a_name_taken_during_an_outage(two):
    """One broker is cut off from Redis while the other goes on: a newcomer at the other one takes the name; when the first is
    back, its holder learns that it was replaced, and takes nothing away."""
    here, there = two
    old = here.connect("/websocket/userSever/8080")
    here.pause()  # cut off, as far as Redis can tell
    new = there.connect("/websocket/userSever/8080")
    for line in two.redis.cli("CLIENT", "LIST").splitlines():
        fields = dict(word.split("=", 1) for word in line.split())
        if here.instance in fields["name"]:
            two.redis.cli("CLIENT", "KILL", "ID", fields["id"])
    here.resume()
    assert old.wait_closed().code == 4501
    wait_up(two)
    with here.connect("/websocket/c/1") as client:
        client.send("hi")
        assert new.recv() == "hi"
    assert two.redis.client.hget("sb:session:{userSever_8080}", "instance") == there.instance
    new.close()
    wait_until(lambda: registered(two.redis) == 0, "all are gone")


def test_rivals_for_a_name_around_a_restart(two):
    """Two holders can't both survive an outage: the older one gives way when both are back."""
    here, there = two
    old = here.connect("/websocket/userSever/8080")
    two.redis.kill()
    wait_down(two)
    two.redis.start()
    # Whoever comes first after the restart takes the name from the one that is being restored.
    new = None
    while new is None:
        with RawWs(there.port, "/websocket/probe") as probe:
            if probe.status == 101:
                new = there.connect("/websocket/userSever/8080")
    assert old.wait_closed().code == 4501
    wait_up(two)
    with here.connect("/websocket/c/1") as client:
        client.send("hi")
        assert new.recv() == "hi"
        wait_until(lambda: two.redis.client.hget("sb:session:{userSever_8080}", "instance") == there.instance, "held")
    new.close()


def test_clients_that_come_and_go_while_redis_flaps(two):
    """Nobody hangs: each newcomer is served, or told to come again; and in the end nothing is left behind."""
    stop = threading.Event()
    outcomes = []

    def come_and_go(broker):
        while not stop.is_set():
            try:
                # An echo needs no bus, so it can't be lost with it; but the session is registered like any other.
                with RawWs(broker.port, "/echo", timeout=15) as client:
                    if client.status == 503:
                        outcomes.append("refused")
                        stop.wait(0.02)
                        continue
                    client.send("x")
                    while (got := client.recv_frame()) is not None and got.opcode not in (1, 8):
                        pass
                    outcomes.append("none" if got is None else "served" if got.opcode == 1 else str(got.close_code))
            except Exception as error:
                outcomes.append(repr(error))

    def ends():
        return len(outcomes)

    threads = [threading.Thread(target=come_and_go, args=(two[i % 2],)) for i in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            at = ends()
            wait_until(lambda: ends() > at + 30, "they come and go")
            two.redis.cli("CLIENT", "KILL", "TYPE", "normal")
            two.redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(outcomes) <= {"served", "refused", "4000"}, set(outcomes)
    assert outcomes.count("served") > 50
    wait_up(two)
    wait_until(lambda: registered(two.redis) == 0, "nothing is left")
    for broker in two:
        wait_until(lambda: broker.stats()["online"] == 0, "nobody is counted")
        assert broker.stats()["sessions"] == 0
