"""EVE's SSO on loopback, with its rules: codes are used once, refresh tokens rotate, grants can be ended and sold.

Source: https://developers.eveonline.com/docs/services/sso/
"""

import base64
import hashlib
import html
import json
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from killmails.fake_eve.limits import Clock
from killmails.fake_eve.messages import Reply, Request
from killmails.fake_eve.world import World

CODE_LIFE, ACCESS_LIFE = 300.0, 1200.0  # seconds of EVE's
SCOPES = ("esi-killmails.read_killmails.v1", "esi-killmails.read_corporation_killmails.v1", "publicData")
INVALID_GRANT = Reply(400, {"error": "invalid_grant", "error_description": "Invalid refresh token or code."})
INVALID_CLIENT = Reply(401, {"error": "invalid_client"})


@dataclass
class Grant:
    """What one login of a character gave. `scopes` may be changed: the next refresh gives what is there then."""

    character_id: int
    owner: str
    scopes: tuple[str, ...]
    refresh_token: str = ""
    ended: bool = False


@dataclass(frozen=True)
class _Code:
    grant: Grant
    redirect_uri: str
    challenge: str
    expires_at: float


@dataclass(frozen=True)
class Application:
    """One that is registered at EVE; a `secret` of "" is none, and PKCE proves the client."""

    client_id: str = "fake-client"
    secret: str = ""
    callbacks: tuple[str, ...] = ("http://localhost:4000/auth/callback",)


@dataclass
class Knobs:
    """How answers differ from the usual. `also`: what replaces the token answer's own fields, None takes one out."""

    also: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def _first_key() -> tuple[str, rsa.RSAPrivateKey]:
    """One for all fakes of a process: making it takes a while."""
    return secrets.token_hex(4), _new_key()


class FakeSso:
    """The SSO of a fake EVE. `issued`: all tokens there ever were; `refreshes`: how many, by character."""

    def __init__(self, world: World, clock: Clock, application: Application) -> None:
        self.world = world
        self.clock = clock
        self.application = application
        self.knobs = Knobs()
        self.url = ""
        self.issued: list[str] = []
        self.refreshes: Counter[int] = Counter()
        self.key_questions = 0
        self._codes: dict[str, _Code] = {}
        self._grants: dict[str, Grant] = {}  # by refresh token
        self._access: dict[str, tuple[Grant, float, tuple[str, ...]]] = {}
        self.key_id, self.key = _first_key()

    # What a test, or whoever plays EVE, may do

    def rotate_keys(self) -> None:
        """Another signing key; the old one is not told any more."""
        self.key_id, self.key = secrets.token_hex(4), _new_key()

    def approve(self, authorize_url: str, character_id: int, scopes: tuple[str, ...] | None = None) -> str:
        """What a click on the page does: the address that a browser is sent back to."""
        query = dict(parse_qsl(urlsplit(authorize_url).query))
        if problem := self._problem(query):
            raise ValueError(problem)
        asked = tuple(query.get("scope", "").split())
        grant = Grant(character_id, self.world.owner(character_id), asked if scopes is None else scopes)
        code = secrets.token_urlsafe(16)
        expires_at = self.clock.now() + CODE_LIFE
        self._codes[code] = _Code(grant, query["redirect_uri"], query.get("code_challenge", ""), expires_at)
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def grants_of(self, character_id: int) -> list[Grant]:
        return [grant for grant in self._grants.values() if grant.character_id == character_id]

    def end_grants(self, character_id: int) -> None:
        """As at EVE's page of third-party applications."""
        for grant in self.grants_of(character_id):
            grant.ended = True

    def expire_access(self, character_id: int) -> None:
        """Its access tokens are over."""
        for token, (grant, _, scopes) in list(self._access.items()):
            if grant.character_id == character_id:
                self._access[token] = grant, 0.0, scopes

    def holder(self, token: str) -> tuple[int, tuple[str, ...]] | None:
        """Character and scopes of an access token that is good now."""
        found = self._access.get(token)
        if found is None or found[0].ended or found[1] <= self.clock.now():
            return None
        return found[0].character_id, found[2]

    # Answers

    def answer(self, request: Request) -> Reply | None:
        """None for what is no address of the SSO's."""
        match request.method, request.path.rstrip("/"):
            case "GET", "/v2/oauth/authorize":
                return self._page(request)
            case "POST", "/v2/oauth/authorize":
                return self._clicked(request)
            case "POST", "/v2/oauth/token":
                return self._token(request)
            case "POST", "/v2/oauth/revoke":
                return self._revoke(request)
            case "GET", "/oauth/jwks":
                self.key_questions += 1
                return Reply(200, {"keys": [self._public_key()]})
            case "GET", "/.well-known/oauth-authorization-server":
                return Reply(200, self._metadata())
        return None

    def _problem(self, query: Mapping[str, str]) -> str:
        if query.get("client_id") != self.application.client_id:
            return "unknown client_id"
        if query.get("redirect_uri") not in self.application.callbacks:
            return "redirect_uri is not registered for this application"
        if query.get("response_type") != "code":
            return "response_type must be code"
        if not query.get("state"):
            return "state is missing"
        if unknown := set(query.get("scope", "").split()) - set(SCOPES):
            return f"unknown scope {sorted(unknown)[0]}"
        if query.get("code_challenge") and query.get("code_challenge_method") != "S256":
            return "code_challenge_method must be S256"
        if not (query.get("code_challenge") or self.application.secret):
            return "code_challenge is missing, and the application has no secret"
        return ""

    def _page(self, request: Request) -> Reply:
        query = dict(parse_qsl(request.query))
        if problem := self._problem(query):
            return Reply(400, {"error": "invalid_request", "error_description": problem})
        scopes = "".join(f"<li>{html.escape(scope)}</li>" for scope in query.get("scope", "").split())
        buttons = "".join(
            f'<p><button name="character" value="{pilot}">{html.escape(name)}</button> {html.escape(what)}</p>'
            for pilot, name, what in self.world.pilots()
        )
        return Reply(200, text=PAGE.format(action=html.escape(request.target), scopes=scopes, buttons=buttons))

    def _clicked(self, request: Request) -> Reply:
        query = dict(parse_qsl(request.query))
        if problem := self._problem(query):
            return Reply(400, {"error": "invalid_request", "error_description": problem})
        clicked = _form(request).get("character")
        for pilot, _, _ in self.world.pilots():
            if str(pilot) == clicked:
                return Reply(302, headers={"Location": self.approve(request.target, pilot)})
        denied = urlencode({"error": "access_denied", "state": query["state"]})
        return Reply(302, headers={"Location": f"{query['redirect_uri']}?{denied}"})

    def _token(self, request: Request) -> Reply:
        form = _form(request)
        if not self._is_client(request, form):
            return INVALID_CLIENT
        grant = None
        if form.get("grant_type") == "authorization_code":
            grant = self._redeem(form)
        elif form.get("grant_type") == "refresh_token":
            grant = self._grants.pop(form.get("refresh_token", ""), None)  # a rotated one is dead at once
            if grant is not None:
                self.refreshes[grant.character_id] += 1
        if grant is None or grant.ended or grant.owner != self.world.owner(grant.character_id):
            return INVALID_GRANT
        return self._issue(grant)

    def _is_client(self, request: Request, form: Mapping[str, str]) -> bool:
        application = self.application
        if not application.secret:
            return form.get("client_id") == application.client_id
        pair = base64.b64encode(f"{application.client_id}:{application.secret}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {pair}"

    def _redeem(self, form: Mapping[str, str]) -> Grant | None:
        code = self._codes.pop(form.get("code", ""), None)
        if code is None or code.expires_at <= self.clock.now():
            return None
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if code.challenge and code.challenge != base64.urlsafe_b64encode(digest).decode().rstrip("="):
            return None
        return code.grant if form.get("redirect_uri", code.redirect_uri) == code.redirect_uri else None

    def _issue(self, grant: Grant) -> Reply:
        access = self.sign(self.claims(grant.character_id, grant.scopes) | self.knobs.claims)
        if not (grant.refresh_token and self.knobs.also.get("refresh_token", "") is None):  # else the old one goes on
            grant.refresh_token = secrets.token_urlsafe(24)
        self._access[access] = grant, self.clock.now() + ACCESS_LIFE, grant.scopes
        self._grants[grant.refresh_token] = grant
        self.issued += [access, grant.refresh_token]
        body = {
            "access_token": access,
            "expires_in": int(ACCESS_LIFE / self.clock.speed),
            "token_type": "Bearer",
            "refresh_token": grant.refresh_token,
            **self.knobs.also,
        }
        return Reply(200, {name: value for name, value in body.items() if value is not None})

    def claims(self, character_id: int, scopes: tuple[str, ...]) -> dict[str, Any]:
        """As EVE writes them: one scope is a text, none is left out."""
        now = self.clock.unix()
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": [self.application.client_id, "EVE Online"],
            "sub": f"CHARACTER:EVE:{character_id}",
            "name": self.world.characters[character_id]["name"],
            "owner": self.world.owner(character_id),
            "azp": self.application.client_id,
            "jti": secrets.token_hex(8),
            "iat": int(now),
            "exp": int(now + ACCESS_LIFE / self.clock.speed),
            "tenant": "tranquility",
            "tier": "live",
            "region": "world",
        }
        return claims | ({"scp": scopes[0] if len(scopes) == 1 else list(scopes)} if scopes else {})

    def sign(self, claims: Mapping[str, Any]) -> str:
        return jwt.encode(dict(claims), self.key, algorithm="RS256", headers={"kid": self.key_id})

    def _public_key(self) -> dict[str, Any]:
        told = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {**told, "kid": self.key_id, "alg": "RS256", "use": "sig"}

    def _revoke(self, request: Request) -> Reply:
        form = _form(request)
        if not self._is_client(request, form):
            return INVALID_CLIENT
        if grant := self._grants.pop(form.get("token", ""), None):
            grant.ended = True
        return Reply(200)

    def _metadata(self) -> dict[str, Any]:
        places = {"authorization": "v2/oauth/authorize", "token": "v2/oauth/token", "revocation": "v2/oauth/revoke"}
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/oauth/jwks",
            "code_challenge_methods_supported": ["S256"],
            **{f"{name}_endpoint": f"{self.url}/{place}" for name, place in places.items()},
        }


def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(errors="replace")))


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A fake EVE Online: log in</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}}
button{{font:inherit;padding:.3rem .9rem}}</style></head><body>
<h1>A fake EVE Online</h1><p>An application asks you to log in. It wants:</p><ul>{scopes}</ul>
<form method="post" action="{action}">{buttons}<p><button name="character" value="">Deny</button></p></form>
</body></html>"""
