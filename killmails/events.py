"""The log: the one way to put a killmail in it, and the ways to read it.

Only `killmails.ingest.store` may call `append`, and nothing may run after it in the transaction: the lock on
the head's row, held until the commit, is what makes positions appear in order and without holes. A sequence
of the database is no substitute: it is taken before the commit, and commits overtake each other.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import Error, connection, transaction
from django.db.models import Exists, OuterRef

from killmails.filters import Key, KillmailFilter, keys_of
from killmails.loading import StaticRows, load, rows_by
from killmails.models import Killmail, KillmailEvent, LogHead
from killmails.models.log import new_epoch
from realtime.log import Event, Head

ADDED = KillmailEvent.Kind.ADDED.value
UPDATED = KillmailEvent.Kind.UPDATED.value
CHECKPOINT = "CHECKPOINT"  # never stored: only says where the log stands

SCANNED = 10_000  # events that one filtered page looks at

# One statement for all of it: each further one would take longer than its work.
READ = """
    SELECT killmail.*, head.epoch AS log_epoch, head.position AS log_head,
        event.position AS log_position, event.kind AS log_kind, event.created_at AS log_time
    FROM killmails_loghead AS head
    LEFT JOIN (SELECT * FROM killmails_killmailevent WHERE position > %s ORDER BY position LIMIT %s) AS event
        ON head.epoch = %s
    LEFT JOIN killmails_killmail AS killmail ON killmail.id = event.killmail_id
    WHERE head.id = 1 ORDER BY event.position"""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event, with its killmail loaded as far as was asked. Neither killmail nor time at a checkpoint."""

    epoch: str
    position: int
    kind: str
    killmail: Killmail | None
    created_at: datetime | None  # by the database's clock

    @property
    def token(self) -> str:
        """The position as clients see it; it is worth nothing in another epoch."""
        return f"{self.epoch}:{self.position}"

    @property
    def loaded(self) -> Killmail:
        """The killmail of an event that is no checkpoint."""
        assert self.killmail is not None
        return self.killmail

    @property
    def keys(self) -> frozenset[Key]:
        """What it is about, for the index of filters. Its attackers must be loaded."""
        return keys_of(self.killmail) if self.killmail else frozenset()


def append(kind: str, killmail_id: int) -> int:
    """Gives the killmail the next position. The last statements of a transaction, see above."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE killmails_loghead SET position = position + 1 WHERE id = 1 RETURNING position")
        (position,) = cursor.fetchone()
    KillmailEvent.objects.create(position=position, kind=kind, killmail_id=killmail_id)
    return position


def begin_anew() -> tuple[Head, Head]:
    """Gives the log another epoch, so that no position from before can be used; where it was, and where it is."""
    with transaction.atomic():
        row = LogHead.objects.select_for_update().get(pk=1)
        before = Head(row.epoch, row.position)
        row.epoch = new_epoch()
        row.save(update_fields=["epoch"])
    return before, Head(row.epoch, row.position)


class KillmailLog:
    """The log for the hub, which calls it from threads that live as long as the process."""

    def __init__(self) -> None:
        self._static = StaticRows()

    def head(self) -> Head:
        with _closed_when_broken():
            row = LogHead.objects.get(pk=1)
        return Head(row.epoch, row.position)

    def read_new(self, after: Head, limit: int, fields: frozenset[str]) -> tuple[Head, list[LogEntry]]:
        with _closed_when_broken():
            return read_new(after, limit, fields, self._static)

    def read(self, after: Head, limit: int, fields: frozenset[str]) -> list[LogEntry]:
        return self.read_new(after, limit, fields)[1]

    def checkpoint(self, head: Head) -> Event:
        return LogEntry(head.epoch, head.position, CHECKPOINT, None, None)


@contextlib.contextmanager
def _closed_when_broken() -> Iterator[None]:
    try:
        yield
    except Error:
        connection.close()  # a broken one would stay broken; the next call opens another
        raise


def read_new(
    after: Head, limit: int, fields: frozenset[str], static: StaticRows | None = None
) -> tuple[Head, list[LogEntry]]:
    """The head, and at most `limit` entries after that position, in order; none where the epoch is another one.

    They come with what `fields` (GraphQL's names) ask for. Both are of one moment: no entry is beyond the head, and
    none is missing up to there but for the limit.
    """
    rows = list(Killmail.objects.raw(READ, [after.position, limit, after.epoch]))
    head = Head(rows[0].log_epoch, rows[0].log_head)
    killmails = load((row for row in rows if row.log_position is not None), fields, static)
    return head, [
        # All times in the database are UTC; SQLite does not say so.
        LogEntry(head.epoch, one.log_position, one.log_kind, one, one.log_time.replace(tzinfo=UTC))
        for one in killmails
    ]


def read_filtered(
    after: Head, head: Head, count: int, fields: frozenset[str], wanted: KillmailFilter
) -> tuple[list[LogEntry], int]:
    """The first so many entries after that position whose killmails pass, and the position up to which we looked.

    Looks at no more than `SCANNED` events, so that a page of a narrow filter may be empty.
    """
    furthest = min(head.position, after.position + SCANNED)
    events = KillmailEvent.objects.filter(position__gt=after.position, position__lte=furthest).order_by("position")
    if wanted != KillmailFilter():
        # One killmail after the other: with IN, some databases first look for all killmails that pass.
        killmail = Killmail.objects.filter(pk=OuterRef("killmail_id"))
        events = events.filter(Exists(killmail.filter(wanted.condition())))
    rows = list(events[:count])
    killmails = load(rows_by(Killmail, "id", {row.killmail_id for row in rows}), fields) if rows else []
    loaded = {killmail.pk: killmail for killmail in killmails}
    entries = [LogEntry(head.epoch, row.position, row.kind, loaded[row.killmail_id], row.created_at) for row in rows]
    return entries, rows[-1].position if len(rows) == count else furthest
