"""Killmails that we have heard of and that are not stored yet: fetched once, whoever asks; withheld, or published.

A withheld one is not among the killmails; `killmails.withholding` knows when it is published.
"""

import logging
import zlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Case, Exists, OuterRef, Q, When
from django.db.models.functions import Now

from killmails.columns import location_of
from killmails.errors import EsiUnknown, Outrun, Reason, Unacceptable, Unreadable
from killmails.ingest.quarantine import quarantine_fetched
from killmails.ingest.store import Stored, store_killmail
from killmails.models import Killmail, PendingKillmail, PendingOwner, Priority
from killmails.records import KillmailRecord, package_of, parse_fetched
from killmails.upstream.esi import Esi, KillmailRef
from killmails.upstream.zkillboard import ZkillboardSite
from killmails.users.work import MOST_TRIES, claim, mine, renew
from killmails.withheld import record_of
from killmails.withholding import delays, schedule

logger = logging.getLogger(__name__)

AT_ONCE = 1000
REFUSED_KEPT = timedelta(days=7)
LOOK = "look at /admin/killmails/rejectedkillmail/"
TRIES = 3  # until an answer that may pass is believed
State = PendingKillmail.State


def add(refs: Iterable[KillmailRef], users: Collection[int], priority: Priority) -> int:
    """What a list of these users' has told. How many are not published and were not brought by
    them before: whether somebody else has brought one is not told. Safe to run twice.
    """
    wanted = sorted({(ref.killmail_id, ref.killmail_hash) for ref in refs})
    with transaction.atomic():
        parts = [wanted[first : first + AT_ONCE] for first in range(0, len(wanted), AT_ONCE)]
        return sum(_add(part, users, priority) for part in parts)


def _add(refs: list[tuple[int, str]], users: Collection[int], priority: Priority) -> int:
    """In the order of their ids: two who add at the same time never wait for each other crosswise."""
    stored = set(Killmail.objects.filter(pk__in=[id_ for id_, _ in refs]).values_list("pk", flat=True))
    refs = [ref for ref in refs if ref[0] not in stored]
    fresh = [PendingKillmail(killmail_id=id_, hash=hash_, priority=priority) for id_, hash_ in refs]
    PendingKillmail.objects.bulk_create(fresh, ignore_conflicts=True)
    # Locked: whoever is about to publish one, and to forget its row, has done so before or does it after.
    locked = PendingKillmail.objects.select_for_update().filter(pk__in=sorted(_rows(refs).values()))
    ids = list(locked.order_by("pk").values_list("pk", flat=True))
    rows = PendingKillmail.objects.filter(pk__in=ids)
    rows.filter(priority__gt=priority, state=State.TO_FETCH).update(priority=priority)
    known = PendingOwner.objects.filter(pending_id__in=ids, user_id__in=users).values("pending_id").distinct().count()
    owners = [PendingOwner(pending_id=id_, user_id=user_id) for id_ in ids for user_id in sorted(users)]
    PendingOwner.objects.bulk_create(owners, ignore_conflicts=True)
    schedule(ids)
    return len(ids) - known


def _rows(refs: list[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """The rows that there are."""
    found = PendingKillmail.objects.filter(killmail_id__in=[id_ for id_, _ in refs])
    rows = {(id_, hash_): pk for pk, id_, hash_ in found.values_list("pk", "killmail_id", "hash")}
    return {ref: rows[ref] for ref in refs if ref in rows}


def fetch(row: PendingKillmail, esi: Esi, site: ZkillboardSite) -> None:
    """For a claimed row. Raises UpstreamError: nothing is changed, and later is right."""
    try:
        record = _fetch(row, esi, site)
    except (EsiUnknown, Unacceptable) as error:
        if _may_pass(error) and row.tries < TRIES:
            mine(row).update(claimed_until=None, due_at=Now() + timedelta(seconds=2))
        else:
            _refuse(row, Unacceptable(Reason.ESI_UNKNOWN, str(error)) if isinstance(error, EsiUnknown) else error)
    else:
        if record is not None:
            _take(row, record)


def _may_pass(error: EsiUnknown | Unacceptable) -> bool:
    """Damaged on the way, perhaps, or a stray answer: to a pair that is none ESI says 422."""
    return isinstance(error, Unreadable) or (isinstance(error, EsiUnknown) and error.status in (400, 404))


def _fetch(row: PendingKillmail, esi: Esi, site: ZkillboardSite) -> KillmailRecord | None:
    """None where nothing is left to be done for this row."""
    if Killmail.objects.filter(pk=row.killmail_id).exists():  # the feed was faster
        mine(row).delete()
        return None
    if row.tries > MOST_TRIES:
        raise Unacceptable(Reason.TOO_MANY_TRIES, f"no worker came to an end with it, {row.tries - 1} times")
    if not row.hash and not _learn_hash(row, site):
        return None
    body = esi.fetch_killmail(row.killmail_id, row.hash)
    return parse_fetched(package_of(body, row.killmail_id, row.hash), datetime.now(UTC))


def _learn_hash(row: PendingKillmail, site: ZkillboardSite) -> bool:
    """Of a killmail that somebody added by its page at zKillboard. Whether this row goes on: there may be one already.

    Raises EsiUnknown, UpstreamError.
    """
    row.hash = site.fetch_hash(row.killmail_id)
    same = PendingKillmail.objects.filter(killmail_id=row.killmail_id, hash=row.hash).exclude(pk=row.pk)
    for _ in range(2):
        with suppress(IntegrityError), transaction.atomic():  # somebody adds the same pair at this moment
            if same.update(public=True, due_at=Now()):
                mine(row).delete()
                return False
            return bool(mine(row).update(hash=row.hash))
    return False


def _take(row: PendingKillmail, record: KillmailRecord) -> None:
    """Stored at once where it may be, else it stays here."""
    if (row.public or row.pk in delays([row.pk])) and _store(row, record):
        return
    for _ in range(2):  # once more: wishes may have changed meanwhile
        with transaction.atomic():
            mine(row).update(
                state=State.WITHHELD,
                time=record.time,
                location_id=location_of(record),
                deflated=zlib.compress(record.raw, 6),
                due_at=Case(When(public=True, then=Now()), default=None),
                claimed_until=None,
                tries=0,
            )
            schedule([row.pk])


def publish_due(most: int = 100) -> int:
    """Stores withheld killmails whose time has come. How many there were."""
    rows = claim(PendingKillmail.objects.filter(state=State.WITHHELD), most)
    for row in rows:
        try:
            renew(row)
            _publish(row)
        except Outrun as error:
            logger.info("%s", error)
        except Exception:
            logger.exception("Killmail %d could not be published; tried again in a minute.", row.killmail_id)
    return len(rows)


def _publish(row: PendingKillmail) -> None:
    try:
        if row.tries > MOST_TRIES:
            raise Unacceptable(Reason.TOO_MANY_TRIES, f"it could not be published, {row.tries - 1} times")
        if not _store(row, record_of(row)):
            mine(row).update(claimed_until=None, tries=0)
            schedule([row.pk])
    except Unacceptable as error:  # or the rules have become stricter since
        _refuse(row, error)


def _store(row: PendingKillmail, record: KillmailRecord) -> bool:
    """By the same road as the feed's. The row goes in the same transaction, or somebody else was faster.

    False where it may not be published, by what its owners wish now.
    """

    def claim_it() -> None:
        # Locked before its owners and their wishes are looked up, see `_add`.
        locked = mine(row).select_for_update().annotate(now=Now()).first()
        if locked is None:
            raise Outrun(f"killmail {row.killmail_id} was stored by somebody else meanwhile")
        delay = 0 if locked.public else delays([row.pk]).get(row.pk)
        if delay is None or record.time + timedelta(hours=delay) > locked.now:
            raise _Withheld
        locked.delete()

    try:
        stored = store_killmail(record, claim=claim_it)
    except Outrun as error:
        logger.info("%s", error)
    except _Withheld:
        return False
    else:
        level = logging.INFO if stored is Stored.ADDED else logging.DEBUG
        logger.log(level, "Killmail %d: %s.", row.killmail_id, stored)
    return True


class _Withheld(Exception):
    """Its owners wish otherwise."""


def _refuse(row: PendingKillmail, error: Unacceptable) -> None:
    """For good: it is never asked for again, unless somebody replays it from the quarantine.

    What anybody may add, and add wrongly, is not for somebody to look at.
    """
    with transaction.atomic(durable=True):
        gone = {"due_at": None, "claimed_until": None, "reason": str(error)[:300]}
        if not mine(row).update(state=State.REFUSED, **gone):
            return
        if row.priority == Priority.ANYBODY and error.reason is Reason.ESI_UNKNOWN:
            return logger.info("Killmail %d, which somebody added: %s", row.killmail_id, error)
        # Without its time nobody can say when a later one would be published.
        quarantine_fetched(row, error, row.public or delays([row.pk]).get(row.pk) == 0)
    logger.warning("Killmail %d is in quarantine (%s): %s.", row.killmail_id, error.reason, LOOK)


def forget_published() -> int:
    """Rows of killmails that came by the feed, and so are public. How many."""
    public = Killmail.objects.filter(pk=OuterRef("killmail_id"))
    deleted: dict[str, int] = PendingKillmail.objects.filter(Exists(public)).delete()[1]
    return deleted.get(PendingKillmail._meta.label, 0)


def forget_refused() -> int:
    """What somebody added wrongly, or without a hash that zKillboard would have told by now. How many."""
    useless = Q(state=State.REFUSED) | Q(state=State.TO_FETCH, hash="")
    refused = PendingKillmail.objects.filter(useless, priority=Priority.ANYBODY, owners=None)
    return refused.filter(added_at__lt=Now() - REFUSED_KEPT).delete()[0]


def schedule_left_over() -> None:
    """Withheld ones that are published by nobody's wish: should a wish have been overlooked, it is seen here."""
    ids = list(PendingKillmail.objects.filter(state=State.WITHHELD, due_at=None).values_list("pk", flat=True))
    for first in range(0, len(ids), AT_ONCE):
        schedule(ids[first : first + AT_ONCE])
