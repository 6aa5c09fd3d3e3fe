"""A request's target is taken as the client sent it: percent-decoded, and nothing else. And whoever doesn't finish the line
costs nothing and waits no longer than others."""

import time

import pytest

from lib import Broker, Certificate, RawWs, fd_count, wait_until
from lib.measure import cpu_seconds


@pytest.fixture(scope="module")
def one():
    with Broker(handshake_timeout="1s", ping_interval="0") as broker:
        yield broker


@pytest.fixture(scope="module")
def secure():
    with Certificate() as certificate, Broker(tls=certificate, handshake_timeout="1s", ping_interval="0") as broker:
        yield broker


@pytest.fixture(params=["plain", "tls"])
def either(request, one, secure):
    return one if request.param == "plain" else secure


def raw(broker, path="/", **options):
    return RawWs(broker.port, path, tls=broker.tls, **options)


def raw_request(broker, *pieces):
    """The status of the answer to these bytes; 0: none."""
    with raw(broker, handshake=False) as client:
        for piece in pieces:
            client.send_bytes(piece)
        return client.read_response()


DECODED = [("a+b", "a+b"), ("a;b", "a;b"), ("a&b", "a&b"), ("a%2Fb", "a/b"), ("a%2fb", "a/b"), ("a%2Bb", "a+b"),
           ("a%26b%3Bc", "a&b;c"), ("a=b", "a=b"), ("%252F", "%2F"), ("%e7%8e%8b", "王"), ("王", "王"),
           ("..", ".."), ("a%3Fb", "a?b")]


@pytest.mark.parametrize("written, uid", DECODED)
def test_a_segment_is_percent_decoded_only(either, written, uid):
    with raw(either, f"/websocket/{written}?x=+&y=%2F") as client:
        assert client.status == 101
        client.send("hi")
        assert client.recv() == f"{uid}:hi"


def test_a_doubled_slash_in_front_counts_as_one(either):
    for path in ("//websocket/a+b", "//testWebsocket/websocket/a+b", "//connect?user=a%2Bb"):
        with raw(either, path) as client:
            assert client.status == 101


@pytest.mark.parametrize("path", ["/websocket//a", "/websocket/a/", "/x/../websocket/a", "/websocket%2Fa", "/connect/"])
def test_other_paths_are_not_made_to_fit(either, path):
    with raw(either, path) as client:
        assert client.status in (400, 404)


@pytest.mark.parametrize("query, session", [
    ("user=a+b", "a+b"), ("user=a%20b", "a b"), ("since=&user=a;b", "a;b"), ("user=%2B%26", "+&"), ("%75ser=yes", "yes"),
    ("user=a=b", "a=b"), ("user=a?b", "a?b")])
def test_arguments_are_percent_decoded_only(either, query, session):
    mark = either.log_mark()
    with either.raw(f"/connect?{query}"):
        assert either.log_wait("session online", since=mark)["session"].startswith(session + "~")


@pytest.mark.parametrize("path", ["/%77ebsocket/a", "/%63onnect", "/testWebsocke%74/websocket/a", "/websocket%2Fa"])
def test_no_other_spelling_of_a_path_leads_to_it(either, path):
    """Whoever stands in front and decides by the path sees it as it was sent."""
    with raw(either, path) as client:
        assert client.status == 404


@pytest.mark.parametrize("path", ["/connect", "/testWebsocket/connect"])
def test_connect_is_found(either, path):
    with raw(either, f"{path}?session=a/b") as client:
        assert client.status == 101


@pytest.mark.parametrize("query", ["user=%zz", "user=%4", "user=", "user=" + "u" * 1500, "session=%", "user=a&session=b"])
def test_wrong_arguments_are_400(either, query):
    with raw(either, f"/connect?{query}") as client:
        assert client.status == 400
        assert client.body


@pytest.mark.parametrize("line, status", [
    ("GET /websocket/%zz HTTP/1.1", 400), ("GET /websocket/% HTTP/1.1", 400), ("GET /websocket/a", 400),
    ("GET  /websocket/a HTTP/1.1", 400), ("GET http://h/websocket/a HTTP/1.1", 426), ("GET websocket/a HTTP/1.1", 400),
    ("GET /websocket/a\tb HTTP/1.1", 400), ("GET /websocket/a#b HTTP/1.1", 400), ("GET", 400), ("", 400),
    ("\x00\x01\x02", 400), ("GET / HTTP/2.0", 505)],
    ids=["broken-escape", "half-an-escape", "http-0.9", "two-spaces", "absolute", "no-slash", "tab", "fragment", "word",
         "empty", "garbage", "http-2"])
def test_lines_that_are_not_as_they_should_be(either, line, status):
    assert raw_request(either, f"{line}\r\nHost: x\r\n\r\n".encode("latin-1")) == status


@pytest.mark.parametrize("length", [8300, 20_000, 100_000])
def test_a_line_that_is_too_long_is_414(either, length):
    with raw(either, handshake=False) as client:
        try:
            client.send_bytes(b"GET /" + b"y" * length + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        except OSError:
            pass
        assert client.read_response() == 414
        client.recv_eof()


def test_a_line_that_comes_byte_by_byte_is_taken_as_it_is(one):
    with RawWs(one.port, "/websocket/a+b%2Fc", handshake=False) as client:
        client.send_bytes(client.request_bytes(), piece=1)
        assert client.read_response() == 101
        client.send("hi")
        assert client.recv() == "a+b/c:hi"


def test_one_byte_messages_after_a_line_in_pieces_are_not_held_back(one):
    with RawWs(one.port, "/echo", handshake=False) as client:
        request = client.request_bytes()
        client.send_bytes(request[:9])
        time.sleep(0.1)  # so that half a line is seen
        client.send_bytes(request[9:])
        assert client.read_response() == 101
        for i in range(20):
            client.send("x")
            assert client.recv() == "x"


def test_in_tls_a_line_that_comes_in_pieces_is_served(secure):
    with raw(secure, "/websocket/a%20b", handshake=False) as client:
        client.send_bytes(client.request_bytes(), piece=7)
        assert client.read_response() == 101
        client.send("hi")
        assert client.recv() == "a b:hi"


def test_half_a_line_burns_no_cpu_and_ends_at_the_handshake_timeout(one):
    clients = [RawWs(one.port, handshake=False) for _ in range(50)]
    for client in clients:
        client.send_bytes(b"GET /websocket/a+b")
    before, start = cpu_seconds(one), time.monotonic()
    for client in clients:
        client.recv_eof()
        client.close()
    assert 0.5 < time.monotonic() - start < 5
    # Fifty that spin would have needed all of the second.
    assert cpu_seconds(one) - before < 0.3


def test_half_a_line_and_the_end_of_sending(one):
    for end in ("half", "close", "abort"):
        before = fd_count(one)
        for _ in range(30):
            client = RawWs(one.port, handshake=False)
            client.send_bytes(b"GET /websocket/a")
            if end == "half":
                client.socket.shutdown(1)
                client.recv_eof()
            client.abort() if end == "abort" else client.close()
        wait_until(lambda: fd_count(one) <= before, "the descriptors are back")


def test_a_trickle_prolongs_nothing(one):
    with RawWs(one.port, handshake=False) as client:
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < 10:
                client.send_bytes(b"G")
                time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_who_hangs_in_the_handshake_locks_nobody_out():
    """Of too many newcomers the one that has been silent for longest goes; never one that has begun to speak."""
    with Broker(handshakes_limit=50, handshake_timeout="60s") as broker:
        before = fd_count(broker)
        begun = RawWs(broker.port, "/echo", handshake=False)
        request = begun.request_bytes()
        begun.send_bytes(request[:20])
        idle = [RawWs(broker.port, handshake=False) for _ in range(200)]
        with broker.connect("/echo") as client:
            client.send("hi")
            assert client.recv() == "hi"
        assert fd_count(broker) < before + 60
        idle[0].recv_eof()
        assert broker.counter("connections_refused_handshakes") >= 150
        assert len(broker.log("connections dropped")) == 1
        # The newest are still there, and so is the one that had begun.
        idle[-1].handshake()
        assert idle[-1].status in (101, 404)
        begun.send_bytes(request[20:])
        assert begun.read_response() == 101
        for client in [begun, *idle]:
            client.close()


def test_when_all_have_begun_the_last_to_come_is_refused():
    with Broker(handshakes_limit=5, handshake_timeout="60s") as broker:
        begun = [RawWs(broker.port, "/echo", handshake=False) for _ in range(5)]
        requests = [client.request_bytes() for client in begun]
        for client, request in zip(begun, requests):
            client.send_bytes(request[:-1])
            wait_until(lambda: broker.stats()["counters"]["connections_accepted"] >= 1, "one is there")
        wait_until(lambda: raw_request(broker) == 503, "there is no more room")
        for client, request in zip(begun, requests):
            client.send_bytes(request[-1:])
            assert client.read_response() == 101
            client.close()


def test_waiting_connections_do_not_keep_a_broker_from_ending():
    with Broker(handshake_timeout="60s") as broker:
        clients = [RawWs(broker.port, handshake=False) for _ in range(5)]
        for client in clients[1:]:
            client.send_bytes(b"GET /websocket/a")
        broker.stop()
        for client in clients:
            client.recv_eof()
            client.close()
