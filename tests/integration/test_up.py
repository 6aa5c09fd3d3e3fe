"""deploy/up: all of it starts, works through HAProxy, tells what happens, and ends without a trace."""
# ctest: PROCESSORS 2

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

from lib import BINARY, ROOT, Process, RedisServer, WsClient, request, wait_until
from lib.ports import free_port

ROW = re.compile(r"^ +(redis|broker\d+|haproxy) +(\d+) +(\S+)")


def environment(**more):
    """Variables of this name are settings for the brokers; those of the test run are none."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}
    return {**kept, "SWITCHBOARD_BIN": BINARY, **more}


class Up(Process):
    def __init__(self, *options, port=None, **env):
        self.port = port or free_port()
        self.folder = tempfile.mkdtemp(prefix="sb-up-")
        super().__init__("deploy/up", [ROOT / "deploy/up", "--no-install", "--port", self.port, *options],
                         env=environment(SWITCHBOARD_RUN_DIR=self.folder, **env), cwd="/", inherit=False)

    def start(self):
        super().start()
        self.line_wait(f"ready http://localhost:{self.port}")
        return self

    def stop(self):
        code = self.terminate()
        assert code == 0, f"deploy/up ended with {code}"
        left = [pid for pid in self.rows().values() if os.path.exists(f"/proc/{pid[0]}")]
        assert not left, f"still running: {left}"

    def rows(self):
        """name → (pid, address)"""
        return {found[1]: (int(found[2]), found[3]) for line in self.lines if (found := ROW.match(line))}

    def broker_url(self, name, path):
        return f"ws://{self.rows()[name][1]}{path}"

    def __exit__(self, kind, error, trace):
        super().__exit__(kind, error, trace)
        shutil.rmtree(self.folder, ignore_errors=True)


def refused(*options):
    done = subprocess.run([ROOT / "deploy/up", *options], env=environment(), cwd="/",
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_two_clients_across_brokers_and_through_haproxy():
    with Up() as up:
        assert sorted(up.rows()) == ["broker1", "broker2", "haproxy", "redis"]
        assert up.lines[-1] == f"ready http://localhost:{up.port}"
        assert request(up.port, "/").status == 200
        with WsClient(up.broker_url("broker1", "/websocket/admin")) as one, \
                WsClient(up.broker_url("broker2", "/websocket/admin")) as two, \
                WsClient(f"ws://127.0.0.1:{up.port}/websocket/admin") as three:
            three.send("hello")
            assert [client.recv() for client in (one, two, three)] == ["admin:hello"] * 3


def test_the_lines_to_try_work():
    with Up("--brokers", "1") as up:
        with WsClient(f"ws://127.0.0.1:{up.port}/websocket/userSever/8080") as client:
            lines = [line.strip() for line in up.lines if line.startswith("  redis-cli")]
            assert len(lines) == 3
            run = lambda line: subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
            wait_until(lambda: "userSever_8080" in run(lines[0]), "the session is listed")
            assert "broker1" in run(lines[1])
            assert run(lines[2]).strip() == "1"
            assert client.recv() == "hello"


def test_side_by_side():
    with Up() as one, Up() as two:
        ports = [address for up in (one, two) for _, address in up.rows().values()]
        assert len(set(ports)) == 8
        with WsClient(f"ws://127.0.0.1:{one.port}/websocket/a") as here, \
                WsClient(f"ws://127.0.0.1:{two.port}/websocket/a") as there:
            here.send("x")
            assert here.recv() == "a:x"
            there.expect_nothing()


def test_memory_storage():
    with Up("--storage", "memory") as up:
        assert list(up.rows()) == ["broker1"]
        with WsClient(f"ws://127.0.0.1:{up.port}/websocket/a") as client:
            client.send("x")
            assert client.recv() == "a:x"


def test_given_redis(redis):
    with Up("--redis", redis.url) as up:
        assert sorted(up.rows()) == ["broker1", "broker2", "haproxy"]
        assert redis.client.zcard("sb:instances") == 2
    with Up("--redis", redis.unix_url) as up:
        assert redis.client.zcard("sb:instances") == 2


def test_a_dead_broker_is_told_and_can_be_started_again():
    with Up() as up:
        pid, address = up.rows()["broker1"]
        os.kill(pid, signal.SIGKILL)
        up.line_wait(f"broker1 (pid {pid}) ended with status 137")
        command = up.line_wait(lambda line: line if line.startswith("  /") else None).strip()
        with WsClient(f"ws://127.0.0.1:{up.port}/websocket/a") as client:
            client.send("x")
            assert client.recv() == "a:x"
        kept = environment()
        del kept["SWITCHBOARD_BIN"]
        with Process("broker1 again", ["bash", "-c", "exec " + command], env=kept, inherit=False):
            host, port = address.split(":")

            def answers():
                try:
                    return request(int(port), "/", timeout=2).status == 200
                except OSError:
                    return False
            wait_until(answers, "broker1 is back")
        up.signal(signal.SIGTERM)
        assert up.wait() == 0
        assert not [line for line in up.lines if "no such job" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_with_clients_connected(number):
    with Up() as up:
        with WsClient(f"ws://127.0.0.1:{up.port}/websocket/a") as client:
            up.signal(number)
            assert client.wait_closed().code == 1012
        assert up.wait() == 0
        assert up.lines[-1].endswith("all ended")


def test_killed_it_takes_all_with_it():
    with Up() as up:
        pids = [pid for pid, _ in up.rows().values()]
        up.kill()
        wait_until(lambda: not any(map(_alive, pids)), "all processes are gone")


def _alive(pid):
    """Runs: what has ended and waits for init to notice does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_port_in_use_is_an_error_before_anything_starts():
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        code, said = refused("--port", str(port))
        assert code == 1
        assert said == f"up: port {port} is in use; choose another one with --port\n"


# ---- for this machine and this user only

def listening(pid):
    """The local addresses that a process listens on, as the kernel writes them."""
    inodes = {os.readlink(one) for one in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_it_listens_on_loopback_only():
    loopback = {"0100007F", "00000000000000000000000001000000"}
    for options in ([], ["--storage", "memory"]):
        with Up(*options) as up:
            for name, (pid, _) in up.rows().items():
                found = listening(pid)
                assert found and set(found) <= loopback, (name, found)
            assert not any("nobody is asked" in line for line in up.lines)


def test_it_says_so_when_others_reach_it():
    with Up("--bind", "*") as up:
        assert listening(up.rows()["haproxy"][0]) == ["00000000"]
        assert any("nobody is asked" in line for line in up.lines)


@pytest.mark.parametrize("name", ["haproxy.cfg", "nginx.conf", "redis.conf"])
def test_what_is_shipped_listens_on_loopback_only(name):
    text = (ROOT / "deploy" / name).read_text()
    found = re.findall(r"^ *(?:bind|listen) +(.*?);?$", text, re.M)
    assert found and all(one.startswith("127.0.0.1") for one in found), found


def test_it_leaves_nothing_where_others_can_write(tmp_path):
    with Up(TMPDIR=str(tmp_path)) as up:
        assert os.listdir(tmp_path) == []
        assert os.stat(up.folder).st_mode & 0o777 == 0o700
        assert all(os.stat(os.path.join(up.folder, one)).st_mode & 0o077 == 0 for one in os.listdir(up.folder))


def command_lines(folder):
    """Of all processes that write into this folder."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(one).startswith(folder) for one in (process / "fd").iterdir()):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            pass
    return found


def test_a_password_is_neither_shown_nor_passed_on_a_command_line():
    with RedisServer(password="p4ssw0rd-of-redis") as redis:
        assert "p4ssw0rd" in redis.url
        with Up("--brokers", "1", SWITCHBOARD_REDIS=redis.url) as up:
            assert sorted(up.rows()) == ["broker1", "haproxy"]
            lines = [line.strip() for line in up.lines if line.startswith("  redis-cli")]
            assert len(lines) == 3
            found = subprocess.run(["bash", "-c", lines[0]], capture_output=True, text=True,
                                   env={**os.environ, "REDISCLI_AUTH": redis.password})
            assert found.returncode == 0 and "NOAUTH" not in found.stdout + found.stderr
            commands = command_lines(up.folder)
            assert len(commands) >= 2
            logs = [path.read_text() for path in pathlib.Path(up.folder).glob("*.*")]
            os.kill(up.rows()["broker1"][0], signal.SIGKILL)
            up.line_wait(lambda line: "To start it again" in line)
            up.signal(signal.SIGTERM)
            up.wait()
            assert not any("p4ssw0rd" in text for text in [*up.lines, *commands, *logs])


def test_a_password_in_the_command_line_is_refused():
    code, said = refused("--redis", "redis://bob:p4ssw0rd@127.0.0.1:1/0")
    assert code == 2 and "SWITCHBOARD_REDIS" in said and "p4ssw0rd" not in said


@pytest.mark.parametrize("options, said", [
    (["--brokers"], "--brokers needs a value"),
    (["--brokers", "0"], "--brokers takes a number from 1 to 32, not '0'"),
    (["--brokers", "two"], "--brokers takes a number from 1 to 32, not 'two'"),
    (["--port", "70000"], "--port takes a number from 1 to 65535, not '70000'"),
    (["--redis", "localhost"], "--redis takes redis://host:port or unix://path, not 'localhost'"),
    (["--storage", "disk"], "--storage takes redis or memory, not 'disk'"),
    (["--storage", "memory", "--brokers", "2"], "--storage memory is for one broker, not 2"),
    (["--storage", "memory", "--redis", "redis://h:1"], "--storage memory and --redis exclude each other"),
    (["--bind", "here"], "--bind takes an IPv4 address or *, not 'here'"),
    (["--what"], "unknown option '--what'"),
])
def test_bad_options(options, said):
    code, text = refused(*options)
    assert code == 2
    assert said in text


def test_help():
    done = subprocess.run([ROOT / "deploy/up", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: deploy/up" in done.stdout and done.stderr == ""


def test_a_directory_of_somebody_elses_things_is_left_alone(tmp_path):
    precious = tmp_path / "precious.log"
    precious.write_text("mine")
    tmp_path.chmod(0o755)
    done = subprocess.run([ROOT / "deploy/up", "--no-install", "--storage", "memory", "--port", str(free_port())],
                          env=environment(SWITCHBOARD_RUN_DIR=str(tmp_path)), cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 1 and "is not empty, and was not made by deploy/up" in done.stderr
    assert precious.read_text() == "mine" and tmp_path.stat().st_mode & 0o777 == 0o755
    assert os.listdir(tmp_path) == ["precious.log"]


def test_a_directory_of_an_earlier_run_is_used_again():
    with Up("--storage", "memory") as up:
        again = Up("--storage", "memory")
        os.rmdir(again.folder)
        up.stop()
        again.folder = up.folder
        again.env["SWITCHBOARD_RUN_DIR"] = up.folder
        with open(os.path.join(up.folder, "old.log"), "w"):
            pass
        again.start()
        assert not os.path.exists(os.path.join(up.folder, "old.log"))
        again.stop()
