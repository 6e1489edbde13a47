"""EVE's SSO, version 2: who has logged in, and tokens for ESI.

A token that EVE signed is believed, and nothing else: the algorithm is fixed, the key is EVE's own.
Source: https://developers.eveonline.com/docs/services/sso/
"""

import base64
import hashlib
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from jwt.algorithms import RSAAlgorithm

from killmails.errors import BadToken, GrantRefused, Unacceptable, UnknownKey, UpstreamRefused, UpstreamUnreachable
from killmails.strict_json import BadJson, read_json
from killmails.upstream.http import Answer, Client, retry_after

logger = logging.getLogger(__name__)

USER_AGENT = "killboard/0.1 (EVE Online killboard backend; contact: {contact})"
DEADLINE = 15.0  # seconds for a question
KEYS_HOLD = 300.0  # seconds for which EVE's keys are not asked for again
KEYS_PAUSE = 60.0  # seconds between two questions for a key that is not among them
LEEWAY = 60  # seconds that two clocks may differ
LIFE = 1200  # seconds of an access token, where EVE does not say
TOKEN = re.compile(r"[!-~]{1,16384}")  # what fits into a header
EVERYBODY = "EVE Online"  # in each token's audience, beside our client
NO_ACCESS_TOKEN = "EVE's SSO gave no access token"
SUBJECT = re.compile(r"CHARACTER:EVE:([1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What EVE gave; neither is ever shown. `refresh_token` None: the old one goes on. `expires_in` in seconds.
    `access_token` "": none that could be used, beside a new refresh token, which is to be stored all the same.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token says. `owner_hash` changes when the character goes to another account."""

    character_id: int
    name: str
    owner_hash: str
    scopes: frozenset[str]


def new_verifier() -> tuple[str, str]:
    """A PKCE verifier, which stays with us until the code is exchanged, and its challenge (S256)."""
    verifier = secrets.token_urlsafe(32)
    digest = hashlib.sha256(verifier.encode()).digest()
    return verifier, base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Sso:
    """Questions to EVE's SSO. Threads may share it.

    `exchange` and `refresh` are never repeated: a code, and a token that EVE rotates, is good for one answer. All raise
    UpstreamUnreachable or UpstreamRefused where later may be right, and GrantRefused where it is not.
    """

    def __init__(self, base_url: str, client_id: str, client_secret: str, callback_url: str, contact: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._client_id = client_id
        self._client_secret = client_secret
        self._callback_url = callback_url
        self._user_agent = USER_AGENT.format(contact=contact or "not given")
        self._issuers = {self._base_url, f"{self._base_url}/", urlsplit(self._base_url).netloc}
        self._of_thread = threading.local()
        self._keys: dict[str, Any] = {}
        self._keys_at = self._sought_at = float("-inf")
        self._lock = threading.Lock()

    def authorize_url(self, state: str, challenge: str, scopes: Iterable[str]) -> str:
        """Where a browser logs in."""
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._callback_url,
            "scope": " ".join(scopes),
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._base_url}/v2/oauth/authorize?{urlencode(query)}"

    def exchange(self, code: str, verifier: str) -> Tokens:
        """The tokens for the code that a browser brought back."""
        tokens = self._tokens({"grant_type": "authorization_code", "code": code, "code_verifier": verifier})
        if not tokens.access_token:
            raise UpstreamUnreachable(NO_ACCESS_TOKEN)
        return tokens

    def refresh(self, refresh_token: str) -> Tokens:
        """New tokens. The refresh token may be a new one, and the old one is dead then: store it before all else, also
        where there is no access token beside it.
        """
        return self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    def revoke(self, refresh_token: str) -> None:
        """Ends the grant."""
        answer = self._post("/v2/oauth/revoke", {"token_type_hint": "refresh_token", "token": refresh_token})
        if answer.status >= 400:
            raise UpstreamRefused(answer.status, None)

    def read(self, access_token: str, now: datetime) -> Identity:
        """Who it is. `now`: by a clock that is right. Raises BadToken, and UpstreamError where EVE's keys are away."""
        if not TOKEN.fullmatch(access_token):
            raise BadToken("no token has such letters, or so many")
        try:
            key_id = jwt.get_unverified_header(access_token).get("kid")
            claims = jwt.decode(
                access_token,
                self._key(key_id),
                algorithms=["RS256"],  # never what the token itself says
                audience=self._client_id,
                options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise BadToken(f"it is not EVE's ({type(error).__name__})") from error
        return self._identity(claims, now)

    def _identity(self, claims: dict[str, Any], now: datetime) -> Identity:
        audience, expires, subject = claims["aud"], claims["exp"], SUBJECT.fullmatch(str(claims["sub"]))
        if str(claims["iss"]) not in self._issuers:
            raise BadToken("another issuer")
        if not isinstance(audience, list) or EVERYBODY not in audience:
            raise BadToken("another audience")
        if type(expires) is not int or expires + LEEWAY < now.timestamp():
            raise BadToken("it has expired")
        name, owner = claims.get("name"), claims.get("owner")
        if subject is None or not (isinstance(name, str) and isinstance(owner, str) and name and owner):
            raise BadToken("it names no character, or no owner")
        scopes = claims.get("scp", [])  # a plain text where there is one, and absent where there is none
        scopes = [scopes] if isinstance(scopes, str) else scopes
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise BadToken("its scopes cannot be read")
        return Identity(int(subject[1]), name[:255], owner[:100], frozenset(scopes))

    # EVE's keys

    def _key(self, key_id: object) -> Any:
        """Of EVE's, the one that signed. Raises BadToken where there is none."""
        if not isinstance(key_id, str):
            raise BadToken("it names no key")
        with self._lock:
            now = time.monotonic()
            if now - self._keys_at > KEYS_HOLD:
                self._keys, self._keys_at = self._fetch_keys(), now
            elif key_id not in self._keys and now - self._sought_at > KEYS_PAUSE:
                self._sought_at = now  # a flood of invented key ids must not become a flood of questions
                self._keys, self._keys_at = self._fetch_keys(), now
            if key_id not in self._keys:
                raise UnknownKey("no key of EVE's has signed it")
            return self._keys[key_id]

    def _fetch_keys(self) -> dict[str, Any]:
        answer = self._ask("GET", "/oauth/jwks")
        try:
            rows = read_json(answer.body)["keys"] if answer.status == 200 else []
            fitting = [row for row in rows if row.get("kty") == "RSA" and row.get("alg", "RS256") == "RS256"]
            keys = {row["kid"]: RSAAlgorithm.from_jwk(json.dumps(row)) for row in fitting}
        except (BadJson, jwt.InvalidKeyError, KeyError, TypeError, AttributeError) as error:
            raise UpstreamUnreachable("EVE's keys cannot be read") from error
        if not keys:
            raise UpstreamUnreachable(f"EVE gives no keys (status {answer.status})")
        return keys

    # Questions

    def _tokens(self, form: dict[str, str]) -> Tokens:
        answer = self._post("/v2/oauth/token", form)
        body = _object(answer)
        if answer.status == 400 and body.get("error") in ("invalid_grant", "invalid_token"):
            raise GrantRefused("EVE does not know the grant, or has ended it")
        if answer.status != 200:
            raise UpstreamRefused(answer.status, retry_after(answer.headers.get("Retry-After")))
        access_token, refresh_token = body.get("access_token"), body.get("refresh_token")
        if not (isinstance(refresh_token, str) and TOKEN.fullmatch(refresh_token)):
            refresh_token = None
        if not (isinstance(access_token, str) and TOKEN.fullmatch(access_token)):
            if refresh_token is None:
                raise UpstreamUnreachable(NO_ACCESS_TOKEN)
            access_token = ""
        return Tokens(access_token, refresh_token, _seconds(body.get("expires_in", LIFE)))

    def _post(self, path: str, form: dict[str, str]) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._client_secret:
            pair = f"{self._client_id}:{self._client_secret}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        else:
            form = {**form, "client_id": self._client_id}
        if form.get("grant_type") == "authorization_code":
            form = {**form, "redirect_uri": self._callback_url}
        return self._ask("POST", path, headers, urlencode(form).encode())

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        if not hasattr(self._of_thread, "client"):  # each thread has a connection of its own
            self._of_thread.client = Client(self._user_agent, DEADLINE, upstream="sso")
        client: Client = self._of_thread.client
        try:
            return client.ask(method, f"{self._base_url}{path}", headers=headers, body=body)
        except Unacceptable as error:
            raise UpstreamUnreachable("EVE's SSO gave an answer that cannot be read") from error


def _object(answer: Answer) -> dict[str, Any]:
    """The body, where it is an object in JSON."""
    try:
        body = read_json(answer.body)
    except BadJson:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(value: object) -> int:
    """A number, or a text that is one; 0 for one that is over already, what is usual for nonsense."""
    try:
        return max(0, min(LIFE, int(str(value))))
    except ValueError:
        return LIFE
