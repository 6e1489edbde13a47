"""Storing a killmail: one transaction, safe to run twice, by any number of workers at once."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields
from enum import StrEnum

from django.db import IntegrityError, transaction

from killmails import events
from killmails.models import (
    Alliance,
    Attacker,
    Character,
    Corporation,
    Entity,
    Faction,
    InventoryType,
    Killmail,
    KillmailPackage,
    SolarSystem,
)
from killmails.models.places import read_places
from killmails.records import AttackerRecord, KillmailRecord, ZkbRecord
from realtime import doorbell

logger = logging.getLogger(__name__)

ATTACKERS_AT_ONCE = 1000
ATTACKER_COLUMNS = [field.name for field in fields(AttackerRecord)]
# A newer package that differs in these only is no event: where it came from, and what our static data knows.
NO_NEWS = {"sequence", "uploaded_at", "constellation_id", "region_id", "security_band"}


class Stored(StrEnum):
    """What became of a killmail that was given to the store."""

    ADDED = "added"
    UPDATED = "updated"
    KNOWN = "known"


outcomes: Counter[str] = Counter()  # of this process


def store_killmail(record: KillmailRecord, claim: Callable[[], None] | None = None) -> Stored:
    """Stores the killmail with an event in the log, then rings the doorbell.

    The same killmail again changes nothing; a newer package of it replaces the older one, with an UPDATED event
    where they differ. `claim` runs first in the transaction, to move the feed cursor; what it raises undoes
    everything.
    Always a transaction of its own: the log and the doorbell rely on it.
    """
    with transaction.atomic(durable=True):
        # 1. The right to store it.
        if claim:
            claim()
        # 2. What it names, so that every reference has its row.
        _insert_entities(record)
        # 3. The killmail, new or newer.
        columns = _columns(record)
        stored = _insert(record, columns) or _replace(record, columns)
        # 4. The log, last: see killmails.events.
        position = None
        if stored is not Stored.KNOWN:
            kind = events.ADDED if stored is Stored.ADDED else events.UPDATED
            position = events.append(kind, record.killmail_id)
    outcomes[stored] += 1
    if position is not None:
        doorbell.ring(position)
    return stored


def _insert(record: KillmailRecord, columns: dict[str, object]) -> Stored | None:
    """None where the killmail is there already; decided by the primary key, not by looking first."""
    try:
        with transaction.atomic():
            Killmail(pk=record.killmail_id, **columns).save(force_insert=True)
    except IntegrityError:
        return None
    _insert_parts(record)
    return Stored.ADDED


def _insert_parts(record: KillmailRecord) -> None:
    attackers = [
        Attacker(killmail_id=record.killmail_id, ordinal=ordinal, **_attacker_columns(attacker))
        for ordinal, attacker in enumerate(record.attackers)
    ]
    Attacker.objects.bulk_create(attackers, ATTACKERS_AT_ONCE)
    KillmailPackage(killmail_id=record.killmail_id, deflated=KillmailPackage.deflate(record.raw)).save(
        force_insert=True
    )


def _replace(record: KillmailRecord, columns: dict[str, object]) -> Stored:
    """Takes over a newer package of a killmail that is stored: an upload again, or a repost under a new number."""
    current = Killmail.objects.select_for_update().get(pk=record.killmail_id)
    older = (record.uploaded_at, record.sequence) < (current.uploaded_at or 0, current.sequence or 0)
    if older or current.package.raw() == record.raw:
        return Stored.KNOWN
    same = all(getattr(current, name) == value for name, value in columns.items() if name not in NO_NEWS)
    same = same and current.package.esi() == json.loads(record.raw)["esi"]
    Killmail.objects.filter(pk=record.killmail_id).update(**columns)
    Attacker.objects.filter(killmail_id=record.killmail_id).delete()
    KillmailPackage.objects.filter(killmail_id=record.killmail_id).delete()
    _insert_parts(record)
    return Stored.KNOWN if same else Stored.UPDATED


def _columns(record: KillmailRecord) -> dict[str, object]:
    victim = record.victim
    x, y, z = victim.position or (None, None, None)
    zkb = {field.name: getattr(record.zkb, field.name) for field in fields(ZkbRecord)}
    return {
        "hash": record.killmail_hash,
        "time": record.time,
        **_place(record.solar_system_id),
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
    }


def _place(solar_system_id: int) -> dict[str, object]:
    """The columns that the static data tells."""
    (place,) = read_places([solar_system_id])
    return place._asdict()


def _attacker_columns(attacker: AttackerRecord) -> dict[str, object]:
    return {name: getattr(attacker, name) for name in ATTACKER_COLUMNS}


def _insert_entities(record: KillmailRecord) -> None:
    """Rows without a name for everything that the killmail names and that we have not met.

    In one fixed order of tables and ids, so that two workers never wait for each other crosswise.
    """
    everybody = [record.victim, *record.attackers]
    _insert_missing(Alliance, (one.alliance_id for one in everybody))
    _insert_missing(Character, (one.character_id for one in everybody))
    _insert_missing(Corporation, (one.corporation_id for one in everybody))
    _insert_missing(Faction, (one.faction_id for one in everybody))
    types = {one.ship_type_id for one in everybody} | {one.weapon_type_id for one in record.attackers}
    _insert_missing(InventoryType, types | record.victim.item_type_ids)
    _insert_missing(SolarSystem, [record.solar_system_id])


def _insert_missing(model: type[Entity], ids: Iterable[int | None]) -> None:
    rows = [model(id=id_) for id_ in sorted({id_ for id_ in ids if id_ is not None})]
    model.objects.bulk_create(rows, ignore_conflicts=True)
