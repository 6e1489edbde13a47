"""What users decide about themselves: what is published, which characters stay, which programs act for them."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from killmails.models import ApiToken, PendingKillmail, Publication, UserCharacter
from killmails.models.users import DELAYS
from killmails.models.work import shown
from killmails.queueing import PUBLISH, ring
from killmails.withholding import schedule_all

TOKEN_LIFE = timedelta(days=365)
LONGEST = 200  # letters
NOTED = timedelta(minutes=1)  # between two notes of a token's use
MOST_TOKENS = 20  # of a user
LEAVING = "(leaving)"  # whose characters are those of users who are gone, until EVE has been told; no form takes it
PREFIX = "kb_"  # by which scanners of public code find one that has leaked


class Viewer(NamedTuple):
    """A user, by the API token that a program brought."""

    user_id: int
    digest: str


def authenticate(token: str) -> Viewer | None:
    """None for what is no token, or not any more."""
    if not (token.isascii() and token.startswith(PREFIX) and len(token) <= LONGEST):
        return None
    digest = digest_of(token)
    row = _holds(ApiToken.objects.filter(pk=digest)).values_list("user_id", "last_used_at").first()
    if row is None:
        return None
    old = Q(last_used_at=None) | Q(last_used_at__lt=Now() - NOTED)
    ApiToken.objects.filter(old, pk=digest).update(last_used_at=Now())
    return Viewer(row[0], digest)


def living(viewers: Iterable[Viewer]) -> list[Viewer]:
    """Those whose token still holds."""
    wanted = list(viewers)
    rows = _holds(ApiToken.objects.filter(pk__in=[viewer.digest for viewer in wanted]))
    digests = set(rows.values_list("pk", flat=True))
    return [viewer for viewer in wanted if viewer.digest in digests]


def _holds(tokens: QuerySet[ApiToken]) -> QuerySet[ApiToken]:
    return tokens.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), user__is_active=True)


def log_out(viewer: Viewer, everywhere: bool) -> None:
    """Ends this token; `everywhere`: all of the user's, and the grants of all characters as well."""
    tokens = ApiToken.objects.filter(user=viewer.user_id)
    (tokens if everywhere else tokens.filter(pk=viewer.digest)).delete()
    if everywhere:
        for character_id in UserCharacter.objects.filter(user=viewer.user_id).values_list("pk", flat=True):
            remove_character(viewer.user_id, character_id)


def publication_of(user_id: int) -> Publication:
    """None is made: who has said nothing publishes nothing."""
    return Publication.objects.filter(pk=user_id).first() or Publication(user_id=user_id)


def set_publication(user_id: int, publish: bool, delay_hours: int) -> Publication:
    """From now on, and for what is withheld. What has been published stays so. `delay_hours`: one of DELAYS."""
    if delay_hours not in DELAYS:
        raise ValueError(f"delay: {delay_hours} hours; must be one of {', '.join(map(str, DELAYS))}")
    with transaction.atomic():
        row, _ = Publication.objects.update_or_create(
            user_id=user_id, defaults={"publish": publish, "delay_hours": delay_hours}
        )
        schedule_all(user_id)
        UserCharacter.objects.filter(user=user_id).update(changed_at=Now())
        ring(PUBLISH)
    return row


def scopes_of(user_id: int) -> set[str]:
    """All that any of their characters has granted."""
    granted = UserCharacter.objects.filter(user=user_id).values_list("scopes", flat=True)
    return {scope for scopes in granted for scope in scopes}


def choose_publication(user_id: int, choice: str) -> None:
    """What a form says: "never", or hours; anything else leaves it as it was."""
    if choice == "never":
        set_publication(user_id, False, 0)
    elif choice in map(str, DELAYS):
        set_publication(user_id, True, int(choice))


def choose_first_publication(user_id: int, choice: str) -> None:
    """Before the first login. What a user has said since is not undone by a form that does not know it."""
    if not Publication.objects.filter(pk=user_id).exists():
        choose_publication(user_id, choice)


def remove_character(user_id: int, character_id: int) -> bool:
    """It is not asked for any more; a worker revokes its grant at EVE and forgets the tokens. Whether it was theirs."""
    rows = UserCharacter.objects.filter(pk=character_id, user=user_id)
    with transaction.atomic():
        leaving = rows.update(**shown(state=UserCharacter.State.LEAVING, access_token="", reason="is being removed"))
        ring()
    return bool(leaving)


def forget_user(user: AbstractBaseUser) -> None:
    """With all that is theirs, what is withheld for them alone, and their characters' grants at EVE.

    But not the one whose characters EVE has still to be told of: with it they would be forgotten untold.
    """
    if user.get_username() == LEAVING:
        return
    with transaction.atomic():
        heir, _ = get_user_model().objects.get_or_create(username=LEAVING, defaults={"is_active": False})
        # Without the hash: should one log in again before EVE has been told, it is as if for the first time.
        gone = {"user": heir, "owner_hash": "", "access_token": "", "reason": "is removed"}
        UserCharacter.objects.filter(user=user.pk).update(**shown(state=UserCharacter.State.LEAVING, **gone))
        user.delete()
        forget_ownerless()
        ring()


def forget_ownerless() -> int:
    """Withheld killmails whose owners are gone. How many."""
    ownerless = PendingKillmail.objects.filter(state=PendingKillmail.State.WITHHELD, owners=None, public=False)
    return ownerless.delete()[0]


def new_api_token(user_id: int, name: str) -> str | None:
    """The token, which is shown this once and not kept; None where the user has too many."""
    if ApiToken.objects.filter(user=user_id).count() >= MOST_TOKENS:
        return None
    token = PREFIX + secrets.token_urlsafe(32)
    ApiToken.objects.create(
        digest=digest_of(token), user_id=user_id, name=token_name(name), expires_at=Now() + TOKEN_LIFE
    )
    return token


def token_name(name: str) -> str:
    """As it is kept."""
    return name.replace("\0", "")[:60]


def forget_expired_tokens() -> int:
    """How many."""
    return ApiToken.objects.filter(expires_at__lt=Now()).delete()[0]


def digest_of(token: str) -> str:
    """By which a token is found. It has 256 random bits: no salt and no slow hash would add to that."""
    return hashlib.sha256(token.encode()).hexdigest()


def forget_api_token(user_id: int, digest: str) -> bool:
    """Whether it was theirs."""
    return "\0" not in digest and bool(ApiToken.objects.filter(user=user_id, digest=digest).delete()[0])
