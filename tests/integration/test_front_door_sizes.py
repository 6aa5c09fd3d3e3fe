"""Heads up to 16 KiB are served; what is longer is answered, at once and readably."""

import pytest

from lib import frame, head, upgrade

KIB = 1024
# So that what is answered is not answered because of a deadline.
OPTIONS = {"handshake_timeout": "60s"}


def padded(size, path="/echo", name="Cookie"):
    """The head of a handshake that is so many bytes long."""
    bare = len(upgrade(path, add=[(name, "")]))
    data = upgrade(path, add=[(name, "c" * (size - bare))])
    assert len(data) == size
    return data


@pytest.mark.parametrize("size",
                         [1 * KIB, 3990, 4 * KIB - 1, 4 * KIB, 4 * KIB + 1, 5000, 8 * KIB, 12 * KIB, 15 * KIB + 300,
                          16 * KIB - 1, 16 * KIB])
@pytest.mark.parametrize("name", ["Cookie", "X-Unknown", "Authorization", "Origin", "User-Agent", "X-Forwarded-For"])
def test_heads_up_to_16_kib_are_served(entrance, size, name):
    with entrance.serves(padded(size, name=name)) as wire:
        assert wire.echoes()


@pytest.mark.parametrize("size", [4 * KIB, 16 * KIB])
def test_long_heads_in_pieces_are_served(door, size):
    with door.serves(padded(size)) as wire:
        assert wire.echoes()


@pytest.mark.parametrize("count, length", [(2, 7000), (15, 1000), (100, 100), (200, 20), (500, 5)])
def test_many_headers_are_served(entrance, count, length):
    for at in ("first", "add"):
        with entrance.serves(upgrade(**{at: [(f"X-{n}", "v" * length) for n in range(count)]})) as wire:
            assert wire.echoes()
    assert entrance.ask(head("/", [("Host", "localhost")] + [("Cookie", "v" * length)] * count)).status == 200


def test_the_same_header_many_times(entrance):
    for name in ("Cookie", "X-A", "Origin", "Accept", "User-Agent"):
        with entrance.serves(upgrade(first=[(name, "x")] * 200)) as wire:
            assert wire.echoes()


def test_long_heads_for_the_page(entrance):
    """A browser sends its cookies there too."""
    for path, status in (("/", 200), ("/style.css", 200), ("/none", 404), ("/echo", 426)):
        assert entrance.ask(head(path, [("Host", "localhost"), ("Cookie", "c" * 15 * KIB)])).status == status


@pytest.mark.parametrize("size", [16 * KIB + 1, 17 * KIB, 20 * KIB, 64 * KIB, 256 * KIB])
@pytest.mark.parametrize("name", ["Cookie", "X-Unknown"])
def test_longer_heads_are_431(entrance, size, name):
    """The answer is read though the client was still sending."""
    entrance.refuses(padded(size, name=name), 431)
    entrance.refuses(head("/", [("Host", "localhost"), (name, "c" * size)]), 431)


def test_longer_heads_in_pieces_are_431(door):
    door.refuses(padded(17 * KIB), 431)


def test_too_many_headers_are_431(entrance):
    entrance.refuses(head("/", [("Host", "localhost")] + [("A", "b")] * 20000), 431)


def test_a_head_without_an_end_is_refused_at_its_limit(door):
    """Not at the deadline."""
    with door.open() as wire:
        wire.send_all(head("/")[:-2] + b"X-Long: " + b"y" * 17 * KIB)
        assert wire.only_answer().status == 431


@pytest.mark.parametrize("size", [1000, 2000, 3000, 3900])
def test_long_lines_are_served(entrance, size):
    with entrance.serves(upgrade("/websocket/bob?x=" + "y" * size)) as wire:
        wire.send("hi")
        assert wire.recv() == "bob:hi"
    assert entrance.ask(head("/?" + "y" * size)).status == 200


@pytest.mark.parametrize("size", [*range(3980, 4120, 3), 5000, 8000, 12000, 15000, 16300])
def test_lines_of_every_length_are_answered(entrance, size):
    """The route, or 414; the same for both."""
    with entrance.open() as wire:
        line = f"GET /websocket/bob?{'y' * (size - 31)} HTTP/1.1\r\n".encode()
        first = wire.send_all(line + upgrade().split(b"\r\n", 1)[1]).read_answer().status
    with entrance.open() as wire:
        second = wire.send_all(line + b"Host: localhost\r\n\r\n").read_answer().status
    assert (first, second) in ((101, 426), (414, 414), (431, 431))


@pytest.mark.parametrize("size", [16 * KIB, 20 * KIB, 100_000, 256 * KIB])
@pytest.mark.parametrize("path", ["/", "/websocket/", "/?", "/websocket/bob?"])
def test_lines_that_are_too_long_are_414(entrance, size, path):
    entrance.refuses(upgrade(path + "y" * size), 414)
    entrance.refuses(head(path + "%79" * (size // 3)), 414)


def test_a_line_without_an_end_is_414_at_its_limit(door):
    with door.open() as wire:
        wire.send_all(b"GET /" + b"y" * 17 * KIB)
        assert wire.only_answer().status == 414


@pytest.mark.parametrize("data",
                         [b"y" * 17 * KIB, b"\r\n" * 9 * KIB, b"\x00" * 17 * KIB, b"GET " * 5 * KIB, b"\n" * 17 * KIB])
def test_what_is_no_request_is_refused_at_its_limit(entrance, data):
    with entrance.open() as wire:
        wire.send_all(data)
        assert wire.only_answer().status in (400, 414, 431, 405, 501)


@pytest.mark.parametrize("size", [1, 100, 8 * KIB, 15 * KIB, 16 * KIB, 17 * KIB, 64 * KIB, 500 * KIB])
@pytest.mark.parametrize("head_size", [200, 8 * KIB, 16 * KIB])
def test_what_follows_a_head_counts_not_as_one(entrance, size, head_size):
    """Messages in the head's segment or record, many times as long as a head may be."""
    message = "m" * size
    with entrance.serves(padded(head_size) + frame(message)) as wire:
        assert wire.recv() == message
        assert wire.echoes()
