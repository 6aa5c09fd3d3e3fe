"""A client of the structured faces, written from docs/protocol.md and nothing else. It is strict: what the document
does not allow the server to send fails the test that it happens in.

    with StructuredClient(broker.ws("/connect?user=bob"), "msgpack") as bob:
        bob.call("send", to="user:bob", binary=b"hi")          # what stands in `ok`; CommandError otherwise
        assert bob.message()["binary"] == b"hi"

Binary payloads are bytes on this side in either face.
"""

import base64
import collections
import itertools
import json
import time

import msgpack

from .paths import PATIENCE
from .waiting import Timeout
from .ws import WsClient

FACES = ("json", "msgpack")
SUBPROTOCOLS = {"json": "switchboard.json.v1", "msgpack": "switchboard.msgpack.v1"}

# name → code, whether the same command can succeed later
ERRORS = {
    "bad_request": (400, False), "unauthorized": (401, False), "forbidden": (403, False), "absent": (404, True),
    "unknown_command": (405, False), "conflict": (409, False), "gone": (410, True), "too_large": (413, False),
    "refused": (422, False), "limit": (429, True), "internal": (500, True), "unavailable": (503, True),
    "timeout": (504, True), "no_memory": (507, True),
}
PAYLOADS = ("text", "binary", "data")
_MESSAGE = {"to": str, "from": str, "time": int, "offset": str, "epoch": str, "text": str, "binary": bytes, "data": object}
# push → the fields it must have, the fields it may have
_PUSHES = {
    "hello": ({"session": str, "conn": str, "instance": str, "version": str, "time": int, "ping_interval": int,
               "ping_timeout": int, "limits": dict},
              {"address": str, "recovered": bool, "epoch": str, "offset": str}),
    "message": ({"to": str, "time": int}, _MESSAGE),
    "request": ({"request": str, "to": str, "time": int, "timeout": int}, _MESSAGE),
    "cancel": ({"request": str}, {}),
    "join": ({"topic": str, "session": str}, {"user": str}),
    "leave": ({"topic": str, "session": str}, {"user": str}),
    "recovered": ({"address": str, "recovered": bool}, {"epoch": str, "offset": str}),
    "disconnect": ({"code": int, "name": str, "text": str, "reconnect": bool}, {"delay": int}),
}


class CommandError(AssertionError):
    """A command was answered with an error: .code, .name, .text and .retry"""

    def __init__(self, error):
        super().__init__(f"{error['code']} {error['name']}: {error['text']}")
        self.code, self.name, self.text, self.retry = (error[key] for key in ("code", "name", "text", "retry"))


def encode(face, frame):
    """A frame as it is sent: str or bytes."""
    if face == "msgpack":
        return msgpack.packb(frame, use_bin_type=True)
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def decode(face, message):
    """The frames of one WebSocket message."""
    if face == "msgpack":
        assert isinstance(message, bytes), f"not a binary message: {message!r}"
        unpacker = msgpack.Unpacker(raw=False, max_buffer_size=0)
        unpacker.feed(message)
        frames = list(unpacker)
        assert unpacker.tell() == len(message), f"a frame was cut off: {message!r}"
    else:
        assert isinstance(message, str), f"not a text message: {message!r}"
        frames = [json.loads(line) for line in message.split("\n") if line]
    assert all(isinstance(frame, dict) for frame in frames), message
    return frames


def to_wire(face, fields):
    """A command's fields with its bytes as the face writes them."""
    if face == "json" and isinstance(fields.get("binary"), bytes):
        return {**fields, "binary": base64.b64encode(fields["binary"]).decode("ascii")}
    return fields


def from_wire(face, fields):
    if face == "json" and "binary" in fields:
        assert isinstance(fields["binary"], str), fields
        return {**fields, "binary": base64.b64decode(fields["binary"], validate=True)}
    return fields


def payload_of(fields):
    """("text", "…"), ("binary", b"…") or ("data", …)"""
    found = [(kind, fields[kind]) for kind in PAYLOADS if kind in fields]
    assert len(found) == 1, f"not one payload: {fields}"
    return found[0]


def _check_fields(what, fields, required, optional):
    for key in required:
        assert key in fields, f"{what} without {key}: {fields}"
    for key, value in fields.items():
        kind = required.get(key) or optional.get(key)
        if kind is not None and kind is not object:
            assert isinstance(value, kind) and (kind is not int or not isinstance(value, bool)), \
                f"{what}: {key} is no {kind.__name__}: {fields}"


class StructuredClient:
    """Connects, and has received `hello` when the constructor returns (hello=False: not yet)."""

    def __init__(self, url, face="json", hello=True, **options):
        self.url, self.face = url, face
        self.ws = WsClient(url, subprotocols=[SUBPROTOCOLS[face]], **options)
        self._ids = itertools.count(1)
        self._open = set()
        self._replies = {}
        self._pushes = collections.deque()
        self.hello = None
        try:
            assert self.ws.subprotocol == SUBPROTOCOLS[face]
            if hello:
                self.wait_hello()
        except BaseException:
            self.ws.abort()
            raise

    def wait_hello(self):
        while self.hello is None:
            self._pull(PATIENCE)
        return self.hello

    @property
    def session(self):
        """Its own address."""
        return "session:" + self.hello["session"]

    # ---- frames

    def _pull(self, timeout):
        """Waits for one WebSocket message more and files its frames. Raises Timeout or Closed."""
        for frame in decode(self.face, self.ws.recv(timeout)):
            self._file(frame)

    def _file(self, frame):
        assert self.hello is not None or frame.get("push") == "hello", f"before hello: {frame}"
        if "push" in frame:
            assert "id" not in frame, f"a push with an id: {frame}"
            frame = from_wire(self.face, frame)
            required, optional = _PUSHES[frame["push"]]
            _check_fields(frame["push"], frame, required, optional)
            if frame["push"] in ("message", "request"):
                payload_of(frame)
                assert ("offset" in frame) == ("epoch" in frame), f"one of offset and epoch: {frame}"
            if frame["push"] == "hello":
                assert self.hello is None, f"a second hello: {frame}"
                self.hello = frame
            else:
                self._pushes.append(frame)
            return
        number = frame.get("id")
        assert type(number) is int and (number in self._open or number == 0), f"a reply to nothing: {frame}"
        assert ("ok" in frame) != ("error" in frame), f"neither ok nor error: {frame}"
        assert isinstance(frame.get("ok", {}), dict), frame
        if "error" in frame:
            error = frame["error"]
            assert (error["code"], error["retry"]) == ERRORS[error["name"]] and error["text"], frame
        self._open.discard(number)
        self._replies[number] = frame

    # ---- commands

    def post(self, cmd, **fields):
        """Sends a command and returns its id; keyword arguments are its fields."""
        return self.post_all([(cmd, fields)])[0]

    def post_all(self, commands):
        """The same for many at once, each in a message of its own: [(cmd, fields), …]"""
        numbers, messages = [], []
        for cmd, fields in commands:
            number = next(self._ids)
            self._open.add(number)
            numbers.append(number)
            messages.append(encode(self.face, {"id": number, "cmd": cmd, **to_wire(self.face, fields)}))
        self.ws.send(*messages)
        return numbers

    def result(self, number, timeout=PATIENCE):
        """What a command was answered: its `ok`; raises CommandError."""
        deadline = time.monotonic() + timeout
        while number not in self._replies:
            self._pull(max(deadline - time.monotonic(), 0.001))
        frame = self._replies.pop(number)
        if "error" in frame:
            raise CommandError(frame["error"])
        return from_wire(self.face, frame["ok"])

    def answered(self, number):
        """Whether the reply has been read; reads nothing."""
        return number in self._replies

    def call(self, cmd, timeout_s=PATIENCE, **fields):
        return self.result(self.post(cmd, **fields), timeout_s)

    def fails(self, cmd, timeout_s=PATIENCE, **fields):
        """The CommandError that the command is answered with."""
        try:
            ok = self.call(cmd, timeout_s, **fields)
        except CommandError as error:
            return error
        raise AssertionError(f"{cmd} succeeded: {ok}")

    def send_raw(self, frame):
        """A frame as it is (a dictionary), or bytes and text that are none. The reply to its id, if any, is for result()."""
        if isinstance(frame, dict):
            if type(frame.get("id")) is int:
                self._open.add(frame["id"])
            frame = encode(self.face, frame)
        self.ws.send(frame)

    def await_id(self, number):
        """Lets the server answer an id that was sent by other means than post()."""
        self._open.add(number)

    # ---- pushes

    def push(self, name=None, timeout=PATIENCE):
        """The next push, or the next of that name: others stay for later."""
        deadline = time.monotonic() + timeout
        while True:
            for push in self._pushes:
                if name is None or push["push"] == name:
                    self._pushes.remove(push)
                    return push
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout(f"{self.url}: no push {name or ''} within {timeout} s, but {list(self._pushes)}")
            self._pull(left)

    def message(self, timeout=PATIENCE):
        return self.push("message", timeout)

    def payloads(self, count, kind="text"):
        """The payloads of the next `count` messages, which are all of one kind."""
        return [self.message()[kind] for _ in range(count)]

    def rest(self, name=None):
        """After the end of the connection: the pushes that came before it, or those of that name."""
        self.wait_closed()
        found = [push for push in self._pushes if name is None or push["push"] == name]
        self._pushes.clear()
        return found

    def barrier(self):
        """All that the server wrote so far has been read."""
        self.call("ping")

    def take(self, name=None):
        """The pushes that the server has written so far; of that name."""
        self.barrier()
        found = [push for push in self._pushes if name is None or push["push"] == name]
        for push in found:
            self._pushes.remove(push)
        return found

    def expect_nothing(self):
        unread = self.take()
        assert not unread, f"{self.url}: unexpected {unread}"

    # ---- the connection

    def wait_closed(self, timeout=PATIENCE):
        """Waits for the end, returns the Closed; the pushes that came before stay readable."""
        closed = self.ws.wait_closed(timeout)
        for message in self.ws.pending():
            for frame in decode(self.face, message):
                self._file(frame)
        return closed

    def close(self):
        return self.ws.close()

    def abort(self):
        self.ws.abort()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.ws.__exit__(kind, error, trace)
