"""Quarantine: packages that we could not accept, kept with their bytes, and replayed when somebody says so."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from django.db import transaction
from django.db.models.functions import Now

from killmails.errors import Outrun, Unacceptable
from killmails.ingest.store import Stored, store_killmail
from killmails.models import PendingKillmail, RejectedKillmail
from killmails.records import Placeholder, parse_package
from killmails.upstream.http import KEPT

logger = logging.getLogger(__name__)


def quarantine(sequence: int, error: Unacceptable, claim: Callable[[], None]) -> RejectedKillmail:
    """Keeps the package and lets the feed go on, in one transaction. `claim` moves the cursor or raises."""
    with transaction.atomic(durable=True):
        claim()
        rejected = RejectedKillmail.objects.create(
            sequence=sequence,
            killmail_id=error.killmail_id,
            reason=error.reason.value,
            detail=storable(error.detail),
            raw=error.raw[:KEPT],
        )
    logger.error(
        "Sequence %d is in quarantine (%s): look at it at /admin/killmails/rejectedkillmail/%d/.",
        sequence, error, rejected.pk,
    )  # fmt: skip
    return rejected


def quarantine_fetched(row: PendingKillmail, error: Unacceptable, public: bool) -> RejectedKillmail:
    """A killmail that ESI refuses, or gives so that we cannot accept it. In the transaction of the caller.

    Unless it is `public` nothing is kept but its id and the reason: with its hash anybody could read it.
    """
    return RejectedKillmail.objects.create(
        killmail_id=row.killmail_id,
        pending=row.pk,
        reason=error.reason.value,
        detail=storable(error.detail) if public else "its owner withholds it",
        raw=error.raw[:KEPT] if public else b"",
    )


def _fetch_again(rejected: RejectedKillmail) -> None:
    """ESI is asked once more; should it refuse again, that is a row of its own."""
    with transaction.atomic(durable=True):
        _change(rejected, RejectedKillmail.State.DISCARDED, note="ESI is asked again")
        refused = PendingKillmail.objects.filter(pk=rejected.pending, state=PendingKillmail.State.REFUSED)
        refused.update(state=PendingKillmail.State.TO_FETCH, tries=0, due_at=Now())


def replay(rejected_id: int) -> Stored | None:
    """Parses the kept bytes again, with today's rules, and stores the killmail. None where nothing was to be done, or
    ESI is to be asked again.

    Raises Unacceptable when it still cannot be accepted; the row is open again then, with the new reason,
    and Outrun when somebody else was faster.
    """
    rejected = RejectedKillmail.objects.get(pk=rejected_id)
    if rejected.state != RejectedKillmail.State.QUEUED:
        return None
    if rejected.pending is not None:
        _fetch_again(rejected)
        return None
    try:
        record = parse_package(bytes(rejected.raw), rejected.sequence, datetime.now(UTC))
    except Unacceptable as error:
        _change(rejected, RejectedKillmail.State.OPEN, reason=error.reason.value, detail=storable(error.detail))
        raise
    if isinstance(record, Placeholder):
        _change(rejected, RejectedKillmail.State.DISCARDED)
        return None
    stored = store_killmail(record, claim=lambda: _change(rejected, RejectedKillmail.State.STORED))
    logger.info("Quarantined package %d: killmail %d %s.", rejected_id, record.killmail_id, stored)
    return stored


def _change(rejected: RejectedKillmail, state: RejectedKillmail.State, **also: str) -> None:
    queued = RejectedKillmail.objects.filter(pk=rejected.pk, state=RejectedKillmail.State.QUEUED)
    if not queued.update(state=state, changed_at=Now(), **also):
        raise Outrun(f"Quarantined package {rejected.pk} was replayed or discarded by somebody else meanwhile.")


def storable(text: str) -> str:
    """No database takes NUL or lone surrogates in a text."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()[:500]
