"""Claims: which piece of work a worker takes next, and that nobody else has it meanwhile.

A claim lasts for a minute, by the database's clock; each has a number (`fence`), and who comes to its end with an older
one changes nothing. Claims are counted, so that work that kills its worker does not go round for ever.
"""

from datetime import timedelta
from typing import TypeVar

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from killmails.errors import Outrun
from killmails.models import KillmailSync, PendingKillmail

CLAIM = timedelta(seconds=60)
MOST_TRIES = 6  # claims of a killmail without a result; then it is quarantined
FIRST_AGAIN, LONGEST_AGAIN = 15.0, 900.0  # seconds
FREE = Q(claimed_until=None) | Q(claimed_until__lt=Now())

Row = TypeVar("Row", KillmailSync, PendingKillmail)


def due(rows: QuerySet[Row]) -> QuerySet[Row]:
    """Those that may be begun now, most urgent first; what came to nothing before waits for what did not."""
    return rows.filter(FREE, due_at__lte=Now()).order_by("priority", "tries", "due_at")


def claim(rows: QuerySet[Row], most: int = 1) -> list[Row]:
    """Up to so many of the due rows, for this worker alone. One that came to nothing before is claimed alone: should
    it kill its worker, it is not to take others with it.
    """
    with transaction.atomic():
        found = due(rows).select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)
        first = list(found.values_list("pk", "tries")[:most])
        if not first:
            return []
        ids = [first[0][0]] if first[0][1] else [pk for pk, tries in first if not tries]
        claimed: QuerySet[Row] = rows.model._default_manager.filter(pk__in=ids)
        claimed.update(claimed_until=Now() + CLAIM, fence=F("fence") + 1, tries=F("tries") + 1)
        return list(claimed.order_by("priority", "tries", "due_at"))


def mine(row: Row) -> QuerySet[Row]:
    """The row, as long as our claim is the last one."""
    rows: QuerySet[Row] = type(row)._default_manager.filter(pk=row.pk, fence=row.fence)
    return rows


def renew(row: Row) -> None:
    """Before each step that may take long. Raises Outrun where somebody else has claimed it since."""
    if not mine(row).update(claimed_until=Now() + CLAIM):
        raise Outrun(f"{row} was taken over by another worker")


def again_after(tries: int) -> timedelta:
    """15, 30, 60 … seconds, a quarter of an hour in the end."""
    return timedelta(seconds=min(LONGEST_AGAIN, FIRST_AGAIN * 2 ** min(max(tries - 1, 0), 20)))
