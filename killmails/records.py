"""Parsing: bytes of zKillboard's feed to frozen records. Pure: no clock, no network, no database."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from killmails.errors import Reason, Unacceptable, Unreadable
from killmails.fields import Fields, bad_field
from killmails.strict_json import BadJson, read_json

# Made by hand by CCP's staff: their hash is this text, and one of them has no final blow.
# Source: https://github.com/zKillboard/zKillboard/blob/master/public/json_killmails/about.txt
CCP_VERIFIED = {107220741, 108794056}
CCP_VERIFIED_HASH = "CCP VERIFIED"

MAX_INT32 = 2**31 - 1  # what GraphQL's Int holds
FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
HASH = re.compile(r"[0-9a-f]{40}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class AttackerRecord:
    """One attacker as ESI gives them; ids that ESI left out are None."""

    character_id: int | None
    corporation_id: int | None
    alliance_id: int | None
    faction_id: int | None
    ship_type_id: int | None
    weapon_type_id: int | None
    damage_done: int
    final_blow: bool
    security_status: float


@dataclass(frozen=True, slots=True)
class VictimRecord:
    """The victim as ESI gives it; `position` in metres from the system's centre, None before November 2015."""

    character_id: int | None
    corporation_id: int | None
    alliance_id: int | None
    faction_id: int | None
    ship_type_id: int
    damage_taken: int
    position: tuple[float, float, float] | None
    item_type_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class ZkbRecord:
    """zKillboard's block. Values in ISK."""

    location_id: int | None
    fitted_value: Decimal | None
    dropped_value: Decimal | None
    destroyed_value: Decimal | None
    total_value: Decimal | None
    points: int | None
    is_npc: bool | None
    is_solo: bool | None
    is_awox: bool | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KillmailRecord:
    """A package that was accepted; `raw` is what it was read from."""

    killmail_id: int
    killmail_hash: str
    time: datetime
    solar_system_id: int
    war_id: int | None
    moon_id: int | None
    victim: VictimRecord
    attackers: tuple[AttackerRecord, ...]
    zkb: ZkbRecord
    sequence: int | None  # None, as the next: fetched from ESI
    uploaded_at: int | None
    sequence_updated: int | None
    raw: bytes


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A package without a killmail: a number that zKillboard gave out and then had nothing for."""

    sequence: int


def killmail_hash(
    victim_character_id: int | None,
    final_blow_character_id: int | None,
    victim_ship_type_id: int,
    killmail_time: datetime,
) -> str:
    """CCP's hash of a killmail: 40 hex digits.

    SHA-1 of the two characters (or "None"), the ship type and the time as Windows FILETIME (100 ns since 1601).
    Equal for all of 83,252 real pairs of the years 2008 to 2026.
    """
    ticks = (killmail_time - FILETIME_EPOCH) // timedelta(microseconds=1) * 10
    text = f"{victim_character_id}{final_blow_character_id}{victim_ship_type_id}{ticks}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def package_of(body: bytes, killmail_id: int, hash_: str) -> bytes:
    """What ESI answered, untouched, in a package of the feed's shape; without what zKillboard adds."""
    return b'{"killmail_id":%d,"hash":%s,"esi":%s}' % (killmail_id, json.dumps(hash_).encode(), body.strip())


def parse_fetched(package: bytes, now: datetime) -> KillmailRecord:
    """The record of a killmail that ESI was asked for. Raises as `parse_package`."""
    record = parse_package(package, None, now)
    assert isinstance(record, KillmailRecord)  # placeholders are the feed's
    return record


def parse_package(raw: bytes, sequence: int | None, now: datetime) -> KillmailRecord | Placeholder:
    """The record of the package that was served under `sequence`.

    Raises Unreadable (damaged, ask again) or Unacceptable (wrong), each with `raw` in it.
    A killmail_time more than 24 h after `now` is refused; keys that we do not know are kept in `raw`.
    """
    package = None
    try:
        package = Fields(_json(raw), "")
        return _package(package, raw, sequence, now)
    except Unacceptable as error:
        error.raw = raw
        error.killmail_id = _killmail_id(package) if package else None
        raise


def _killmail_id(package: Fields) -> int | None:
    """For the quarantine's list, where it can be read."""
    try:
        return package.id_or_none("killmail_id")
    except Unacceptable:
        return None


def _json(raw: bytes) -> Any:
    if raw.lstrip()[:1] != b"{":
        what = "HTML" if raw.lstrip()[:1] == b"<" else "no JSON object" if raw.strip() else "empty"
        raise Unreadable(Reason.NOT_JSON, f"the body is {what}: {raw[:60]!r}")
    try:
        return read_json(raw)
    except BadJson as error:
        raise Unreadable(Reason.BAD_JSON, str(error)) from error


def _package(package: Fields, raw: bytes, sequence: int | None, now: datetime) -> KillmailRecord | Placeholder:
    if sequence is not None and package.integer("sequence_id") != sequence:
        detail = f"sequence_id: is {package.integer('sequence_id')}, but the file is number {sequence}"
        raise Unacceptable(Reason.BAD_FIELD, detail)
    # Uploaded until 2026-03-20 for a number whose killmail had gone; now such a number is a 404.
    if sequence is not None and not package.has("killmail_id") and not package.has("hash"):
        return Placeholder(sequence)
    killmail_id, hash_ = package.id("killmail_id"), package.text("hash")
    if not HASH.fullmatch(hash_) and not (killmail_id in CCP_VERIFIED and hash_ == CCP_VERIFIED_HASH):
        raise bad_field("hash", "40 hex digits in lower case", hash_)
    esi = package.object("esi")
    if esi.id("killmail_id") != killmail_id:
        raise Unacceptable(Reason.HASH_MISMATCH, f"esi.killmail_id: is not {killmail_id}, the package's killmail_id")
    record = KillmailRecord(
        killmail_id=killmail_id,
        killmail_hash=hash_,
        time=_time(esi, now),
        solar_system_id=esi.id("solar_system_id"),
        war_id=esi.id_or_none("war_id"),
        moon_id=esi.id_or_none("moon_id"),
        victim=_victim(esi.object("victim")),
        attackers=tuple(_attacker(attacker) for attacker in esi.objects("attackers")),
        zkb=_zkb(package.object("zkb")) if package.has("zkb") else _zkb(Fields({}, "zkb")),
        sequence=sequence,
        uploaded_at=None if sequence is None else package.integer("uploaded_at"),
        sequence_updated=_sequence_updated(package),
        raw=raw,
    )
    _check_hash(record)
    return record


def _sequence_updated(package: Fields) -> int | None:
    """A hint, no part of the killmail: nonsense there (F19) must not cost us the package; -1 stands for it."""
    if not package.has("sequence_updated"):
        return None
    value = package.value("sequence_updated")
    return value if type(value) is int and value > 0 else -1


def _time(esi: Fields, now: datetime) -> datetime:
    text = esi.text("killmail_time")
    try:
        time = datetime.fromisoformat(text) if TIME.fullmatch(text) else None
    except ValueError:
        time = None
    if time is None:
        raise bad_field(esi.at("killmail_time"), "a time like 2026-11-23T12:00:00Z", text)
    if time > now + timedelta(hours=24):
        raise Unacceptable(Reason.BAD_FIELD, f"{esi.at('killmail_time')}: {text} is in the future")
    return time


def _victim(victim: Fields) -> VictimRecord:
    position = victim.object("position") if victim.has("position") else None
    return VictimRecord(
        character_id=victim.id_or_none("character_id"),
        corporation_id=victim.id_or_none("corporation_id"),
        alliance_id=victim.id_or_none("alliance_id"),
        faction_id=victim.id_or_none("faction_id"),
        ship_type_id=victim.id("ship_type_id"),
        damage_taken=victim.integer("damage_taken"),
        position=(position.real("x"), position.real("y"), position.real("z")) if position else None,
        item_type_ids=frozenset(_item_type_ids(victim)),
    )


def _item_type_ids(holder: Fields) -> list[int]:
    """The types of all items, nested ones too; checks every item on the way. There may be none at all."""
    if not holder.has("items"):
        return []
    type_ids = []
    for item in holder.objects("items"):
        type_ids.append(item.id("item_type_id"))
        item.integer("flag", most=MAX_INT32)
        item.integer("singleton", most=MAX_INT32)
        for quantity in ("quantity_dropped", "quantity_destroyed"):
            if item.has(quantity):
                item.integer(quantity)
        type_ids += _item_type_ids(item)
    return type_ids


def _attacker(attacker: Fields) -> AttackerRecord:
    return AttackerRecord(
        character_id=attacker.id_or_none("character_id"),
        corporation_id=attacker.id_or_none("corporation_id"),
        alliance_id=attacker.id_or_none("alliance_id"),
        faction_id=attacker.id_or_none("faction_id"),
        ship_type_id=attacker.id_or_none("ship_type_id"),
        weapon_type_id=attacker.id_or_none("weapon_type_id"),
        damage_done=attacker.integer("damage_done"),
        final_blow=attacker.boolean("final_blow"),
        security_status=attacker.real("security_status"),
    )


def _zkb(zkb: Fields) -> ZkbRecord:
    def flag(key: str) -> bool | None:
        return zkb.boolean(key) if zkb.has(key) else None

    labels = zkb.value("labels") if zkb.has("labels") else []
    if type(labels) is not list or not all(type(label) is str for label in labels):
        raise bad_field(zkb.at("labels"), "a list of texts", labels)
    return ZkbRecord(
        location_id=zkb.id_or_none("locationID"),
        fitted_value=zkb.isk("fittedValue"),
        dropped_value=zkb.isk("droppedValue"),
        destroyed_value=zkb.isk("destroyedValue"),
        total_value=zkb.isk("totalValue"),
        points=zkb.integer("points", most=MAX_INT32) if zkb.has("points") else None,
        is_npc=flag("npc"),
        is_solo=flag("solo"),
        is_awox=flag("awox"),
        # No database takes NUL or a lone surrogate in a text; `raw` keeps them.
        labels=tuple(UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", label) for label in labels),
    )


def _check_hash(record: KillmailRecord) -> None:
    if record.killmail_id in CCP_VERIFIED:
        return
    final_blow = next((attacker for attacker in record.attackers if attacker.final_blow), None)
    expected = killmail_hash(
        record.victim.character_id,
        final_blow.character_id if final_blow else None,
        record.victim.ship_type_id,
        record.time,
    )
    if record.killmail_hash != expected:
        raise Unacceptable(Reason.HASH_MISMATCH, f"hash: is {record.killmail_hash}, the body's is {expected}")
