"""Prices of the market by day: read from files, stored, and what killmails come to with them."""

import bz2
import csv
import io
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation

from django.conf import settings
from django.db import transaction

from killmails.errors import BadPrices, BudgetSpent, Unacceptable, UpstreamError, UpstreamRefused
from killmails.ingest.store import change_killmail
from killmails.ingest.values import newly_known, revalued, without_block
from killmails.models import KillmailPackage, Price
from killmails.upstream.esi import DayPrice, Esi
from killmails.upstream.esi_answers import MOST_ISK
from killmails.upstream.everef import EveRef
from killmails.valuation import LOOK_BACK, types_to_price
from killmails.values.facts import goods_of
from killmails.values.prices import MOST_DAYS

logger = logging.getLogger(__name__)

THE_FORGE = "10000002"
COLUMNS = ("average", "date", "region_id", "type_id")
UNPACKED = 256 * 1024 * 1024  # bytes; a day of all regions has about 6 MB
AT_ONCE = 1000
SHORTEST_WAIT = 1.0  # seconds; who says that none is needed is not asked without end
DAYS = 40  # back from yesterday, which is what a killmail of today looks at

Rows = list[tuple[date, int, Decimal]]  # day, type id, average


def read_market_history(raw: bytes, name: str) -> Rows:
    """The Forge's rows of a file as EVE Ref has it, packed or not. Raises BadPrices, naming the line."""
    lines = csv.DictReader(io.StringIO(_text(raw, name), newline=""), strict=True)
    if not set(COLUMNS) <= set(lines.fieldnames or ()):
        raise BadPrices(f"{name} line 1: must name the columns {', '.join(COLUMNS)}")
    rows: Rows = []
    try:
        for row in lines:
            if row["region_id"] == THE_FORGE:
                rows.append(_row(row, f"{name} line {lines.line_num}"))
    except csv.Error as error:
        raise BadPrices(f"{name} line {lines.line_num}: {error}") from error
    return rows


def _text(raw: bytes, name: str) -> str:
    try:
        if raw.startswith(b"BZh"):
            unpacker = bz2.BZ2Decompressor()
            raw = unpacker.decompress(raw, UNPACKED)
            if not unpacker.eof:
                raise BadPrices(
                    f"{name}: is cut short" if unpacker.needs_input else f"{name}: exceeds {UNPACKED} bytes"
                )
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadPrices(f"{name}: is neither CSV nor CSV packed by bzip2") from error


def _row(row: dict[str, str], where: str) -> tuple[date, int, Decimal]:
    try:
        day, type_id, average = date.fromisoformat(row["date"]), int(row["type_id"]), Decimal(row["average"])
    except (ValueError, TypeError, InvalidOperation) as error:
        raise BadPrices(f"{where}: has no date, type or average that could be read") from error
    if not 0 < type_id < 2**31:
        raise BadPrices(f"{where}: {type_id} is no type")
    if not (average.is_finite() and 0 < average < MOST_ISK):
        raise BadPrices(f"{where}: {average} ISK is no price")
    return day, type_id, average


def store_prices(rows: Rows, source: Price.Source = Price.Source.HISTORY) -> int:
    """All in one transaction; what is known already is replaced. How many."""
    prices = {
        (type_id, day): Price(item_type_id=type_id, day=day, average=average.quantize(Decimal("0.01")), source=source)
        for day, type_id, average in rows
        if average >= Decimal("0.005")
    }
    with transaction.atomic():
        Price.objects.bulk_create(
            prices.values(),
            batch_size=AT_ONCE,
            update_conflicts=True,
            update_fields=["average", "source"],
            unique_fields=["item_type", "day"],
        )
    return len(prices)


def everef() -> EveRef:
    return EveRef(settings.PRICES_URL, settings.CONTACT)


def missing_days(first: date, last: date) -> list[date]:
    """Of these days, both included, those without any price."""
    whole = Price.objects.filter(source=Price.Source.HISTORY)  # ESI is asked for some types only
    known = set(whole.filter(day__range=(first, last)).values_list("day", flat=True).distinct())
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [day for day in days if day not in known]


def load_days(upstream: EveRef, days: Iterable[date]) -> Iterator[tuple[date, int | None]]:
    """Each day with how many prices it brought; None where EVE Ref has none (yet). Raises UpstreamError, BadPrices."""
    for day in days:
        raw = upstream.fetch_day(day)
        if raw is None:
            yield day, None
            continue
        rows = read_market_history(raw, f"market-history-{day}.csv.bz2")
        yield day, store_prices([row for row in rows if row[0] == day])


def load_histories(esi: Esi, first: date, ids: Iterable[int]) -> Iterator[tuple[int, int, float]]:
    """ESI's history of each type since that day, and what killmails of that day look back at: type id, how many prices,
    and how long to wait before it goes on.

    What no market knows gets today's average of ESI's own list. Raises UpstreamError, but not for ESI's limits.
    """
    averages: dict[int, Decimal] | None = None
    for type_id in ids:
        while True:
            try:
                history = esi.fetch_price_history(type_id)
                rows = [(one.day, type_id, one.average) for one in _looked_at(history, first)]
                source = Price.Source.ESI
                if not history:
                    averages = esi.fetch_average_prices() if averages is None else averages
                    source = Price.Source.AVERAGE
                    rows = [(datetime.now(UTC).date(), type_id, averages[type_id])] if type_id in averages else []
                break
            except (BudgetSpent, UpstreamRefused) as error:
                if isinstance(error, UpstreamRefused) and error.status not in (420, 429):
                    raise
                yield type_id, 0, max(SHORTEST_WAIT, error.retry_after or 0.0)
        yield type_id, store_prices(rows, source), 0.0


def _looked_at(history: list[DayPrice], first: date) -> list[DayPrice]:
    """Of what is seldom sold the newest price may be older than the killmail by months."""
    oldest = first - timedelta(days=LOOK_BACK + 1)  # the first hour of a day looks at the day before
    older = [one for one in history if oldest <= one.day < first]
    return older[-MOST_DAYS:] + [one for one in history if one.day >= first]


def types_without_block(since: date) -> list[int]:
    """What must have a price for those killmails that zKillboard has not reckoned, of this day and later."""
    packages = KillmailPackage.objects.filter(killmail__in=without_block(since)).iterator(chunk_size=100)
    return sorted(types_to_price({type_id for package in packages for type_id in goods_of(package.esi())}))


def revalue(since: date) -> int:
    """Writes what they come to now, where that is something else; how many. The event UPDATED tells subscribers."""
    return sum(change_killmail(id_, columns) for id_, columns in revalued(since))


def revalue_newly_known() -> int:
    """The same for killmails of whose ship nothing was known before."""
    return sum(change_killmail(id_, columns) for id_, columns in newly_known())


def recent(today: date) -> tuple[date, date]:
    """The days that killmails of this week look at."""
    return today - timedelta(days=DAYS), today - timedelta(days=1)


def load_newest() -> None:
    """Goes on with what `load_prices` has begun: the days since, as soon as EVE Ref has them. Safe to run twice."""
    newest = Price.objects.filter(source=Price.Source.HISTORY).order_by("-day").values_list("day", flat=True).first()
    oldest, yesterday = recent(datetime.now(UTC).date())
    if newest is None or newest >= yesterday or settings.FEED == "recorded":
        return
    for day in missing_days(max(oldest, newest + timedelta(days=1)), yesterday):
        try:
            ((_, count),) = load_days(everef(), [day])
        except BadPrices as error:  # the next day may be a good one
            logger.error("Prices of %s are not loaded: %s", day, error)
        except (UpstreamError, Unacceptable) as error:
            logger.warning("Prices of %s are not loaded; asked again in an hour: %s", day, error)
            break
        else:
            if count:
                logger.info("%d prices of %s loaded; %d killmails revalued.", count, day, revalue(day))
