"""Stored messages reach whoever comes back: in order, each once, from any broker; or they are told that some may be missing."""

import random
import threading

import pytest

from lib import FACES, Cluster, RedisServer, StructuredClient, wait_until

both = pytest.mark.parametrize("face", FACES)

OPTIONS = {"history_bytes": "128MiB"}


def place(message):
    """What a client remembers of the last message it handled."""
    return {"epoch": message["epoch"], "offset": message["offset"]}


def in_url(since):
    return f"&since={since['epoch']}:{since['offset']}" if since else "&since="


def store(client, topic, values):
    return [client.result(number) for number in
            client.post_all([("publish", {"topic": topic, "data": value, "store": True}) for value in values])]


def data(client, count):
    return client.payloads(count, "data")


class Publisher:
    """Publishes 0, 1, 2, … as fast as receipts come, with `window` on their way; keeps pace with the reader so that the
    history always reaches back far enough."""

    def __init__(self, broker, command, ahead=600, window=50):
        self.client = StructuredClient(broker.ws("/connect"))
        self.command, self.ahead, self.window = command, ahead, window
        self.sent, self.read = 0, 0
        self.offsets = []
        self._stop = False
        self._read_more = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop:
                if self.sent - self.read > self.ahead:
                    self._read_more.wait(1)
                    self._read_more.clear()
                    continue
                cmd, fields = self.command
                numbers = self.client.post_all([(cmd, {**fields, "data": self.sent + i, "store": True})
                                                for i in range(self.window)])
                self.sent += self.window
                self.offsets += [self.client.result(number)["offset"] for number in numbers]
        except BaseException as error:
            self._failure = error

    def have_read(self, count):
        self.read = count
        self._read_more.set()
        assert not self._failure, self._failure

    def stop(self):
        self._stop = True
        self._read_more.set()
        self._thread.join(60)
        assert not self._failure and not self._thread.is_alive(), self._failure
        self.client.close()
        return self.sent


# ---- topics


@both
def test_everything_that_is_kept(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    receipts = store(publisher, name, range(10))
    ok = client.call("subscribe", topic=name, since={})
    assert ok == {"topic": name, "recovered": True, **place(receipts[-1])}
    messages = [client.message() for _ in range(10)]
    assert [message["data"] for message in messages] == list(range(10))
    assert [place(message) for message in messages] == [place(receipt) for receipt in receipts]
    assert {(message["to"], message["from"]) for message in messages} == {(f"topic:{name}", publisher.session)}
    publisher.call("publish", topic=name, text="live")
    assert client.message()["text"] == "live"
    client.expect_nothing()


@both
def test_what_was_missed_and_then_live(connect, face, name):
    publisher = connect(0, "/connect", face)
    receipts = store(publisher, name, range(20))
    for i in (0, 7, 18, 19):
        client = connect(1 + i, "/connect", face)
        ok = client.call("subscribe", topic=name, since=place(receipts[i]))
        assert ok == {"topic": name, "recovered": True, **place(receipts[-1])}
        assert data(client, 19 - i) == list(range(i + 1, 20))
        client.expect_nothing()
    client.call("unsubscribe", topic=name)
    store(publisher, name, [20, 21])
    client.call("subscribe", topic=name, since=place(receipts[-1]))
    assert data(client, 2) == [20, 21]
    client.expect_nothing()


@both
def test_nothing_was_ever_stored(connect, face, name):
    client = connect(0, "/connect", face)
    assert client.call("subscribe", topic=name, since={}) == {"topic": name, "recovered": True}
    client.call("publish", topic=name, text="live", store=True)
    assert client.message()["text"] == "live"
    client.expect_nothing()


@both
def test_what_was_not_stored_is_not_recovered(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    first = publisher.call("publish", topic=name, text="1", store=True)
    publisher.call("publish", topic=name, text="not stored")
    publisher.call("publish", topic=name, text="2", store=True)
    assert client.call("subscribe", topic=name, since=place(first))["recovered"] is True
    assert client.message()["text"] == "2"
    client.expect_nothing()


@both
def test_another_epoch(connect, face, name):
    """The history began anew: what there is comes, and the client is told that it may not be all."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    receipts = store(publisher, name, range(3))
    ok = client.call("subscribe", topic=name, since={"epoch": "another", "offset": receipts[1]["offset"]})
    assert ok == {"topic": name, "recovered": False, **place(receipts[-1])}
    assert data(client, 3) == [0, 1, 2]
    client.expect_nothing()


@both
def test_the_history_does_not_reach_back(connect, face, name):
    """It is bounded; what is left of it comes all the same."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    receipts = store(publisher, name, range(2500))
    ok = client.call("subscribe", topic=name, since=place(receipts[3]))
    assert ok["recovered"] is False and place(ok) == place(receipts[-1])
    first = client.message()["data"]
    assert 1000 < first <= 1500
    assert data(client, 2499 - first) == list(range(first + 1, 2500))
    client.expect_nothing()
    other = connect(2, "/connect", face)
    assert other.call("subscribe", topic=name, since={})["recovered"] is False
    assert data(other, 2500 - first) == list(range(first, 2500))
    assert other.call("subscribe", topic=name, since=place(receipts[first]))["recovered"] is True
    assert data(other, 2499 - first) == list(range(first + 1, 2500))


@both
def test_recovering_again_on_the_same_connection(connect, face, name):
    """Subscribing again replaces the former subscription; the place given counts, not what was delivered."""
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    receipts = store(publisher, name, range(5))
    for _ in range(3):
        assert client.call("subscribe", topic=name, since=place(receipts[1]))["recovered"] is True
        assert data(client, 3) == [2, 3, 4]
    client.expect_nothing()


@both
def test_a_pattern_is_not_recovered(connect, face, name):
    publisher, client = connect(0, "/connect", face), connect(1, "/connect", face)
    store(publisher, f"{name}.a", range(3))
    assert client.call("subscribe", topic=f"{name}.*", since={}) == {"topic": f"{name}.*", "recovered": False}
    store(publisher, f"{name}.a", [3])
    assert data(client, 1) == [3]
    client.expect_nothing()


@both
def test_no_gap_and_no_double_under_load(peers, face, name):
    """The reader disconnects and comes back elsewhere, again and again, while the publisher never pauses."""
    publisher = Publisher(peers(0), ("publish", {"topic": name}))
    chance, got, since = random.Random(7), [], {}
    for i in range(25):
        client = StructuredClient(peers(i).ws("/connect"), face)
        assert client.call("subscribe", topic=name, since=since)["recovered"] is True
        for _ in range(chance.choice([0, 1, 10, 100, 300])):
            message = client.message()
            got.append((message["data"], message["offset"]))
            since = place(message)
        publisher.have_read(len(got))
        client.abort()
    sent = publisher.stop()
    with StructuredClient(peers(1).ws("/connect"), face) as client:
        client.call("subscribe", topic=name, since=since)
        got += [(message["data"], message["offset"]) for message in (client.message() for _ in range(sent - len(got)))]
        client.expect_nothing()
    assert got == list(enumerate(publisher.offsets))
    assert len(got) == sent > 500


@both
def test_resubscribing_under_load(peers, connect, face, name):
    """On one connection: each time the subscription goes on where the last message left off."""
    publisher = Publisher(peers(0), ("publish", {"topic": name}), ahead=300)
    client, got, since = connect(1, "/connect", face), [], {}
    for i in range(20):
        assert client.call("subscribe", topic=name, since=since)["recovered"] is True
        for _ in range(5 * i):
            message = client.message()
            got.append(message["data"])
            since = place(message)
        client.call("unsubscribe", topic=name)
        client.take()
        publisher.have_read(len(got))
    sent = publisher.stop()
    client.call("subscribe", topic=name, since=since)
    got += data(client, sent - len(got))
    client.expect_nothing()
    assert got == list(range(sent))


# ---- one's own address


@both
@pytest.mark.parametrize("kind", ["user", "session"])
def test_ones_own_address(connect, face, name, kind):
    sender = connect(0, "/connect", face)
    assert "recovered" not in connect(1, f"/connect?{kind}={name}", face).hello
    client = connect(1, f"/connect?{kind}={name}&since=", face)
    assert client.hello["recovered"] is True and "offset" not in client.hello
    first = sender.call("send", to=f"{kind}:{name}", data=0, store=True)
    assert client.message()["data"] == 0
    client.abort()
    wait_until(lambda: sender.call("send", to=f"{kind}:{name}")["receipt"] == "absent" or kind == "user", "it is gone")
    for i in range(1, 5):
        last = sender.call("send", to=f"{kind}:{name}", data=i, store=True)
    back = connect(2, f"/connect?{kind}={name}{in_url(place(first))}", face)
    assert back.hello["recovered"] is True and place(back.hello) == place(last)
    assert data(back, 4) == [1, 2, 3, 4]
    assert sender.call("send", to=f"{kind}:{name}", data="live") == {"receipt": "delivered"}
    assert data(back, 1) == ["live"]
    back.expect_nothing()
    everything = connect(0, f"/connect?{kind}={name}&since=", face)
    assert data(everything, 5) == [0, 1, 2, 3, 4]
    lost = connect(1, f"/connect?{kind}={name}&since=another:{last['offset']}", face)
    assert lost.hello["recovered"] is False
    assert data(lost, 5) == [0, 1, 2, 3, 4]


@both
def test_what_nobody_received_waits(connect, face, name):
    sender = connect(0, "/connect", face)
    assert [sender.call("send", to=f"user:{name}", data=i, store=True)["receipt"] for i in range(3)] == ["stored"] * 3
    for i in range(3):
        client = connect(i, f"/connect?user={name}&since=", face)
        assert data(client, 3) == [0, 1, 2]


@both
def test_a_users_several_sessions_recover_each_for_itself(connect, face, name):
    sender, one = connect(0, "/connect", face), connect(0, f"/connect?user={name}", face)
    sender.call("send", to=f"user:{name}", data=0, store=True)
    two = connect(1, f"/connect?user={name}&since=", face)
    sender.call("send", to=f"user:{name}", data=1, store=True)
    assert data(one, 2) == data(two, 2) == [0, 1]
    one.expect_nothing(), two.expect_nothing()


@both
def test_the_route_of_a_topic(connect, face, name):
    publisher = connect(0, "/connect", face)
    receipts = store(publisher, name, range(4))
    client = connect(1, f"/topics/{name}?since={receipts[1]['epoch']}:{receipts[1]['offset']}", face)
    assert client.hello["recovered"] is True
    assert data(client, 2) == [2, 3]


def test_a_plain_client_recovers_by_url(connect, connect_plain, name):
    sender = connect(0)
    receipts = [sender.call("send", to=f"user:{name}", text=str(i), store=True) for i in range(4)]
    client = connect_plain(1, f"/websocket/{name}?since={receipts[1]['epoch']}:{receipts[1]['offset']}")
    assert client.recv_many(2) == ["2", "3"]
    sender.call("send", to=f"user:{name}", text="live")
    assert client.recv() == "live"
    client.expect_nothing()
    assert connect_plain(0, f"/websocket/{name}?since=").recv_many(4) == ["0", "1", "2", "3"]


@both
@pytest.mark.parametrize("kind", ["user", "session"])
def test_ones_own_address_under_load(peers, face, name, kind):
    """A session that comes back replaces itself: also while the former connection is not gone yet."""
    publisher = Publisher(peers(0), ("send", {"to": f"{kind}:{name}"}))
    chance, got, since, former = random.Random(11), [], None, None
    for i in range(25):
        client = StructuredClient(peers(i).ws(f"/connect?{kind}={name}{in_url(since)}"), face)
        assert client.hello["recovered"] is True
        if former:
            former.abort()
        former = client
        for _ in range(chance.choice([0, 1, 10, 100, 300])):
            message = client.message()
            got.append((message["data"], message["offset"]))
            since = place(message)
        publisher.have_read(len(got))
        if i % 2:
            client.abort()
            former = None
    sent = publisher.stop()
    with StructuredClient(peers(1).ws(f"/connect?{kind}={name}{in_url(since)}"), face) as client:
        got += [(message["data"], message["offset"]) for message in (client.message() for _ in range(sent - len(got)))]
        client.expect_nothing()
    if former:
        former.abort()
    assert got == list(enumerate(publisher.offsets))


# ---- much at once


def number_in(message, size):
    assert len(message["binary"]) == size
    return int.from_bytes(message["binary"][:4], "big")


@both
def test_a_slow_reader_recovers_more_than_its_outbox_holds(peers, connect, face, name):
    """1,000 × 64 KiB, read as slowly as the socket allows; live messages wait behind."""
    publisher = connect(0, "/connect", "msgpack")
    size = 64 * 1024
    for start in range(0, 1000, 20):
        payloads = [(start + i).to_bytes(4, "big") * (size // 4) for i in range(20)]
        for number in publisher.post_all([("publish", {"topic": name, "store": True, "binary": one}) for one in payloads]):
            publisher.result(number)
    client = connect(1, "/connect", face)
    client.ws.pause()
    number = client.post("subscribe", topic=name, since={})
    receipts = [publisher.call("publish", topic=name, store=True, binary=b"live") for _ in range(3)]
    client.ws.resume()
    client.result(number)
    # A history of a thousand: the live ones pushed up to three of the first out of it before it was read.
    first = number_in(client.message(), size)
    assert first <= 3
    for i in range(first + 1, 1000):
        assert number_in(client.message(), size) == i
    assert [place(client.message()) for _ in range(3)] == [place(receipt) for receipt in receipts]
    client.expect_nothing()


# ---- brokers and Redis that fail


@both
def test_a_broker_is_killed_under_load(face, name):
    with Cluster(3, lease="2s", heartbeat="200ms") as cluster:
        publisher = Publisher(cluster[0], ("publish", {"topic": name}))
        client = StructuredClient(cluster[1].ws("/connect"), face)
        client.call("subscribe", topic=name, since={})
        got = [client.message() for _ in range(200)]
        cluster[1].kill()
        got += client.rest("message")
        publisher.have_read(len(got))
        with StructuredClient(cluster[2].ws("/connect"), face) as back:
            assert back.call("subscribe", topic=name, since=place(got[-1]))["recovered"] is True
            got += [back.message() for _ in range(200)]
            sent = publisher.stop()
            got += [back.message() for _ in range(sent - len(got))]
            back.expect_nothing()
        assert [message["data"] for message in got] == list(range(sent))


@both
def test_redis_restarts_with_its_data(face, name):
    """Clients stay connected, are told that all is well, and miss nothing that is stored; without them noticing more."""
    with RedisServer(persist=True, appendfsync="always") as server, \
            Cluster(2, redis=server, redis_timeout="1s", redis_backoff_max="300ms", lease="10s") as cluster:
        publisher = StructuredClient(cluster[0].ws("/connect"), face)
        reader = StructuredClient(cluster[1].ws(f"/connect?user={name}"), face)
        quiet = StructuredClient(cluster[1].ws("/connect"), face)
        assert reader.call("subscribe", topic=name) == {"topic": name}
        quiet.call("subscribe", topic=f"{name}-quiet")
        receipts = store(publisher, name, range(5))
        own = publisher.call("send", to=f"user:{name}", data="own", store=True)
        assert data(reader, 6) == [0, 1, 2, 3, 4, "own"]
        server.kill()
        for broker in cluster:
            wait_until(lambda: not broker.stats()["storage"]["up"], "the outage is known")
        assert publisher.fails("publish", topic=name, data="lost", store=True).name == "unavailable"
        server.start()
        for broker in cluster:
            broker.ready()
        recovered = {push["address"]: push for push in (reader.push("recovered") for _ in range(3))}
        assert recovered[reader.session]["recovered"] is False  # nothing stored ever came from there
        for address, last in ((f"topic:{name}", receipts[-1]), (f"user:{name}", own)):
            assert recovered[address] == {"push": "recovered", "address": address, "recovered": True, **place(last)}
        store(publisher, name, [5])
        publisher.call("publish", topic=f"{name}-quiet", data="here")
        assert data(reader, 1) == [5] and data(quiet, 1) == ["here"]
        assert {push["address"] for push in quiet.take()} == {quiet.session, f"topic:{name}-quiet"}
        history = publisher.call("history", address=f"topic:{name}")["messages"]
        assert [message["data"] for message in history] == list(range(6))
        reader.expect_nothing()
        for client in (publisher, reader, quiet):
            client.close()


@both
def test_what_was_stored_while_a_broker_was_cut_off(face, name):
    """One broker's connections to Redis are gone for a while; its clients get what the others stored meanwhile."""
    with Cluster(2, redis_timeout="1s", redis_backoff_max="2s", lease="20s") as cluster:
        publisher = StructuredClient(cluster[0].ws("/connect"), face)
        reader = StructuredClient(cluster[1].ws(f"/connect?session={name}"), face)
        reader.call("subscribe", topic=name)
        store(publisher, name, range(3))
        publisher.call("send", to=f"session:{name}", data="a", store=True)
        assert data(reader, 4) == [0, 1, 2, "a"]
        server = cluster.redis.client
        cluster[1].pause()
        for one in server.client_list():
            if one["name"].endswith(cluster[1].instance) or cluster[1].instance in one["name"]:
                server.client_kill(one["addr"])
        last = store(publisher, name, range(3, 50))[-1]
        publisher.call("send", to=f"session:{name}", data="b", store=True)
        cluster[1].resume()
        messages = [reader.message() for _ in range(48)]
        assert [one["data"] for one in messages if one["to"] == f"topic:{name}"] == list(range(3, 50))
        assert [one["data"] for one in messages if one["to"] == f"session:{name}"] == ["b"]
        recovered = {push["address"]: push for push in (reader.push("recovered") for _ in range(2))}
        assert recovered[f"session:{name}"]["recovered"] is True and recovered[f"topic:{name}"]["recovered"] is True
        assert place(recovered[f"topic:{name}"]) == place(last)
        reader.expect_nothing()
        publisher.close(), reader.close()


@both
def test_redis_lost_its_data(face, name):
    """Whoever comes back is told that something may be missing."""
    with Cluster(2, redis_timeout="1s", redis_backoff_max="300ms") as cluster:
        publisher, reader = (StructuredClient(broker.ws("/connect"), face) for broker in cluster)
        reader.call("subscribe", topic=name)
        before = store(publisher, name, range(3))[-1]
        assert data(reader, 3) == [0, 1, 2]
        cluster.redis.kill()
        for broker in cluster:
            wait_until(lambda: not broker.stats()["storage"]["up"], "the outage is known")
        cluster.redis.start()
        for broker in cluster:
            broker.ready()
        recovered = [reader.push("recovered") for _ in range(2)]
        assert {push["address"] for push in recovered} == {reader.session, f"topic:{name}"}
        assert not any(push["recovered"] or "offset" in push for push in recovered)
        after = store(publisher, name, [3])[-1]
        assert after["epoch"] != before["epoch"]
        assert data(reader, 1) == [3]
        with StructuredClient(cluster[0].ws("/connect"), face) as back:
            assert back.call("subscribe", topic=name, since=place(before))["recovered"] is False
            assert data(back, 1) == [3]
        publisher.close(), reader.close()
