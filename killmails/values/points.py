"""zKillboard's points: how dangerous the victim was, by how few, and how large their ships were."""

from collections.abc import Mapping
from math import floor
from typing import Any

from killmails.values.facts import CAPSULE, MODULE, STRUCTURE, Esi, Facts, id_of, items_of, quantity
from killmails.values.flags import is_npc

STRATEGIC_CRUISER = 963
DRONE_DAMAGE, MINING_LASER = 645, 54  # groups of modules
FIRST_WITH_SLOTS = 23_970_577  # killmails before do not tell where a module was
FITTED = {*range(11, 35), *range(125, 133)}  # flags of low, mid and high slots, and subsystems


def points(esi: Esi, facts: Facts) -> int:
    """At least 1; 1 for what NPCs did, and where a structure had a part."""
    attackers = esi["attackers"]
    pilots = sum(id_of(attacker, "character_id") > 0 for attacker in attackers)
    ships = [facts[id_of(attacker, "ship_type_id")] for attacker in attackers]
    if is_npc(esi) or not pilots or any(ship.category_id == STRUCTURE for ship in ships):
        return 1
    ship_type_id = esi["victim"]["ship_type_id"]
    base = 5 ** _rig_size(ship_type_id, facts)
    danger = sum(_danger(item, facts) for item in items_of(esi) if _is_fitted(item, esi["killmail_id"], facts))
    result = (base + danger) * max(0.01, min(1.0, danger / 4))
    result /= max(1.0, pilots * max(1.0, pilots / 2))
    size = sum(5 ** _attacker_size(id_of(attacker, "ship_type_id"), ship_type_id, facts) for attacker in attackers)
    average = max(1.0, size / pilots)
    return max(1, floor(result * min(1.2, max(0.5, base / average))))


def attributes_are_known(esi: Esi, facts: Facts) -> bool:
    """Whether the static data tells enough of ships and of what was fitted; names alone do not do for points."""
    ships = {id_of(one, "ship_type_id") for one in (esi["victim"], *esi["attackers"])} - {0}
    fitted = {item["item_type_id"] for item in items_of(esi) if _is_in_a_slot(item, esi["killmail_id"])}
    return all(facts[type_id].has_heat_damage is not None for type_id in ships | fitted)


def _rig_size(type_id: int, facts: Facts) -> int:
    ship = facts[type_id]
    return 2 if ship.group_id == STRATEGIC_CRUISER else max(1, ship.rig_size or 1)


def _attacker_size(type_id: int, victim_type_id: int, facts: Facts) -> int:
    """Who was in a capsule counts as one size larger than what was lost."""
    if facts[type_id].group_id == CAPSULE:
        return _rig_size(victim_type_id, facts) + 1
    return _rig_size(type_id, facts)


def _is_fitted(item: Mapping[str, Any], killmail_id: int, facts: Facts) -> bool:
    return facts[item["item_type_id"]].category_id == MODULE and _is_in_a_slot(item, killmail_id)


def _is_in_a_slot(item: Mapping[str, Any], killmail_id: int) -> bool:
    return item["flag"] in FITTED or (item["flag"] == 0 and killmail_id < FIRST_WITH_SLOTS)


def _danger(item: Mapping[str, Any], facts: Facts) -> int:
    """Modules that can be overheated and drone damage make a ship dangerous, mining lasers harmless."""
    module = facts[item["item_type_id"]]
    kind = bool(module.has_heat_damage) + (module.group_id == DRONE_DAMAGE) - (module.group_id == MINING_LASER)
    return kind * quantity(item) * (1 + (module.meta_level or 0) // 2)
