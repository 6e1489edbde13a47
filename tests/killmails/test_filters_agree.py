"""A filter's condition, its predicate, its keys and its explanation agree on every real killmail that we have.

Filters are generated; what they ask for occurs in the data, so that they match something. LONG=1: many more.
"""

import contextlib
import os
from collections import defaultdict
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.expressions import NegatedExpression
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from killmails.errors import BadFilter
from killmails.filters import KillmailFilter, keys_of, read_filter, terms
from killmails.filters.clauses import ATTACKER, KILLMAIL, VICTIM, Clause, Kind
from killmails.filters.filter import AnyOf, Not
from killmails.filters.terms import EVERYBODY, Anyone, Attackers
from killmails.loading import ATTACKER_ROWS, load
from killmails.models import Killmail
from killmails.recording.tape import load_recording
from tests.builders import some_real_killmails, store_killmails

pytestmark = pytest.mark.django_db

LONG = os.environ.get("LONG") == "1"
EXAMPLES = 10_000 if LONG else 60
UNKNOWN = {Kind.IDS: 4_000_000_000, Kind.BANDS: "HIGH", Kind.LABELS: "no such label"}


class Board:
    """All killmails, loaded both ways, and filters that fit them."""

    def __init__(self, killmails):
        store_killmails(killmails)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # PostgreSQL's planner knows nothing of rows that came in one go, and guesses
        newest_first = Killmail.objects.order_by("-time", "-id")
        self.killmails = load(newest_first, {ATTACKER_ROWS})
        self.bare = {killmail.pk: killmail for killmail in load(newest_first.all(), ())}
        self.keys = {killmail.pk: keys_of(killmail) for killmail in self.killmails}
        self.refused, self.idle, self.telling = 0, 0, 0
        self.filters = self._filters(_values(self.killmails))

    def _filters(self, values):
        mails = st.sampled_from(self.killmails)
        parts = {
            "victim": mails.flatmap(lambda mail: _seen(VICTIM, [mail])),
            "attacker": mails.flatmap(lambda mail: _seen(ATTACKER, mail.attackers.all()[:20])),
            "final_blow": mails.flatmap(lambda mail: _seen(ATTACKER, mail.attackers.all()[:20])),
        }
        own = {clause.name: _wanted(clause, values[clause.name]) for clause in (*KILLMAIL, *ATTACKER)} | parts
        leaf = _objects(own, 1, 2)

        def nested(inner):
            below = {"any": st.lists(inner, min_size=1, max_size=3), "not": inner}
            return st.builds(dict.__or__, _objects(below, 1, 2), _objects(own, 0, 2))

        return st.one_of(leaf, nested(st.one_of(leaf, nested(leaf))))

    def check(self, value):
        """One filter, every way. AssertionError where two of them differ."""
        try:
            wanted = read_filter(value)
        except BadFilter:
            self.refused += 1
            return
        for killmail in self.bare.values():
            killmail.values_found.clear()  # a mistake shows again when it is asked again
        with CaptureQueriesContext(connection) as queries:
            killmails = self.killmails if wanted.needs_attackers else self.bare.values()
            expected = [killmail.pk for killmail in killmails if wanted.wants(killmail)]
        assert len(queries) == 0
        page = Killmail.objects.order_by("-time", "-id")
        assert list(page.filter(wanted.condition()).values_list("pk", flat=True)) == expected
        others = [killmail.pk for killmail in self.killmails if killmail.pk not in set(expected)]
        assert list(page.exclude(wanted.condition()).values_list("pk", flat=True)) == others
        assert [killmail.pk for killmail in wanted.first(page, 7)] == expected[:7]
        found = {pk for each in wanted.alternatives for pk in page.filter(each).values_list("pk", flat=True)}
        assert found == set(expected)
        assert wanted.keys is None or all(wanted.keys & self.keys[pk] for pk in expected)
        assert read_filter(value) == wanted
        assert hash(read_filter(value)) == hash(wanted)
        self._check_findings(wanted, set(expected))
        self.telling += 0 < len(expected) < len(self.killmails)
        self.idle += len(expected) in (0, len(self.killmails))

    def _check_findings(self, wanted, expected):
        """The lines that lie in no sub-filter decide together."""
        for killmail in self.killmails[::40]:
            lines = [line for line in wanted.findings(killmail) if not ("any[" in line.path or ".not." in line.path)]
            assert all(line.matches for line in lines) == (killmail.pk in expected)


def _values(killmails):
    """What occurs, by the clause that asks for it; as often as it occurs, so that much is often asked for."""
    values = defaultdict(list)
    for killmail in killmails:
        for clause in (*KILLMAIL, *VICTIM):
            found = clause.found(killmail)
            values[clause.name] += found if clause.kind is Kind.LABELS else [found]
        for attacker in killmail.attackers.all()[:20]:
            for clause in ATTACKER:
                values[clause.name].append(clause.found(attacker))
    return {name: [value for value in found if value is not None] for name, found in values.items()}


def _wanted(clause, values):
    if clause.is_list:
        known = st.one_of(st.sampled_from(values), st.sampled_from(sorted(set(values))))
        return st.lists(st.one_of(known, known, known, st.just(UNKNOWN[clause.kind])), min_size=1, max_size=6)
    if clause.kind is Kind.TIME:
        return st.sampled_from(values).flatmap(lambda time: st.sampled_from([time, time + timedelta(seconds=1)]))
    return st.sampled_from(values)


def _seen(clauses, rows):
    """What these few rows have, one of them this and another one that."""
    seen = {clause.name: {clause.found(row) for row in rows} - {None} for clause in clauses}
    some = {name: sorted(found) for name, found in seen.items() if found}
    lists = {name: st.lists(st.sampled_from(found), min_size=1, max_size=2) for name, found in some.items()}
    return _objects(lists, 1, min(3, len(lists)))


def _objects(strategies, least, most):
    """Some of these fields."""
    names = st.lists(st.sampled_from(sorted(strategies)), min_size=least, max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: strategies[name] for name in chosen}))


def run(board, examples):
    @settings(
        max_examples=examples, phases=[Phase.generate], derandomize=not LONG, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(board.filters)
    def check(value):
        board.check(value)

    check()


def test_condition_predicate_keys_and_explanation_agree_on_every_real_killmail():
    board = Board(some_real_killmails())
    run(board, EXAMPLES)
    ran = board.telling + board.idle
    print(f"{board.telling} of {ran} filters matched some and not all; {board.refused} were refused")
    assert ran > EXAMPLES / 2
    assert board.telling > ran / 3


# The known-wrong filters: what each gets wrong must be found.


def null_passes(self, found, wanted):
    return found is None or self.comparison.holds(found, wanted)


def not_with_nulls(self):
    return Q(NegatedExpression(ExpressionWrapper(self.filter.condition(), BooleanField())))


def any_attacker_for_each_clause(self, killmail):
    return all(self._who_meet(killmail, wish) for wish in self.wishes)


def every_attacker_has_the_final_blow(self, killmail):
    return EVERYBODY


def only_the_last_attacker_of_each_value(killmail, clause):
    return {clause.found(each): 1 << place for place, each in enumerate(killmail.attackers.all())}


def attackers_by_a_join(self):
    conditions = (wish.clause.condition(wish.wanted) for wish in self.wishes)
    joined = Q(attackers__final_blow=True) if self.part == "finalBlow" else Q()
    for condition in conditions:
        joined &= Q(*((f"attackers__{name}", value) for name, value in condition.children))
    return joined


def only_the_victim(self):
    return self.victim.narrowing()


def only_the_first_filter(self):
    found = self.filters[0]._narrowing()
    return found[1] if found else None


def only_the_narrow_clause(self):
    found = self._narrowing()
    return found[1].alternatives if found else (self.condition(),)


WRONG = [
    (Clause, "holds", null_passes),
    (Not, "condition", not_with_nulls),
    (Attackers, "wants", any_attacker_for_each_clause),
    (Attackers, "_asked", every_attacker_has_the_final_blow),
    (terms, "attackers_by", only_the_last_attacker_of_each_value),
    (Attackers, "condition", attackers_by_a_join),
    (Anyone, "narrowing", only_the_victim),
    (AnyOf, "narrowing", only_the_first_filter),
    (KillmailFilter, "alternatives", property(only_the_narrow_clause)),
    (AnyOf, "needs_attackers", property(lambda self: False)),
]


@pytest.mark.services  # once is enough: it is our code that is wrong here
def test_known_wrong_filters_are_found(monkeypatch):
    board, unfound = Board(load_recording()), []
    for owner, name, wrong in WRONG:
        with monkeypatch.context() as patched, contextlib.suppress(AssertionError):
            patched.setattr(owner, name, wrong)
            run(board, 300)
            unfound.append((owner, name))
    assert unfound == []
