"""What a client sends in one go with its handshake, before it can be online: nothing is lost, nothing out of order."""

import pytest

from lib import RawWs, frame
from lib.rawws import CLOSE, close_payload

COUNT = 200


def numbered(count=COUNT, size=0):
    return b"".join(frame(f"{i}" + "." * size) for i in range(count))


@pytest.mark.parametrize("size", [0, 100, 3000], ids=["small", "medium", "large"])
def test_echo(brokers, size):
    for broker in brokers:
        with RawWs(broker.port, "/echo", extra=numbered(size=size)) as client:
            assert [client.recv() for _ in range(COUNT)] == [f"{i}" + "." * size for i in range(COUNT)]


def test_user(placements, name):
    for here, there in placements:
        with there.connect(f"/websocket/{name}") as other, \
                RawWs(here.port, f"/websocket/{name}", extra=numbered()) as client:
            expected = [f"{name}:{i}" for i in range(COUNT)]
            assert [client.recv() for _ in range(COUNT)] == expected
            assert other.recv_many(COUNT) == expected


def test_keyed(placements, name):
    for here, there in placements:
        with there.connect("/websocket/userSever/8080") as server, \
                RawWs(here.port, f"/websocket/{name}/1", extra=numbered()) as client:
            assert server.recv_many(COUNT) == [str(i) for i in range(COUNT)]
            assert [client.recv() for _ in range(COUNT)] == [f"Got your message ({i}).Thanks !" for i in range(COUNT)]


def test_to_itself_under_an_exclusive_name(brokers):
    """It must hold the name before its own message is sent there."""
    for broker in brokers:
        with RawWs(broker.port, "/websocket/userSever/8080", extra=numbered(20)) as client:
            got = [client.recv() for _ in range(40)]
            assert [one for one in got if one.isdigit()] == [str(i) for i in range(20)]
            assert [one for one in got if not one.isdigit()] == [f"Got your message ({i}).Thanks !" for i in range(20)]


def test_what_follows_later_stays_behind(brokers, name):
    for broker in brokers:
        with RawWs(broker.port, f"/websocket/{name}", extra=numbered(50)) as client:
            client.send("then")
            assert [client.recv() for _ in range(51)] == [f"{name}:{i}" for i in range(50)] + [f"{name}:then"]


def test_a_frame_that_is_only_half_there(brokers, name):
    whole = frame("x" * 5000)
    for broker in brokers:
        for cut in (1, 3, 7, 100, 4999):
            with RawWs(broker.port, f"/websocket/{name}", extra=whole[:cut]) as client:
                broker.online(client)
                client.send_bytes(whole[cut:])
                assert client.recv() == f"{name}:" + "x" * 5000


def test_the_handshake_in_pieces(brokers, name):
    for broker in brokers:
        with RawWs(broker.port, f"/websocket/{name}", handshake=False) as client:
            client.send_bytes(client.request_bytes() + numbered(3), piece=7)
            assert client.read_response() == 101
            assert [client.recv() for _ in range(3)] == [f"{name}:{i}" for i in range(3)]


def test_with_the_close_right_behind(placements, name):
    """Said and gone, in one segment: what was said is heard nevertheless."""
    for here, there in placements:
        with there.connect(f"/websocket/{name}") as other:
            extra = numbered(5) + frame(close_payload(1000), CLOSE)
            with RawWs(here.port, f"/websocket/{name}", extra=extra) as client:
                assert client.recv_close()[0] == 1000
            assert other.recv_many(5) == [f"{name}:{i}" for i in range(5)]


def test_pings_are_answered_in_their_place(brokers):
    for broker in brokers:
        with RawWs(broker.port, "/echo", extra=frame("a") + frame(b"p", 9) + frame("b")) as client:
            got = [client.recv_frame().payload for _ in range(3)]
            assert sorted(got) == [b"a", b"b", b"p"] and got.index(b"a") < got.index(b"b")


def test_many_newcomers_at_once(brokers, name):
    """A hundred handshakes, each with ten messages behind it, before any answer is read."""
    clients = []
    try:
        for i in range(100):
            client = RawWs(brokers[i % len(brokers)].port, f"/websocket/{name}-{i}", handshake=False)
            clients.append(client)
            client.send_bytes(client.request_bytes() + numbered(10))
        for i, client in enumerate(clients):
            assert client.read_response() == 101
            assert [client.recv() for _ in range(10)] == [f"{name}-{i}:{k}" for k in range(10)]
    finally:
        for client in clients:
            client.close()
