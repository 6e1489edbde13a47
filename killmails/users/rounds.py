"""A worker's round: the most urgent work first, a login's before a command's, a command's before the clock's.

A message only says that there is work; each worker that gets one takes what is most urgent then.
"""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from killmails.errors import BudgetSpent, Outrun, SealBroken, Unacceptable, UpstreamError
from killmails.models import Corporation, KillmailSync, PendingKillmail, Priority, UserCharacter
from killmails.models.work import shown
from killmails.queueing import ensure_list
from killmails.sealing import unseal
from killmails.upstream.esi import Esi
from killmails.upstream.sso import Sso
from killmails.upstream.zkillboard import ZkillboardSite
from killmails.users.lists import read_list
from killmails.users.pending import fetch
from killmails.users.revoking import REVOKED_WITHIN, revoke_unused
from killmails.users.work import claim, due, mine, renew

logger = logging.getLogger(__name__)

ROUND = 5.0  # seconds of work before others have their turn
AT_ONCE = 5  # killmails claimed together
FOR_USERS = 1800  # tokens of ESI's limit for killmails that are not spent on what anybody adds
PAUSE = 15.0  # seconds after which a killmail is asked for again that did not come
MEMBERSHIP_AGAIN = timedelta(minutes=1)
MEMBERSHIP = timedelta(hours=1)  # for so long ESI's word of who is where holds
TO_FETCH = PendingKillmail.objects.filter(state=PendingKillmail.State.TO_FETCH)


def go_round(esi: Esi, sso: Sso | None, site: ZkillboardSite) -> bool:
    """Works until the time is up or nothing can be done. Whether there is more to do at once."""
    ends_at = time.monotonic() + ROUND
    if sso is not None:
        revoke_leaving(sso)
        note_memberships(esi)
    while time.monotonic() < ends_at:
        if not _do_most_urgent(esi, sso, site):
            return False
    return True


def _do_most_urgent(esi: Esi, sso: Sso | None, site: ZkillboardSite) -> bool:
    """Whether something was done: not where nothing is due, nor where ESI says wait."""
    lists, killmails = due(KillmailSync.objects.all()), due(TO_FETCH.all())
    first, second = (rows.values_list("priority", flat=True).first() for rows in (lists, killmails))
    if sso is not None and first is not None and (second is None or first <= second):
        for sync in claim(KillmailSync.objects.all()):
            read_list(sync, esi, sso)
        return True
    if second == Priority.ANYBODY:
        return _may_ask_for_anybody(esi) and _fetch(claim(TO_FETCH.all(), AT_ONCE), esi, site)
    return second is not None and _fetch(claim(TO_FETCH.exclude(priority=Priority.ANYBODY), AT_ONCE), esi, site)


def _may_ask_for_anybody(esi: Esi) -> bool:
    """Half of what ESI allows is left to users."""
    left = esi.budget.told().get("left", {}).get("killmail")
    return left is None or left > FOR_USERS


def _fetch(rows: Sequence[PendingKillmail], esi: Esi, site: ZkillboardSite) -> bool:
    for number, row in enumerate(rows):
        try:
            renew(row)
            fetch(row, esi, site)
        except Outrun as error:
            logger.info("%s", error)
        except UpstreamError as error:
            wait = error.retry_after if isinstance(error, BudgetSpent) else PAUSE
            for left in rows[number:]:  # it was not their fault: the try does not count
                mine(left).update(claimed_until=None, tries=F("tries") - 1, due_at=Now() + timedelta(seconds=wait))
            logger.info("Killmails are asked for again in %.0f s: %s", wait, error)
            return False
    return True


def revoke_leaving(sso: Sso) -> None:
    """Ends the grants of characters that are removed, at EVE, and forgets the characters; and those that are used no
    more. While EVE does not answer it is tried again, for an hour.
    """
    for row in UserCharacter.objects.filter(state=UserCharacter.State.LEAVING).annotate(now=Now()):
        try:
            if row.refresh_token:
                sso.revoke(unseal(row.refresh_token))
        except (UpstreamError, SealBroken) as error:
            logger.warning("The grant of character %d could not be revoked at EVE: %s", row.pk, error)
            if isinstance(error, UpstreamError) and row.now - row.changed_at < REVOKED_WITHIN:
                continue
        with transaction.atomic():  # unless it has logged in again
            if UserCharacter.objects.filter(pk=row.pk, state=UserCharacter.State.LEAVING).delete()[0]:
                KillmailSync.objects.filter(kind=KillmailSync.Kind.CHARACTER, eve_id=row.pk).delete()
    revoke_unused(sso)


def note_memberships(esi: Esi) -> None:
    """Who is in which corporation today, for the corporations' lists. Asked for all of them at once, once an hour."""
    old = Q(corporation_at=None) | Q(corporation_at__lt=Now() - MEMBERSHIP)
    readers = UserCharacter.objects.filter(old, reads_corporation=True, state=UserCharacter.State.READY)
    rows = list(readers.order_by(F("corporation_at").asc(nulls_first=True))[:1000])
    ids = [row.pk for row in rows]
    in_a_minute = Now() - MEMBERSHIP + MEMBERSHIP_AGAIN  # should we not come to an end
    if not ids or not UserCharacter.objects.filter(old, pk__in=ids).update(corporation_at=in_a_minute):
        return
    try:
        found = {one.character_id: one.corporation_id for one in esi.fetch_affiliations(ids)}
    except (UpstreamError, Unacceptable) as error:
        logger.warning("ESI does not say who is in which corporation: %s", error)
        return
    for row in rows:
        if row.pk in found:
            _note_membership(row, found[row.pk])
    UserCharacter.objects.filter(pk__in=found).update(corporation_at=Now())


def _note_membership(row: UserCharacter, corporation_id: int) -> None:
    moved = row.corporation_id != corporation_id
    Corporation.objects.bulk_create([Corporation(pk=corporation_id)], ignore_conflicts=True)  # the filler names it
    if moved:
        UserCharacter.objects.filter(pk=row.pk).update(
            **shown(corporation_id=corporation_id, not_director=False, director_of=None)
        )
    if moved or not row.not_director:
        ensure_known(corporation_id, Priority.LOGIN if row.corporation_id is None else Priority.CLOCK)


def ensure_known(corporation_id: int, priority: Priority) -> None:
    """The corporation's list is read, unless it is already."""
    rows = KillmailSync.objects.filter(kind=KillmailSync.Kind.CORPORATION, eve_id=corporation_id)
    if not rows.exclude(state=KillmailSync.State.OFF).exists():
        ensure_list(KillmailSync.Kind.CORPORATION, corporation_id, priority)
