"""The page in a real browser: two brokers, one page, and what a visitor may see and do there."""

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

WAIT = 10  # seconds
INPUTS = {"user": ["uid"], "session": ["relation", "code"], "topic": ["topic"], "custom": ["path"]}


def start_browser(language, profile):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--window-size=1200,900",
        f"--lang={language}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)


@pytest.fixture(scope="session")
def browsers(tmp_path_factory):
    """One browser a language, started at its first use: starting takes longer than most tests."""
    started = {}

    def get(language):
        if language not in started:
            started[language] = start_browser(language, tmp_path_factory.mktemp("profile"))
        return started[language]

    yield get
    for driver in started.values():
        driver.quit()


@pytest.fixture
def language():
    return "en-US"


@pytest.fixture
def browser(browsers, language):
    """A browser with one new tab, and nothing in its console log."""
    driver = browsers(language)
    old = driver.window_handles
    driver.switch_to.new_window("tab")
    fresh = driver.current_window_handle
    for handle in old:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(fresh)
    driver.get_log("browser")
    return driver


def by_id(browser, name):
    return browser.find_element(By.ID, name)


def wait(browser, condition):
    return WebDriverWait(browser, WAIT, poll_frequency=0.05).until(condition)


def state(browser):
    return by_id(browser, "state").get_attribute("data-state")


def wait_state(browser, wanted):
    wait(browser, lambda b: state(b) == wanted)


def texts(browser, direction):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll(`#log .entry[data-direction=${arguments[0]}] .text`),"
        " (element) => element.textContent)",
        direction,
    )


def wait_texts(browser, direction, wanted):
    try:
        wait(browser, lambda b: texts(b, direction) == wanted)
    except Exception:
        assert texts(browser, direction) == wanted
        raise


def fill(browser, name, value):
    element = by_id(browser, name)
    element.clear()
    element.send_keys(value)


def connect(browser, endpoint, *values):
    Select(by_id(browser, "endpoint")).select_by_value(endpoint)
    for name, value in zip(INPUTS[endpoint], values):
        fill(browser, name, value)
    by_id(browser, "connect").click()
    wait_state(browser, "open")


def send(browser, message):
    fill(browser, "message", message)
    by_id(browser, "send").click()


def open_page(browser, url, endpoint, *values):
    browser.get(url)
    connect(browser, endpoint, *values)


def problems(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_user_message_reaches_both_windows(browser, page_url, page_url_other):
    open_page(browser, page_url, "user", "admin")
    first = browser.current_window_handle
    browser.switch_to.new_window("window")
    open_page(browser, page_url_other, "user", "admin")
    send(browser, "hello")
    wait_texts(browser, "in", ["admin:hello"])
    assert texts(browser, "out") == ["hello"]
    browser.switch_to.window(first)
    wait_texts(browser, "in", ["admin:hello"])


def test_markup_is_shown_not_run(browser, page_url):
    open_page(browser, page_url, "user", "admin")
    hostile = ["<img src=x onerror=\"window.hacked=1\">", "<script>window.hacked=1</script>", "</span>&amp;\"'"]
    for message in hostile:
        send(browser, message)
    wait_texts(browser, "in", [f"admin:{message}" for message in hostile])
    assert texts(browser, "out") == hostile
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements(By.CSS_SELECTOR, "#log img, #log script") == []


def test_keyed_session_is_thanked(browser, page_url):
    open_page(browser, page_url, "session", "pageServer", "8080")
    send(browser, "你好")
    wait_texts(browser, "in", ["Got your message (你好).Thanks !"])


def test_newer_session_replaces_this_one(browser, page_url, page_url_other):
    open_page(browser, page_url, "session", "pageReplaced", "1")
    first = browser.current_window_handle
    browser.switch_to.new_window("window")
    open_page(browser, page_url_other, "session", "pageReplaced", "1")
    browser.switch_to.window(first)
    wait_state(browser, "closed")
    entry = browser.find_elements(By.CSS_SELECTOR, "#log .entry")[-1].text
    assert "4501 replaced" in entry
    assert "a newer connection took this session's name" in entry


def test_topic(browser, page_url, page_url_other):
    open_page(browser, page_url, "topic", "page-news")
    first = browser.current_window_handle
    browser.switch_to.new_window("window")
    open_page(browser, page_url_other, "topic", "page-news")
    send(browser, "extra")
    browser.switch_to.window(first)
    wait_texts(browser, "in", ["extra"])


def test_parameters_are_percent_encoded(browser, page_url):
    open_page(browser, page_url, "user", "王 小?#%明")
    assert by_id(browser, "url").text.endswith("/websocket/%E7%8E%8B%20%E5%B0%8F%3F%23%25%E6%98%8E")
    send(browser, "hi")
    wait_texts(browser, "in", ["王 小?#%明:hi"])


@pytest.mark.parametrize("uid", [".", "..", ""])
def test_unusable_uid_is_refused_by_the_form(browser, page_url, uid):
    browser.get(page_url)
    fill(browser, "uid", uid)
    by_id(browser, "connect").click()
    assert browser.execute_script("return document.getElementById('uid').validity.valid") is False
    assert state(browser) == "closed"
    assert texts(browser, "info") == []


@pytest.mark.parametrize("code", ["007", "+5", "1.5", "x"])
def test_code_must_be_a_canonical_integer(browser, page_url, code):
    browser.get(page_url)
    Select(by_id(browser, "endpoint")).select_by_value("session")
    fill(browser, "code", code)
    by_id(browser, "connect").click()
    assert browser.execute_script("return document.getElementById('code').validity.valid") is False
    assert state(browser) == "closed"


def test_unknown_path_is_an_error_and_can_be_corrected(browser, page_url):
    browser.get(page_url)
    Select(by_id(browser, "endpoint")).select_by_value("custom")
    fill(browser, "path", "/no/such/path")
    by_id(browser, "connect").click()
    wait_texts(browser, "error", ["WebSocket error", "WebSocket closed 1006"])
    assert state(browser) == "closed"
    connect(browser, "custom", "websocket/corrected")
    send(browser, "hi")
    wait_texts(browser, "in", ["corrected:hi"])


def test_link_prefills_the_form(browser, page_url):
    browser.get(f"{page_url}/?endpoint=session&relation=a%20b&code=5")
    assert by_id(browser, "endpoint").get_attribute("value") == "session"
    assert by_id(browser, "relation").get_attribute("value") == "a b"
    assert by_id(browser, "url").text.endswith("/websocket/a%20b/5")
    browser.get(f"{page_url}/?endpoint=nonsense&uid=one#uid=two")
    assert by_id(browser, "endpoint").get_attribute("value") == "user"
    assert by_id(browser, "uid").get_attribute("value") == "two"
    assert state(browser) == "closed"


def test_keyboard_alone_is_enough(browser, page_url):
    browser.get(page_url)
    by_id(browser, "uid").send_keys(Keys.ENTER)
    wait_state(browser, "open")
    assert browser.switch_to.active_element.get_attribute("id") == "message"
    browser.switch_to.active_element.send_keys("one", Keys.SHIFT + Keys.ENTER)
    browser.switch_to.active_element.send_keys("two", Keys.ENTER)
    wait_texts(browser, "in", ["admin:one\ntwo"])
    assert by_id(browser, "message").get_attribute("value") == ""
    by_id(browser, "disconnect").send_keys(Keys.ENTER)
    wait_state(browser, "closed")
    assert browser.switch_to.active_element.get_attribute("id") == "connect"


def test_binary_message_is_shown_as_length_and_hex(browser, page_url, page_url_other):
    open_page(browser, page_url, "topic", "page-binary")
    browser.execute_async_script(
        """const done = arguments[1];
        const socket = new WebSocket(arguments[0].replace(/^http/, "ws") + "/topics/page-binary");
        socket.onopen = () => { socket.send(new Uint8Array(40).fill(0xab)); };
        socket.onmessage = () => done();""",
        page_url,
    )
    wait_texts(browser, "in", [" ".join(["ab"] * 32) + " …"])
    assert browser.find_element(By.CSS_SELECTOR, ".entry .note").text == "binary, 40 bytes"


def test_log_is_bounded(browser, page_url):
    open_page(browser, page_url, "user", "page-flood")
    browser.execute_async_script(
        """const done = arguments[1];
        const socket = new WebSocket(arguments[0].replace(/^http/, "ws") + "/websocket/page-flood");
        let left = 1100;
        socket.onopen = () => { for (let i = 0; i < 1100; i++) socket.send(i); };
        socket.onmessage = () => { if (--left === 0) done(); };""",
        page_url,
    )
    wait(browser, lambda b: texts(b, "in")[-1:] == ["page-flood:1099"])
    assert len(browser.find_elements(By.CSS_SELECTOR, "#log .entry")) == 1000
    at_end = (
        "const f = document.getElementById('log-frame');"
        "return f.scrollHeight - f.scrollTop - f.clientHeight < 2"
    )
    wait(browser, lambda b: b.execute_script(at_end))


def test_close_button(browser, page_url):
    open_page(browser, page_url, "user", "admin")
    assert not by_id(browser, "connect").is_enabled()
    by_id(browser, "disconnect").click()
    wait_state(browser, "closed")
    assert texts(browser, "info")[-1] == "WebSocket closed 1000"
    assert texts(browser, "error") == []
    assert not by_id(browser, "send").is_enabled()
    by_id(browser, "connect").click()
    wait_state(browser, "open")


def test_log_stays_where_the_reader_scrolled(browser, page_url):
    open_page(browser, page_url, "user", "admin")
    send(browser, "line\n" * 25)
    wait(browser, lambda b: b.execute_script("return document.getElementById('log-frame').scrollTop > 100"))
    browser.execute_script("document.getElementById('log-frame').scrollTop = 0")
    browser.execute_async_script(
        """const done = arguments[1];
        const socket = new WebSocket(arguments[0].replace(/^http/, "ws") + "/websocket/admin");
        socket.onopen = () => socket.send("more");
        socket.onmessage = () => requestAnimationFrame(() => requestAnimationFrame(done));""",
        page_url,
    )
    wait(browser, lambda b: texts(b, "in")[-1:] == ["admin:more"])
    assert browser.execute_script("return document.getElementById('log-frame').scrollTop") == 0


def test_clear(browser, page_url):
    open_page(browser, page_url, "user", "admin")
    send(browser, "hello")
    wait_texts(browser, "in", ["admin:hello"])
    by_id(browser, "clear").click()
    assert browser.find_elements(By.CSS_SELECTOR, "#log .entry") == []
    assert state(browser) == "open"


@pytest.mark.parametrize("leave", ["close", "navigate"])
def test_leaving_the_page_closes_cleanly(browser, page_url, close_code_of, leave):
    browser.get(page_url)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    open_page(browser, page_url, "user", f"page-leaves-{leave}")
    if leave == "close":
        browser.close()
        browser.switch_to.window(first)
    else:
        browser.get("about:blank")
    assert close_code_of(f"page-leaves-{leave}") in (1000, 1001)


LABELS = {
    "en-US": {"send": "Send message", "disconnect": "Close connection", "connect": "Connect"},
    "zh-CN": {"send": "发送消息", "disconnect": "关闭WebSocket连接", "connect": "连接WebSocket"},
}
EVENTS = {
    "en-US": ("WebSocket connected", "WebSocket closed 1000", "WebSocket error"),
    "zh-CN": ("WebSocket连接成功", "WebSocket连接关闭 1000", "WebSocket连接发生错误"),
}


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_language_of_the_browser(browser, page_url, language):
    open_page(browser, page_url, "user", "admin")
    assert {name: by_id(browser, name).text for name in LABELS[language]} == LABELS[language]
    opened, closed, failed = EVENTS[language]
    assert opened in texts(browser, "info")
    by_id(browser, "disconnect").click()
    wait_state(browser, "closed")
    assert texts(browser, "info")[-1] == closed
    Select(by_id(browser, "endpoint")).select_by_value("custom")
    fill(browser, "path", "/no/such/path")
    by_id(browser, "connect").click()
    wait(browser, lambda b: failed in texts(b, "error"))
    assert browser.execute_script("return document.body.innerText").find("undefined") == -1


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [320, 375, 768, 1200])
def test_no_horizontal_scrolling(browser, page_url, language, width):
    # Emulated, because a window has a least width that phones are below.
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    open_page(browser, page_url, "user", "w" * 60)
    send(browser, "x" * 200)
    wait(browser, lambda b: texts(b, "in"))
    for endpoint in INPUTS:
        Select(by_id(browser, "endpoint")).select_by_value(endpoint)
        assert browser.execute_script(
            "const d = document.documentElement, f = document.getElementById('log-frame');"
            "return [window.innerWidth, d.scrollWidth <= window.innerWidth, f.scrollWidth <= f.clientWidth]"
        ) == [width, True, True]


def test_page_asks_nobody_else_and_reports_nothing(browser, page_url):
    open_page(browser, page_url, "user", "admin")
    send(browser, "hello")
    wait_texts(browser, "in", ["admin:hello"])
    by_id(browser, "disconnect").click()
    wait_state(browser, "closed")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert {name.rsplit("/", 1)[1] for name in loaded} >= {"app.js", "style.css"}
    assert [name for name in loaded if not name.startswith(page_url + "/")] == []
    assert problems(browser) == []


def test_page_is_served_under_a_strict_policy(browser, page_url):
    browser.get(page_url)
    headers = browser.execute_async_script(
        "const done = arguments[0]; fetch('/').then((answer) => done(Object.fromEntries(answer.headers)))")
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["content-type"] == "text/html; charset=utf-8"
