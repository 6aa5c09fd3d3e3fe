"""/topics/{name}: publish and subscribe by URL alone."""

import pytest


@pytest.mark.parametrize("message", ["news", "", "新闻 🗞", "x" * 70 * 1024, b"", b"\x00\xff" * 40000],
                         ids=["ascii", "empty", "unicode", "70KiB", "empty-binary", "80KB-binary"])
def test_every_subscriber_hears_what_one_publishes(placements, name, message):
    for here, there in placements:
        with here.connect(f"/topics/{name}") as one, there.connect(f"/topics/{name}") as two, \
                there.connect(f"/topics/{name}") as three:
            one.send(message)
            assert one.recv() == two.recv() == three.recv() == message
            for client in (one, two, three):
                client.expect_nothing()


def test_topics_do_not_mix(placements, name):
    for here, there in placements:
        with here.connect(f"/topics/{name}") as one, there.connect(f"/topics/{name}2") as other, \
                there.connect(f"/websocket/{name}") as user:
            one.send("only here")
            assert one.recv() == "only here"
            other.expect_nothing(), user.expect_nothing()


def test_each_publisher_is_heard_in_order(brokers, name):
    clients = [broker.connect(f"/topics/{name}") for broker in brokers for _ in range(2)]
    for number, client in enumerate(clients):
        client.send(*(f"{number} {i}" for i in range(50)))
    for client in clients:
        heard = [message.split() for message in client.recv_many(50 * len(clients))]
        for number in range(len(clients)):
            assert [int(i) for who, i in heard if who == str(number)] == list(range(50))
        client.expect_nothing()
    for client in clients:
        client.close()


def test_a_subscriber_that_left_is_no_longer_counted(placements, name):
    for here, there in placements:
        with here.connect(f"/topics/{name}") as one:
            with there.connect(f"/topics/{name}"):
                pass
            one.send("still here")
            assert one.recv() == "still here"


def test_names_of_topics_are_unicode(placements):
    for here, there in placements:
        with here.connect("/topics/%E6%96%B0%E9%97%BB") as one, there.connect("/topics/%E6%96%B0%E9%97%BB") as two:
            one.send("x")
            assert one.recv() == two.recv() == "x"
