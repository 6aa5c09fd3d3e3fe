"""Idempotency keys cost the storage memory for five minutes: how many there are is bounded, on either storage."""

import contextlib
import itertools

import pytest

from lib import Broker, CommandError, RedisServer, StructuredClient

LIMITS = {"keys_limit": "100", "session_keys": "40"}


@contextlib.contextmanager
def world(storage):
    if storage == "memory":
        with Broker(**LIMITS) as broker:
            yield broker, None
    else:
        with RedisServer() as redis, Broker(redis=redis, **LIMITS) as broker:
            yield broker, redis


NUMBERS = itertools.count()


def publish(client, count):
    """How many of so many are taken, and the last refusal; every other one is to be stored."""
    taken, refusal = 0, None
    for i in range(count):
        try:
            client.call("publish", topic="t", text="x", key=f"k{next(NUMBERS)}", store=i % 2 == 1)
            taken += 1
        except CommandError as error:
            assert (error.code, error.name, error.retry) == (429, "limit", True)
            refusal = error.text
    return taken, refusal


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_keys_are_bounded(storage):
    with world(storage) as (broker, redis), StructuredClient(broker.ws("/connect")) as listener:
        listener.call("subscribe", topic="t")
        taken = []
        for _ in range(4):  # whoever connects anew gets no further than all together may
            with StructuredClient(broker.ws("/connect")) as client:
                count, refusal = publish(client, 60)
                taken.append(count)
                assert ("session_keys" if sum(taken) < 100 else "keys_limit") in refusal
                assert client.call("publish", topic="t", text="plain") == {"receipt": "delivered"}
        assert taken == [40, 40, 20, 0]
        assert broker.counter("keys_refused") == 4 * 60 - 100
        for _ in range(100 + 4):
            listener.message()
        listener.expect_nothing()
        # HTTP callers are counted apart.
        statuses = [broker.api("/v1/send/user:x", "POST", None, body=b"x", headers={"Idempotency-Key": f"k{i}"}).status
                    for i in range(103)]
        assert statuses == [200] * 100 + [429] * 3
        if redis:
            assert len(list(redis.client.scan_iter("sb:once:*"))) == 200


def test_limits_can_be_raised_while_it_runs():
    with Broker(config="keys_limit = 1\nsession_keys = 1\n") as broker, \
            StructuredClient(broker.ws("/connect")) as client:
        assert publish(client, 3)[0] == 1
        broker.configure("keys_limit = 3\nsession_keys = 3\n")
        mark = broker.log_mark()
        broker.reload()
        broker.log_wait("configuration reloaded", since=mark)
        assert publish(client, 3)[0] == 2
