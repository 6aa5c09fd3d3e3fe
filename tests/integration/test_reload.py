"""SIGHUP reads the configuration again: for newcomers, without touching anybody."""

import os

import pytest

from lib import Broker, RawWs, request

FIRST = """
max_message = 2KiB
[route /say/{name}]
address = user:{name}
on_message = publish user:{name} "first {message}"
"""


@pytest.fixture
def one():
    with Broker(config=FIRST) as broker:
        yield broker


def reload(broker, text, event="configuration reloaded"):
    broker.configure(text)
    mark = broker.log_mark()
    broker.reload()
    return broker.log_wait(event, since=mark)


def test_newcomers_meet_the_new_routes_and_the_others_keep_theirs(one):
    with one.connect("/say/bob") as old:
        reload(one, FIRST.replace("first", "second") + "[route /new/{name}]\non_message = echo\n")
        with one.connect("/say/bob") as new, one.connect("/new/x") as third:
            old.send("a")
            assert old.recv() == new.recv() == "first a"
            new.send("b")
            assert old.recv() == new.recv() == "second b"
            third.send("c")
            assert third.recv() == "c"
    reload(one, "[route /other]\non_message = echo\n")
    assert RawWs(one.port, "/say/bob").status == 404


def test_limits_follow(one):
    with one.raw("/say/bob") as client:
        client.send("x" * 2048)
        assert client.recv() == "first " + "x" * 2048
    reload(one, FIRST.replace("2KiB", "4KiB"))
    with one.raw("/say/bob") as client:
        client.send("x" * 4096)
        assert client.recv() == "first " + "x" * 4096
        client.send("x" * 4097)
        assert client.recv_close()[0] == 1009


def test_max_connections_follows(one):
    with one.connect("/say/bob"):
        reload(one, "max_connections = 1\n" + FIRST)
        assert RawWs(one.port, "/say/bob").status == 503
        reload(one, "max_connections = 2\n" + FIRST)
        with one.connect("/say/bob"):
            assert RawWs(one.port, "/say/bob").status == 503


def test_pings_follow(one):
    """For those that are there already, too; also from off to on."""
    with one.raw("/say/early") as early:
        reload(one, "ping_interval = 0\n" + FIRST)
        with one.raw("/say/off") as off:
            reload(one, "ping_interval = 200ms\n" + FIRST)
            with one.raw("/say/new") as new:
                for client in (new, off, early):
                    assert client.recv_frame(timeout=5).opcode == 9


def test_the_outbox_limit_follows(one):
    reload(one, "outbox_limit = 128KiB\n" + FIRST)
    with one.connect("/say/bob") as speaker, one.raw("/say/bob", rcvbuf=4096) as stalled:
        while not one.log("slow reader cut"):
            speaker.send(*["x" * 2000] * 100)
            speaker.recv_many(100)
        line = one.log("slow reader cut")[0]
        assert line["remote"] == f"127.0.0.1:{stalled.local_port}"
        assert int(line["queued_bytes"]) <= 128 * 1024


def test_the_log_level_and_format_follow():
    with Broker(config="log_level = error\n" + FIRST, log_level=None) as one:
        assert not one.lines
        reload(one, "log_level = info\nlog_format = json\n" + FIRST)
        assert one.lines[-1].startswith("{")
        with one.connect("/say/bob"):
            pass
        reload(one, "log_level = info\nlog_format = logfmt\n" + FIRST)
        assert one.lines[-1].startswith("time=")


def test_a_broken_file_changes_nothing(one):
    one.configure("max_message = lots\n[route /say/{name}]\non_message = shout\n")
    mark = one.log_mark()
    one.reload()
    line = one.line_wait(lambda line: line if "max_message" in line else None, since=mark)
    assert "level=error" in line or "level=warn" in line
    with one.connect("/say/bob") as client:
        client.send("a")
        assert client.recv() == "first a"
    reload(one, FIRST.replace("first", "fixed"))
    with one.connect("/say/bob") as client:
        client.send("a")
        assert client.recv() == "fixed a"


def test_what_can_not_change_stays_and_is_named(one):
    mark = one.log_mark()
    reload(one, FIRST.replace("max_message", "prefix = other:\nlease = 30s\nmax_message"))
    lines = " ".join(one.lines[mark:])
    assert "prefix" in lines and "lease" in lines
    assert one.readyz() == 200


def test_many_reloads_with_clients(one):
    clients = []
    for i in range(30):
        reload(one, FIRST.replace("first", f"round{i}"))
        clients.append(one.connect(f"/say/u{i}"))
    for i, client in enumerate(clients):
        client.send("x")
        assert client.recv() == f"round{i} x"
        client.close()


# ---- files that are none


def test_what_came_through_a_pipe_is_kept(tmp_path):
    """A shell's <(…), and standard input: what they held at the start is gone at the next reading."""
    (tmp_path / "given").write_text("api_token = abcdefgh12345\n" + FIRST)
    under = ("bash", "-c", f'exec "$@" < <(cat {tmp_path}/given)', "bash")
    with Broker(args=("-c", "/dev/stdin"), under=under) as one:
        line = reload(one, "", "configuration not reloaded")
        assert line["problem"] == "/dev/stdin: is not a regular file"
        assert request(one.api_port, "/v1/stats").status == 401
        with one.connect("/say/bob") as client:
            client.send("a")
            assert client.recv() == "first a"


@pytest.mark.parametrize("key", ["config", "token"])
def test_a_pipe_that_nobody_writes_into_holds_nothing_up(one, key):
    os.mkfifo(os.path.join(one.folder, "pipe"))
    if key == "config":
        os.unlink(one.config)
        os.rename(os.path.join(one.folder, "pipe"), one.config)
    else:
        with open(one.config, "a") as file:
            file.write(f"[switchboard]\napi_token_file = {one.folder}/pipe\n")
    mark = one.log_mark()
    with one.connect("/say/bob") as client:
        one.reload()
        line = one.log_wait("configuration not reloaded", since=mark)
        assert line["problem"].endswith("is not a regular file")
        client.send("a")
        assert client.recv() == "first a"
    os.unlink(one.config)
    reload(one, FIRST.replace("first", "second"))
    with one.connect("/say/bob") as client:
        client.send("a")
        assert client.recv() == "second a"


@pytest.mark.parametrize("kind", ["directory", "device"])
def test_other_kinds_of_files_are_none_either(one, kind):
    os.unlink(one.config)
    if kind == "directory":
        os.mkdir(one.config)
    else:
        os.symlink("/dev/null", one.config)
    one.reload()
    assert one.log_wait("configuration not reloaded")["problem"].endswith("is not a regular file")
    with one.connect("/say/bob") as client:
        client.send("a")
        assert client.recv() == "first a"


def test_a_pipe_may_be_read_once_at_the_start(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with Broker(args=("-c", path), wait=False) as one:
        path.write_text(FIRST)
        one.ready()
        with one.connect("/say/bob") as client:
            client.send("a")
            assert client.recv() == "first a"
