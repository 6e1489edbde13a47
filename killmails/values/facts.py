"""What the rules must know of types and places, and some shapes that they share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SHIP, MODULE, STRUCTURE, STRUCTURE_MODULE, SKIN = 6, 7, 65, 66, 91  # categories
CAPSULE, SHUTTLE, ROOKIE_SHIP = 29, 31, 237  # groups
LARGEST_NPC_CHARACTER, LARGEST_NPC_CORPORATION = 3_999_999, 1_999_999


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """`market_groups`: its own and all above it. None where the static data does not know."""

    group_id: int | None = None
    category_id: int | None = None
    market_groups: frozenset[int] = frozenset()
    rig_size: int | None = None
    meta_level: int | None = None
    has_heat_damage: bool | None = None


@dataclass(frozen=True, slots=True)
class PlaceFacts:
    """`security`: true security, -1.0 to 1.0."""

    region_id: int | None = None
    security: float | None = None


class Facts(dict[int, TypeFacts]):
    """By type id; nothing is known of a type that is not among them."""

    def __missing__(self, type_id: int) -> TypeFacts:
        return TypeFacts()


Esi = Mapping[str, Any]  # a killmail in ESI's shape


def id_of(holder: Mapping[str, Any], key: str) -> int:
    """0 where there is none. ESI leaves such keys out; null is stored as the same, and has to be read as the same."""
    return holder.get(key) or 0


def final_blow(esi: Esi) -> Mapping[str, Any]:
    """Nothing where a killmail has none."""
    return next((attacker for attacker in esi["attackers"] if attacker["final_blow"]), {})


def items_of(esi: Esi) -> list[Mapping[str, Any]]:
    """Those at the top; what is in a container stands in its own `items`."""
    return list(esi["victim"].get("items") or [])


def all_items(items: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for item in items:
        yield item
        yield from all_items(item.get("items") or [])


def quantity(item: Mapping[str, Any]) -> int:
    return (item.get("quantity_dropped") or 0) + (item.get("quantity_destroyed") or 0)


def goods_of(esi: Esi) -> set[int]:
    """The types that were lost: what has to have a price."""
    return {esi["victim"]["ship_type_id"], *(item["item_type_id"] for item in all_items(items_of(esi)))}


def type_ids(esi: Esi) -> set[int]:
    """All types that the rules ask about."""
    ships = {esi["victim"]["ship_type_id"], *(attacker.get("ship_type_id") for attacker in esi["attackers"])}
    return (ships | goods_of(esi)) - {None}
