"""The API's port, and the log's other end."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile

from lib.paths import DEPLOY
from lib.ports import free_port

from .attack import Attack, raise_fd_limit
from .wire import ENDED, Conn, Door, converse, http

DIES_WITH_US = [shutil.which("setpriv"), "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
HEAD = "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n"


def request(path="/v1/send/user:foe", method="POST", token=None, **fields):
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    if token:
        more += f"Authorization: Bearer {token}\r\n"
    return HEAD.format(method=method, path=path, more=more).encode()


class OnApi(Attack):
    """`callers` at each broker's API, each with one() again and again."""

    phase = "api"
    callers = 16

    async def run(self, ground):
        await ground.gather(*(self.repeat(ground, Door(f"api{n}", port)) for n, port in enumerate(ground.apis)
                              for _ in range(self.callers)))

    async def repeat(self, ground, door):
        while ground.more:
            conn = None
            try:
                conn = await Conn.open(door)
                ground.count("connections")
                await self.one(ground, conn)
            except (*ENDED, asyncio.TimeoutError):
                ground.count("cut")
                await asyncio.sleep(0.05)
            finally:
                if conn:
                    conn.abort()

    async def one(self, ground, conn):
        raise NotImplementedError


class SlowBodies(OnApi):
    """Bodies that trickle in, with the token and without."""
    name = "api-slow-bodies"
    then = "without the token no body is waited for"
    seconds = 6.0

    async def one(self, ground, conn):
        known = ground.random.random() < 0.5
        await conn.send(request(token=known and ground.token, Content_Length=100000))
        answered = asyncio.ensure_future(conn.response(ground.left + 1))
        while ground.more and not answered.done():
            conn.post(b"x")
            await asyncio.sleep(0.1)
        if not known:
            ground.check(await answered == 401, f"a slow body without the token: {conn.status or 'no answer'}")
        answered.cancel()


class LargeBodies(OnApi):
    """64 callers at each broker with 16 MiB each, that nobody may send, and the last piece is missing."""
    name, short = "api-large-bodies", True
    then = "without the token no body is read"
    callers, seconds = 64, 6.0

    async def one(self, ground, conn):
        await conn.send(request(Content_Length=16 << 20))
        try:
            for _ in range(255):
                await conn.send(bytes(65536), 5)
                ground.count("bytes", 65536)
        except ENDED:
            return
        ground.fail("16 MiB of a body were taken without the token")
        await asyncio.sleep(ground.left)


class Chunks(OnApi):
    """Chunked bodies that are wrong, endless, or huge by their own word."""
    name = "api-chunks"

    async def one(self, ground, conn):
        bodies = [b"zz\r\nx\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx", b"7fffffff\r\nx", b"-1\r\nx\r\n", b"5\r\nhelloXX0\r\n\r\n", b"1\r\na\r\n" * 5000,
                  b"5;" + b"e" * 100000 + b"\r\nhello\r\n0\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 5000 + b"\r\n", b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n"]
        more = ground.random.choice([{}, {"Content_Length": 5}])
        await conn.send(request(token=ground.token, Transfer_Encoding=ground.random.choice(["chunked", "chunked, chunked", "gzip, chunked", "x"]),
                                **more) + ground.random.choice(bodies))
        await conn.response(1)


class Headers(OnApi):
    """Heads that are long, that have thousands of fields, or no end."""
    name = "api-header-flood"

    async def one(self, ground, conn):
        head = request(token=ground.token, Content_Length=0)[:-2]
        await conn.send(head + ground.random.choice([b"X: 1\r\n" * 5000, b"X: " + b"x" * 300000, b"X" * 300000, b"X: 1\r\n " * 3000,
                                                     b"\0: 1\r\n\r\n", b"X : 1\r\n\r\n", b":\r\n\r\n"]))
        await conn.response(1)


class Rebinding(Attack):
    """A page in the operator's browser, by a name of its own for 127.0.0.1."""
    name, phase = "api-wrong-host", "api"
    then = "refused unless the Host is known"
    seconds = 2.0

    async def run(self, ground):
        for number, port in enumerate(ground.apis):
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b", "[::ffff"):
                for path in ("/v1/sessions", "/v1/stats", "/metrics"):
                    status, body = await http(port, path, fields={**ground.bearer, "Host": host})
                    ground.count("requests")
                    ground.check(status and status >= 400, f"{path} by the name {host.replace(str(port), 'PORT') or '(none)'!r}: {status}")
            status, _, _ = await converse(Door("api", port), b"GET /v1/stats HTTP/1.1\r\nAuthorization: Bearer "
                                          + ground.token.encode() + b"\r\n\r\n")
            ground.check(status != 200, "/v1/stats without a Host: 200")
            for host in ("127.0.0.1", f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST"):
                status, _ = await http(port, "/v1/stats", fields={**ground.bearer, "Host": host})
                ground.check(status == 200, f"/v1/stats by the name {host.replace(str(port), 'PORT')}: {status}")


class Methods(OnApi):
    """Requests as of the clients' port: methods, versions, smuggled second ones."""
    name = "api-requests"

    async def one(self, ground, conn):
        get = request("/v1/stats", "GET", ground.token)
        await conn.send(ground.random.choice([
            get * 200, request("/v1/%zz", "GET", ground.token), request("/v1/sessions/%00", "GET", ground.token),
            request("/v1/sessions/" + "a" * 8000, "GET", ground.token), request("/" + "../" * 500, "GET", ground.token),
            request(method="CONNECT", path="a:1"), request(method="TRACE", token=ground.token), request(method="X" * 5000),
            get.replace(b"1.1", b"9.9"), get.replace(b"\r\n", b"\n"), b"\x16\3\1\2\0\1\0\1\xfc", b"\r\n" * 3000,
            request("/v1/stats", "GET", ground.token, Content_Length=5) + b"hello" + get,
            request("/v1/stats?" + "a=1&" * 3000, "GET", ground.token), request("/v1/stats", "GET", "x" * 10000),
            request("/v1/batch", token=ground.token, Content_Length=2000000) + b"\n" * 2000000]))
        await conn.response(1)


class Guesses(OnApi):
    """Tokens by the thousand."""
    name = "api-token-guesses"
    callers = 8

    async def one(self, ground, conn):
        await conn.send(b"".join(request("/v1/stats", "GET", f"guess-{ground.random.random()}") for _ in range(100)))
        for _ in range(100):
            if await conn.response(2) in (0, None):
                break
            ground.check(conn.status != 200, "a guessed token was taken")
            ground.count("guesses")


class Unread(OnApi):
    """Long answers that nobody reads."""
    name = "api-unread"
    callers, seconds = 32, 6.0

    async def run(self, ground):
        topic = f"{ground.mark}.long"
        for _ in range(200):
            await http(ground.apis[0], f"/v1/publish/{topic}?store=true", "POST", b"x" * 5000, ground.bearer)
        self.path = f"/v1/topics/{topic}/history?limit=1000"
        await super().run(ground)

    async def one(self, ground, conn):
        conn.stop_reading()
        try:
            for _ in range(50):
                await conn.send(request(self.path, "GET", ground.token) * 10, 2)
                ground.count("requests", 10)
        except asyncio.TimeoutError:
            pass
        await asyncio.sleep(ground.left)


class OpenRequests(OnApi):
    """As many requests as are let wait, to a session that never answers: health must not stand behind them."""
    name = "api-waiting-requests"
    callers, seconds = 700, 6.0

    async def run(self, ground):
        self.silent = await ground.upgraded(0, f"/websocket/{ground.name_of(0)}/5")
        await super().run(ground)

    async def one(self, ground, conn):
        await conn.send(request(f"/v1/request/session:{ground.name_of(0)}_5?timeout=60000", token=ground.token, Content_Length=1) + b"?")
        await conn.response(ground.left)


class HoardApi(Attack):
    """More connections to the API than there are descriptors."""
    name, phase = "api-hoard", "api"
    seconds = 6.0
    size = 4600

    async def run(self, ground):
        held = []

        async def one(number):
            held.append(await Conn.open(Door("api", ground.apis[0]), timeout=2))
        task = asyncio.ensure_future(ground.crowd(min(self.size, raise_fd_limit() - 100), one, at_once=200))
        await asyncio.wait([task], timeout=ground.left)
        await asyncio.sleep(ground.left)
        task.cancel()
        ground.count("held", len(held))


class UnreadLog(Attack):
    """A broker whose standard error is a pipe that nobody reads, and many lines to write."""
    name, phase, short = "unread-log", "log", True
    then = "it serves on, and stays healthy"
    seconds = 5.0

    async def run(self, ground):
        port, api = free_port(), free_port()
        reading, writing = os.pipe()
        command = [*DIES_WITH_US, ground.binary, "-c", str(DEPLOY / "switchboard.conf"), "--listen", f"127.0.0.1:{port}", "--api", f"127.0.0.1:{api}",
                   "--log-level", "debug", "--drain-time", "0s"]
        with tempfile.TemporaryDirectory() as folder:
            broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, cwd=folder,
                                      env={key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")})
            os.close(writing)
            try:
                await self.use(ground, broker, Door("unread", port), api)
            finally:
                broker.send_signal(signal.SIGTERM)
                try:
                    broker.wait(5)
                except subprocess.TimeoutExpired:
                    ground.fail("SIGTERM is ignored behind a full pipe")
                    broker.kill()
                    broker.wait()
                os.close(reading)

    async def use(self, ground, broker, door, api):
        for _ in range(100):
            if (await http(api, "/healthz", timeout=1))[0] == 200:
                break
            await asyncio.sleep(0.05)
        done = 0
        while ground.more and done < 1500:
            try:
                conn = await Conn.upgraded(door, f"/websocket/{ground.mark}{done}", timeout=2)
                conn.abort()
                done += 1
            except (*ENDED, asyncio.TimeoutError):
                break
        ground.count("sessions", done)
        ground.check(done > 100, f"frozen after {done} connections")
        ground.check((await http(api, "/healthz", timeout=2))[0] == 200, "not healthy behind a full pipe")
        ground.check(broker.poll() is None, f"ended with {broker.poll()} behind a full pipe")
