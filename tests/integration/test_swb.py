"""swb, the command line."""

import base64
import json
import subprocess

import pytest

from lib import Broker, Cluster, WsClient, free_port, wait_until


def messages(process):
    return [line for line in process.lines if not line.startswith("swb: ")]


# ---- messages


def test_send_and_listen(broker, swb):
    swb.at(broker)
    with swb.listen("listen", "--user", "bob", "--count", "3", "--json") as bob:
        assert swb("send", "user:bob", "hi", "-v") == "delivered\n"
        swb("send", "user:bob", '{"n": 1}', "--data")
        swb("send", "user:bob", "--binary", stdin=b"\x00\xff\n", binary=True)
        assert bob.wait() == 0
    first, second, third = map(json.loads, messages(bob))
    assert (first["to"], first["text"]) == ("user:bob", "hi")
    assert first["from"].startswith("session:")
    assert second["data"] == {"n": 1}
    assert base64.b64decode(third["binary"]) == b"\x00\xff\n"


def test_standard_input_is_one_message_a_line(broker, swb):
    swb.at(broker)
    lines = [f"line {number}" for number in range(1000)]
    with swb.listen("listen", "--session", "s", "--count", "1000") as listener:
        swb("send", "session:s", stdin="\n".join(lines))
        assert listener.wait() == 0
    assert [line.partition(": ")[2] for line in messages(listener)] == lines


def test_a_key_is_for_one_message_of_one_user(broker, swb):
    swb.at(broker)
    for command, target in (("publish", "keyed"), ("send", "topic:keyed")):
        for words in ((), ("--user", "bob")):
            swb(command, target, "--store", "--key", "k", *words, stdin="one\ntwo\n", code=2)
            assert "--key is for one message" in swb.errors
    swb("history", "topic:keyed", code=0)
    first = swb("publish", "keyed", "one", "--store", "--key", "k", "--user", "bob", "-v")
    assert swb("send", "topic:keyed", "again", "--store", "--key", "k", "--user", "bob", "-v") == first
    swb("publish", "keyed", "two", "--store", "--key", "k", "--user", "amy")
    # Whoever is nobody is somebody else each time, as the help says.
    swb("publish", "keyed", "three", "--store", "--key", "k")
    swb("publish", "keyed", "--binary", "--store", "--key", "k", stdin=b"four\n", binary=True)
    assert swb("history", "topic:keyed", "--limit", "3") == "one\ntwo\nthree\n"
    assert len(swb("history", "topic:keyed").splitlines()) == 4


def test_nobody_there_is_an_exit_code(broker, swb):
    swb.at(broker)
    swb("send", "user:nobody", "hi", code=3)
    swb("publish", "nothing", "hi", code=3)
    swb("request", "session:nobody", "hi", code=3)
    swb("presence", "user:nobody", code=3)
    assert swb("send", "user:nobody", "hi", "--store", "--json").startswith('{"receipt":"stored","epoch":"')


def test_history_and_presence_and_online(broker, swb):
    swb.at(broker)
    for number in range(3):
        swb("publish", "news", number, "--store")
    assert swb("history", "topic:news") == "0\n1\n2\n"
    assert swb("history", "topic:news", "--reverse", "--limit", "2") == "2\n1\n"
    first = json.loads(swb("history", "topic:news", "--limit", "1", "--json"))
    assert swb("history", "topic:news", "--since", first["offset"]) == "1\n2\n"
    with WsClient(broker.ws("/websocket/amy")):
        wait_until(lambda: swb("online") == "2\n", "amy is online")
        assert swb("presence", "user:amy").endswith("\tamy\n")


# ---- requests


def test_serve_answers_with_a_programs_output(broker, swb):
    swb.at(broker)
    with swb.listen("serve", "--session", "srv", "sh", "-c", 'echo "$SWITCHBOARD_KIND: $(cat)"'):
        assert swb("request", "session:srv", "question") == "text: question\n"
        answers = swb("request", "session:srv", stdin="a\nb\nc\n")
        assert answers == "text: a\ntext: b\ntext: c\n"
        assert swb("request", "session:srv", "[1]", "--data") == "json: [1]\n"


def test_a_failing_program_refuses(broker, swb):
    swb.at(broker)
    with swb.listen("serve", "--session", "srv", "sh", "-c", "echo first >&2; echo no way >&2; exit 1"):
        swb("request", "session:srv", "q", code=5)
        assert "no way" in swb.errors and "first" not in swb.errors


def test_a_program_that_takes_too_long_is_ended(broker, swb, tmp_path):
    swb.at(broker)
    trace = tmp_path / "ended"
    with swb.listen("serve", "--session", "srv", "sh", "-c", f"trap 'touch {trace}; exit 1' TERM; sleep 60 & wait"):
        swb("request", "session:srv", "q", "--timeout", "300ms", code=4)
        wait_until(trace.exists, "the program got SIGTERM")


def test_a_target_that_leaves_is_told_at_once(broker, swb):
    swb.at(broker)
    with swb.listen("serve", "--session", "srv", "sleep", "60") as serve:
        ask = swb.start("request", "session:srv", "q", "--timeout", "60s").start()
        serve.line_wait(": q")
        serve.terminate()
        assert ask.wait() == 5


# ---- sub


def test_sub_recovers_what_a_pattern_missed_while_it_was_killed(cluster, swb):
    swb.at(cluster[0])
    sub = swb.listen("sub", "orders.>")
    swb("publish", "orders.eu", "1", "--store")
    swb("publish", "orders.us.ny", "2", "--store")
    sub.line_wait("us.ny < ")
    sub.kill()
    swb.at(cluster[1])
    for number in range(3, 7):
        swb("publish", ("orders.eu", "orders.us.ny")[number % 2], number, "--store")
    swb.at(cluster[0])
    with swb.start("sub", "orders.>", "--count", "5", "--json").start() as sub:
        sub.line_wait('"6"')
        swb("publish", "orders.eu", "7", "--store")
        assert sub.wait() == 0
    texts = {}
    for message in map(json.loads, messages(sub)):
        texts.setdefault(message["to"], []).append(message["text"])
    assert texts == {"topic:orders.us.ny": ["3", "5"], "topic:orders.eu": ["4", "6", "7"]}


def test_sub_recovers_a_topic_and_its_state_can_be_chosen(broker, swb, tmp_path):
    swb.at(broker)
    state = tmp_path / "state"
    for number in range(3):
        swb("publish", "a", number, "--store")
    assert swb("sub", "a", "--since", "all", "--count", "2", "--state", state) == "0\n1\n"
    swb("publish", "a", "3", "--store")
    assert swb("sub", "a", "--count", "2", "--state", state) == "2\n3\n"
    with swb.listen("sub", "a", "--state", state):
        swb("sub", "a", "--state", state, code=1)
        assert "another swb sub" in swb.errors


def test_sub_goes_on_after_the_broker_was_away(redis, swb):
    with Cluster(2, redis=redis) as cluster:
        swb.at(cluster[0])
        with swb.listen("sub", "orders.*", "--no-recover") as sub:
            swb("publish", "orders.eu", "1", "--store")
            sub.line_wait(": 1")
            cluster[0].kill()
            swb.at(cluster[1])
            swb("publish", "orders.eu", "2", "--store")
            cluster[0].start()
            sub.line_wait(": 2")
            swb("publish", "orders.eu", "3", "--store")
            sub.line_wait(": 3")
        assert [line.rpartition(": ")[2] for line in messages(sub)] == ["1", "2", "3"]


def test_sub_tells_when_the_history_was_lost(swb):
    port = free_port()
    with Broker(port=port) as broker:
        swb.at(broker)
        swb("publish", "a.b", "1", "--store")
        swb("sub", "a.b", "--since", "all", "--count", "1")
    with Broker(port=port) as broker:
        swb.at(broker)
        swb("publish", "a.b", "2", "--store")
        assert swb("sub", "a.b", "--count", "1") == "2\n"
        assert "messages may be missing" in swb.errors


# ---- the program itself


def test_bench_measures_all_four(broker, swb):
    swb.at(broker)
    rows = [json.loads(line) for line in swb("bench", "-c", 20, "-m", 500, "--json").splitlines()]
    assert [row["name"] for row in rows] == ["connections", "fanout", "unicast", "requests"]
    assert all(row["count"] >= 20 and row["errors"] == 0 for row in rows)


def test_usage_errors_have_their_own_exit_code(swb):
    for words in (["nonsense"], ["send"], ["send", "--nonsense", "x"], ["request", "a", "b", "--timeout", "x"], ["sub"],
                  ["online", "--url"], ["online", "--json=1"], ["online", "--url", "nonsense"], ["completion", "fish"],
                  ["sub", "a", "--since", "x"], ["bench", "nonsense"], ["sessions", "--limit", "x"]):
        swb(*words, code=2)
        assert swb.errors.startswith("swb: "), words


def test_no_connection_is_unavailable(swb):
    swb.env["SWITCHBOARD_URL"] = f"ws://127.0.0.1:{free_port()}"
    swb.env["SWITCHBOARD_API"] = f"http://127.0.0.1:{free_port()}"
    for words in (["online"], ["send", "user:a", "x"], ["listen"], ["sub", "a"], ["sessions"], ["bench", "-c", 1]):
        swb(*words, code=6)


def test_the_url_comes_from_a_flag_the_environment_or_a_file(broker, swb, tmp_path):
    folder = tmp_path / ".config/switchboard"
    folder.mkdir(parents=True)
    (folder / "url").write_text(broker.ws("/connect") + "\n")
    assert swb("online") == "1\n"
    swb.env["SWITCHBOARD_URL"] = f"ws://127.0.0.1:{free_port()}"
    swb("online", code=6)
    assert swb("online", "--url", broker.ws("/connect")) == "1\n"


def test_help_and_completions_name_every_command(swb):
    commands = [line.split()[0] for line in swb("help").splitlines() if line.startswith("  ") and line[2] not in " -"]
    assert {"listen", "sub", "bench", "drain"} <= set(commands)
    bash, zsh = swb("completion", "bash"), swb("completion", "zsh")
    for command in commands:
        assert swb(command, "--help").startswith(f"Usage: swb {command} ")
        assert f"        {command}) words=" in bash
        assert f"    {command})\n" in zsh
    done = subprocess.run(["bash", "-c", bash + 'COMP_WORDS=(swb re) COMP_CWORD=1; _swb; echo "${COMPREPLY[@]}"'],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "request\n"


@pytest.mark.parametrize("words, says", [
    (["--session", "a~b"], "--session a~b: ~ is reserved"), (["--session", ""], "--session : "), (["--user", "x" * 256], "--user x"),
    (["--user", "a\u202eb"], "--user a\\u202eb: "), (["--user", "a", "--session", "b"], "--user and --session exclude each other")])
@pytest.mark.parametrize("command", [["listen"], ["serve"]])
def test_names_that_nobody_can_have(swb, command, words, says):
    swb(*command, *words, *(["true"] if command == ["serve"] else []), code=2)
    assert swb.errors.startswith(f"swb: {says}")


def test_history_goes_on_where_a_send_was(broker, swb):
    swb.at(broker)
    receipts = [json.loads(swb("publish", "news", number, "--store", "--json")) for number in range(3)]
    epoch, offset = receipts[0]["epoch"], receipts[0]["offset"]
    shown = swb("publish", "news", "3", "--store", "-v")
    assert f"{epoch}:" in shown
    assert swb("history", "topic:news", "--since", f"{epoch}:{offset}") == "1\n2\n3\n"
    assert swb.errors == ""
    assert swb("history", "topic:news", "--since", offset) == "1\n2\n3\n"
    assert swb("history", "topic:news", "--since", f"x{epoch}:{offset}") == "1\n2\n3\n"
    assert swb.errors == "swb: topic:news: messages may be missing\n"
    for bad in (f":{offset}", f"{epoch}:", ""):
        swb("history", "topic:news", "--since", bad, code=2)
        assert swb.errors == "swb: --since takes OFFSET or EPOCH:OFFSET\n"
