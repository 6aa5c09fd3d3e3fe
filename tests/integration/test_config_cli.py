"""The program's options from outside: where values come from, what is refused and how, and its exit codes."""

import os
import re
import socket
import subprocess

import pytest

from lib import BINARY, Broker, Certificate, free_port

# A password never leaves the process, whatever is printed.
SECRET = "pa55word"


def run(*args, env=None, expect=0):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}
    done = subprocess.run([BINARY, *map(str, args)], env={**kept, **(env or {})}, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=30)
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "switchboard.conf"
        path.write_text(text)
        return path
    return write


def printed(*args, **options):
    """key → (value, where it came from), of --print-config."""
    found, comment = {}, ""
    for line in run(*args, "--print-config", **options).stdout.splitlines():
        if match := re.match(r"(\w+) = ?(.*?)(?:\s+; (.*))?$", line):
            found.setdefault(match[1], (match[2].strip(), match[3] or comment))
        comment = line.removeprefix("; ") if line.startswith("; ") else ""
    return found


# ---- asking


def test_help_names_every_key_and_its_default():
    text = run("--help").stdout
    keys = printed()
    for key, (value, origin) in keys.items():
        if origin in ("default", "built in") and key not in ("address", "on_message", "reply"):
            assert f"--{key.replace('_', '-')}" in text, key
            if value and origin == "default" and key != "storage":
                assert f"(default {value})" in text.replace("\n" + " " * 33, " "), key
    assert run("-h").stdout == text


def test_version():
    assert re.fullmatch(r"switchboard \d+\.\d+\.\d+\S*\n", run("--version").stdout)
    assert run("-V").stdout == run("--version").stdout


def test_check_config(config):
    assert run("--check-config").returncode == 0
    assert run("-c", config("max_connections = 5\n"), "--check-config").returncode == 0
    done = run("-c", config("max_connections = many\n"), "--check-config", expect=2)
    assert "max_connections" in done.stderr


def test_the_examples_are_sound():
    from lib import ROOT
    run("-c", ROOT / "deploy/switchboard.conf", "--check-config")


def test_print_config_reads_back_to_the_same(config):
    path = config("log_level = debug\nprefixes = /a, /b\n[route /x/{n:int}]\naddress = topic:{n}\non_message = publish topic:{n} \"{{{message}}}\"\n")
    first = run("-c", path, "--print-config").stdout
    second = run("-c", config(first), "--print-config").stdout
    strip = lambda text: [line.split("  ;")[0].rstrip() for line in text.splitlines() if not line.startswith(";")]
    assert strip(first) == strip(second)


def test_passwords_are_not_printed(config):
    for args, env in ((["--redis", f"redis://user:{SECRET}@h:1/0"], {}), ([], {"SWITCHBOARD_REDIS": f"redis://:{SECRET}@h:1/0"}),
                      (["-c", config(f"redis = redis://u:{SECRET}@h:1/0\n")], {})):
        done = run(*args, "--print-config", env=env)
        assert SECRET not in done.stdout + done.stderr
        assert "***" in done.stdout
    for bad in (f"redis://u:{SECRET}@h:99999/0", f"redis//u:{SECRET}@h", f"http://u:{SECRET}@h"):
        assert SECRET not in run("--redis", bad, "--check-config", expect=2).stderr


# ---- precedence


def test_command_line_over_environment_over_file_over_default(config):
    path = config("max_connections = 3\nlog_level = warn\nlease = 9s\n")
    env = {"SWITCHBOARD_MAX_CONNECTIONS": "2", "SWITCHBOARD_LOG_LEVEL": "error"}
    assert printed()["max_connections"] == ("20000", "default")
    found = printed("-c", path)
    assert found["max_connections"][0] == "3" and str(path) in found["max_connections"][1] and ":1" in found["max_connections"][1]
    assert found["lease"][0] == "9s"
    found = printed("-c", path, env=env)
    assert found["max_connections"] == ("2", "environment SWITCHBOARD_MAX_CONNECTIONS")
    assert found["lease"][0] == "9s"
    found = printed("-c", path, "--max-connections", "1", env=env)
    assert found["max_connections"] == ("1", "command line")
    assert found["log_level"] == ("error", "environment SWITCHBOARD_LOG_LEVEL")


def test_every_key_works_as_option_variable_and_line(config):
    values = {"max_connections": "7", "max_message": "2KiB", "outbox_limit": "2MiB", "ping_interval": "7s", "ping_timeout": "7s",
              "handshake_timeout": "7s", "close_timeout": "7s", "drain_time": "7s", "heartbeat": "700ms", "lease": "7s",
              "redis": "redis://127.0.0.1:7/7", "prefix": "seven:", "instance": "seven", "log_level": "warn", "log_format": "json",
              "listen": "127.0.0.1:7777", "api": "127.0.0.1:7778", "insecure": "yes", "inflight_limit": "7"}
    for key, value in values.items():
        assert printed(f"--{key.replace('_', '-')}={value}")[key] == (value, "command line")
        name = f"SWITCHBOARD_{key.upper()}"
        assert printed(env={name: value})[key] == (value, f"environment {name}")
        assert printed("-c", config(f"{key} = {value}\n"))[key][0] == value


def test_the_file_may_be_named_in_the_environment(config):
    path = config("max_connections = 3\n")
    assert printed(env={"SWITCHBOARD_CONFIG": str(path)})["max_connections"][0] == "3"


# ---- refusals: exit code 2, one line a problem, naming place, key and what is allowed


@pytest.mark.parametrize("text, place, parts", [
    ("max_conections = 5", 1, ["max_conections", "unknown", "max_connections"]),
    ("\n; comment\nmax_connections = many", 3, ["max_connections", "many"]),
    ("max_connections = 0", 1, ["max_connections", "1"]),
    ("max_connections = 99999999999", 1, ["max_connections", "10000000"]),
    ("max_message = 1 parsec", 1, ["max_message", "KiB"]),
    ("ping_interval = 5", 1, ["ping_interval", "ms"]),
    ("ping_interval = 5 weeks", 1, ["ping_interval"]),
    ("log_level = loud", 1, ["log_level", "loud", "debug"]),
    ("insecure = perhaps", 1, ["insecure", "yes", "no"]),
    ("listen = nowhere", 1, ["listen", "nowhere"]),
    ("listen = 127.0.0.1:99999", 1, ["listen", "65535"]),
    ("redis = http://localhost", 1, ["redis", "redis://"]),
    ("instance = two words", 1, ["instance", "A-Z"]),
    ("max_connections = 5\nmax_connections = 6", 2, ["max_connections", ":1"]),
    ("just words", 1, ["="]),
    ("[rout /x]", 1, ["rout"]),
    ("[route no-slash]\naddress = topic:x", 1, ["no-slash"]),
    ("[route /x/{a}]\naddress = topic:{b}", 2, ["{b}"]),
    ("[route /x/{a:float}]\naddress = topic:{a}", 1, ["float"]),
    ("[route /x]\naddress = planet:x", 2, ["planet"]),
    ("[route /x]\non_message = shout", 2, ["on_message", "echo"]),
    ("[route /x]\ncolour = red", 2, ["colour"]),
    ("[route /x/{a}]\naddress = topic:{a}\n[route /x/{b}]\naddress = topic:{b}", 3, ["/x/{"]),
], ids=lambda value: value.split("=")[0].strip()[-30:] if isinstance(value, str) else None)
def test_a_bad_file_is_told_line_by_line(config, text, place, parts):
    path = config(text + "\n")
    for command in (["--check-config"], [], ["--print-config"]):
        done = run("-c", path, *command, expect=2)
        assert f"{path}:{place}" in done.stderr
        for part in parts:
            assert part in done.stderr
        assert done.stdout == ""
        assert all(line.startswith("switchboard: ") for line in done.stderr.splitlines())


def test_all_problems_are_told_at_once(config):
    done = run("-c", config("lease = x\nheartbeat = y\nnonsense = z\n"), "--log-level", "loud", "--check-config", expect=2)
    assert len(done.stderr.splitlines()) == 4


@pytest.mark.parametrize("args, parts", [
    (["--max-connections"], ["--max-connections", "value"]),
    (["--max-connections", "x"], ["--max-connections", "x"]),
    (["--max-conections", "5"], ["--max-conections", "--max-connections"]),
    (["-x"], ["-x"]), (["stray"], ["stray"]), (["-c", "/nowhere/at.all"], ["/nowhere/at.all"]), (["-c", "/"], ["/"]),
    (["--tls-cert", "/etc/hostname"], ["tls_key"]), (["--tls-key", "/etc/hostname"], ["tls_cert"]),
    (["--tls-cert", "/nowhere", "--tls-key", "/nowhere"], ["/nowhere"]),
    (["--storage", "redis"], ["redis"]), (["--storage", "memory", "--redis", "redis://h"], ["storage", "redis"]),
    (["--lease", "1s", "--heartbeat", "900ms"], ["lease", "heartbeat"]),
    (["--max-message", "8MiB", "--outbox-limit", "1MiB"], ["outbox_limit", "max_message"]),
    (["--listen", "127.0.0.1:7000", "--api", "127.0.0.1:7000"], ["listen", "api"]),
], ids=lambda value: " ".join(value)[:40])
def test_a_bad_command_line(args, parts):
    done = run(*args, expect=2)
    for part in parts:
        assert part in done.stderr
    assert done.stdout == ""


def test_a_bad_variable_is_named():
    done = run("--check-config", env={"SWITCHBOARD_LEASE": "soon"}, expect=2)
    assert "SWITCHBOARD_LEASE" in done.stderr and "soon" in done.stderr
    done = run("--check-config", env={"SWITCHBOARD_LEESE": "5s"}, expect=2)
    assert "SWITCHBOARD_LEESE" in done.stderr


# ---- safe by default


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_beyond_loopback_is_refused(address):
    for option in ("--listen", "--api"):
        done = run(option, address, expect=2)
        assert "--insecure" in done.stderr and "authentication" in done.stderr and option[2:] in done.stderr


def test_beyond_loopback_when_told_so():
    port = free_port()
    with Broker(port=port, args=["--listen", f"0.0.0.0:{port}", "--insecure"]) as broker:
        with broker.connect("/echo") as client:
            client.send("hi")
            assert client.recv() == "hi"


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_loopback_is_both_families(address):
    port = free_port()
    with Broker(args=["--listen", f"{address}:{port}"]) as broker:
        assert broker.log_wait("started")["listen"] == f"{address}:{port}"
        host = address.strip("[]")
        socket.create_connection((host, port), timeout=5).close()


# ---- what fails at start is told, and ends it


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--listen", "--api"):
            other = "--api" if option == "--listen" else "--listen"
            done = run(option, f"127.0.0.1:{port}", other, f"127.0.0.1:{free_port()}", expect=1)
            assert str(port) in done.stderr and "in use" in done.stderr


def test_a_certificate_that_is_none(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate\n")
    with Certificate() as good:
        for cert, key in ((bad, good.key), (good.cert, bad)):
            done = run("--tls-cert", cert, "--tls-key", key, "--listen", f"127.0.0.1:{free_port()}", "--api", "off", expect=1)
            assert "level=error" in done.stderr


# ---- the command line's variables


def test_the_variables_of_swb_are_not_the_brokers():
    swb = {"SWITCHBOARD_URL": "wss://broker.example/connect", "SWITCHBOARD_TOKEN": "abcdefgh", "SWITCHBOARD_FROM": "session:x",
           "SWITCHBOARD_TO": "user:x", "SWITCHBOARD_KIND": "text"}
    assert run("--check-config", env=swb).stderr == ""
    assert printed(env=swb) == printed()
    run("--check-config", env={"SWITCHBOARD_URLS": "x"}, expect=2)


def test_the_apis_url_is_for_swb_and_its_address_for_both(tmp_path):
    url = {"SWITCHBOARD_API": "http://127.0.0.1:9"}
    assert printed(env=url)["api"] == ("127.0.0.1:8001", "default")
    assert "SWITCHBOARD_API holds a URL, which is for swb" in run("--check-config", env=url).stderr
    assert printed(env={"SWITCHBOARD_API": "127.0.0.1:9"})["api"] == ("127.0.0.1:9", "environment SWITCHBOARD_API")
    run("--check-config", env={"SWITCHBOARD_API": "127.0.0.1"}, expect=2)
    assert "--api" in run("--check-config", "--api", "http://127.0.0.1:9", expect=2).stderr
    # What it says at the start it does not say again, and least of all as a reason to refuse what is right.
    path = tmp_path / "switchboard.conf"
    path.write_text("max_message = 2KiB\n")
    with Broker(args=("-c", path), env=url) as one:
        one.reload()
        one.log_wait("configuration reloaded")
        path.write_text("max_message = lots\n")
        one.reload()
        assert "max_message" in one.log_wait("configuration not reloaded")["problem"]
