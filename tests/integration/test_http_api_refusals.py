"""What the HTTP API refuses: malformed requests, strangers, too much at once; and what it says while Redis is gone."""

import concurrent.futures
import json
import socket
import subprocess

import pytest

from lib import BINARY, PATIENCE, Broker, Cluster, WsClient, request, wait_until

from test_http_api import ask, post, problem

TOKEN = "correct-horse.battery_staple~1"


@pytest.fixture(scope="module")
def one():
    with Broker() as broker:
        yield broker


@pytest.mark.parametrize("method, path", [
    ("GET", "/v1/sessions/%zz"), ("GET", "/v1/sessions/%4"), ("GET", "/v1/sessions/%FF"), ("GET", "/v1/sessions/a%00b"),
    ("GET", "/v1/sessions/" + "x" * 256), ("GET", "/v1/users/" + "%C3%BC" * 200), ("GET", "/v1/sessions?limit=0"),
    ("GET", "/v1/sessions?limit=1001"), ("GET", "/v1/sessions?limit=-1"), ("GET", "/v1/sessions?limit="), ("GET", "/v1/sessions?limit=1&limit=2"),
    ("GET", "/v1/sessions?unknown=1"), ("GET", "/v1/stats?unknown=1"), ("GET", "/v1/stats?pretty"), ("GET", "/v1/sessions?user=%zz"), ("GET", "/v1/sessions?cursor=xyz"), ("GET", "/v1/sessions?user="),
    ("GET", "/v1/topics/a.*/history"), ("GET", "/v1/topics/x/history?reverse=maybe"), ("GET", "/v1/history/nobody"),
    ("GET", "/v1/history/instance:b1"), ("POST", "/v1/send/nobody"), ("POST", "/v1/send/instance:b1"), ("POST", "/v1/send/session:"),
    ("POST", "/v1/publish/orders.>"), ("POST", "/v1/send/user:x?ttl=5s"), ("POST", "/v1/send/user:x?store&ttl=0"),
    ("POST", "/v1/send/user:x?store&ttl=5d"), ("POST", "/v1/send/user:x?store=perhaps"), ("POST", "/v1/request/session:x?timeout=0"),
    ("POST", "/v1/request/session:x?timeout=6m"), ("POST", "/v1/request/session:x?timeout=99999999999999999999")])
def test_what_is_malformed(one, method, path):
    problem(ask(one, path, method), 400, "bad_request")


def test_what_monitors_add_is_ignored(one):
    """Scrapers and balancers have parameters of their own, which can't always be left out."""
    for path in ("/metrics", "/healthz", "/readyz"):
        assert ask(one, path + "?from=elsewhere").status == 200


def test_bodies_that_are_not_what_they_say(one):
    for body, kind in ((b"\xff", "text/plain"), (b"{", "application/json"), (b"", "application/json"), (b'{"a":1}{}', "application/ld+json"),
                       (b"[" * 40 + b"]" * 40, "application/json"), (b'{"a":1,"a":2}', "application/json")):
        problem(post(one, "/v1/send/user:x", body, Content_Type=kind), 400, "bad_request")
    problem(post(one, "/v1/send/user:x", "x", Idempotency_Key="x" * 65), 400, "bad_request")


def test_bodies_that_are_too_large():
    with Broker(max_message="64KiB") as broker:
        assert post(broker, "/v1/send/user:x", b"x" * 65536).status == 200
        problem(post(broker, "/v1/send/user:x", b"x" * 65537), 413, "too_large")
        problem(post(broker, "/v1/request/user:x", b"x" * 1000000), 413, "too_large")


@pytest.mark.parametrize("method, path, allow", [
    ("PUT", "/v1/sessions/x", "GET, HEAD, DELETE"), ("POST", "/v1/sessions", "GET, HEAD"), ("GET", "/v1/send/user:x", "POST"),
    ("OPTIONS", "/v1/batch", "POST"), ("PATCH", "/metrics", "GET, HEAD"), ("DELETE", "/v1/topics", "GET, HEAD"), ("TRACE", "/readyz", "GET, HEAD")])
def test_other_methods(one, method, path, allow):
    answer = ask(one, path, method)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/sessions/", "/v1/sessions/a/b", "/v1/topics/x", "/v1/send/", "/V1/stats", "/v2/stats",
                                  "//v1/stats", "/v1/instances/x/drain/y"])
def test_no_such_path(one, path):
    for method in ("GET", "POST", "DELETE"):
        problem(ask(one, path, method), 404, "not_found")


def test_a_web_page_changes_nothing(one):
    for method, path in (("POST", "/v1/send/user:x"), ("DELETE", "/v1/sessions/x"), ("POST", "/v1/batch")):
        problem(ask(one, path, method, headers={"Origin": "http://evil.example"}), 403, "forbidden")
    assert ask(one, "/v1/sessions", headers={"Origin": "http://evil.example"}).status == 200


# ---- the token

def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_the_token():
    with Broker(api_token=TOKEN, wait=True) as broker:
        for path in ("/healthz", "/readyz"):
            assert ask(broker, path).status == 200
        for path in ("/metrics", "/v1/stats", "/v1/sessions", "/nowhere"):
            for headers in ({}, bearer(""), bearer("wrong"), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), {"Authorization": TOKEN},
                            {"Authorization": f"Basic {TOKEN}"}):
                answer = request(broker.api_port, path, headers=headers)
                problem(answer, 401, "unauthorized")
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for scheme in ("Bearer", "bearer"):
            assert ask(broker, "/v1/stats", headers={"Authorization": f"{scheme} {TOKEN}"}).status == 200
        assert ask(broker, "/metrics", headers=bearer(TOKEN)).status == 200
        problem(ask(broker, "/nowhere", headers=bearer(TOKEN)), 404, "not_found")
        page = {**bearer(TOKEN), "Origin": "http://console.example"}
        assert ask(broker, "/v1/send/user:x", "POST", body="x", headers=page).status == 200
        assert not any(TOKEN in line for line in broker.lines)


def run(*args, **env):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, env=env, timeout=PATIENCE)


def test_the_token_is_not_shown():
    for done in (run("--print-config", "--api-token", TOKEN), run("--print-config", SWITCHBOARD_API_TOKEN=TOKEN)):
        assert done.returncode == 0
        assert "api_token = ***" in done.stdout and TOKEN not in done.stdout + done.stderr
    refused = run("--check-config", "--api-token", "***")
    assert refused.returncode == 2 and "--api-token" in refused.stderr
    for refused in (run("--check-config", "--api-token", "my secret"), run("--check-config", "--api-token=my secret"),
                    run("--check-config", SWITCHBOARD_API_TOKEN="my secret")):
        assert refused.returncode == 2 and "8 to 256" in refused.stderr and "my secret" not in refused.stderr


def test_the_token_opens_the_api_to_others(tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    assert run("--check-config", "--api", "0.0.0.0:8001").returncode == 2
    assert run("--check-config", "--api", "0.0.0.0:8001", "--api-token", TOKEN).returncode == 0
    assert run("--check-config", "--api", "0.0.0.0:8001", "--api-token-file", str(secret)).returncode == 0
    assert run("--check-config", "--listen", "0.0.0.0:8000", "--api-token", TOKEN).returncode == 2
    both = run("--check-config", "--api-token", TOKEN, "--api-token-file", str(secret))
    assert both.returncode == 2 and "contradict" in both.stderr and TOKEN not in both.stderr
    secret.write_text("short")
    bad = run("--check-config", "--api-token-file", str(secret))
    assert bad.returncode == 2 and "8 to 256" in bad.stderr and "short" not in bad.stderr
    assert run("--check-config", "--api-token-file", str(tmp_path / "none")).returncode == 2


def test_a_reload_changes_the_token(tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    with Broker(args=["--api-token-file", str(secret)]) as broker:
        assert ask(broker, "/v1/topics", headers=bearer(TOKEN)).status == 200
        secret.write_text("another-token")
        broker.reload()
        wait_until(lambda: ask(broker, "/v1/topics", headers=bearer("another-token")).status == 200, "the new token counts")
        assert ask(broker, "/v1/topics", headers=bearer(TOKEN)).status == 401


# ---- too much, and nothing to ask

def test_only_so_many_wait():
    with Broker(api_limit=2) as broker, concurrent.futures.ThreadPoolExecutor(2) as pool:
        with broker.online(WsClient(broker.ws("/connect?session=busy"), subprotocols=["switchboard.json.v1"])) as client:
            assert json.loads(client.recv())["push"] == "hello"
            waiting = [pool.submit(post, broker, "/v1/request/session:busy?timeout=1m", "?") for _ in range(2)]
            asked = [json.loads(client.recv())["request"] for _ in range(2)]
            answer = post(broker, "/v1/send/user:x", "x")
            problem(answer, 429, "limit")
            assert answer.headers["Retry-After"]
            assert ask(broker, "/healthz").status == 200
            client.send(*(json.dumps({"cmd": "reply", "request": one, "text": "ok"}) for one in asked))
            assert [one.result(PATIENCE).body for one in waiting] == [b"ok", b"ok"]
            assert post(broker, "/v1/send/user:x", "x").status == 200


def test_without_redis_everything_says_so():
    with Cluster(1) as cluster:
        broker = cluster[0]
        cluster.redis.kill()
        broker.unready()
        for method, path in (("GET", "/v1/sessions"), ("GET", "/v1/sessions/x"), ("GET", "/v1/users/x"), ("GET", "/v1/topics"),
                             ("GET", "/v1/topics/x/presence"), ("GET", "/v1/topics/x/history"), ("GET", "/v1/instances"),
                             ("POST", "/v1/send/user:x"), ("POST", "/v1/send/user:x?store"), ("POST", "/v1/request/user:x"),
                             ("DELETE", "/v1/sessions/x"), ("POST", "/v1/instances/x/drain"), ("GET", "/v1/sessions?user=x")):
            answer = ask(broker, path, method)
            problem(answer, 503, "unavailable")
            assert answer.headers["Retry-After"]
        found = post(broker, "/v1/batch", b'{"id":1,"cmd":"send","to":"user:x"}\n{"id":2,"cmd":"request","to":"user:x"}')
        assert [json.loads(line)["error"]["name"] for line in found.text.splitlines()] == ["unavailable"] * 2
        assert ask(broker, "/v1/stats").json["online"] is None


def test_a_broker_ends_while_requests_wait():
    with Broker() as broker, concurrent.futures.ThreadPoolExecutor(2) as pool:
        with broker.online(WsClient(broker.ws("/connect?session=mute"), subprotocols=["switchboard.json.v1"])) as client:
            client.recv()
            lines = b'{"cmd":"request","to":"session:mute"}\n' * 300
            waiting = [pool.submit(request, broker.api_port, "/v1/request/session:mute?timeout=1m", "POST", body=b"?"),
                       pool.submit(request, broker.api_port, "/v1/batch", "POST", body=lines)]
            for _ in range(2):
                client.recv()
            broker.stop()
        for one in waiting:
            one.exception(PATIENCE)


def test_requests_that_are_no_http(one):
    for text in (b"\r\n\r\n", b"GET\r\n\r\n", b"POST /v1/batch HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                 b"POST /v1/send/user:x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"FOO /v1/stats HTTP/1.1\r\n\r\n",
                 b"GET /v1/stats?\x01=\xff HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", one.api_port), timeout=PATIENCE) as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert ask(one, "/healthz").status == 200
