"""A WebSocket's handshake, as RFC 6455 section 4.2 has it."""

import itertools

import pytest

from lib import frame, head, upgrade
from lib.door import KEY, UPGRADE

JSON, MSGPACK = "switchboard.json.v1", "switchboard.msgpack.v1"


@pytest.mark.parametrize("key",
                         ["", "x", KEY[:-1], KEY[:-2], KEY + "=", KEY + "A", "x" * 24, "=" * 24, "A" * 22 + "=A",
                          "A" * 21 + "===", "!" * 22 + "==", "AAAAAAAAAAA AAAAAAAAAA==", "A" * 20, "A" * 32, "A" * 44,
                         "x" * 200, KEY + ", " + KEY, "-_" * 11 + "==", '"' + KEY + '"',
                         "\xe9" * 22 + "=="], ids=range(20))
def test_a_key_is_16_bytes_in_base64(door, key):
    door.refuses(upgrade(change={"Sec-WebSocket-Key": key}), 400)


def test_a_key_is_there_once(door):
    door.refuses(upgrade(drop=["Sec-WebSocket-Key"]), 400)
    door.refuses(upgrade(add=[("Sec-WebSocket-Key", KEY)]), 400)
    door.refuses(upgrade(first=[("sec-websocket-key", "A" * 22 + "==")]), 400)


@pytest.mark.parametrize("key", [KEY, "A" * 22 + "==", "/+" * 10 + "/w==", "  " + KEY + "\t "], ids=range(4))
def test_keys_are_answered_with_their_hash(door, key):
    door.serves(upgrade(change={"Sec-WebSocket-Key": key})).close()


@pytest.mark.parametrize("version",
                         ["0", "7", "8", "12", "14", "25", "113", "130", "-13", "13.0", "0013", "thirteen", "0xd"])
def test_another_version_is_426(door, version):
    answer = door.refuses(upgrade(change={"Sec-WebSocket-Version": version}), 426)
    assert "13" in answer.tokens("sec-websocket-version")


def test_a_version_is_there_once(door):
    door.refuses(upgrade(drop=["Sec-WebSocket-Version"]), 400, 426)
    door.refuses(upgrade(change={"Sec-WebSocket-Version": ""}), 400, 426)
    for add in ("8", "12", "14"):
        door.refuses(upgrade(add=[("Sec-WebSocket-Version", add)]), 400, 426)
        door.refuses(upgrade(first=[("Sec-WebSocket-Version", add)]), 400, 426)


@pytest.mark.parametrize("connection",
                         ["Upgrade", "upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade, keep-alive",
                          "keep-alive,upgrade", "a , Upgrade , b", ",Upgrade,", "\tUpgrade\t", "keep-alive,\tUpgrade",
                         "Upgrade,Upgrade", "close, Upgrade", ", ,\t, Upgrade"])
@pytest.mark.parametrize("asked",
                         ["websocket", "WebSocket", "WEBSOCKET", "websocket, foo", "foo, websocket", "foo/1,websocket",
                          ",websocket"])
def test_the_wish_may_be_one_of_many(entrance, connection, asked):
    with entrance.serves(upgrade(change={"Connection": connection, "Upgrade": asked})) as wire:
        assert wire.echoes()


def test_the_wish_may_be_spread_over_headers(door):
    for name, value in (("Connection", "keep-alive"), ("Connection", ""), ("Upgrade", "foo"), ("Connection", "X-A, X-B")):
        for place in ("first", "add"):
            with door.serves(upgrade(**{place: [(name, value)]})) as wire:
                assert wire.echoes()


@pytest.mark.parametrize("order", list(itertools.permutations(range(5)))[::7])
def test_headers_come_in_any_order(entrance, order):
    with entrance.serves(head("/echo", [UPGRADE[i] for i in order])) as wire:
        assert wire.echoes()


@pytest.mark.parametrize("change", [
    {"Connection": "keep-alive"}, {"Connection": "Upgrades"}, {"Connection": "XUpgrade"}, {"Connection": "Up grade"},
    {"Connection": ""}, {"Connection": "no-upgrade"}, {"Connection": "close"}, {"Connection": "\"Upgrade\""},
    {"Connection": "Upgrade;x"}, {"Connection": "Upgrade=1"}, {"Upgrade": "websockets"}, {"Upgrade": "websocke"},
    {"Upgrade": "web socket"}, {"Upgrade": ""}, {"Upgrade": "xwebsocket"}, {"Upgrade": "tls/1.0"},
    {"Upgrade": "websocket;x"}, {"Upgrade": "\"websocket\""}])
def test_without_the_whole_wish_there_is_no_upgrade(door, change):
    """RFC 9110: then it's an ordinary request."""
    door.refuses(upgrade(change=change), 400, 426)
    answer = door.ask(upgrade("/", change=change))
    assert answer.status in (200, 400, 404, 426)


@pytest.mark.parametrize("drop", [["Connection"], ["Upgrade"], ["Connection", "Upgrade"]])
def test_what_lacks_a_header_is_no_upgrade(door, drop):
    door.refuses(upgrade(drop=drop), 400, 426)


# ---- subprotocols


@pytest.mark.parametrize("offer, taken", [
    ([JSON], JSON), ([MSGPACK], MSGPACK), ([f"{JSON}, {MSGPACK}"], JSON), ([f"{MSGPACK}, {JSON}"], MSGPACK),
    ([f"chat, {MSGPACK}, {JSON}"], MSGPACK), ([f"chat,superchat,{JSON}"], JSON), ([f"{JSON},chat"], JSON),
    ([f"{JSON}x, {MSGPACK}"], MSGPACK), (["chat", MSGPACK, JSON], MSGPACK), ([MSGPACK, JSON], MSGPACK),
    ([f"\t{JSON}\t,\tx"], JSON), ([f"v1, {JSON}, {JSON}"], JSON), (["x" * 3000 + ", " + JSON], JSON),
    ([", ".join(f"p{n}" for n in range(300)) + ", " + MSGPACK], MSGPACK)], ids=range(14))
def test_the_first_known_subprotocol_is_taken(door, offer, taken):
    with door.serves(upgrade("/connect", add=[("Sec-WebSocket-Protocol", line) for line in offer])) as wire:
        assert wire.answer.get("sec-websocket-protocol") == taken
        assert wire.recv_frame().opcode == (1 if taken == JSON else 2)


@pytest.mark.parametrize("offer",
                         ["chat", "chat, superchat", JSON.upper(), JSON[:-1], JSON + "0", "x" + JSON, "switchboard",
                          "switchboard.json", "no subprotocol", "http", "http-only", "raw", JSON + ";q=1",
                         "\"" + JSON + "\"", JSON.replace(".", "\t"), "x" * 5000])
def test_only_unknown_subprotocols_are_400(door, offer):
    answer = door.refuses(upgrade("/connect", add=[("Sec-WebSocket-Protocol", offer)]), 400)
    assert "subprotocol" in answer.text


def test_without_an_offer_none_is_taken(door):
    with door.serves(upgrade()) as wire:
        assert wire.answer.get("sec-websocket-protocol") is None
        assert wire.echoes()


def test_an_empty_offer_is_none_or_refused(door):
    for offer in ("", ",", " , "):
        with door.open() as wire:
            answer = wire.send_all(upgrade(add=[("Sec-WebSocket-Protocol", offer)])).read_answer()
            assert answer.status in (101, 400)
            assert answer.get("sec-websocket-protocol") is None


# ---- extensions, and the rest


@pytest.mark.parametrize("offers", [
    ["permessage-deflate"], ["permessage-deflate; client_max_window_bits"],
    ["permessage-deflate; server_max_window_bits=10; client_no_context_takeover"],
    ["permessage-deflate; server_max_window_bits=99"], ["permessage-deflate", "x-webkit-deflate-frame"],
    ["permessage-deflate, permessage-deflate; a=\"b, c\""], ["permessage-deflate;" + "x;" * 1000], ["foo"],
    ["foo; bar=baz, x"], [""], [";;;"], ["permessage-deflate; client_max_window_bits=\"15\""], ["x" * 5000],
    ["permessage-bzip2, bbf-usp-protocol"]], ids=range(14))
def test_no_extension_is_taken(door, offers):
    with door.serves(upgrade(add=[("Sec-WebSocket-Extensions", offer) for offer in offers])) as wire:
        assert wire.answer.get("sec-websocket-extensions") is None
        assert wire.echoes()
        wire.send_frame("x", rsv=4)
        assert wire.recv_frame().close_code == 1002


@pytest.mark.parametrize("origin",
                         ["http://localhost:8000", "https://example.com", "null", "", "file://", "http://[::1]",
                          "x" * 3000], ids=range(7))
def test_any_origin_is_fine(door, origin):
    for name in ("Origin", "Sec-WebSocket-Origin"):
        with door.serves(upgrade(add=[(name, origin)])) as wire:
            assert wire.echoes()


BROWSER = [("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"), ("Accept", "*/*"),
           ("Accept-Language", "en-US,en;q=0.5"), ("Accept-Encoding", "gzip, deflate, br, zstd"),
           ("Sec-WebSocket-Extensions", "permessage-deflate"), ("Origin", "http://localhost:8000"),
           ("Sec-Fetch-Dest", "empty"), ("Sec-Fetch-Mode", "websocket"), ("Sec-Fetch-Site", "same-origin"),
           ("Pragma", "no-cache"), ("Cache-Control", "no-cache"), ("DNT", "1"), ("Cookie", "a=b; c=d"),
           ("X-Real-IP", "10.0.0.1"), ("X-Forwarded-For", "10.0.0.1, 10.0.0.2"), ("X-Forwarded-Proto", "https")]


def test_a_browsers_handshake(door):
    with door.serves(upgrade(add=BROWSER, change={"Connection": "keep-alive, Upgrade"})) as wire:
        assert wire.echoes()
    with door.serves(upgrade(first=BROWSER)) as wire:
        assert wire.echoes()


def test_the_answer_says_what_rfc_6455_wants_and_no_more(door):
    with door.serves(upgrade()) as wire:
        names = [name for name, _ in wire.answer.headers]
        assert sorted(set(names)) == sorted(names)
        assert not {"content-length", "transfer-encoding"} & set(names)
        assert wire.answer.version == "HTTP/1.1"


def test_frames_in_the_heads_segment_are_answered_in_order(door):
    messages = ["a", "", "b" * 200, "c" * 5000]
    with door.serves(upgrade() + b"".join(frame(message) for message in messages) + frame(b"p", 9)) as wire:
        assert [wire.recv() for _ in messages] == messages
        assert (wire.recv_frame().opcode) == 10


def test_a_close_in_the_heads_segment(door):
    with door.serves(upgrade() + frame("last") + frame(b"\x03\xe8", 8)) as wire:
        assert wire.recv() == "last"
        assert wire.recv_close()[0] == 1000
