"""What the browser's tests are run against: the page as two brokers serve it."""

import pytest


@pytest.fixture
def page_url(cluster):
    return f"http://127.0.0.1:{cluster[0].port}"


@pytest.fixture
def page_url_other(cluster):
    return f"http://127.0.0.1:{cluster[1].port}"


@pytest.fixture
def close_code_of(cluster):
    """The code with which a user's session on the first broker was closed, as soon as it is over."""

    def wait_for(uid):
        offline = cluster[0].log_wait("session offline")
        assert offline["session"].startswith(f"{uid}~")
        return int(offline["code"])

    return wait_for
