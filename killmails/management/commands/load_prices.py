"""Load what things cost, by day."""

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from killmails.errors import BadPrices, Unacceptable, UpstreamError
from killmails.ingest import prices
from killmails.ingest.esi import esi

OLDEST = date(2003, 10, 1)  # EVE's market has no older days


class Command(BaseCommand):
    help = (
        "Loads The Forge's average prices by day, and reckons killmails without zKillboard's block again. "
        "From EVE Ref (by default those of the last 40 days that are missing), from files of its form, or from ESI for "
        "what such killmails need. Again changes nothing."
    )
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="first", metavar="DAY", help="2026-11-01; 40 days ago if not given")
        parser.add_argument("--to", dest="last", metavar="DAY", help="yesterday if not given")
        source = parser.add_mutually_exclusive_group()
        source.add_argument(
            "--file", type=Path, nargs="+", metavar="PATH", help="market-history-….csv.bz2, or unpacked"
        )
        source.add_argument("--esi", action="store_true", help="ask ESI, within its limits, instead of EVE Ref")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last = _days(options["first"], options["last"])
        try:
            if options["file"]:
                first = self._load_files(options["file"])
            elif options["esi"]:
                self._load_esi(first)
            else:
                self._load_days(first, last)
        except (BadPrices, UpstreamError, Unacceptable) as error:
            raise CommandError(str(error), returncode=2) from error
        self.stdout.write(f"{prices.revalue(first)} killmails come to something else now.")

    def _load_days(self, first: date, last: date) -> None:
        missing = prices.missing_days(first, last)
        self.stdout.write(f"{first} to {last}: {len(missing)} days are missing.")
        for day, count in prices.load_days(prices.everef(), missing):
            self.stdout.write(f"{day}: {'EVE Ref has no file (yet)' if count is None else f'{count} prices'}")
            self.stdout.flush()

    def _load_files(self, paths: list[Path]) -> date:
        """The oldest day in them. All are read before any is stored."""
        read = [(path, prices.read_market_history(_bytes(path), path.name)) for path in paths]
        for path, rows in read:
            self.stdout.write(f"{path.name}: {prices.store_prices(rows)} prices")
        return min((row[0] for _, rows in read for row in rows), default=datetime.now(UTC).date())

    def _load_esi(self, first: date) -> None:
        upstream = esi()
        if upstream is None:
            raise CommandError("A recording is not priced: FEED=recorded.", returncode=2)
        types = prices.types_without_block(first)
        self.stdout.write(f"{len(types)} types are needed for killmails without zKillboard's block since {first}.")
        for type_id, count, wait in prices.load_histories(upstream, first, types):
            if wait:
                self.stdout.write(f"ESI's limits are reached; going on in {wait:.0f} s.")
                self.stdout.flush()
                time.sleep(wait)
            else:
                self.stdout.write(f"type {type_id}: {count} prices")


def _days(first: str | None, last: str | None) -> tuple[date, date]:
    today = datetime.now(UTC).date()
    oldest, newest = prices.recent(today)
    begin, end = _day("--from", first) or oldest, _day("--to", last) or newest
    if not OLDEST <= begin <= end <= today:
        raise CommandError(f"--from {begin} --to {end}: must be days in order, from {OLDEST} to today", returncode=2)
    return begin, end


def _day(name: str, text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError as error:
        raise CommandError(f"{name} {text}: is no day like 2026-11-01", returncode=2) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"--file {path}: {error.strerror}", returncode=2) from error
