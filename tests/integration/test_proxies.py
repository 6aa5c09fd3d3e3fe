"""The load balancers' configurations of deploy/, in front of real brokers."""

import pytest

from lib import Certificate, HAProxy, Nginx, RawWs, Refused, WsClient, frame, wait_until

PROXIES = [HAProxy, Nginx]


@pytest.fixture(scope="module")
def certificate():
    with Certificate() as one:
        yield one


@pytest.mark.parametrize("kind", PROXIES)
def test_messages_pass_whole_and_at_once(cluster, kind):
    with kind(cluster) as proxy, WsClient(proxy.ws("/echo")) as client:
        for message in ("hello", "", "你好" * 40000, b"\x00\xff" * 50000):
            client.send(message)
            assert client.recv() == message


@pytest.mark.parametrize("kind", PROXIES)
def test_new_connections_spread_over_the_brokers(cluster, kind):
    with kind(cluster) as proxy:
        clients = [WsClient(proxy.ws("/websocket/bob")) for _ in range(8)]
        wait_until(lambda: sum(len(one.log("session online")) for one in cluster) == 8, "all are online")
        assert all(one.log("session online") for one in cluster)
        clients[0].send("hi")
        assert [client.recv() for client in clients] == ["bob:hi"] * 8
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", PROXIES)
def test_tls_ends_at_the_proxy(cluster, kind, certificate):
    with kind(cluster, tls=certificate) as proxy, WsClient(proxy.ws("/echo"), tls=certificate) as client:
        client.send("secret")
        assert client.recv() == "secret"


@pytest.mark.parametrize("kind", PROXIES)
def test_what_follows_the_handshake_at_once_is_not_lost(cluster, kind):
    with kind(cluster) as proxy, RawWs(proxy.port, "/echo", extra=frame("early") + frame("bird")) as client:
        assert [client.recv(), client.recv()] == ["early", "bird"]


@pytest.mark.parametrize("kind", PROXIES)
def test_closes_and_refusals_pass(cluster, kind):
    with kind(cluster) as proxy:
        with RawWs(proxy.port, "/websocket/a/1") as old:
            # Which of the two is the newer one is decided when they come online.
            wait_until(lambda: any(broker.log("session online", session="a_1") for broker in cluster), "it is online")
            with RawWs(proxy.port, "/websocket/a/1"):
                assert old.recv_close()[0] == 4501
        with pytest.raises(Refused) as refusal:
            WsClient(proxy.ws("/nowhere"))
        assert refusal.value.status == 404


@pytest.mark.parametrize("kind", PROXIES)
def test_a_stopped_broker_is_left_out(cluster, kind):
    with kind(cluster) as proxy:
        cluster[0].stop()
        for _ in range(6):
            with WsClient(proxy.ws("/echo")) as client:
                client.send("x")
                assert client.recv() == "x"


def test_haproxy_keeps_connections_while_redis_is_away_and_refuses_new_ones(cluster):
    with HAProxy(cluster) as proxy, WsClient(proxy.ws("/echo")) as client:
        client.send("online")
        assert client.recv() == "online"
        cluster.redis.kill()
        for number in (1, 2):
            proxy.line_wait(f"Server brokers/broker{number} is DOWN")
        answer = proxy.request("/")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        client.send("still here")
        assert client.recv() == "still here"
        cluster.redis.start()
        for number in (1, 2):
            proxy.line_wait(f"Server brokers/broker{number} is UP")
        with WsClient(proxy.ws("/echo")) as another:
            another.ping()
