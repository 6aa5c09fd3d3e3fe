"""Through HAProxy and nginx, with the configurations of deploy/, a stranger can do no more than directly."""

import pytest
from test_front_door_heads import PREFIXES
from test_front_door_http2 import ASKING, CONVERSATIONS, DRESSED
from test_front_door_one_request import BODY
from test_front_door_paths import NAMES, NOWHERE, who

from lib import Broker, Certificate, Door, HAProxy, Nginx, frame, head, upgrade
from lib.door import UPGRADE


@pytest.fixture(scope="module")
def behind():
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def certificate():
    with Certificate() as one:
        yield one


@pytest.fixture(scope="module", params=[(HAProxy, "plain"), (HAProxy, "tls"), (Nginx, "plain"), (Nginx, "tls")],
                ids=lambda kind: f"{kind[0].program}-{kind[1]}")
def proxy(request, behind, certificate):
    kind, way = request.param
    with kind([behind], tls=certificate if way == "tls" else None) as one:
        yield Door(one, way)


@pytest.fixture
def door(proxy, behind):
    yield proxy
    if not Door(behind).alive():
        behind.popen.kill()
        behind.wait()
        behind.start()
        pytest.fail("the broker died or hangs")


def statuses(door, data, count):
    """Those of so many answers on one connection, as the proxy keeps it open."""
    with door.open() as wire:
        wire.send_all(data)
        return [wire.read_answer().status for _ in range(count)]


@pytest.mark.parametrize("said", CONVERSATIONS)
def test_h2c_goes_nowhere(door, said):
    for asking in (ASKING, DRESSED):
        for path in ("/", "/echo"):
            with door.open() as wire:
                answer = wire.send_all(head(path, asking) + CONVERSATIONS[said]).read_answer()
                assert answer.status in (200, 400, 404, 426), answer


@pytest.mark.parametrize("first", ["/none", "/", "/websocket/a"])
def test_a_body_behind_a_request_makes_nothing_spin(door, first):
    for _ in range(5):
        with door.open() as wire:
            wire.send_all(head(first) + BODY)
            assert wire.read_answer().status in (200, 404, 426)


@pytest.mark.parametrize("path", ["/websocket%2Fadmin", "/x/../websocket/admin", "/websocket/a%0d%0ab"])
@pytest.mark.parametrize("before", ["/", "/none"])
def test_a_second_request_on_a_kept_connection_is_answered_as_a_first_one(door, path, before):
    """The proxy keeps the client's connection, and its own to the broker if it can."""
    with door.open() as wire:
        wire.send_all(head(before))
        assert wire.read_answer().status in (200, 404)
        wire.send_all(upgrade(path))
        assert wire.read_answer().status in (0, 400, 404)
    with door.open() as wire:
        wire.send_all(head(before) + upgrade(path))
        assert wire.read_answer().status in (200, 404)
        assert wire.read_answer().status in (0, 400, 404)


@pytest.mark.parametrize("path", [path for path in NOWHERE if "?" not in path])
def test_a_path_is_not_made_to_fit(door, path):
    with door.open() as wire:
        assert wire.send_all(upgrade(path)).read_answer().status in (400, 404)


@pytest.mark.parametrize("written, name", [pair for pair in NAMES if pair[0] not in (".", "..")])
def test_names_arrive_as_they_were_sent(door, written, name):
    """Those that are no steps in a path."""
    with door.serves(upgrade("/websocket/" + written)) as wire:
        assert who(wire) == name


@pytest.mark.parametrize("name", PREFIXES)
def test_a_name_that_begins_as_another_changes_nothing(door, name):
    for at in range(len(UPGRADE) + 1):
        with door.serves(head("/echo", [*UPGRADE[:at], (name, "1"), *UPGRADE[at:]])) as wire:
            assert wire.echoes()


@pytest.mark.parametrize("size", [3000, 4000, 4096, 5000, 7000])
def test_long_cookies_are_served(door, size):
    with door.serves(upgrade(add=[("Cookie", "c" * size)])) as wire:
        assert wire.echoes()
    with door.open() as wire:
        assert wire.send_all(head("/", [("Host", "localhost"), ("Cookie", "c" * size)])).read_answer().status == 200


def test_frames_in_the_heads_segment_arrive(door):
    messages = ["a", "b" * 200, "c" * 5000, ""]
    with door.serves(upgrade() + b"".join(map(frame, messages))) as wire:
        assert [wire.recv() for _ in messages] == messages


@pytest.mark.parametrize("method, status", [("POST", 405), ("PUT", 405), ("OPTIONS", 405), ("DELETE", 405)])
def test_refusals_pass_with_their_sentences(door, method, status):
    for data, expected in ((head("/", method=method), status), (head("/none"), 404), (head("/echo"), 426),
                           (upgrade("/websocket/a/b"), 400), (upgrade(change={"Sec-WebSocket-Version": "8"}), 426)):
        with door.open() as wire:
            answer = wire.send_all(data).read_answer()
            assert answer.status == expected and len(answer.text.split()) >= 3, answer


def test_the_page_and_its_conditions_pass(door):
    with door.open() as wire:
        full = wire.send_all(head("/")).read_answer()
        assert full.status == 200
    for method in ("GET", "HEAD"):
        with door.open() as wire:
            known = wire.send_all(head("/", [("Host", "localhost"), ("If-None-Match", full.get("etag"))],
                                       method=method)).read_answer()
            assert known.status == 304


def test_many_requests_on_one_connection_of_the_client(door):
    assert statuses(door, (head("/") + head("/none")) * 10, 20) == [200, 404] * 10
