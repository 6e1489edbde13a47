"""The client of EVE's SSO: what it sends, which tokens it believes, and what its errors say."""

import base64
import hashlib
import hmac
import json
import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from killmails.errors import BadToken, GrantRefused, UpstreamError, UpstreamRefused, UpstreamUnreachable
from killmails.fake_eve import Application, FakeEsi, Fault, World
from killmails.fake_eve.sso import _new_key
from killmails.upstream import sso as sso_module
from killmails.upstream.sso import Identity, Sso, Tokens, new_verifier
from tests.builders import esi_body
from tests.killmails.eve import BOTH, CALLBACK, CORPORATION, OWN, code_of, tokens_of
from tests.killmails.eve import VICTIM as PILOT

SECRET = "the secret key"


@pytest.fixture
def fake(fake_esi):
    """Here the one that people log in at."""
    return fake_esi


@pytest.fixture
def sso(fake):
    return Sso(fake.url, "fake-client", "", CALLBACK, "tests@example.com")


@pytest.fixture
def clock(monkeypatch):
    """The client's monotonic clock, which the test moves."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(sso_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def now() -> datetime:
    return datetime.now(UTC)


def login(fake: FakeEsi, sso: Sso, scopes: tuple[str, ...] = (OWN,)) -> Tokens:
    return tokens_of(fake, sso, PILOT, scopes)


def token(fake: FakeEsi, **claims: object) -> str:
    """A token that EVE signs, whose claims are the usual ones but for these; None takes one out."""
    told = {name: value for name, value in (fake.sso.claims(PILOT, (OWN,)) | claims).items() if value is not None}
    # PyJWT itself would not sign all that the tests want.
    return jwt.PyJWS().encode(json.dumps(told).encode(), fake.sso.key, "RS256", {"kid": fake.sso.key_id})


# What is sent


def test_verifier_is_of_256_random_bits_and_the_challenge_its_hash():
    (first, challenge), (second, _) = new_verifier(), new_verifier()
    assert first != second
    assert len(base64.urlsafe_b64decode(f"{first}=")) == 32
    assert base64.urlsafe_b64decode(f"{challenge}=") == hashlib.sha256(first.encode()).digest()
    assert "=" not in first + challenge


def test_browser_is_sent_with_state_and_challenge_and_without_any_secret():
    sso = Sso("https://login.eveonline.com/", "our client", SECRET, CALLBACK, "")
    address = urlsplit(sso.authorize_url("a&b", "the-challenge", BOTH))
    assert (address.scheme, address.netloc, address.path) == ("https", "login.eveonline.com", "/v2/oauth/authorize")
    assert dict(parse_qsl(address.query)) == {
        "response_type": "code",
        "client_id": "our client",
        "redirect_uri": CALLBACK,
        "scope": f"{OWN} {CORPORATION}",
        "state": "a&b",
        "code_challenge": "the-challenge",
        "code_challenge_method": "S256",
    }


def test_without_a_secret_the_verifier_proves_the_client(fake, sso):
    tokens = login(fake, sso)
    asked = fake.asked[-1]
    form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
    assert sorted(form) == ["client_id", "code", "code_verifier", "grant_type", "redirect_uri"]
    assert (form["client_id"], form["redirect_uri"], form["grant_type"]) == (
        "fake-client",
        CALLBACK,
        "authorization_code",
    )
    assert "Authorization" not in asked.headers
    assert asked.headers["User-Agent"] == "killboard/0.1 (EVE Online killboard backend; contact: tests@example.com)"
    sso.refresh(tokens.refresh_token)
    form = dict(parse_qsl(fake.asked[-1].body.decode()))
    assert form == {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token, "client_id": "fake-client"}


def test_a_secret_goes_as_a_password_and_the_verifier_too():
    world = World()
    world.add_killmails([esi_body(1)])
    with FakeEsi(world, application=Application(secret=SECRET)) as fake:
        with pytest.raises(UpstreamRefused, match="status 401"):
            login(fake, Sso(fake.url, "fake-client", "another", CALLBACK, ""))
        sso = Sso(fake.url, "fake-client", SECRET, CALLBACK, "")
        tokens = login(fake, sso)
        exchanged = fake.asked[-1]
        sso.revoke(sso.refresh(tokens.refresh_token).refresh_token)
        pair = base64.b64encode(f"fake-client:{SECRET}".encode()).decode()
        assert {one.headers["Authorization"] for one in fake.asked[1:]} == {f"Basic {pair}"}
        assert b"code_verifier=" in exchanged.body
        assert not any(b"client_id" in one.body for one in fake.asked[1:])
        assert [one.status for one in fake.asked] == [401, 200, 200, 200]


# Whose token it is


def test_token_says_who_it_is_and_what_was_granted(fake, sso):
    tokens = login(fake, sso, BOTH)
    assert sso.read(tokens.access_token, now()) == Identity(
        PILOT, "Character 2100000001", "owner-of-2100000001=", frozenset(BOTH)
    )
    assert tokens.expires_in == 1200


@pytest.mark.parametrize("scopes", [(), (OWN,), BOTH])
def test_e15_scopes_are_read_as_nothing_as_a_text_and_as_a_list(fake, sso, scopes):
    access_token = login(fake, sso, scopes).access_token
    told = jwt.decode(access_token, options={"verify_signature": False}).get("scp")
    assert told == {0: None, 1: OWN, 2: list(BOTH)}[len(scopes)]
    assert sso.read(access_token, now()).scopes == frozenset(scopes)


@pytest.mark.parametrize("scp", [5, {"a": 1}, [OWN, 5]])
def test_e15_scopes_that_are_none_are_refused(fake, sso, scp):
    with pytest.raises(BadToken, match="its scopes cannot be read"):
        sso.read(token(fake, scp=scp), now())


def test_issuer_is_believed_in_three_spellings(fake, sso):
    for issuer in (fake.url, f"{fake.url}/", fake.url.removeprefix("http://")):
        assert sso.read(token(fake, iss=issuer), now()).character_id == PILOT


def test_token_ends_by_the_clock_that_is_brought_with_a_minute_of_leeway(fake, sso):
    ends = datetime(2031, 1, 1, tzinfo=UTC)  # whatever this machine's own clock says
    for exp in (ends, ends - timedelta(days=3650)):
        ended = token(fake, exp=int(exp.timestamp()), iat=int(exp.timestamp()))
        assert sso.read(ended, exp + timedelta(seconds=60)).character_id == PILOT
        with pytest.raises(BadToken, match="it has expired"):
            sso.read(ended, exp + timedelta(seconds=61))


def by_hand(header: dict, claims: dict, key: bytes | None = None) -> str:
    """A token with the signature of HS256, or with none."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signed = b".".join(parts)
    signature = hmac.new(key, signed, hashlib.sha256).digest() if key else b""
    return b".".join((signed, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def public_key(fake: FakeEsi) -> bytes:
    return fake.sso.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def forged(fake: FakeEsi) -> dict[str, str]:
    """Twenty tokens that EVE did not give to us for now, with a word on each."""
    claims, kid, forger = fake.sso.claims(PILOT, (OWN,)), fake.sso.key_id, _new_key()
    good = fake.sso.sign(claims)
    head, body, signature = good.split(".")
    other = fake.sso.sign(claims | {"sub": "CHARACTER:EVE:1"}).split(".")[1]
    theirs = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(forger.public_key()))
    old = token(fake)
    fake.sso.rotate_keys()
    made = {
        "a key of before": old,
        "no algorithm": by_hand({"alg": "none", "kid": fake.sso.key_id}, claims),
        "HS256 with the public key": by_hand({"alg": "HS256", "kid": fake.sso.key_id}, claims, public_key(fake)),
        "the forger's key": jwt.encode(claims, forger, "RS256", {"kid": fake.sso.key_id}),
        "the forger's key, brought along": jwt.encode(
            claims, forger, "RS256", {"kid": fake.sso.key_id, "jwk": theirs, "jku": f"{fake.url}/oauth/jwks"}
        ),
        "the forger's key under its own name": jwt.encode(claims, forger, "RS256", {"kid": f"{kid}x"}),
        "no name of a key": jwt.encode(claims, fake.sso.key, "RS256"),
        "another algorithm": jwt.encode(claims, fake.sso.key, "RS512", {"kid": fake.sso.key_id}),
        "another's claims": f"{head}.{other}.{signature}",
        "no signature": f"{head}.{body}.",
        "another client's": token(fake, aud=["another", "EVE Online"]),
        "for our client alone": token(fake, aud=["fake-client"]),
        "for everybody": token(fake, aud="EVE Online"),
        "over": token(fake, exp=int(now().timestamp()) - 120),
        "without an end": token(fake, exp=None),
        "another issuer's": token(fake, iss="https://login.evEonline.com"),
        "a corporation's": token(fake, sub="CORPORATION:EVE:98000001"),
        "nobody's": token(fake, sub="CHARACTER:EVE:0"),
        "without an owner": token(fake, owner=None),
        "no token": "no token",
    }
    assert len(made) == 20
    return made


def test_t16_twenty_forged_tokens_are_refused_and_eves_keys_asked_for_twice_at_most(fake, sso):
    tokens = forged(fake)
    refused = {}
    for what, one in tokens.items():
        with pytest.raises(BadToken) as refusal:
            sso.read(one, now())
        refused[what] = str(refusal.value)
    assert (len(refused), fake.sso.key_questions) == (20, 2)
    assert refused["HS256 with the public key"] == "it is not EVE's (InvalidAlgorithmError)"
    assert refused["a key of before"] == "no key of EVE's has signed it"
    assert sso.read(token(fake), now()).character_id == PILOT  # and a good one is still believed


def test_t16_it_is_not_blind_who_asks_the_token_for_its_algorithm_believes_a_forged_one(fake, sso):
    """Known to be wrong: the public key, which everybody has, as the secret of HS256."""

    def believed(one: str, key: bytes) -> bool:
        header = jwt.get_unverified_header(one)
        signed, _, signature = one.rpartition(".")
        if header["alg"] == "HS256":
            right = hmac.new(key, signed.encode(), hashlib.sha256).digest()
            return hmac.compare_digest(right, base64.urlsafe_b64decode(f"{signature}="))
        return bool(jwt.decode(one, key, [header["alg"]], audience="fake-client"))

    good, bad = token(fake), forged(fake)["HS256 with the public key"]
    assert believed(bad, public_key(fake))
    with pytest.raises(BadToken):
        sso.read(bad, now())
    with pytest.raises(jwt.InvalidSignatureError):  # it is no friend of all tokens
        believed(good[:-5] + "AAAAA", public_key(fake))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": ["https://login.eveonline.com"]},
        {"iss": None},
        {"aud": None},
        {"aud": 5},
        {"exp": "soon"},
        {"exp": float("nan")},
        {"sub": f"CHARACTER:EVE:{2**63}"},
        {"sub": "CHARACTER:EVE:1 "},
        {"name": ""},
        {"owner": 5},
    ],
)
def test_claims_of_another_kind_are_a_token_that_is_none(fake, sso, claims):
    with pytest.raises(BadToken):
        sso.read(token(fake, **claims), now())


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "x" * 20_000, "W1tb." * 3])
def test_text_of_any_kind_is_a_token_that_is_none(fake, sso, text):
    with pytest.raises(BadToken):
        sso.read(text, now())


def test_header_that_is_nested_without_end_is_a_token_that_is_none(fake, sso):
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 11_000).rstrip(b"=").decode()
    with pytest.raises(BadToken):
        sso.read(f"{deep}.e30.AAAA", now())


# EVE's keys


def test_t16_a_flood_of_unknown_keys_is_two_questions_a_minute_at_most(fake, sso, clock):
    forger = _new_key()
    claims = fake.sso.claims(PILOT, (OWN,))
    for number in range(50):
        with pytest.raises(BadToken, match="no key of EVE's has signed it"):
            sso.read(jwt.encode(claims, forger, "RS256", {"kid": f"key-{number}"}), now())
    assert fake.sso.key_questions == 2
    clock.now += 61
    for _ in range(5):
        with pytest.raises(BadToken):
            sso.read(jwt.encode(claims, forger, "RS256", {"kid": "again"}), now())
    assert fake.sso.key_questions == 3


def test_keys_are_asked_for_every_five_minutes(fake, sso, clock):
    for _ in range(3):
        sso.read(token(fake), now())
    clock.now += 299
    sso.read(token(fake), now())
    assert fake.sso.key_questions == 1
    clock.now += 2
    sso.read(token(fake), now())
    assert fake.sso.key_questions == 2


def test_new_key_of_eves_is_found_at_once_and_the_old_one_is_forgotten(fake, sso, clock):
    old = token(fake)
    assert sso.read(old, now()).character_id == PILOT
    fake.sso.rotate_keys()
    assert sso.read(token(fake), now()).character_id == PILOT
    assert fake.sso.key_questions == 2
    with pytest.raises(BadToken, match="no key of EVE's has signed it"):
        sso.read(old, now())
    fake.sso.rotate_keys()  # once more within the minute: it takes a while
    with pytest.raises(BadToken):
        sso.read(token(fake), now())
    clock.now += 61
    assert sso.read(token(fake), now()).character_id == PILOT
    assert fake.sso.key_questions == 3


def test_keys_of_another_kind_beside_eves_do_no_harm(fake, sso):
    keys = [{"kty": "EC", "alg": "ES256", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"}, fake.sso._public_key()]
    fake.fail("/oauth/jwks", Fault(200, json.dumps({"keys": keys}).encode()))
    assert sso.read(token(fake), now()).character_id == PILOT


GARBAGE = [
    Fault(500),
    Fault(503, b"{}"),
    Fault(hang_up=True),
    Fault(200, b"<html>"),
    Fault(200, b"[]"),
    Fault(200, b'{"keys": []}'),
    Fault(200, b'{"keys": [{"kty": "RSA", "kid": "a"}]}'),
    Fault(200, b"no gzip at all", headers={"Content-Encoding": "gzip"}),
    Fault(302, b"", headers={"Location": "http://169.254.169.254/"}),
]


@pytest.mark.parametrize("fault", GARBAGE)
def test_keys_that_are_away_are_no_verdict_on_the_token_and_are_asked_for_again(fake, sso, fault):
    fake.fail("/oauth/jwks", fault)
    with pytest.raises(UpstreamError):
        sso.read(token(fake), now())
    assert sso.read(token(fake), now()).character_id == PILOT


# Tokens


def test_refresh_token_rotates_and_the_old_one_is_refused_for_good(fake, sso):
    first = login(fake, sso)
    second = sso.refresh(first.refresh_token)
    assert second.refresh_token not in (None, first.refresh_token)
    with pytest.raises(GrantRefused):
        sso.refresh(first.refresh_token)
    sso.revoke(second.refresh_token)
    with pytest.raises(GrantRefused):
        sso.refresh(second.refresh_token)


def test_code_that_is_none_is_refused_for_good(fake, sso):
    code, verifier = code_of(fake, sso, PILOT)
    with pytest.raises(GrantRefused):
        sso.exchange("invented", verifier)
    with pytest.raises(GrantRefused):
        sso.exchange(code, new_verifier()[0])


@pytest.mark.parametrize("told", [None, "", 5, "a b", "x" * 20_000])
def test_e13_an_answer_without_a_refresh_token_has_none(fake, sso, told):
    first = login(fake, sso)
    fake.sso.knobs.also = {"refresh_token": told}
    assert sso.refresh(first.refresh_token).refresh_token is None


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(-5, 0), (0, 0), ("1200", 1200), (None, 1200), (1199, 1199), ("soon", 1200), (10**9, 1200), ([], 1200)],
)
def test_e14_seconds_of_a_token_are_0_at_least_and_1200_where_eve_does_not_say(fake, sso, told, seconds):
    fake.sso.knobs.also = {"expires_in": told}
    assert login(fake, sso).expires_in == seconds


@pytest.mark.parametrize("told", [None, "", 5, ["a"], "a\nb", "a b", "é", "x" * 20_000])
def test_answer_without_an_access_token_is_no_answer(fake, sso, told):
    fake.sso.knobs.also = {"access_token": told}
    with pytest.raises(UpstreamUnreachable, match="EVE's SSO gave no access token"):
        login(fake, sso)


@pytest.mark.parametrize("told", [None, "", 5, "a b"])
def test_new_refresh_token_beside_an_unusable_access_token_is_told(fake, sso, told):
    """The old one is dead: without it the grant would be lost."""
    first = login(fake, sso)
    fake.sso.knobs.also = {"access_token": told}
    tokens = sso.refresh(first.refresh_token)
    assert (tokens.access_token, tokens.refresh_token) == ("", fake.sso.issued[-1])
    fake.sso.knobs.also = {"access_token": told, "refresh_token": None}
    with pytest.raises(UpstreamUnreachable, match="EVE's SSO gave no access token"):
        sso.refresh(tokens.refresh_token)


@pytest.mark.parametrize(
    "fault",
    [
        *GARBAGE[:5],
        Fault(200, b"no gzip at all", headers={"Content-Encoding": "gzip"}),
        Fault(302, b"", headers={"Location": "http://169.254.169.254/"}),
        Fault(400, b"<html>"),
        Fault(400, b'{"error": "temporarily_unavailable"}'),
        Fault(400, b'["invalid_grant"]'),
        Fault(401, b'{"error": "invalid_client"}'),
        Fault(503, b'{"error": "invalid_grant"}'),
    ],
)
def test_what_may_pass_is_no_verdict_on_the_grant_and_is_asked_once(fake, sso, fault):
    tokens = login(fake, sso)
    fake.fail("/v2/oauth/token", fault)
    with pytest.raises((UpstreamRefused, UpstreamUnreachable)):
        sso.refresh(tokens.refresh_token)
    assert len(fake.asked) == 2  # never twice: the first may have been heard
    assert sso.refresh(tokens.refresh_token).access_token


def test_wait_that_eve_asks_for_is_told(fake, sso):
    fake.fail("/v2/oauth/token", Fault(429, b"", headers={"Retry-After": "37"}))
    with pytest.raises(UpstreamRefused) as refusal:
        sso.refresh("whatever")
    assert (refusal.value.status, refusal.value.retry_after) == (429, 37.0)


def test_sso_that_is_silent_or_drips_is_given_up_in_time(fake, monkeypatch):
    monkeypatch.setattr(sso_module, "DEADLINE", 0.2)
    sso = Sso(fake.url, "fake-client", "", CALLBACK, "")
    for fault in (Fault(silent_for=30), Fault(200, b"x" * 100, drip=0.05)):
        fake.fail("/v2/oauth/token", fault)
        with pytest.raises(UpstreamUnreachable, match="no complete answer within"):
            sso.refresh("whatever")


def test_sso_that_is_not_there_is_unreachable(fake):
    fake.stop()
    sso = Sso(fake.url, "fake-client", "", CALLBACK, "")
    for ask in (lambda: sso.refresh("a"), lambda: sso.revoke("a"), lambda: sso.read(token(fake), now())):
        with pytest.raises(UpstreamUnreachable, match="no connection"):
            ask()


def test_no_text_of_an_error_and_no_record_shows_a_token(fake, sso):
    code, verifier = code_of(fake, sso, PILOT)
    secrets = {code, verifier}
    said = []

    def note(ask) -> None:
        with pytest.raises((GrantRefused, BadToken, UpstreamError)) as refusal:
            ask()
        said.extend([*traceback.format_exception(refusal.value), repr(refusal.value)])

    note(lambda: sso.exchange(code, "another-verifier"))
    tokens = login(fake, sso)
    secrets |= {tokens.access_token, tokens.refresh_token}
    for fault in (Fault(500), Fault(hang_up=True), Fault(200, b"<html>"), Fault(400, b'{"error": "invalid_grant"}')):
        fake.fail("/v2/oauth", fault, times=2)
        note(lambda: sso.refresh(tokens.refresh_token))
        note(lambda: sso.exchange(code, verifier))
        fake.heal()
    fake.fail("/v2/oauth/revoke", Fault(500))
    note(lambda: sso.revoke(tokens.refresh_token))
    note(lambda: sso.read(tokens.access_token, now() + timedelta(hours=1)))
    note(lambda: sso.read(f"{tokens.access_token}x", now()))
    said += [repr(tokens), str(tokens), repr(sso)]
    assert len(said) > 30
    assert len(secrets) == 4
    assert [one for one in secrets if any(one[:20] in line for line in said)] == []
