"""What all Python tests share: fixtures, what a failure shows, and that nothing is left running."""

import pytest

from lib import Broker, Cluster, RedisServer, process


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Each test ends what it started; one that does not fails, and hurts none of the next."""
    yield
    left = process.end_all()
    assert not left, "the test left running: " + ", ".join(left)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the ends of the logs of all processes of that test."""
    report = (yield).get_result()
    if report.failed:
        for started in process.of_this_test():
            report.sections.append((f"log of {started.name}", started.log_tail()))
    if call.when == "teardown":
        process.forget_all()


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
