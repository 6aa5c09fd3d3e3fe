"""A reader that stalls delays nobody, and is cut at its limit: 4008, named in the log, memory bounded."""

import pytest

from lib import PATIENCE, SANITIZED, Broker, Cluster, rss_bytes, wait_until

MIB = 1 << 20
OPTIONS = {"max_message": "256KiB", "outbox_limit": "1MiB", "close_timeout": "1s"}


@pytest.fixture(scope="module", params=["memory", "redis"])
def brokers(request):
    if request.param == "redis":
        with Cluster(2, **OPTIONS) as cluster:
            yield list(cluster)
    else:
        with Broker(**OPTIONS) as broker:
            yield [broker]


def flood(speaker, others, name, megabytes=24.0):
    """The user says so much, and everybody in others hears all of it, in order."""
    for i in range(int(megabytes * 16)):
        message = f"{i:5} " + "x" * (64 * 1024)
        speaker.send(message)
        for one in (speaker, *others):
            assert one.recv() == f"{name}:{message}"


def test_it_is_cut_and_nobody_else_notices(brokers, name):
    here, there = brokers[0], brokers[-1]
    before = there.counter("sessions_slow")
    with here.connect(f"/websocket/{name}") as speaker, here.connect(f"/websocket/{name}") as one, \
            there.connect(f"/websocket/{name}") as two, there.raw(f"/websocket/{name}", rcvbuf=8192) as stalled:
        flood(speaker, [one, two], name)
        line = there.log_wait("slow reader cut", remote=f"127.0.0.1:{stalled.local_port}")
        assert line["level"] == "warn" and line["session"].startswith(f"{name}~")
        assert int(line["queued_bytes"]) <= MIB
        assert there.counter("sessions_slow") == before + 1
        offline = there.log_wait("session offline", session=line["session"])
        assert (offline["code"], offline["reason"]) == ("4008", "slow_reader")


def test_one_that_wakes_up_in_time_reads_the_reason(name):
    """What it was sent before the cut is whole messages in order; then comes the close frame."""
    with Broker(**{**OPTIONS, "close_timeout": "20s"}) as broker:
        with broker.connect(f"/websocket/{name}") as speaker, broker.raw(f"/websocket/{name}", rcvbuf=8192) as stalled:
            mark = broker.log_mark()
            flood(speaker, [], name)
            broker.log_wait("slow reader cut", since=mark)
            received = 0
            while (got := stalled.recv_frame()) is not None and got.opcode != 8:
                assert got.text.startswith(f"{name}:{received:5} ")
                received += 1
            assert got is not None and (got.close_code, got.close_reason) == (4008, "slow_reader")
            assert received > 0


def test_one_that_never_wakes_up_is_dropped_at_the_close_timeout(brokers, name):
    broker = brokers[0]
    with broker.connect(f"/websocket/{name}") as speaker, broker.raw(f"/websocket/{name}", rcvbuf=8192) as stalled:
        flood(speaker, [], name)
        broker.log_wait("slow reader cut", remote=f"127.0.0.1:{stalled.local_port}")
        # The server's side of the connection is gone although nobody read a byte.
        wait_until(lambda: f"127.0.0.1:{stalled.local_port}" not in peers(broker), "the connection is dropped", PATIENCE)


def peers(broker):
    """The remote ends of the connections that some process of this machine holds at the broker's port."""
    found = set()
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            words = line.split()
            local, remote, state, inode = words[1], words[2], words[3], words[9]
            if int(local.split(":")[1], 16) == broker.port and state == "01" and inode != "0":
                found.add(f"127.0.0.1:{int(remote.split(':')[1], 16)}")
    return found


def test_a_pause_below_the_limit_is_no_offence(brokers, name):
    with brokers[0].connect(f"/websocket/{name}") as speaker, \
            brokers[-1].raw(f"/websocket/{name}", rcvbuf=8192) as dozing:
        flood(speaker, [], name, megabytes=0.5)
        for i in range(8):
            assert dozing.recv().startswith(f"{name}:{i:5} ")


def test_a_stalled_sender_of_echoes_is_cut_too(brokers):
    """It sends without reading what comes back; the broker does not take it all in."""
    broker = brokers[0]
    before = broker.counter("sessions_slow")
    with broker.raw("/echo", rcvbuf=8192) as client:
        try:
            while not broker.counter("sessions_slow") > before:
                client.send("x" * 60000)
        except OSError:
            pass  # reset
        broker.log_wait("slow reader cut", remote=f"127.0.0.1:{client.local_port}")


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory is not the broker's")
def test_memory_is_bounded(brokers, name):
    """Thirty stalled readers, 24 MiB for each: no more than their limits are held, and those only until they are cut."""
    here, there = brokers[0], brokers[-1]

    def cuts():
        return sum(there.counter(name) for name in ("sessions_slow", "sessions_stalled", "sessions_shed"))

    cut_before = cuts()
    with here.connect(f"/websocket/{name}") as speaker:
        flood(speaker, [], name, megabytes=4)  # what the allocator needs anyway
        before = rss_bytes(there)
        stalled = [there.raw(f"/websocket/{name}", rcvbuf=8192) for _ in range(30)]
        peak = before
        for _ in range(24):
            flood(speaker, [], name, megabytes=1)
            peak = max(peak, rss_bytes(there))
        wait_until(lambda: cuts() == cut_before + 30, "all are cut")
        for one in stalled:
            one.close()
        # Frames are shared: thirty readers of the same messages hold them once.
        assert peak - before < 12 * MIB
