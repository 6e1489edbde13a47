"""The log: the one way to put a killmail in it, and the ways to read it.

Only `killmails.ingest.store` may call `append`, and nothing may run after it in the transaction: the lock on
the head's row, held until the commit, is what makes positions appear in order and without holes. A sequence
of the database is no substitute: it is taken before the commit, and commits overtake each other.
"""

from dataclasses import dataclass

from django.db import Error, connection

from killmails.loading import load
from killmails.models import Killmail, KillmailEvent, LogHead
from realtime.log import Event, Head

ADDED = KillmailEvent.Kind.ADDED.value
UPDATED = KillmailEvent.Kind.UPDATED.value
CHECKPOINT = "CHECKPOINT"  # never stored: only says where the log stands


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event, with its killmail loaded as far as was asked. No killmail at a checkpoint."""

    epoch: str
    position: int
    kind: str
    killmail: Killmail | None

    @property
    def token(self) -> str:
        """The position as clients see it; it is worth nothing in another epoch."""
        return f"{self.epoch}:{self.position}"


def append(kind: str, killmail_id: int) -> int:
    """Gives the killmail the next position. The last statements of a transaction, see above."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE killmails_loghead SET position = position + 1 WHERE id = 1 RETURNING position")
        (position,) = cursor.fetchone()
    KillmailEvent.objects.create(position=position, kind=kind, killmail_id=killmail_id)
    return position


class KillmailLog:
    """The log for the hub, which calls it from one thread that lives as long as the process."""

    def head(self) -> Head:
        try:
            row = LogHead.objects.get(pk=1)
        except Error:
            connection.close()  # a broken one would stay broken; the next call opens another
            raise
        return Head(row.epoch, row.position)

    def read(self, after: Head, limit: int, fields: frozenset[str]) -> list[LogEntry]:
        try:
            return read_log(after, limit, fields)
        except Error:
            connection.close()
            raise

    def checkpoint(self, head: Head) -> Event:
        return LogEntry(head.epoch, head.position, CHECKPOINT, None)


def read_log(after: Head, limit: int, fields: frozenset[str]) -> list[LogEntry]:
    """At most `limit` entries after that position, in order, with what `fields` (GraphQL's names) ask for."""
    events = list(KillmailEvent.objects.filter(position__gt=after.position).order_by("position")[:limit])
    killmails = Killmail.objects.filter(pk__in={event.killmail_id for event in events})
    loaded = {killmail.pk: killmail for killmail in load(killmails, fields)}
    return [LogEntry(after.epoch, event.position, event.kind, loaded[event.killmail_id]) for event in events]
