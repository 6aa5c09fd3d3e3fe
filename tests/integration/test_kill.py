"""kill -9 of an instance: counted out at once, gone from Redis within its lease and a second, nobody else disturbed."""

import time

import pytest

from lib import Broker, Cluster, CommandError, StructuredClient, wait_until

LEASE = 2.0
OPTIONS = {"lease": "2s", "heartbeat": "500ms"}


@pytest.fixture
def three():
    with Cluster(3, **OPTIONS) as cluster:
        yield cluster


def left_of(redis, instance):
    """All that Redis still holds of an instance."""
    client = redis.client
    left = [key for key in client.scan_iter("sb:instance:*") if "{%s}" % instance in key]
    left += [key for key in client.scan_iter("sb:session:*") if client.hget(key, "instance") == instance]
    left += [key for key in client.scan_iter("sb:user:*") if instance in client.hvals(key)]
    if client.zscore("sb:instances", instance) is not None:
        left.append("sb:instances")
    return left


def test_its_sessions_are_gone_in_time_and_the_others_do_not_notice(three):
    redis, (victim, one, two) = three.redis, three
    lost = [victim.connect(f"/websocket/{'shared' if i % 2 else f'v{i}'}") for i in range(40)]
    lost += [victim.connect(f"/websocket/keyed/{i}") for i in range(20)]
    with one.connect("/websocket/shared") as here, two.connect("/websocket/shared") as there, \
            two.connect("/websocket/userSever/8080") as server, one.connect("/websocket/c/1") as client:
        assert one.stats()["online"] == 64
        assert len(left_of(redis, victim.instance)) > 60
        killed = time.monotonic()
        victim.kill()
        # From the moment that the bus notices, long before the lease runs out.
        for broker in (one, two):
            wait_until(lambda: broker.stats()["online"] == 4, "the count leaves the dead out", LEASE / 2)
        while left_of(redis, victim.instance):
            here.send("still here")
            assert here.recv() == there.recv() == "shared:still here"
            client.send("you too?")
            assert server.recv() == "you too?"
            assert client.recv() == "Got your message (you too?).Thanks !"
            assert time.monotonic() - killed < LEASE + 1, left_of(redis, victim.instance)
        for gone in lost:
            assert gone.wait_closed().code == 1006
        line = wait_until(lambda: one.log("instance reaped", dead=victim.instance) +
                          two.log("instance reaped", dead=victim.instance), "the reaper tells")[0]
        assert line["sessions"] == "60"
        assert sum(broker.counter("reaped_sessions") for broker in (one, two)) == 60
        # What is left is all of the living, and nothing else.
        assert len(redis.client.keys("sb:session:*")) == 4
        assert sorted(redis.client.hvals("sb:user:{shared}")) == sorted([one.instance, two.instance])
        assert one.stats()["online"] == two.stats()["online"] == 4


def test_messages_to_its_sessions_are_absent_at_once(three):
    victim, one, _ = three
    server = victim.connect("/websocket/userSever/8080")
    with one.connect("/websocket/c/1") as client:
        client.send("a")
        assert server.recv() == "a"
        before = one.counter("published_absent")
        victim.kill()
        wait_until(lambda: one.stats()["online"] == 1, "the bus noticed")
        client.send("b")
        assert client.recv_many(2) == [f"Got your message ({m}).Thanks !" for m in "ab"]
        assert one.counter("published_absent") == before + 1
    server.abort()


def test_a_name_that_it_held_is_free_at_once(three):
    """Before the lease ran out; and the reaper takes nothing from the new holder."""
    redis, (victim, one, two) = three.redis, three
    server = victim.connect("/websocket/userSever/8080")
    victim.kill()
    with one.connect("/websocket/userSever/8080") as again, two.connect("/websocket/c/1") as client:
        client.send("hi")
        assert again.recv() == "hi"
        wait_until(lambda: not left_of(redis, victim.instance), "the dead instance is reaped")
        assert redis.client.hget("sb:session:{userSever_8080}", "instance") == one.instance
        client.send("still?")
        assert again.recv() == "still?"
    server.abort()


def test_a_restart_under_the_same_id(three):
    """It comes back, whatever of the lease is left; nothing of its former life remains."""
    redis, (victim, one, _) = three.redis, three
    lost = [victim.connect(f"/websocket/old{i}") for i in range(10)] + [victim.connect("/websocket/a/1")]
    victim.kill()
    victim.start()
    with victim.connect("/websocket/new") as client:
        client.send("x")
        assert client.recv() == "new:x"
        wait_until(lambda: len(redis.client.keys("sb:session:*")) == 1, "the former sessions are gone", LEASE + 1)
        assert redis.client.keys("sb:user:*") == ["sb:user:{new}"]
        assert redis.client.smembers("sb:instance:{%s}:sessions" % victim.instance) == \
            {redis.client.hkeys("sb:user:{new}")[0]}
        assert one.stats()["online"] == victim.stats()["online"] == 1
        assert int(redis.client.hget("sb:instance:{%s}" % victim.instance, "pid")) == victim.pid
    for gone in lost:
        gone.abort()


def test_a_second_process_with_a_living_id_stays_out(three):
    redis, (first, one, _) = three.redis, three
    with first.connect("/websocket/bob") as client, \
            Broker(redis=redis, instance=first.instance, wait=False, **OPTIONS) as second:
        second.line_wait(lambda line: first.instance in line and ("level=warn" in line or "level=error" in line))
        assert second.readyz() == 503
        client.send("x")
        assert client.recv() == "bob:x"
        assert redis.client.hget("sb:instance:{%s}" % first.instance, "pid") == str(first.pid)
        client.close()
        first.stop()
        second.ready()


def test_two_of_three_killed_at_once(three):
    redis, (a, b, c) = three.redis, three
    lost = [broker.connect(f"/websocket/x{i}") for broker in (a, b) for i in range(10)]
    with c.connect("/websocket/x") as client:
        killed = time.monotonic()
        a.kill(), b.kill()
        wait_until(lambda: not left_of(redis, a.instance) and not left_of(redis, b.instance), "both are reaped")
        assert time.monotonic() - killed < LEASE + 1
        client.send("alone")
        assert client.recv() == "x:alone"
        assert c.stats()["online"] == 1
    for gone in lost:
        gone.abort()


def test_one_that_was_only_stopped_for_long_comes_back(three):
    """SIGSTOP beyond the lease: reaped; SIGCONT: it learns of it, and its sessions are registered again."""
    redis, (victim, one, _) = three.redis, three
    with victim.connect("/websocket/bob") as client, victim.connect("/websocket/userSever/8080") as server:
        victim.pause()
        wait_until(lambda: not left_of(redis, victim.instance), "it is reaped")
        victim.resume()
        wait_until(lambda: len(redis.client.keys("sb:session:*")) == 2, "its sessions are back")
        victim.ready()
        client.send("x")
        assert client.recv() == "bob:x"
        with one.connect("/websocket/c/1") as other:
            other.send("y")
            assert server.recv() == "y"
        wait_until(lambda: one.stats()["online"] == 2, "they are counted")


def test_a_name_taken_while_its_holder_was_stopped_stays_taken(three):
    redis, (victim, one, two) = three.redis, three
    with victim.connect("/websocket/userSever/8080") as old:
        victim.pause()
        wait_until(lambda: not left_of(redis, victim.instance), "it is reaped")
        with one.connect("/websocket/userSever/8080") as new, two.connect("/websocket/c/1") as client:
            victim.resume()
            closed = old.wait_closed()
            assert closed.code == 4501
            victim.ready()
            client.send("hi")
            assert new.recv() == "hi"
            assert redis.client.hget("sb:session:{userSever_8080}", "instance") == one.instance


@pytest.mark.parametrize("to", ["session:t", "user:t"])
def test_who_waits_for_its_clients_is_told_that_they_are_gone(three, to):
    asked, asker, _ = three
    kind, name = to.split(":")
    with StructuredClient(asker.ws("/connect")) as client, StructuredClient(asked.ws(f"/connect?{kind}={name}")) as target:
        number = client.post("request", to=to, timeout=60000)
        target.push("request")
        asked.kill()
        with pytest.raises(CommandError) as caught:
            client.result(number, timeout=LEASE + 10)
        assert caught.value.name == "gone"
