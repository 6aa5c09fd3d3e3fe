"""tests/fixtures/frames.json: the test client reads it as it is meant, and so does the broker."""

import json

import pytest

from lib import ROOT, CommandError
from lib.structured import PAYLOADS, decode, from_wire, payload_of, to_wire

FRAMES = json.loads((ROOT / "tests/fixtures/frames.json").read_text())
BOTH = [*FRAMES["commands"], *FRAMES["pushes"], *FRAMES["answers"]]


def bytes_in_json(frame):
    """A frame as the MessagePack face has it, with the bytes that it holds as base64."""
    if isinstance(frame.get("ok"), dict):
        return {**frame, "ok": to_wire("json", frame["ok"])}
    return to_wire("json", frame)


@pytest.mark.parametrize("entry", BOTH, ids=lambda entry: entry["about"])
def test_both_faces_say_the_same(entry):
    assert decode("json", entry["json"]) == [entry["frame"]]
    assert [bytes_in_json(frame) for frame in decode("msgpack", bytes.fromhex(entry["msgpack"]))] == [entry["frame"]]


def bad(face):
    return [entry for entry in FRAMES["bad_commands"] if face in entry]


def as_message(face, text):
    return text if face == "json" else bytes.fromhex(text)


@pytest.mark.parametrize("face, entry", [(face, entry) for face in ("json", "msgpack") for entry in bad(face)],
                         ids=lambda value: value if isinstance(value, str) else value["about"])
def test_bad_commands_are_answered(connect, face, entry):
    client = connect(0, "/connect", face)
    client.await_id(entry["id"])
    client.ws.send(as_message(face, entry[face]))
    with pytest.raises(CommandError) as error:
        client.result(entry["id"])
    assert error.value.name == "bad_request" and entry["names"] in error.value.text
    client.call("ping")


@pytest.mark.parametrize("face, text", [(face, text) for face, texts in FRAMES["no_frames"].items() for text in texts])
def test_what_is_no_frame_closes(connect, face, text):
    client = connect(0, "/connect", face)
    client.ws.send(as_message(face, text))
    assert client.wait_closed().code == 4500


@pytest.mark.parametrize("face", ["json", "msgpack"])
def test_payloads_come_back_as_they_went(connect, face):
    """Every payload of the good commands, sent to oneself."""
    client = connect(0, "/connect", face)
    for entry in FRAMES["commands"]:
        frame = entry["frame"]
        if frame["cmd"] != "send":
            continue
        client.send_raw({**decode(face, as_message(face, entry[face]))[0], "to": client.session})
        assert client.result(frame["id"])["receipt"] == "delivered"
        kinds = [kind for kind in PAYLOADS if kind in frame]
        assert payload_of(client.message()) == ((kinds[0], from_wire("json", frame)[kinds[0]]) if kinds else ("text", ""))
