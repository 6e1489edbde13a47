"""The place beside a killmail: from the static data when it is stored, later where it was not known then."""

import importlib
import os

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import CaptureQueriesContext

from killmails.ingest.store import Stored, store_killmail
from killmails.models import Constellation, Killmail, KillmailEvent, Region, SolarSystem
from killmails.models.places import Place, fill_places, read_places
from killmails.records import parse_package
from killmails.universe.small import load_small_universe
from tests.builders import NOW, esi_body, raw_package

pytestmark = pytest.mark.django_db

LONG = os.environ.get("LONG") == "1"


def store(sequence, **changes):
    return store_killmail(parse_package(raw_package(sequence, esi_body(1005, **changes)), sequence, NOW))


def place():
    return Killmail.objects.values_list("constellation_id", "region_id", "security_band").get()


def make_map(region=10000002, security=0.9459, system=30000142):
    Region.objects.create(id=region)
    Constellation.objects.create(id=20000020, region_id=region)
    SolarSystem.objects.create(id=system, constellation_id=20000020, security_status=security)


@pytest.mark.parametrize(
    ("security", "band"),
    [
        *((1.0, "HIGH"), (0.5, "HIGH"), (0.45, "HIGH"), (0.4499999, "LOW"), (0.1, "LOW"), (0.0000001, "LOW")),
        *((0.0, "NULL"), (-0.0000001, "NULL"), (-1.0, "NULL"), (None, None)),
    ],
)
def test_band_is_that_of_the_rounded_security(security, band):
    make_map(security=security)
    assert read_places([30000142]) == [Place(30000142, 20000020, 10000002, band)]


@pytest.mark.parametrize(
    ("system", "region", "band"),
    [
        *((31000000, 11000001, "WORMHOLE"), (31999999, 11000001, "WORMHOLE"), (30999999, 11000001, "NULL")),
        *((32000000, 12000001, "ABYSSAL"), (32999999, 12000001, "ABYSSAL"), (33000000, 12000001, "NULL")),
        *((30000021, 10000070, "POCHVEN"), (31000005, 10000070, "WORMHOLE")),
    ],
)
def test_band_of_wormholes_the_abyss_and_pochven_is_their_own(system, region, band):
    make_map(region, -1.0, system)
    assert read_places([system])[0].security_band == band


def test_what_is_not_known_is_none_but_wormholes_and_the_abyss_are_known_by_their_ids():
    Constellation.objects.create(id=20000020)
    SolarSystem.objects.create(id=30000142, constellation_id=20000020, security_status=0.9)
    SolarSystem.objects.bulk_create(SolarSystem(id=id_) for id_ in (30000001, 31000001, 32000001))
    assert sorted(read_places([30000142, 30000001, 31000001, 32000001, 5])) == [
        (30000001, None, None, None),
        (30000142, 20000020, None, None),
        (31000001, None, None, "WORMHOLE"),
        (32000001, None, None, "ABYSSAL"),
    ]


def test_killmail_is_stored_with_its_place_in_one_more_query():
    make_map()
    store(5)
    assert place() == (20000020, 10000002, "HIGH")
    with CaptureQueriesContext(connection) as queries:
        store(6, solar_system_id=30000143)
    asked = [each["sql"] for each in queries.captured_queries if each["sql"].lstrip().startswith("SELECT system.id")]
    assert len(asked) == 1
    assert place() == (None, None, None)


def test_place_that_became_known_is_no_event():
    store(5)
    Region.objects.create(id=10000002)
    Constellation.objects.create(id=20000020, region_id=10000002)
    SolarSystem.objects.filter(pk=30000142).update(constellation_id=20000020, security_status=0.9459)
    assert store(6) is Stored.KNOWN
    assert place() == (20000020, 10000002, "HIGH")
    assert KillmailEvent.objects.count() == 1


def test_loading_the_universe_fills_the_places_of_stored_killmails_once():
    store(5)
    assert place() == (None, None, None)
    load_small_universe(invented=False)
    assert place() == (20000020, 10000002, "HIGH")
    assert fill_places() == 0


def test_places_that_are_still_unknown_stay_and_those_that_are_known_stay():
    store(5)
    assert fill_places() == 0
    Killmail.objects.update(constellation=1, region=2, security_band="LOW")
    load_small_universe(invented=False)
    assert place() == (1, 2, "LOW")


def migrate(*targets):
    """The models as they are then."""
    MigrationExecutor(connection).migrate(list(targets))
    return MigrationExecutor(connection).loader.project_state(list(targets)).apps.get_model


def indexes():
    with connection.cursor() as cursor:
        return {
            name
            for table in ("killmails_killmail", "killmails_attacker")
            for name, found in connection.introspection.get_constraints(cursor, table).items()
            if found["index"]
        }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("part", [1, 2, 100] if LONG else [2])
def test_migrations_fill_the_places_of_killmails_that_are_there_and_can_be_interrupted_and_taken_back(
    monkeypatch, part
):
    monkeypatch.setattr(importlib.import_module("killmails.migrations.0004_fill_place"), "PART", part)
    latest, expected = MigrationExecutor(connection).loader.graph.leaf_nodes(), indexes()
    before = ("killmails", "0002_log_head")
    base = {"hash": "0" * 40, "time": NOW, "victim_ship_type_id": 587, "damage_taken": 1, "attacker_count": 1}
    try:
        model = migrate(before)
        model("killmails", "Constellation").objects.create(id=20000020, region_id=10000002)
        systems = model("killmails", "SolarSystem").objects
        systems.create(id=30000142, constellation_id=20000020, security_status=0.9459)
        for number, system in enumerate([30000142, 30000143, 30000142, 30000142], start=1):
            model("killmails", "Killmail").objects.create(id=number * 1000, solar_system_id=system, **base)
        # Interrupted after it had filled one, and after an index.
        model = migrate(("killmails", "0003_place"))
        model("killmails", "Killmail").objects.filter(pk=3000).update(constellation=1, region=2, security_band="LOW")
        migrate(("killmails", "0004_fill_place"))
        with connection.cursor() as cursor:
            cursor.execute("CREATE INDEX killmail_war ON killmails_killmail (war_id)")
        migrate(*latest)
        places = Killmail.objects.order_by("id").values_list("constellation_id", "region_id", "security_band")
        jita, unknown = (20000020, 10000002, "HIGH"), (None, None, None)
        assert list(places) == [jita, unknown, (1, 2, "LOW"), jita]
        assert indexes() == expected
        migrate(before)
        migrate(*latest)
        assert list(places.all()) == [jita, unknown, jita, jita]
        assert indexes() == expected
    finally:
        migrate(*latest)
