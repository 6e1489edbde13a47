"""Whether only NPCs, one pilot alone, or one of the victim's own had a part in it."""

from killmails.values.facts import (
    CAPSULE,
    LARGEST_NPC_CHARACTER,
    LARGEST_NPC_CORPORATION,
    ROOKIE_SHIP,
    SHIP,
    SHUTTLE,
    STRUCTURE,
    Esi,
    Facts,
    final_blow,
    id_of,
)


def is_npc(esi: Esi) -> bool:
    """No player had a part in it: none lost something, or none attacked."""
    victim = esi["victim"]
    if not victim.get("character_id") and 1 < id_of(victim, "corporation_id") < LARGEST_NPC_CORPORATION:
        return True
    return not any(
        id_of(attacker, "character_id") > LARGEST_NPC_CHARACTER
        or id_of(attacker, "corporation_id") > LARGEST_NPC_CORPORATION
        for attacker in esi["attackers"]
    )


def is_solo(esi: Esi, facts: Facts) -> bool:
    """One player alone lost a ship to one player alone, without a structure's help; NPCs do not count."""
    ship = facts[esi["victim"]["ship_type_id"]]
    if is_npc(esi) or ship.category_id != SHIP or ship.group_id in (CAPSULE, SHUTTLE, ROOKIE_SHIP):
        return False
    if any(facts[id_of(attacker, "ship_type_id")].category_id == STRUCTURE for attacker in esi["attackers"]):
        return False
    return sum(id_of(attacker, "character_id") > LARGEST_NPC_CHARACTER for attacker in esi["attackers"]) == 1


def is_awox(esi: Esi, facts: Facts) -> bool:
    """The final blow is of the victim's own corporation."""
    if is_npc(esi) or facts[esi["victim"]["ship_type_id"]].group_id in (CAPSULE, ROOKIE_SHIP):
        return False
    corporation_id = id_of(final_blow(esi), "corporation_id")
    return corporation_id > LARGEST_NPC_CORPORATION and corporation_id == esi["victim"].get("corporation_id")
