"""What a path means is decided once, on the bytes as they were sent: so that whoever stands in front (HAProxy, nginx, their
ACLs) and the broker never differ."""

import pytest

from lib import WAYS, Door, head, upgrade

# Parameters are percent-decoded, and nothing else.
NAMES = [("bob", "bob"), ("a+b", "a+b"), ("a%20b", "a b"), ("a%2Bb", "a+b"), ("a%2Fb", "a/b"), ("a%2fb", "a/b"),
         ("a%3Fb", "a?b"), ("a%25b", "a%b"), ("a%252Fb", "a%2Fb"), ("a;b", "a;b"), ("a&b=c", "a&b=c"), ("a%26b", "a&b"),
         ("%E7%8E%8B", "王"), ("%2e%2e", ".."), ("..", ".."), (".", "."), ("%2E%2E%2Fadmin", "../admin"),
         ("a~b-c_d.e!f", "a~b-c_d.e!f"), ("%61dmin", "admin"), ("a'b(c)*d", "a'b(c)*d"), ("a@b:c", "a@b:c"),
         ("a$b,c", "a$b,c")]
# What has no route, and what it may not become.
NOWHERE = ["/websocket%2Fadmin", "/websocket%2fadmin", "/websocket%2Fadmin%2F1", "/%2Fwebsocket/admin",
           "/x/../websocket/admin", "/x/%2e%2e/websocket/admin", "/x/%2E%2E/websocket/admin", "/./websocket/admin/",
           "/.//websocket/admin", "/x//../websocket/admin", "/websocket/../websocket/admin", "/none/", "/WEBSOCKET/admin",
           "/websocket;/admin", "/websocket&/admin", "/websocket\\admin", "/x/..%2Fwebsocket/admin",
           "/..;/websocket/admin", "/websocket%252Fadmin", "/websocke%74s/admin", "/websocket%00/admin",
           "/websocket%20/admin", "/websocket+/admin", "/websocket", "/x?/websocket/admin", "/?/websocket/admin"]
# Parameters that can be none.
WRONG = ["/websocket/%zz", "/websocket/%", "/websocket/%4", "/websocket/a%", "/websocket/%%41", "/websocket/%u0041",
         "/websocket/% 41", "/websocket/a%0d%0ab", "/websocket/a%0Ab", "/websocket/a%0D%0AX-Admin:%201",
         "/websocket/a%00b", "/websocket/%00", "/websocket/a%7Fb", "/websocket/a%09b", "/websocket/a%1Bb",
         "/websocket/%ff", "/websocket/%c0%ae", "/websocket/%ed%a0%80", "/websocket/%e7%8e", "/websocket/a/b",
         "/websocket/a/007", "/websocket/a/+5", "/websocket/a/5%20", "/websocket/a/%2B5", "/websocket/a/5%00",
         "/websocket/" + "x" * 256, "/websocket/" + "%78" * 256, "/websocket/./admin", "/websocket/../admin"]


def who(wire):
    """The name under which a plain session's message comes back."""
    wire.send("hi")
    name, _, message = wire.recv().rpartition(":")
    assert message == "hi"
    return name


@pytest.mark.parametrize("written, name", NAMES)
def test_a_parameter_is_percent_decoded_and_nothing_else(door, written, name):
    for prefix in ("/websocket/", "//websocket/", "/WebSocketTest/websocket/", "//testWebsocket/websocket/"):
        with door.serves(upgrade(prefix + written)) as wire:
            assert who(wire) == name
    with door.serves(upgrade(f"/websocket/{written}?x=/../websocket/other&y=%2F")) as wire:
        assert who(wire) == name


@pytest.mark.parametrize("path", NOWHERE)
def test_a_path_is_not_made_to_fit(door, path):
    """404, or 400 for what can be no path at all; upgraded or not."""
    door.refuses(upgrade(path), 404, 400)
    if not path.startswith("/?"):
        door.refuses(head(path), 404, 400)


@pytest.mark.parametrize("path", WRONG)
def test_a_parameter_that_can_be_none_is_400(door, path):
    door.refuses(upgrade(path), 400)
    door.refuses(head(path), 400)


@pytest.mark.parametrize("before", [b"", head("/"), head("/none"), head("/websocket/a"), head("/style.css", method="HEAD")],
                         ids=["first", "page", "unknown", "route", "head"])
@pytest.mark.parametrize("path",
                         ["/websocket%2Fadmin", "/x/../websocket/admin", "//x//websocket/admin", "/websocket/a%0d%0ab"])
def test_no_position_makes_a_path_another_one(door, path, before):
    """What is refused as a first request is not served as a second one."""
    if not before:
        door.refuses(upgrade(path), 404, 400)
        return
    method = before.split()[0].decode()
    assert door.ask(before + upgrade(path), method).status != 101
    with door.open() as wire:
        wire.send_all(before)
        wire.read_answer(method == "HEAD")
        wire.send_all(upgrade(path))
        assert wire.read_answer().status == 0


@pytest.mark.parametrize("target",
                         ["http://localhost/websocket/bob", "HTTP://localhost:80/websocket/bob",
                          "http://other/websocket/bob", "ws://localhost/websocket/bob"])
def test_an_absolute_target_is_its_path_or_nothing(door, target):
    """RFC 9112 3.2.2 wants servers to take it; a refusal does no harm."""
    with door.open() as wire:
        answer = wire.send_all(upgrade(target)).read_answer()
        assert answer.status in (101, 400, 404)
        assert answer.status != 101 or who(wire) == "bob"


@pytest.mark.parametrize("target",
                         ["", "*", "websocket/a", "localhost:80", "?x", "#", "http:/websocket/a", "http://",
                          "http:///websocket/a", "//", "///", "\\websocket\\a", "http://u:p@localhost/websocket/%zz",
                         "%2Fwebsocket%2Fa"])
def test_what_is_no_path_is_refused(door, target):
    door.refuses(upgrade(target), 400, 404)


@pytest.mark.parametrize("query",
                         ["user=%zz", "user=%4", "session=%", "session=a&session=b", "user=", "session=a%0d%0ab",
                          "user=a%00b", "session=" + "x" * 256])
def test_arguments_that_can_be_none_are_400(door, query):
    door.refuses(upgrade("/connect?" + query), 400)


@pytest.mark.parametrize("query, session",
                         [("session=p1+q", "p1+q"), ("session=p2%2Bq", "p2+q"), ("session=p3%20q", "p3 q"),
                          ("session=p4/q", "p4/q"), ("session=p5?q", "p5?q"), ("session=p6;q", "p6;q"),
                         ("session=p7%26q%3D", "p7&q="), ("session=p8=q", "p8=q")])
def test_arguments_are_percent_decoded_and_nothing_else(door, query, session):
    mark = door.where.log_mark()
    with door.serves(upgrade("/connect?" + query)):
        assert door.where.log_wait("session online", since=mark)["session"] == session


@pytest.mark.parametrize("path",
                         ["/%77ebsocket/bob", "/websocket%", "/%65cho", "/style%2Ecss", "/%2F", "/.", "/..",
                          "//style.css", "/./style.css", "/style.css/", "/style.css?x=1", "/?x", "/index.html"])
def test_every_way_gives_the_same_answer(house, path):
    """Whatever it is."""
    for data in (head(path), upgrade(path)):
        found = set()
        for way in WAYS:
            with Door(house(way), way).open() as wire:
                answer = wire.send_all(data).read_answer()
                found.add((answer.status, answer.body))
        assert len(found) == 1, found
        assert all(status for status, _ in found)
