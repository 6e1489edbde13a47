"""The GraphQL types and queries: against the printed schema, against the source bodies, and by their cost."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    print_schema,
)
from graphql.utilities import coerce_input_value

from killboard.engine import engine
from killboard.schema import schema
from killmails import models
from killmails.ingest.store import store_killmail
from killmails.recording.tape import load_recording
from killmails.records import parse_package
from killmails.schema.filters import read_filter
from killmails.universe.small import load_small_universe
from tests.builders import NOW, esi_body, raw_package

pytestmark = pytest.mark.django_db

SCHEMA_FILE = Path(settings.BASE_DIR, "docs/schema.graphql")
COMMAND = "manage.py graphql_schema --schema killboard.schema.schema --out docs/schema.graphql"
IN_FITTING = ("Fitting", "FittedModule", "Bay")
NESTED_ITEMS = 2  # how deep items hold items in the full selection; with more, 25 killmails would cost too much
OFTEN = ("Character", "Corporation", "InventoryType")  # fragments of it: a document may not say `id` a hundred times


def _ask(query, **variables):
    return json.loads(engine.execute(engine.prepare(query + _fragments(query), variables, None)))


def _data(query, **variables):
    body = _ask(query, **variables)
    assert "errors" not in body, body["errors"]
    return body["data"]


def _error(query, **variables):
    (error,) = _ask(query, **variables)["errors"]
    return error["extensions"]["code"], error["message"]


def _store(raw, sequence):
    return store_killmail(parse_package(raw, sequence, NOW))


def _store_recording(count=None):
    """The first so many shipped killmails, with the names of what they mention; their records."""
    records = load_recording()[:count]
    for sequence, record in enumerate(records, start=1):
        _store(raw_package(sequence, record["esi"], hash=record["hash"], zkb=record["zkb"]), sequence)
    load_small_universe(invented=True)
    return records


def _ally_corporations():
    """Each is in an alliance of its own today."""
    ids = models.Corporation.objects.values_list("pk", flat=True)
    models.Alliance.objects.bulk_create(models.Alliance(id_, f"Alliance {id_}") for id_ in ids)
    models.Corporation.objects.update(alliance_id=F("pk"))


@cache
def _full_selection(type_name, depth=0):
    """Every field of a type, with every field below; of the items in a fitting two, since they are the killmail's."""
    type_ = schema.graphql_schema.type_map[type_name]
    parts = []
    for name, field in type_.fields.items():
        below = get_named_type(field.type)
        if not isinstance(below, GraphQLObjectType):
            parts.append(name)
        elif below.name == "Item" and type_name in IN_FITTING:
            parts.append(f"{name} {{ flag itemType {{ id }} }}")
        elif below.name in OFTEN:
            parts.append(f"{name} {{ ...{below.name} }}")
        elif below.name != type_name:
            parts.append(f"{name} {{ {_full_selection(below.name)} }}")
        elif depth < NESTED_ITEMS:
            parts.append(f"{name} {{ {_full_selection(type_name, depth + 1)} }}")
    return " ".join(parts)


def _fragments(text, known=frozenset()):
    """The definitions of those that the text spreads, and so on."""
    new = frozenset(re.findall(r"\.\.\.(\w+)", text)) - known
    made = "".join(f" fragment {name} on {name} {{ {_full_selection(name)} }}" for name in sorted(new))
    return made + _fragments(made, known | new) if new else ""


# The printed schema


def test_committed_schema_is_the_printed_one():
    committed = SCHEMA_FILE.read_text(encoding="utf-8").strip()
    assert committed == print_schema(schema.graphql_schema).strip(), f"it is stale; make it anew: {COMMAND}"


def _described():
    for type_ in schema.graphql_schema.type_map.values():
        if type_.name.startswith("__"):
            continue
        yield type_.name, type_.description
        if isinstance(type_, GraphQLEnumType):
            yield from ((f"{type_.name}.{name}", value.description) for name, value in type_.values.items())
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            for name, field in type_.fields.items():
                yield f"{type_.name}.{name}", field.description
                for argument, what in getattr(field, "args", {}).items():
                    yield f"{type_.name}.{name}({argument})", what.description


def test_every_type_field_argument_and_enum_value_has_a_description():
    described = dict(_described())
    assert len(described) > 100
    assert [name for name, description in described.items() if not (description or "").strip()] == []


def test_relations_of_the_database_do_not_leak_into_the_schema():
    assert not {"sequence", "storedAt", "uploadedAt", "package"} & set(
        schema.graphql_schema.type_map["Killmail"].fields
    )


# One killmail


def test_killmail_is_found_by_its_id():
    _store(raw_package(1), 1)
    assert _data('{ killmail(id: "1001") { id } }') == {"killmail": {"id": "1001"}}
    assert _data("{ killmail(id: 1001) { id } }") == {"killmail": {"id": "1001"}}
    assert _data("query($id: ID!) { killmail(id: $id) { id } }", id=1001) == {"killmail": {"id": "1001"}}


@pytest.mark.parametrize("id_", ["1", "9223372036854775807", "01002", 2**31, str(2**53 + 1)])
def test_killmail_that_the_board_does_not_have_is_null(id_):
    assert _data("query($id: ID!) { killmail(id: $id) { id } }", id=id_) == {"killmail": None}


@pytest.mark.parametrize(
    "id_",
    [
        *["0", "-1", "", "abc", "1.5", "1e3", " 1", "1 ", "１", "²", "1\x00", "\ud800", "9223372036854775808"],
        *["9" * 5000, "0" * 19 + "1" + "9" * 60, "0" * 19 + "1" + "9" * 5000, "' OR 1=1 --"],
    ],
    ids=lambda id_: ascii(id_)[:24],
)
def test_id_that_is_none_is_refused_by_name(id_):
    code, message = _error("query($id: ID!) { killmail(id: $id) { id } }", id=id_)
    assert code == "BAD_INPUT"
    assert message.startswith("id: ")
    assert message.endswith(" is not a killmail's id, a whole number.")
    assert len(message) < 300


def _id(entity):
    return None if entity is None else int(entity["id"])


def _as_source(killmail):
    """The ESI body and zKillboard's block, rebuilt from what GraphQL answers."""
    victim = killmail["victim"]
    source = {
        "killmail_id": int(killmail["id"]),
        "killmail_time": killmail["time"].replace("+00:00", "Z"),
        "solar_system_id": _id(killmail["solarSystem"]),
        "war_id": killmail["warId"] and int(killmail["warId"]),
        "moon_id": killmail["moonId"] and int(killmail["moonId"]),
        "attackers": [_attacker_as_source(attacker) for attacker in killmail["attackers"]],
        "victim": {
            **{f"{name}_id": _id(victim[name]) for name in ("character", "corporation", "alliance", "faction")},
            "ship_type_id": _id(victim["shipType"]),
            "damage_taken": victim["damageTaken"],
            "position": victim["position"],
            "items": [_item_as_source(item) for item in killmail["items"]],
        },
    }
    return _without_nulls(source)


def _attacker_as_source(attacker):
    return {
        **{f"{name}_id": _id(attacker[name]) for name in ("character", "corporation", "alliance", "faction")},
        "ship_type_id": _id(attacker["shipType"]),
        "weapon_type_id": _id(attacker["weaponType"]),
        "damage_done": attacker["damageDone"],
        "final_blow": attacker["finalBlow"],
        "security_status": attacker["securityStatus"],
    }


def _item_as_source(item):
    return {
        "item_type_id": _id(item["itemType"]),
        "flag": item["flag"],
        "quantity_dropped": item["quantityDropped"],
        "quantity_destroyed": item["quantityDestroyed"],
        "singleton": item["singleton"],
        "items": [_item_as_source(inner) for inner in item.get("items") or []] or None,
    }


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(below) for key, below in value.items() if below is not None}
    if isinstance(value, list):
        return [_without_nulls(below) for below in value]
    return value


def test_every_field_of_every_shipped_killmail_is_that_of_its_source():
    records = _store_recording()
    answered = {}
    for killmail in _pages(10, _full_selection("Killmail")):
        answered[int(killmail["id"])] = killmail
    assert len(answered) == len(records) == 70
    for record in records:
        killmail, esi, zkb = answered[record["killmail_id"]], record["esi"], record["zkb"]
        expected = _without_nulls(esi | {"victim": {"items": []} | esi["victim"]})
        assert _as_source(killmail) == expected
        assert killmail["hash"] == record["hash"]
        assert killmail["attackerCount"] == len(esi["attackers"])
        assert killmail["position"] == esi["victim"].get("position")
        final_blow = next((each for each in killmail["attackers"] if each["finalBlow"]), None)
        assert killmail["finalBlow"] == final_blow
        assert {name: killmail[name] for name in ("points", "isNpc", "isSolo", "isAwox", "labels")} == {
            "points": zkb["points"],
            "isNpc": zkb["npc"],
            "isSolo": zkb["solo"],
            "isAwox": zkb["awox"],
            "labels": zkb["labels"],
        }
        values = ("fittedValue", "droppedValue", "destroyedValue", "totalValue")
        assert {name: killmail[name] for name in values} == {name: zkb[name] for name in values}
        assert killmail["locationId"] == (str(zkb["locationID"]) if zkb.get("locationID") else None)


def test_names_places_and_groups_are_those_of_the_universe():
    _store_recording(1)
    models.MarketGroup.objects.create(pk=64, name="Minmatar")
    models.InventoryType.objects.update(market_group_id=64, rig_size=1, meta_level=5, has_heat_damage=True)
    (killmail,) = _data(f"{{ killmails {{ nodes {{ {_full_selection('Killmail')} }} }} }}")["killmails"]["nodes"]
    stored = models.Killmail.objects.get()
    assert killmail["securityBand"] == stored.security_band == "LOW"
    system, ship = stored.solar_system, stored.victim_ship_type
    assert killmail["solarSystem"] == {
        "id": str(system.pk),
        "name": system.name,
        "securityStatus": system.security_status,
        "constellation": {
            "id": str(system.constellation_id),
            "name": system.constellation.name,
            "region": {"id": str(system.constellation.region_id), "name": system.constellation.region.name},
        },
    }
    category = ship.group.category
    assert killmail["victim"]["shipType"] == {
        "id": str(ship.pk),
        "name": ship.name,
        "group": {
            "id": str(ship.group_id),
            "name": ship.group.name,
            "category": {"id": str(category.pk), "name": category.name},
        },
        "marketGroup": {"id": "64", "name": "Minmatar"},
        "rigSize": 1,
        "metaLevel": 5,
        "hasHeatDamage": True,
    }


def test_what_is_not_known_yet_is_null_and_its_id_is_there():
    _store(raw_package(1), 1)
    types = "id name marketGroup { id } rigSize metaLevel hasHeatDamage"
    selection = f"solarSystem {{ id name constellation {{ id }} }} items {{ itemType {{ {types} }} }}"
    data = _data(f"{{ killmail(id: 1001) {{ {selection} }} }}")
    assert data["killmail"]["solarSystem"] == {"id": "30000142", "name": None, "constellation": None}
    unknown = dict.fromkeys(("name", "marketGroup", "rigSize", "metaLevel", "hasHeatDamage"))
    assert data["killmail"]["items"][0] == {"itemType": {"id": "2048", **unknown}}


def test_killmail_without_a_block_of_zkillboard_has_nulls_and_no_labels():
    _store(raw_package(1, zkb=None), 1)
    query = "{ killmail(id: 1001) { totalValue points isNpc labels locationId } }"
    # Who had a part in it stands in the killmail itself; all else needs the static data, and prices.
    nulls = {"totalValue": None, "points": None, "isNpc": False, "labels": [], "locationId": None}
    assert _data(query) == {"killmail": nulls}


def test_quantity_beyond_32_bits_is_a_whole_number():
    _store(raw_package(1), 1)
    items = _data("{ killmail(id: 1001) { items { quantityDropped items { quantityDropped } } } }")["killmail"]["items"]
    assert items[1] == {"quantityDropped": 1, "items": [{"quantityDropped": 5_000_000_000}]}


# The list of killmails


def _pages(first, selection="id"):
    """All killmails, page by page."""
    query = f"""query($after: String) {{ killmails(first: {first}, after: $after) {{
        nodes {{ {selection} }} edges {{ cursor node {{ id }} }}
        pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"""
    after, nodes = None, []
    while True:
        page = _data(query, after=after)["killmails"]
        nodes += page["nodes"]
        info, edges = page["pageInfo"], page["edges"]
        assert [edge["node"]["id"] for edge in edges] == [node["id"] for node in page["nodes"]] or "id" not in selection
        assert info["hasPreviousPage"] == (after is not None)
        assert info["startCursor"] == edges[0]["cursor"]
        assert info["endCursor"] == edges[-1]["cursor"]
        if not info["hasNextPage"]:
            return nodes
        assert len(page["nodes"]) == first
        after = info["endCursor"]


def _store_times(times):
    """Killmails 1001, 1002 … at these seconds after a fixed moment."""
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    for sequence, seconds in enumerate(times, start=1):
        time = (moment + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        _store(raw_package(sequence, esi_body(1000 + sequence, killmail_time=time)), sequence)


@pytest.mark.parametrize("first", [1, 2, 3, 5, 7, 17, 18, 100])
def test_pages_hold_each_killmail_once_newest_first_also_at_equal_times(first):
    times = [5, 5, 5, 9, 1, 5, 5, 9, 9, 2, 2, 2, 2, 0, 0, 7, 5]
    _store_times(times)
    expected = sorted(((time, 1001 + n) for n, time in enumerate(times)), reverse=True)
    assert [int(node["id"]) for node in _pages(first)] == [killmail_id for _, killmail_id in expected]


def test_killmail_that_comes_while_a_client_pages_does_not_move_the_pages():
    _store_times([10, 20, 30, 40])
    first = _data("{ killmails(first: 2) { nodes { id } pageInfo { endCursor } } }")["killmails"]
    newer = esi_body(5000, killmail_time="2026-11-19T00:00:00Z")
    _store(raw_package(9, newer), 9)
    query = "query($a: String) { killmails(after: $a) { nodes { id } } }"
    second = _data(query, a=first["pageInfo"]["endCursor"])["killmails"]
    ids = [node["id"] for page in (first, second) for node in page["nodes"]]
    assert ids == ["1004", "1003", "1002", "1001"]


def test_cursor_of_any_length_is_read_again():
    for killmail_id in (1, 12, 123, 1234, 12345, 123456, 2**63 - 1):
        esi = esi_body(killmail_id)
        _store(raw_package(killmail_id % 1000 + 1, esi), killmail_id % 1000 + 1)
    assert [int(node["id"]) for node in _pages(1)] == [2**63 - 1, 123456, 12345, 1234, 123, 12, 1]


def test_empty_board_has_an_empty_page():
    data = _data("{ killmails { nodes { id } edges { cursor } pageInfo { hasNextPage startCursor endCursor } } }")
    info = {"hasNextPage": False, "startCursor": None, "endCursor": None}
    assert data["killmails"] == {"nodes": [], "edges": [], "pageInfo": info}


def test_page_has_25_killmails_where_nothing_is_said():
    _store_times(range(30))
    assert len(_data("{ killmails { nodes { id } } }")["killmails"]["nodes"]) == 25


@pytest.mark.parametrize("first", [0, -1, 101, -(2**31), 2**31 - 1])
def test_first_out_of_bounds_is_refused_and_the_bounds_named(first):
    query = "query($f: Int) { killmails(first: $f) { nodes { id } } }"
    assert _error(query, f=first) == ("BAD_INPUT", "first: must be from 1 to 100.")


def test_first_of_null_is_refused_and_the_bounds_named():
    assert _error("{ killmails(first: null) { nodes { id } } }") == ("BAD_INPUT", "first: must be from 1 to 100.")


@pytest.mark.parametrize("first", [1, 100])
def test_first_within_its_bounds_is_accepted(first):
    assert _data(f"{{ killmails(first: {first}) {{ nodes {{ id }} }} }}") == {"killmails": {"nodes": []}}


def _cursor(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["", "garbage", "!!!", "ü", "\x00", "\ud800", "=", "A" * 10_240, "YXJyYXljb25uZWN0aW9uOjE="]
    + [_cursor(text) for text in ("k2:1:1", "k1:1", "k1:1:1:1", "k1:x:1", "k1:1:x", "k1:1:0", "k1:1:-1", "k1::")]
    + [_cursor(text) for text in (f"k1:1:{2**63}", f"k1:{10**20}:1", f"k1:{'9' * 5000}:1", f"k1:-{10**15}:1")],
    ids=lambda cursor: ascii(cursor)[:24],
)
def test_cursor_that_is_none_is_refused(cursor):
    message = "after: is not a cursor of this list; take one from pageInfo.endCursor."
    query = "query($a: String) { killmails(after: $a) { nodes { id } } }"
    assert _error(query, a=cursor) == ("BAD_CURSOR", message)


# The list, filtered


def _filtered(value, first=100, after=None):
    query = """query($f: KillmailFilter, $first: Int, $after: String) {
        killmails(filter: $f, first: $first, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }"""
    return _data(query, f=value, first=first, after=after)["killmails"]


def _ids(page):
    return [int(node["id"]) for node in page["nodes"]]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"minValue": 1e7},
        {"any": [{"characterIds": ["2139900001"]}, {"attacker": {"shipGroupIds": ["25", "26"]}}]},
        {"corporationIds": ["1000125", "98990234"], "not": {"securityBands": ["HIGH"]}},
        {"allianceIds": ["99990034", "99990011"]},
    ],
    ids=str,
)
def test_pages_of_a_filter_hold_what_passes_it_newest_first(value):
    _store_recording()
    wanted = read_filter(value and coerce_input_value(value, schema.graphql_schema.type_map["KillmailFilter"]))
    page = models.Killmail.objects.order_by("-time", "-id")
    expected = [killmail.pk for killmail in page if wanted.wants(killmail)]
    assert len(expected) > 5
    assert len(expected) < 70 or not value
    for first in (1, 4, 100):
        after, found = None, []
        while len(found) < len(expected):
            answer = _filtered(value, first, after)
            found += _ids(answer)
            assert answer["pageInfo"]["hasNextPage"] == (len(found) < len(expected))
            after = answer["pageInfo"]["endCursor"]
        assert found == expected, f"{first} at a time"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"any": [{}, {"minValue": 5, "maxValue": 4}]},
            "filter.any[1].minValue: is above maxValue, so this can never match.",
        ),
        ({"not": {"regionIds": []}}, "filter.not.regionIds: is empty, so it can never match."),
        (
            {"finalBlow": {"shipTypeIds": ["x"]}},
            "filter.finalBlow.shipTypeIds[0]: must be an id, a whole number from 1 to 9223372036854775807.",
        ),
    ],
    ids=str,
)
def test_filter_that_is_wrong_is_refused_by_its_path(value, message):
    assert _error("query($f: KillmailFilter) { killmails(filter: $f) { nodes { id } } }", f=value) == (
        "BAD_FILTER",
        message,
    )


def test_filter_that_the_database_cannot_check_at_the_moment_is_answered_so():
    def away(execute, sql, params, many, context):
        raise OperationalError("the connection is closed")

    value = {"solarSystemIds": ["30000142"], "regionIds": ["10000002"]}
    with connection.execute_wrapper(away):
        answer = _error("query($f: KillmailFilter) { killmails(filter: $f) { nodes { id } } }", f=value)
    assert answer == ("UNAVAILABLE", "The database does not answer at the moment; try again later.")


def test_filter_may_stand_in_the_query_itself():
    _store(raw_package(1), 1)
    given = (
        '{ since: "2026-11-20T12:34:56Z", any: [{ warIds: [700001], isNpc: false, victim: null }], minAttackers: 2 }'
    )
    assert _data(f"{{ killmails(filter: {given}) {{ nodes {{ id }} }} }}")["killmails"] == {"nodes": [{"id": "1001"}]}


def test_band_is_asked_for_by_its_name():
    _store_recording()
    (high, others) = (
        _ids(_filtered(value)) for value in ({"securityBands": ["HIGH"]}, {"not": {"securityBands": ["HIGH"]}})
    )
    assert (len(high) > 5, len(others) > 5, len({*high, *others})) == (True, True, 70)


# Cost


def _queries(query):
    with CaptureQueriesContext(connection) as captured:
        _data(query)
    return [each["sql"] for each in captured.captured_queries]


@pytest.mark.parametrize(
    "value", [{"minValue": 1e5}, {"characterIds": ["2139900001"], "any": [{"isNpc": False}]}], ids=str
)
def test_filter_takes_no_query_of_its_own(value):
    _store_recording(10)
    given = json.dumps(value).replace('"', "").replace("2139900001", '"2139900001"')
    plain, filtered = (_queries(f"{{ killmails{what} {{ nodes {{ id }} }} }}") for what in ("", f"(filter: {given})"))
    assert len(filtered) == len(plain)


@pytest.mark.parametrize(
    ("selection", "at_most"),
    [
        *[("id", 2), ("id victim { character { name } }", 2), ("attackers { character { name } }", 3), ("FULL", 13)],
        ("attackers { corporation { currentAlliance { name } } }", 4),
        ("attackers { character { currentCorporation { currentAlliance { name } } } }", 5),
        ("attackers { shipType { rigSize marketGroup { name } } weaponType { metaLevel hasHeatDamage } }", 4),
    ],
)
def test_page_takes_as_many_database_queries_for_25_killmails_as_for_one(selection, at_most):
    _store_recording(30)
    _ally_corporations()
    selection = _full_selection("Killmail") if selection == "FULL" else selection
    one, many = (_queries(f"{{ killmails(first: {n}) {{ nodes {{ {selection} }} }} }}") for n in (1, 25))
    assert len(many) == len(one), many
    assert len(many) <= at_most


def test_single_killmail_takes_as_many_database_queries_as_a_page():
    records = _store_recording(3)
    _ally_corporations()
    full = _full_selection("Killmail")
    assert len(_queries(f"{{ killmail(id: {records[0]['killmail_id']}) {{ {full} }} }}")) == 13


def test_an_event_may_bring_everything_of_a_killmail():
    query = f"subscription {{ killmailEvents {{ position kind killmail {{ {_full_selection('Killmail')} }} }} }}"
    engine.prepare(query + _fragments(query), None, None)


# The feed


@pytest.mark.parametrize(("mode", "shown"), [("live", "LIVE"), ("recorded", "RECORDED"), ("off", "OFF")])
def test_feed_says_where_killmails_come_from(settings, mode, shown):
    settings.FEED = mode
    assert _data("{ feed { mode } }") == {"feed": {"mode": shown}}
