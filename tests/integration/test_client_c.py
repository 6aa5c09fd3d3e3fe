"""libswitchboard against real brokers: its examples, TLS, recovery over an instance change, and what it installs."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from lib import BINARY, PATIENCE, SANITIZED, VALGRIND, Broker, Certificate, Cluster, Process, ROOT

BUILD = pathlib.Path(BINARY).parent
CALLS = 100 if VALGRIND else 1000


def example(name, *words):
    return Process(name, [BUILD / "examples" / name, *words])


def run(name, *words, timeout=PATIENCE * 3):
    done = subprocess.run([BUILD / "examples" / name, *map(str, words)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


def swb(broker, *words, **options):
    command = [BUILD / "swb", words[0], "--url", broker.ws("/connect"), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, **options)


def test_a_backend_gets_the_answer_of_a_session_on_another_instance(cluster):
    with example("serve", cluster[0].ws("/connect?session=userSever_8080")) as serve:
        serve.line_wait("online as session:userSever_8080")
        code, out, err = run("ask", cluster[1].ws("/connect"), "userSever_8080", CALLS)
        assert (code, err) == (0, "")
        assert out == f"{CALLS} calls, each answered right\n"


def test_asking_nobody_is_answered_at_once(broker):
    code, _, err = run("ask", broker.ws("/connect"), "nobody", 1)
    assert code == 1
    assert "nobody" in err


def test_a_listener_gets_what_was_published_while_its_instance_was_down(redis):
    with Cluster(2, redis=redis) as cluster:
        first, second = cluster
        with example("listen", first.ws("/connect"), "orders.eu", 3) as listen:
            listen.line_wait("subscribed")
            assert swb(second, "publish", "orders.eu", "one", "--store").returncode == 0
            listen.line_wait("topic:orders.eu: one")
            first.kill()
            listen.line_wait("offline")
            assert swb(second, "publish", "orders.eu", "two", "--store").returncode == 0
            first.start()
            listen.line_wait("topic:orders.eu: nothing was missed")
            assert swb(second, "publish", "orders.eu", "three", "--store").returncode == 0
            assert listen.wait() == 0
        assert [line for line in listen.lines if line.startswith("topic:orders.eu: ") and "nothing" not in line] == [
            "topic:orders.eu: one", "topic:orders.eu: two", "topic:orders.eu: three"]


def test_the_end_of_the_server_is_told_and_survived(broker):
    with example("serve", broker.ws("/connect?session=userSever_8080")) as serve:
        serve.line_wait("online as")
        mark = serve.log_mark()
        broker.restart()
        serve.line_wait("offline", since=mark)
        serve.line_wait("online as", since=mark)
        assert run("ask", broker.ws("/connect"), "userSever_8080", 3)[0] == 0


def test_tls_is_verified():
    with Certificate() as certificate, Certificate(names=("DNS:elsewhere",)) as other:
        with Broker(tls=certificate) as broker:
            assert swb(broker, "online", "--ca-file", certificate.cert).stdout == "1\n"
            unknown = swb(broker, "online")
            assert unknown.returncode == 6
            assert "certificate" in unknown.stderr
        with Broker(tls=other) as broker:
            wrong = swb(broker, "online", "--ca-file", other.cert)
            assert wrong.returncode == 6
            assert "hostname mismatch" in wrong.stderr


def symbols(path, *options):
    text = subprocess.run(["nm", "--defined-only", *options, path], check=True, capture_output=True, text=True).stdout
    return {line.split()[2] for line in text.splitlines() if re.match(r"[0-9a-f]+ [A-Z] ", line)}


def declared():
    code = re.sub(r"/\*.*?\*/|typedef[^;]*;", "", (ROOT / "client/switchboard.h").read_text(), flags=re.DOTALL)
    return set(re.findall(r"\b(swb_\w+)\(", code))


def test_the_libraries_show_what_the_header_declares_and_nothing_else():
    shared = {name.partition("@")[0] for name in symbols(BUILD / "libswitchboard.so", "-D")} - {"SWITCHBOARD_0"}
    assert shared == declared()
    if not SANITIZED:
        assert symbols(BUILD / "libswitchboard.a") == declared()


@pytest.mark.skipif(SANITIZED, reason="a program without sanitizers can't use a library with them")
def test_what_is_installed_is_enough_to_build_with(broker):
    folder = tempfile.mkdtemp(prefix="sb-install-")
    try:
        prefix = pathlib.Path(folder)
        subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, capture_output=True)
        config = next(prefix.glob("lib/**/switchboard.pc"))
        # The file names the prefix that the build was made for; elsewhere pkg-config derives it from where the file is.
        environment = {**os.environ, "PKG_CONFIG_PATH": str(config.parent)}
        names = subprocess.run(["pkg-config", "--libs", "--cflags", "--define-variable", f"libdir={config.parent.parent}",
                                "--define-variable", f"includedir={prefix / 'include'}", "switchboard", "libevent_core"],
                               check=True, capture_output=True, text=True, env=environment).stdout.split()
        program = prefix / "ask"
        subprocess.run(["cc", ROOT / "client/examples/ask.c", "-o", program, *names], check=True)
        served = example("serve", broker.ws("/connect?session=userSever_8080"))
        with served:
            served.line_wait("online as")
            done = subprocess.run([program, broker.ws("/connect"), "userSever_8080", "3"], capture_output=True, text=True,
                                  env={**os.environ, "LD_LIBRARY_PATH": str(config.parent.parent)}, timeout=PATIENCE)
            assert done.returncode == 0, done.stderr
        for page in ("man1/swb.1", "man3/libswitchboard.3"):
            assert (prefix / "share/man" / page).exists()
    finally:
        shutil.rmtree(folder)
