"""What clients make a broker and its kernel keep is bounded: by what each takes and finishes in time, and by one budget for all."""

import contextlib
import re
import signal
import subprocess
import time

import pytest

from lib import PATIENCE, SANITIZED, Broker, RawWs, RedisServer, rss_bytes, wait_until
from lib.rawws import CLOSE, CONTINUATION, PING, PONG, TEXT

KIB, MIB = 1 << 10, 1 << 20

ROUTES = """
[route /topics/{name}]
address = topic:{name}
on_message = ignore
[route /say/{name}]
on_message = publish topic:{name}
[route /users/{uid}]
address = user:{uid}
on_message = publish user:{uid}
"""


@contextlib.contextmanager
def several(broker, path, count, **options):
    clients = [broker.raw(path.format(i), **options) for i in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def publish(broker, name, megabytes, size=64 * KIB):
    """To a topic, as far as the broker takes it."""
    with broker.raw(f"/say/{name}") as speaker:
        for _ in range(int(megabytes * MIB / size)):
            speaker.send("x" * size)
        speaker.send_frame(b"", PING)
        wait_until(lambda: speaker.recv_frame().opcode == PONG, "all was read")


def kernel_bytes(broker):
    """What the kernel keeps to be sent by the broker's sockets, those included that it has closed."""
    told = subprocess.run(["ss", "-H", "-tanm", f"sport = :{broker.port}"], capture_output=True, text=True, check=True).stdout
    return sum(map(int, re.findall(r"skmem:\(.*?,w(\d+),", told)))


def ending(client):
    """How the connection ended, whatever was sent before; pings stay unanswered."""
    while (got := client.recv_frame()) is not None:
        if got.opcode == CLOSE:
            return got.close_code, got.close_reason
    return None


# ---- pings


@pytest.fixture(scope="module")
def impatient():
    with Broker(config=ROUTES, ping_interval="300ms", ping_timeout="400ms", stall_timeout="2s", close_timeout="500ms") as broker:
        yield broker


@pytest.mark.parametrize("payload", [b"", b"ping", b"\0" * 8, b"x" * 125, "guess", "prefix", "late"])
def test_only_the_pong_with_the_pings_number_is_an_answer(impatient, payload):
    with impatient.raw("/topics/a") as client:
        client.socket.settimeout(0.1)
        end, last = time.monotonic() + PATIENCE, b""
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError, AssertionError, Exception):
                got = client.recv_frame(0.1)
                if got is None:
                    pytest.fail("ended without a close frame")
                if got.opcode == CLOSE:
                    assert got.close_code == 4001
                    return
                assert got.opcode == PING and len(got.payload) >= 8 and got.payload != last
                last = got.payload
            answer = {"guess": bytes([*last[:-1], last[-1] ^ 1]) if last else b"", "prefix": last[:-1],
                      "late": b"another"}.get(payload, payload)
            client.send_frame(answer, PONG)
        pytest.fail("it lives")


def test_numbers_differ_between_clients_and_pings(impatient):
    seen = set()
    with several(impatient, "/topics/a", 3) as clients:
        for _ in range(4):
            for client in clients:
                got = client.recv_frame()
                assert got.opcode == PING and got.payload not in seen
                seen.add(got.payload)
                client.send_frame(got.payload, PONG)


def test_a_message_is_a_sign_of_life(impatient):
    """It never answers a ping, and goes on for several timeouts; silent, it is closed."""
    with impatient.raw("/topics/a") as client:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            client.send("still here")
            with contextlib.suppress(Exception):
                got = client.recv_frame(0.1)
                assert got is not None and got.opcode == PING
        assert ending(client) == (4001, "ping_timeout")


def test_a_steady_slow_reader_stays(impatient, name):
    """A ping is behind all that it has not read, for many timeouts; it answers when it gets there."""
    with impatient.raw(f"/topics/{name}", rcvbuf=8192) as slow:
        publish(impatient, name, 0.5)
        received, buffered, start = 0, b"", time.monotonic()
        while received < 8:
            data = slow.socket.recv(4096)
            assert data, f"closed after {received} of 8 messages, {time.monotonic() - start:.1f} s"
            slow._input += data
            time.sleep(0.03)
            while (got := slow._parse()) is not None:
                assert got.opcode != CLOSE, (got.close_code, received)
                received += got.opcode == TEXT
                if got.opcode == PING:
                    slow.send_frame(got.payload, PONG)
        assert time.monotonic() - start > 2.5  # longer than each of the timeouts


def test_a_sender_that_is_held_back_stays():
    """While Redis answers nothing it is read no further, so its pongs are not seen."""
    with RedisServer() as redis, \
            Broker(redis, config=ROUTES, ping_interval="200ms", ping_timeout="200ms", inflight_limit=1, heartbeat="10s",
                   lease="30s", redis_timeout="20s") as broker, broker.raw("/users/bob") as client:
        redis.signal(signal.SIGSTOP)
        try:
            for i in range(100):
                client.send(f"{i}")
            end = time.monotonic() + 2
            while time.monotonic() < end:
                with contextlib.suppress(Exception):
                    got = client.recv_frame(0.1)
                    if got.opcode == PING:
                        client.send_frame(got.payload, PONG)
        finally:
            redis.signal(signal.SIGCONT)
        assert [client.recv() for _ in range(100)] == [str(i) for i in range(100)]


# ---- readers who take nothing


@pytest.mark.parametrize("talk", ["pongs", "messages"])
def test_who_takes_nothing_is_cut_whatever_it_sends(talk, name):
    count = 10
    with Broker(config=ROUTES, stall_timeout="1s", close_timeout="500ms") as broker, \
            several(broker, f"/topics/{name}", count, rcvbuf=8192) as stalled, broker.raw(f"/topics/{name}") as reader:
        publish(broker, name, 3)
        for _ in range(48):
            assert len(reader.recv()) == 64 * KIB
        start = time.monotonic()
        while broker.counter("sessions_stalled") < count:
            assert time.monotonic() - start < PATIENCE
            for client in stalled:
                with contextlib.suppress(OSError):
                    client.send_frame(b"ping", PONG) if talk == "pongs" else client.send("hello")
            time.sleep(0.05)
        line = broker.log("slow reader cut")[0]
        assert line["reason"] == "stall_timeout" and int(line["queued_bytes"]) > 2 * MIB
        assert 1000 <= int(line["age_ms"]) < 5000
        assert broker.log("session offline", code=4008)
        # One line for all of them: they are the same client, as far as one can see. And none of its memory is left.
        assert len(broker.log("slow reader cut")) == 1
        wait_until(lambda: broker.stats()["memory"]["used"] < 16 * KIB, "nothing is kept but empty queues")
        assert broker.stats()["sessions"] == 1


def test_who_takes_nothing_of_what_is_in_the_kernel_is_cut_too(name):
    """All fits the socket's buffers, so nothing waits in the broker; and it talks, so it isn't silent."""
    with Broker(config=ROUTES, stall_timeout="1s", ping_interval="200ms", ping_timeout="200ms", send_buffer="256KiB") as broker, \
            broker.raw(f"/topics/{name}", rcvbuf=4096) as stalled:
        publish(broker, name, 0.1, KIB)
        assert broker.stats()["memory"]["unsent"] == 0
        end = time.monotonic() + PATIENCE
        while not broker.counter("sessions_stalled"):
            assert time.monotonic() < end
            stalled.send("hello")
            time.sleep(0.05)


def test_a_pause_shorter_than_the_timeout_is_no_offence(name):
    with Broker(config=ROUTES, stall_timeout="3s") as broker, broker.raw(f"/topics/{name}", rcvbuf=8192) as dozing:
        publish(broker, name, 2)
        time.sleep(1)
        for _ in range(32):
            assert len(dozing.recv()) == 64 * KIB
        # What it took counts, so the next pause is a new one.
        publish(broker, name, 2)
        time.sleep(1.5)
        for _ in range(32):
            assert len(dozing.recv()) == 64 * KIB


def test_the_kernel_keeps_little(name):
    """For readers who don't read: each no more than its buffer, and that not for long."""
    count = 40
    with Broker(config=ROUTES, stall_timeout="1s", close_timeout="1s", send_buffer="64KiB", outbox_limit="8MiB") as broker:
        with several(broker, f"/topics/{name}", count, rcvbuf=8192):
            publish(broker, name, 6)
            held = kernel_bytes(broker)
            assert count * 64 * KIB < held < count * 3 * 64 * KIB
            wait_until(lambda: broker.counter("sessions_stalled") == count, "all are cut")
            # While the clients are still there.
            wait_until(lambda: kernel_bytes(broker) < 16 * KIB, "the kernel is rid of it", PATIENCE)


def test_buffers_are_as_configured():
    with Broker(config=ROUTES, send_buffer="32KiB", receive_buffer="16KiB") as broker, broker.raw("/topics/a"):
        told = subprocess.run(["ss", "-H", "-tnm", f"sport = :{broker.port}"], capture_output=True, text=True, check=True).stdout
        assert f"rb{2 * 16 * KIB}," in told and f"tb{2 * 32 * KIB}," in told


# ---- messages that are never finished


@pytest.mark.parametrize("way", ["fragments", "one frame", "empty fragments"])
def test_a_message_must_be_finished_in_time(way):
    with Broker(config=ROUTES, message_timeout="600ms", close_timeout="500ms") as broker, broker.raw("/topics/a") as client:
        mark = broker.log_mark()
        if way == "one frame":
            client.send_frame(b"x", claim=1000)
        else:
            client.send_frame(b"x" * (way == "fragments"), fin=False)
        start = time.monotonic()
        closed = None
        while not closed:
            with contextlib.suppress(Exception):
                client.send_bytes(b"x") if way == "one frame" else client.send_frame(b"", CONTINUATION, fin=False)
            with contextlib.suppress(Exception):
                closed = client.recv_frame(0.05)
            assert time.monotonic() - start < PATIENCE
        assert (closed.close_code, closed.close_reason) == (4009, "slow_sender")
        assert 0.4 <= time.monotonic() - start
        line = broker.log_wait("slow sender cut", since=mark)
        assert line["reason"] == "message_timeout" and int(line["unfinished_bytes"]) > 0
        assert broker.counter("sessions_unfinished") == 1
        wait_until(lambda: broker.stats()["memory"]["assembly"] == 0, "nothing is kept")


def test_one_that_is_finished_in_time_is_a_message_like_any_other():
    with Broker(config=ROUTES, message_timeout="1s") as broker, broker.raw("/users/bob") as client:
        for _ in range(4):  # each takes its time, together they take longer
            client.send_frame(b"one ", fin=False)
            time.sleep(0.3)
            client.send_frame(b"two", CONTINUATION)
            assert client.recv() == "one two"
        assert broker.stats()["memory"]["assembly"] == 0


# ---- the budget


def test_unfinished_messages_share_the_budget():
    """The fattest go first, newcomers and bystanders are served, and all is given back."""
    count, limit = 80, 32 * MIB
    with Broker(config=ROUTES, memory_budget="32MiB") as broker, broker.raw("/users/bob") as bystander:
        before = rss_bytes(broker)
        clients = []
        for i in range(count):
            client = broker.raw(f"/topics/a{i}")
            with contextlib.suppress(OSError):
                client.send_frame(b"x" * 900 * KIB, fin=False)
            clients.append(client)
            assert broker.stats()["memory"]["used"] <= limit + MIB
            if i % 20 == 0:
                bystander.send("hi")
                assert bystander.recv() == "hi"
                assert SANITIZED or rss_bytes(broker) - before < limit + 16 * MIB
        cut = broker.counter("sessions_shed")
        assert count - limit // (900 * KIB) <= cut < count
        assert broker.log("slow sender cut")[0]["reason"] == "memory_budget"
        assert len(broker.log("memory budget reached")) == 1
        for client in clients[:-1]:  # the last one stays, behind all that is freed
            client.close()
        if not SANITIZED:
            wait_until(lambda: rss_bytes(broker) - before < 16 * MIB, "the system has it back")
        clients[-1].close()
        wait_until(lambda: broker.stats()["memory"]["used"] < KIB, "all is given back, but the bystander's empty queue")


def test_the_budget_cuts_the_fattest_of_those_that_take_nothing(name):
    """What each is sent is its own, so that cutting one gives its memory back."""
    with Broker(config=ROUTES, memory_budget="16MiB", outbox_limit="8MiB", stall_timeout="1h") as broker, \
            contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(broker.raw(f"/topics/{name}-{i}", rcvbuf=8192)) for i in range(6)]
        for i in range(3):
            publish(broker, f"{name}-{i}", 1.5)
        time.sleep(4)  # long enough that they count as taking nothing
        for i in range(3, 6):
            publish(broker, f"{name}-{i}", 5)
        wait_until(lambda: broker.counter("sessions_shed") > 0, "one is cut")
        assert broker.stats()["memory"]["used"] <= 16 * MIB
        offline = [line["session"] for line in broker.log("session offline", code=4008)]
        assert offline and len(offline) < 6
        assert {int(line["age_ms"]) >= 1000 for line in broker.log("slow reader cut")} == {True}
        del stalled


def test_a_large_message_to_many_stalled_readers_is_not_copied_for_each(name):
    """libwebsockets copies for each what its socket didn't take."""
    with Broker(config=ROUTES, memory_budget="16MiB", outbox_limit="8MiB", max_message="4MiB", send_buffer="32KiB") as broker:
        before = rss_bytes(broker)
        with several(broker, f"/topics/{name}", 60, rcvbuf=4096):
            publish(broker, name, 4, 4 * MIB - 100)
            wait_until(lambda: broker.counter("sessions_shed") > 0, "some are cut")
            assert broker.stats()["memory"]["used"] <= 16 * MIB
            assert SANITIZED or rss_bytes(broker) - before < 64 * MIB


def test_many_who_wait_for_the_same_messages_are_charged_once(name):
    with Broker(config=ROUTES, memory_budget="16MiB", outbox_limit="4MiB") as broker, \
            several(broker, f"/topics/{name}", 50, rcvbuf=8192) as dozing:
        publish(broker, name, 3)
        memory = broker.stats()["memory"]
        assert 2 * MIB < memory["outbox"] < 4 * MIB and broker.counter("sessions_shed") == 0
        for _ in range(48):
            for client in dozing:
                assert len(client.recv()) == 64 * KIB
        wait_until(lambda: broker.stats()["memory"]["used"] < 16 * KIB, "nothing is kept but empty queues")


def test_above_the_budget_newcomers_get_503():
    """What the storage has not answered can't be given back, but no more is taken in."""
    with RedisServer() as redis, \
            Broker(redis, config=ROUTES, memory_budget="1MiB", max_message="64KiB", outbox_limit="256KiB", inflight_total=100000, heartbeat="10s",
                   lease="30s", redis_timeout="20s") as broker, several(broker, "/users/u{}", 40) as senders:
        redis.signal(signal.SIGSTOP)
        try:
            for client in senders:
                for _ in range(200):  # in one piece each, so nothing of it is assembled
                    client.send("x" * 300)
            wait_until(lambda: broker.metrics()["switchboard_memory_used_bytes"] > MIB, "the budget is used up")
            with RawWs(broker.port, "/users/late") as late:
                assert late.status == 503 and b"later" in late.body and int(late.headers["retry-after"]) >= 1
            assert broker.metrics()["switchboard_connections_refused_memory_total"] == 1
            assert broker.metrics()["switchboard_memory_inflight_bytes"] < 3 * MIB
        finally:
            redis.signal(signal.SIGCONT)
        for client in senders:
            assert {len(client.recv()) for _ in range(200)} == {300}
        wait_until(lambda: broker.metrics()["switchboard_memory_inflight_bytes"] == 0, "all is answered")
        with broker.raw("/users/late") as late:
            assert late.status == 101


def test_metrics_tell_what_is_kept():
    with Broker(config=ROUTES, memory_budget="7MiB") as broker, broker.raw("/topics/a") as client:
        client.send_frame(b"x" * 3000, fin=False)
        wait_until(lambda: broker.stats()["memory"]["assembly"] >= 3000, "the piece is counted")
        metrics, memory = broker.metrics(), broker.stats()["memory"]
        assert metrics["switchboard_memory_budget_bytes"] == memory.pop("budget") == 7 * MIB
        assert metrics["switchboard_memory_used_bytes"] == memory.pop("used") == sum(memory.values())
        for kind, value in memory.items():
            assert metrics[f"switchboard_memory_{kind}_bytes"] == value


def test_a_reload_changes_the_limits(name):
    with Broker(config=ROUTES + "\n") as broker, broker.raw(f"/topics/{name}", rcvbuf=8192):
        publish(broker, name, 2)
        broker.configure("stall_timeout = 300ms\nmemory_budget = 9MiB\n" + ROUTES)
        broker.reload()
        broker.log_wait("slow reader cut", reason="stall_timeout")
        assert broker.stats()["memory"]["budget"] == 9 * MIB
