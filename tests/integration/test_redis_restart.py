"""Redis killed, restarted, stopped, cut off or emptied, under load: sockets stay open, sends are answered at once,
newcomers are told when to come again, and afterwards everything is as it was."""

import threading
import time

import pytest

from lib import Broker, Cluster, RawWs, RedisServer, Refused, WsClient, wait_until
from lib.outage import wait_down, wait_up

OPTIONS = {"lease": "3s", "heartbeat": "300ms", "redis_timeout": "1s", "redis_backoff_max": "300ms"}
THANKS = "Got your message ({}).Thanks !".format


@pytest.fixture
def two():
    with Cluster(2, **OPTIONS) as cluster:
        yield cluster


def sessions(redis):
    """name → instance, as Redis has it."""
    client = redis.client
    found = {}
    for key in client.scan_iter("sb:session:*"):
        found[key.removeprefix("sb:session:{").removesuffix("}")] = client.hget(key, "instance")
    return found


def wait_registered(cluster, count):
    return wait_until(lambda: len(found := sessions(cluster.redis)) == count and found, f"{count} sessions are registered")


def refused_with_retry_after(broker):
    with RawWs(broker.port, "/websocket/newcomer") as client:
        return client.status == 503 and int(client.headers["retry-after"]) >= 1


# ---- killed and restarted


def test_clients_stay_and_everything_works_again(two):
    here, there = two
    users = [two[i % 2].connect("/websocket/bob") for i in range(10)]
    server, client = here.connect("/websocket/userSever/8080"), there.connect("/websocket/c/1")
    two.redis.kill()
    wait_down(two)
    two.redis.start()
    wait_up(two)
    found = wait_registered(two, 12)
    assert sorted(found.values()) == sorted([here.instance] * 6 + [there.instance] * 6)
    assert found["userSever_8080"] == here.instance
    assert len(two.redis.client.hgetall("sb:user:{bob}")) == 10
    for broker in two:
        key = "sb:instance:{%s}" % broker.instance
        assert len(two.redis.client.smembers(key + ":sessions")) == 6
        assert two.redis.client.hget(key, "pid") == str(broker.pid)
        wait_until(lambda: broker.stats()["online"] == 12, "the count is right")
    users[0].send("hi")
    assert [user.recv() for user in users] == ["bob:hi"] * 10
    client.send("q")
    assert server.recv() == "q"
    assert client.recv() == THANKS("q")
    for one in [*users, server, client]:
        one.expect_nothing()
        one.close()
    wait_until(lambda: not sessions(two.redis), "all are unregistered")


def test_meanwhile_newcomers_are_told_when_to_come_again(two):
    two.redis.kill()
    wait_down(two)
    for broker in two:
        assert broker.readyz() == 503
        assert broker.api("/readyz", expect=None).headers["Retry-After"]
        assert broker.api("/healthz", expect=None).status == 200
        assert broker.request("/").status == 200
        assert refused_with_retry_after(broker)
        with pytest.raises(Refused) as refusal:
            WsClient(broker.ws("/websocket/a/1"))
        assert refusal.value.status == 503
        # What was wrong anyway is told as ever.
        assert RawWs(broker.port, "/nowhere").status == 404
        assert RawWs(broker.port, "/websocket/a/x").status == 400
        assert broker.metrics()["switchboard_storage_up"] == 0
    two.redis.start()
    wait_up(two)
    for broker in two:
        with broker.connect("/websocket/bob") as client:
            client.send("hi")
            assert client.recv() == "bob:hi"


def test_meanwhile_sends_are_answered_not_hung(two):
    """Each at once, in the metric and once an episode in the log; the connection goes on, pings are answered."""
    here = two[0]
    with here.connect("/websocket/c/1") as keyed, here.connect("/websocket/bob") as user, here.connect("/echo") as echo:
        two.redis.kill()
        wait_down(two)
        before = here.counter("publish_failed")
        start = time.monotonic()
        keyed.send(*map(str, range(600)))  # more than may wait for the storage
        user.send("anybody?")
        keyed.ping(), user.ping()
        wait_until(lambda: here.counter("publish_failed") == before + 601, "each is answered")
        assert time.monotonic() - start < 5
        line = here.log_wait("message not delivered", session="c_1")
        assert line["reason"] == "unavailable"
        assert len(here.log("message not delivered", session="c_1")) == 1
        echo.send("local")
        assert echo.recv() == "local"
        two.redis.start()
        wait_up(two)
        for one in (keyed, user):
            one.expect_nothing()  # nothing of it comes late
        user.send("hi")
        assert user.recv() == "bob:hi"


def test_stats_tell_of_the_outage(two):
    two.redis.kill()
    wait_down(two)
    for broker in two:
        stats = broker.stats()
        assert stats["storage"] == {"name": "redis", "up": False}
        assert stats["online"] is None
        assert stats["counters"]["storage_outages"] == 1
        line = broker.log_wait("storage down")
        assert line["level"] == "warn"
    two.redis.start()
    wait_up(two)


def test_sessions_closed_meanwhile_are_gone_afterwards():
    """Redis keeps its data this time: what left while it was away must not come back with them."""
    with RedisServer(persist=True) as redis, Cluster(2, redis=redis, **OPTIONS) as two:
        stay = [broker.connect("/websocket/stay") for broker in two]
        leave = [two[i % 2].connect(f"/websocket/{name}") for i, name in enumerate(["leave", "leave", "stay", "k/1", "k/2"])]
        wait_registered(two, 7)
        redis.terminate()
        wait_down(two)
        leave[0].close()
        leave[1].abort()
        leave[2].close()
        leave[3].close()
        leave[4].abort()
        redis.start()
        wait_up(two)
        wait_until(lambda: len(sessions(redis)) == 2, "who left is unregistered")
        assert len(redis.client.hgetall("sb:user:{stay}")) == 2
        assert not redis.client.exists("sb:user:{leave}")
        for broker in two:
            wait_until(lambda: broker.stats()["online"] == 2, "the count is right")
        stay[0].send("hi")
        assert stay[0].recv() == stay[1].recv() == "stay:hi"
        for one in stay:
            one.close()


def test_sessions_that_leave_meanwhile_are_let_go(two):
    """Closing needs no Redis: the client gets its answer at once."""
    clients = [two[0].connect(f"/websocket/u{i}") for i in range(20)]
    two.redis.kill()
    wait_down(two)
    start = time.monotonic()
    for client in clients:
        assert client.close().code == 1000
    assert time.monotonic() - start < 5
    two.redis.start()
    wait_up(two)
    wait_until(lambda: not sessions(two.redis), "nobody is registered")
    assert two[0].stats()["sessions"] == 0


def test_under_load(two):
    """Senders never pause while Redis dies and comes back. What arrives is in order and never double, and after the outage
    nothing is missing."""
    here, there = two
    with here.connect("/websocket/userSever/8080") as server, there.connect("/websocket/c/1") as far, \
            here.connect("/websocket/c/2") as near:
        stop, sent = threading.Event(), [0, 0]

        def talk(number, client):
            while not stop.is_set():
                client.send(f"{number} {sent[number]}")
                sent[number] += 1
                stop.wait(0.002)

        threads = [threading.Thread(target=talk, args=pair) for pair in enumerate((far, near))]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: min(sent) > 100, "they talk")
            for _ in range(3):
                two.redis.kill()
                wait_down(two)
                at = list(sent)
                wait_until(lambda: sent[0] > at[0] + 50 and sent[1] > at[1] + 50, "they talk on")
                two.redis.start()
                wait_up(two)
                at = list(sent)
                wait_until(lambda: sent[0] > at[0] + 50 and sent[1] > at[1] + 50, "they talk on")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        far.send("0 end"), near.send("1 end")
        heard = {"0": [], "1": []}
        while not all(found and found[-1] == "end" for found in heard.values()):
            who, what = server.recv().split()
            heard[who].append(what)
        for number, found in heard.items():
            numbers = [int(one) for one in found[:-1]]
            assert numbers == sorted(set(numbers)), "out of order, or double"
            last = at[int(number)]
            assert numbers[-(sent[int(number)] - last):] == list(range(last, sent[int(number)]))
            assert len(numbers) > 200


def test_a_broker_can_start_before_redis():
    redis = RedisServer()
    with Broker(redis=redis, wait=False, **OPTIONS) as broker:
        broker.log_wait("started")
        broker.unready()
        assert refused_with_retry_after(broker)
        with redis:
            broker.ready()
            with broker.connect("/websocket/bob") as client:
                client.send("hi")
                assert client.recv() == "bob:hi"


def test_a_broker_can_be_stopped_without_redis(two):
    clients = [two[0].connect(f"/websocket/u{i}") for i in range(5)]
    two.redis.kill()
    wait_down(two)
    two[0].stop()
    for client in clients:
        assert client.wait_closed().code == 1012
    two.redis.start()
    wait_up([two[1]])


def test_attempts_to_reconnect_are_spread_and_bounded():
    """Not a storm, not an eternity: at most redis_backoff_max apart."""
    with Cluster(1, **{**OPTIONS, "redis_backoff_max": "500ms"}) as cluster:
        mark = cluster[0].log_mark()
        cluster.redis.kill()
        wait_down(cluster)
        time.sleep(2)  # the outage's length is what is tested
        cluster.redis.start()
        start = time.monotonic()
        wait_up(cluster)
        assert time.monotonic() - start < 3
        attempts = int(cluster[0].log_wait("redis connected", since=mark)["attempts"])
        assert 3 <= attempts <= 60
