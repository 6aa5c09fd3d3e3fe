"""An exclusive name is held by its newest connection: the former one is closed with 4501, and each message goes to
exactly one of them."""

import asyncio
import itertools

import pytest

from lib import Broker, Cluster, WsClient, background, wait_until

CONFIG = """
[route /hold/{name}]
address = session:{name}
on_message = ignore

[route /to/{name}]
on_message = forward session:{name}
reply = {message}
"""
LAYOUTS = {"memory": 0, "redis-1": 1, "redis-2": 2, "redis-3": 3}


@pytest.fixture(scope="module", params=LAYOUTS)
def brokers(request):
    count = LAYOUTS[request.param]
    if count:
        with Cluster(count, config=CONFIG) as cluster:
            yield list(cluster)
    else:
        with Broker(config=CONFIG) as broker:
            yield [broker]


def replaced(client):
    closed = client.wait_closed()
    return (closed.code, closed.reason) == (4501, "replaced")


def test_the_former_holder_is_closed_and_the_new_one_reached(placements, name):
    for here, there in placements:
        with here.connect(f"/hold/{name}") as old, there.connect(f"/hold/{name}") as new, \
                here.connect(f"/to/{name}") as sender:
            assert replaced(old)
            sender.send("hi")
            assert sender.recv() == new.recv() == "hi"
            new.expect_nothing()
            assert not old.pending()


def test_it_is_counted_and_logged(placements, name):
    for here, there in placements:
        before = here.counter("sessions_replaced")
        with here.connect(f"/hold/{name}") as old, there.connect(f"/hold/{name}"):
            assert replaced(old)
            line = here.log_wait("session offline", session=name, code=4501)
            assert line["reason"] == "replaced"
            assert here.counter("sessions_replaced") == before + 1


def test_a_late_close_removes_nothing_of_its_successor(placements, name):
    """The former holder leaves its close unanswered until long after the new one is online, then closes by itself."""
    for number, (here, there) in enumerate(placements):
        path = f"/hold/{name}-{number}"
        with here.raw(path) as old, there.connect(path) as new, there.connect(f"/to/{name}-{number}") as sender:
            got = old.recv_frame()
            assert (got.opcode, got.close_code) == (8, 4501)
            sender.send("before")
            assert new.recv() == "before"
            old.send_close(1000)
            old.recv_eof()
            here.log_wait("session offline", session=f"{name}-{number}", code=4501)
            sender.send("after")
            assert new.recv() == "after"


def test_a_crash_of_the_former_holder_removes_nothing_of_its_successor(placements, name):
    for number, (here, there) in enumerate(placements):
        path = f"/hold/{name}-{number}"
        with here.raw(path) as old, there.connect(path) as new, there.connect(f"/to/{name}-{number}") as sender:
            old.abort()
            here.log_wait("session offline", session=f"{name}-{number}")
            sender.send("after")
            assert new.recv() == "after"


def test_close_and_takeover_at_the_same_time(placements, name):
    """Again and again: whoever is last holds the name."""
    for here, there in placements:
        with here.connect(f"/to/{name}") as sender:
            old = here.connect(f"/hold/{name}")
            for i, broker in zip(range(20), itertools.cycle((there, here))):
                new = WsClient(broker.ws(f"/hold/{name}"))
                old.abort()
                broker.online(new)
                sender.send(str(i))
                assert new.recv() == str(i)
                old = new
            old.close()


def test_a_replaced_client_may_come_back(placements, name):
    for here, there in placements:
        with here.connect(f"/to/{name}") as sender:
            one = here.connect(f"/hold/{name}")
            two = there.connect(f"/hold/{name}")
            assert replaced(one)
            one = here.connect(f"/hold/{name}")
            assert replaced(two)
            sender.send("hi")
            assert one.recv() == "hi"
            one.close()


def test_many_rivals_at_once_leave_one_holder(brokers, name):
    async def rush():
        return await asyncio.gather(*(asyncio.to_thread(WsClient, brokers[i % len(brokers)].ws(f"/hold/{name}"))
                                      for i in range(24)))

    rivals = asyncio.run(rush())
    for i, rival in enumerate(rivals):
        if not rival.closed:
            wait_until(lambda: rival.closed or
                       brokers[i % len(brokers)].log("session online", remote=f"127.0.0.1:{rival.local_port}"))
    wait_until(lambda: sum(not rival.closed for rival in rivals) == 1, "one holder is left")
    with brokers[0].connect(f"/to/{name}") as sender:
        sender.send("winner")
        winner = next(rival for rival in rivals if not rival.closed)
        assert winner.recv() == "winner"
        assert all(rival.closed == (rival is not winner) for rival in rivals)
        assert all(replaced(rival) for rival in rivals if rival is not winner)
        assert sum(len(rival.pending()) for rival in rivals) == 0
        winner.close()


@pytest.mark.parametrize("senders", [1, 4])
def test_under_load_nothing_is_lost_or_doubled(brokers, name, senders):
    """Senders never pause while the name passes through thirty hands; what the hands hold together is all that was sent, once,
    and each sender's in order."""
    holders = [brokers[0].connect(f"/hold/{name}")]
    feeds = [brokers[i % len(brokers)].connect(f"/to/{name}") for i in range(senders)]
    sent = [0] * senders
    stop = []

    async def feed(number):
        connection = feeds[number]._connection
        while not stop:
            for _ in range(10):
                await connection.send(f"{number} {sent[number]}")
                sent[number] += 1
            await asyncio.sleep(0.001)

    async def start():
        return [asyncio.ensure_future(feed(number)) for number in range(senders)]

    async def finish(tasks):
        await asyncio.gather(*tasks)

    tasks = background(start())
    for i in range(30):
        holders.append(brokers[(i * 2 + 1) % len(brokers) if i % 3 else i % len(brokers)].connect(f"/hold/{name}"))
    stop.append(True)
    background(finish(tasks))
    for number, one in enumerate(feeds):
        assert one.recv_many(sent[number]) == [f"{number} {i}" for i in range(sent[number])]
    feeds[0].send("the end")
    received = []
    for holder in holders[:-1]:
        assert replaced(holder)
        received += holder.pending()
    while (message := holders[-1].recv()) != "the end":
        received.append(message)
    for number in range(senders):
        assert [int(i) for who, i in map(str.split, received) if who == str(number)] == list(range(sent[number]))
    holders[-1].expect_nothing()
    for client in [holders[-1], *feeds]:
        client.close()


def test_a_holder_that_does_not_read_can_be_replaced(placements, name):
    for here, there in placements:
        with here.raw(f"/hold/{name}", rcvbuf=4096) as stuck, here.connect(f"/to/{name}") as sender:
            sender.send(*["x" * 60000] * 30)
            sender.recv_many(30)
            with there.connect(f"/hold/{name}") as new:
                sender.send("hi")
                assert new.recv() == "hi"
                assert [len(stuck.recv()) for _ in range(30)] == [60000] * 30
                assert stuck.recv_close()[0] == 4501
