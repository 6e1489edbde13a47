"""The whole login in a browser, on a board of one process: EVE's page, the account page, the first killmails."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from killmails.fake_eve import Application, FakeEsi
from tests.e2e.processes import Board
from tests.e2e.test_browser import CHROMIUM, PATIENCE, Watch
from tests.e2e.users import FIRST_PILOT, ask_as, settings_of, world_of_pilots

pytestmark = pytest.mark.e2e

SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder, for whoever wants to look at the pages
NAME = f"Character {FIRST_PILOT}"


def test_a_pilot_logs_in_sees_what_is_withheld_and_publishes_it(tmp_path: Path) -> None:
    nothing = {"DATABASE_URL": "", "REDIS_URL": "", "RABBITMQ_URL": "", "USE_REDIS_PUBSUB": "", "DEBUG": "true"}
    world = world_of_pilots(pilots=4, corporations=2, killmails=6)
    with Board(tmp_path, nothing) as board:
        application = Application(callbacks=(f"{board.url}/auth/callback",))
        with FakeEsi(world, application=application) as fake, sync_playwright() as playwright:
            board.env |= settings_of(board, fake)
            board.serve()
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 1100, "height": 1000}).new_page()
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            watch = Watch(page)
            _click_through(page, board)
            browser.close()
    # What a page had under way when somebody clicked is no fault; nor is the icon that the fake EVE lacks.
    faults = [one for one in watch.faults if not one.endswith("net::ERR_ABORTED") and "404" not in one]
    assert (faults, watch.strangers) == ([], [])
    assert fake.violations == []


def _click_through(page, board: Board) -> None:
    page.goto(board.url)
    page.get_by_role("link", name="Account").click()
    page.get_by_label("its corporation's killmails").check()
    _shoot(page, "login")
    page.get_by_role("button", name="Go to EVE").click()
    expect(page).to_have_title("A fake EVE Online: log in")
    _shoot(page, "eve")
    page.get_by_role("button", name=NAME).click()
    expect(page).to_have_url(f"{board.url}/account")
    expect(page.get_by_role("cell", name=NAME, exact=True).first).to_be_visible()
    withheld = page.get_by_role("heading", name="Withheld: not published yet")
    _reload_until(page, withheld)
    assert ask_as(board, "", "{ killmails { nodes { id } } }") == {"killmails": {"nodes": []}}
    page.get_by_label("Name").fill("my bot")
    page.get_by_role("button", name="Make a token").click()
    token = page.locator("code.token").inner_text()
    _shoot(page, "account")
    assert ask_as(board, token, "{ viewer { name } }") == {"viewer": {"name": NAME}}
    page.get_by_label("at once").check()
    page.get_by_role("button", name="Save").click()
    page.goto(board.url)
    expect(page.locator("#killmails tr")).not_to_have_count(0, timeout=PATIENCE)
    page.goto(f"{board.url}/account")
    page.set_viewport_size({"width": 390, "height": 844})
    _shoot(page, "phone")
    page.get_by_role("button", name=f"Remove {NAME}").click()
    expect(page.get_by_text("None: nothing is read for you.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile(f"{board.url}/?$"))


def _reload_until(page, locator) -> None:
    for _ in range(120):
        if locator.is_visible():
            return
        page.wait_for_timeout(500)
        page.reload()
    raise AssertionError("not within a minute")


def _shoot(page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)
