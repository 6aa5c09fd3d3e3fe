"""The main job, end to end: clients of two brokers talk through Redis, and an operator sees and reaches them there."""

import json


def test_user_hears_user_on_all_instances(cluster):
    with cluster[0].connect("/websocket/admin") as here, cluster[1].connect("/websocket/admin") as there, \
            cluster[1].connect("/websocket/other") as other:
        here.send("hello")
        assert there.recv() == "admin:hello"
        assert here.recv() == "admin:hello"
        there.send("你好")
        assert here.recv() == "admin:你好"
        assert there.recv() == "admin:你好"
        other.expect_nothing()


def test_keyed_session_forwards_and_is_thanked(cluster):
    with cluster[0].connect("/websocket/userSever/8080") as server, \
            cluster[1].connect("/websocket/client/1") as client:
        client.send("question")
        assert server.recv() == "question"
        assert client.recv() == "Got your message (question).Thanks !"


def test_urls_of_old_clients(cluster):
    with cluster[0].connect("//testWebsocket/websocket/userSever/8080") as server, \
            cluster[1].connect("/WebSocketTest/websocket/admin") as admin:
        admin.send("x")
        assert admin.recv() == "admin:x"
        server.send("to myself")
        # They come over two connections from Redis, so in either order.
        assert set(server.recv_many(2)) == {"to myself", "Got your message (to myself).Thanks !"}


def test_operator_sees_a_session(cluster):
    redis = cluster.redis
    with cluster[0].connect("/websocket/userSever/8080"):
        key = "sb:session:{userSever_8080}"
        shown = redis.client.hgetall(key)
        assert shown["instance"] == cluster[0].instance
        assert shown["route"] == "/websocket/{relationId}/{userCode:int}"
        assert shown["face"] == "plain"
        assert shown["remote"].startswith("127.0.0.1")
        assert shown["connected_at"].endswith("Z")
        assert "userSever_8080" in redis.cli("smembers", "sb:instance:{%s}:sessions" % cluster[0].instance)
    cluster[0].log_wait("session offline", session="userSever_8080")
    assert redis.cli("exists", key) == "0"


def test_operator_reaches_a_session_and_a_user(cluster):
    redis = cluster.redis
    with cluster[0].connect("/websocket/userSever/8080") as session, \
            cluster[0].connect("/websocket/bob") as bob, cluster[1].connect("/websocket/bob") as bob_too:
        assert redis.cli("publish", "sb:session:{userSever_8080}", "hello") == "1"
        assert session.recv() == "hello"
        assert redis.cli("publish", "sb:user:{bob}", "good morning") == "2"
        assert bob.recv() == bob_too.recv() == "good morning"


def test_users_sessions_are_listed(cluster):
    with cluster[0].connect("/websocket/bob"), cluster[1].connect("/websocket/bob"):
        sessions = cluster.redis.client.hgetall("sb:user:{bob}")
        assert sorted(sessions.values()) == sorted(one.instance for one in cluster)
        assert all(name.startswith("bob~") for name in sessions)


def test_one_broker_without_redis(broker):
    with broker.connect("/websocket/admin") as one, broker.connect("/websocket/admin") as two:
        one.send("hello")
        assert two.recv() == one.recv() == "admin:hello"


def test_health_and_page(broker):
    assert broker.api("/healthz", expect=None).status == 200
    assert broker.api("/readyz", expect=None).status == 200
    assert isinstance(json.loads(broker.api("/v1/stats", expect=None).text), dict)
    assert broker.metrics()
    page = broker.request("/")
    assert page.status == 200 and "text/html" in page.headers["Content-Type"]
