"""A killmail's columns: from its record, and, where it comes without zKillboard's block, reckoned by us."""

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet

from killmails.models import Attacker, InventoryType, Killmail
from killmails.models.killmails import ValuesBy
from killmails.models.locations import nearest_celestial
from killmails.models.places import read_places
from killmails.records import AttackerRecord, KillmailRecord, ZkbRecord
from killmails.valuation import Valuation, valuate

ATTACKER_COLUMNS = [field.name for field in fields(AttackerRecord)]
SHUTTLE = 31  # a group
SLOT, SHUTTLE_SLOT = 900, 3600  # seconds
BEFORE = 2  # losses of the same in a slot, after which more are padding
VALUE_COLUMNS = ("fitted_value", "dropped_value", "destroyed_value", "total_value", "points", "is_npc", "is_solo",
                 "is_awox", "labels", "values_by")  # fmt: skip


def columns_of(record: KillmailRecord) -> dict[str, object]:
    """All columns. Reads the database; safe in the storing transaction."""
    columns = {**told_columns(record), **_place(record.solar_system_id)}
    if record.zkb.is_npc is None:  # without the block
        columns |= {"location_id": location_of(record), **own_columns(json.loads(record.raw)["esi"])}
    return columns


def told_columns(record: KillmailRecord) -> dict[str, object]:
    """What the package itself tells."""
    victim = record.victim
    x, y, z = victim.position or (None, None, None)
    zkb = {field.name: getattr(record.zkb, field.name) for field in fields(ZkbRecord)}
    return {
        "hash": record.killmail_hash,
        "time": record.time,
        "solar_system_id": record.solar_system_id,
        "war_id": record.war_id,
        "moon_id": record.moon_id,
        "victim_character_id": victim.character_id,
        "victim_corporation_id": victim.corporation_id,
        "victim_alliance_id": victim.alliance_id,
        "victim_faction_id": victim.faction_id,
        "victim_ship_type_id": victim.ship_type_id,
        "damage_taken": victim.damage_taken,
        "position_x": x,
        "position_y": y,
        "position_z": z,
        "attacker_count": len(record.attackers),
        "sequence": record.sequence,
        "uploaded_at": record.uploaded_at,
        **zkb,
        "labels": list(record.zkb.labels),
        "values_by": ValuesBy.ZKILLBOARD,
    }


def _place(solar_system_id: int) -> dict[str, object]:
    """The columns that the static data tells."""
    (place,) = read_places([solar_system_id])
    return place._asdict()


def location_of(record: KillmailRecord) -> int | None:
    """The nearest celestial, by our static data."""
    position = record.victim.position
    return nearest_celestial(record.solar_system_id, position) if position else None


def attackers_of(record: KillmailRecord) -> list[Attacker]:
    """Their rows, not stored."""
    return [
        Attacker(
            killmail_id=record.killmail_id,
            ordinal=ordinal,
            **{name: getattr(attacker, name) for name in ATTACKER_COLUMNS},
        )
        for ordinal, attacker in enumerate(record.attackers)
    ]


def own_columns(esi: dict[str, Any]) -> dict[str, object]:
    """What is written beside a killmail in ESI's shape. Reads the database; safe in the storing transaction."""
    killmail_id = esi["killmail_id"]
    padding = {killmail_id} if is_padding(esi) else set()
    return value_columns(valuate({killmail_id: esi}, padding)[killmail_id])


def value_columns(valuation: Valuation) -> dict[str, object]:
    sums = valuation.sums
    isk = (sums.fitted, sums.dropped, sums.destroyed, sums.total) if sums else (None,) * 4
    flags = (valuation.is_npc, valuation.is_solo, valuation.is_awox)
    return dict(zip(VALUE_COLUMNS, (*isk, valuation.points, *flags, valuation.labels, ValuesBy.BOARD), strict=True))


def is_padding(esi: dict[str, Any]) -> bool:
    """Whether the same pilot lost the same to the same final blow at least twice before in this quarter of an hour; for
    shuttles: whether the pilot lost two there before in this hour. Before is what has a smaller id: whoever asks later
    gets the same answer, though more may have come.
    """
    victim = esi["victim"]
    is_shuttle = InventoryType.objects.filter(pk=victim["ship_type_id"], group_id=SHUTTLE).exists()
    slot = SHUTTLE_SLOT if is_shuttle else SLOT
    seconds = int(datetime.fromisoformat(esi["killmail_time"]).timestamp()) // slot * slot
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (seconds, seconds + slot))
    same: QuerySet[Killmail] = Killmail.objects.filter(
        victim_character=victim.get("character_id"),
        victim_ship_type=victim["ship_type_id"],
        time__gte=begin,
        time__lt=end,
        pk__lt=esi["killmail_id"],
    )
    if is_shuttle:
        return same.filter(solar_system=esi["solar_system_id"])[:BEFORE].count() >= BEFORE
    final_blow = next((attacker for attacker in esi["attackers"] if attacker["final_blow"]), {})
    same = same.filter(attackers__final_blow=True, attackers__character=final_blow.get("character_id"))
    return same[:BEFORE].count() >= BEFORE
