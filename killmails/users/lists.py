"""The lists of recent killmails of characters and corporations: read page by page, all of it or nothing.

The marker (how far a list is known) moves in the transaction that stores what was found. ESI's limit for a user allows
twelve pages in a quarter of an hour: a longer list is read in several runs, and only then is it known.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from django.db import transaction
from django.db.models import Case, F, SmallIntegerField, Value, When
from django.db.models.functions import Greatest, Now

from killmails.errors import (
    BudgetSpent,
    EsiForbidden,
    KillmailError,
    NoGrant,
    Outrun,
    SealBroken,
    TokenRefused,
    Unacceptable,
    UpstreamError,
    UpstreamRefused,
)
from killmails.models import KillmailSync, Priority, UserCharacter
from killmails.models.users import CORPORATION, OWN
from killmails.models.work import shown
from killmails.upstream.esi import Esi, KillmailRef, RecentPage
from killmails.upstream.sso import Sso
from killmails.users.grants import Grant, end_grant, grant_for
from killmails.users.pending import add
from killmails.users.work import again_after, mine, renew

logger = logging.getLogger(__name__)

EVERY = timedelta(seconds=300)  # ESI's own cache: sooner it would give the same answer
MOST_ASKED = 10  # other directors in a run; of more, ESI's word is had in turn
Kind = KillmailSync.Kind
State = KillmailSync.State
Told = TypeVar("Told")


@dataclass(slots=True)
class _Read:
    """What a run has read: the next page is the one where it stopped, 1 where it came to the end."""

    refs: list[KillmailRef] = field(default_factory=list)
    etag: str = ""
    changed: bool = True
    next_page: int = 1
    wait: float = 0.0  # seconds
    expires_in: float = 0.0  # seconds


def read_list(sync: KillmailSync, esi: Esi, sso: Sso) -> None:
    """One run of a claimed sync. Raises nothing that the next run would not mend; the row tells what happened."""
    _put_back(sync)
    try:
        users, read = _read_by_all(sync, esi, sso)
    except Outrun as error:
        return logger.info("%s", error)
    except (NoGrant, EsiForbidden) as error:
        return _turn_off(sync, str(error))
    except BudgetSpent as error:
        return _put_off(sync, timedelta(seconds=error.retry_after), "waits for ESI's limits", counts=False)
    except SealBroken as error:
        return _put_off(sync, again_after(sync.tries), f"{KillmailSync.NO_KEY}: {error}")
    except (UpstreamError, Unacceptable) as error:
        return _put_off(sync, again_after(sync.tries), f"ESI or its SSO did not answer as it should: {error}")
    _finish(sync, users, read)


def _put_back(sync: KillmailSync) -> None:
    """Should this run kill its worker, the next one is not at once."""
    if sync.tries > 1:
        mine(sync).update(due_at=Now() + again_after(sync.tries))
        sync.refresh_from_db(fields=["due_at"])


def _read_by_all(sync: KillmailSync, esi: Esi, sso: Sso) -> tuple[set[int], _Read]:
    """By the character itself; a corporation's by one of its directors, another one each time. The others are asked,
    too: whether ESI gives it to them is what they may see it by. The users whose list it is, and what was read.
    """
    problem: KillmailError = NoGrant("nobody who may read it is logged in")
    read: _Read | None = None
    users: set[int] = set()
    for number, holder in enumerate(_holders(sync)):
        is_known = sync.kind == Kind.CHARACTER or holder.director_of == sync.eve_id
        if read is None or not is_known:
            try:
                theirs = _read_as(sync, holder, esi, sso, anew=not is_known)
            except (NoGrant, EsiForbidden, SealBroken) as error:
                problem = error
                _note_refusal(sync, holder, error)
                continue
            if not is_known:
                sync.full = True  # also in further runs, should the list be long
                UserCharacter.objects.filter(pk=holder.pk).update(**shown(director_of=sync.eve_id))
            read = theirs if read is None or not is_known else read
        elif number <= MOST_ASKED and not _is_still_given(sync, holder, esi, sso, read.etag or sync.etag):
            continue
        users.add(holder.user_id)
    if read is None:
        raise problem
    return users, read


def _holders(sync: KillmailSync) -> list[UserCharacter]:
    """Those who are new last: what they are given is the whole of it. Of the others each is the first in turn, so that
    ESI soon says of all who is no director any more, however many there are.
    """
    allowed = UserCharacter.objects.filter(user__is_active=True)
    if sync.kind == Kind.CHARACTER:
        return list(allowed.filter(pk=sync.eve_id))
    members = allowed.filter(corporation_id=sync.eve_id, state=UserCharacter.State.READY, reads_corporation=True)
    directors = list(members.filter(not_director=False).order_by("pk"))
    known = [one for one in directors if one.director_of == sync.eve_id]
    turn = sync.fence % len(known) if known else 0
    return known[turn:] + known[:turn] + [one for one in directors if one not in known]


def _is_still_given(sync: KillmailSync, holder: UserCharacter, esi: Esi, sso: Sso, etag: str) -> bool:
    """Whether ESI gives the list, which another one has read in this run, to a known director, too. It costs one token
    of their own, two where the list has changed since. Who cannot be asked now is asked in the next run.
    """

    def ask(grant: Grant) -> RecentPage:
        renew(sync)
        return _ask(sync, esi, grant, 1, etag)

    try:
        _as(sync, holder, sso, ask)
    except (NoGrant, EsiForbidden) as error:
        _note_refusal(sync, holder, error)
        return False
    except (UpstreamError, Unacceptable, SealBroken) as error:
        logger.warning("Whether ESI still gives %s to character %d was not told: %s", sync, holder.pk, error)
    return True


def _note_refusal(sync: KillmailSync, holder: UserCharacter, error: KillmailError) -> None:
    if sync.kind == Kind.CORPORATION and isinstance(error, EsiForbidden):
        logger.warning("ESI refuses %s to character %d: %s", sync, holder.pk, error)
        # Asked for again where it is, in case it has changed sides.
        UserCharacter.objects.filter(pk=holder.pk).update(
            **shown(not_director=True, director_of=None, corporation_at=None)
        )


def _read_as(sync: KillmailSync, holder: UserCharacter, esi: Esi, sso: Sso, anew: bool) -> _Read:
    """`anew`: whatever is known by others."""
    return _as(sync, holder, sso, lambda grant: _read_pages(sync, esi, grant, anew))


def _as(sync: KillmailSync, holder: UserCharacter, sso: Sso, ask: Callable[[Grant], Told]) -> Told:
    """In the holder's name. A token that ESI does not take is refreshed once."""
    grant = _with_scope(sync, grant_for(sso, holder.pk))
    try:
        return ask(grant)
    except TokenRefused:
        grant = _with_scope(sync, grant_for(sso, holder.pk, refused=grant.access_token))
    try:
        return ask(grant)
    except TokenRefused as error:
        end_grant(holder.pk, grant.sealed, UserCharacter.State.NEEDS_LOGIN, NOT_TAKEN)
        raise NoGrant(NOT_TAKEN) from error


NOT_TAKEN = "ESI does not take its token; log in again"


def _with_scope(sync: KillmailSync, grant: Grant) -> Grant:
    scope = OWN if sync.kind == Kind.CHARACTER else CORPORATION
    if scope not in grant.scopes:
        raise NoGrant(f"the scope {scope} was not granted")
    return grant


def _read_pages(sync: KillmailSync, esi: Esi, grant: Grant, anew: bool) -> _Read:
    whole = sync.full or anew
    read, page = _Read(), sync.next_page
    known, etag = (0, "") if whole else (sync.newest_id, sync.etag if page == 1 else "")
    while True:
        renew(sync)
        try:
            answer = _ask(sync, esi, grant, page, etag)
        except BudgetSpent as error:
            if page == sync.next_page:
                raise
            read.next_page, read.wait = page, error.retry_after
            return read
        if page == 1:
            read.etag, read.changed, read.expires_in = answer.etag, answer.changed, answer.expires_in
        read.refs += answer.refs
        # Newest first, by and large: nothing is new beyond a page on which all is known.
        if page >= answer.pages or all(ref.killmail_id <= known for ref in answer.refs):
            return read
        page, etag = page + 1, ""


def _ask(sync: KillmailSync, esi: Esi, grant: Grant, page: int, etag: str) -> RecentPage:
    try:
        return esi.fetch_recent_killmails(
            sync.kind, sync.eve_id, grant.character_id, grant.access_token, page=page, etag=etag
        )
    except UpstreamRefused as error:
        if error.status in (420, 429):  # ESI has stopped us, though by our own count it need not have
            raise BudgetSpent(error.retry_after or 60.0, str(error)) from error
        raise


# How a run ends


def _finish(sync: KillmailSync, users: set[int], read: _Read) -> None:
    """What was found, and the marker if that was all, in one transaction."""
    newest = max([sync.newest_on_the_way, *(ref.killmail_id for ref in read.refs)])
    whole = read.next_page == 1
    columns = {
        "state": State.UP_TO_DATE if whole else State.READING,
        "reason": "" if whole else "a long list: goes on when ESI's limit allows it",
        "tries": 0,
        "next_page": read.next_page,
        "newest_on_the_way": 0 if whole else newest,
        "last_run_at": Now(),
        "not_before": Now() + timedelta(seconds=read.expires_in),
    }
    if whole and read.changed:
        # An etag that was not asked for in this run is of a list that has grown since.
        columns |= {"newest_id": max(newest, sync.newest_id), "etag": read.etag if sync.next_page == 1 else ""}
    if whole:
        columns["last_success_at"] = Now()
    wait = max(EVERY, timedelta(seconds=read.expires_in)) if whole else timedelta(seconds=read.wait)
    with transaction.atomic():
        if not _end(sync, wait, columns, keep_full=not whole):
            return
        found = add(read.refs, users, Priority(sync.priority))
        earlier = sync.new_killmails if sync.next_page > 1 else 0
        mine(sync).update(new_killmails=earlier + found)
    logger.info("%s: %d new, %s.", sync, found, "all read" if whole else f"to be gone on with at page {read.next_page}")


def _put_off(sync: KillmailSync, wait: timedelta, reason: str, counts: bool = True) -> None:
    """Nothing of the marker moves."""
    state = State.READING if sync.next_page > 1 else State.RETRYING
    columns = {"state": state, "reason": reason[:300], "last_run_at": Now()}
    if _end(sync, wait, columns | ({} if counts else {"tries": 0}), keep_priority=True):
        logger.warning("%s: %s; again in %.0f s.", sync, reason, wait.total_seconds())


def _turn_off(sync: KillmailSync, reason: str) -> None:
    """Until somebody logs in; who has done so meanwhile gets another run."""
    off = shown(state=State.OFF, reason=reason[:300], due_at=None, last_run_at=Now())
    if mine(sync).filter(**_nobody_asked(sync)).update(**off, claimed_until=None, tries=0):
        logger.warning("%s is not read any more: %s", sync, reason)
    else:
        mine(sync).update(claimed_until=None, tries=0)


def _nobody_asked(sync: KillmailSync) -> dict[str, object]:
    """Nobody has asked for another run since this one was begun. Not "equal": SQLite compares texts, and writes a
    fraction of whole seconds where Python does not.
    """
    moment = timedelta(milliseconds=1)
    return {"due_at__gt": sync.due_at - moment, "due_at__lt": sync.due_at + moment}


def _end(
    sync: KillmailSync,
    wait: timedelta,
    columns: dict[str, object],
    keep_priority: bool = False,
    keep_full: bool = False,
) -> int:
    """Gives the claim back. Who has asked for another run meanwhile gets it, once ESI has a new answer."""
    small = SmallIntegerField()
    priority = sync.priority if keep_priority else Priority.CLOCK
    nobody = _nobody_asked(sync)
    return mine(sync).update(
        **shown(**columns),
        claimed_until=None,
        full=Case(When(**nobody, then=Value((keep_priority or keep_full) and sync.full)), default=F("full")),
        priority=Case(When(**nobody, then=Value(priority, small)), default=F("priority"), output_field=small),
        due_at=Case(When(**nobody, then=Now() + wait), default=Greatest(F("due_at"), Now() + min(wait, EVERY))),
    )
