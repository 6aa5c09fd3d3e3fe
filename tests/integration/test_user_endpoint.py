"""/websocket/{uid}: what one session of a user says, all of that user's sessions hear, on every instance."""

import asyncio

import pytest

from lib import Frame, RawWs, background, frame

MIB = 1 << 20


@pytest.mark.parametrize("message", ["hello", "", "你好 wörld 🙂", "{uid}:{message} %7B%s\r\n\t", "x" * 70 * 1024, "é" * 40000],
                         ids=["ascii", "empty", "unicode", "templates", "70KiB", "80KB-unicode"])
def test_text_reaches_every_session_of_the_user(placements, name, message):
    for here, there in placements:
        with here.connect(f"/websocket/{name}") as one, there.connect(f"/websocket/{name}") as two:
            one.send(message)
            assert one.recv() == two.recv() == f"{name}:{message}"
            one.expect_nothing(), two.expect_nothing()


@pytest.mark.parametrize("message", [b"", b"\x00\xff\xfe", bytes(range(256)) * 300], ids=["empty", "short", "75KiB"])
def test_binary_stays_binary_without_a_prefix(placements, name, message):
    for here, there in placements:
        with here.connect(f"/websocket/{name}") as one, there.connect(f"/websocket/{name}") as two:
            one.send(message)
            assert one.recv() == two.recv() == message


def test_the_largest_message_arrives_with_its_prefix(placements, name):
    for here, there in placements:
        with here.connect(f"/websocket/{name}") as one, there.connect(f"/websocket/{name}") as two:
            one.send("m" * MIB)
            assert one.recv() == two.recv() == f"{name}:" + "m" * MIB


def test_frames_are_exact(placements, name):
    for here, there in placements:
        with here.raw(f"/websocket/{name}") as one, there.raw(f"/websocket/{name}") as two:
            one.send("hi")
            assert one.recv_frame() == two.recv_frame() == Frame(1, f"{name}:hi".encode(), True, 0, False)
            one.send(b"hi")
            assert one.recv_frame() == two.recv_frame() == Frame(2, b"hi", True, 0, False)


def test_fragments_become_one_message(placements, name):
    """Cut inside of a character, with an empty fragment, and with a ping in between."""
    text = "你好".encode()
    for here, there in placements:
        with here.raw(f"/websocket/{name}") as one, there.raw(f"/websocket/{name}") as two:
            one.send_frame(text[:2], 1, fin=False)
            one.send_frame(b"", 0, fin=False)
            one.send_frame(b"are you there", 9)
            one.send_frame(text[2:5], 0, fin=False)
            one.send_frame(text[5:], 0)
            assert two.recv() == f"{name}:你好"
            # A pong keeps no order with messages, which go over the bus.
            assert {one.recv_frame(), one.recv_frame()} == {Frame(10, b"are you there", True, 0, False),
                                                            Frame(1, f"{name}:你好".encode(), True, 0, False)}


def test_many_small_fragments(brokers, name):
    with brokers[0].raw(f"/websocket/{name}") as one, brokers[-1].raw(f"/websocket/{name}") as two:
        whole = "".join(chr(0x61 + i % 26) for i in range(5000))
        one.send_bytes(b"".join([frame(whole[0], 1, fin=False), *(frame(c, 0, fin=False) for c in whole[1:-1]),
                                 frame(whole[-1], 0)]))
        assert one.recv() == two.recv() == f"{name}:{whole}"


def test_nobody_else_hears_it(placements, name):
    for here, there in placements:
        with here.connect(f"/websocket/{name}") as one, there.connect(f"/websocket/{name}x") as other_user, \
                there.connect(f"/websocket/{name}/1") as keyed, there.connect(f"/topics/{name}") as topic:
            one.send("secret")
            assert one.recv() == f"{name}:secret"
            for other in (other_user, keyed, topic):
                other.expect_nothing()


def test_a_session_that_left_is_not_missed(placements, name):
    for here, there in placements:
        with here.connect(f"/websocket/{name}") as one:
            with there.connect(f"/websocket/{name}") as two:
                one.send("a")
                assert one.recv() == two.recv() == f"{name}:a"
            with there.connect(f"/websocket/{name}") as three:
                one.send("b")
                assert one.recv() == three.recv() == f"{name}:b"
            one.send("c")
            assert one.recv() == f"{name}:c"


@pytest.mark.parametrize("written, uid", [("%E7%8E%8B", "王"), ("a%20b", "a b"), ("100%25", "100%"), ("a%7Bb%7D", "a{b}"),
                                          ("o'%22<i>", "o'\"<i>"), ("a%2Bb%26c%3Bd%3De", "a+b&c;d=e"),
                                          ("a=b", "a=b"), ("a+b", "a+b"), ("a&b", "a&b"), ("a;b", "a;b"),
                                          ("a%2Fb", "a/b"), ("%2541", "%41"), ("~.-_!$*():@,'", "~.-_!$*():@,'")])
def test_uids_are_percent_decoded(brokers, written, uid):
    with brokers[0].connect(f"/websocket/{written}") as one, brokers[-1].connect(f"/websocket/{written}") as two:
        one.send("hi")
        assert one.recv() == two.recv() == f"{uid}:hi"


@pytest.mark.parametrize("uid", ["%FF", "%0A", "%7F", "%ED%A0%80", "u" * 256], ids=lambda uid: uid[:9])
def test_a_uid_that_can_not_be_is_refused_before_the_upgrade(brokers, uid):
    with RawWs(brokers[0].port, f"/websocket/{uid}") as client:
        assert client.status == 400
        assert b"uid" in client.body


@pytest.mark.parametrize("uid", ["%00", "a%00b", "%", "%4", "%zz"])
def test_what_is_no_url_never_becomes_a_session(brokers, uid):
    """Answered with an error, or not at all."""
    with RawWs(brokers[0].port, f"/websocket/{uid}") as client:
        assert client.status in (0, 400, 403)


def test_the_url_of_the_original_page(placements):
    for here, there in placements:
        with here.connect("/WebSocketTest/websocket/admin") as page, there.connect("/websocket/admin") as other, \
                there.connect("//testWebsocket/websocket/admin") as doubled:
            page.send("你好")
            assert page.recv() == other.recv() == doubled.recv() == "admin:你好"


def test_concurrent_senders_hurt_nobody(brokers, name):
    """Twelve sessions of one user all talk at once: each hears everything once, and each sender in its order."""
    clients = [brokers[i % len(brokers)].connect(f"/websocket/{name}") for i in range(12)]
    count = 30

    async def talk(client, number):
        for i in range(count):
            await client._connection.send(f"{number} {i}")

    async def all_talk():
        await asyncio.gather(*(talk(client, number) for number, client in enumerate(clients)))

    background(all_talk())
    for client in clients:
        heard = [[] for _ in clients]
        for message in client.recv_many(count * len(clients)):
            number, i = message.removeprefix(f"{name}:").split()
            heard[int(number)].append(int(i))
        assert heard == [list(range(count))] * len(clients)
        client.expect_nothing()
    for client in clients:
        client.close()
