"""Users of a whole board: browsers that log in at a fake EVE, and bots with their tokens."""

import re
from typing import Any
from urllib.parse import urlsplit

import requests

from killmails.fake_eve import FakeEsi, World
from tests.builders import attacker, esi_body
from tests.e2e.processes import Board

KEY = "A" * 43 + "="
FIRST_PILOT, FIRST_CORPORATION, FIRST_KILLMAIL = 2100000100, 98000100, 5000


def world_of_pilots(pilots: int, corporations: int, killmails: int) -> World:
    """Each killmail has another pair of pilots; the first pilot of each corporation is its director."""
    world = World()
    world.add_killmails([killmail_of_pilots(number, pilots, corporations) for number in range(killmails)])
    for number in range(corporations):
        world.roles[FIRST_PILOT + number] = ("Director",)
    return world


def killmail_of_pilots(number: int, pilots: int, corporations: int) -> dict[str, Any]:
    """The body."""
    victim, killer = number % pilots, (number * 7 + 3) % pilots
    if victim == killer:
        killer = (killer + 1) % pilots
    body = esi_body(
        FIRST_KILLMAIL + number, killmail_time=f"2026-11-{number % 20 + 1:02}T{number // 20 % 24:02}:00:00Z"
    )
    body["victim"] |= _pilot(victim, corporations)
    body["attackers"] = [attacker(final_blow=True, **_pilot(killer, corporations))]
    return body


def _pilot(number: int, corporations: int) -> dict[str, int]:
    return {"character_id": FIRST_PILOT + number, "corporation_id": FIRST_CORPORATION + number % corporations}


def owners_of(body: dict[str, Any], directors: set[int]) -> set[int]:
    """The pilots in whose lists it stands, their own or their corporation's."""
    involved = [body["victim"], *(one for one in body["attackers"] if one["final_blow"])]
    pilots = {one["character_id"] for one in involved}
    corporations = {one["corporation_id"] for one in involved}
    return pilots | {pilot for pilot in directors if FIRST_CORPORATION + pilot - FIRST_PILOT in corporations}


def settings_of(board: Board, fake: FakeEsi) -> dict[str, str]:
    """What the board is told of the fake EVE."""
    callback = f"{board.url}/auth/callback"
    return {
        "EVE_CLIENT_ID": "fake-client", "EVE_CALLBACK_URL": callback, "TOKEN_KEYS": KEY,
        "SSO_URL": fake.url, "ESI_URL": fake.url, "ZKILLBOARD_URL": fake.url, "FEED": "off",
    }  # fmt: skip


class Browser:
    """One person with one character, who clicks through the login and the account page."""

    def __init__(self, board: Board, fake: FakeEsi, character_id: int) -> None:
        self.board, self.fake, self.character_id = board, fake, character_id
        self.user_id = 0
        self._session = requests.Session()
        self._session.trust_env = False

    def _post(self, path: str, page: str, **form: str) -> requests.Response:
        html = self._session.get(f"{self.board.url}{page}", timeout=60).text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', html)[1]
        return self._session.post(
            f"{self.board.url}{path}", {**form, "csrfmiddlewaretoken": token}, allow_redirects=False, timeout=60
        )

    def log_in(self, publication: str, corporation: bool = False) -> None:
        more = {"corporation": "1"} if corporation else {}
        answer = self._post("/auth/login", "/auth/login", own="1", publication=publication, **more)
        back = urlsplit(self.fake.sso.approve(answer.headers["Location"], self.character_id))
        answer = self._session.get(f"{self.board.url}{back.path}?{back.query}", allow_redirects=False, timeout=60)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/account"), answer.text

    def api_token(self) -> str:
        html = self._post("/account", "/account", action="new_token", name="bot").text
        return re.search(r'<code class="token">([^<]+)<', html)[1]


def ask_as(board: Board, token: str, query: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.post(f"{board.url}/graphql", json={"query": query}, headers=headers, timeout=60).json()
    assert "errors" not in answer, answer
    return answer["data"]
