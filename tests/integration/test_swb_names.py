"""What swb shows of others can't command the terminal, turn a line around, or look like something else."""

import json
import os
import pty
import select
import subprocess
import time

from lib import PATIENCE, RawWs, StructuredClient, wait_until
from lib.swb import SWB

NASTY = "x\u202etxt.exe \u200b\u200d\ufeff\U000e0041 end"
SHOWN = "x\\u202etxt.exe \\u200b\\u200d\\ufeff\\udb40\\udc41 end"


def on_terminal(swb, *words):
    """What the command writes to a terminal."""
    here, there = pty.openpty()
    with subprocess.Popen([SWB, *words], env=swb.env, stdin=subprocess.DEVNULL, stdout=there, stderr=subprocess.PIPE) as popen:
        os.close(there)
        text, end = b"", time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if select.select([here], [], [], 0.1)[0]:
                    text += os.read(here, 65536)
            except OSError:  # whoever had the other end is gone
                break
        assert popen.wait(PATIENCE) == 0, popen.stderr.read()
    os.close(here)
    return text.decode().replace("\r\n", "\n")


def test_a_user_agent_that_hides_something(broker, swb):
    swb.at(broker)
    with RawWs(broker.port, "/websocket/a/1", headers={"User-Agent": NASTY}) as client:
        assert client.status == 101
        wait_until(lambda: broker.api("/v1/sessions/a_1", expect=None).status == 200, "it is there")
        assert broker.api("/v1/sessions/a_1")["agent"] == NASTY
        for shown in (swb("sessions"), on_terminal(swb, "sessions"), swb("session", "a_1"), on_terminal(swb, "session", "a_1")):
            assert SHOWN in shown
            assert shown.isascii()
        # JSON is exact, and on a terminal it says the same without hiding anything.
        assert json.loads(swb("session", "a_1", "--json"))["agent"] == NASTY
        shown = on_terminal(swb, "session", "a_1", "--json")
        assert json.loads(shown)["agent"] == NASTY and shown.isascii()


def test_columns_stay_in_line(broker, swb):
    swb.at(broker)
    with RawWs(broker.port, "/websocket/a/1", headers={"User-Agent": NASTY}), \
         RawWs(broker.port, "/websocket/b/1", headers={"User-Agent": "plain"}):
        wait_until(lambda: broker.stats()["online"] == 2, "both are there")
        head, *rows = swb("sessions").splitlines()
        at = head.index("connected_at")
        assert len(rows) == 2 and all(row[at - 1] == " " and row[at:at + 2] == "20" for row in rows)


def test_a_registry_that_somebody_forged(cluster, swb):
    swb.at(cluster[0])
    with cluster[0].raw("/websocket/a/1"):
        cluster.redis.client.hset("sb:session:{a_1}", mapping={"remote": "1.2.3.4\n\x1b[2Jforged row\t\x9b31m", "route": "\u202e/x"})
        for shown in (swb("sessions"), on_terminal(swb, "sessions")):
            assert len(shown.splitlines()) == 2
            assert "1.2.3.4\\x0a\\x1b[2Jforged row\\x09\\x9b31m" in shown and "\\u202e/x" in shown
            assert shown.replace("\n", "").isprintable()


def test_names_and_messages_on_a_terminal(broker, swb):
    swb.at(broker)
    with StructuredClient(broker.ws("/connect?user=me%E2%80%8D")) as me:
        me.call("subscribe", topic="t", presence=True)
        assert "me\\u200d~" in on_terminal(swb, "presence", "topic:t")
        me.call("publish", topic="t", text="a\u202eb\x1b[2J\x9b\u200dc", store=True)
        shown = on_terminal(swb, "history", "topic:t", "-v")
        assert "a\\u202eb\\x1b[2J\\x9b\u200dc" in shown and "session:me\\u200d~" in shown


def test_complaints_show_what_they_quote(broker, swb):
    swb.at(broker)
    swb("send", "user:a\u202eb\x1b[2J", "hi", code=1)
    assert "\u202e" not in swb.errors and "\x1b" not in swb.errors and swb.errors.startswith("swb: ")
