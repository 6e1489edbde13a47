"""What was dropped, destroyed and fitted, in ISK."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from killmails.values.facts import Esi, items_of, quantity
from killmails.values.prices import CENT, Basis, Prices, UnitPrice

COPY = 2  # the singleton of a blueprint copy
FRIGATE_BAY, IMPLANT, CARGO = 179, 89, 5
GOLDEN_CAPSULE = 33329  # an implant in name only
FIRST_WITH_COPIES = 21_112_472  # killmails before do not tell copies of blueprints from originals
BLUEPRINT = 9  # a category
FITTED = {*range(11, 35), *range(92, 99), *range(125, 133), *range(159, 164)}


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the killmail, or its hull, which has no flag; nested rows follow their container."""

    type_id: int
    flag: int | None
    quantity: int
    price: UnitPrice

    @property
    def isk(self) -> Decimal:
        return self.price.isk * self.quantity


@dataclass(frozen=True, slots=True)
class Sums:
    """ISK, with 2 decimals."""

    dropped: Decimal
    destroyed: Decimal
    fitted: Decimal
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        return self.dropped + self.destroyed


def reckon(esi: Esi, prices: Prices) -> Sums:
    """The hull is destroyed and fitted. A container is dropped or destroyed with all that is in it."""
    hull = Line(esi["victim"]["ship_type_id"], None, 1, prices.of(esi["victim"]["ship_type_id"]))
    lines, dropped, destroyed, fitted = [hull], Decimal(0), hull.isk, hull.isk
    for item in items_of(esi):
        rows = list(_lines(item, esi["killmail_id"], prices))
        lines += rows
        isk = sum((row.isk for row in rows), Decimal(0))
        dropped += isk if item.get("quantity_dropped") else 0
        destroyed += isk if item.get("quantity_destroyed") else 0
        if item["flag"] in FITTED:
            fitted += prices.of(item["item_type_id"]).isk * quantity(item)
    return Sums(dropped, destroyed, fitted, tuple(lines))


def _lines(item: Mapping[str, Any], killmail_id: int, prices: Prices) -> Iterator[Line]:
    type_id, flag = item["item_type_id"], item["flag"]
    price = UnitPrice(CENT, Basis.WORTHLESS) if _is_worthless(item, killmail_id, prices) else prices.of(type_id)
    yield Line(type_id, flag, quantity(item), price)
    for inner in item.get("items") or []:
        yield from _lines(inner, killmail_id, prices)


def _is_worthless(item: Mapping[str, Any], killmail_id: int, prices: Prices) -> bool:
    if item.get("singleton") == COPY or item["flag"] == FRIGATE_BAY:
        return True
    if item["flag"] == IMPLANT and item["item_type_id"] == GOLDEN_CAPSULE:
        return True
    old = killmail_id < FIRST_WITH_COPIES and item["flag"] == CARGO
    return old and prices.category(item["item_type_id"]) == BLUEPRINT
