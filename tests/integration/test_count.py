"""The online count: the total over all instances, in the log, over the API and in Redis."""

import pytest

from lib import Broker, Cluster, wait_until


def test_it_follows_connects_and_disconnects_on_all_instances():
    with Cluster(3) as cluster:
        clients = []
        for i in range(9):
            broker = cluster[i % 3]
            clients.append(broker.connect(f"/websocket/u{i}"))
            # The line that tells of a session counts it, and all before it.
            assert broker.log("session online")[-1]["online"] == str(i + 1)
        for broker in cluster:
            stats = broker.stats()
            assert (stats["online"], stats["sessions"]) == (9, 3)
            assert broker.metrics()["switchboard_sessions"] == 3
            wait_until(lambda: cluster.redis.cli("HGET", "sb:instance:{%s}" % broker.instance, "sessions") == "3",
                       "Redis shows the count of the instance")
        for i, client in enumerate(clients):
            client.close()
            assert wait_offline(cluster[i % 3], i // 3 + 1)["online"] == str(8 - i)
        for broker in cluster:
            assert broker.stats()["online"] == 0


def wait_offline(broker, count):
    """The line of the session that left as the count-th on this broker."""
    return wait_until(lambda: (lines := broker.log("session offline")) and len(lines) >= count and lines[count - 1],
                      f"{count} sessions left")


def test_a_takeover_counts_once():
    with Cluster(2) as cluster:
        with cluster[0].connect("/websocket/a/1"), cluster[1].connect("/websocket/a/1"):
            for broker in cluster:
                wait_until(lambda: broker.stats()["online"] == 1, "the replaced session is no longer counted")
        wait_until(lambda: cluster[0].stats()["online"] == 0, "nobody is left")


@pytest.mark.parametrize("abrupt", [False, True])
def test_it_is_right_after_many_came_and_went(abrupt):
    with Cluster(2, log_level="info") as cluster:
        for _ in range(3):
            clients = [cluster[i % 2].connect(f"/websocket/u{i % 5}") for i in range(30)]
            assert cluster[0].stats()["online"] == cluster[1].stats()["online"] == 30
            for client in clients:
                client.abort() if abrupt else client.close()
            for broker in cluster:
                wait_until(lambda: broker.stats()["online"] == 0, "all are gone")
        assert cluster.redis.client.keys("sb:session:*") == []
        assert cluster.redis.client.keys("sb:user:*") == []


def test_memory_storage_counts_too():
    with Broker() as broker:
        with broker.connect("/websocket/a"), broker.connect("/websocket/a/1"):
            assert broker.log("session online")[-1]["online"] == "2"
            assert broker.stats()["online"] == 2
        wait_until(lambda: broker.stats()["online"] == 0, "all are gone")
