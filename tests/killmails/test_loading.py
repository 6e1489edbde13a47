"""Loading killmails for readers: the number of queries does not grow with the killmails."""

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from killmails.ingest.store import store_killmail
from killmails.loading import ATTACKER_ROWS, Item, StaticRows, entities, load
from killmails.models import (
    Alliance,
    Attacker,
    Character,
    Constellation,
    Corporation,
    InventoryCategory,
    InventoryGroup,
    InventoryType,
    Killmail,
    MarketGroup,
    Region,
    SolarSystem,
)
from killmails.recording.tape import load_recording
from killmails.records import parse_package
from killmails.universe.small import load_small_universe
from tests.builders import NOW, attacker, esi_body, raw_package

pytestmark = pytest.mark.django_db

ENTITIES = ("character", "corporation", "alliance", "faction")
ALL_FIELDS = frozenset(
    {"victim", "attackers", "finalBlow", "items", "solarSystem", "shipType", "weaponType", *ENTITIES}
)


@pytest.fixture(autouse=True)
def killmails():
    InventoryCategory.objects.create(pk=6, name="Ship")
    InventoryGroup.objects.create(pk=25, name="Frigate", category_id=6)
    InventoryType.objects.create(pk=587, name="Rifter", group_id=25)
    InventoryType.objects.create(pk=2048, name="Damage Control II")
    for sequence in range(1, 26):
        store_killmail(parse_package(raw_package(sequence), sequence, NOW))


def store(sequence, **changes):
    store_killmail(parse_package(raw_package(sequence, esi_body(1000 + sequence, **changes)), sequence, NOW))


def load_one(fields, pk=1001, static=None):
    (killmail,) = load(Killmail.objects.filter(pk=pk), fields, static)
    return killmail


def read_everything(loaded: list[Killmail], fields: set[str]) -> None:
    for killmail in loaded:
        assert killmail.victim_ship_type.group.category.name == "Ship"
        if "solarSystem" in fields:
            assert killmail.solar_system.constellation is None
        if "victim" in fields:
            assert all(getattr(killmail, f"victim_{name}").pk for name in ENTITIES)
        if fields & {"attackers", "finalBlow"}:
            assert killmail.final_blow.character.pk
        for each in killmail.attackers.all() if "attackers" in fields else ():
            assert (each.corporation.pk, each.ship_type.group, each.weapon_type.pk) == (98000002, None, 3178)
        if "items" in fields:
            assert [item.item_type.name for item in killmail.loaded_items] == ["Damage Control II", None]


@pytest.mark.parametrize(
    ("fields", "queries"),
    [
        ((), 2),
        (("time", "solarSystem", "victim", *ENTITIES), 2),
        (("attackers", "corporation", "character", "weaponType"), 3),
        (("finalBlow", "character"), 3),
        (("items",), 3),
        (ALL_FIELDS, 4),
    ],
)
def test_one_killmail_costs_as_many_queries_as_twenty_five(fields, queries):
    for count in (1, 25):
        with CaptureQueriesContext(connection) as captured:
            loaded = load(Killmail.objects.order_by("pk")[:count], fields)
            read_everything(loaded, set(fields))
        assert [killmail.pk for killmail in loaded] == list(range(1001, 1001 + count))
        assert len(captured) == queries


def shown(entity):
    """An entity with all that it belongs to."""
    if entity is None:
        return None
    own = {field.attname: getattr(entity, field.attname) for field in entity._meta.concrete_fields}
    keys = [field.name for field in entity._meta.concrete_fields if field.is_relation]
    return type(entity), own, {key: shown(getattr(entity, key)) for key in keys}


def test_every_row_is_the_one_that_django_finds():
    for sequence, record in enumerate(load_recording()[:40], start=100):
        raw = raw_package(sequence, record["esi"], hash=record["hash"], zkb=record["zkb"])
        store_killmail(parse_package(raw, sequence, NOW))
    load_small_universe(invented=True)
    Alliance.objects.bulk_create(Alliance(one.pk, f"of {one.pk}") for one in Corporation.objects.all())
    Corporation.objects.update(alliance_id=F("pk"))
    with CaptureQueriesContext(connection) as captured:
        loaded = load(Killmail.objects.order_by("pk"), ALL_FIELDS | {"currentCorporation", "currentAlliance"})
        rows = [(killmail, *killmail.attackers.all()) for killmail in loaded]
        keys = ["solar_system", "victim_ship_type", *(f"victim_{name}" for name in ENTITIES)]
        ours = [shown(getattr(killmail, key)) for killmail, *_ in rows for key in keys]
        keys_of_attackers = [*ENTITIES, "ship_type", "weapon_type"]
        ours += [shown(getattr(each, key)) for _, *attackers in rows for each in attackers for key in keys_of_attackers]
    assert len(captured) == 6
    joined = ("solar_system__constellation__region", "victim_ship_type__group__category")
    found = Killmail.objects.order_by("pk").select_related(*joined)
    djangos = [shown(getattr(killmail, key)) for killmail in found for key in keys]
    attackers = Attacker.objects.with_names().order_by("killmail_id", "ordinal")
    djangos += [shown(getattr(each, key)) for each in attackers for key in keys_of_attackers]
    assert len(found) == 65
    assert ours == djangos


def test_what_several_killmails_name_is_one_object():
    Region.objects.create(pk=10000002, name="The Forge")
    Constellation.objects.create(pk=20000020, name="Kimotoro", region_id=10000002)
    SolarSystem.objects.update(constellation_id=20000020)
    store(30, solar_system_id=30000144)
    SolarSystem.objects.filter(pk=30000144).update(constellation_id=20000020)
    first, second, *_, other = load(Killmail.objects.order_by("pk"), ALL_FIELDS)
    assert first.solar_system is second.solar_system
    assert first.victim_character is second.victim_character
    assert first.victim_ship_type is second.victim_ship_type
    assert first.final_blow.corporation is second.final_blow.corporation
    assert first.loaded_items[0].item_type is second.loaded_items[0].item_type
    assert other.solar_system is not first.solar_system
    assert other.solar_system.constellation is first.solar_system.constellation
    assert other.solar_system.constellation.region.name == "The Forge"


def test_final_blow_alone_leaves_the_other_attackers_to_be_asked_for():
    killmail = load_one(["finalBlow"])
    with CaptureQueriesContext(connection) as captured:
        assert killmail.final_blow.ordinal == 0
    assert len(captured) == 0
    assert [each.ordinal for each in killmail.attackers.all()] == [0, 1]


@pytest.mark.parametrize("fields", [["finalBlow"], ["finalBlow", "attackers"], ["finalBlow", ATTACKER_ROWS]])
def test_first_of_several_final_blows_counts_and_none_is_none(fields):
    store(30, attackers=[attacker(), attacker(final_blow=True), attacker(final_blow=True)])
    store(31, attackers=[attacker()])
    assert load_one(fields, 1030).final_blow.ordinal == 1
    assert load_one(fields, 1031).final_blow is None


def test_rows_of_attackers_come_with_ships_and_only_the_final_blow_with_names():
    killmail = load_one([ATTACKER_ROWS, "finalBlow", "character"])
    with CaptureQueriesContext(connection) as captured:
        final, other = killmail.attackers.all()
        assert [each.ship_type.group_id for each in (final, other)] == [None, None]
        assert killmail.final_blow is final
        assert final.character.pk == 2100000002
    assert len(captured) == 0
    assert Attacker.character.is_cached(other) is False


def test_items_come_in_esis_order_with_what_is_in_them():
    (killmail,) = load(Killmail.objects.filter(pk=1001), ["items"])
    first, second = killmail.loaded_items
    assert first == Item(InventoryType(pk=2048), 11, None, 1, 0, [])
    inside = Item(InventoryType(pk=34), 0, 5_000_000_000, None, 0, [])
    assert second == Item(InventoryType(pk=3465), 5, 1, None, 0, [inside])


def test_killmail_without_items_has_none():
    esi = esi_body(2001)
    del esi["victim"]["items"]
    store_killmail(parse_package(raw_package(30, esi), 30, NOW))
    (killmail,) = load(Killmail.objects.filter(pk=2001), ["items"])
    assert killmail.loaded_items == []


def test_type_that_nobody_knows_is_loaded_by_its_id():
    InventoryType.objects.filter(pk=34).delete()
    (killmail,) = load(Killmail.objects.filter(pk=1001), ["items"])
    assert killmail.loaded_items[1].items[0].item_type.pk == 34


def test_nothing_costs_next_to_nothing():
    with CaptureQueriesContext(connection) as captured:
        assert load(Killmail.objects.none(), ALL_FIELDS) == []
    assert len(captured) <= 1


def test_entity_that_nobody_knows_is_loaded_by_its_id():
    Character.objects.all().delete()
    SolarSystem.objects.all().delete()
    killmail = load_one(ALL_FIELDS)
    assert (killmail.solar_system.pk, killmail.solar_system.name) == (30000142, None)
    assert (killmail.victim_character.pk, killmail.victim_character.name) == (2100000001, None)


def details(killmail):
    ship = killmail.victim_ship_type
    return ship.market_group and ship.market_group.name, ship.rig_size, ship.meta_level, ship.has_heat_damage


def test_details_of_types_are_read_each_time_and_only_where_they_are_asked_for():
    MarketGroup.objects.create(pk=64, name="Minmatar")
    static, fields = StaticRows(), ["victim", "items", "marketGroup", "rigSize"]
    assert details(load_one(fields, static=static)) == (None, None, None, None)
    InventoryType.objects.filter(pk=587).update(market_group_id=64, rig_size=1, meta_level=0, has_heat_damage=False)
    InventoryType.objects.filter(pk=2048).update(market_group_id=65)
    with CaptureQueriesContext(connection) as captured:
        known = load_one(fields, static=static)
        assert details(known) == ("Minmatar", 1, 0, False)
        assert known.victim_ship_type.has_heat_damage is False
        # The market group of a type that only ESI knows has no row.
        group = known.loaded_items[0].item_type.market_group
        assert (group.pk, group.name) == (65, None)
    assert len(captured) == 4
    with CaptureQueriesContext(connection) as captured:
        load_one(["victim", "items"], static=static)
    assert len(captured) == 3


# Static rows


def ship(killmail):
    ship = killmail.victim_ship_type
    return ship.name, ship.group and ship.group.name, ship.group and ship.group.category.name


def rename():
    for model in (InventoryType, InventoryGroup, InventoryCategory, Character):
        model.objects.filter(name__isnull=False).update(name="Other")
    Character.objects.update(name="Other")


def test_static_rows_are_read_once_and_others_each_time():
    static = StaticRows()
    first = load_one(["victim", "character"], static=static)
    assert ship(first) == ("Rifter", "Frigate", "Ship")
    rename()
    with CaptureQueriesContext(connection) as captured:
        second = load_one(["victim", "character"], pk=1002, static=static)
    assert len(captured) == 2
    assert second.victim_ship_type is first.victim_ship_type
    assert (first.victim_character.name, second.victim_character.name) == (None, "Other")
    assert ship(load_one(["victim"])) == ("Other", "Other", "Other")


def test_static_rows_are_read_again_after_a_while(monkeypatch):
    monkeypatch.setattr(entities, "STATIC_SECONDS", 0.0)
    static = StaticRows()
    load_one(["victim"], static=static)
    rename()
    assert ship(load_one(["victim"], static=static)) == ("Other", "Other", "Other")


@pytest.mark.parametrize(
    ("model", "column"),
    [
        *[(InventoryType, "name"), (InventoryGroup, "name"), (InventoryCategory, "name")],
        *[(InventoryType, "group"), (InventoryGroup, "category")],
    ],
)
def test_static_row_that_is_not_known_in_full_is_read_each_time(model, column):
    value = model.objects.filter(name__isnull=False).values_list(column, flat=True).first()
    model.objects.update(**{column: None})
    static = StaticRows()
    load_one(["victim"], static=static)
    model.objects.update(**{column: value})
    assert ship(load_one(["victim"], static=static)) == ("Rifter", "Frigate", "Ship")
