"""The fake SSO, and the lists of the fake ESI that want its tokens: they keep EVE's rules."""

import base64
import hashlib
import http.client
import json
import re
from datetime import UTC, datetime
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
import pytest

from killmails.fake_eve import Application, FakeEsi, Fault
from killmails.fake_eve.sso import ACCESS_LIFE, CODE_LIFE
from killmails.recording.tape import killmail_hash
from tests.builders import attacker, esi_body
from tests.killmails.eve import (
    BOTH,
    CALLBACK,
    CORPORATION,
    KILLER,
    OTHER,
    OWN,
    VICTIM,
    VICTIM_CORPORATION,
    losses,
    world_of,
)
from tests.killmails.test_fake_esi import ask

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
INVALID_GRANT = {"error": "invalid_grant", "error_description": "Invalid refresh token or code."}
NO_TOKEN = (401, {"error": "Unauthorized - Invalid token"})


class Hand:
    """EVE's clock in the test's hand."""

    def __init__(self) -> None:
        self.speed, self.seconds = 1.0, 0.0

    def now(self) -> float:
        return self.seconds

    def unix(self) -> float:
        return 1_800_000_000 + self.seconds


@pytest.fixture
def fake():
    with FakeEsi(world_of(losses(3))) as fake:
        yield fake


@pytest.fixture
def clock(fake):
    fake.clock = fake.sso.clock = fake.limits._clock = Hand()
    return fake.clock


def asking(scopes: tuple[str, ...] = (OWN,), **changes: str | None) -> str:
    """The address that a browser is sent to; None leaves a part out."""
    query = {
        "response_type": "code",
        "client_id": "fake-client",
        "redirect_uri": CALLBACK,
        "scope": " ".join(scopes),
        "state": "the state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    } | changes
    return f"/v2/oauth/authorize?{urlencode({name: value for name, value in query.items() if value is not None})}"


def post(fake: FakeEsi, path: str, form: dict[str, str], **headers: str):
    """Status, body and headers of a form that is sent."""
    connection = http.client.HTTPConnection(fake.url.removeprefix("http://"), timeout=60)
    connection.request("POST", path, urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"} | headers)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, raw, dict(response.getheaders())


def token(fake: FakeEsi, form: dict[str, str], **headers: str):
    """Status and answer of the token address."""
    status, raw, _ = post(fake, "/v2/oauth/token", {"client_id": "fake-client"} | form, **headers)
    return status, json.loads(raw)


def code_of(fake: FakeEsi, pilot: int = VICTIM, scopes: tuple[str, ...] = (OWN,), **changes: str | None) -> str:
    return parse_qs(urlsplit(fake.sso.approve(asking(scopes, **changes), pilot)).query)["code"][0]


def redeem(fake: FakeEsi, code: str, /, **changes: str):
    return token(
        fake,
        {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        | changes,
    )


def refresh(fake: FakeEsi, refresh_token: str):
    return token(fake, {"grant_type": "refresh_token", "refresh_token": refresh_token})


def login(fake: FakeEsi, pilot: int = VICTIM, scopes: tuple[str, ...] = (OWN,)) -> dict:
    status, body = redeem(fake, code_of(fake, pilot, scopes))
    assert status == 200
    return body


def bearer(body: dict) -> dict[str, str]:
    return {"Authorization": f"Bearer {body['access_token']}"}


# The page


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"client_id": "another"}, "unknown client_id"),
        ({"redirect_uri": "http://localhost:4000/elsewhere"}, "redirect_uri is not registered for this application"),
        ({"response_type": "token"}, "response_type must be code"),
        ({"state": None}, "state is missing"),
        ({"scope": f"{OWN} esi-everything.v1"}, "unknown scope esi-everything.v1"),
        ({"code_challenge_method": "plain"}, "code_challenge_method must be S256"),
        ({"code_challenge": None}, "code_challenge is missing, and the application has no secret"),
    ],
)
def test_page_refuses_what_eve_refuses(fake, changes, problem):
    refused = (400, {"error": "invalid_request", "error_description": problem})
    assert ask(fake, asking(**changes))[:2] == refused
    assert post(fake, asking(**changes), {"character": str(VICTIM)})[0] == 400
    with pytest.raises(ValueError, match=problem):
        fake.sso.approve(asking(**changes), VICTIM)


def test_page_lists_pilots_and_scopes_and_a_click_leads_back_with_a_code(fake):
    fake.world.characters[VICTIM]["name"] = "<b>Bobby</b>"
    fake.world.roles[VICTIM] = ("Director",)
    status, page, headers = ask(fake, asking(BOTH))
    text = page.decode()
    assert (status, headers["content-type"]) == (200, "text/html")
    assert [f"<li>{scope}</li>" in text for scope in BOTH] == [True, True]
    assert re.findall(r'value="(\d+)">([^<]*)</button> ([^<]*)<', text) == [
        (str(VICTIM), "&lt;b&gt;Bobby&lt;/b&gt;", "Director of Corporation 98000001"),
        (str(KILLER), "Character 2100000002", "member of Corporation 98000002"),
        (str(OTHER), "Character 2100000003", "member of Corporation 98000002"),
    ]
    action = re.search(r'action="([^"]*)"', text)[1].replace("&amp;", "&")
    status, _, headers = post(fake, action, {"character": str(KILLER)})
    back = urlsplit(headers["Location"])
    assert (status, f"{back.scheme}://{back.netloc}{back.path}") == (302, CALLBACK)
    query = dict(parse_qsl(back.query))
    assert (sorted(query), query["state"]) == (["code", "state"], "the state")
    claims = jwt.decode(redeem(fake, query["code"])[1]["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["scp"]) == (f"CHARACTER:EVE:{KILLER}", list(BOTH))


@pytest.mark.parametrize("clicked", ["", "1", "x", "²"])
def test_page_that_nobody_is_chosen_on_is_a_refusal(fake, clicked):
    status, _, headers = post(fake, asking(), {"character": clicked})
    assert status == 302
    assert headers["Location"] == f"{CALLBACK}?error=access_denied&state=the+state"


# Codes and tokens


def test_token_is_as_eve_writes_it(fake, clock):
    body = login(fake)
    assert {name: value for name, value in body.items() if not name.endswith("_token")} == {
        "expires_in": 1200,
        "token_type": "Bearer",
    }
    keys = ask(fake, "/oauth/jwks")[1]["keys"]
    assert [(key["kty"], key["alg"], key["use"]) for key in keys] == [("RSA", "RS256", "sig")]
    assert jwt.get_unverified_header(body["access_token"]) == {"alg": "RS256", "kid": keys[0]["kid"], "typ": "JWT"}
    claims = jwt.decode(
        body["access_token"], jwt.PyJWK(keys[0]), ["RS256"], audience="EVE Online", options={"verify_iat": False}
    )
    assert claims.pop("jti")
    assert claims == {
        "iss": fake.url,
        "aud": ["fake-client", "EVE Online"],
        "sub": f"CHARACTER:EVE:{VICTIM}",
        "name": "Character 2100000001",
        "owner": "owner-of-2100000001=",
        "azp": "fake-client",
        "iat": 1_800_000_000,
        "exp": 1_800_001_200,
        "scp": OWN,
        "tenant": "tranquility",
        "tier": "live",
        "region": "world",
    }


def test_addresses_are_told(fake):
    told = ask(fake, "/.well-known/oauth-authorization-server")[1]
    assert told == {
        "issuer": fake.url,
        "authorization_endpoint": f"{fake.url}/v2/oauth/authorize",
        "token_endpoint": f"{fake.url}/v2/oauth/token",
        "revocation_endpoint": f"{fake.url}/v2/oauth/revoke",
        "jwks_uri": f"{fake.url}/oauth/jwks",
        "code_challenge_methods_supported": ["S256"],
    }


def test_code_is_good_once(fake):
    code = code_of(fake)
    assert redeem(fake, code)[0] == 200
    assert redeem(fake, code) == (400, INVALID_GRANT)


def test_code_is_good_for_five_minutes(fake, clock):
    codes = code_of(fake), code_of(fake)
    assert CODE_LIFE == 300.0
    clock.seconds = 299.0
    assert redeem(fake, codes[0])[0] == 200
    clock.seconds = 300.0
    assert redeem(fake, codes[1]) == (400, INVALID_GRANT)


@pytest.mark.parametrize(
    "changes",
    [{"code_verifier": "another"}, {"code_verifier": ""}, {"redirect_uri": "http://localhost:4000/"}, {"code": "x"}],
)
def test_code_wants_its_verifier_and_its_address_and_is_gone_after_the_first_try(fake, changes):
    code = code_of(fake)
    assert redeem(fake, code, **changes) == (400, INVALID_GRANT)
    assert redeem(fake, code)[0] == (200 if "code" in changes else 400)


def test_client_is_known_by_its_id_or_by_its_secret(fake):
    refused = (401, {"error": "invalid_client"})
    assert redeem(fake, code_of(fake), client_id="another") == refused
    assert post(fake, "/v2/oauth/revoke", {"token": "x"})[0] == 401
    with FakeEsi(world_of(losses(1)), application=Application(secret="s")) as other:
        code = code_of(other, code_challenge=None, code_challenge_method=None)  # a secret proves it as well
        assert redeem(other, code) == refused
        pair = base64.b64encode(b"fake-client:s").decode()
        form = {"grant_type": "authorization_code", "code": code}
        assert token(other, form, Authorization=f"Basic {pair}")[0] == 200
        verified = form | {"code": code_of(other), "code_verifier": "another"}
        assert token(other, verified, Authorization=f"Basic {pair}") == (400, INVALID_GRANT)


def test_refresh_token_is_good_once(fake):
    first = login(fake)
    status, second = refresh(fake, first["refresh_token"])
    assert (status, second["refresh_token"] != first["refresh_token"]) == (200, True)
    assert refresh(fake, first["refresh_token"]) == (400, INVALID_GRANT)
    assert refresh(fake, second["refresh_token"])[0] == 200
    assert fake.sso.refreshes == {VICTIM: 2}
    assert len(set(fake.sso.issued)) == 6
    assert {first["access_token"], second["refresh_token"]} < set(fake.sso.issued)


def test_old_refresh_token_goes_on_where_no_new_one_is_told(fake):
    first = login(fake)
    fake.sso.knobs.also = {"refresh_token": None, "expires_in": -5}
    for _ in range(2):
        status, body = refresh(fake, first["refresh_token"])
        assert (status, sorted(body), body["expires_in"]) == (200, ["access_token", "expires_in", "token_type"], -5)


def test_what_ends_a_grant_ends_it_and_its_access_token(fake):
    for end in (
        lambda body: post(fake, "/v2/oauth/revoke", {"client_id": "fake-client", "token": body["refresh_token"]}),
        lambda body: fake.sso.end_grants(VICTIM),
    ):
        body = login(fake)
        assert ask(fake, f"/characters/{VICTIM}/killmails/recent", **bearer(body))[0] == 200
        end(body)
        assert refresh(fake, body["refresh_token"]) == (400, INVALID_GRANT)
        assert ask(fake, f"/characters/{VICTIM}/killmails/recent", **bearer(body))[:2] == NO_TOKEN


def test_character_that_was_sold_has_another_owner_and_no_grant_of_before(fake):
    sold, kept = login(fake), login(fake, KILLER)
    fake.world.sell(VICTIM)
    assert refresh(fake, sold["refresh_token"]) == (400, INVALID_GRANT)
    assert refresh(fake, kept["refresh_token"])[0] == 200
    claims = jwt.decode(login(fake)["access_token"], options={"verify_signature": False})
    assert claims["owner"] == "owner-of-2100000001-sold="


def test_scopes_that_were_taken_are_not_in_the_next_token(fake):
    body = login(fake, scopes=BOTH)
    fake.sso.grants_of(VICTIM)[0].scopes = ()
    claims = jwt.decode(refresh(fake, body["refresh_token"])[1]["access_token"], options={"verify_signature": False})
    assert "scp" not in claims


def test_sso_fails_as_it_is_told(fake):
    fake.fail("/v2/oauth/token", Fault(503, b"<html>"))
    code = code_of(fake)
    assert post(fake, "/v2/oauth/token", {})[:2] == (503, b"<html>")
    assert redeem(fake, code)[0] == 200
    fake.go_down(60)
    assert redeem(fake, code_of(fake))[0] == 503
    fake.heal()
    assert ask(fake, "/v2/oauth/nothing")[0] == 404


# Lists of recent killmails

OURS = f"/characters/{VICTIM}/killmails/recent"
THEIRS = f"/corporations/{VICTIM_CORPORATION}/killmails/recent"


def test_list_wants_a_token_that_is_good(fake, clock):
    body = login(fake)
    assert ask(fake, OURS)[:2] == NO_TOKEN
    assert ask(fake, OURS, Authorization="Bearer invented")[:2] == NO_TOKEN
    assert ask(fake, THEIRS)[:2] == NO_TOKEN
    assert ask(fake, OURS, **bearer(body))[0] == 200
    clock.seconds = ACCESS_LIFE - 1
    assert ask(fake, OURS, **bearer(body))[0] == 200
    clock.seconds = ACCESS_LIFE
    assert ask(fake, OURS, **bearer(body))[:2] == NO_TOKEN
    body = login(fake)
    fake.sso.expire_access(VICTIM)
    assert ask(fake, OURS, **bearer(body))[:2] == NO_TOKEN
    assert refresh(fake, body["refresh_token"])[0] == 200  # the grant is as good as before


def test_list_wants_scope_character_membership_and_role(fake):
    def words(path: str, pilot: int, scopes: tuple[str, ...]) -> str:
        status, body, _ = ask(fake, path, **bearer(login(fake, pilot, scopes)))
        assert status == 403
        return body["error"]

    assert words(OURS, VICTIM, (CORPORATION,)) == f"Unauthorized - missing scope {OWN}"
    assert words(THEIRS, VICTIM, (OWN,)) == f"Unauthorized - missing scope {CORPORATION}"
    assert words(OURS, KILLER, (OWN,)) == "Unauthorized - token is not valid for this character"
    assert words(THEIRS, KILLER, BOTH) == "Character is not in the corporation"
    assert words(THEIRS, VICTIM, BOTH) == "Character does not have required role(s)"
    fake.world.roles[VICTIM] = ("Director",)
    assert ask(fake, THEIRS, **bearer(login(fake, VICTIM, BOTH)))[0] == 200


def test_list_holds_losses_and_final_blows_of_ninety_days_newest_first(fake):
    other = attacker(character_id=OTHER, final_blow=True)
    fake.world.add_killmails(
        [
            esi_body(2001, attackers=[other]),
            esi_body(2002, victim=esi_body(1)["victim"] | {"character_id": OTHER}),
            esi_body(2003, killmail_time="2026-08-22T12:00:00Z"),
            esi_body(2004, killmail_time="2026-08-22T12:00:01Z"),
        ]
    )
    fake.world.now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def listed(pilot: int) -> list[int]:
        return [
            row["killmail_id"]
            for row in ask(fake, OURS.replace(str(VICTIM), str(pilot)), **bearer(login(fake, pilot)))[1]
        ]

    assert listed(VICTIM) == [2004, 2001, 1003, 1002, 1001]
    assert listed(KILLER) == [2004, 2002, 1003, 1002, 1001]
    assert listed(OTHER) == [2002, 2001]
    fake.world.now = None
    assert listed(VICTIM)[:2] == [2004, 2003]


def test_list_has_pages_and_none_after_the_last(fake):
    fake.world.page_size = 2
    body = login(fake)
    pages = [ask(fake, f"{OURS}?page={page}", **bearer(body)) for page in (1, 2, 3)]
    assert [page[0] for page in pages] == [200, 200, 404]
    assert [row["killmail_id"] for page in pages[:2] for row in page[1]] == [1003, 1002, 1001]
    assert pages[1][1] == [{"killmail_hash": killmail_hash(losses(1)[0]), "killmail_id": 1001}]
    assert [page[2]["x-pages"] for page in pages[:2]] == ["2", "2"]
    assert pages[2][1] == {"error": "Requested page does not exist!"}


def test_unchanged_list_is_304_for_five_minutes_and_its_half_of_the_price(fake):
    body = login(fake)
    _, _, first = ask(fake, OURS, **bearer(body))
    status, raw, again = ask(fake, OURS, **bearer(body), **{"If-None-Match": first["etag"]})
    assert (status, raw, again["x-pages"]) == (304, b"", "1")
    assert [one["x-ratelimit-remaining"] for one in (first, again)] == ["28", "27"]
    fake.world.add_killmails(losses(1, 1004))
    assert ask(fake, OURS, **bearer(body), **{"If-None-Match": first["etag"]})[0] == 200


def test_each_user_and_each_group_has_a_bucket_of_its_own(fake):
    fake.world.roles[VICTIM] = ("Director",)
    bodies = {pilot: login(fake, pilot, BOTH) for pilot in (VICTIM, KILLER)}
    told = [ask(fake, OURS, **bearer(bodies[VICTIM])) for _ in range(16)]
    assert [status for status, _, _ in told] == [200] * 15 + [429]
    assert (told[-1][2]["x-ratelimit-group"], told[-1][2]["x-ratelimit-limit"]) == ("char-killmail", "30/15m")
    assert fake.violations == ["429: the bucket of char-killmail is empty"]
    assert ask(fake, OURS.replace(str(VICTIM), str(KILLER)), **bearer(bodies[KILLER]))[0] == 200
    status, _, headers = ask(fake, THEIRS, **bearer(bodies[VICTIM]))
    assert (status, headers["x-ratelimit-group"], headers["x-ratelimit-remaining"]) == (200, "corp-killmail", "28")
