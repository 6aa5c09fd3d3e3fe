"""A silent client is pinged in time; one that does not answer is closed."""

import time

import pytest

from lib import Broker, WsClient
from lib.rawws import PING, PONG


@pytest.fixture(scope="module")
def one():
    with Broker(ping_interval="500ms", ping_timeout="500ms", close_timeout="300ms") as broker:
        yield broker


def test_a_silent_client_is_pinged_in_time(one):
    with one.raw("/websocket/bob") as client:
        start = time.monotonic()
        for i in range(1, 4):
            got = client.recv_frame()
            assert got.opcode == PING
            # Not early; and late by no more than the granularity of a quarter, and what a busy machine adds.
            assert i * 0.45 <= time.monotonic() - start < i * 0.5 + 2
            client.send_frame(got.payload, PONG)


def test_one_that_does_not_answer_is_closed_and_named(one):
    before = one.counter("sessions_silent")
    with one.raw("/websocket/bob") as client:
        start = time.monotonic()
        assert client.recv_frame().opcode == PING
        got = client.recv_frame()
        assert (got.close_code, got.close_reason) == (4001, "ping_timeout")
        assert 0.9 <= time.monotonic() - start < 4
        line = one.log_wait("session offline", code=4001)
        assert line["reason"] == "ping_timeout" and line["session"].startswith("bob~")
        client.recv_eof()
    assert one.counter("sessions_silent") == before + 1


def test_one_that_vanished_is_dropped_without_its_answer(one):
    """Not even the close is answered; the connection ends all the same."""
    mark = one.log_mark()
    with one.raw("/websocket/gone/1"):
        one.log_wait("session offline", since=mark, session="gone_1", code=4001)


def test_one_that_answers_stays(one):
    """The library answers pings by itself, over many intervals."""
    with one.connect("/websocket/alive") as client, one.raw("/websocket/gone/1"):
        mark = one.log_mark()
        one.log_wait("session offline", since=mark, session="gone_1")
        one.online(WsClient(one.ws("/websocket/gone/1"))).close()
        client.send("still here")
        assert client.recv() == "alive:still here"
        assert not one.log("session offline", since=0, session="alive") and not client.closed


def test_talking_does_not_replace_answering(one):
    """A client that sends all the time but reads nothing is a slow reader, not a silent one; one that reads and sends
    is neither."""
    with one.raw("/websocket/talker") as client:
        start = time.monotonic()
        while time.monotonic() - start < 2:
            client.send("x")
            assert client.recv(timeout=5) == "talker:x"


def test_zero_switches_pings_off():
    with Broker(ping_interval="0", ping_timeout="100ms") as off, \
            Broker(ping_interval="100ms", ping_timeout="10s") as clock, \
            off.raw("/websocket/bob") as silent, clock.raw("/websocket/bob") as ticking:
        for _ in range(12):  # the time that another broker takes for twelve pings
            got = ticking.recv_frame()
            ticking.send_frame(got.payload, PONG)
        silent.send("hi")
        assert silent.recv_frame().text == "bob:hi"
