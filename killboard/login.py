"""Logging in with EVE: the page before it, EVE's answer, and the end of a session.

Each attempt has a state and a PKCE verifier of its own, in the session that began it; it is used once, within ten
minutes. Where EVE sends people back to is fixed by a setting, and no token is ever in an address.
Source: https://developers.eveonline.com/docs/services/sso/
"""

import logging
import secrets
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from killboard.pages import account_page
from killmails import accounts
from killmails.errors import BadToken, GrantRefused, NotWelcome, UpstreamError
from killmails.models.users import CORPORATION, DELAYS, OWN
from killmails.upstream.sso import new_verifier
from killmails.users.grants import database_now
from killmails.users.logins import log_in
from killmails.users.sso import sso

logger = logging.getLogger(__name__)

PENDING = "eve_logins"  # in the session: attempts by state
MOST_PENDING = 5  # of a session: a tab each
LIFE = 600.0  # seconds, by the database's clock: that of the server that EVE's answer comes to may be another one
KEPT = 86_400  # seconds of a session in which nobody has logged in yet; it ends by the clocks of servers
SCOPES = {"own": OWN, "corporation": CORPORATION}

OFF = "Nobody can log in here: this board has no application at EVE (EVE_CLIENT_ID is not set)."
NOT_OURS = "This login was not begun here, was finished already, or took longer than ten minutes. Begin again."
DENIED = "EVE says that the login was cancelled. Begin again when you like."
UNREACHABLE = "EVE's login does not answer as it should at the moment. Begin again in a minute."
NOT_WELCOME = "This user may not log in here with EVE; ask whoever runs the board."
REFUSED = "EVE did not confirm this login. Begin again."


class EveBackend(BaseBackend):
    """Whose session this is that began at EVE. Nobody's any more, once its user is made one of the admin's."""

    def get_user(self, user_id: int) -> AbstractBaseUser | None:
        ordinary = get_user_model().objects.filter(is_active=True, is_staff=False, is_superuser=False)
        return ordinary.filter(pk=user_id).first()


@never_cache
@require_http_methods(["GET", "POST"])
def begin(request: HttpRequest) -> HttpResponse:
    """The page that says what we ask for; sent, it leads to EVE."""
    client = sso()
    if client is None:
        return problem(request, 404, OFF)
    if request.method == "GET":
        user_id = user_of(request)
        granted = accounts.scopes_of(user_id) if user_id else {OWN}
        ticked = {name: scope in granted or (not granted and name == "own") for name, scope in SCOPES.items()}
        context = {"delays": DELAYS[1:], "adding": user_id is not None, **ticked}
        return account_page(request, "login", context, forms_to=_sso_origin())
    state, (verifier, challenge) = secrets.token_urlsafe(32), new_verifier()
    attempts = dict(sorted(_attempts(request).items(), key=lambda attempt: -attempt[1]["at"])[: MOST_PENDING - 1])
    attempts[state] = {
        "verifier": verifier,
        "at": database_now().timestamp(),
        "publication": request.POST.get("publication", ""),
    }
    request.session[PENDING] = attempts
    if not request.user.is_authenticated:
        request.session.set_expiry(KEPT)
    scopes = [scope for name, scope in SCOPES.items() if request.POST.get(name)]
    return HttpResponseRedirect(client.authorize_url(state, challenge, scopes))


@never_cache
@require_safe
def callback(request: HttpRequest) -> HttpResponse:
    """EVE sends people back to here."""
    client = sso()
    if client is None:
        return problem(request, 404, OFF)
    attempts = _attempts(request)
    attempt = attempts.pop(request.GET.get("state", ""), None)
    if attempt is None:
        return problem(request, 400, NOT_OURS)
    request.session[PENDING] = attempts  # whatever comes of it, it was used
    if "code" not in request.GET:
        return problem(request, 400, DENIED)
    try:
        tokens = client.exchange(request.GET["code"], attempt["verifier"])
        identity = client.read(tokens.access_token, database_now())
    except (GrantRefused, BadToken) as error:
        logger.warning("A login was not confirmed by EVE: %s", error)
        return problem(request, 400, REFUSED)
    except UpstreamError as error:
        logger.warning("A login could not be finished, since EVE's SSO failed: %s", error)
        return problem(request, 502, UNREACHABLE)
    try:
        user_id = log_in(identity, tokens, user_of(request))
    except NotWelcome as error:
        logger.warning("A login was refused: %s", error)
        return problem(request, 403, NOT_WELCOME)
    accounts.choose_first_publication(user_id, attempt["publication"])
    request.session.set_expiry(None)  # as long as usual
    user = get_user_model().objects.get(pk=user_id)
    login(request, user, backend=f"{__name__}.EveBackend")  # under a new session key
    return HttpResponseRedirect("/account")


def user_of(request: HttpRequest) -> int | None:
    """Who adds a character. Not who runs the board, and has logged in to the admin in the same browser."""
    user = request.user
    return user.pk if user.is_authenticated and not (user.is_staff or user.is_superuser) else None


@require_POST
def end(request: HttpRequest) -> HttpResponse:
    """Ends the session of this browser. Characters stay, and are read; /account removes them."""
    logout(request)
    return HttpResponseRedirect("/")


def problem(request: HttpRequest, status: int, text: str) -> HttpResponse:
    return account_page(request, "problem", {"text": text, "sso": bool(settings.EVE_CLIENT_ID)}, status=status)


def _attempts(request: HttpRequest) -> dict[str, Any]:
    """Those of this session that are still good."""
    attempts: dict[str, Any] = request.session.get(PENDING, {})
    now = database_now().timestamp() if attempts else 0.0
    return {state: one for state, one in attempts.items() if 0 <= now - one["at"] <= LIFE}


def _sso_origin() -> str:
    """Browsers want a form's policy to name where its answer leads, too."""
    parts = urlsplit(settings.SSO_URL)
    return f"{parts.scheme}://{parts.netloc}"
