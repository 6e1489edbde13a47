"""Where in its system a killmail happened: as zKillboard says, else what is nearest."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killboard.engine import engine
from killmails import loading
from killmails.ingest.store import store_killmail
from killmails.models import Celestial, InventoryGroup, InventoryType, Killmail, StaticDataBuild
from killmails.models.locations import Location, LocationKind, fill_locations, nearest_celestial, read_locations
from killmails.records import parse_package
from tests.builders import NOW, esi_body, raw_package, without, zkb_block

pytestmark = pytest.mark.django_db

JITA, STAR, PLANET, MOON, GATE = 30000142, 40009077, 40009078, 40009082, 50001249
ASK = "{ killmails(first: %d) { nodes { id location { id name kind distance } fitting { eft high { slot } } } } }"


@pytest.fixture
def celestials():
    for group, type_ in ((6, 3796), (7, 11), (8, 14)):
        InventoryGroup.objects.create(pk=group)
        InventoryType.objects.update_or_create(pk=type_, defaults={"group_id": group})
    rows = [(STAR, "Jita - Star", 3796, 0.0), (PLANET, "Jita I", 11, 3e10), (MOON, "Jita IV - Moon 4", 14, -1.5e11)]
    for id_, name, type_, x in rows:
        Celestial.objects.create(pk=id_, name=name, solar_system_id=JITA, item_type_id=type_, x=x, y=2.25e10, z=0.0)
    StaticDataBuild.objects.create(build=1, loaded_at=NOW)
    Celestial.objects.create(pk=7, name="elsewhere", solar_system_id=30002187, x=-1.5e11, y=2.25e10, z=3.0)


def store(sequence, zkb=None, **changes):
    """Killmail 1,000 + `sequence`, at -1.5e11, 2.25e10, 3 metres in Jita."""
    store_killmail(parse_package(raw_package(sequence, esi_body(1000 + sequence, **changes), zkb=zkb), sequence, NOW))
    return Killmail.objects.get(pk=1000 + sequence)


def ask(query):
    result = engine.result(engine.prepare(query, {}, None))
    assert not result.errors, result.errors
    return result.data["killmails"]["nodes"]


def test_location_is_told_with_name_kind_and_distance(celestials):
    store(1, zkb_block(locationID=MOON))
    (killmail,) = ask(ASK % 1)
    assert killmail["location"] == {"id": str(MOON), "name": "Jita IV - Moon 4", "kind": "MOON", "distance": 3.0}
    eft = "[typeID 587, Killmail 1001]\ntypeID 2048\n\n\ntypeID 3465 x1\ntypeID 34 x5000000000"
    assert killmail["fitting"] == {"eft": eft, "high": []}


def test_killmail_without_zkillboards_block_has_the_nearest(celestials):
    assert store(1, zkb=None).location_id == 40009082
    assert nearest_celestial(JITA, (2.9e10, 2.25e10, 0.0)) == PLANET
    assert nearest_celestial(JITA, (-1.0, 2.25e10, 0.0)) == STAR


@pytest.mark.parametrize("kind", [*LocationKind, None])
def test_every_kind_can_be_told(monkeypatch, kind):
    store(1, zkb_block(locationID=MOON))
    known = Location(MOON, None, kind, None)
    monkeypatch.setattr(loading.killmails, "read_locations", lambda ids: dict.fromkeys(ids, known))
    assert ask(ASK % 1)[0]["location"]["kind"] == (kind and kind.name)


def test_what_zkillboard_leaves_out_is_left_out(celestials):
    """In the abyss there is no place."""
    assert store(1, without(zkb_block(), "locationID")).location_id is None
    assert ask(ASK % 1)[0]["location"] is None


def test_nothing_is_near_without_a_position_or_celestials(celestials):
    victim = without(esi_body(1)["victim"], "position")
    assert store(1, zkb=None, victim=victim).location_id is None
    assert store(2, zkb=None, solar_system_id=30000144).location_id is None


def test_nothing_is_near_in_the_abyss(celestials):
    Celestial.objects.create(pk=8, name="AD001 - Star", solar_system_id=32000001, item_type_id=3796, x=0, y=0, z=0)
    assert store(1, zkb=None, solar_system_id=32000001).location_id is None
    assert fill_locations() == 0


def test_nothing_is_near_while_the_universe_is_not_ccps(celestials):
    StaticDataBuild.objects.update(loaded_at=None)
    assert store(1, zkb=None).location_id is None


def test_position_that_is_nonsense_is_stored(celestials):
    victim = esi_body(1)["victim"] | {"position": {"x": 1e300, "y": -1e300, "z": 0.0}}
    assert store(1, zkb=None, victim=victim).location_id in (STAR, PLANET, MOON)


def test_killmails_from_before_the_static_data_are_filled_once(celestials):
    StaticDataBuild.objects.update(loaded_at=None)
    store(1, zkb=None), store(2, without(zkb_block(), "locationID")), store(3, zkb=None, solar_system_id=30000144)
    assert fill_locations() == 0
    StaticDataBuild.objects.update(loaded_at=NOW)
    assert fill_locations() == 1
    assert fill_locations() == 0
    assert dict(Killmail.objects.values_list("pk", "location_id")) == {1001: MOON, 1002: None, 1003: None}


def test_location_that_the_static_data_does_not_know_has_an_id_alone(celestials):
    victim = without(esi_body(1)["victim"], "position")
    store(1, zkb_block(locationID=40000001)), store(2, zkb_block(locationID=MOON), victim=victim)
    near, unknown = ask(ASK % 2)
    assert unknown["location"] == {"id": "40000001", "name": None, "kind": None, "distance": None}
    assert near["location"] == {"id": str(MOON), "name": "Jita IV - Moon 4", "kind": "MOON", "distance": None}


@pytest.mark.parametrize(
    ("id_", "kind"),
    [(GATE, LocationKind.STARGATE), (60003760, LocationKind.STATION), (1035466617946, LocationKind.STRUCTURE),
     (40000001, None)],
)  # fmt: skip
def test_ids_tell_the_kind_where_nothing_else_does(id_, kind):
    location = read_locations([id_])[id_]
    assert (location.kind, location.name, location.place) == (kind, None, None)


def test_no_place_asks_nothing():
    with CaptureQueriesContext(connection) as queries:
        assert read_locations([]) == {}
    assert len(queries) == 0


def test_25_killmails_take_as_many_queries_as_one_and_none_more_where_it_is_not_asked_for(celestials):
    for sequence in range(1, 26):
        store(sequence, zkb_block(locationID=(STAR, PLANET, MOON)[sequence % 3]))
    counts = []
    for query in (ASK % 1, ASK % 25, "{ killmails { nodes { id } } }"):
        with CaptureQueriesContext(connection) as queries:
            assert ask(query)
        counts.append(len(queries))
        read = sum("killmails_celestial" in one["sql"] for one in queries.captured_queries)
        assert read == ("location" in query)
    assert counts[0] == counts[1]
