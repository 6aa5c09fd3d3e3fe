"""A WebSocket client on the library of somebody else (python3-websockets), to be used without async.

Its connections live on one event loop in a thread of the background. Tests that drive very many connections at once
write a coroutine, and run it there: background(coroutine).
"""

import asyncio
import concurrent.futures
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatusCode
from websockets.legacy.client import connect

from .paths import PATIENCE
from .waiting import Timeout

_loop = None


def background(coroutine, timeout=PATIENCE):
    """Runs a coroutine on the loop of all WsClients, and returns its result."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, daemon=True).start()
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop)
    try:
        return future.result(timeout)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise Timeout(f"{coroutine} did not end within {timeout} s") from None


class Closed(AssertionError):
    """The connection was closed: .code and .reason. 1006: without a close frame."""

    def __init__(self, code, reason):
        super().__init__(f"closed with {code} {reason!r}")
        self.code = code
        self.reason = reason


class Refused(AssertionError):
    """The handshake was answered with something else than 101: .status and .headers"""

    def __init__(self, status, headers):
        super().__init__(f"refused with {status}")
        self.status = status
        self.headers = headers


class WsClient:
    """Connects at once; a context manager that closes. Pings of the server are answered, unless the client is paused."""

    def __init__(self, url, subprotocols=None, headers=None, tls=None, timeout=PATIENCE, compression=None, **options):
        self.url = url
        self._messages = None
        if tls is not None:
            options["ssl"] = tls.client_context

        async def open_it():
            self._messages = asyncio.Queue()
            connection = await connect(url, subprotocols=subprotocols, extra_headers=headers, compression=compression,
                                       ping_interval=None, max_size=None, max_queue=None, close_timeout=PATIENCE,
                                       open_timeout=timeout, **options)
            self._reader = asyncio.ensure_future(self._read(connection))
            return connection

        try:
            self._connection = background(open_it(), timeout + 1)
        except InvalidStatusCode as refusal:
            raise Refused(refusal.status_code, refusal.headers) from None

    async def _read(self, connection):
        try:
            async for message in connection:
                self._messages.put_nowait(message)
        except ConnectionClosed:
            pass
        self._messages.put_nowait(None)

    # ---- messages

    def send(self, *messages):
        """Text (str) or binary (bytes) messages; a list is one message in that many fragments."""
        async def send_them():
            for message in messages:
                await self._connection.send(message)
        try:
            background(send_them())
        except ConnectionClosed:
            raise self._closed() from None

    def recv(self, timeout=PATIENCE):
        """The next message, str or bytes. Raises Closed when there is none, and will be none."""
        message = background(self._next(timeout), timeout + 1)
        if message is None:
            raise self._closed()
        return message

    def recv_many(self, count, timeout=PATIENCE):
        """The next `count` messages, in order."""
        return [self.recv(timeout) for _ in range(count)]

    async def _next(self, timeout):
        try:
            message = await asyncio.wait_for(self._messages.get(), timeout)
        except asyncio.TimeoutError:
            raise Timeout(f"{self.url}: no message within {timeout} s") from None
        if message is None:
            self._messages.put_nowait(None)  # it stays closed
        return message

    def pending(self):
        """What has arrived and was not asked for yet."""
        async def take():
            found = []
            while not self._messages.empty():
                message = self._messages.get_nowait()
                if message is None:
                    self._messages.put_nowait(None)
                    break
                found.append(message)
            return found
        return background(take())

    def ping(self, payload=None, timeout=PATIENCE):
        """Sends a ping and waits for its pong: all that the server wrote before has arrived then."""
        async def ping_it():
            await asyncio.wait_for(await self._connection.ping(payload), timeout)
        try:
            background(ping_it(), timeout + 1)
        except ConnectionClosed:
            raise self._closed() from None

    def expect_nothing(self):
        """Nothing that the server has written so far is unread."""
        self.ping()
        unread = self.pending()
        assert not unread, f"{self.url}: unexpected {unread!r}"

    # ---- the connection

    @property
    def subprotocol(self):
        return self._connection.subprotocol

    @property
    def response_headers(self):
        return self._connection.response_headers

    @property
    def local_port(self):
        return self._connection.local_address[1]

    @property
    def closed(self):
        return self._connection.closed

    def _closed(self):
        background(self._connection.wait_closed())
        return Closed(self._connection.close_code, self._connection.close_reason)

    def wait_closed(self, timeout=PATIENCE):
        """Waits for the end; returns the Closed. Unread messages stay readable."""
        background(asyncio.wait_for(self._connection.wait_closed(), timeout), timeout + 1)
        return self._closed()

    def close(self, code=1000, reason=""):
        """The closing handshake; returns the Closed, with the server's answer."""
        background(self._connection.close(code, reason))
        background(asyncio.wait([self._reader]))
        return self._closed()

    def abort(self):
        """As if the client had vanished: the TCP connection ends without a close frame."""
        async def abort_it():
            self._connection.transport.abort()
            await self._connection.wait_closed()
            await asyncio.wait([self._reader])
        background(abort_it())

    def pause(self):
        """Stops reading from the socket; pings stay unanswered then, too."""
        async def pause_it():
            self._connection.transport.pause_reading()
        background(pause_it())

    def resume(self):
        async def resume_it():
            self._connection.transport.resume_reading()
        background(resume_it())

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None and not self.closed:
            self.close()
        else:
            self.abort()
