"""Clauses that contradict each other. What the static data does not know contradicts nothing."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from killmails.errors import BadFilter
from killmails.filters.clauses import show
from killmails.filters.terms import Wish, camel_case
from killmails.models import Constellation, InventoryType
from killmails.models.places import read_places

RANGES = (("min_value", "max_value"), ("min_attackers", "max_attackers"))

Holders = Iterable[tuple[Any, ...]]  # an id, then what it lies in; None where it is not known


def _constellations(ids: Collection[int]) -> Holders:
    return Constellation.objects.filter(pk__in=ids).values_list("pk", "region_id")


def _ship_types(ids: Collection[int]) -> Holders:
    return InventoryType.objects.filter(pk__in=ids).values_list("pk", "group_id")


# Clauses whose ids lie in something that other clauses name.
LIES_IN: dict[str, tuple[Callable[[Collection[int]], Holders], tuple[str, ...]]] = {
    "solar_system_ids": (read_places, ("constellation_ids", "region_ids", "security_bands")),
    "constellation_ids": (_constellations, ("region_ids",)),
    "ship_type_ids": (_ship_types, ("ship_group_ids",)),
}


def refuse_contradictions(wishes: Iterable[Wish], path: str) -> None:
    """Raises BadFilter where no row can meet all of these clauses, which are asked of one and the same row."""
    wanted = {wish.clause.name: wish.wanted for wish in wishes}
    for least, most in RANGES:
        if least in wanted and most in wanted and wanted[least] > wanted[most]:
            raise BadFilter(f"{path}.{camel_case(least)}", f"is above {camel_case(most)}, so this can never match.")
    if "since" in wanted and "until" in wanted and wanted["since"] >= wanted["until"]:
        raise BadFilter(f"{path}.since", "is not before until, so this can never match.")
    for name in LIES_IN.keys() & wanted.keys():
        _refuse_outside(name, wanted, path)


def _refuse_outside(name: str, wanted: Mapping[str, Any], path: str) -> None:
    read, holders = LIES_IN[name]
    if not wanted.keys() & set(holders):
        return
    rows = list(read(wanted[name]))
    for place, holder in enumerate(holders, start=1):
        if holder in wanted:
            outside = [row[0] for row in rows if row[place] is not None and row[place] not in wanted[holder]]
            if len(outside) == len(wanted[name]):
                what = f"{show(sorted(outside))} lies outside {camel_case(holder)}, so this can never match."
                raise BadFilter(f"{path}.{camel_case(name)}", what)
