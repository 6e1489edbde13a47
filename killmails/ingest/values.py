"""Values, points, flags and labels of killmails that come without zKillboard's block: our own, by its rules."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any

from django.db.models import Q, QuerySet

from killmails.columns import VALUE_COLUMNS, is_padding, value_columns
from killmails.models import Killmail, KillmailPackage
from killmails.models.killmails import ValuesBy
from killmails.valuation import valuate

AT_ONCE = 100


def without_block(since: date) -> QuerySet[Killmail]:
    """Killmails that zKillboard has not reckoned, of this day and later."""
    begin = datetime.combine(since, time(), UTC)
    return Killmail.objects.filter(~Q(values_by=ValuesBy.ZKILLBOARD) | Q(values_by=None), time__gte=begin)


def revalued(since: date) -> Iterator[tuple[int, dict[str, object]]]:
    """Those of them that come to something else now: ids, with the columns to write. Prices came."""
    return _revalued(without_block(since))


def newly_known() -> Iterator[tuple[int, dict[str, object]]]:
    """The same of those of whose ships or modules nothing was known. Static data came."""
    return _revalued(Killmail.objects.filter(values_by=ValuesBy.BOARD, points=None))


def _revalued(killmails: QuerySet[Killmail]) -> Iterator[tuple[int, dict[str, object]]]:
    last = 0
    while part := list(killmails.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:AT_ONCE]):
        last = part[-1]
        esis = {package.pk: package.esi() for package in KillmailPackage.objects.filter(pk__in=part)}
        known = {row["pk"]: row for row in Killmail.objects.filter(pk__in=part).values("pk", *VALUE_COLUMNS)}
        padding = {id_ for id_, esi in esis.items() if _is_padding(esi, known[id_]["labels"])}
        columns = {id_: value_columns(valuation) for id_, valuation in valuate(esis, padding).items()}
        yield from ((id_, new) for id_, new in columns.items() if any(known[id_][name] != new[name] for name in new))


def _is_padding(esi: dict[str, Any], labels: list[str]) -> bool:
    """As its labels say. It has none where a ship was not known when it came, so that nobody knew whether it is."""
    return "padding" in labels if labels else is_padding(esi)
