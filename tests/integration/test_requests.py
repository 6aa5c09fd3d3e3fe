"""A session asks another, or any session of a user, wherever it is connected, and gets the answer or is told at once why not."""

import time

import pytest

from lib import FACES, CommandError, StructuredClient
from lib.structured import payload_of

ROUTES = """
[route /asked/{name}]
address = session:{name}
on_message = publish topic:said-by-{name}
on_request = next-message

[route /asked-user/{uid}]
address = user:{uid}
on_message = ignore
on_request = next-message

[route /deaf/{name}]
address = session:{name}
on_message = ignore

[route /topics/{name}]
address = topic:{name}
on_message = publish topic:{name}
"""
OPTIONS = {"config": ROUTES, "requests_limit": "40"}
LIMIT = 40

both = pytest.mark.parametrize("face", FACES)


@pytest.fixture
def pair(connect, face, name):
    """One who asks, and one to be asked, elsewhere."""
    return connect(0, "/connect", face), connect(1, f"/connect?session={name}", face)


def error_of(client, number):
    with pytest.raises(CommandError) as error:
        client.result(number)
    return error.value


# ---- question and answer


@both
def test_a_question_is_answered(pair, face, name):
    asker, target = pair
    number = asker.post("request", to=f"session:{name}", text="ready?", timeout=7000)
    request = target.push("request")
    assert (request["to"], request["from"], request["timeout"]) == (f"session:{name}", asker.session, 7000)
    assert payload_of(request) == ("text", "ready?") and abs(request["time"] - time.time() * 1000) < 60000
    assert target.call("reply", request=request["request"], text="yes") == {}
    assert asker.result(number) == {"from": f"session:{name}", "text": "yes"}
    target.expect_nothing(), asker.expect_nothing()


@both
def test_the_default_timeout_and_an_acknowledgement(pair, face, name):
    asker, target = pair
    number = asker.post("request", to=f"session:{name}")
    request = target.push("request")
    assert request["timeout"] == 5000 and payload_of(request) == ("text", "")
    target.call("reply", request=request["request"])
    assert asker.result(number) == {"from": f"session:{name}", "text": ""}


@both
def test_a_thousand_questions_each_with_its_own_answer(connect, face, name):
    """Answered in another order than asked, while messages come and go."""
    asker, target = connect(0, "/connect", face), connect(1, f"/connect?session={name}", face)
    for start in range(0, 1000, LIMIT):
        numbers = asker.post_all([("request", {"to": f"session:{name}", "data": {"n": start + i}}) for i in range(LIMIT)])
        asker.post("send", to=f"session:{name}", text="in between")
        requests = [target.push("request") for _ in range(LIMIT)]
        assert [request["data"]["n"] for request in requests] == list(range(start, start + LIMIT))
        assert len({request["request"] for request in requests}) == LIMIT
        target.post_all([("reply", {"request": request["request"], "data": [request["data"]["n"], "answer"]})
                         for request in requests[::-1]])
        for i, number in enumerate(numbers):
            assert asker.result(number)["data"] == [start + i, "answer"]
    assert {message["text"] for message in target.take("message")} == {"in between"}


@both
def test_a_session_asks_itself_and_back(pair, face, name):
    asker, target = pair
    number = asker.post("request", to=asker.session, text="me?")
    asker.call("reply", request=asker.push("request")["request"], text="me!")
    assert asker.result(number) == {"from": asker.session, "text": "me!"}
    number = asker.post("request", to=f"session:{name}", text="1")
    request = target.push("request")
    back = target.post("request", to=request["from"], text="2")
    asker.call("reply", request=asker.push("request")["request"], text="3")
    target.call("reply", request=request["request"], text=target.result(back)["text"] + "4")
    assert asker.result(number)["text"] == "34"


# ---- no answer


@both
def test_nobody_is_there(connect, face, name):
    asker = connect(0, "/connect", face)
    for to in (f"session:{name}", f"user:{name}"):
        started = time.monotonic()
        assert asker.fails("request", to=to, timeout=60000).name == "absent"
        assert time.monotonic() - started < 5


@both
def test_no_answer_before_the_deadline(pair, face, name):
    asker, target = pair
    started = time.monotonic()
    number = asker.post("request", to=f"session:{name}", timeout=300)
    request = target.push("request")
    assert error_of(asker, number).name == "timeout"
    assert 0.25 < time.monotonic() - started < 5
    assert target.push("cancel")["request"] == request["request"]
    assert target.fails("reply", request=request["request"], text="late").name == "gone"
    asker.expect_nothing()


@both
@pytest.mark.parametrize("why", ["not today", "", "не сегодня"])
def test_a_refusal(pair, face, name, why):
    asker, target = pair
    number = asker.post("request", to=f"session:{name}", text="?")
    assert target.call("reply", request=target.push("request")["request"], refuse=why) == {}
    error = error_of(asker, number)
    assert error.name == "refused" and why in error.text


@both
@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_one_asked_leaves(pair, face, name, how):
    asker, target = pair
    numbers = asker.post_all([("request", {"to": f"session:{name}", "timeout": 60000})] * 3)
    for _ in range(3):
        target.push("request")
    started = time.monotonic()
    getattr(target, how)()
    assert [error_of(asker, number).name for number in numbers] == ["gone"] * 3
    assert time.monotonic() - started < 5


@both
def test_the_one_asked_is_replaced(connect, pair, face, name):
    asker, target = pair
    number = asker.post("request", to=f"session:{name}", timeout=60000)
    target.push("request")
    new = connect(2, f"/connect?session={name}", face)
    assert error_of(asker, number).name == "gone"
    number = asker.post("request", to=f"session:{name}")
    new.call("reply", request=new.push("request")["request"], text="the new one")
    assert asker.result(number)["text"] == "the new one"


@both
def test_the_one_who_asks_leaves(pair, face, name):
    asker, target = pair
    asker.post("request", to=f"session:{name}", timeout=60000)
    request = target.push("request")
    asker.abort()
    assert target.push("cancel")["request"] == request["request"]
    assert target.fails("reply", request=request["request"], text="late").name == "gone"


@both
def test_what_can_not_be_answered(connect, pair, face, name):
    asker, target = pair
    other = connect(2, f"/connect?session={name}-other", face)
    number = asker.post("request", to=f"session:{name}")
    request = target.push("request")["request"]
    assert target.fails("reply", request="nonsense.1").name == "gone"
    assert target.fails("reply", request="").name in ("gone", "bad_request")
    assert other.fails("reply", request=request, text="not yours").name == "gone"
    target.call("reply", request=request, text="once")
    assert target.fails("reply", request=request, text="twice").name == "gone"
    assert asker.result(number)["text"] == "once"
    asker.expect_nothing()


# ---- users


@both
def test_the_first_answer_of_a_user_wins(connect, face, name):
    asker, sessions = connect(0, "/connect", face), [connect(i, f"/connect?user={name}", face) for i in range(3)]
    number = asker.post("request", to=f"user:{name}", text="who?", timeout=60000)
    requests = [session.push("request") for session in sessions]
    assert len({request["request"] for request in requests}) == 1
    sessions[1].call("reply", request=requests[1]["request"], text="me")
    assert asker.result(number) == {"from": sessions[1].session, "text": "me"}
    for i in (0, 2):
        assert sessions[i].push("cancel")["request"] == requests[i]["request"]
        assert sessions[i].fails("reply", request=requests[i]["request"], text="too late").name == "gone"


@both
def test_some_of_a_users_sessions_refuse_or_leave(connect, face, name):
    asker, sessions = connect(0, "/connect", face), [connect(i, f"/connect?user={name}", face) for i in range(3)]
    number = asker.post("request", to=f"user:{name}", timeout=60000)
    requests = [session.push("request") for session in sessions]
    sessions[0].call("reply", request=requests[0]["request"], refuse="no")
    sessions[2].abort()
    asker.barrier()
    assert not asker.answered(number)
    sessions[1].call("reply", request=requests[1]["request"], text="yes")
    assert asker.result(number)["text"] == "yes"


@both
def test_all_of_a_users_sessions_refuse(connect, face, name):
    asker, sessions = connect(0, "/connect", face), [connect(i, f"/connect?user={name}", face) for i in range(3)]
    number = asker.post("request", to=f"user:{name}", timeout=60000)
    for session in sessions:
        session.call("reply", request=session.push("request")["request"], refuse="no way")
    error = error_of(asker, number)
    assert error.name == "refused" and "no way" in error.text


@both
def test_all_of_a_users_sessions_leave(connect, face, name):
    asker, sessions = connect(0, "/connect", face), [connect(i, f"/connect?user={name}", face) for i in range(3)]
    number = asker.post("request", to=f"user:{name}", timeout=60000)
    for session in sessions:
        session.push("request")
    for session in sessions:
        session.abort()
    assert error_of(asker, number).name == "gone"


@both
def test_a_user_refuses_and_leaves_at_once(connect, face, name):
    """A refusal decides nothing as long as another session is there; when that one leaves, it does."""
    asker, sessions = connect(0, "/connect", face), [connect(i, f"/connect?user={name}", face) for i in range(2)]
    number = asker.post("request", to=f"user:{name}", timeout=60000)
    requests = [session.push("request") for session in sessions]
    sessions[0].call("reply", request=requests[0]["request"], refuse="no")
    sessions[1].close()
    assert error_of(asker, number).name == "refused"


# ---- limits


@both
def test_too_many_wait(pair, face, name):
    asker, target = pair
    numbers = asker.post_all([("request", {"to": f"session:{name}", "timeout": 60000})] * LIMIT)
    requests = [target.push("request")["request"] for _ in range(LIMIT)]
    assert asker.fails("request", to=f"session:{name}").name == "limit"
    target.call("reply", request=requests[7], text="7")
    assert asker.result(numbers[7])["text"] == "7"
    number = asker.post("request", to=f"session:{name}", text="again")
    target.call("reply", request=target.push("request")["request"], text="8")
    assert asker.result(number)["text"] == "8"


@both
def test_too_many_are_asked_of_one(connect, face, name):
    """Many ask the same session: beyond the limit they are told, and the others are served."""
    askers, target = [connect(i, "/connect", face) for i in range(2)], connect(1, f"/connect?session={name}", face)
    numbers = [(asker, asker.post("request", to=f"session:{name}", timeout=60000)) for asker in askers
               for _ in range(LIMIT * 3 // 4)]
    requests = [target.push("request")["request"] for _ in range(LIMIT)]
    target.post_all([("reply", {"request": request, "text": "served"}) for request in requests])
    outcomes = []
    for asker, number in numbers:
        try:
            outcomes.append(asker.result(number)["text"])
        except CommandError as error:
            outcomes.append(error.name)
    assert outcomes.count("served") == LIMIT
    assert set(outcomes) <= {"served", "limit", "refused"} and len(outcomes) == LIMIT * 3 // 4 * 2


# ---- plain clients


@both
def test_a_plain_client_answers_with_its_next_message(connect, connect_plain, face, name):
    asker, target = connect(0, "/connect", face), connect_plain(1, f"/asked/{name}")
    listener = connect(0, f"/topics/said-by-{name}", face)
    for kind, question, heard, answer, told in (
            ("text", "ready?", "ready?", "yes", ("text", "yes")),
            ("binary", b"\x01\xff", b"\x01\xff", b"\x02", ("binary", b"\x02")),
            ("data", {"a": 1}, '{"a":1}', "", ("text", ""))):
        number = asker.post("request", to=f"session:{name}", **{kind: question})
        assert target.recv() == heard
        target.send(answer)
        ok = asker.result(number)
        assert ok.pop("from") == f"session:{name}" and payload_of(ok) == told
    listener.expect_nothing()
    target.send("not asked")
    assert listener.message()["text"] == "not asked"


@both
def test_a_plain_client_is_asked_one_thing_at_a_time(connect, connect_plain, face, name):
    """Its next message can answer only one."""
    askers, target = [connect(i, "/connect", face) for i in range(2)], connect_plain(1, f"/asked/{name}")
    for i in range(3):
        number = askers[0].post("request", to=f"session:{name}", text=f"first {i}", timeout=60000)
        assert target.recv() == f"first {i}"
        for asker in askers:
            error = asker.fails("request", to=f"session:{name}", text="second", timeout=60000)
            assert error.name == "refused" and error.text.startswith("busy")
        target.expect_nothing()
        target.send(f"answer {i}")
        assert askers[0].result(number)["text"] == f"answer {i}"


@both
def test_what_a_plain_client_says_is_an_answer_or_not(peers, connect, connect_plain, face, name):
    """At the deadline, too, when it is on its way as the one who asked gives up: each message is heard once, as one or the other."""
    asker, target = connect(0, "/connect", face), connect_plain(1, f"/asked/{name}")
    listener = connect(2, f"/topics/said-by-{name}", face)
    answers, said, count = [], [], 60
    for i in range(count):
        number = asker.post("request", to=f"session:{name}", text="?", timeout=20)
        if target.recv() != "?":
            raise AssertionError("it was asked")
        time.sleep(0.012 + 0.016 * (i % 20) / 20)  # from well before the deadline to well after it
        target.send(str(i))
        try:
            answers.append(int(asker.result(number)["text"]))
        except CommandError as error:
            assert error.name == "timeout"
            said.append(int(listener.message()["text"]))
    listener.expect_nothing()
    assert sorted(answers + said) == list(range(count))
    assert answers and said


@both
def test_an_answer_to_one_who_is_gone_is_an_ordinary_message(peers, connect, connect_plain, face, name):
    target, listener = connect_plain(1, f"/asked/{name}"), connect(2, f"/topics/said-by-{name}", face)
    for i in range(20):
        asker = connect(0, "/connect", face)
        asker.post("request", to=f"session:{name}", text="?", timeout=60000)
        assert target.recv() == "?"
        asker.abort()
        time.sleep(0.001 * (i % 5))
        target.send(str(i))
        assert listener.message()["text"] == str(i)


@both
def test_a_plain_client_whose_question_is_over(connect, connect_plain, face, name):
    """Its next message is no answer any more."""
    asker, target = connect(0, "/connect", face), connect_plain(1, f"/asked/{name}")
    listener = connect(0, f"/topics/said-by-{name}", face)
    assert asker.fails("request", to=f"session:{name}", text="?", timeout=200).name == "timeout"
    assert target.recv() == "?"
    target.send("said")
    assert listener.message()["text"] == "said"


@both
def test_a_plain_client_leaves_or_can_not_be_asked(connect, connect_plain, face, name):
    asker, target = connect(0, "/connect", face), connect_plain(1, f"/asked/{name}")
    number = asker.post("request", to=f"session:{name}", text="?", timeout=60000)
    assert target.recv() == "?"
    target.abort()
    assert error_of(asker, number).name == "gone"
    deaf = connect_plain(1, f"/deaf/{name}-deaf")
    error = asker.fails("request", to=f"session:{name}-deaf", text="?", timeout=60000)
    assert error.name == "refused" and error.text
    deaf.expect_nothing()


@both
def test_a_user_of_plain_and_structured_sessions(connect, connect_plain, face, name):
    asker = connect(0, "/connect", face)
    plain, structured = connect_plain(1, f"/asked-user/{name}"), connect(2, f"/connect?user={name}", face)
    number = asker.post("request", to=f"user:{name}", text="?", timeout=60000)
    structured.call("reply", request=structured.push("request")["request"], refuse="no")
    assert plain.recv() == "?"
    plain.send("plainly")
    assert asker.result(number)["text"] == "plainly"


@both
def test_open_questions_survive_other_connections(peers, pair, face, name):
    asker, target = pair
    number = asker.post("request", to=f"session:{name}", timeout=60000)
    request = target.push("request")["request"]
    for i in range(5):
        with StructuredClient(peers(i).ws("/connect"), face) as other:
            assert other.fails("request", to=f"session:{name}-nobody").name == "absent"
    target.call("reply", request=request, text="still")
    assert asker.result(number)["text"] == "still"
