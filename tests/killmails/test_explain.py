"""explainMatch: clause by clause, what is wanted, what the killmail has, and whether it is met."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killboard.engine import engine
from killmails.ingest.store import store_killmail
from killmails.records import parse_package
from tests.builders import NOW, attacker, esi_body, raw_package

pytestmark = pytest.mark.django_db

QUERY = """query($filter: KillmailFilter!, $id: ID! = 1001) {
    explainMatch(killmailId: $id, filter: $filter) { matches clauses { path wanted found matches } } }"""


@pytest.fixture(autouse=True)
def killmail():
    store_killmail(parse_package(raw_package(1), 1, NOW))


def ask(**variables):
    return json.loads(engine.execute(engine.prepare(QUERY, variables, None)))


def explained(value):
    """Whether it matches, and the lines."""
    body = ask(filter=value)
    assert "errors" not in body, body["errors"]
    answer = body["data"]["explainMatch"]
    return answer["matches"], [tuple(line.values()) for line in answer["clauses"]]


def test_every_clause_has_a_line_with_its_path_and_its_own_truth():
    value = {
        "characterIds": ["2100000003", "7"],
        "minValue": 5e9,
        "since": "2026-11-20T12:00:00Z",
        "isAwox": True,
        "labels": ["pvp", "solo"],
        "securityBands": ["HIGH", "LOW"],
    }
    everyone = "victim: 2100000001; attackers: 2100000002, 2100000003"
    assert explained(value) == (
        False,
        [
            ("filter.securityBands", "one of HIGH, LOW", "none", False),
            ("filter.minValue", "at least 5,000,000,000.00 ISK", "2,000,005.50 ISK", False),
            ("filter.since", "at least 2026-11-20T12:00:00Z", "2026-11-20T12:34:56Z", True),
            ("filter.isAwox", "true", "true", True),
            ("filter.labels", "one of pvp, solo", "tz:au, cat:6, #:2+, pvp", True),
            ("filter.characterIds", "one of 7, 2100000003", everyone, True),
        ],
    )


def test_clauses_of_any_and_not_are_listed_under_their_paths():
    value = {"any": [{"warIds": ["5"]}, {"not": {"victim": {"shipTypeIds": ["587"]}}}], "not": {"warIds": ["700001"]}}
    assert explained(value) == (
        False,
        [
            ("filter.any", "at least one of these filters passes", "0 of 2", False),
            ("filter.any[0].warIds", "one of 5", "700001", False),
            ("filter.any[1].not", "this filter does not pass", "it passes", False),
            ("filter.any[1].not.victim.shipTypeIds", "one of 587", "587", True),
            ("filter.not", "this filter does not pass", "it passes", False),
            ("filter.not.warIds", "one of 700001", "700001", True),
        ],
    )


def test_attackers_who_meet_one_clause_each_are_told_from_one_who_meets_all():
    value = {"attacker": {"characterIds": ["2100000003"], "weaponTypeIds": ["3178"]}}
    lines = [
        ("filter.attacker.characterIds", "one of 2100000003", "2100000002, 2100000003", True),
        ("filter.attacker.weaponTypeIds", "one of 3178", "3178", True),
    ]
    whole = ("filter.attacker", "one attacker who meets all of this")
    assert explained(value) == (True, [(*whole, "the one at place 2 does", True), *lines])
    esi = esi_body(1001, attackers=[attacker(final_blow=True), attacker(character_id=2100000003, weapon_type_id=5)])
    store_killmail(parse_package(raw_package(2, esi), 2, NOW))
    lines[1] = ("filter.attacker.weaponTypeIds", "one of 3178", "3178, 5", True)
    assert explained(value) == (False, [(*whole, "none does", False), *lines])


def test_final_blow_is_explained_by_the_attacker_who_had_it():
    value = {"finalBlow": {"characterIds": ["2100000003"]}}
    assert explained(value) == (
        False,
        [("filter.finalBlow.characterIds", "one of 2100000003", "2100000002", False)],
    )


def test_long_lists_are_cut():
    value = {"victim": {"characterIds": [str(number) for number in range(1, 14)]}}
    (line,) = explained(value)[1]
    assert line[1] == "one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 3 more"


def test_empty_filter_matches_without_a_line():
    assert explained({}) == (True, [])


def test_killmail_that_the_board_does_not_have_is_null():
    assert ask(filter={}, id="5") == {"data": {"explainMatch": None}}


@pytest.mark.parametrize(
    ("variables", "code", "message"),
    [
        ({"filter": {}, "id": "x"}, "BAD_INPUT", "killmailId: 'x' is not a killmail's id, a whole number."),
        ({"filter": {"not": {}}}, "BAD_FILTER", "filter.not: matches everything, so this can never match."),
    ],
)
def test_what_is_wrong_is_refused(variables, code, message):
    (error,) = ask(**variables)["errors"]
    assert (error["extensions"]["code"], error["message"]) == (code, message)


def test_explanation_takes_three_queries_however_many_clauses_there_are():
    value = {"any": [{"characterIds": ["1"]}, {"shipGroupIds": ["25"], "attacker": {"shipGroupIds": ["5"]}}] * 5}
    with CaptureQueriesContext(connection) as queries:
        explained(value)
    assert len(queries) == 3
