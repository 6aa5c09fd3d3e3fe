"""The documents tell the truth: their commands work and print what is shown, and their links lead somewhere.

What is checked of a document is said in it, in comments that readers do not see:

    <!-- run -->                    the commands ("$ …") of the next block end with 0 and print what the block shows
    <!-- run status 2 -->           … they end with that status
    <!-- run until -->              … the commands are repeated until they print it
    <!-- run server -->             the block's one command runs from now on, and prints at least the lines shown
    <!-- not run: why -->           the next block can't be run here
    <!-- client NAME BROKER PATH -->    a WebSocket client connects to that broker, and is online
    <!-- NAME sends TEXT -->
    <!-- NAME receives TEXT -->     … as its next message
    <!-- kill BROKER -->            kill -9

… in what is shown stands for any text; alone in a line, for any lines. The ports are those that deploy/up takes when nobody
else has them; here each is replaced by the one in use.
"""

import os
import pty
import re
import subprocess
import time

import pytest

from lib import BINARY, PATIENCE, ROOT, Broker, HAProxy, Process, RedisServer, Timeout, free_port

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
TOKEN = re.compile(r"^<!-- (?P<note>.*?) -->$|^```(?P<kind>[a-z]+)\n(?P<block>.*?)^```$", re.M | re.S)
COMMANDS = ("console", "sh", "bash", "shell")


def ids(path):
    return path.name


# ---- what is in a document

def steps(text):
    """(note, block, line number) in the order of the document. A note that is for a block comes together with it."""
    note = None
    for found in TOKEN.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["note"] is not None:
            if note:
                yield note, None, line
            note = found["note"]
        else:
            about = note if note and re.match(r"(not )?run\b", note) else None
            if note and not about:
                yield note, None, line
            if found["kind"] in COMMANDS:
                yield about, found["block"], line
            note = None
    if note:
        yield note, None, text.count("\n") + 1


def commands(block):
    """(command, what it prints) of a block."""
    found = []
    continued = False
    for line in block.splitlines():
        if continued:
            found[-1][0] += "\n" + line
        elif line.startswith("$ "):
            found.append([line[2:], []])
        else:
            assert found, f"a block begins with a command: {line}"
            found[-1][1].append(line)
        continued = line.endswith("\\") and not found[-1][1]
    return [(command, shown) for command, shown in found]


def pattern(shown):
    lines = [r"(?:[^\n]*\n)*" if line == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + r"\n"
             for line in shown]
    return re.compile("".join(lines))


# ---- the place where its commands run

def environment(**more):
    """Variables of this name are settings for brokers; those of the test run are none."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith("SWITCHBOARD_")}, **more}


class Place:
    """What deploy/up starts, with the names that it gives."""

    def __init__(self):
        self.clients = {}
        self.servers = []
        self.redis = RedisServer()
        self.brokers = {}
        self.proxy = None
        self.ports = {}

    def __enter__(self):
        try:
            self.redis.start()
            self.brokers = {name: Broker(redis=self.redis, instance=name, log_level="info") for name in ("broker1", "broker2")}
            for broker in self.brokers.values():
                broker.start()
            self.proxy = HAProxy(self.brokers.values()).start()
            one, two = self.brokers.values()
            self.ports = {8080: self.proxy.port, 6390: self.redis.port, 9001: one.port, 9002: two.port, 9100: one.api_port,
                          9101: two.api_port, 8000: free_port(), 8001: free_port()}
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, error, trace):
        for client in self.clients.values():
            client.__exit__(kind, error, trace)
        for server in [*self.servers, self.proxy, *self.brokers.values(), self.redis]:
            if server:
                server.__exit__(kind, error, trace)

    def here(self, text):
        """The text with the ports of this place."""
        return re.sub(r"(?:(?<=:)|(?<=-p ))(\d{4})\b", lambda found: str(self.ports.get(int(found[1]), found[1])), text)

    def command(self, text):
        return self.here(text).replace("build/switchboard", BINARY)

    def shell(self, command):
        """(status, output) of a command in a terminal, where programs print what people see."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(["bash", "-c", "stty cols 400; " + self.command(command)], cwd=ROOT, stdin=theirs, stdout=theirs,
                              stderr=theirs, env=environment(TERM="dumb"), start_new_session=True) as running:
            os.close(theirs)
            output = b""
            try:
                while chunk := os.read(ours, 65536):
                    output += chunk
            except OSError:  # the last program in the terminal is gone
                pass
            finally:
                os.close(ours)
            status = running.wait(PATIENCE)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r\n", "\n")
        return status, "".join(line.rstrip() + "\n" for line in plain.splitlines())

    # ---- notes

    def note(self, note):
        words = note.split(" ", 2)
        if words[0] == "client":
            broker, path = words[2].split(" ")
            self.clients[words[1]] = self.brokers[broker].connect(path)
        elif words[0] == "kill":
            self.brokers[words[1]].kill()
        elif words[1:2] == ["sends"]:
            self.clients[words[0]].send(words[2])
        elif words[1:2] == ["receives"]:
            assert self.clients[words[0]].recv() == words[2]
        else:
            raise AssertionError(f"not known: {note}")

    # ---- blocks

    def run(self, how, block):
        words = how.split()
        assert words[0] == "run"
        for command, shown in commands(block):
            if words[1:] == ["server"]:
                self.serve(command, shown)
                continue
            until = words[1:] == ["until"]
            status = int(words[2]) if words[1:2] == ["status"] else 0
            expected = pattern([self.here(line) for line in shown])
            deadline = time.monotonic() + PATIENCE
            while True:
                got, output = self.shell(command)
                fits = got == status and (not shown or expected.fullmatch(output))
                if fits or not until or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            assert got == status, f"$ {command}\nended with {got}:\n{output}"
            assert fits, f"$ {command}\nprints\n{output}\nnot\n" + "\n".join(shown)

    def serve(self, command, shown):
        server = Process(f"$ {command}", ["bash", "-c", "exec " + self.command(command)], cwd=ROOT, env=environment(),
                         inherit=False)
        self.servers.append(server.start())
        for line in filter(None, shown):
            wanted = pattern([self.here(line)])
            server.line_wait(lambda said, wanted=wanted: wanted.fullmatch(said.rstrip() + "\n"))


# ---- the tests

@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "<!-- run" in path.read_text()], ids=ids)
def test_commands_do_what_is_shown(path):
    with Place() as place:
        for note, block, line in steps(path.read_text()):
            try:
                if block is None:
                    place.note(note)
                elif note and note.startswith("run"):
                    place.run(note, block)
            except (AssertionError, Timeout) as failure:
                raise AssertionError(f"{path.name}:{line}: {failure}") from failure


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_command_is_run_or_says_why_not(path):
    silent = [line for note, block, line in steps(path.read_text()) if block is not None and note is None]
    assert not silent, f"{path.name}: the blocks of commands in lines {silent} have no <!-- run --> before them"


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=ids)
def test_links_lead_somewhere(path):
    broken = []
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or anchor and anchor not in anchors(to):
            broken.append(target)
    assert not broken, f"{path.name} links to {broken}"


def anchors(path):
    """The names that headings of a document get as targets of links."""
    headings = re.findall(r"^#+ +(.*?) *$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_of_the_configuration_is_that_of_the_program():
    printed = subprocess.run([BINARY, "--print-config-reference"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs/configuration.md").read_text() == printed, \
        "write it anew: switchboard --print-config-reference >docs/configuration.md"


def test_operations_lists_all_metrics_and_log_events():
    text = (ROOT / "docs/operations.md").read_text()
    header = (ROOT / "broker/metrics.h").read_text()
    missing = [name for name in re.findall(r'X\(\w+,\s*"(\w+)"', header) if f"`{name}`" not in text]
    for folder in ("base", "broker", "storage"):
        for source in sorted((ROOT / folder).rglob("*.c")):
            events = re.findall(r'log_(?:info|warn|error)\("([^"]+)"', source.read_text())
            missing += [event for event in events if f"`{event}`" not in text]
    assert not missing, f"operations.md does not mention {sorted(set(missing))}"


def test_architecture_names_what_exists():
    text = (ROOT / "docs/architecture.md").read_text()
    sources = [path for folder in ("base", "broker", "proto", "storage") for path in (ROOT / folder).rglob("*.[ch]")]
    code = "\n".join(path.read_text() for path in sources)
    known = {path.name for path in (ROOT / "storage").rglob("*.lua")} | {path.name for path in sources}
    missing = [name for name in re.findall(r"\b([a-z_0-9]+)\(\)", text) if not re.search(rf"\b{name}\(", code)]
    missing += [name for name in re.findall(r"(?<![\w/*])([a-z_0-9]+\.(?:c|lua))\b", text) if name not in known]
    missing += [path for path in re.findall(r"`([a-z]+/[\w./]+)`", text) if not (ROOT / path).exists()]
    assert not missing, f"architecture.md speaks of {missing}"


def test_haproxy_asks_the_ports_that_deploy_up_gives_out():
    """The example for HAProxy and the table in the README show the same two brokers."""
    readme = re.findall(r"broker\d +\d+ +127\.0\.0\.1:(\d+) +http://127\.0\.0\.1:(\d+)", (ROOT / "README.md").read_text())
    config = re.findall(r"server broker\d 127\.0\.0\.1:(\d+) port (\d+)", (ROOT / "deploy/haproxy.cfg").read_text())
    assert len(readme) == 2 and config == readme
