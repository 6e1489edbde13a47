"""Loading killmails for readers: the number of queries does not grow with the killmails."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killmails.ingest.store import store_killmail
from killmails.loading import ALL_FIELDS, Item, load
from killmails.models import InventoryCategory, InventoryGroup, InventoryType, Killmail
from killmails.records import parse_package
from tests.builders import NOW, esi_body, raw_package

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def killmails():
    InventoryCategory.objects.create(pk=6, name="Ship")
    InventoryGroup.objects.create(pk=25, name="Frigate", category_id=6)
    InventoryType.objects.create(pk=587, name="Rifter", group_id=25)
    InventoryType.objects.create(pk=2048, name="Damage Control II")
    for sequence in range(1, 26):
        store_killmail(parse_package(raw_package(sequence), sequence, NOW))


def read_everything(loaded: list[Killmail], fields: set[str]) -> None:
    for killmail in loaded:
        assert killmail.solar_system.constellation is None
        assert killmail.victim_ship_type.group.category.name == "Ship"
        for name in ("character", "corporation", "alliance", "faction"):
            assert getattr(killmail, f"victim_{name}").pk
        if fields & {"attackers", "finalBlow"}:
            assert killmail.final_blow.character.pk
            for attacker in killmail.attackers.all():
                assert attacker.corporation.pk
                assert attacker.ship_type.group is None
                assert attacker.weapon_type.pk
        if "items" in fields:
            assert [item.item_type.name for item in killmail.loaded_items] == ["Damage Control II", None]


@pytest.mark.parametrize(
    ("fields", "queries"),
    [
        ((), 1),
        (("time", "victim"), 1),
        (("attackers",), 2),
        (("finalBlow",), 2),
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
