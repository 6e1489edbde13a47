"""What the feed still owes us: numbers that never came, files that changed, ranges that were gone before we came."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from killmails.errors import BadPointer, Unacceptable, Unreadable, UpstreamError
from killmails.ingest.lease import FEED
from killmails.ingest.quarantine import quarantine
from killmails.ingest.store import store_killmail
from killmails.models import FeedCursor, FeedGap
from killmails.records import KillmailRecord, Placeholder, parse_package
from killmails.upstream.zkillboard import Zkillboard

logger = logging.getLogger(__name__)

AHEAD = 20  # numbers after a missing one that are looked at
MAX_TRIES = 3  # for a body that may have been damaged on the way
FAR_BEHIND = 10_000  # a pointer lags by 51 at most
GIVE_UP = timedelta(hours=24)  # upstream promises to keep files that long
FIRST_RETRY = timedelta(seconds=10)
LAST_RETRY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Found:
    """Where the feed goes on; `jumped` when nothing between is known to exist, only the pointer is ahead."""

    sequence: int
    jumped: bool


def find_next(upstream: Zkillboard, missing: int, renew: Callable[[], object] = lambda: None) -> Found | None:
    """Where the feed goes on after a number that does not come. None when it has not gone on.

    Raises UpstreamError. A pointer far behind is no news (it lags); one far ahead means that we were away longer
    than upstream keeps its files. `renew` is called between two questions, which are many.
    """
    for sequence in range(missing + 1, missing + 1 + AHEAD):
        renew()
        if _exists(upstream, sequence):
            return Found(sequence, jumped=False)
    pointer = upstream.fetch_pointer()
    if pointer < missing - FAR_BEHIND:
        raise BadPointer(f"sequence.json says {pointer}, far behind our {missing}; was the feed numbered anew?")
    # A jump cannot be taken back: the pointer is believed only where there is a file.
    jumped = pointer > missing + AHEAD and _exists(upstream, pointer)
    return Found(pointer, jumped=True) if jumped else None


def _exists(upstream: Zkillboard, sequence: int) -> bool:
    try:
        return upstream.fetch_package(sequence) is not None
    except Unacceptable:
        return True  # too large, but there


def skip(missing: int, found: Found, claim: Callable[[], None]) -> None:
    """Writes the hole down and lets the feed go on behind it, in one transaction."""
    last = found.sequence - 1
    with transaction.atomic(durable=True):
        claim()
        if found.jumped:
            FeedGap.objects.create(first_sequence=missing, last_sequence=last, reason=FeedGap.Reason.EXPIRED)
        else:
            FeedGap.objects.bulk_create(_missing(sequence) for sequence in range(missing, found.sequence))
    if found.jumped:
        logger.error(
            "The feed is past what it still keeps: sequences %d to %d were not read. Fill them from the day's files.",
            missing, last,
        )  # fmt: skip
    else:
        logger.warning("Sequences %d to %d never came; going on, and asking for them for 24 h.", missing, last)


def _missing(sequence: int) -> FeedGap:
    reason, due = FeedGap.Reason.MISSING, Now() + FIRST_RETRY
    return FeedGap(first_sequence=sequence, last_sequence=sequence, reason=reason, next_try_at=due)


def note_changed(changed: int, at: int) -> None:
    """Package `at` says that file `changed` is another one now; runs inside the storing transaction."""
    if not 0 < changed < at:
        FeedCursor.objects.filter(name=FEED).update(ignored_updates=F("ignored_updates") + 1)
        logger.warning("Sequence %d says that %d has changed, which is no earlier file; ignored.", at, changed)
        return
    FeedGap.objects.get_or_create(
        first_sequence=changed,
        last_sequence=changed,
        reason=FeedGap.Reason.CHANGED,
        outcome=FeedGap.Outcome.OPEN,
        defaults={"next_try_at": Now()},
    )


def fetch_one(upstream: Zkillboard, ask_names: Callable[[KillmailRecord], None] = lambda record: None) -> bool:
    """Asks for one number that is owed and due. False when none was. Raises UpstreamError."""
    due = FeedGap.objects.filter(outcome=FeedGap.Outcome.OPEN, next_try_at__lte=Now()).order_by("next_try_at").first()
    if due is None:
        return False
    sequence = due.first_sequence
    try:
        raw = upstream.fetch_package(sequence)
        if raw is None:
            _still_missing(due)
            return True
        record = parse_package(raw, sequence, datetime.now(UTC))
    except UpstreamError:
        _try_later(due)  # or this one would be asked for again and again, and the others never
        raise
    except Unacceptable as error:
        if isinstance(error, Unreadable) and due.unreadable + 1 < MAX_TRIES:
            _try_later(due, unreadable=F("unreadable") + 1)
            return True
        quarantine(sequence, error, claim=lambda: _close(due, FeedGap.Outcome.REJECTED))
        return True
    if isinstance(record, Placeholder):
        _close(due, FeedGap.Outcome.GIVEN_UP)
        return True
    ask_names(record)
    stored = store_killmail(record, claim=lambda: _close(due, FeedGap.Outcome.STORED))
    logger.info("Sequence %d, owed as %s: killmail %d %s.", sequence, due.reason, record.killmail_id, stored)
    return True


def _still_missing(gap: FeedGap) -> None:
    if gap.reason == FeedGap.Reason.CHANGED:  # a hint that led nowhere
        FeedCursor.objects.filter(name=FEED).update(ignored_updates=F("ignored_updates") + 1)
        return _close(gap, FeedGap.Outcome.GIVEN_UP)
    if FeedGap.objects.filter(pk=gap.pk, found_at__lt=Now() - GIVE_UP).exists():
        logger.error("Sequence %d did not come within 24 h; given up.", gap.first_sequence)
        return _close(gap, FeedGap.Outcome.GIVEN_UP)
    _try_later(gap)


def _try_later(gap: FeedGap, **also: object) -> None:
    wait = min(FIRST_RETRY * 2 ** min(gap.tries + 1, 10), LAST_RETRY)
    FeedGap.objects.filter(pk=gap.pk).update(tries=F("tries") + 1, next_try_at=Now() + wait, **also)


def _close(gap: FeedGap, outcome: FeedGap.Outcome) -> None:
    FeedGap.objects.filter(pk=gap.pk).update(outcome=outcome, closed_at=Now(), tries=F("tries") + 1)
