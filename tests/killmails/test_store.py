"""Storing killmails: every field, once, the newest package, whatever order and how many at once."""

import random
import threading
from datetime import UTC, datetime

import pytest
from django.db import connection

from killmails import events
from killmails.errors import Outrun
from killmails.ingest.store import Stored, store_killmail
from killmails.models import Alliance, Attacker, Character, InventoryType, Killmail, KillmailEvent, SolarSystem
from killmails.records import KillmailRecord, parse_package
from tests.builders import NOW, attacker, counts, dump, esi_body, package, raw_package, zkb_block

pytestmark = pytest.mark.django_db


def record(sequence: int, esi: dict | None = None, **changes: object) -> KillmailRecord:
    return parse_package(raw_package(sequence, esi, **changes), sequence, NOW)


def log() -> list[tuple]:
    return list(KillmailEvent.objects.order_by("position").values_list("position", "kind", "killmail_id"))


def test_killmail_is_stored_with_everything_that_it_names():
    assert store_killmail(record(5)) is Stored.ADDED
    killmail = Killmail.objects.get()
    columns = {field.attname: getattr(killmail, field.attname) for field in Killmail._meta.concrete_fields}
    assert columns | {"stored_at": None} == {
        "id": 1005, "hash": package(5)["hash"], "time": datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC),
        "solar_system_id": 30000142, "constellation_id": None, "region_id": None, "security_band": None,
        "war_id": 700001, "moon_id": 40009082, "victim_character_id": 2100000001,
        "victim_corporation_id": 98000001, "victim_alliance_id": 99000001, "victim_faction_id": 500001,
        "victim_ship_type_id": 587, "damage_taken": 1234, "position_x": -1.5e11, "position_y": 2.25e10,
        "position_z": 3.0, "attacker_count": 2, "location_id": 40009082, "fitted_value": killmail.fitted_value,
        "dropped_value": 5, "destroyed_value": killmail.destroyed_value, "total_value": killmail.total_value,
        "points": 7, "is_npc": False, "is_solo": False, "is_awox": True,
        "labels": ["tz:au", "cat:6", "#:2+", "pvp"], "values_by": "ZKILLBOARD",
        "sequence": 5, "uploaded_at": 1_790_000_005, "stored_at": None,
    }  # fmt: skip
    assert [str(value) for value in (killmail.fitted_value, killmail.destroyed_value, killmail.total_value)] == [
        "1000000.25", "2000000.50", "2000005.50",
    ]  # fmt: skip
    assert counts() == {
        "Killmail": 1, "Attacker": 2, "KillmailPackage": 1, "KillmailEvent": 1, "Alliance": 2, "Character": 3,
        "Corporation": 2, "Faction": 2, "InventoryType": 6, "SolarSystem": 1, "position": 1,
    }  # fmt: skip
    assert set(InventoryType.objects.values_list("id", flat=True)) == {587, 603, 3178, 2048, 3465, 34}
    assert killmail.package.raw() == raw_package(5)
    assert killmail.package.esi() == esi_body(1005)


def test_names_that_are_known_stay():
    Character.objects.create(id=2100000001, name="Somebody")
    SolarSystem.objects.create(id=30000142, name="Jita", security_status=0.9)
    store_killmail(record(5))
    assert Character.objects.get(id=2100000001).name == "Somebody"
    assert SolarSystem.objects.get().security_status == 0.9
    assert Alliance.objects.get(id=99000001).name is None


def test_same_killmail_twice_is_stored_once():
    assert store_killmail(record(5)) is Stored.ADDED
    before = dump()
    assert store_killmail(record(5)) is Stored.KNOWN
    assert dump() == before
    assert log() == [(1, "ADDED", 1005)]


def test_newer_package_replaces_the_older_with_an_event():
    store_killmail(record(5))
    fewer = esi_body(1005, attackers=[attacker(final_blow=True)])
    assert store_killmail(record(9, fewer, zkb=zkb_block(points=8))) is Stored.UPDATED
    killmail = Killmail.objects.get()
    assert (killmail.points, killmail.sequence, killmail.attacker_count, Attacker.objects.count()) == (8, 9, 1, 1)
    assert killmail.package.esi() == fewer
    assert log() == [(1, "ADDED", 1005), (2, "UPDATED", 1005)]


@pytest.mark.parametrize("path", ["war", "attacker", "unknown", "label", "value"])
def test_any_difference_of_a_newer_package_is_an_event(path):
    store_killmail(record(5))
    esi = esi_body(1005)
    zkb = zkb_block()
    if path == "war":
        esi["war_id"] = 8
    elif path == "attacker":
        esi["attackers"][1]["weapon_type_id"] = 8
    elif path == "unknown":
        esi["victim"]["mood"] = "bad"
    elif path == "label":
        zkb["labels"].append("ganked")
    else:
        zkb["totalValue"] += 0.01
    assert store_killmail(record(6, esi, zkb=zkb)) is Stored.UPDATED


def test_newer_package_without_a_difference_is_no_event():
    store_killmail(record(5))
    assert store_killmail(record(6, esi_body(1005))) is Stored.KNOWN
    assert Killmail.objects.get().sequence == 6
    assert log() == [(1, "ADDED", 1005)]


def test_package_uploaded_again_within_the_same_second_replaces_the_older():
    store_killmail(record(5))
    assert store_killmail(record(5, zkb=zkb_block(points=77))) is Stored.UPDATED
    assert Killmail.objects.get().points == 77


def test_older_package_after_a_newer_changes_nothing():
    store_killmail(record(6, esi_body(1005), zkb=zkb_block(points=9)))
    before = dump()
    assert store_killmail(record(5)) is Stored.KNOWN
    assert dump() == before


def test_what_the_claim_raises_undoes_everything():
    def claim() -> None:
        raise Outrun("another worker was faster")

    with pytest.raises(Outrun):
        store_killmail(record(5), claim)
    assert counts() == {}
    assert store_killmail(record(6)) is Stored.ADDED
    assert log() == [(1, "ADDED", 1006)]


def test_error_after_the_position_was_taken_leaves_no_hole(monkeypatch):
    store_killmail(record(5))
    before = dump()
    append = events.append

    def broken(kind: str, killmail_id: int) -> int:
        append(kind, killmail_id)
        raise ZeroDivisionError

    monkeypatch.setattr(events, "append", broken)
    with pytest.raises(ZeroDivisionError):
        store_killmail(record(6))
    monkeypatch.undo()
    assert dump() == before
    store_killmail(record(7))
    assert log() == [(1, "ADDED", 1005), (2, "ADDED", 1007)]


# Many at once


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_eight_workers_with_the_same_killmails_in_any_order_store_each_once():
    """Crowded killmails that share everybody: workers that took locks crosswise would block each other."""
    crowd = list(range(2_100_000_000, 2_100_000_060))
    wanted = {1000 + sequence for sequence in range(40)}
    chance = random.Random(8)
    fleets = {n: [attacker(character_id=i, final_blow=i == n) for i in chance.sample(crowd, 60)] for n in range(40)}
    records = [record(n, esi_body(1000 + n, attackers=fleets[n])) for n in range(40)]
    results: list[Stored | Exception] = []

    def work(seed: int) -> None:
        mine = random.Random(seed).sample(records, len(records))
        try:
            results.extend(store_killmail(each) for each in mine)
        except Exception as error:  # noqa: BLE001 - the assertion below shows it
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(results) == [Stored.ADDED] * 40 + [Stored.KNOWN] * 280
    assert [position for position, _, _ in log()] == list(range(1, 41))
    assert {killmail_id for _, _, killmail_id in log()} == wanted
    assert Attacker.objects.count() == 40 * 60
