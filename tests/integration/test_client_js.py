"""The JavaScript client: its tests, run by Node, with brokers where they need some."""

import shutil

from lib import ROOT, Process

FOLDER = ROOT / "tests" / "js"
NODE = shutil.which("node") or shutil.which("nodejs")


def run(pattern, brokers=()):
    # Where Debian keeps the modules that its packages bring, such as ws.
    env = {"NODE_PATH": "/usr/share/nodejs"}
    if brokers:
        env["SWITCHBOARD_URLS"] = " ".join(broker.ws("") for broker in brokers)
    files = sorted(str(file) for file in FOLDER.glob(pattern))
    assert NODE and files
    with Process("node", [NODE, "--test", *files], env=env) as node:
        code = node.wait(timeout=240)
    assert code == 0, node.log_tail(400)


def test_without_a_broker():
    run("*.test.mjs")


def test_with_brokers(brokers):
    run("broker/*.test.mjs", brokers)
