"""What a browser sees of a running board that replays the recording: the first page, and GraphiQL.

The board is a process of its own (the fixture `board`) and is driven by HTTP, websocket and DOM alone.
"""

import json
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.e2e
CHROMIUM = "/usr/bin/chromium"
# The recording brings a killmail every few seconds; a slow machine takes its time to begin.
PATIENCE = 60_000
ROWS = "#killmails tr"
IDS = "[...document.querySelectorAll('#killmails tr')].map((row) => row.dataset.id)"
NOTE_STATES = """() => {
  const state = document.querySelector("#state");
  window.noted = [];
  new MutationObserver(() => noted.push(state.dataset.state)).observe(state, { attributeFilter: ["data-state"] });
}"""
HOSTILE = "<img src=x onerror=document.title='hacked'>"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1360, "height": 900}, service_workers="block")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.set_default_navigation_timeout(PATIENCE)
    yield page
    context.close()


class Watch:
    """What went wrong in a page, and whom it spoke to. What a policy forbids is an error of the console."""

    def __init__(self, page: Page) -> None:
        self.faults: list[str] = []
        self.strangers: list[str] = []
        self.lists_read = 0
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("requestfailed", lambda request: self.faults.append(f"{request.url}: {request.failure}"))
        page.on("request", lambda request: self._request(request.url, request.method))
        page.on("websocket", lambda websocket: self._request(websocket.url, "websocket"))

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(f"{kind}: {text}")

    def _request(self, url: str, method: str) -> None:
        address = urlsplit(url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.strangers.append(url)
        if method == "POST" and address.path == "/graphql":
            self.lists_read += 1


def _open_board(page, board):
    page.goto(f"{board.url.rstrip('/')}/")
    expect(page.locator("#state")).to_have_attribute("data-state", "live", timeout=PATIENCE)


def _wait_for_new_row(page):
    known = page.evaluate(IDS)
    page.wait_for_function(f"(known) => {IDS}.some((id) => !known.includes(id))", arg=known, timeout=PATIENCE)


def test_first_page_shows_25_killmails_and_a_new_one_arrives_by_itself(page, board):
    watch = Watch(page)
    _open_board(page, board)
    expect(page.locator(ROWS)).to_have_count(25, timeout=PATIENCE)
    _wait_for_new_row(page)
    expect(page.locator(ROWS)).to_have_count(25)
    ids = page.evaluate(IDS)
    assert len(set(ids)) == 25
    expect(page.locator("#count")).to_have_text(re.compile(r"^\d+ new since you opened this page$"))
    assert (watch.faults, watch.strangers) == ([], [])


def test_watch_sees_what_it_watches_for(page, board):
    watch = Watch(page)
    _open_board(page, board)
    page.evaluate("() => { document.body.append(Object.assign(new Image(), { src: 'http://192.0.2.1/a.png' })); }")
    while not watch.faults:
        page.wait_for_timeout(50)
    assert "Content Security Policy" in watch.faults[0]


def test_first_page_says_that_it_replays_a_recording(page, board):
    _open_board(page, board)
    expect(page.locator("#banner-recorded")).to_be_visible()
    expect(page.locator("#banner-off")).to_be_hidden()
    expect(page.locator("#trouble")).to_be_hidden()


def test_every_row_says_what_who_where_and_how_many(page, board):
    _open_board(page, board)
    expect(page.locator(ROWS)).to_have_count(25, timeout=PATIENCE)
    columns = ("time", "ship", "victim", "system", "final", "attackers", "value")
    for name in columns:
        assert "" not in page.locator(f"{ROWS} td.{name}").all_inner_texts(), name
    times = page.eval_on_selector_all(f"{ROWS} time", "(all) => all.map((time) => Date.parse(time.dateTime))")
    assert times == sorted(times, reverse=True)


def test_lost_line_is_shown_and_made_up_for(page, board):
    lines = []

    def pass_on(line):
        lines.append(line)
        line.connect_to_server()

    page.route_web_socket("**/graphql", pass_on)
    watch = Watch(page)
    _open_board(page, board)
    expect(page.locator(ROWS)).to_have_count(25, timeout=PATIENCE)
    read_before = watch.lists_read
    page.evaluate(NOTE_STATES)  # a machine that stalls would not see one that is short
    lines[-1].close(code=4499, reason="gone")
    page.wait_for_function("() => noted.includes('reconnecting') && noted.at(-1) === 'live'", timeout=PATIENCE)
    assert len(lines) == 2
    assert watch.lists_read == read_before + 1  # what came in between was not missed
    _wait_for_new_row(page)
    assert watch.faults == []


def test_page_without_websockets_still_shows_killmails_and_does_not_claim_to_be_live(page, board):
    page.route_web_socket("**/graphql", lambda line: line.close(code=4499, reason="no websockets here"))
    page.goto(f"{board.url.rstrip('/')}/")
    expect(page.locator(ROWS)).to_have_count(25, timeout=PATIENCE)
    expect(page.locator("#state")).to_have_attribute("data-state", "connecting")


def test_names_are_inserted_as_text_whatever_they_hold(page, board):
    def make_hostile(route):
        response = route.fetch()
        answer = response.json()
        for killmail in answer["data"]["killmails"]["nodes"]:
            killmail["victim"]["character"] = {"id": "2119000111", "name": HOSTILE}
            killmail["solarSystem"]["name"] = HOSTILE
        route.fulfill(response=response, body=json.dumps(answer))

    page.route("**/graphql", make_hostile)
    watch = Watch(page)
    _open_board(page, board)
    expect(page.locator("td.victim .main").last).to_have_text(HOSTILE)
    assert page.locator(f"{ROWS} img").count() == 0
    assert page.title() == "Killboard: the last killmails of EVE Online"
    assert watch.faults == []


def test_unknown_name_shows_its_kind_and_its_id(page, board):
    def forget_names(route):
        response = route.fetch()
        answer = response.json()
        for killmail in answer["data"]["killmails"]["nodes"]:
            killmail["victim"]["character"] = {"id": "2119000111", "name": None}
        route.fulfill(response=response, body=json.dumps(answer))

    page.route("**/graphql", forget_names)
    _open_board(page, board)
    name = page.locator("td.victim .main").last
    expect(name).to_have_text("Character 2119000111")
    expect(name).to_have_class("main unknown")
    expect(name).to_have_attribute("title", "Character 2119000111, name not known yet")


def test_first_page_tells_when_the_list_cannot_be_read(page, board):
    page.route("**/graphql", lambda route: route.fulfill(status=503, content_type="text/plain", body="busy"))
    page.goto(f"{board.url.rstrip('/')}/")
    expect(page.locator("#trouble")).to_have_text(
        "The list of killmails could not be read: The board answered with HTTP status 503. Trying again."
    )
    assert page.locator("#state").get_attribute("data-state") != "live"
    page.unroute("**/graphql")
    expect(page.locator("#state")).to_have_attribute("data-state", "live", timeout=PATIENCE)
    expect(page.locator("#trouble")).to_be_hidden()


def test_first_page_fits_a_narrow_phone(page, board):
    page.set_viewport_size({"width": 360, "height": 740})
    _open_board(page, board)
    expect(page.locator(ROWS)).to_have_count(25, timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.get_by_role("table").get_by_role("row").count() == 26  # still a table to a screen reader


def test_first_page_without_javascript_says_so_and_claims_nothing(chromium, board):
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(f"{board.url.rstrip('/')}/")
    expect(page.locator("noscript .banner")).to_be_visible()
    expect(page.locator("#state")).to_be_hidden()
    expect(page.locator("#empty")).to_be_hidden()
    page.context.close()


def test_values_ages_and_security_are_written_as_pilots_know_them(page, board):
    page.goto(f"{board.url.rstrip('/')}/")
    written = page.evaluate(
        """async () => {
          const { shortIsk, exactIsk, age, security } = await import("/static/board/words.js");
          const now = Date.parse("2026-01-02T00:00:00Z");
          return {
            isk: [null, 0, 950, 999.6, 1000, 12345, 999600, 1234567890, 2.5e12].map(shortIsk),
            exact: [null, 1234567.6].map(exactIsk),
            age: [0, -5, 10, 59, 60, 3600, 86400, 86400 * 400].map((s) =>
              age(new Date(now - s * 1000).toISOString(), now)),
            security: [null, 1, 0.45, 0.04, 0, -0.04, -0.05, -0.99].map(security),
          };
        }"""
    )
    assert written == {
        "isk": ["–", "0", "950", "1.00 k", "1.00 k", "12.3 k", "1.00 m", "1.23 b", "2.50 t"],
        "exact": ["Not valued yet", "1,234,568 ISK"],
        "age": ["just now", "just now", "10 s", "59 s", "1 min", "1 h", "1 d", "1 y"],
        "security": [None, "1.0", "0.5", "0.1", "0.0", "0.0", "-0.1", "-1.0"],
    }


def test_graphiql_opens_offline_and_its_first_subscription_brings_an_event(page, board):
    watch = Watch(page)
    page.goto(f"{board.url.rstrip('/')}/graphql")
    page.get_by_role("button", name="Execute query").click()
    result = page.locator(".result-window")
    expect(result).to_contain_text('"kind": "CHECKPOINT"')
    expect(result).to_contain_text(re.compile(r'"kind": "(ADDED|UPDATED)"'), timeout=PATIENCE)
    expect(result).to_contain_text(re.compile(r'"id": "\d+"'))
    expect(page.get_by_role("link", name="Killboard")).to_have_attribute("href", "/")
    assert (watch.faults, watch.strangers) == ([], [])


def test_graphiql_knows_the_schema(page, board):
    watch = Watch(page)
    page.goto(f"{board.url.rstrip('/')}/graphql")
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(page.get_by_text("killmailEvents").first).to_be_visible()
    page.get_by_role("link", name="Subscription").click()
    expect(page.get_by_role("link", name="newKillmail")).to_be_visible()
    assert (watch.faults, watch.strangers) == ([], [])
