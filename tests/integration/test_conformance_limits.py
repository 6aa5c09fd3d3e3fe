"""Large messages, many messages, and too large ones: category 9 of the well-known conformance suite, and RFC 6455 10.4."""

import pytest

from lib import frame
from lib.rawws import BINARY, CONTINUATION, PING, PONG, TEXT, fragments

KIB, MIB = 1 << 10, 1 << 20
MAX = 4 * MIB
OPTIONS = {"ping_interval": "0", "max_message": "4MiB", "outbox_limit": "64MiB"}
SIZES = [64 * KIB, 256 * KIB, 1 * MIB, MAX - 1, MAX]


def message(size, kind):
    return "*" * size if kind == TEXT else b"\xfe" * size


def exchange(client, data, expected, piece=None):
    """The server takes all of it before anything is read back: what waits stays below outbox_limit."""
    client.send_bytes(data, piece)
    for one in expected:
        assert client.recv(timeout=60) == one


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
def test_9_1_2_large_messages(echo, size, kind):
    whole = message(size, kind)
    exchange(echo(), frame(whole, kind), [whole])


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("size", [64, 256, 1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB, MAX])
def test_9_3_4_a_large_message_in_fragments(echo, size, kind):
    whole = message(MAX if size >= KIB else MIB, kind)
    exchange(echo(), b"".join(fragments(whole, size)), [whole])


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("piece", [64, 128, 256, 512, 1024, 2048])
def test_9_5_6_a_large_message_in_pieces(echo, piece, kind):
    whole = message(piece * 2000, kind)
    exchange(echo(), frame(whole, kind), [whole], piece)


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096])
def test_9_7_8_a_thousand_round_trips(echo, size, kind):
    client, whole = echo(), message(size, kind)
    for _ in range(1000):
        client.send(whole)
        assert client.recv() == whole


def test_a_thousand_messages_at_once_with_pings_between(echo):
    texts = [f"{n} " + "." * (n % 500) for n in range(1000)]
    client = echo()
    client.send_bytes(b"".join(frame(text) + (frame(b"", PING) if n % 10 == 0 else b"") for n, text in enumerate(texts)))
    got = []
    while len(got) < len(texts):
        found = client.recv_frame()
        if found.opcode != PONG:
            got.append(found.text)
    assert got == texts


# ---- what is too large


def cut(client, data, piece=None):
    """1009, however much was still sent, and no reset: the server reads on until its close is answered."""
    client.send_bytes(data, piece)
    found, code = client.until_close(clean=True)
    assert code == 1009 and found == [], (code, found)


@pytest.mark.parametrize("turn", range(30))
def test_fragments_beyond_the_limit_are_1009(echo, turn):
    """Each fragment is well below it. Always: each turn is another race."""
    parts = [frame(b"x" * (MAX // 8 * 3), CONTINUATION if n else TEXT, fin=n == 2) for n in range(3)]
    client = echo()
    if turn % 3 == 0:
        cut(client, b"".join(parts))
    elif turn % 3 == 1:
        cut(client, b"".join(parts), piece=len(parts[0]))
    else:
        cut(client, b"".join(parts), piece=1 << 16)


@pytest.mark.parametrize("turn", range(10))
def test_frames_beyond_the_limit_are_1009(echo, turn):
    for data in (frame(b"x" * (MAX + 1), BINARY), frame(b"x" * MAX, BINARY, fin=False) + frame(b"x", CONTINUATION),
                 frame(b"x" * MAX * 2, TEXT)):
        cut(echo(), data, None if turn % 2 else 1 << 18)


@pytest.mark.parametrize("claim", [MAX + 1, 1 << 32, (1 << 63) - 1])
def test_a_claim_beyond_the_limit_is_1009(echo, claim):
    """At the latest when so much has come. The frame never ends, so there is no answer to the close."""
    client = echo()
    client.send_frame(b"x" * (MAX + 1000), BINARY, claim=claim)
    found, code = client.until_close()
    assert code == 1009 and found == [], (code, found)


def test_endless_fragments_are_1009(echo):
    cut(echo(), frame(b"", BINARY, fin=False) + frame(b"x" * 1000, CONTINUATION, fin=False) * (MAX // 1000 + 100))


def test_what_is_sent_back_before_is_whole(echo):
    """The messages before the one that is too large are answered, then the close comes."""
    client = echo()
    try:
        client.send_bytes(frame("a") + frame("b" * 1000) + frame(b"x" * (MAX + 1), BINARY))
    except OSError:
        pass
    found, code = client.until_close()
    assert [one.payload for one in found] == [b"a", b"b" * 1000]
    assert code == 1009


def test_who_goes_on_sending_reads_the_close_all_the_same(echo):
    """A client that notices nothing until it has sent all: eight times what is allowed."""
    for _ in range(5):
        cut(echo(), frame(b"x" * MAX * 8, BINARY), piece=1 << 20)


def test_small_fragments_without_end_of_nothing(echo):
    """Empty fragments cost nothing, and do no harm."""
    client = echo()
    client.send_bytes(frame(b"", TEXT, fin=False) + frame(b"", CONTINUATION, fin=False) * 20000 + frame(b"end",
        CONTINUATION))
    assert client.recv() == "end"
