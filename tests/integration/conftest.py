"""Fixtures for behaviour that must be the same wherever sender and receiver are connected."""

import itertools

import pytest

from lib import WAYS, Broker, Certificate, Cluster, Door, Process, RawWs, StructuredClient
from lib.swb import Swb

LAYOUTS = {"memory": 0, "redis-1": 1, "redis-2": 2, "redis-3": 3}

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=LAYOUTS)
def brokers(request):
    """The brokers of one layout, shared by the tests of a file: one with memory storage, or one to three on one Redis."""
    count = LAYOUTS[request.param]
    if count:
        with Cluster(count) as cluster:
            yield list(cluster)
    else:
        with Broker() as broker:
            yield [broker]


@pytest.fixture
def placements(brokers):
    """Every pair of brokers that a sender and a receiver can be connected to, themselves included."""
    return list(itertools.product(brokers, repeat=2))


@pytest.fixture
def name():
    """A name that no other test of this run uses."""
    return f"n{next(_numbers)}"


PEERS = {"memory": 1, "redis-2": 2, "redis-3": 3}


@pytest.fixture(scope="module", params=PEERS)
def peers(request):
    """A function: peers(i) is the broker for the i-th client of a test. With Redis neighbours are on different brokers. A
    file's OPTIONS configure all of them."""
    options = getattr(request.module, "OPTIONS", {})
    count = PEERS[request.param]
    if count == 1:
        with Broker(**options) as broker:
            yield lambda i: broker
    else:
        with Cluster(count, **options) as cluster:
            yield lambda i: cluster[i % count]


@pytest.fixture
def connect(peers):
    """connect(i, path, face) is a StructuredClient at the broker peers(i); all are closed at the test's end."""
    clients = []

    def connect_one(i, path="/connect", face="json", **options):
        clients.append(StructuredClient(peers(i).ws(path), face, **options))
        return clients[-1]

    yield connect_one
    for client in clients:
        client.abort()


@pytest.fixture
def connect_plain(peers):
    """connect_plain(i, path) is a plain WsClient that is online."""
    clients = []

    def connect_one(i, path):
        clients.append(peers(i).connect(path))
        return clients[-1]

    yield connect_one
    for client in clients:
        client.abort()


@pytest.fixture
def swb(tmp_path):
    """The command line, with a home of its own."""
    return Swb(tmp_path)


@pytest.fixture(scope="module")
def house(request):
    """A function: house(way) is the broker behind a door of that way. All tests of a file share the two, with and without
    TLS; its OPTIONS configure both."""
    options = getattr(request.module, "OPTIONS", {})
    with Certificate() as certificate, Broker(**options) as plain, Broker(tls=certificate, **options) as secure:
        yield lambda way: secure if way.startswith("tls") else plain


@pytest.fixture(params=WAYS)
def door(request, house):
    """The clients' port, in each of the ways to it. Whatever a test does there, others are served afterwards."""
    yield from guarded(house(request.param), request.param)


@pytest.fixture(params=["plain", "tls"])
def entrance(request, house):
    """As `door`, but in one piece only: for what is about other things than pieces."""
    yield from guarded(house(request.param), request.param)


@pytest.fixture
def echo(entrance):
    """echo() is a RawWs on a route that sends each message back."""
    clients = []

    def connect_one(path="/echo", **options):
        clients.append(RawWs(entrance.port, path, tls=entrance.tls, **options))
        assert clients[-1].status == 101
        return clients[-1]

    yield connect_one
    for client in clients:
        client.close()


def guarded(broker, way):
    one = Door(broker, way)
    yield one
    if not one.alive():
        state = "hangs" if broker.running else "died"
        Process.kill(broker)
        broker.start()  # for the other tests of the file
        pytest.fail(f"the broker {state}")
