"""swb over the HTTP API."""

import json

import pytest

from lib import wait_until


def test_sessions_are_listed_shown_and_kicked(broker, swb):
    swb.at(broker)
    with broker.raw("/websocket/a/1") as client:
        wait_until(lambda: "a_1" in swb("sessions"), "the session is listed")
        assert json.loads(swb("session", "a_1", "--json"))["route"] == "/websocket/{relationId}/{userCode:int}"
        assert [json.loads(line)["session"] for line in swb("sessions", "--json").splitlines()] == ["a_1"]
        assert "a_1" not in swb("sessions", "--user", "nobody")
        swb("kick", "a_1", "--reason", "enough")
        assert client.recv_close() == (4502, "enough")
    swb("session", "nobody", code=3)


def test_instances_topics_users_and_stats_are_shown(cluster, swb):
    swb.at(cluster[0])
    ids = [json.loads(line)["instance"] for line in swb("instances", "--json").splitlines()]
    assert sorted(ids) == sorted(one.instance for one in cluster)
    with swb.listen("listen", "--user", "bob", "--topic", "orders.eu"):
        wait_until(lambda: "orders.eu" in swb("topics"), "the topic is listed")
        assert "bob~" in swb("users", "bob")
    assert "counters." in swb("stats")


def test_an_instance_is_drained(cluster, swb):
    swb.at(cluster[0])
    other = cluster[1]
    with other.connect("/websocket/bob") as client:
        swb("drain", other.instance)
        assert client.wait_closed().code == 1012
    assert other.wait() == 0
    wait_until(lambda: other.instance not in swb("instances"), "the instance has left")
    swb("drain", "nobody", code=3)


def test_the_api_is_named_as_the_broker_names_it(broker, swb):
    swb.at(broker)
    address = f"127.0.0.1:{broker.api_port}"
    swb.env["SWITCHBOARD_API"] = address
    assert "counters." in swb("stats")
    del swb.env["SWITCHBOARD_API"]
    assert "counters." in swb("stats", "--api", address)
    assert "counters." in swb("stats", "--api", f"HTTP://{address}")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "wss://127.0.0.1:1", "ftp://127.0.0.1:1"])
def test_a_url_of_something_else_is_no_api(swb, url):
    swb("stats", "--api", url, code=2)
    assert swb.errors == f"swb: {url}: the API's URL begins with http://\n"


@pytest.mark.parametrize("code", ["0", "42", "1001", "2999", "5000"])
def test_close_codes_that_nobody_may_send(swb, code):
    swb("kick", "nobody", "--code", code, code=2)
    assert swb.errors == f"swb: --code takes 1000 or 3000 to 4999, not {code}\n"


@pytest.mark.parametrize("code", [1000, 3000, 4999])
def test_close_codes(broker, swb, code):
    swb.at(broker)
    with broker.raw("/websocket/a/1") as client:
        wait_until(lambda: "a_1" in swb("sessions"), "the session is listed")
        swb("kick", "a_1", "--code", code)
        assert client.recv_close()[0] == code


@pytest.mark.parametrize("words", [("stats",), ("online",), ("bench", "unicast")])
def test_a_token_from_a_file_with_other_line_ends(swb, words):
    for words, where in ((words + ("--token", "abcdefgh\r"), "--token"), (words, "SWITCHBOARD_TOKEN")):
        swb.env["SWITCHBOARD_TOKEN"] = "abcdefgh\r\n"
        swb(*words, code=2)
        assert swb.errors.startswith(f"swb: the token in {where} holds a control character")
        assert "abcdefgh" not in swb.errors


def test_what_needs_no_token_takes_any(swb):
    swb.env["SWITCHBOARD_TOKEN"] = "abcdefgh\r\n"
    swb("version")
    swb("completion", "bash")
