"""Reading filters: what each clause means, what is refused and why, and what an index is told."""

import json
from collections import Counter
from datetime import UTC, datetime

import pytest

from killboard.engine import engine
from killmails.errors import BadFilter
from killmails.filters import KillmailFilter, keys_of, read_filter
from killmails.filters.clauses import Clause
from killmails.ingest.store import store_killmail
from killmails.loading import ATTACKER_ROWS, load
from killmails.models import Constellation, InventoryType, Killmail, Region, SolarSystem
from killmails.records import parse_package
from tests.builders import NOW, ROOT, attacker, esi_body, raw_package, without, zkb_block

pytestmark = pytest.mark.django_db


@pytest.fixture
def killmail():
    """Jita, 2,000,005.50 ISK; see tests.builders for the others. The victim's Rifter is a frigate (25)."""
    Region.objects.create(id=10000002)
    Constellation.objects.create(id=20000020, region_id=10000002)
    SolarSystem.objects.create(id=30000142, constellation_id=20000020, security_status=0.9459)
    InventoryType.objects.create(id=587, group_id=25)
    attackers = [
        attacker(final_blow=True),
        attacker(character_id=2100000003, corporation_id=98000003, ship_type_id=670, weapon_type_id=2961),
        without(without(attacker(corporation_id=1000125), "character_id"), "alliance_id"),
    ]
    record = parse_package(raw_package(1, esi_body(1001, attackers=attackers), zkb=zkb_block()), 1, NOW)
    store_killmail(record)
    return Killmail.objects.get()


def passes(killmail, value):
    wanted = read_filter(value)
    found = wanted.wants(killmail)
    assert Killmail.objects.filter(wanted.condition()).exists() == found
    assert wanted.first(Killmail.objects.order_by("-time", "-id"), 5).exists() == found
    return found


MATCHING = [
    {},
    {"character_ids": None, "victim": None, "any": None},
    {"character_ids": [2100000001]},
    {"character_ids": ["2100000002", "5"]},
    {"corporation_ids": [98000003]},
    {"alliance_ids": [99000002]},
    {"faction_ids": [500001]},
    {"ship_type_ids": [670]},
    {"ship_group_ids": [25]},
    {"weapon_type_ids": [2961]},
    {"character_ids": [2100000001], "corporation_ids": [98000003]},
    {"victim": {"character_ids": [2100000001], "ship_group_ids": [25]}},
    {"victim": {}},
    {"attacker": {"character_ids": [2100000003], "ship_type_ids": [670], "weapon_type_ids": [2961]}},
    {"final_blow": {"character_ids": [2100000002], "ship_type_ids": [603]}},
    {"solar_system_ids": [30000142], "constellation_ids": [20000020], "region_ids": [10000002, 1]},
    {"security_bands": ["LOW", "HIGH"]},
    {"min_value": 2000005.5, "max_value": 2000005.5},
    {"min_attackers": 3, "max_attackers": 3},
    {"since": datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)},
    {"since": "2026-11-20T13:34:56+01:00", "until": "2026-11-20T12:34:57"},
    {"is_npc": False, "is_solo": False, "is_awox": True},
    {"labels": ["nothing", "pvp"]},
    {"war_ids": [700001]},
    {"any": [{"region_ids": [5]}, {"war_ids": [700001]}]},
    {"any": [{"region_ids": [5]}, {}]},
    {"not": {"region_ids": [5]}},
    {"not": {"not": {"region_ids": [10000002]}}},
]
OTHERS = [
    {"character_ids": [4]},
    {"ship_group_ids": [26]},
    {"weapon_type_ids": [587]},
    {"character_ids": [2100000001], "corporation_ids": [4]},
    {"victim": {"character_ids": [2100000002]}},
    {"attacker": {"character_ids": [2100000001]}},
    {"attacker": {"character_ids": [2100000002], "ship_type_ids": [670]}},
    {"final_blow": {"character_ids": [2100000003]}},
    {"solar_system_ids": [30000143]},
    {"security_bands": ["NULL"]},
    {"min_value": 2000005.51},
    {"max_value": 2000005.49},
    {"min_attackers": 4},
    {"max_attackers": 2},
    {"since": "2026-11-20T12:34:57Z"},
    {"until": "2026-11-20T12:34:56Z"},
    {"is_awox": False},
    {"labels": ["pv", "pvp2"]},
    {"war_ids": [700002]},
    {"any": [{"region_ids": [5]}, {"war_ids": [700002]}]},
    {"not": {"region_ids": [10000002]}},
    {"not": {"character_ids": [2100000003]}},
]


@pytest.mark.parametrize("value", MATCHING, ids=str)
def test_filter_that_the_killmail_passes(killmail, value):
    assert passes(killmail, value)


@pytest.mark.parametrize("value", OTHERS, ids=str)
def test_filter_that_the_killmail_does_not_pass(killmail, value):
    assert not passes(killmail, value)


@pytest.mark.parametrize(
    "value",
    [
        *({"min_value": 0}, {"max_value": 10**15}, {"is_solo": False}, {"is_solo": True}, {"labels": ["pvp"]}),
        *({"region_ids": [1]}, {"security_bands": ["HIGH"]}, {"war_ids": [700001]}, {"victim": {"character_ids": [1]}}),
        *({"victim": {"ship_group_ids": [25]}}, {"alliance_ids": [99000001]}, {"weapon_type_ids": [3178]}),
    ],
    ids=str,
)
def test_clause_is_not_met_where_the_killmail_has_no_value_and_its_not_is(value):
    bare = {"damage_taken": 1, "ship_type_id": 670}
    nobody = {"damage_done": 1, "final_blow": True, "security_status": 0.0}
    esi = without(without(esi_body(1001, victim=bare, attackers=[nobody]), "war_id"), "moon_id")
    store_killmail(parse_package(raw_package(1, esi, zkb=None), 1, NOW))
    killmail = Killmail.objects.get()
    assert not passes(killmail, value)
    assert passes(killmail, {"not": value})
    assert not passes(killmail, {"not": {"not": value}})


def refusal(value):
    with pytest.raises(BadFilter) as caught:
        read_filter(value)
    return caught.value.message


ID = "must be an id, a whole number from 1 to 9223372036854775807."
NEVER = "so this can never match."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(
            ({"character_ids": [bad]}, f"filter.characterIds[0]: {ID}")
            for bad in ("0", "-1", "", "x", "１", 2**63, True, 1.0)
        ),
        ({"character_ids": ["9" * 5000]}, f"filter.characterIds[0]: {ID}"),
        ({"victim": {"alliance_ids": [1, None]}}, f"filter.victim.allianceIds[1]: {ID}"),
        ({"region_ids": []}, "filter.regionIds: is empty, so it can never match."),
        ({"region_ids": 5}, "filter.regionIds: must be a list."),
        ({"any": []}, "filter.any: is empty, so it can never match."),
        ({"any": {}}, "filter.any: must be a list."),
        ({"any": [{}, {"min_value": 5, "max_value": 4}]}, f"filter.any[1].minValue: is above maxValue, {NEVER}"),
        ({"not": {}}, f"filter.not: matches everything, {NEVER}"),
        ({"not": {"victim": {}}}, f"filter.not: matches everything, {NEVER}"),
        ({"not": {"any": [{"war_ids": [1]}, {}]}}, f"filter.not: matches everything, {NEVER}"),
        ({"not": 5}, "filter.not: must be an object."),
        ({"ship": 5}, "filter.ship: is no clause of a filter."),
        ({"victim": {"weapon_type_ids": [1]}}, "filter.victim.weaponTypeIds: is no clause of a filter."),
        ({"min_attackers": 3, "max_attackers": 2}, f"filter.minAttackers: is above maxAttackers, {NEVER}"),
        ({"since": NOW, "until": NOW}, f"filter.since: is not before until, {NEVER}"),
        ({"since": "yesterday"}, "filter.since: must be a time, like 2026-11-23T12:00:00Z."),
        ({"since": "0001-01-01T00:00:00+01:00"}, "filter.since: must be a time, like 2026-11-23T12:00:00Z."),
        *(
            ({"min_value": bad}, "filter.minValue: must be an amount of ISK, from 0 to less than 1e18.")
            for bad in (-1, -0.01, 1e18, 999999999999999999.999, float("nan"), float("inf"), "x", True)
        ),
        *(
            ({"max_attackers": bad}, "filter.maxAttackers: must be a whole number from 0 to 2147483647.")
            for bad in (-1, 2**31, 1.5, True)
        ),
        ({"is_npc": 1}, "filter.isNpc: must be true or false."),
        ({"labels": ["a\x00"]}, "filter.labels[0]: must be a label, a printable text."),
        ({"labels": ["\ud800"]}, "filter.labels[0]: must be a label, a printable text."),
        (
            {"security_bands": ["high"]},
            "filter.securityBands[0]: must be one of HIGH, LOW, NULL, WORMHOLE, ABYSSAL, POCHVEN.",
        ),
        (
            {"solar_system_ids": [30000142], "region_ids": [5]},
            f"filter.solarSystemIds: 30000142 lies outside regionIds, {NEVER}",
        ),
        (
            {"solar_system_ids": [30000142], "constellation_ids": [5]},
            f"filter.solarSystemIds: 30000142 lies outside constellationIds, {NEVER}",
        ),
        (
            {"not": {"solar_system_ids": [30000142], "security_bands": ["LOW", "NULL"]}},
            f"filter.not.solarSystemIds: 30000142 lies outside securityBands, {NEVER}",
        ),
        (
            {"constellation_ids": [20000020], "region_ids": [5, 6]},
            f"filter.constellationIds: 20000020 lies outside regionIds, {NEVER}",
        ),
        (
            {"final_blow": {"ship_type_ids": [587], "ship_group_ids": [26]}},
            f"filter.finalBlow.shipTypeIds: 587 lies outside shipGroupIds, {NEVER}",
        ),
    ],
    ids=lambda one: str(one)[:60],
)  # fmt: skip
def test_filter_that_is_wrong_or_can_never_match_is_refused_by_its_path(killmail, value, message):
    assert refusal(value) == message


@pytest.mark.parametrize(
    "value",
    [
        {"solar_system_ids": [30000142, 30000143], "region_ids": [5]},  # 30000143 is not known
        {"constellation_ids": [20000020, 7], "region_ids": [5]},
        {"victim": {"ship_type_ids": [603], "ship_group_ids": [26]}},  # the group of 603 is not known
        {"ship_type_ids": [587], "ship_group_ids": [26]},  # the victim's, and an attacker's
        {"character_ids": [4_000_000_000]},
        {"max_attackers": 0, "min_value": 0},
        {"since": "2026-11-20", "until": "2026-11-21"},
    ],
    ids=str,
)
def test_what_may_match_one_day_is_no_mistake(killmail, value):
    assert not passes(killmail, value) or "since" in value


def nest(depth, what):
    return what if depth == 0 else {"not": nest(depth - 1, what)}


def test_bounds_of_a_filter():
    leaf = {"war_ids": [1]}
    assert read_filter(nest(3, leaf))
    assert refusal(nest(4, leaf)) == "filter.not.not.not.not: lies too deep: filters may nest 3 deep."
    assert read_filter({"any": [leaf] * 20})
    assert refusal({"any": [leaf] * 21}) == "filter.any[20]: is one too many: there may be 20 filters in a filter."
    assert read_filter({"war_ids": [*range(1, 400)], "any": [{"labels": ["a"] * 101}]})
    message = "filter.any[0].labels: holds one too many: there may be 500 ids, labels and bands in a filter."
    assert refusal({"war_ids": [*range(1, 400)], "any": [{"labels": ["a"] * 102}]}) == message
    deep = leaf
    for _ in range(100_000):
        deep = {"not": deep}
    assert refusal(deep).startswith("filter.not.not.not.not: lies too deep")


def test_filters_that_say_the_same_are_equal_whatever_the_order_and_the_spelling():
    one = read_filter(
        {"min_value": 5, "character_ids": ["2", 1, "1"], "since": "2026-11-20T00:00:00Z", "war_ids": None}
    )
    two = read_filter({"since": "2026-11-20T01:00:00+01:00", "character_ids": [1, 2], "min_value": 5.0, "victim": {}})
    assert one == two
    assert hash(one) == hash(two)
    assert one != read_filter({"min_value": 5, "character_ids": [1, 3], "since": "2026-11-20T00:00:00Z"})
    assert read_filter(None) == read_filter({}) == KillmailFilter()


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ({}, None),
        ({"min_value": 5}, None),
        ({"not": {"character_ids": [1]}}, None),
        ({"character_ids": [1, 2], "region_ids": [3]}, {("character", 1), ("character", 2)}),
        ({"region_ids": [3], "security_bands": ["HIGH"], "labels": ["pvp"]}, {("region", 3)}),
        ({"attacker": {"alliance_ids": [4], "corporation_ids": [5], "ship_type_ids": [6]}}, {("corporation", 5)}),
        ({"any": [{"victim": {"alliance_ids": [4]}}, {"labels": ["pvp"]}]}, {("alliance", 4), ("label", "pvp")}),
        ({"any": [{"alliance_ids": [4]}, {"region_ids": [5]}], "war_ids": [6]}, {("war", 6)}),
        ({"any": [{"alliance_ids": [4]}, {"min_value": 5}]}, None),
    ],
    ids=str,
)
def test_keys_are_those_of_the_most_selective_clause(value, keys):
    assert read_filter(value).keys == keys


def test_killmail_has_the_keys_of_all_that_it_names(killmail):
    assert keys_of(killmail) == {
        ("character", 2100000001), ("character", 2100000002), ("character", 2100000003),
        ("corporation", 98000001), ("corporation", 98000002), ("corporation", 98000003), ("corporation", 1000125),
        ("alliance", 99000001), ("alliance", 99000002), ("faction", 500001), ("faction", 500002),
        ("ship_type", 587), ("ship_type", 603), ("ship_type", 670), ("ship_group", 25),
        ("weapon_type", 3178), ("weapon_type", 2961), ("solar_system", 30000142), ("constellation", 20000020),
        ("region", 10000002), ("security_band", "HIGH"), ("war", 700001),
        ("label", "tz:au"), ("label", "cat:6"), ("label", "#:2+"), ("label", "pvp"),
    }  # fmt: skip


def test_killmail_is_looked_through_once_however_many_filters_are_held_against_it(killmail, monkeypatch):
    found, looked = Clause.found, Counter()

    def counting(self, row):
        looked[self.column, row] += 1
        return found(self, row)

    monkeypatch.setattr(Clause, "found", counting)
    (event,) = load(Killmail.objects.all(), {ATTACKER_ROWS})
    for number in range(10**9, 10**9 + 50):
        who = {"ship_type_ids": [670, number], "weapon_type_ids": [number], "ship_group_ids": [number]}
        others = [{"max_value": number - 10**9}, {"character_ids": [number]}, {"labels": [str(number)]}]
        wanted = read_filter({"not": {"any": [{"attacker": who}, {"final_blow": who}, *others]}})
        assert wanted.keys is None
        assert wanted.wants(event)
        assert all(line.matches for line in wanted.findings(event) if line.path == "filter.not")
    assert len(keys_of(event)) == 26
    assert len(looked) == 3 * 8 + 13  # attackers by what can be asked of them; the killmail's own
    assert set(looked.values()) == {1}


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        ({"victim": {"character_ids": [1]}, "min_value": 5}, False),
        ({"character_ids": [1]}, True),
        ({"weapon_type_ids": [1]}, True),
        ({"not": {"any": [{"final_blow": {"ship_type_ids": [1]}}]}}, True),
    ],
)
def test_filter_says_whether_it_needs_attackers(value, needed):
    assert read_filter(value).needs_attackers is needed


@pytest.mark.parametrize("block", (ROOT / "docs/filters.md").read_text().split("```graphql\n")[1:])
def test_queries_of_the_document_are_answered(block):
    answer = json.loads(engine.execute(engine.prepare(block.split("```")[0], None, None)))
    assert answer == {"data": {"killmails": {"nodes": []}}}
