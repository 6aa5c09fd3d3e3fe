"""The API's port against callers that mean harm, or know no better: it stays up, small and honest, and always tells its health."""

import concurrent.futures
import contextlib
import json
import os
import resource
import socket
import time

import pytest

from lib import PATIENCE, Broker, RedisServer, WsClient, cpu_seconds, request, rss_bytes, wait_until

TOKEN = "correct-horse.battery_staple~1"


@pytest.fixture(scope="module")
def one():
    with Broker() as broker:
        yield broker


def dial(broker, data=b"", receive_buffer=None):
    caller = socket.socket()
    caller.settimeout(PATIENCE)
    if receive_buffer:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    caller.connect(("127.0.0.1", broker.api_port))
    caller.sendall(data)
    return caller


def read_all(caller):
    """What comes until the end; a reset is an end as well."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while got := caller.recv(65536):
            found += got
    return found


def answers(data):
    """The final answers in what came: (status, headers, body)."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if first.split()[1] == "100":
            continue
        length = int(headers["content-length"])
        assert len(data) >= length
        found.append((int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return found


def exchange(broker, data, half_close=False):
    with dial(broker, data) as caller:
        if half_close:
            caller.shutdown(socket.SHUT_WR)
        return answers(read_all(caller))


def check_problem(answer, status):
    assert answer[0] == status, answer
    assert answer[1]["content-type"] == "application/problem+json"
    assert json.loads(answer[2])["status"] == status


def get(path="/healthz", *fields, version="HTTP/1.1"):
    return "\r\n".join([f"GET {path} {version}", "Host: localhost", *fields, "", ""]).encode()


def post(path, body, *fields):
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields, "", ""])
    return head.encode() + body


def counter(broker, name):
    return broker.metrics()[f"switchboard_{name}"]


@contextlib.contextmanager
def mute(broker, name="mute"):
    """A session that is asked and does not answer by itself."""
    with broker.online(WsClient(broker.ws(f"/connect?session={name}"), subprotocols=["switchboard.json.v1"])) as client:
        client.recv()
        yield client


def ask_mute(broker, name="mute", *fields):
    return dial(broker, post(f"/v1/request/session:{name}?timeout=30s", b"?", *fields))


# ---- without descriptors

def test_callers_leave_descriptors_to_redis():
    with RedisServer() as redis, Broker(redis=redis, under=("prlimit", "--nofile=128:128")) as broker:
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(dial(broker))
            for path in ("/healthz", "/readyz"):
                assert request(broker.api_port, path).status == 200
            redis.restart()
            broker.ready()
            wait_until(lambda: request(broker.api_port, "/v1/stats").status == 200, "the silent ones make room")
            assert counter(broker, "api_connections") < 128
        assert not [line for line in broker.lines if "can't be accepted" in line]


def test_health_when_no_descriptor_is_left():
    with Broker() as broker, contextlib.ExitStack() as stack:
        used = max(int(name) for name in os.listdir(f"/proc/{broker.pid}/fd")) + 1
        hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (used, hard))
        for _ in range(40):
            stack.enter_context(dial(broker))
        lines, cpu, began = len(broker.lines), cpu_seconds(broker), time.monotonic()
        while time.monotonic() - began < 2:
            for path in ("/healthz", "/readyz"):
                assert request(broker.api_port, path).status == 200
            stack.enter_context(dial(broker))
        assert (cpu_seconds(broker) - cpu) / (time.monotonic() - began) < 0.7
        assert len(broker.lines) - lines < 10
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        wait_until(lambda: request(broker.api_port, "/v1/stats").status == 200, "all is served again")


# ---- the head decides

def peak_rss_bytes(broker):
    line = next(line for line in open(f"/proc/{broker.pid}/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_no_body_of_a_stranger_is_kept():
    body = b"x" * (16 << 20)

    def call(broker):
        with dial(broker) as caller:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                caller.sendall(post("/v1/batch", body))
            return read_all(caller)

    with Broker(api_token=TOKEN) as broker, concurrent.futures.ThreadPoolExecutor(16) as pool:
        before = rss_bytes(broker)
        for found in pool.map(call, [broker] * 64):
            # A caller that goes on writing for longer than anybody listens may lose the answer in a reset.
            if found:
                check_problem(answers(found)[0], 401)
        assert peak_rss_bytes(broker) - before < 48 << 20
        assert counter_of(broker, "api_memory_bytes") == 0


def counter_of(broker, name):
    text = request(broker.api_port, "/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"switchboard_{name} "))


def test_a_stranger_is_answered_before_his_body():
    with Broker(api_token=TOKEN) as broker:
        with dial(broker, b"POST /v1/send/user:x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n") as caller:
            found = answers(read_all(caller))
        check_problem(found[0], 401)
        assert len(found) == 1 and found[0][1]["connection"] == "close"
        # What follows is not taken for a request.
        with dial(broker, post("/v1/batch", get("/healthz"))) as caller:
            assert [status for status, _, _ in answers(read_all(caller))] == [401]


def test_a_body_that_is_too_large_is_not_waited_for(one):
    head = b"POST /v1/send/user:x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    for length in (1048577, 99999999999, 10 ** 25):
        found = exchange(one, head % length)
        check_problem(found[0], 413)
        assert len(found) == 1


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("localhost:8001", 200), ("LOCALHOST", 200), ("app.localhost:1", 200), ("127.0.0.1:8001", 200), ("127.9.9.9", 200),
    ("[::1]:8001", 200), ("192.0.2.7", 200), ("evil.example", 421), ("evil.example:8001", 421), ("localhost.evil.example", 421),
    ("evil-localhost", 421), ("127.0.0.1.evil.example", 421), ("localhost.", 421), ("[::1", 400), ("::1", 400), ("", 400), ("127.0.0.1:x", 400),
    ("2130706433", 421), ("0x7f.1", 421), ("user@localhost", 400), ("localhost/x", 400), ("localhost evil", 400)])
def test_whom_it_is_for(one, host, status):
    found = exchange(one, f"GET /v1/sessions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert found[0][0] == status
    if status != 200:
        check_problem(found[0], status)
    if status == 421:
        health = exchange(one, f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert health[0][0] == 200


def test_a_missing_host_is_for_health_alone():
    """HTTP/1.0 may leave it out, and then nothing tells for whom a request is."""
    for options in ({}, {"api_token": TOKEN}, {"api_hosts": "api.example"}):
        with Broker(**options) as broker:
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/v1/stats", 400), ("/metrics", 400), ("/nothing", 400)):
                data = f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
                found = exchange(broker, data)
                assert found[0][0] == status
                if status != 200:
                    check_problem(found[0], status)
            assert exchange(broker, f"GET /v1/stats HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())[0][0] == 200


def test_hosts_of_the_configuration():
    def status(broker, host, *fields):
        lines = [f"Host: {host}", *fields, "Connection: close"]
        return exchange(broker, ("GET /v1/topics HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())[0][0]

    bearer = f"Authorization: Bearer {TOKEN}"
    with Broker(api_hosts="api.example, other.example") as broker:
        assert [status(broker, host) for host in ("api.example", "OTHER.example:80", "third.example", "example")] == [200, 200, 421, 421]
    with Broker(api_token=TOKEN) as broker:
        assert [status(broker, "any.example", *fields) for fields in ([bearer], [])] == [200, 401]
    with Broker(api_token=TOKEN, api_hosts="api.example") as broker:
        assert [status(broker, host, bearer) for host in ("api.example", "any.example", "localhost")] == [200, 421, 200]


# ---- what could be read in two ways

SEND = b"POST /v1/send/user:x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("data, status", [
    (SEND + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (SEND + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    (SEND + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400), (SEND + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400),
    (SEND + b"Content-Length: 1, 1\r\n\r\nx", 400), (SEND + b"Content-Length: +1\r\n\r\nx", 400), (SEND + b"Content-Length: -1\r\n\r\n", 400),
    (SEND + b"Content-Length: 0x1\r\n\r\nx", 400), (SEND + b"Content-Length: 1 1\r\n\r\nx", 400), (SEND + b"Content-Length:\r\n\r\n", 400),
    (SEND + b"Content-Length : 1\r\n\r\nx", 400), (SEND + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (SEND + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501), (SEND + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (SEND + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501), (SEND + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (SEND.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400), (SEND + b"X: 1\r\n Content-Length: 1\r\n\r\nx", 400),
    (SEND + b"X: a\x00b\r\n\r\n", 400), (SEND + b"X: a\rb\r\n\r\n", 400), (SEND + b": x\r\n\r\n", 400), (SEND + b"X\r\n\r\n", 400),
    (SEND.replace(b"\r\n", b"\n") + b"\n", 400), (b"GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400), (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400), (b"GET /healthz  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b" GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400), (b"GET /healthz\r\n\r\n", 400), (b"GET /healthz HTTP/1.1 x\r\n\r\n", 400),
    (b"GET /health\x7fz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400), (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /healthz#x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400), (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    (b"GET /healthz HTTP/0.9\r\nHost: localhost\r\n\r\n", 505), (b"GET /healthz http/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400), (b"\r\n\r\n\r\n", 400),
    (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400), (b"GET http:///healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: a-miracle\r\n\r\n", 417),
    (b"GET /" + b"x" * 17000 + b" HTTP/1.1\r\n", 414), (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17000 + b"\r\n\r\n", 431),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400), (SEND + b"Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", 400), (SEND + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n", 400),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n", 400), (SEND + b"Transfer-Encoding: chunked\r\n\r\n1 x\r\nx\r\n0\r\n\r\n", 400),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\n100000000000000001\r\nx\r\n", 400), (SEND + b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\nx", 413),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2000 + b"\r\nx\r\n0\r\n\r\n", 400),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;xxxxxxxxxxxxxxxx\r\nx\r\n" * 1000 + b"0\r\n\r\n", 400),
    (SEND + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 4000 + b"\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 413),
    (b"GET /healthz HTTP/1.1\r\nHost: loc", 400), (SEND + b"Content-Length: 5\r\n\r\nx", 400)])
def test_what_could_be_read_in_two_ways(one, data, status):
    # Were the rest of it taken for a request, a second answer would come.
    found = exchange(one, data + (b"" if status == 400 and data.endswith((b"loc", b"\r\nx")) else get("/healthz")), half_close=True)
    check_problem(found[0], status)
    assert len(found) == 1 and found[0][1]["connection"] == "close"


def test_what_is_unusual_but_clear(one):
    for data, status in (
            (b"\r\n" + get("/healthz", "Connection: close"), 200), (get(version="HTTP/1.0"), 200), (get("/healthz", "Connection: close", version="HTTP/1.2"), 200), (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
            (b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
            (b"GET /healthz HTTP/1.1\r\nhOST:localhost\r\nX:\r\nY: \xff\xc3\r\nConnection: x, CLOSE\r\n\r\n", 200),
            (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
            (b"FOO /v1/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
            (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n", 404),
            (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n", 200)):
        found = exchange(one, data)
        assert [answer[0] for answer in found] == [status], data
        assert "date" in found[0][1]


def test_chunks(one):
    with mute(one, "chunked") as client:
        data = (b"POST /v1/send/session:chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\nContent-Type: text/plain\r\n\r\n"
                b"5;a=\"b\"\r\nhello\r\n0000001\r\n \r\nA \t;c\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n")
        with dial(one) as caller:
            # One byte a segment, and what comes behind it.
            for i in range(len(data)):
                caller.sendall(data[i:i + 1])
            caller.sendall(get("/healthz", "Connection: close"))
            found = answers(read_all(caller))
        assert [status for status, _, _ in found] == [200, 200]
        assert json.loads(client.recv())["text"] == "hello 0123456789"


def test_many_requests_in_one_segment(one):
    data = b"".join([get(), post("/v1/send/user:x", b"one"), get("/nowhere"), get("/readyz")] * 40) + get("/healthz", "Connection: close")
    found = exchange(one, data)
    assert [status for status, _, _ in found] == [200, 200, 404, 200] * 40 + [200]


def test_a_half_closed_caller_gets_all_its_answers(one):
    """Also those to requests that were read, but not begun, when the end came."""
    with mute(one, "first") as client:
        data = post("/v1/request/session:first?timeout=30s", b"?") + get() + post("/v1/send/user:x", b"x") + get("/v1/stats")
        with dial(one, data) as caller:
            caller.shutdown(socket.SHUT_WR)
            asked = json.loads(client.recv())["request"]
            client.send(json.dumps({"cmd": "reply", "request": asked, "text": "ok"}))
            assert [status for status, _, _ in answers(read_all(caller))] == [200] * 4


def test_head_is_get_without_a_body(one):
    with dial(one, get().replace(b"GET", b"HEAD") + get("/healthz", "Connection: close")) as caller:
        found = read_all(caller)
    assert found.count(b"HTTP/1.1 200") == 2 and found.count(b"Content-Length: 3") == 2 and found.count(b"\r\n\r\nok\n") == 1


def test_continue(one):
    with dial(one, b"POST /v1/send/user:x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n") as caller:
        assert caller.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(b"hi")
        assert answers(read_all(caller))[0][0] == 200


# ---- callers that say no more, or leave

@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_half_closed_caller_gets_its_answer(one, version):
    assert exchange(one, get("/healthz", version=version), half_close=True)[0][0] == 200
    assert exchange(one, get("/v1/stats", version=version), half_close=True)[0][0] == 200
    with mute(one, "later") as client:
        with dial(one, post("/v1/request/session:later?timeout=30s", b"?").replace(b"HTTP/1.1", version.encode())) as caller:
            caller.shutdown(socket.SHUT_WR)
            asked = json.loads(client.recv())["request"]
            time.sleep(0.2)  # nothing to await: that nothing is cancelled meanwhile
            client.send(json.dumps({"cmd": "reply", "request": asked, "text": "late, but there"}))
            assert answers(read_all(caller))[0][2] == b"late, but there"


@pytest.mark.parametrize("reset", [False, True])
def test_a_caller_that_leaves_cancels(one, reset):
    with mute(one, "left") as client:
        caller = ask_mute(one, "left")
        asked = json.loads(client.recv())["request"]
        if reset:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        caller.close()
        assert json.loads(client.recv()) == {"push": "cancel", "request": asked}
    wait_until(lambda: counter(one, "api_waiting") == 0, "nothing waits")


# ---- time

def test_who_is_slow():
    with Broker(api_timeout="300ms", api_idle_timeout="300ms") as broker:
        slow = {"head": [b"GET /healthz HT", b"TP/1.1\r\nHo"], "body": [SEND + b"Content-Length: 9\r\n\r\n", b"x"],
                "chunks": [SEND + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"]}
        for pieces in slow.values():
            with dial(broker, pieces[0]) as caller:
                began = time.monotonic()
                caller.settimeout(0.05)
                found = b""
                while not found and time.monotonic() - began < PATIENCE:
                    with contextlib.suppress(socket.timeout):
                        found = caller.recv(65536)
                    if not found:
                        caller.sendall(pieces[1])
                caller.settimeout(PATIENCE)
                check_problem(answers(found + read_all(caller))[0], 408)
        with dial(broker) as silent, dial(broker, get()) as idle:
            assert read_all(silent) == b"" and answers(read_all(idle))[0][0] == 200
        assert counter(broker, "api_slow_total") == 3


def test_who_does_not_take_the_answer():
    with Broker(api_timeout="500ms", read_size="16MiB") as broker:
        for _ in range(8):
            assert request(broker.api_port, "/v1/publish/big?store", "POST", body=b"x" * (1 << 20)).status == 200
        with dial(broker, get("/v1/topics/big/history"), receive_buffer=4096) as caller:
            wait_until(lambda: counter(broker, "api_memory_bytes") > 1 << 20, "the answer waits")
            wait_until(lambda: counter(broker, "api_slow_total") == 1, "the caller is cut")
            assert counter(broker, "api_memory_bytes") == 0
            assert len(read_all(caller)) < 8 << 20


# ---- number and memory

def test_health_is_told_when_all_are_at_work():
    with Broker(api_connections=4, api_limit=4) as broker, mute(broker) as client, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(ask_mute(broker)) for _ in range(4)]
        asked = [json.loads(client.recv())["request"] for _ in waiting]
        for path in ("/healthz", "/readyz") * 20:
            assert request(broker.api_port, path).status == 200
        answer = request(broker.api_port, "/v1/stats")
        assert (answer.status, answer.json["name"]) == (503, "limit") and answer.headers["Retry-After"]
        # Those who fill what is left, silently, don't keep it.
        for _ in range(100):
            stack.enter_context(dial(broker))
        for path in ("/healthz", "/readyz") * 20:
            assert request(broker.api_port, path).status == 200
        for one, caller in zip(asked, waiting):
            client.send(json.dumps({"cmd": "reply", "request": one, "text": "ok"}))
            assert answers(caller.recv(65536))[0][2] == b"ok"
        wait_until(lambda: request(broker.api_port, "/v1/stats").status == 200, "there is room again")
        assert counter(broker, "api_connections_surplus_total") > 100
        assert len([line for line in broker.lines if "all taken" in line]) == 1


def test_readyz_is_never_behind_others():
    with Broker(api_limit=1) as broker, mute(broker) as client, ask_mute(broker):
        client.recv()
        assert request(broker.api_port, "/v1/stats").status == 429
        for _ in range(5):
            assert request(broker.api_port, "/readyz").status == 200


def test_the_idle_make_room():
    with Broker(api_connections=4) as broker, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(dial(broker, get())) for _ in range(8)]
        for caller in idle[-4:]:
            assert caller.recv(65536).startswith(b"HTTP/1.1 200")
        assert request(broker.api_port, "/v1/stats").status == 200
        assert counter(broker, "api_connections_displaced_total") >= 5
        assert counter(broker, "api_connections_surplus_total") == 0
        # Silent ones, and those that never come to the end of a head, make room after a moment.
        for data in (b"", b"GET /healthz HT"):
            held = [stack.enter_context(dial(broker, data)) for _ in range(4)]
            wait_until(lambda: request(broker.api_port, "/v1/stats").status == 200, "there is room")
            for caller in held:
                caller.close()


def test_bodies_together_are_bounded():
    head = b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n"
    with Broker(api_memory="1MiB") as broker, contextlib.ExitStack() as stack:
        found = []
        for _ in range(4):
            caller = stack.enter_context(dial(broker, head))
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                caller.sendall(b" " * 8388000)
            found.append(caller)
            wait_until(lambda: counter(broker, "api_memory_bytes") >= min(len(found), 2) * (8 << 20), "it is there")
            assert counter(broker, "api_memory_bytes") <= 16 << 20
        for caller in found[2:]:
            check_problem(answers(read_all(caller))[0], 429)
        found[0].sendall(b" " * 608)
        assert found[0].recv(100).startswith(b"HTTP/1.1 200")


def test_a_reload_changes_the_limits():
    def status(host):
        return request(broker.api_port, "/v1/topics", headers={"Host": host}).status

    with Broker(config="api_hosts = a.example\n") as broker, contextlib.ExitStack() as stack:
        assert [status(host) for host in ("a.example", "b.example")] == [200, 421]
        broker.configure("api_hosts = b.example\napi_connections = 2\napi_idle_timeout = 100ms\n")
        broker.reload()
        wait_until(lambda: [status(host) for host in ("a.example", "b.example")] == [421, 200], "the new names count")
        with dial(broker) as silent:
            assert read_all(silent) == b""
        for _ in range(3):
            stack.enter_context(dial(broker, b"GET "))
        assert status("b.example") == 503
