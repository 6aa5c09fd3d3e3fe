"""wss: TLS 1.2 and later on the clients' port, with HTTP/1.1 alone."""

import socket
import ssl
import warnings

import pytest

from lib import Broker, Certificate, RawWs, WsClient, frame


@pytest.fixture(scope="module")
def one():
    with Certificate() as certificate, Broker(tls=certificate, handshake_timeout="1s") as broker:
        yield broker


def handshake(one, minimum=None, maximum=None, alpn=None):
    """The context's connection, shaken hands."""
    context = ssl.create_default_context(cafile=one.tls.cert)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if minimum:
            context.minimum_version = minimum
        if maximum:
            context.maximum_version = maximum
    if alpn:
        context.set_alpn_protocols(alpn)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", one.port), timeout=10), server_hostname="localhost")


@pytest.mark.parametrize("message", ["hello", "", "你好", "x" * 70 * 1024, "m" * (1 << 20), b"\x00\xff" * 50000],
                         ids=["ascii", "empty", "unicode", "70KiB", "1MiB", "binary"])
def test_messages(one, message):
    with one.connect("/echo") as client:
        client.send(message)
        assert client.recv() == message


def test_the_endpoints(one):
    with one.connect("/websocket/userSever/8080") as server, one.connect("/websocket/c/1") as client:
        client.send("q")
        assert server.recv() == "q"
        assert client.recv() == "Got your message (q).Thanks !"


def test_many_at_once_in_order(one):
    messages = [f"{i} " + "." * (i % 3000) for i in range(1500)]
    with one.connect("/echo") as client:
        client.send(*messages)
        assert client.recv_many(len(messages)) == messages


@pytest.mark.parametrize("count, size", [(5, 10), (200, 0), (20, 3000)])
def test_frames_right_behind_the_handshake(one, count, size):
    messages = [f"{i}" + "." * size for i in range(count)]
    with RawWs(one.port, "/echo", tls=one.tls, extra=b"".join(map(frame, messages))) as client:
        assert [client.recv() for _ in messages] == messages


def test_the_page(one):
    page = one.request("/")
    assert page.status == 200 and b"<html" in page.body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_versions(one, version):
    with handshake(one, version, version) as client:
        assert client.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(one, version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.TLSVersion[version]
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            handshake(one, old, old)


def test_alpn_is_http_1_1(one):
    with handshake(one, alpn=["h2", "http/1.1"]) as client:
        assert client.selected_alpn_protocol() == "http/1.1"


def test_http_2_alone_is_not_spoken(one):
    try:
        with handshake(one, alpn=["h2"]) as client:
            assert client.selected_alpn_protocol() is None
    except ssl.SSLError:
        pass


def test_plain_text_on_the_tls_port_gets_nothing(one):
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 50):
        with socket.create_connection(("127.0.0.1", one.port), timeout=10) as client:
            client.sendall(data)
            try:
                while found := client.recv(1000):
                    assert b"200 OK" not in found and b"<html" not in found
            except ConnectionResetError:
                pass


def test_a_silent_connection_is_dropped_at_the_handshake_timeout(one):
    with socket.create_connection(("127.0.0.1", one.port), timeout=15) as client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass


def test_a_client_that_does_not_trust_the_certificate_hurts_nobody(one):
    for _ in range(20):
        with pytest.raises(ssl.SSLCertVerificationError):
            WsClient(one.ws("/echo"), ssl=ssl.create_default_context())
    with one.connect("/echo") as client:
        client.send("hi")
        assert client.recv() == "hi"


def test_an_abrupt_end_is_noticed(one):
    mark = one.log_mark()
    client = one.connect("/websocket/bob")
    client.abort()
    one.log_wait("session offline", since=mark)


def test_a_slow_reader_is_cut_over_tls_too():
    with Certificate() as certificate, Broker(tls=certificate, max_message="64KiB", outbox_limit="256KiB") as broker:
        with broker.connect("/websocket/bob") as speaker, broker.raw("/websocket/bob", rcvbuf=8192) as stalled:
            while not broker.log("slow reader cut"):
                speaker.send(*["x" * 60000] * 10)
                speaker.recv_many(10)
            assert broker.log("slow reader cut")[0]["remote"] == f"127.0.0.1:{stalled.local_port}"
