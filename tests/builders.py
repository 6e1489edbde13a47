"""Small builders: ESI bodies and feed packages with the right hash, real killmails, and dumps of what is stored."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from killmails.ingest.store import store_killmail
from killmails.models import (
    Alliance,
    Attacker,
    Character,
    Constellation,
    Corporation,
    Entity,
    Faction,
    FeedGap,
    InventoryGroup,
    InventoryType,
    Killmail,
    KillmailEvent,
    KillmailPackage,
    LogHead,
    Region,
    RejectedKillmail,
    SolarSystem,
)
from killmails.recording.server import killmail_hash, load_recording
from killmails.recording.tape import php_json
from killmails.records import parse_package
from killmails.universe.small import load_small_universe

ROOT = Path(__file__).resolve().parents[1]
REAL_KILLMAILS = ROOT.parent / "shared/data/killmails.jsonl"
STATIC_DATA = ROOT.parent / "shared/data/sde"
UPLOADED_AT = 1_790_000_000
NOW = datetime(2027, 1, 1, tzinfo=UTC)
KILLMAIL_TABLES = [
    Killmail, Attacker, KillmailPackage, KillmailEvent,
    Alliance, Character, Corporation, Faction, InventoryType, SolarSystem,
]  # fmt: skip
NO_TIMESTAMPS = {"stored_at", "created_at"}


def esi_body(killmail_id: int, **changes: Any) -> dict[str, Any]:
    """An ESI body with two attackers, a nested item, and nothing left out that ESI may give."""
    return {
        "killmail_id": killmail_id,
        "killmail_time": "2026-11-20T12:34:56Z",
        "solar_system_id": 30000142,
        "war_id": 700001,
        "moon_id": 40009082,
        "victim": {
            "character_id": 2100000001,
            "corporation_id": 98000001,
            "alliance_id": 99000001,
            "faction_id": 500001,
            "ship_type_id": 587,
            "damage_taken": 1234,
            "position": {"x": -1.5e11, "y": 2.25e10, "z": 3},
            "items": [
                {"item_type_id": 2048, "flag": 11, "singleton": 0, "quantity_destroyed": 1},
                {
                    "item_type_id": 3465, "flag": 5, "singleton": 0, "quantity_dropped": 1,
                    "items": [{"item_type_id": 34, "flag": 0, "singleton": 0, "quantity_dropped": 5000000000}],
                },
            ],
        },
        "attackers": [attacker(final_blow=True), attacker(character_id=2100000003, damage_done=234)],
    } | changes  # fmt: skip


def attacker(**changes: Any) -> dict[str, Any]:
    return {
        "character_id": 2100000002,
        "corporation_id": 98000002,
        "alliance_id": 99000002,
        "faction_id": 500002,
        "ship_type_id": 603,
        "weapon_type_id": 3178,
        "damage_done": 1000,
        "final_blow": False,
        "security_status": -1.5,
    } | changes


def package(sequence: int, esi: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A package of the feed whose hash is that of its body; killmail 1,000 + `sequence` unless `esi` says another."""
    esi = esi_body(1000 + sequence) if esi is None else esi
    return {
        "killmail_id": esi["killmail_id"],
        "hash": killmail_hash(esi),
        "esi": esi,
        "zkb": zkb_block(),
        "uploaded_at": UPLOADED_AT + sequence,
        "sequence_id": sequence,
    } | changes


def zkb_block(**changes: Any) -> dict[str, Any]:
    return {
        "locationID": 40009082,
        "fittedValue": 1000000.25,
        "droppedValue": 5,
        "destroyedValue": 2000000.5,
        "totalValue": 2000005.5,
        "points": 7,
        "npc": False,
        "solo": False,
        "awox": True,
        "labels": ["tz:au", "cat:6", "#:2+", "pvp"],
    } | changes


def raw_package(sequence: int, esi: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return php_json(package(sequence, esi, **changes))


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def real_killmails() -> list[dict[str, Any]]:
    """`{"killmail_id", "hash", "esi", "zkb"}` each: the collection beside this checkout where there is one, else the
    shipped recording.
    """
    if not REAL_KILLMAILS.exists():
        return load_recording()
    return [json.loads(line) for line in REAL_KILLMAILS.read_text().splitlines()]


def some_real_killmails() -> list[dict[str, Any]]:
    """Each third of them, for tests that take their time with each; all of them with `--long`."""
    return real_killmails()[:: 1 if os.environ.get("LONG") == "1" else 3]


def store_killmails(killmails: list[dict[str, Any]]) -> None:
    """With most places and ship groups known; two of three that have no block of zKillboard's get an invented one."""
    load_small_universe(invented=True)
    if STATIC_DATA.exists():
        _load_static_data([killmail["esi"] for killmail in killmails])
    for sequence, killmail in enumerate(killmails, start=1):
        number = killmail["killmail_id"]
        zkb = killmail["zkb"] or (number % 3 and _invented_zkb(number)) or None
        raw = raw_package(sequence, killmail["esi"], hash=killmail["hash"], zkb=zkb)
        store_killmail(parse_package(raw, sequence, NOW))


def _invented_zkb(number: int) -> dict[str, Any]:
    """The same for the same number; now and then it lacks something."""
    value = number * 7919 % 10**6 * 1000.25
    labels = ["pvp" if number % 2 else "npc", f"cat:{number % 4 + 6}", f"tz:{'eu' if number % 5 else 'au'}"]
    zkb = zkb_block(totalValue=value, npc=number % 2 == 0, solo=number % 7 == 0, awox=number % 11 == 0, labels=labels)
    return without(without(zkb, "solo"), "labels") if number % 13 == 0 else zkb


def _load_static_data(bodies: list[dict[str, Any]]) -> None:
    """Where these were: four of five systems; what flew there: six of seven types. The others stay unknown."""
    places = {body["solar_system_id"] for body in bodies}
    ships = {one.get("ship_type_id") for body in bodies for one in (body["victim"], *body["attackers"])}
    systems = [
        row for row in static_rows("solar_systems") if row["solar_system_id"] in places and row["solar_system_id"] % 5
    ]
    types = [row for row in static_rows("types") if row["type_id"] in ships and row["type_id"] % 7]
    _insert(Region, systems, id="region_id", name="region_name")
    _insert(Constellation, systems, id="constellation_id", name="constellation_name", region_id="region_id")
    _insert(
        SolarSystem, systems, id="solar_system_id", constellation_id="constellation_id",
        security_status="security_status",
    )  # fmt: skip
    _insert(InventoryGroup, types, id="group_id")
    _insert(InventoryType, types, id="type_id", name="name", group_id="group_id")


def _insert(model: type[Entity], rows: list[dict[str, Any]], **columns: str) -> None:
    made = {row[columns["id"]]: model(**{name: row[column] for name, column in columns.items()}) for row in rows}
    model.objects.bulk_create(made.values(), ignore_conflicts=True)


def static_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (STATIC_DATA / f"{name}.jsonl").read_text().splitlines()]


def dump(ignore: set[str] | None = None) -> dict[str, list[Any]]:
    """All that is stored about killmails, in order, without times of storing."""
    left_out = NO_TIMESTAMPS | (ignore or set())
    tables = {}
    for model in KILLMAIL_TABLES:
        names = [field.attname for field in model._meta.concrete_fields if field.attname not in left_out]
        if model is Attacker:
            names.remove("id")
        rows = model.objects.values_list(*names)
        tables[model.__name__] = sorted(tuple(map(repr, map(_plain, row))) for row in rows)
    return tables


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def counts() -> dict[str, int]:
    """How many rows there are, of everything that the feed writes; tables without rows are left out."""
    everything = [*KILLMAIL_TABLES, FeedGap, RejectedKillmail]
    found = {model.__name__: model.objects.count() for model in everything}
    found["position"] = LogHead.objects.get(pk=1).position
    return {name: count for name, count in found.items() if count}
