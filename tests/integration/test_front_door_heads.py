"""A request's head is read as RFC 9112 has it, strictly: what two readers could take differently is refused with 400."""

import pytest

from lib import head, upgrade
from lib.door import UPGRADE

HOST = ("Host", "localhost")


def with_line(line, at="end", path="/echo"):
    """The head of a handshake with one line more, as it is."""
    lines = upgrade(path).split(b"\r\n")
    place = {"first": 1, "second": 2, "end": -2}[at]
    return b"\r\n".join([*lines[:place], line, *lines[place:]])


# ---- methods and versions


@pytest.mark.parametrize("method",
                         ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "HEAD", "FOO", "get", "GETT",
                          "PRI"])
def test_only_get_upgrades(door, method):
    door.refuses(upgrade(method=method), 400, 405, 426, 501, method=method)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
@pytest.mark.parametrize("path", ["/", "/style.css", "/none", "/echo"])
def test_other_methods_are_405(door, method, path):
    door.refuses(head(path, method=method), 405)


@pytest.mark.parametrize("line", ["OPTIONS * HTTP/1.1", "CONNECT localhost:80 HTTP/1.1", "CONNECT / HTTP/1.1"])
def test_methods_with_targets_of_their_own_are_refused(door, line):
    door.refuses(f"{line}\r\nHost: localhost\r\n\r\n".encode(), 400, 405)


@pytest.mark.parametrize("version",
                         ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/3", "HTTP/9.9", "HTTP/1", "HTTP/1.", "HTTP/11",
                          "HTTP/1.10", "http/1.1", "HTTP/1,1", "HTTP /1.1", "HTTPS/1.1", "HTTP/+1.1", "XHTTP/1.1", ""])
def test_only_http_1_1_upgrades(door, version):
    door.refuses(upgrade(version=version), 400, 426, 505)


@pytest.mark.parametrize("line", [
    b"GET  /echo HTTP/1.1", b"GET /echo  HTTP/1.1", b" GET /echo HTTP/1.1", b"GET /echo HTTP/1.1 ",
    b"GET\t/echo HTTP/1.1", b"GET /echo\tHTTP/1.1", b"GET /ec ho HTTP/1.1", b"GET /echo", b"GET", b"/echo HTTP/1.1",
    b"G(T /echo HTTP/1.1", b"GET: /echo HTTP/1.1", b"\xffET /echo HTTP/1.1", b"GET /echo\x00 HTTP/1.1",
    b"GET /echo\x0b HTTP/1.1", b"GET /echo\x7f HTTP/1.1", b"GET /websocket/a\x01b HTTP/1.1",
    b"GET /websocket/a\tb HTTP/1.1", b"GET /websocket/a\rb HTTP/1.1", b"GET /echo HTTP/1.1\r", b"GET /echo HTTP/1.1\x00",
    b"\x00GET /echo HTTP/1.1", b"GET\x00/echo HTTP/1.1"])
def test_a_request_line_has_one_form(door, line):
    data = upgrade()
    door.refuses(line + data[data.index(b"\r\n"):], 400, 405, 501, 505)


# ---- lines


@pytest.mark.parametrize("at", ["first", "second", "end"])
@pytest.mark.parametrize("line", [
    b" folded: yes", b"\tfolded", b" ", b"\t", b"X-A : b", b"X-A\t: b", b" X-A: b", b": b", b":", b"X-A", b"X A: b",
    b"X\tA: b", b"X-A\x00: b", b"X-A: b\x00c", b"X-A: \x00", b"X-A: b\x01c", b"X-A: b\x1bc", b"X-A: b\x7f",
    b"X-A: b\x0bc", b"X-A: b\x0cc", b"X-A: b\rc", b"X-A: b\r", b"\r", b"X-A: b\nX-B: c", b"\nX-B: c", b"X-(A): b",
    b"X-A\xe9: b", b'X-"A": b', b"X-A: b\r\n folded", b"X-A: b\r\n\tfolded", b"X@A: b", b"[X]: b", b"X-A: b\rX-B: c",
    b"X{A}: b"])
def test_a_header_has_one_form(door, line, at):
    door.refuses(with_line(line, at), 400)


@pytest.mark.parametrize("data", [
    upgrade().replace(b"\r\n", b"\n"), upgrade().replace(b"\r\n\r\n", b"\n\n"),
    upgrade().replace(b"\r\nUpgrade", b"\nUpgrade"), upgrade().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    upgrade().replace(b"\r\n\r\n", b"\r\n\n"), upgrade().replace(b"\r\n\r\n", b"\n\r\n"),
    upgrade().replace(b"\r\n", b"\r"), upgrade().replace(b"\r\n", b"\n\r"), upgrade().replace(b"\r\n", b"\r\r\n"),
    upgrade().replace(b"\r\n", b"\n", 2)], ids=["all", "end", "one", "first", "last", "before-last", "cr", "reversed",
    "doubled", "two"])
def test_lines_end_in_crlf(door, data):
    """At the latest when it's clear that no whole head comes any more."""
    with door.open() as wire:
        wire.send_all(data + b"\r\n\r\n")
        assert wire.only_answer().status == 400


def test_a_head_in_front_of_which_there_are_empty_lines(door):
    """RFC 9112 2.2: should be taken; may be refused, but is answered."""
    for lines in (b"\r\n", b"\r\n\r\n", b"\r\n" * 100):
        with door.open() as wire:
            assert wire.send_all(lines + upgrade()).read_answer().status in (101, 400)


@pytest.mark.parametrize("line",
                         [b"X-A:", b"X-A: ", b"X-A:b", b"X-A:   b  ", b"X-A:\tb\t", b"X-A: b\tc", b"X-A: \xe7\x8e\x8b",
                          b"X-A: \xff\x80", b"!#$%&'*+-.^_`|~: b", b"x: y: z", b"X-A: \"a\\\"b\"", b"X-A: a;b=c, d",
                         b"1: 2", b"Cookie: a=b; c=d", b"Authorization: Bearer a.b.c", b"Sec-WebSocket-X: y",
                         b"X-Forwarded-For: 1.2.3.4", b"Proxy-Connection: x", b"Content-Type: text/plain",
                         b"Transfer-Encodin: chunked", b"Content-Lengt: 5", b"TE: trailers", b"Expect:"])
@pytest.mark.parametrize("at", ["first", "end"])
def test_headers_that_are_nobodys_business_are_passed_over(door, line, at):
    with door.serves(with_line(line, at)) as wire:
        assert wire.echoes()


# ---- host


@pytest.mark.parametrize("hosts",
                         [[], [""], [" "], ["localhost", "localhost"], ["a", "b"], ["localhost", ""], ["a b"], ["a\tb"],
                          ["a/b"], ["u@a"], ["a?b"], ["a#b"], ["a\\b"], ["a, b"], ["[::1"], ["a:b"], ["a:80:80"],
                         ["a:-1"], ["<a>"], ["%zz"], ['"a"']], ids=lambda hosts: "|".join(hosts) or "none")
def test_one_host_is_there(door, hosts):
    fields = [("Host", host) for host in hosts] + list(UPGRADE[1:])
    for data in (head("/echo", fields), head("/", [("Host", host) for host in hosts])):
        door.refuses(data, 400)


@pytest.mark.parametrize("host",
                         ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]", "example.com.", "a-b.c_d:",
                          "x" * 200, "xn--nxasmq6b"])
def test_hosts_of_all_kinds_are_served(door, host):
    with door.serves(upgrade(change={"Host": host})) as wire:
        assert wire.echoes()


def test_the_hosts_place_does_not_matter(door):
    for name in ("Host", "host", "HOST", "hOsT"):
        with door.serves(head("/echo", [*UPGRADE[1:], (name, "localhost")])) as wire:
            assert wire.echoes()


# ---- bodies


@pytest.mark.parametrize("fields", [
    [("Content-Length", "5")], [("Content-Length", "1")], [("Content-Length", "-1")], [("Content-Length", "abc")],
    [("Content-Length", "+5")], [("Content-Length", "")], [("Content-Length", "5, 5")],
    [("Content-Length", "5"), ("Content-Length", "6")], [("Content-Length", "0x5")], [("Content-Length", "9" * 30)],
    [("Content-Length", "0"), ("Content-Length", "5")], [("content-length", "5")], [("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding", "identity")], [("Transfer-Encoding", "")], [("transfer-encoding", "gzip, chunked")],
    [("Transfer-Encoding", "\tchunked")], [("Transfer-Encoding", "x")],
    [("Content-Length", "5"), ("Transfer-Encoding", "chunked")]], ids=lambda fields: "-".join(f"{name}={value}" for name,
    value in fields))
@pytest.mark.parametrize("at", ["first", "end"])
def test_no_body_comes_with_a_request(door, fields, at):
    """Nor does one that another reader could see there."""
    options = {"first" if at == "first" else "add": fields}
    for behind in (b"", b"hello", b"0\r\n\r\n"):
        door.refuses(upgrade(**options) + behind, 400, 413, 501)
        door.refuses(head("/", [*fields, HOST] if at == "first" else [HOST, *fields]) + behind, 400, 413, 501)


def test_a_length_of_nothing_is_no_body(door):
    assert door.ask(head("/", [HOST, ("Content-Length", "0")])).status in (200, 400)


# ---- names that begin as others do


PREFIXES = ["X", "X-", "X-A", "X-Auth", "X-Real", "X-Forwarded", "X-Auth-", "Proxy", "User", "Use", "C", "Co", "Con",
            "Connect", "Connectio", "Host-", "Hos", "Ho", "H", "U", "Up", "Upgrad", "Upgrades", "Sec", "Sec-",
            "Sec-WebSocket", "Sec-WebSocket-K", "Sec-WebSocket-Ke", "Sec-WebSocket-Keys", "Origi", "O", "Accept-", "A",
            "Ac", "If", "If-", "If-None", "Content", "Content-", "Ra", "Trans", "V", "W", "GET", "POST", "G", "P", "Te",
            "HTTP", "Cach", "Expec", "DN", "0"]


@pytest.mark.parametrize("name", PREFIXES)
def test_a_name_that_begins_as_another_changes_nothing(door, name):
    """Wherever it stands, and whatever follows it."""
    for at in range(len(UPGRADE) + 1):
        fields = [*UPGRADE[:at], (name, "1" if at % 2 else ""), *UPGRADE[at:]]
        with door.serves(head("/websocket/bob", fields)) as wire:
            wire.send("hi")
            assert wire.recv() == "bob:hi"
    for path, status in (("/", 200), ("/style.css", 200), ("/none", 404), ("/echo", 426)):
        assert door.ask(head(path, [(name, "1"), HOST])).status == status
        assert door.ask(head(path, [HOST, (name, "1")])).status == status


def test_all_of_them_at_once(door):
    fields = [(name, "1") for name in PREFIXES]
    with door.serves(upgrade(first=fields, add=fields)) as wire:
        assert wire.echoes()


@pytest.mark.parametrize("name", ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Host"])
def test_names_are_of_any_case(door, name):
    for written in (name.lower(), name.upper(), name.swapcase()):
        fields = [(written if name == known else known, value) for known, value in UPGRADE]
        with door.serves(head("/echo", fields)) as wire:
            assert wire.echoes()
