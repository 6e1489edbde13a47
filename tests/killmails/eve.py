"""A fake EVE with pilots who can log in, and the board's ways to ask it."""

from urllib.parse import parse_qsl, urlsplit

from killmails.fake_eve import FakeEsi, World
from killmails.fake_eve.sso import SCOPES
from killmails.ingest.esi_store import DatabaseStore
from killmails.models import UserCharacter
from killmails.models.users import CORPORATION, OWN
from killmails.upstream.budget import Budget
from killmails.upstream.esi import Esi
from killmails.upstream.sso import Sso, Tokens, new_verifier
from killmails.upstream.zkillboard import ZkillboardSite
from killmails.users.grants import database_now
from killmails.users.logins import log_in
from killmails.users.rounds import go_round
from tests.builders import attacker, esi_body

CALLBACK = "http://localhost:4000/auth/callback"
KEY = "A" * 43 + "="
VICTIM, KILLER, OTHER = 2100000001, 2100000002, 2100000003
VICTIM_CORPORATION, KILLER_CORPORATION = 98000001, 98000002
BOTH = (OWN, CORPORATION)
assert set(BOTH) < set(SCOPES)


def losses(count: int, first: int = 1001) -> list[dict]:
    """So many killmails of VICTIM by KILLER, a minute apart."""
    return [
        esi_body(first + number, killmail_time=f"2026-11-20T{number // 60 % 24:02}:{number % 60:02}:00Z")
        for number in range(count)
    ]


def code_of(fake: FakeEsi, sso: Sso, character_id: int, scopes: tuple[str, ...] = (OWN,)) -> tuple[str, str]:
    """A code as a browser brings it back, and its verifier."""
    verifier, challenge = new_verifier()
    address = fake.sso.approve(sso.authorize_url("state", challenge, scopes), character_id)
    return dict(parse_qsl(urlsplit(address).query))["code"], verifier


def tokens_of(fake: FakeEsi, sso: Sso, character_id: int, scopes: tuple[str, ...] = (OWN,)) -> Tokens:
    return sso.exchange(*code_of(fake, sso, character_id, scopes))


class Eve:
    """`esi` and `sso` as workers have them; `login` is what a browser and the callback do together."""

    def __init__(self, fake: FakeEsi, settings) -> None:
        self.fake = fake
        settings.EVE_CLIENT_ID, settings.EVE_CLIENT_SECRET, settings.EVE_CALLBACK_URL = "fake-client", "", CALLBACK
        settings.SSO_URL = settings.ESI_URL = settings.ZKILLBOARD_URL = fake.url
        settings.TOKEN_KEYS, settings.FEED = [KEY], "off"
        self.sso = Sso(fake.url, "fake-client", "", CALLBACK, "tests")
        self.esi = Esi(fake.url, "tests", Budget(DatabaseStore(fake.clock.speed)))
        self.site = ZkillboardSite(fake.url, "tests")

    def login(self, character_id: int, scopes: tuple[str, ...] = (OWN,), user_id: int | None = None) -> int:
        tokens = tokens_of(self.fake, self.sso, character_id, scopes)
        return log_in(self.sso.read(tokens.access_token, database_now()), tokens, user_id)

    def work(self) -> None:
        """Rounds until nothing can be done."""
        while go_round(self.esi, self.sso, self.site):
            pass

    def row(self, character_id: int) -> UserCharacter:
        return UserCharacter.objects.get(pk=character_id)

    def asked(self, path: str) -> list[int]:
        """The statuses of the answers to questions that begin like this."""
        return [one.status for one in self.fake.asked if one.path.startswith(path)]


def world_of(bodies: list[dict]) -> World:
    world = World()
    world.add_killmails(bodies)
    return world


def unrelated(killmail_id: int) -> dict:
    """A killmail of others."""
    pilot = {"character_id": 2100000009, "corporation_id": 98000009}
    body = esi_body(killmail_id)
    return body | {"victim": body["victim"] | pilot, "attackers": [attacker(final_blow=True, **pilot)]}
