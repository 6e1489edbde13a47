"""Storing a killmail: one transaction, safe to run twice, by any number of workers at once."""

import json
import logging
from collections.abc import Callable, Iterable
from enum import StrEnum

from django.db import IntegrityError, transaction

from killmails import events
from killmails.columns import attackers_of, columns_of
from killmails.counts import SharedCounts
from killmails.ingest.unnamed import note_unnamed
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
    UnfilledKillmail,
)
from killmails.models.killmails import ValuesBy
from killmails.records import KillmailRecord
from realtime import doorbell

logger = logging.getLogger(__name__)

ATTACKERS_AT_ONCE = 1000
# A newer package that differs in these only is no event: where it came from, and what our static data knows.
NO_NEWS = {"sequence", "uploaded_at", "constellation_id", "region_id", "security_band"}


class Stored(StrEnum):
    """What became of a killmail that was given to the store."""

    ADDED = "added"
    UPDATED = "updated"
    KNOWN = "known"


outcomes = SharedCounts(Stored)  # of this process, and of those that it forks


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
        columns = columns_of(record)
        stored = _insert(record, columns) or _replace(record, columns)
        if stored is not Stored.KNOWN:
            note_unnamed(record, replaces=stored is Stored.UPDATED)
        # 4. The log, last: see killmails.events.
        position = None
        if stored is not Stored.KNOWN:
            kind = events.ADDED if stored is Stored.ADDED else events.UPDATED
            position = events.append(kind, record.killmail_id)
    outcomes.add(stored)
    if position is not None:
        doorbell.ring(position)
    return stored


def publish_filled(killmail_id: int, before: dict[str, list[int]], left: dict[str, list[int]]) -> bool:
    """Names have come since: once more in the log. `before` and `left`: who lacked one, and who does still.

    Whether it was published: once, however many fill at the same time.
    """
    with transaction.atomic(durable=True):
        row = UnfilledKillmail.objects.filter(pk=killmail_id, missing=before)
        changed = row.update(missing=left) if left else row.delete()[0]
        if not changed:
            return False
        position = events.append(events.UPDATED, killmail_id)
    doorbell.ring(position)
    return True


def change_killmail(killmail_id: int, columns: dict[str, object]) -> bool:
    """Writes what we reckon of a stored killmail, with an event in the log. Whether anything changed."""
    with transaction.atomic(durable=True):
        current = Killmail.objects.select_for_update().get(pk=killmail_id)
        if current.values_by == ValuesBy.ZKILLBOARD:  # its own word has come meanwhile
            return False
        if all(getattr(current, name) == value for name, value in columns.items()):
            return False
        Killmail.objects.filter(pk=killmail_id).update(**columns)
        position = events.append(events.UPDATED, killmail_id)
    doorbell.ring(position)
    return True


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
    Attacker.objects.bulk_create(attackers_of(record), ATTACKERS_AT_ONCE)
    KillmailPackage(killmail_id=record.killmail_id, deflated=KillmailPackage.deflate(record.raw)).save(
        force_insert=True
    )


def _replace(record: KillmailRecord, columns: dict[str, object]) -> Stored:
    """Takes over a newer package of a killmail that is stored: an upload again, or a repost under a new number."""
    current = Killmail.objects.select_for_update().get(pk=record.killmail_id)
    older = (record.uploaded_at or 0, record.sequence or 0) < (current.uploaded_at or 0, current.sequence or 0)
    if older or current.package.raw() == record.raw:
        return Stored.KNOWN
    same = all(getattr(current, name) == value for name, value in columns.items() if name not in NO_NEWS)
    same = same and current.package.esi() == json.loads(record.raw)["esi"]
    Killmail.objects.filter(pk=record.killmail_id).update(**columns)
    Attacker.objects.filter(killmail_id=record.killmail_id).delete()
    KillmailPackage.objects.filter(killmail_id=record.killmail_id).delete()
    _insert_parts(record)
    return Stored.KNOWN if same else Stored.UPDATED


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
