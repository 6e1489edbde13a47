"""What the victim carried, as rows of one table: nested items follow what they were in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from killmails.models import InventoryType, Killmail, KillmailPackage

MOST = 500  # rows shown; the package has them all
BLUEPRINT_COPY = 2

# Where in the ship, by ESI's flag: first, last, name. Others are shown by their number alone.
PLACES = (
    (5, 5, "cargo"),
    (11, 18, "low slot"),
    (19, 26, "medium slot"),
    (27, 34, "high slot"),
    (87, 87, "drone bay"),
    (89, 89, "implant"),
    (90, 90, "ship hangar"),
    (92, 99, "rig"),
    (125, 132, "subsystem"),
    (155, 155, "fleet hangar"),
    (158, 158, "fighter bay"),
    (159, 163, "fighter tube"),
)


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One row. `indent`: one entry for each container that it was in."""

    indent: range
    item_type: InventoryType
    flag: int
    place: str
    dropped: int | None
    destroyed: int | None
    is_copy: bool


@dataclass(frozen=True, slots=True)
class ItemTable:
    """The first rows, and whether there are more."""

    rows: list[ItemRow]
    cut: bool
    most: int = MOST


def item_table(killmail: Killmail) -> ItemTable:
    """Two queries: the package, and the types that it names."""
    try:
        items = list(islice(_flat(killmail.items, 0), MOST + 1))
    except KillmailPackage.DoesNotExist:
        items = []
    types = InventoryType.objects.in_bulk({item["item_type_id"] for _, item in items})
    return ItemTable([_row(depth, item, types) for depth, item in items[:MOST]], len(items) > MOST)


def _flat(items: list[dict[str, Any]], depth: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for item in items:
        yield depth, item
        yield from _flat(item.get("items") or [], depth + 1)


def _row(depth: int, item: dict[str, Any], types: dict[int, InventoryType]) -> ItemRow:
    return ItemRow(
        indent=range(depth),
        item_type=types.get(item["item_type_id"]) or InventoryType(item["item_type_id"]),
        flag=item["flag"],
        place=next((name for first, last, name in PLACES if first <= item["flag"] <= last), ""),
        dropped=item.get("quantity_dropped"),
        destroyed=item.get("quantity_destroyed"),
        is_copy=item["singleton"] == BLUEPRINT_COPY,
    )
