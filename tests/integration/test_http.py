"""Plain HTTP: the page on the clients' port, clear refusals, and the API's own port."""

import re
from urllib.parse import urljoin

import pytest

from lib import Broker, RawWs, request

SECURITY = ("content-security-policy", "x-content-type-options", "referrer-policy")


@pytest.fixture(scope="module")
def one():
    with Broker() as broker:
        yield broker


def assets(one):
    page = one.request("/").text
    return [urljoin("/", path) for path in re.findall(r'(?:src|href)="([^"#:]+)"', page)]


def test_the_page(one):
    page = one.request("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert int(page.headers["Content-Length"]) == len(page.body)
    assert b"<html" in page.body
    for name in SECURITY:
        assert page.headers[name], name
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_everything_that_the_page_asks_for_is_there(one):
    found = assets(one)
    assert found
    for path in found:
        answer = one.request(path if path.startswith("/") else "/" + path)
        assert answer.status == 200, path
        assert answer.body
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_asks_for_nothing_elsewhere(one):
    for path in ["/", *assets(one)]:
        text = one.request(path if path.startswith("/") else "/" + path).text
        assert not re.search(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", text)
        assert not re.search(r"""\b(?:fetch|import)\s*\(\s*["'`]https?:""", text)


def test_a_known_page_is_304(one):
    for path in ["/", *("/" + path.lstrip("/") for path in assets(one))]:
        tag = one.request(path).headers["ETag"]
        assert re.fullmatch(r'"[^"]+"', tag)
        for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again = one.request(path, headers={"If-None-Match": known})
            assert (again.status, again.body) == (304, b""), known
            assert again.headers["ETag"] == tag
        assert one.request(path, headers={"If-None-Match": '"another"'}).status == 200


def test_head_is_get_without_a_body(one):
    full, head = one.request("/"), one.request("/", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag"):
        assert head.headers[name] == full.headers[name]


@pytest.mark.parametrize("path, status", [
    ("/nowhere", 404), ("/websocket", 404), ("/websocket/", 400), ("/websocket/a/1/2", 404), ("/index.htm", 404),
    ("/../etc/passwd", 404), ("/websocket/a/b", 400), ("/websocket/a/007", 400), ("/websocket/%FF", 400),
    ("/websocket/a", 426), ("/websocket/a/1", 426), ("/WebSocketTest/websocket/admin", 426), ("/topics/news", 426), ("/echo", 426),
    ("//testWebsocket/websocket/userSever/8080", 426)])
def test_what_is_no_page(one, path, status):
    for method in ("GET", "HEAD"):
        answer = one.request(path, method=method)
        assert answer.status == status, method
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert bool(answer.body) == (method == "GET")
        if status == 426:
            assert answer.headers["Upgrade"].lower() == "websocket"


@pytest.mark.parametrize("path, status", [("/nowhere", 404), ("/", 404), ("/websocket/a/b", 400), ("/websocket/a/007", 400)])
def test_refused_upgrades_say_why(one, path, status):
    with RawWs(one.port, path) as client:
        assert client.status == status
        assert client.body and client.headers["content-type"].startswith("text/plain")
        client.recv_eof()


def test_another_websocket_version_is_426(one):
    with RawWs(one.port, "/echo", headers={"Sec-WebSocket-Version": "8"}) as client:
        assert client.status == 426
        assert client.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_405(one, method):
    answer = one.request("/", method=method)
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path, status", [("/", 200), ("/nowhere", 404), ("/echo", 426)])
def test_a_connection_is_for_one_request(one, path, status):
    with RawWs(one.port, path, handshake=False) as client:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        client.send_bytes(request + client.request_bytes())
        assert client.read_response() == status
        assert client.headers["connection"] == "close"
        client.recv_eof()


def test_queries_change_nothing(one):
    assert one.request("/?x=1").status == 200
    with RawWs(one.port, "/websocket/admin?token=a/b&c=%41") as client:
        client.send("hi")
        assert client.recv() == "admin:hi"


# ---- the API's port


def test_health(one):
    for path in ("/healthz", "/readyz"):
        answer = one.api(path, expect=None)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")


def test_stats(one):
    with one.connect("/websocket/bob"):
        stats = one.stats()
        assert stats["instance"] == one.instance
        assert stats["online"] == stats["sessions"] == 1
        assert stats["storage"] == {"name": "memory", "up": True}
        assert stats["draining"] is False
        assert stats["uptime_ms"] >= 0 and stats["started_at"].endswith("Z") and stats["version"]
        assert all(isinstance(value, int) for value in stats["counters"].values())


def test_metrics_are_prometheus_text(one):
    answer = one.api("/metrics", expect=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    described, typed, shown = set(), set(), []
    for line in answer.text.splitlines():
        if line.startswith("# HELP "):
            described.add(line.split()[2])
        elif line.startswith("# TYPE "):
            typed.add(line.split()[2])
            assert line.split()[3] in ("counter", "gauge", "histogram")
        else:
            name, value = re.fullmatch(r"(\w+)(?:\{[^}]*\})? ([0-9.e+-]+)", line).groups()
            float(value)
            shown.append(re.sub(r"_(bucket|sum|count)$", "", name) if name not in typed else name)
    assert set(shown) == described == typed
    assert all(name.startswith("switchboard_") for name in shown)
    assert all(name.endswith("_total") == (f"# TYPE {name} counter" in answer.text) for name in shown)


def test_what_the_api_does_not_serve(one):
    assert one.api("/nowhere", expect=None).status == 404
    assert one.api("/", expect=None).status == 404
    for method in ("POST", "DELETE"):
        answer = one.api("/v1/stats", method=method, expect=None)
        assert answer.status == 405 and "GET" in answer.headers["Allow"]
    head = one.api("/healthz", method="HEAD", expect=None)
    assert (head.status, head.body) == (200, b"")


def test_the_two_ports_do_not_mix(one):
    assert one.request("/v1/stats").status == 404
    assert one.request("/metrics").status == 404
    with RawWs(one.api_port, "/echo") as client:
        assert client.status == 404


def test_the_api_can_be_switched_off():
    with Broker(args=["--api", "off"], wait=False) as broker:
        broker.log_wait("started", api="off")
        with pytest.raises(OSError):
            request(broker.api_port, "/healthz")
        with broker.connect("/echo") as client:
            client.send("hi")
            assert client.recv() == "hi"


def test_the_log_shows_no_message_and_one_line_an_event(one):
    secret = "a secret that nobody logs"
    with one.connect("/websocket/eve") as client, one.connect("/websocket/eve/1") as keyed:
        client.send(secret)
        keyed.send(secret)
        client.recv(), keyed.recv()
    assert not any("secret" in line for line in one.lines)
    assert all(re.match(r"time=\S+ level=(error|warn|info|debug) ", line) for line in one.lines)


def test_json_log():
    with Broker(log_format="json") as broker:
        with broker.connect("/websocket/%22quo%5Cted%22") as client:
            client.ping()
        line = broker.log_wait("session offline")
        assert line["session"].startswith('"quo\\ted"~')
        assert all(line.startswith("{") and line.endswith("}") for line in broker.lines)
