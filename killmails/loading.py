"""Loading killmails for readers: few queries, the same number for one killmail as for a hundred."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from django.db.models import QuerySet

from killmails.models import InventoryType, Killmail
from killmails.models.killmails import KillmailQuerySet

ATTACKER_FIELDS = {"attackers", "finalBlow"}
ITEM_FIELDS = {"items"}
ALL_FIELDS = frozenset(ATTACKER_FIELDS | ITEM_FIELDS)


@dataclass(frozen=True, slots=True)
class Item:
    """One row of what the victim carried; `items` is what was in it."""

    item_type: InventoryType
    flag: int
    quantity_dropped: int | None
    quantity_destroyed: int | None
    singleton: int
    items: list["Item"]


def load(query: QuerySet[Killmail], fields: Iterable[str]) -> list[Killmail]:
    """The killmails with place and victim, and with attackers and items where `fields` (GraphQL's names) ask for them.

    Items come as `killmail.loaded_items`, with their types. At most 4 queries.
    """
    asked = set(fields)
    killmails = cast(KillmailQuerySet, query).with_victim()
    if asked & ATTACKER_FIELDS:
        killmails = killmails.with_attackers()
    if asked & ITEM_FIELDS:
        killmails = killmails.with_items()
    loaded = list(killmails)
    if asked & ITEM_FIELDS:
        _load_items(loaded)
    return loaded


def _load_items(killmails: list[Killmail]) -> None:
    raw = [(killmail, killmail.items) for killmail in killmails]
    types = InventoryType.objects.select_related("group__category").in_bulk(
        {type_id for _, items in raw for type_id in _type_ids(items)}
    )
    for killmail, items in raw:
        killmail.loaded_items = _items(items, types)


def _type_ids(items: list[dict[str, Any]]) -> Iterator[int]:
    for item in items:
        yield item["item_type_id"]
        yield from _type_ids(item.get("items") or [])


def _items(items: list[dict[str, Any]], types: dict[int, InventoryType]) -> list[Item]:
    return [
        Item(
            item_type=types.get(item["item_type_id"]) or InventoryType(item["item_type_id"]),
            flag=item["flag"],
            quantity_dropped=item.get("quantity_dropped"),
            quantity_destroyed=item.get("quantity_destroyed"),
            singleton=item["singleton"],
            items=_items(item.get("items") or [], types),
        )
        for item in items
    ]
