"""Following zKillboard's feed: one step asks one question, and says how long to wait until the next.

The order of things in a step:
1. take or renew the lease; another worker has it → wait
2. wait as long as the upstream was to be left alone (kept in the database: a restart forgets nothing)
3. ask for the sequence at the cursor, or for one that the feed still owes us
4. store what came together with the cursor's move, in one transaction; or write down why not

Only step 4 moves the cursor, by compare-and-set. A worker that dies anywhere has moved it and stored, or neither.
"""

import logging
import random
import threading
import time
from datetime import UTC, datetime, timedelta

from django.db import OperationalError, close_old_connections, connection
from django.db.models import F
from django.db.models.functions import Now

from killmails.errors import BadPointer, Outrun, Unacceptable, Unreadable, UpstreamError, UpstreamRefused
from killmails.ingest import gaps
from killmails.ingest.lease import FEED, RENEW, STANDBY, give_up_lease, is_mine, take_lease, who_follows
from killmails.ingest.names import NameAsker
from killmails.ingest.quarantine import quarantine
from killmails.ingest.store import store_killmail
from killmails.models import FeedCursor
from killmails.records import KillmailRecord, Placeholder, parse_package
from killmails.upstream.esi import Esi
from killmails.upstream.zkillboard import Zkillboard

logger = logging.getLogger(__name__)

NOT_YET = "404"
ASK_AGAIN = 6.0  # seconds after a 404, by zKillboard's own rule
MISSING_LIMIT = timedelta(seconds=60)  # then we look whether the feed has gone on without this number
BROKEN_WAIT = 5.0  # seconds after a fault of our own
BANNED_WAIT = 600.0  # seconds after a 403: blocks last up to an hour
POINTER_SILENCE = 600.0  # seconds between two complaints about the pointer
BEHIND = 60.0  # seconds without a 404 after which we want to know how far; and how often
LIMITED_WAIT = 60.0  # seconds after a 429 that names no time
BACKOFF = (6.0, 60.0)  # seconds, first and longest, after an upstream in trouble


class Feed:
    """One worker's side of the feed."""

    def __init__(self, upstream: Zkillboard, holder: str, esi: Esi | None = None) -> None:
        self._upstream = upstream
        self._names = NameAsker(esi)
        self._holder = holder
        self._failures = 0
        self._silent_until = 0.0
        self._standing_by = False
        self._following = False
        self._measured = time.monotonic()  # when we knew last how far behind we are: not at all after a 404

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Whatever goes wrong is logged and tried again."""
        while not stop.is_set():
            try:
                wait = self.step()
            except OperationalError as error:  # what the database says takes a line, not a traceback each five seconds
                cause = str(error).strip().partition("\n")[0]
                logger.error("The feed met an error of the database (%s); going on in %.0f s.", cause, BROKEN_WAIT)
                connection.close()
                wait = BROKEN_WAIT
            except Exception:
                logger.exception("The feed met an error; going on in %.0f s.", BROKEN_WAIT)
                connection.close()
                wait = BROKEN_WAIT
            stop.wait(wait)
        try:
            give_up_lease(self._holder)
        finally:
            connection.close()

    def step(self) -> float:
        """One step, as told at the top. The answer: seconds until the next."""
        close_old_connections()
        cursor = take_lease(self._holder)
        if cursor is None:
            return self._stand_by()
        if self._standing_by or not self._following:
            logger.info(
                "%s follows the feed now, from sequence %s.", self._holder, cursor.next_sequence or "its pointer"
            )
        self._standing_by, self._following = False, True
        try:
            return self._ask(cursor)
        except UpstreamError as error:
            return self._leave_alone(cursor, error)
        except Outrun as error:
            logger.info("%s", error)
            return STANDBY

    def _stand_by(self) -> float:
        if not self._standing_by:
            logger.info("Standing by: %s follows the feed.", who_follows())
        self._standing_by = True
        return STANDBY

    def _ask(self, cursor: FeedCursor) -> float:
        wait = seconds_left(cursor)
        if wait > 0:
            # While the head is not there yet, what is owed can be asked for; while we are to be silent, nothing.
            owed = cursor.last_answer == NOT_YET and gaps.fetch_one(self._upstream, self._names.ask)
            return 0.0 if owed else min(wait, RENEW)
        if cursor.next_sequence is None:
            return self._begin()
        if time.monotonic() - self._measured >= BEHIND:
            self._measure()
        try:
            raw = self._upstream.fetch_package(cursor.next_sequence)
            self._failures = 0
            if raw is None:
                return self._missing(cursor)
            record = parse_package(raw, cursor.next_sequence, datetime.now(UTC))
        except Unacceptable as error:
            return self._reject(cursor, error)
        return self._take(cursor, record)

    def _begin(self) -> float:
        """A board that is new starts at the pointer's own number: the pointer lags, so nothing is left out."""
        sequence = self._upstream.fetch_pointer()
        FeedCursor.objects.filter(name=FEED, next_sequence=None).update(next_sequence=sequence, moved_at=Now())
        logger.info("The feed begins at sequence %d.", sequence)
        return 0.0

    def _measure(self) -> None:
        """How far the feed is, for those who watch us catch up; a pointer that is nonsense changes nothing."""
        self._measured = time.monotonic()
        try:
            pointer = self._upstream.fetch_pointer()
        except BadPointer as error:
            logger.warning("%s It is not known how far behind we are.", error)
        else:
            FeedCursor.objects.filter(name=FEED).update(pointer=pointer, pointer_at=Now())

    def _take(self, cursor: FeedCursor, record: KillmailRecord | Placeholder) -> float:
        sequence = cursor.next_sequence
        if isinstance(record, KillmailRecord):
            self._names.ask(record)
        if isinstance(record, Placeholder):
            move_cursor(sequence, sequence + 1, placeholders=F("placeholders") + 1)
            logger.info("Sequence %d is a placeholder without a killmail; skipped.", sequence)
            return 0.0
        stored = store_killmail(record, claim=lambda: self._claim(sequence, record.sequence_updated))
        logger.info("Sequence %d: killmail %d %s.", sequence, record.killmail_id, stored)
        return 0.0

    def _claim(self, sequence: int, sequence_updated: int | None) -> None:
        """In the storing transaction: moves the cursor, and notes a file that is to be read again."""
        move_cursor(sequence, sequence + 1)
        if sequence_updated is not None:
            gaps.note_changed(sequence_updated, sequence)

    def _reject(self, cursor: FeedCursor, error: Unacceptable) -> float:
        sequence, tries = cursor.next_sequence, cursor.tries + 1
        if isinstance(error, Unreadable) and tries < gaps.MAX_TRIES:
            logger.warning("Sequence %d cannot be read (%s); asking again.", sequence, error)
            return leave_alone(cursor, ASK_AGAIN, str(error), tries=tries)
        quarantine(sequence, error, claim=lambda: move_cursor(sequence, sequence + 1))
        return 0.0

    def _missing(self, cursor: FeedCursor) -> float:
        """A 404: not there yet; or, after a while, never."""
        self._measured = time.monotonic()
        if cursor.missing_since is None:
            return leave_alone(cursor, ASK_AGAIN, NOT_YET, missing_since=Now())
        if database_now() - cursor.missing_since < MISSING_LIMIT:
            return leave_alone(cursor, ASK_AGAIN, NOT_YET)
        found = gaps.find_next(self._upstream, cursor.next_sequence, renew=lambda: take_lease(self._holder))
        if found is None:
            return leave_alone(cursor, ASK_AGAIN, NOT_YET, missing_since=Now())
        gaps.skip(cursor.next_sequence, found, claim=lambda: move_cursor(cursor.next_sequence, found.sequence))
        # That number was asked for just now.
        cursor.next_sequence = found.sequence
        return leave_alone(cursor, ASK_AGAIN, "200")

    def _leave_alone(self, cursor: FeedCursor, error: UpstreamError) -> float:
        """The cursor stays, and the upstream has its rest."""
        if isinstance(error, BadPointer):
            return self._distrust(cursor, error)
        self._failures += 1
        asked = error.retry_after if isinstance(error, UpstreamRefused) else None
        status = error.status if isinstance(error, UpstreamRefused) else 0
        if status == 403:
            wait = max(BANNED_WAIT, asked or 0.0)
            logger.error("zKillboard blocks us (403); silent for %.0f s. Is CONTACT set?", wait)
        elif status == 429:
            wait = max(ASK_AGAIN, LIMITED_WAIT if asked is None else asked)
            logger.warning("zKillboard asks for patience (429); silent for %.0f s.", wait)
        else:
            first, longest = BACKOFF
            wait = min(longest, first * 2 ** min(self._failures - 1, 10)) * random.uniform(1.0, 1.3)
            wait = max(wait, asked or 0.0)
            logger.warning("The feed cannot be read (%s); asking again in %.0f s.", error, wait)
        return leave_alone(cursor, wait, str(error))

    def _distrust(self, cursor: FeedCursor, error: BadPointer) -> float:
        """The pointer is nonsense, but the next file may come all the same: go on asking for that."""
        if time.monotonic() >= self._silent_until:
            logger.error("%s The cursor stays where it is.", error)
            self._silent_until = time.monotonic() + POINTER_SILENCE
        return leave_alone(cursor, ASK_AGAIN, str(error), missing_since=Now())


def move_cursor(sequence: int, to: int, **also: object) -> None:
    """Compare-and-set, inside the transaction that stores what stood at `sequence`. Raises Outrun."""
    moved = FeedCursor.objects.filter(name=FEED, next_sequence=sequence).update(
        next_sequence=to, not_before=None, missing_since=None, tries=0, last_answer="200", moved_at=Now(), **also
    )
    if not moved:
        raise Outrun(f"Another worker has moved the feed past sequence {sequence}; nothing was stored here.")


def leave_alone(cursor: FeedCursor, seconds: float, answer: str, **also: object) -> float:
    """Nobody asks the upstream before `seconds` have passed, by the database's clock. Gives back the wait.

    A worker that has lost the lease meanwhile, or was outrun, changes nothing: its answer is an old one.
    """
    FeedCursor.objects.filter(is_mine(cursor)).update(
        not_before=Now() + timedelta(seconds=seconds), last_answer=answer[:200], **also
    )
    return min(seconds, RENEW)


def seconds_left(cursor: FeedCursor) -> float:
    return (cursor.not_before - database_now()).total_seconds() if cursor.not_before else 0.0


def database_now() -> datetime:
    """The time by the database's clock, the only one that all workers share."""
    return FeedCursor.objects.filter(name=FEED).values_list(Now(), flat=True).get()
