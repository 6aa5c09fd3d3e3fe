"""Who is on a topic, which sessions a user has, whether a session is online; join and leave; also after a broker was killed."""

import pytest

from lib import FACES, Cluster, StructuredClient, wait_until

both = pytest.mark.parametrize("face", FACES)


def who(client, address):
    """session → user, as presence tells it, checked for consistency."""
    ok = client.call("presence", address=address)
    assert ok["online"] == (ok["count"] > 0) and len(ok["sessions"]) == min(ok["count"], 1000)
    assert all(set(one) <= {"session", "user"} for one in ok["sessions"])
    return {one["session"]: one.get("user") for one in ok["sessions"]}


def name_of(client):
    return client.hello["session"]


@both
def test_those_are_present_who_wished_so(connect, face, name):
    asker, topic = connect(0, "/connect", face), f"topic:{name}"
    assert who(asker, topic) == {}
    bob, ann = connect(1, f"/connect?user={name}-bob", face), connect(2, f"/connect?session={name}-ann", face)
    silent = connect(1, "/connect", face)
    bob.call("subscribe", topic=name, presence=True)
    ann.call("subscribe", topic=name, presence=True)
    silent.call("subscribe", topic=name)
    wait_until(lambda: who(asker, topic) == {name_of(bob): f"{name}-bob", name_of(ann): None}, "both are there")
    bob.call("unsubscribe", topic=name)
    wait_until(lambda: who(asker, topic) == {name_of(ann): None}, "one is there")
    ann.call("subscribe", topic=name)  # without presence, this time
    wait_until(lambda: who(asker, topic) == {}, "nobody is there")


@both
@pytest.mark.parametrize("end", ["close", "abort"])
def test_join_and_leave(connect, face, name, end):
    watcher, member = connect(0, "/connect", face), connect(1, f"/connect?user={name}", face)
    watcher.call("subscribe", topic=name, events=True)
    bystander = connect(0, "/connect", face)
    bystander.call("subscribe", topic=name)
    member.call("subscribe", topic=name, presence=True)
    wanted = {"topic": name, "session": name_of(member), "user": name}
    assert watcher.push() == {"push": "join", **wanted}
    member.call("unsubscribe", topic=name)
    assert watcher.push() == {"push": "leave", **wanted}
    member.call("subscribe", topic=name, presence=True)
    assert watcher.push() == {"push": "join", **wanted}
    getattr(member, end)()
    assert watcher.push() == {"push": "leave", **wanted}
    anonymous = connect(2, "/connect", face)
    anonymous.call("subscribe", topic=name, presence=True)
    assert watcher.push() == {"push": "join", "topic": name, "session": name_of(anonymous)}
    bystander.expect_nothing(), watcher.expect_nothing()


@both
def test_joining_again_is_no_event(connect, face, name):
    watcher, member = connect(0, "/connect", face), connect(1, "/connect", face)
    watcher.call("subscribe", topic=name, events=True)
    for _ in range(3):
        member.call("subscribe", topic=name, presence=True)
    assert watcher.push("join")["session"] == name_of(member)
    wait_until(lambda: who(watcher, f"topic:{name}") == {name_of(member): None}, "it is there")
    member.call("unsubscribe", topic=name)
    assert watcher.push("leave")["session"] == name_of(member)
    watcher.expect_nothing()


@both
def test_a_replaced_session_leaves_and_its_successor_stays(connect, face, name):
    watcher, old = connect(0, "/connect", face), connect(1, f"/connect?session={name}", face)
    old.call("subscribe", topic=f"{name}-t", presence=True)
    new = connect(2, f"/connect?session={name}", face)
    old.wait_closed()
    new.call("subscribe", topic=f"{name}-t", presence=True)
    wait_until(lambda: who(watcher, f"topic:{name}-t") == {name: None}, "the successor is there")
    watcher.call("subscribe", topic=f"{name}-t", events=True)
    new.close()
    assert watcher.push("leave")["session"] == name
    assert who(watcher, f"topic:{name}-t") == {}


@both
def test_a_users_sessions(connect, connect_plain, face, name):
    asker = connect(0, "/connect", face)
    assert who(asker, f"user:{name}") == {}
    sessions = [connect(i, f"/connect?user={name}", face) for i in range(3)]
    connect_plain(1, f"/websocket/{name}")
    wait_until(lambda: len(who(asker, f"user:{name}")) == 4, "all four are there")
    found = who(asker, f"user:{name}")
    assert set(found) > {name_of(session) for session in sessions} and set(found.values()) == {name}
    for session in sessions:
        session.abort()
    wait_until(lambda: len(who(asker, f"user:{name}")) == 1, "one is left")


@both
def test_a_session(connect, face, name):
    asker = connect(0, "/connect", face)
    assert who(asker, f"session:{name}") == {}
    one, two = connect(1, f"/connect?session={name}", face), connect(1, f"/connect?user={name}-u", face)
    assert who(asker, f"session:{name}") == {name: None}
    assert who(asker, two.session) == {name_of(two): f"{name}-u"}
    one.close()
    wait_until(lambda: who(asker, f"session:{name}") == {}, "it is gone")


@both
def test_events_need_no_presence_of_ones_own(connect, face, name):
    """And a member that watches hears of itself too."""
    both_of = connect(0, f"/connect?user={name}", face)
    both_of.call("subscribe", topic=name, presence=True, events=True)
    assert both_of.push("join")["session"] == name_of(both_of)
    both_of.call("publish", topic=name, text="hi")
    assert both_of.message()["text"] == "hi"


@both
def test_after_a_broker_was_killed(face, name):
    """Its sessions leave within lease + 1 s, wherever one asks."""
    with Cluster(3, lease="2s", heartbeat="200ms") as cluster:
        watcher = StructuredClient(cluster[0].ws("/connect"), face)
        watcher.call("subscribe", topic=name, events=True)
        members = [StructuredClient(cluster[i].ws(f"/connect?user={name}"), face) for i in (1, 2, 2)]
        for member in members:
            member.call("subscribe", topic=name, presence=True)
        joined = {watcher.push("join")["session"] for _ in members}
        assert joined == {name_of(member) for member in members}
        assert watcher.call("online")["count"] == 4
        cluster[2].kill()
        left = {watcher.push("leave", timeout=8)["session"] for _ in range(2)}
        assert left == {name_of(member) for member in members[1:]}
        assert who(watcher, f"topic:{name}") == {name_of(members[0]): name}
        assert who(watcher, f"user:{name}") == {name_of(members[0]): name}
        assert who(watcher, members[1].session) == {}
        wait_until(lambda: watcher.call("online")["count"] == 2, "the count is right")
        watcher.expect_nothing()
        for client in [watcher, *members]:
            client.abort()


@both
def test_presence_after_redis_lost_its_data(face, name):
    with Cluster(2, lease="2s", heartbeat="200ms") as cluster:
        clients = [StructuredClient(cluster[i].ws(f"/connect?user={name}"), face) for i in range(2)]
        for client in clients:
            client.call("subscribe", topic=name, presence=True)
        wanted = {name_of(client): name for client in clients}
        wait_until(lambda: who(clients[0], f"topic:{name}") == wanted, "both are there")
        cluster.redis.client.flushall()
        wait_until(lambda: who(clients[0], f"topic:{name}") == wanted, "both are there again")
        for client in clients:
            client.abort()
