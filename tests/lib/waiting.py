"""Waiting for what has no event to wait for."""

import time


class Timeout(AssertionError):
    """Something did not happen in time."""


def wait_until(condition, what="condition", timeout=None, interval=0.02):
    """Calls condition() until its result is true, and returns that result."""
    from .paths import PATIENCE

    deadline = time.monotonic() + (PATIENCE if timeout is None else timeout)
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Timeout(f"{what}: still {result!r} at the deadline")
        time.sleep(interval)
