"""/websocket/{relationId}/{userCode}: what a keyed session says is forwarded to userSever_8080, and it is thanked."""

import pytest

from lib import Frame, RawWs

SERVER = "/websocket/userSever/8080"
MIB = 1 << 20


def thanks(message):
    return f"Got your message ({message}).Thanks !"


@pytest.mark.parametrize("message", ["question", "", "在吗 🙂 wörld", "{message} {relationId} %s ({)}", "x" * 70 * 1024, "m" * MIB],
                         ids=["ascii", "empty", "unicode", "templates", "70KiB", "1MiB"])
def test_text_is_forwarded_and_thanked_for(placements, name, message):
    for here, there in placements:
        with there.connect(SERVER) as server, here.connect(f"/websocket/{name}/1") as client:
            client.send(message)
            assert server.recv() == message
            assert client.recv() == thanks(message)
            server.expect_nothing(), client.expect_nothing()


@pytest.mark.parametrize("message", [b"", b"\x00\xff\xfe", bytes(range(256)) * 300], ids=["empty", "short", "75KiB"])
def test_binary_is_forwarded_as_binary(placements, name, message):
    for here, there in placements:
        with there.connect(SERVER) as server, here.connect(f"/websocket/{name}/1") as client:
            client.send(message, "text behind it")
            assert server.recv_many(2) == [message, "text behind it"]
            assert client.recv() == thanks("text behind it")


def test_frames_are_exact(placements, name):
    for here, there in placements:
        with there.raw(SERVER) as server, here.raw(f"/websocket/{name}/1") as client:
            client.send("hi")
            assert server.recv_frame() == Frame(1, b"hi", True, 0, False)
            assert client.recv_frame() == Frame(1, thanks("hi").encode(), True, 0, False)
            client.send(b"\xff")
            assert server.recv_frame() == Frame(2, b"\xff", True, 0, False)


def test_fragments_become_one_message(placements, name):
    for here, there in placements:
        with there.raw(SERVER) as server, here.raw(f"/websocket/{name}/1") as client:
            client.send_frame("wö".encode()[:2], 1, fin=False)
            client.send_frame("wö".encode()[2:], 0, fin=False)
            client.send_frame(b"rld", 0)
            assert server.recv() == "wörld"
            assert client.recv() == thanks("wörld")


def test_order_is_kept(placements, name):
    messages = [str(i) for i in range(300)]
    for here, there in placements:
        with there.connect(SERVER) as server, here.connect(f"/websocket/{name}/1") as client:
            client.send(*messages)
            assert server.recv_many(300) == messages
            assert client.recv_many(300) == [thanks(message) for message in messages]


def test_the_server_writes_to_itself(brokers):
    for broker in brokers:
        with broker.connect(SERVER) as server:
            server.send("to myself")
            assert sorted(server.recv_many(2)) == sorted(["to myself", thanks("to myself")])


def test_many_senders_each_get_their_own_thanks(brokers, name):
    with brokers[0].connect(SERVER) as server:
        clients = [brokers[i % len(brokers)].connect(f"/websocket/{name}/{i}") for i in range(20)]
        for i, client in enumerate(clients):
            client.send(f"{i} a", f"{i} b")
        for i, client in enumerate(clients):
            assert client.recv_many(2) == [thanks(f"{i} a"), thanks(f"{i} b")]
            client.expect_nothing()
        heard = server.recv_many(40)
        assert sorted(heard) == sorted(f"{i} {what}" for i in range(20) for what in "ab")
        for i in range(20):
            assert heard.index(f"{i} a") < heard.index(f"{i} b")
        for client in clients:
            client.close()


def test_only_the_server_hears_it(placements, name):
    for here, there in placements:
        with there.connect(SERVER) as server, here.connect(f"/websocket/{name}/1") as client, \
                there.connect(f"/websocket/{name}/2") as other, there.connect("/websocket/userSever_8080") as user, \
                there.connect("/topics/userSever_8080") as topic:
            client.send("secret")
            assert server.recv() == "secret"
            assert client.recv() == thanks("secret")
            for one in (other, user, topic):
                one.expect_nothing()


def test_an_absent_server_shows_in_log_and_metric_and_changes_no_reply(brokers, name):
    for i, broker in enumerate(brokers):
        before = broker.counter("published_absent")
        with broker.connect(f"/websocket/{name}/{i}") as client:
            client.send("anybody?", "nobody?")
            assert client.recv_many(2) == [thanks("anybody?"), thanks("nobody?")]
            line = broker.log_wait("message not delivered", session=f"{name}_{i}")
            assert line["reason"] == "absent" and line["to"] == "session:userSever_8080" and line["level"] == "info"
            assert broker.counter("published_absent") == before + 2
            assert broker.metrics()["switchboard_published_absent_total"] == before + 2
            client.expect_nothing()
            assert not any("anybody?" in text for text in broker.lines)


def test_a_server_that_comes_later_is_reached(placements, name):
    for here, there in placements:
        with here.connect(f"/websocket/{name}/1") as client:
            client.send("too early")
            assert client.recv() == thanks("too early")
            with there.connect(SERVER) as server:
                client.send("in time")
                assert client.recv() == thanks("in time")
                assert server.recv() == "in time"


@pytest.mark.parametrize("code", ["abc", "007", "+5", "-0", "00", "1.5", "1e3", "0x10", "%205", "5%20", "%EF%BC%95", "5%3B", "-", "8080a"])
def test_a_bad_user_code_is_400_before_the_upgrade(brokers, code):
    with RawWs(brokers[0].port, f"/websocket/userSever/{code}") as client:
        assert client.status == 400
        assert b"userCode" in client.body
    assert brokers[0].request(f"/websocket/userSever/{code}").status == 400


@pytest.mark.parametrize("code", ["0", "7", "-5", "2147483648"])
def test_canonical_integers_are_user_codes(brokers, name, code):
    with brokers[0].connect(f"/websocket/{name}/{code}") as client:
        client.send("x")
        assert client.recv() == thanks("x")


def test_the_url_of_the_original_client(placements):
    for here, there in placements:
        with there.connect("//testWebsocket/websocket/userSever/8080") as server, \
                here.connect("/WebSocketTest/websocket/client/1") as client:
            client.send("question")
            assert server.recv() == "question"
            assert client.recv() == thanks("question")


def test_names_are_percent_decoded(placements):
    for here, there in placements:
        with there.connect("/websocket/%75serSever/8080") as server, here.connect("/websocket/%E7%8E%8B%20x/1") as client:
            client.send("hi")
            assert server.recv() == "hi"
            assert client.recv() == thanks("hi")
