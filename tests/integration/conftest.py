"""Fixtures for behaviour that must be the same wherever sender and receiver are connected."""

import itertools

import pytest

from lib import Broker, Cluster

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
