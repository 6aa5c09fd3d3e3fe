"""The page's second tab, in two windows on two brokers: topics, requests, history, presence, and how connections end."""

import pytest
from lib import StructuredClient
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from test_page import browser, browsers, by_id, fill, language, problems, wait  # noqa: F401 (fixtures)


def state(browser):
    return by_id(browser, "s-state").get_attribute("data-state")


def wait_state(browser, wanted):
    wait(browser, lambda b: state(b) == wanted)


def entries(browser, direction, part="text"):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll(`#s-log .entry[data-direction=${arguments[0]}] .${arguments[1]}`),"
        " (element) => element.textContent)",
        direction, part,
    )


def wait_entries(browser, direction, wanted):
    try:
        wait(browser, lambda b: entries(b, direction) == wanted)
    except Exception:
        assert entries(browser, direction) == wanted, entries(browser, "error", "body")
        raise


def wait_entry(browser, direction, wanted):
    """Waits until an entry is this, among others."""
    wait(browser, lambda b: wanted in entries(b, direction))


def note(browser, direction):
    """The note of the newest entry."""
    return (entries(browser, direction, "note") or [""])[-1]


def wait_note(browser, direction, part):
    wait(browser, lambda b: part in note(b, direction))


def open_tab(browser, url):
    browser.get(url)
    by_id(browser, "tab-structured").click()


def connect(browser, url, user=None, session=None):
    open_tab(browser, url)
    if session is not None:
        fill(browser, "s-session", session)
    elif user is not None:
        fill(browser, "s-user", user)
    by_id(browser, "s-connect").click()
    wait_state(browser, "open")


def subscribe(browser, topic):
    fill(browser, "s-topic", topic)
    by_id(browser, "s-subscribe").click()
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, f"[data-topic='{topic}'][data-state=subscribed]"))


def compose(browser, address, payload):
    fill(browser, "s-address", address)
    fill(browser, "s-payload", payload)


def people(browser, topic):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll(`[data-topic='${arguments[0]}'] .person`), (e) => e.textContent)", topic)


@pytest.fixture
def windows(browser, page_url, page_url_other):
    """Two windows: the session "asker" on one broker, the session "server" on the other; switch(name) goes to one."""
    handles = {"asker": browser.current_window_handle}
    connect(browser, page_url, session="asker")
    browser.switch_to.new_window("window")
    handles["server"] = browser.current_window_handle
    connect(browser, page_url_other, session="server")

    def switch(name):
        browser.switch_to.window(handles[name])

    return switch


def ask(browser, question, to="session:server"):
    compose(browser, to, question)
    by_id(browser, "s-request").click()
    wait_entry(browser, "out", question)


def wait_question(browser, text):
    wait(browser, lambda b: [one.text for one in b.find_elements(By.CSS_SELECTOR, ".question .text")][:1] == [text])


def test_a_question_is_answered_by_the_other_window(browser, windows):
    windows("asker")
    ask(browser, "ready?")
    windows("server")
    wait_question(browser, "ready?")
    assert "session:asker" in browser.find_element(By.CSS_SELECTOR, ".question .from").text
    fill(browser, "s-answer", "yes <b>I</b> am")
    by_id(browser, "s-answer").send_keys(Keys.ENTER)
    wait_entries(browser, "out", ["yes <b>I</b> am"])
    assert browser.find_elements(By.CSS_SELECTOR, ".question") == []
    windows("asker")
    wait_entries(browser, "in", ["yes <b>I</b> am"])
    assert "from session:server" in note(browser, "in")
    assert "answered after" in note(browser, "out")
    assert problems(browser) == []


def test_a_question_is_refused(browser, windows):
    windows("asker")
    ask(browser, "ready?")
    windows("server")
    wait_question(browser, "ready?")
    fill(browser, "s-answer", "not today")
    by_id(browser, "s-refuse").click()
    windows("asker")
    wait_entries(browser, "error", ["The other side refused"])
    assert "not today" in note(browser, "error")
    assert "not answered" in note(browser, "out")


def test_questions_are_answered_in_any_order(browser, windows):
    windows("asker")
    for question in ("one", "two"):
        ask(browser, question)
    windows("server")
    wait(browser, lambda b: len(b.find_elements(By.CSS_SELECTOR, ".question")) == 2)
    cards = browser.find_elements(By.CSS_SELECTOR, ".question")
    cards[1].find_element(By.TAG_NAME, "input").send_keys("to two", Keys.ENTER)
    wait_question(browser, "one")
    by_id(browser, "s-answer").send_keys("to one", Keys.ENTER)
    windows("asker")
    wait_entries(browser, "in", ["to two", "to one"])


def test_a_question_to_nobody_and_one_whose_asker_leaves(browser, windows):
    windows("asker")
    ask(browser, "anybody?", "session:nobody")
    wait_entries(browser, "error", ["Nobody is there"])
    ask(browser, "still there?")
    windows("server")
    wait_question(browser, "still there?")
    windows("asker")
    by_id(browser, "s-disconnect").click()
    wait_state(browser, "closed")
    assert entries(browser, "info")[-1] == "WebSocket closed 1000"
    windows("server")
    wait_entry(browser, "info", "Nobody waits for this answer any more")
    assert browser.find_elements(By.CSS_SELECTOR, ".question") == []


def test_topics(browser, windows):
    subscribe(browser, "orders.eu")
    subscribe(browser, "orders.*")
    wait(browser, lambda b: people(b, "orders.eu") == ["server"])
    windows("asker")
    compose(browser, "topic:orders.eu", "<i>seven</i>")
    assert not by_id(browser, "s-send").is_displayed() and not by_id(browser, "s-request").is_displayed()
    by_id(browser, "s-publish").click()
    wait_note(browser, "out", "delivered")
    windows("server")
    wait_entries(browser, "in", ["<i>seven</i>"] * 2)
    assert "from session:asker · to topic:orders.eu" in note(browser, "in")
    browser.find_element(By.CSS_SELECTOR, "[data-topic='orders.*'] .unsubscribe").click()
    wait_entry(browser, "info", "Unsubscribed from orders.*")
    windows("asker")
    compose(browser, "topic:orders.eu", "eight")
    by_id(browser, "s-payload").send_keys(Keys.ENTER)
    wait_note(browser, "out", "delivered")
    windows("server")
    wait_entries(browser, "in", ["<i>seven</i>"] * 2 + ["eight"])


def test_presence_shows_who_comes_and_goes(browser, windows):
    subscribe(browser, "room")
    windows("asker")
    subscribe(browser, "room")
    wait(browser, lambda b: sorted(people(b, "room")) == ["asker", "server"])
    windows("server")
    wait(browser, lambda b: sorted(people(b, "room")) == ["asker", "server"])
    wait_entry(browser, "info", "asker joined room")
    windows("asker")
    by_id(browser, "s-disconnect").click()
    wait_state(browser, "closed")
    assert browser.find_elements(By.CSS_SELECTOR, "#s-topics li") == []
    windows("server")
    wait(browser, lambda b: people(b, "room") == ["server"])
    browser.find_element(By.CSS_SELECTOR, "[data-topic='room'] .person").click()
    assert by_id(browser, "s-address").get_attribute("value") == "session:server"
    fill(browser, "s-address", "topic:room")
    by_id(browser, "s-presence").click()
    wait_entry(browser, "info", "topic:room: 1 online")


def test_history_and_json(browser, windows):
    fill(browser, "s-address", "topic:kept")
    by_id(browser, "s-store").click()
    by_id(browser, "s-kind").send_keys("JSON")
    fill(browser, "s-payload", "{wrong")
    by_id(browser, "s-publish").click()
    assert browser.execute_script("return document.getElementById('s-payload').validity.customError") is True
    assert entries(browser, "out") == []
    fill(browser, "s-payload", '{"n": [7]}')
    by_id(browser, "s-publish").click()
    wait_note(browser, "out", "stored, nobody was there")
    windows("asker")
    fill(browser, "s-address", "topic:kept")
    by_id(browser, "s-history").click()
    wait_entries(browser, "in", ['{\n  "n": [\n    7\n  ]\n}'])
    assert "History of topic:kept: 1" in entries(browser, "info")
    assert "JSON · history, " in note(browser, "in")


def test_a_user_hears_in_all_windows_and_an_address_must_be_one(browser, page_url, page_url_other):
    connect(browser, page_url, user="page-bob")
    first = browser.current_window_handle
    assert by_id(browser, "s-you").text.startswith("session:page-bob~")
    browser.switch_to.new_window("window")
    connect(browser, page_url_other, user="")
    compose(browser, "page-bob", "hello")
    by_id(browser, "s-send").click()
    assert browser.execute_script("return document.getElementById('s-address').validity.customError") is True
    fill(browser, "s-address", "user:page-bob")
    by_id(browser, "s-send").click()
    wait_note(browser, "out", "delivered")
    browser.switch_to.window(first)
    wait_entries(browser, "in", ["hello"])


def test_markup_is_shown_not_run(browser, windows):
    hostile = "<img src=x onerror=window.hacked=1>"
    subscribe(browser, "<b>bold<b>")
    compose(browser, "topic:<b>bold<b>", hostile)
    by_id(browser, "s-publish").click()
    wait_entries(browser, "in", [hostile])
    windows("asker")
    ask(browser, hostile)
    windows("server")
    wait_question(browser, hostile)
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements(By.CSS_SELECTOR, "#structured :is(b, img[src=x])") == []


def test_a_replaced_session_stops(browser, windows, page_url):
    browser.switch_to.new_window("window")
    connect(browser, page_url, session="server")
    windows("server")
    wait_state(browser, "closed")
    assert "WebSocket closed 4501" in entries(browser, "error")[-1]
    assert "a newer connection took this session's name" in note(browser, "error")
    assert by_id(browser, "s-connect").is_enabled()


def test_a_kicked_session_stops(browser, page_url, cluster):
    connect(browser, page_url, session="kicked-one")
    assert cluster[1].api("/v1/sessions/kicked-one", "DELETE", expect=None).status in (200, 202, 204)
    wait_state(browser, "closed")
    assert "WebSocket closed 4502" in entries(browser, "error")[-1]
    assert "an operator ended this session" in note(browser, "error")


def test_it_comes_back_after_a_restart_and_misses_nothing(browser, page_url, page_url_other, cluster):
    connect(browser, page_url_other, session="patient")
    subscribe(browser, "page-kept")
    first = browser.current_window_handle
    browser.switch_to.new_window("window")
    connect(browser, page_url)
    writer = browser.current_window_handle
    cluster[1].stop()
    browser.switch_to.window(first)
    wait_state(browser, "waiting")
    browser.switch_to.window(writer)
    by_id(browser, "s-store").click()
    for number in ("1", "2"):
        compose(browser, "topic:page-kept", number)
        by_id(browser, "s-publish").click()
        wait_note(browser, "out", "stored")
    cluster[1].start()
    browser.switch_to.window(first)
    wait_state(browser, "open")
    wait_entries(browser, "in", ["1", "2"])
    assert "topic:page-kept: recovered, nothing is missing" in entries(browser, "info")


def test_keyboard_alone_is_enough(browser, page_url):
    browser.get(page_url)
    by_id(browser, "tab-plain").send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("id") == "tab-structured"
    assert by_id(browser, "structured").is_displayed() and not by_id(browser, "plain").is_displayed()
    by_id(browser, "s-user").send_keys(Keys.ENTER)
    wait_state(browser, "open")
    assert browser.switch_to.active_element.get_attribute("id") == "s-topic"
    browser.switch_to.active_element.send_keys("page-keys", Keys.ENTER)
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "[data-topic='page-keys'][data-state=subscribed]"))
    browser.find_element(By.CSS_SELECTOR, "[data-topic='page-keys'] .topic").send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "s-payload"
    browser.switch_to.active_element.send_keys("one", Keys.SHIFT + Keys.ENTER)
    browser.switch_to.active_element.send_keys("two", Keys.ENTER)
    wait_entries(browser, "in", ["one\ntwo"])
    by_id(browser, "s-disconnect").send_keys(Keys.ENTER)
    wait_state(browser, "closed")
    assert browser.switch_to.active_element.get_attribute("id") == "s-connect"


def test_the_first_tab_is_first_and_links_lead_to_the_second(browser, page_url):
    browser.get(page_url)
    assert by_id(browser, "plain").is_displayed() and not by_id(browser, "structured").is_displayed()
    browser.get(f"{page_url}/?tab=structured#s-session=a%20b&s-address=topic:news")
    assert by_id(browser, "structured").is_displayed()
    assert by_id(browser, "s-session").get_attribute("value") == "a b"
    assert by_id(browser, "s-user").get_attribute("value") == ""
    assert by_id(browser, "s-publish").is_displayed()
    assert state(browser) == "closed"


def test_a_refused_connection_is_tried_again(browser, page_url, cluster):
    open_tab(browser, page_url)
    cluster[0].stop()
    by_id(browser, "s-connect").click()
    wait_state(browser, "waiting")
    wait(browser, lambda b: "can't be reached" in note(b, "info"))
    cluster[0].start()
    wait_state(browser, "open")


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_language_of_the_browser(browser, page_url, language):
    connect(browser, page_url, session="page-language")
    subscribe(browser, "page-language")
    ask(browser, "?", "session:page-language")
    wait(browser, lambda b: b.find_elements(By.ID, "s-reply"))
    labels = {"s-send": "Send", "s-subscribe": "Subscribe", "s-reply": "Answer", "tab-structured": "Topics & requests"}
    if language == "zh-CN":
        labels = {"s-send": "发送", "s-subscribe": "订阅", "s-reply": "回答", "tab-structured": "主题与请求"}
    assert {name: by_id(browser, name).text for name in labels} == labels
    by_id(browser, "s-answer").send_keys("!", Keys.ENTER)
    wait_entries(browser, "in", ["!"])
    by_id(browser, "s-history").click()
    by_id(browser, "s-presence").click()
    wait(browser, lambda b: any("session:page-language" in one and "1" in one for one in entries(b, "info")))
    by_id(browser, "s-disconnect").click()
    wait_state(browser, "closed")
    for source in ("document.body.innerText", "document.body.innerHTML"):
        assert "undefined" not in browser.execute_script(f"return {source}")


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [320, 375, 768, 1200])
def test_no_horizontal_scrolling(browser, page_url, language, width):
    # Emulated, because a window has a least width that phones are below.
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    long = "w" * 60
    connect(browser, page_url, session=long)
    subscribe(browser, long)
    wait(browser, lambda b: people(b, long) == [long])
    ask(browser, "x" * 200, f"session:{long}")
    wait_question(browser, "x" * 200)
    fits = (
        "const d = document.documentElement, f = document.getElementById('s-log-frame');"
        "return [window.innerWidth, d.scrollWidth <= window.innerWidth, f.scrollWidth <= f.clientWidth]"
    )
    assert browser.execute_script(fits) == [width, True, True]
    compose(browser, f"topic:{long}", "y" * 200)
    by_id(browser, "s-publish").click()
    wait_entries(browser, "in", ["y" * 200])
    assert browser.execute_script(fits) == [width, True, True]


def test_a_wide_page_fits_its_window(browser, page_url):
    screen = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    connect(browser, page_url)
    for number in range(12):
        subscribe(browser, f"page-topic-{number}")
    assert browser.execute_script("return document.documentElement.scrollHeight <= window.innerHeight")


@pytest.mark.parametrize("leave", ["close", "navigate"])
def test_leaving_the_page_closes_cleanly(browser, page_url, close_code_of, leave):
    browser.get(page_url)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    connect(browser, page_url, user=f"page-leaves-{leave}")
    if leave == "close":
        browser.close()
        browser.switch_to.window(first)
    else:
        browser.get("about:blank")
    assert close_code_of(f"page-leaves-{leave}") in (1000, 1001)


def test_the_library_is_served(browser, page_url):
    browser.get(page_url)
    loaded = browser.execute_async_script(
        "const done = arguments[0];"
        "import('/switchboard.js').then(async ({ connect }) => {"
        "  const client = connect(location.origin, { session: 'page-library' });"
        "  await client.ready; client.serve(({ payload }) => payload + 1);"
        "  const { payload } = await client.request('session:page-library', 41);"
        "  await client.close(); done([payload, client.state]); }, (error) => done(String(error)))"
    )
    assert loaded == [42, "stopped"]


def test_what_nobody_sees_is_shown(browser, windows, page_url):
    """A name that looks like another, a text that turns its line around."""
    windows("server")
    host = page_url.split("//")[1].rstrip("/")
    with StructuredClient(f"ws://{host}/connect?user=serv%E2%80%8Der") as other:
        other.call("send", to="session:server", text="a\u202eb\nc")
        wait_entries(browser, "in", ["a\\u{202e}b\nc"])
        assert "session:serv\\u{200d}er~" in note(browser, "in")
        other.post("request", to="session:server", text="pay\u2066?", timeout=60000)
        wait_question(browser, "pay\\u{2066}?")
        assert "serv\\u{200d}er~" in browser.find_element(By.CSS_SELECTOR, ".question .from").text
        assert "\u200d" not in browser.find_element(By.CSS_SELECTOR, "#s-questions").text
    with StructuredClient(f"ws://{host}/connect?user=%D7%90%D7%91") as other:
        other.call("send", to="session:server", text="hi")
        wait_note(browser, "in", "\u2068session:אב~")
    assert problems(browser) == []
