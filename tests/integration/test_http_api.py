"""The HTTP API against brokers on one Redis: messages, requests, lists and orders, whichever broker is asked; every answer is
checked against docs/openapi.yaml."""

import concurrent.futures
import json
import re
import socket
import subprocess
from urllib.parse import quote

import pytest
import yaml
from jsonschema import Draft202012Validator

from lib import PATIENCE, ROOT, Closed, Cluster, WsClient, request, wait_until

DOCUMENT = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
STRUCTURED = {"subprotocols": ["switchboard.json.v1"]}


# ---- the document

def operation(method, path):
    """The operation of a path as asked for, and its pattern."""
    method = "get" if method == "HEAD" else method.lower()
    for pattern, item in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path.partition("?")[0]) and method in item:
            return item[method]
    return None


def resolve(value):
    while "$ref" in value:
        target = DOCUMENT
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def validate(value, schema):
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def check(method, path, answer):
    """The answer is one that the document knows for this operation."""
    found = operation(method, path)
    if found is None:
        assert answer.status in (404, 405)
        validate(answer.json, {"$ref": "#/components/schemas/Problem"})
        return
    responses = found["responses"]
    described = resolve(responses.get(str(answer.status)) or responses["default"])
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert kind in described["content"], f"{method} {path}: {answer.status} with {kind}"
    content = described["content"][kind]
    if method == "HEAD":
        return
    if "x-line" in content:
        for line in answer.text.splitlines():
            validate(json.loads(line), content["x-line"])
    elif kind.endswith("json") and content.get("schema", True) is not True:
        assert answer.text.endswith("}\n")
        validate(answer.json, content["schema"])
        if kind == "application/problem+json":
            assert answer.json["status"] == answer.json["code"] == answer.status


def ask(broker, path, method="GET", **options):
    answer = request(broker.api_port, path, method, **options)
    check(method, path, answer)
    return answer


def post(broker, path, body="", **headers):
    return ask(broker, path, "POST", body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def problem(answer, status, name):
    assert (answer.status, answer.json["name"]) == (status, name), answer
    return answer.json


def table():
    """(method, path, its query's parameters, whether it is open) of each row of the broker's table."""
    source = (ROOT / "broker/api_dispatch.c").read_text()
    rows = re.findall(r'\{METHOD_(\w+),\s+"([^"]+)",\s+\w+,\s+(NULL|"[^"]*"),\s+(true|false),\s+\w+\}', source)
    assert len(rows) == len(re.findall(r"\bapi_serve_\w+", source))
    return rows


def test_the_document_is_the_table():
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item
                 if method in ("get", "post", "put", "delete", "patch")}
    assert described == {(method, path) for method, path, _, _ in table()}


def test_the_document_knows_the_parameters_of_the_table():
    for method, path, query, is_open in table():
        item = DOCUMENT["paths"][path]
        found = item[method.lower()]
        parameters = [resolve(one) for one in [*item.get("parameters", []), *found.get("parameters", [])]]
        assert {one["name"] for one in parameters if one["in"] == "query"} == set(query.strip('"').replace("NULL", "").split())
        assert [one["name"] for one in parameters if one["in"] == "path"] == re.findall(r"\{(\w+)\}", path)
        assert (found.get("security") == [{}]) == (is_open == "true"), path


def test_the_document_is_sound():
    for reference in re.findall(r'\$ref: "([^"]+)"', (ROOT / "docs/openapi.yaml").read_text()):
        assert resolve({"$ref": reference})
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


# ---- brokers and clients

@pytest.fixture(scope="module")
def cluster():
    with Cluster(2) as two:
        yield two


class Client:
    """A JSON client; `answer`, given the question, says what it replies."""

    def __init__(self, broker, query):
        self.ws = broker.online(WsClient(broker.ws("/connect" + query), **STRUCTURED))
        self.hello = json.loads(self.ws.recv())

    def recv(self):
        return json.loads(self.ws.recv())

    def command(self, **command):
        """The reply; pushes that come before it are lost."""
        self.ws.send(json.dumps({"id": 1, **command}))
        while True:
            frame = self.recv()
            if frame.get("id") == 1:
                return frame

    def request(self):
        frame = self.recv()
        assert frame["push"] == "request"
        return frame

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.ws.__exit__(*failure)


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        yield threads


# ---- sending

def test_sending_from_any_broker(cluster):
    with Client(cluster[0], "?session=target") as client:
        for broker in cluster:
            for body, kind, expected in (
                    ("plain", "text/plain", {"text": "plain"}), ("schön", "application/x-www-form-urlencoded", {"text": "schön"}),
                    ('{"a": [1, 2]}', "application/json", {"data": {"a": [1, 2]}}), (b"\xff\x00", "image/png", {"binary": "/wA="}),
                    (b"\xff", "application/x-www-form-urlencoded", {"binary": "/w=="}), ("", "text/plain", {"text": ""})):
                body = body.encode() if isinstance(body, str) else body
                answer = post(broker, "/v1/send/session:target", body, Content_Type=kind)
                assert (answer.status, answer.json) == (200, {"receipt": "delivered"})
                message = client.recv()
                assert message["to"] == "session:target" and "from" not in message
                assert {key: message[key] for key in expected} == expected


def test_nobody_is_absent(cluster):
    assert post(cluster[0], "/v1/send/session:nobody", "x").json == {"receipt": "absent"}
    assert post(cluster[0], "/v1/publish/nothing", "x").json == {"receipt": "absent"}


def test_names_are_percent_encoded(cluster):
    name = "a/b ü%{}?#&=+"
    with Client(cluster[1], "?session=" + quote(name, safe="")):
        path = "/v1/sessions/" + quote(name, safe="")
        assert ask(cluster[0], path).json["session"] == name
        assert post(cluster[0], "/v1/send/session:" + quote(name, safe=""), "x").json == {"receipt": "delivered"}
        assert ask(cluster[0], "/v1/history/session:" + quote(name, safe="")).json == {"messages": []}


def test_storing_and_history(cluster):
    first = post(cluster[0], "/v1/publish/stored?store=true&ttl=60s", "one").json
    assert first["receipt"] == "stored"
    second = post(cluster[1], "/v1/send/topic:stored?store", '{"n":2}', Content_Type="application/json").json
    assert second["epoch"] == first["epoch"] != ""
    history = ask(cluster[1], "/v1/topics/stored/history").json
    assert [one.get("text", one.get("data")) for one in history["messages"]] == ["one", {"n": 2}]
    assert (history["epoch"], history["offset"]) == (second["epoch"], second["offset"])
    assert "cursor" not in history and "recovered" not in history
    page = ask(cluster[0], "/v1/history/topic:stored?limit=1").json
    assert [one["offset"] for one in page["messages"]] == [first["offset"]]
    rest = ask(cluster[0], f"/v1/history/topic:stored?since={page['cursor']}&epoch={first['epoch']}").json
    assert rest["recovered"] is True
    assert [one["offset"] for one in rest["messages"]] == [second["offset"]]
    assert ask(cluster[0], f"/v1/history/topic:stored?since={first['offset']}&epoch=other").json["recovered"] is False
    newest = ask(cluster[0], "/v1/history/topic:stored?reverse=true&limit=1").json["messages"]
    assert [one["offset"] for one in newest] == [second["offset"]]
    problem(ask(cluster[0], "/v1/history/topic:stored?since=nonsense"), 400, "bad_request")


def test_an_idempotency_key_delivers_once(cluster):
    with Client(cluster[0], "?session=once") as client:
        answers = [post(broker, "/v1/send/session:once", "first", Idempotency_Key="k1").json for broker in cluster]
        assert answers == [{"receipt": "delivered"}] * 2
        assert post(cluster[0], "/v1/send/session:once", "last", Idempotency_Key="k2").json["receipt"] == "delivered"
        assert [client.recv()["text"] for _ in range(2)] == ["first", "last"]


# ---- asking

def test_the_reply_is_the_response(cluster, pool):
    with Client(cluster[0], "?session=userSever_8080") as client:
        for reply, kind, body in ((dict(text="ja, schön"), "text/plain; charset=utf-8", "ja, schön".encode()),
                                  (dict(data={"a": [1]}), "application/json", b'{"a":[1]}'),
                                  (dict(binary="/wA="), "application/octet-stream", b"\xff\x00"),
                                  (dict(), "text/plain; charset=utf-8", b"")):
            for broker in cluster:
                waiting = pool.submit(post, broker, "/v1/request/session:userSever_8080", "question")
                asked = client.request()
                assert (asked["text"], asked["timeout"]) == ("question", 5000) and "from" not in asked
                assert client.command(cmd="reply", request=asked["request"], **reply)["ok"] == {}
                answer = waiting.result(PATIENCE)
                assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, kind, body)


def test_what_can_go_wrong_with_a_request(cluster, pool):
    problem(post(cluster[0], "/v1/request/session:nobody", "?"), 404, "absent")
    problem(post(cluster[0], "/v1/request/user:nobody", "?"), 404, "absent")
    problem(post(cluster[0], "/v1/request/topic:news", "?"), 400, "bad_request")
    with Client(cluster[0], "?session=slow") as client:
        problem(post(cluster[1], "/v1/request/session:slow?timeout=50ms", "?"), 504, "timeout")
        assert client.request()["timeout"] == 50
        assert client.recv()["push"] == "cancel"
        waiting = pool.submit(post, cluster[1], "/v1/request/session:slow", "?")
        client.command(cmd="reply", request=client.request()["request"], refuse="not \"today\"")
        assert problem(waiting.result(PATIENCE), 422, "refused")["detail"] == 'not "today"'
        waiting = pool.submit(post, cluster[1], "/v1/request/session:slow?timeout=1m", "?")
        client.request()
    problem(waiting.result(PATIENCE), 410, "gone")


def test_a_user_answers_by_the_first(cluster, pool):
    with Client(cluster[0], "?user=many") as one, Client(cluster[1], "?user=many") as two:
        waiting = pool.submit(post, cluster[0], "/v1/request/user:many", "?")
        one.request()
        two.command(cmd="reply", request=two.request()["request"], text="two")
        assert waiting.result(PATIENCE).body == b"two"
        assert one.recv()["push"] == "cancel"


def test_a_caller_that_hangs_up_cancels(cluster):
    with Client(cluster[0], "?session=patient") as client:
        with socket.create_connection(("127.0.0.1", cluster[1].api_port)) as caller:
            caller.sendall(b"POST /v1/request/session:patient?timeout=5m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n?")
            asked = client.request()
        assert client.recv() == {"push": "cancel", "request": asked["request"]}
        assert "error" in client.command(cmd="reply", request=asked["request"], text="late")
        wait_until(lambda: cluster[1].metrics()["switchboard_api_waiting"] == 0, "nothing waits any more")
        assert cluster[1].metrics()["switchboard_requests_waiting"] == 0


def test_curl_prints_the_answer(cluster, pool):
    with Client(cluster[0], "?session=curled") as client:
        waiting = pool.submit(subprocess.run, ["curl", "-s", "-d", "question",
                                               f"127.0.0.1:{cluster[1].api_port}/v1/request/session:curled"], capture_output=True)
        asked = client.request()
        assert asked["text"] == "question"
        client.command(cmd="reply", request=asked["request"], text="answer")
        assert waiting.result(PATIENCE).stdout == b"answer"


# ---- batches

def batch(broker, *lines):
    answer = post(broker, "/v1/batch", "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode())
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_batch_answers_in_order(cluster, pool):
    with Client(cluster[0], "?session=batched") as client:
        waiting = pool.submit(batch, cluster[1], {"id": 1, "cmd": "request", "to": "session:batched", "text": "?"},
                              {"id": 2, "cmd": "send", "to": "session:batched", "data": {"n": 1}}, "",
                              {"cmd": "publish", "topic": "b", "text": "x", "store": True, "ttl": 1000}, "nonsense",
                              {"id": 5, "cmd": "dance"}, {"id": 6, "cmd": "send"}, {"id": 7, "cmd": "send", "to": "nobody"},
                              {"id": 8, "cmd": "request", "to": "session:nobody"}, '{"id":9,"cmd":"send","to":"user:x"} {}')
        asked = client.request()
        assert client.recv()["data"] == {"n": 1}
        client.command(cmd="reply", request=asked["request"], text="!")
        found = waiting.result(PATIENCE)
        assert [one.get("id") for one in found] == [1, 2, None, None, 5, 6, 7, 8, 9]
        assert found[0]["ok"] == {"from": "session:batched", "text": "!"}
        assert found[1]["ok"] == {"receipt": "delivered"}
        assert found[2]["ok"]["receipt"] == "stored"
        assert [one["error"]["name"] for one in found[3:]] == ["bad_request", "unknown_command", "bad_request", "bad_request",
                                                              "absent", "bad_request"]


def test_a_large_batch_keeps_the_order(cluster):
    with Client(cluster[0], "?session=ordered") as client:
        count = 2000
        found = batch(cluster[1], *({"id": n, "cmd": "send", "to": "session:ordered", "text": str(n)} for n in range(1, count + 1)))
        assert [one["id"] for one in found] == list(range(1, count + 1))
        assert all(one["ok"] == {"receipt": "delivered"} for one in found)
        assert [client.recv()["text"] for _ in range(count)] == [str(n) for n in range(1, count + 1)]


def test_limits_of_a_batch(cluster):
    assert batch(cluster[0]) == []
    problem(post(cluster[0], "/v1/batch", b"{}\n" * 10001), 413, "too_large")
    problem(post(cluster[0], "/v1/batch", b" " * (8 * 1024 * 1024 + 1)), 413, "too_large")
    found = batch(cluster[0], {"cmd": "send", "to": "user:x", "text": "x" * (1024 * 1024 + 1)})
    assert found[0]["error"]["name"] == "too_large"


# ---- lists

def test_a_session(cluster):
    with Client(cluster[1], "?user=seen") as client:
        name = client.hello["session"]
        for broker in cluster:
            found = ask(broker, "/v1/sessions/" + quote(name)).json
            assert found["session"] == name and found["conn"] == client.hello["conn"]
            assert (found["user"], found["face"], found["route"]) == ("seen", "json", "/connect")
            assert found["instance"] == cluster[1].instance
            assert found["remote"] == f"127.0.0.1:{client.ws.local_port}"
            hashed = cluster.redis.client.hgetall("sb:session:{" + name + "}")
            assert {key: value for key, value in found.items() if key != "session"} == {
                key: value for key, value in hashed.items() if value and key in DOCUMENT["components"]["schemas"]["Session"]["properties"]}
            user = ask(broker, "/v1/users/seen").json
            assert user == {"user": "seen", "online": True, "count": 1,
                            "sessions": [{"session": name, "instance": cluster[1].instance}]}
    problem(ask(cluster[0], "/v1/sessions/nobody"), 404, "absent")
    assert ask(cluster[0], "/v1/users/nobody").json["online"] is False


def pages(broker, query, limit):
    found, cursor = [], ""
    while True:
        page = ask(broker, f"/v1/sessions?limit={limit}{query}{cursor}").json
        assert len(page["sessions"]) <= limit
        found += [one["session"] for one in page["sessions"]]
        if "cursor" not in page:
            return found
        cursor = "&cursor=" + page["cursor"]


def test_lists_of_sessions(cluster):
    clients = [cluster[n % 2].connect(path) for n in range(24) for path in (f"/websocket/u{n % 3}", f"/websocket/list/{n}")]
    try:
        mine = [f"list_{n}" for n in range(24)]
        for limit in (1, 3, 10, 1000):
            everybody = pages(cluster[0], "", limit)
            assert len(set(everybody)) == len(everybody) and set(mine) < set(everybody)
            route = quote("/websocket/{relationId}/{userCode:int}")
            assert sorted(pages(cluster[1], f"&route={route}", limit)) == sorted(mine)
            here = pages(cluster[1], f"&route={route}&instance={cluster[0].instance}", limit)
            assert sorted(here) == sorted(mine[::2])
            of_user = pages(cluster[0], "&user=u1", limit)
            assert len(of_user) == 8 and of_user == sorted(of_user) and all(name.startswith("u1~") for name in of_user)
            assert len(pages(cluster[0], f"&user=u1&instance={cluster[0].instance}", limit)) == 4
        assert pages(cluster[0], "&user=nobody", 10) == pages(cluster[0], "&instance=none", 10) == []
    finally:
        for client in clients:
            client.abort()


def test_topics_and_presence(cluster):
    with Client(cluster[0], "?user=amy") as amy, Client(cluster[1], "") as guest:
        for client in (amy, guest):
            assert "ok" in client.command(cmd="subscribe", topic="room/1", presence=True)
        found = {one["topic"]: one["instances"] for one in ask(cluster[0], "/v1/topics").json["topics"]}
        assert found["room/1"] == 2
        presence = ask(cluster[1], "/v1/topics/room%2F1/presence").json
        assert (presence["online"], presence["count"]) == (True, 2)
        assert {one["session"]: one.get("user") for one in presence["sessions"]} == {
            amy.hello["session"]: "amy", guest.hello["session"]: None}
        assert len(ask(cluster[1], "/v1/topics/room%2F1/presence?limit=1").json["sessions"]) == 1
    assert ask(cluster[0], "/v1/topics/nobody/presence").json == {"online": False, "count": 0, "sessions": []}


def test_instances(cluster):
    for broker in cluster:
        found = {one["instance"]: one for one in ask(broker, "/v1/instances").json["instances"]}
        assert set(found) == {one.instance for one in cluster}
        assert all(found[one.instance]["listen"] == f"127.0.0.1:{one.port}" for one in cluster)


def test_state(cluster):
    for path in ("/healthz", "/readyz", "/metrics", "/v1/stats"):
        assert ask(cluster[0], path).status == 200
    assert ask(cluster[0], "/v1/instances", "HEAD").body == b""


# ---- orders

def test_kicking_from_any_broker(cluster):
    for broker in cluster:
        for query, code, reason in (("", 4502, "kicked"), ("?code=4000", 4000, None), ("?code=1000&reason=g%C3%BCte+Nacht", 1000, "güte Nacht")):
            with cluster[0].connect("/websocket/kicked/1") as client:
                answer = ask(broker, "/v1/sessions/kicked_1" + query, "DELETE")
                assert (answer.status, answer.json) == (202, {"receipt": "delivered"})
                with pytest.raises(Closed) as closed:
                    client.recv()
                assert closed.value.code == code
                assert reason is None or closed.value.reason == reason
            wait_until(lambda: ask(broker, "/v1/sessions/kicked_1").status == 404, "it is gone")
    problem(ask(cluster[0], "/v1/sessions/nobody", "DELETE"), 404, "absent")
    for query in ("?code=999", "?code=1001", "?code=2999", "?code=5000", "?code=x", "?reason=" + "x" * 124, "?reason=%FF"):
        problem(ask(cluster[0], "/v1/sessions/kicked_1" + query, "DELETE"), 400, "bad_request")


@pytest.mark.parametrize("ask_itself", [True, False])
def test_draining_a_broker(cluster, ask_itself):
    with cluster.add() as third:
        with third.connect("/websocket/drained") as client:
            answer = ask(third if ask_itself else cluster[0], f"/v1/instances/{third.instance}/drain", "POST")
            assert (answer.status, answer.json) == (202, {"receipt": "delivered"})
            with pytest.raises(Closed) as closed:
                client.recv()
            assert closed.value.code == 1012
        assert third.wait() == 0
    cluster.brokers.remove(third)
    problem(ask(cluster[0], f"/v1/instances/{third.instance}/drain", "POST"), 404, "absent")
