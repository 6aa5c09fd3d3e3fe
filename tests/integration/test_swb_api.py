"""swb over the HTTP API."""

import json

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
