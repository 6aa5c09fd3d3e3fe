"""Thousands of messages in one segment or one TLS record, more than may be open at a time (inflight_limit): the reader
pauses in the middle of what it has read already, and goes on, and nothing is lost. Others are served meanwhile."""

import pytest

from lib import Broker, Certificate, Door, RawWs, RedisServer, frame
from lib.rawws import PING


@pytest.fixture(scope="module", params=["plain", "tls"])
def way(request):
    return request.param


@pytest.fixture(scope="module", params=["memory", "redis"])
def storage(request):
    if request.param == "memory":
        yield {}
        return
    with RedisServer() as redis:
        yield {"redis": redis}


@pytest.mark.parametrize("inflight", [None, 4])
@pytest.mark.parametrize("count", [100, 1500, 7500])
def test_more_messages_in_a_record_than_may_be_open(way, storage, inflight, count):
    with Certificate() as certificate:
        broker = Broker(tls=certificate if way == "tls" else None, ping_interval="0", inflight_limit=inflight,
                        **storage).start()
        try:
            with RawWs(broker.port, "/websocket/bob", tls=broker.tls) as client:
                client.send_bytes(b"".join(frame(f"{n}") for n in range(count)))
                assert [client.recv(timeout=10) for _ in range(count)] == [f"bob:{n}" for n in range(count)]
            assert Door(broker, way).alive()
            broker.stop()
        finally:
            broker.kill()  # one that spins takes no notice of SIGTERM


def test_pings_between_so_many_messages(way, storage):
    """So that flow control and pongs meet."""
    with Certificate() as certificate:
        broker = Broker(tls=certificate if way == "tls" else None, ping_interval="0", inflight_limit=4, **storage).start()
        try:
            with RawWs(broker.port, "/websocket/bob", tls=broker.tls) as client:
                client.send_bytes(b"".join(frame(f"{n}") + frame(b"p", PING) for n in range(1000)))
                got = []
                while len(got) < 1000:
                    found = client.recv_frame(timeout=10)
                    assert found is not None
                    if found.opcode == 1:
                        got.append(found.text)
                assert got == [f"bob:{n}" for n in range(1000)]
            assert Door(broker, way).alive()
            broker.stop()
        finally:
            broker.kill()
