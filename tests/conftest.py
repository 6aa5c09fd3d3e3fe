"""What all Python tests share: fixtures, what a failure shows, and that nothing is left running."""

import os
import re

import pytest

from lib import Broker, Cluster, RedisServer, process


def pytest_collection_modifyitems(config, items):
    """tests/run -k: a regular expression for the names of functions, as CTest has them for its tests."""
    pattern = os.environ.get("SWITCHBOARD_TEST_PATTERN")
    if pattern:
        config.hook.pytest_deselected(items=[item for item in items if not re.search(pattern, item.name)])
        items[:] = [item for item in items if re.search(pattern, item.name)]


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Each test ends what it started; one that does not fails, and hurts none of the next. What fixtures of a whole file
    started before it stays."""
    before = process.running()
    yield
    left = process.end_all(but=before)
    assert not left, "the test left running: " + ", ".join(left)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the ends of the logs of all processes of that test."""
    report = (yield).get_result()
    if report.failed:
        for started in process.of_this_test():
            report.sections.append((f"log of {started.name}", started.log_tail()))
    if call.when == "teardown":
        process.forget_ended()


@pytest.fixture
def redis():
    with RedisServer() as server:
        yield server


@pytest.fixture
def broker():
    """One broker with memory storage."""
    with Broker() as one:
        yield one


@pytest.fixture
def cluster():
    """Two brokers on one Redis."""
    with Cluster(2) as two:
        yield two
