"""The page and its files: GET and HEAD, conditional or not, as RFC 9110 has them."""

import re

import pytest

from lib import Door, head

HOST = ("Host", "localhost")
ASKED_FOR = r"""(?:src|href)="([^"#:]+)"|(?:from|import) ["'](\./[^"']+)["']"""


@pytest.fixture(scope="module")
def files(house):
    """The page, and all that it and its scripts ask for."""
    door, found, seen = Door(house("plain")), ["/"], []
    while found:
        path = found.pop()
        if path not in seen:
            seen.append(path)
            text = door.ask(head(path, [HOST, ("Connection", "close")])).body.decode()
            found += ["/" + name.lstrip("./") for names in re.findall(ASKED_FOR, text) for name in names if name]
    assert len(seen) > 5
    return seen


def test_everything_is_served_whole(door, files):
    for path in files:
        answer = door.ask(head(path))
        assert answer.status == 200 and answer.body
        for name in ("content-type", "etag", "content-security-policy", "x-content-type-options", "cache-control"):
            assert answer.get(name), f"{path}: {name}"


def test_head_is_get_without_a_body(door, files):
    for path in [*files, "/none", "/echo", "/websocket/a/b", "/?x"]:
        with door.open() as wire:
            full = wire.send_all(head(path)).only_answer()
        with door.open() as wire:
            bare = wire.send_all(head(path, method="HEAD")).only_answer(without_body=True)
        assert bare.status == full.status
        assert {name for name, _ in set(bare.headers) ^ set(full.headers)} <= {"date"}
        assert full.body and not bare.body


@pytest.mark.parametrize("known",
                         ["{tag}", "W/{tag}", "*", '"other", {tag}', '{tag}, "other"', '"a","b",{tag}', 'W/"a", W/{tag}',
                          ' {tag}\t', '"with, comma", {tag}', '"", {tag}', ',{tag},', '"x" , {tag}'])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_known_is_304(door, files, known, method):
    for path in files[:3]:
        tag = door.ask(head(path)).get("etag")
        assert re.fullmatch(r'"[^"]+"', tag)
        answer = door.ask(head(path, [HOST, ("If-None-Match", known.format(tag=tag))], method=method), method)
        assert answer.status == 304 and answer.body == b""
        assert answer.get("etag") == tag
        assert answer.get("content-length") in (None, str(len(door.ask(head(path)).body)))
        assert answer.get("cache-control") == "no-cache"


@pytest.mark.parametrize("known",
                         ['"other"', 'W/"other"', "", "{bare}", '"{bare}x"', '"x{bare}"', "x{tag}", '"*"', "w/{tag}",
                          '"a", "b"', "{tag_cut}"])
def test_what_is_not_known_is_200(door, files, known):
    for path in files[:2]:
        tag = door.ask(head(path)).get("etag")
        value = known.format(tag=tag, bare=tag.strip('"'), tag_cut=tag[:-2] + '"')
        answer = door.ask(head(path, [HOST, ("If-None-Match", value)]))
        assert answer.status == 200 and answer.body


def test_if_none_match_may_be_long_or_doubled(door):
    tag = door.ask(head("/")).get("etag")
    long = ", ".join(f'"{n}"' for n in range(500))
    for fields in ([long + ", " + tag], [tag, '"x"'], ['"x"', tag]):
        assert door.ask(head("/", [HOST, *[("If-None-Match", value) for value in fields]])).status == 304


def test_other_conditions_and_ranges_are_passed_over(door):
    for name, value in (("If-Modified-Since", "Sat, 01 Jan 2050 00:00:00 GMT"), ("If-Match", "*"), ("Range", "bytes=0-1"),
                        ("Accept", "image/png"), ("Accept-Encoding", "gzip"), ("If-Range", '"x"'), ("TE", "trailers"),
                        ("Accept-Language", "zh")):
        answer = door.ask(head("/", [HOST, (name, value)]))
        assert answer.status == 200 and b"<html" in answer.body
        assert answer.get("content-encoding") is None


@pytest.mark.parametrize("path",
                         ["/none", "/index.htm", "/style.cs", "/style.css/", "/Style.css", "/favicon.ico",
                          "/../etc/passwd", "/style.css%00", "/web/style.css", "/metrics", "/healthz", "/readyz",
                         "/v1/stats", "/style.css;x", "/%2e%2e/style.css", "/.git/config"])
def test_unknown_paths_are_404(door, path):
    for method in ("GET", "HEAD"):
        door.refuses(head(path, method=method), 404, 400, method=method)


@pytest.mark.parametrize("path",
                         ["/websocket/a", "/websocket/a/1", "/topics/news", "/echo", "/connect",
                          "//WebSocketTest/websocket/a"])
def test_routes_without_an_upgrade_are_426(door, path):
    for method in ("GET", "HEAD"):
        answer = door.refuses(head(path, method=method), 426, method=method)
        assert "13" in (answer.get("sec-websocket-version") or "13")


def test_methods_are_told(door, files):
    for path in [*files[:2], "*", "/none"]:
        answer = door.ask(head(path, method="OPTIONS"))
        assert answer.status in (200, 204, 405) or path == "*"
        assert path == "*" or {"get", "head"} <= set(answer.tokens("allow"))


@pytest.mark.parametrize("piece", [1, 100, 4000])
def test_a_slow_reader_gets_it_whole(entrance, files, piece):
    """Read in small pieces, through a small window; others are served meanwhile."""
    for path in files:
        whole = entrance.ask(head(path)).body
        with entrance.open(rcvbuf=2048) as wire:
            wire.send_all(head(path))
            assert entrance.alive()
            got = bytearray()
            while data := wire.socket.recv(piece if len(got) < 3000 else 4000):
                got += data
        assert bytes(got).split(b"\r\n\r\n", 1)[1] == whole


def test_many_readers_at_once(entrance, files):
    wires = [(path, entrance.open(rcvbuf=2048)) for path in files for _ in range(8)]
    for path, wire in wires:
        wire.send_all(head(path))
    whole = {path: entrance.ask(head(path)).body for path in files}
    for path, wire in wires:
        assert wire.only_answer().body == whole[path]
        wire.close()


def test_readers_that_leave_in_the_middle(entrance, files):
    for n, path in enumerate(files * 4):
        wire = entrance.open(rcvbuf=2048)
        wire.send_all(head(path))
        if n % 3:
            wire.socket.recv(100)
        wire.abort() if n % 2 else wire.close()
