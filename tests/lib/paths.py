"""Where things are. CTest sets the variables; by hand: SWITCHBOARD_BIN=build/test/switchboard pytest tests/integration"""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
BINARY = os.path.abspath(os.environ.get("SWITCHBOARD_BIN") or ROOT / "build/test/switchboard")
SANITIZED = os.environ.get("SWITCHBOARD_SANITIZE", "").upper() in ("1", "ON", "TRUE", "YES")
VALGRIND = os.environ.get("SWITCHBOARD_TEST_VALGRIND", "") not in ("", "0")

# How long things may take, in seconds: generous, since only a failure ever waits that long.
PATIENCE = 60.0 if VALGRIND else 20.0
