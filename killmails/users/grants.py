"""Access tokens of users' characters: refreshed in this one place, by one worker at a time.

EVE's SSO may give a new refresh token with each refresh, and the old one is dead then: it is stored at once, in a
transaction of its own, before anything else is looked at. Whoever is to refresh says so in the row first, by
compare-and-set, and nobody holds a transaction while EVE is asked. A worker may be paused at any moment, and taken for
dead: the next one is refused the token that the first one has had replaced, and the first one's still finds its row.
"""

import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from killmails.errors import BadToken, GrantRefused, NoGrant, SealBroken, UnknownKey, UpstreamUnreachable
from killmails.models import KillmailSync, LogHead, Priority, UserCharacter
from killmails.models.users import CORPORATION, OWN
from killmails.models.work import shown
from killmails.queueing import ensure_list
from killmails.sealing import seal, unseal
from killmails.upstream.sso import NO_ACCESS_TOKEN, Identity, Sso, Tokens
from killmails.users.revoking import note_unused

logger = logging.getLogger(__name__)

LEAST = timedelta(seconds=60)  # that an access token must still hold
LEASE = timedelta(seconds=60)  # of whoever refreshes; EVE has 15 s to answer
PATIENCE = 20.0  # seconds that others wait for the one who refreshes
LOOK = 0.1  # seconds

ENDED = "EVE has ended the grant; log in again"
State = UserCharacter.State


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """The right to ask ESI in the name of a character, for the next minute at least."""

    character_id: int
    access_token: str
    scopes: frozenset[str]
    sealed: str  # its refresh token, as it lies in the database: by this a newer login is told from this one


def grant_for(sso: Sso, character_id: int, refused: str = "") -> Grant:
    """The character's grant, refreshed where it has run out; `refused`: an access token that ESI did not take.

    Raises NoGrant, UpstreamError, SealBroken. May be called by any number of workers at once: one of them refreshes.
    """
    ends_at = time.monotonic() + PATIENCE
    while True:
        row = _row(character_id)
        if grant := _still_good(row, refused):
            return grant
        if _claim(row) and (grant := _refresh(sso, character_id, refused)):
            return grant
        if time.monotonic() > ends_at:
            raise UpstreamUnreachable(f"the grant of character {character_id} is being refreshed for too long")
        time.sleep(LOOK)


def database_now() -> datetime:
    """By the database's clock: that of a worker may be wrong by hours."""
    now: datetime = LogHead.objects.values_list(Now(), flat=True).get()  # a table that always has one row
    return now


def end_grant(character_id: int, sealed: str, state: State, reason: str, refused_token: str = "") -> bool:
    """Marks it, and forgets its tokens, unless it has others meanwhile. Nobody asks any more. Whether it was ended.

    `sealed`: the refresh token that is no good. `refused_token`: its digest, where EVE says so: see `store_tokens`.
    """
    same = UserCharacter.objects.filter(pk=character_id, refresh_token=sealed, state=State.READY)
    gone = {"refresh_token": "", "access_token": "", "access_expires_at": None, "refreshing_until": None}
    ended = same.update(
        **shown(state=state, reason=reason, director_of=None, refused_token=refused_token, **gone),
    )
    if ended:
        logger.warning("Character %d is not asked for any more: %s", character_id, reason)
    return bool(ended)


def _row(character_id: int) -> UserCharacter:
    row = UserCharacter.objects.filter(pk=character_id).annotate(now=Now()).first()
    if row is None:
        raise NoGrant(f"character {character_id} has not logged in here")
    if row.state != State.READY:
        raise NoGrant(row.reason)
    if not row.refresh_token:
        raise NoGrant("logged in without a right to read killmails")
    return row


def _still_good(row: UserCharacter, refused: str) -> Grant | None:
    if not row.access_token or row.access_expires_at is None or row.access_expires_at - row.now < LEAST:
        return None
    try:
        access_token = unseal(row.access_token)
    except SealBroken:
        return None  # the refresh token decides
    return None if access_token == refused else Grant(row.pk, access_token, frozenset(row.scopes), row.refresh_token)


def free() -> Q:
    """Those that nobody refreshes now."""
    return Q(refreshing_until=None) | Q(refreshing_until__lt=Now())


def _claim(row: UserCharacter) -> bool:
    # With the token that we saw: whoever has refreshed meanwhile has changed it.
    mine = UserCharacter.objects.filter(free(), pk=row.pk, access_token=row.access_token)
    return bool(mine.update(refreshing_until=Now() + LEASE))


def _refresh(sso: Sso, character_id: int, refused: str) -> Grant | None:
    """None where there are other tokens meanwhile: look again."""
    row = _row(character_id)
    if grant := _still_good(row, refused):  # … between our look and our claim
        UserCharacter.objects.filter(pk=row.pk).update(refreshing_until=None)
        return grant
    try:
        tokens = sso.refresh(unseal(row.refresh_token))
    except GrantRefused as error:
        if not end_grant(row.pk, row.refresh_token, State.NEEDS_LOGIN, ENDED, _digest(row.refresh_token)):
            return None
        raise NoGrant(ENDED) from error
    except Exception:  # SealBroken, too: the key may come back, and the token is kept for it
        UserCharacter.objects.filter(pk=row.pk).update(refreshing_until=None)
        raise
    sealed = store_tokens(row, tokens)
    return _checked(sso, row, sealed, tokens) if sealed else None


def store_tokens(row: UserCharacter, tokens: Tokens) -> str:
    """At once; nobody uses the access token before it was looked at. The refresh token as it lies there now, "" where
    somebody has logged in meanwhile: then EVE is told that they are not used. Where EVE gave no refresh token, the old
    one goes on.
    """
    sealed = seal(tokens.refresh_token) if tokens.refresh_token else row.refresh_token
    columns = {"refresh_token": sealed, "access_token": seal(tokens.access_token), "access_expires_at": None}
    with transaction.atomic(durable=True):
        same = UserCharacter.objects.filter(pk=row.pk, refresh_token=row.refresh_token, state=State.READY)
        stored = same.update(**columns) or (tokens.refresh_token and _store_late(row, columns))
        if not stored and tokens.refresh_token:  # the character was removed meanwhile, for example
            note_unused(row.pk, sealed)
        return sealed if stored else ""


def _store_late(row: UserCharacter, columns: dict[str, str | None]) -> bool:
    """Where the grant was ended only because another worker was refused the token that this one had replaced."""
    refused = UserCharacter.objects.filter(pk=row.pk, state=State.NEEDS_LOGIN, refused_token=_digest(row.refresh_token))
    anew = {"state": State.READY, "reason": "", "refused_token": "", "corporation_at": None}
    if not refused.update(**shown(**columns, **anew, refreshing_until=Now() + LEASE)):
        return False
    if OWN in row.scopes:  # the corporation's list begins when its membership is noted again
        ensure_list(KillmailSync.Kind.CHARACTER, row.pk, Priority.LOGIN)
    logger.warning("Character %d is asked for again: its new token was only stored late.", row.pk)
    return True


def _digest(sealed: str) -> str:
    """By which a token is known again that is not kept. Sealed, no two are the same."""
    return hashlib.sha256(sealed.encode()).hexdigest()


def _checked(sso: Sso, row: UserCharacter, sealed: str, tokens: Tokens) -> Grant | None:
    """What the new token says of its owner and its rights. Until this is done the lease goes on."""
    same = UserCharacter.objects.filter(pk=row.pk, refresh_token=sealed)
    try:
        if not tokens.access_token:
            raise UpstreamUnreachable(NO_ACCESS_TOKEN)
        identity = sso.read(tokens.access_token, database_now())
    except UnknownKey as error:  # no verdict: EVE may have a new key that it does not tell yet
        same.update(refreshing_until=None)
        raise UpstreamUnreachable(f"character {row.pk}: {error}") from error
    except BadToken as error:
        end_grant(row.pk, sealed, State.NEEDS_LOGIN, "EVE gave a token that is not right; log in again")
        raise NoGrant(f"character {row.pk}: {error}") from error
    except Exception:
        same.update(refreshing_until=None)
        raise
    if problem := _other_owner(row, identity):
        end_grant(row.pk, sealed, State.SOLD, problem)
        raise NoGrant(problem)
    good = {"access_expires_at": Now() + timedelta(seconds=tokens.expires_in), "refreshing_until": None}
    scopes = {"scopes": sorted(identity.scopes), "reads_corporation": CORPORATION in identity.scopes}
    changed = shown(**scopes) if sorted(identity.scopes) != sorted(row.scopes) else {}
    if not same.update(**good, **changed):
        return None
    return Grant(row.pk, tokens.access_token, identity.scopes, sealed)


def _other_owner(row: UserCharacter, identity: Identity) -> str:
    if identity.character_id != row.pk:
        return "EVE gave the token of another character"
    return "" if identity.owner_hash == row.owner_hash else "the character was sold, or moved to another account"
