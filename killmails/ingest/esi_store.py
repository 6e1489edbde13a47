"""What workers share about ESI, in the database: the budget where there is no Redis, and answers that still hold."""

import json
import logging
import secrets
import zlib
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models.functions import Now

from killmails.models import EsiAnswer, EsiBudget
from killmails.upstream import budget_rules as rules
from killmails.upstream.budget import StoreAway
from killmails.upstream.budget_rules import Ask, Board, Permit, Report, Verdict
from killmails.upstream.esi_questions import Kept

logger = logging.getLogger(__name__)

ALL = ""
MOST = 32 * 1024 * 1024  # bytes of kept answers, about: one in TRIM looks
LARGEST = 1024 * 1024  # bytes of one, deflated; the list of all prices has a quarter of that
TRIM = 50


class DatabaseStore:
    """The budget as rows. Of two questions at once the second waits for the first one's transaction, which is short.

    `speed`: ESI's seconds in one of ours, for tests.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed

    def reserve(self, ask: Ask) -> Verdict:
        return self._change({ask.bucket}, lambda board, now: rules.reserve(board, ask, secrets.token_hex(8), now))

    def settle(self, permit: Permit, report: Report) -> None:
        self._change({permit.bucket, report.bucket}, lambda board, now: rules.settle(board, permit, report, now))

    def told(self) -> dict[str, Any]:
        try:
            rows = dict(EsiBudget.objects.exclude(name__contains=":").values_list("name", "counts"))
            return rules.told(Board(rows.pop(ALL, {}), rows), self._now())
        except DatabaseError as error:
            raise StoreAway(type(error).__name__) from error

    def _change(self, buckets: set[str], change: Any) -> Any:
        names = sorted({ALL, *buckets})
        try:
            with transaction.atomic():
                rows = {row.name: row for row in self._locked(names)}
                if len(rows) < len(names):
                    EsiBudget.objects.bulk_create([EsiBudget(name=name) for name in names], ignore_conflicts=True)
                    rows = {row.name: row for row in self._locked(names)}
                before = {name: json.dumps(row.counts) for name, row in rows.items()}
                board = Board(rows[ALL].counts, {name: rows[name].counts for name in names if name != ALL})
                result = change(board, self._now())
                changed = [row for name, row in rows.items() if json.dumps(row.counts) != before[name]]
                EsiBudget.objects.bulk_update(changed, ["counts"])
                return result
        except DatabaseError as error:
            raise StoreAway(type(error).__name__) from error

    def _locked(self, names: list[str]) -> Any:
        return EsiBudget.objects.select_for_update().filter(name__in=names).order_by("name")

    def _now(self) -> int:
        """By the database's clock, and not of when the transaction began: it may have waited for the lock since."""
        now = EsiBudget.objects.filter(name=ALL).values_list(Now(), flat=True).first()
        return int(now.timestamp() * 1000 * self._speed) if now else 0


class KeptAnswers:
    """Answers by path. A database in trouble is as good as none: then ESI is asked."""

    def __init__(self) -> None:
        self._until_trim = TRIM

    def find(self, path: str) -> Kept | None:
        with suppress(DatabaseError):
            found = EsiAnswer.objects.filter(path=path).values_list("etag", "body", "expires_at", Now()).first()
            if found:
                etag, body, expires_at, now = found
                return Kept(etag, zlib.decompress(body), (expires_at - now).total_seconds())
        return None

    def keep(self, path: str, kept: Kept) -> None:
        body = zlib.compress(kept.body, 6)
        if len(body) > LARGEST:
            return
        row = EsiAnswer(
            path=path, etag=kept.etag, body=body, size=len(body), expires_at=Now() + timedelta(seconds=kept.seconds)
        )
        fields = ["etag", "body", "size", "expires_at"]
        with suppress(DatabaseError):
            EsiAnswer.objects.bulk_create([row], update_conflicts=True, unique_fields=["path"], update_fields=fields)
            self._until_trim -= 1
            if self._until_trim <= 0:
                self._until_trim = TRIM
                trim()


def trim() -> None:
    """Forgets those that expire first, until the others have room."""
    total, gone = 0, []
    for path, size in EsiAnswer.objects.order_by("-expires_at").values_list("path", "size"):
        total += size
        if total > MOST:
            gone.append(path)
    EsiAnswer.objects.filter(path__in=gone).delete()
    if gone:
        logger.info("%d kept answers of ESI are forgotten, for room.", len(gone))
