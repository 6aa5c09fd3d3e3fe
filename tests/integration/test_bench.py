"""The benchmarks run, and find nothing lost, doubled or out of order. What they measure is nobody's concern here."""
# ctest: unsanitized
# ctest: TIMEOUT 180 RUN_SERIAL TRUE

import json
import os
import subprocess
import xml.etree.ElementTree as xml

import pytest

from lib import BINARY, ROOT


def bench(program, *arguments):
    command = [ROOT / "bench" / program, "--quick", "--build-dir", os.path.dirname(BINARY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("scenario", ["fanout-faces", "request", "storm"])
def test_run(tmp_path, scenario):
    bench("run", "--scenario", scenario, "--json", tmp_path / "r.json", "--svg", tmp_path / "r.svg")
    cases = json.loads((tmp_path / "r.json").read_text())["cases"]
    assert cases
    for case in cases:
        assert case["result"]["valid"], case
        assert case["result"]["operations"] > 0, case
    assert xml.parse(tmp_path / "r.svg").getroot().tag.endswith("svg")


def test_compare(tmp_path):
    text = bench("compare", "--peers", "floor", "--scenario", "unicast", "idle", "--json", tmp_path / "c.json")
    medians = json.loads((tmp_path / "c.json").read_text())["medians"]
    assert {entry["peer"] for entry in medians} == {"switchboard", "floor"}
    assert all(entry["value"] is not None for entry in medians if entry["what"] != "memory of Redis")
    assert "| Switchboard ×2 |" in text


def test_a_missing_program_is_told():
    done = subprocess.run([ROOT / "bench/run", "--quick", "--build-dir", ROOT / "docs"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "is not there" in done.stderr
