"""ESI's limits as the board keeps them: the same in memory, in the database, and in Redis."""

import random

import pytest

from killmails.errors import BudgetSpent
from killmails.ingest.esi_store import DatabaseStore
from killmails.models import EsiBudget
from killmails.upstream.budget import Budget, Limit, MemoryStore
from killmails.upstream.budget_rules import Ask, Report
from tests.killmails.budgets import NOON, Clock, clocked

pytestmark = pytest.mark.django_db

KILLMAIL = Limit("killmail", 3600, 900)
SMALL = Limit("char-killmail", 30, 900)
SLOT = 5  # seconds of a window of 900
ROUTE = "/killmails/{}/{}"


@pytest.fixture
def budget(store):
    return Budget(store)


def refusal(budget, of=KILLMAIL, route=ROUTE, user=""):
    """Why and for how many seconds nothing may be asked now."""
    with pytest.raises(BudgetSpent) as caught:
        budget.reserve(route, of, user)
    return str(caught.value).removeprefix("not asked: ").partition(";")[0], caught.value.retry_after


def ask(budget, status=200, of=KILLMAIL, route=ROUTE, user="", **told):
    budget.settle(budget.reserve(route, of, user), Report(status, **told))


def ask_names(budget, status=200, **told):
    ask(budget, status, None, "/universe/names", **told)


def ask_as_often_as_allowed(budget, *arguments, **named) -> int:
    for count in range(10_000):
        try:
            ask(budget, *arguments, **named)
        except BudgetSpent:
            return count
    raise AssertionError("no end")


def left(budget, name):
    return budget.told()["left"][name]


# Token buckets


@pytest.mark.parametrize(
    ("status", "price"), [(200, 2), (304, 1), (404, 5), (422, 5), (500, 0), (503, 0), (429, 0), (0, 5)]
)
def test_answer_costs_what_esi_takes_for_it(budget, status, price):
    ask(budget, status, bucket="killmail", limit=3600, window=900_000)
    assert left(budget, "killmail") == 3600 - price


def test_questions_under_way_are_paid_at_the_worst_price(budget):
    permits = [budget.reserve(ROUTE, SMALL) for _ in range(5)]  # 25 of 30; 3 are never touched
    assert refusal(budget, SMALL) == ("the budget of char-killmail is spent", 1.0)
    budget.settle(permits.pop(), Report(200))  # 22
    permits.append(budget.reserve(ROUTE, SMALL))
    assert refusal(budget, SMALL)[1] == 1.0


def test_tokens_come_back_one_window_after_they_were_spent(budget, clock):
    assert ask_as_often_as_allowed(budget, of=SMALL) == 12  # 24 of 27: a thirteenth might cost five
    assert refusal(budget, SMALL)[1] == 900 + SLOT
    clock.pass_by(450)
    assert refusal(budget, SMALL)[1] == 450 + SLOT
    clock.pass_by(450 + SLOT - 0.001)
    assert refusal(budget, SMALL)[1] == 0.001
    clock.pass_by(0.001)
    assert ask_as_often_as_allowed(budget, of=SMALL) == 12


def test_a_tenth_of_the_limit_is_never_touched(clock):
    budget = Budget(clocked("memory", clock, 0, None))
    assert ask_as_often_as_allowed(budget, bucket="killmail", limit=3600, window=900_000) == 1618
    assert left(budget, "killmail") == 364


def test_limit_that_esi_announces_is_the_one_that_counts(budget, clock):
    ask(budget, bucket="killmail", limit=100, window=60_000)
    assert ask_as_often_as_allowed(budget) == 42  # 86 of 90
    assert refusal(budget)[1] == pytest.approx(60, abs=0.4)
    clock.pass_by(61)
    assert ask_as_often_as_allowed(budget) == 43


def test_what_others_spend_from_our_address_counts_and_comes_back_evenly(budget, clock):
    told = {"bucket": "killmail", "limit": 3600, "window": 900_000}
    ask(budget, **told, remaining=365)  # we know of 2 spent, ESI of 3,235
    assert left(budget, "killmail") == 365
    assert ask_as_often_as_allowed(budget) == 1
    clock.pass_by(450)
    assert left(budget, "killmail") == 3600 - 4 - 1617
    ask(budget, **told, remaining=3000)  # it was less: ESI's newest word counts
    assert left(budget, "killmail") == 3000


def test_buckets_of_users_are_their_own(budget):
    ask_as_often_as_allowed(budget, of=SMALL, user="90000001")
    assert ask_as_often_as_allowed(budget, of=SMALL, user="90000002") == 12
    assert ask_as_often_as_allowed(budget, of=SMALL) == 12
    assert budget.told()["left"] == {"errors": 100, "char-killmail": 6}  # not a line for each of them


def test_route_that_turns_out_to_have_a_bucket_pays_there(budget):
    ask_names(budget, 404, bucket="names", limit=100, window=60_000, remaining=95)
    assert budget.told()["left"] == {"errors": 100, "names": 95}


def test_route_that_turns_out_to_have_none_pays_with_an_error(budget):
    ask(budget, 404, errors_left=99, errors_reset=30_000)
    assert budget.told()["left"] == {"errors": 99}


# Errors


def test_ninety_errors_are_the_most_in_a_minute(budget, clock):
    for error in range(90):
        ask_names(budget, 404, errors_left=99 - error, errors_reset=60_000)
    assert refusal(budget, None) == ("the errors of this minute are spent", 61.0)
    ask(budget)  # routes with a bucket are not concerned
    clock.pass_by(60)
    assert refusal(budget, None)[1] == 1.0
    clock.pass_by(1)
    ask_names(budget)
    assert left(budget, "errors") == 100


def test_questions_under_way_count_as_errors_until_they_are_answered(budget, clock):
    for _ in range(80):
        ask_names(budget, 500)
        ask_names(budget, 200)  # so that ESI is not taken to be down
    permits = [budget.reserve("/universe/names", None) for _ in range(10)]
    assert refusal(budget, None) == ("as many questions are under way as there may be errors", 1.0)
    budget.settle(permits.pop(), Report(200))
    budget.reserve("/universe/names", None)
    clock.pass_by(60)  # whoever asked is dead
    ask_names(budget)


def test_errors_that_others_made_from_our_address_count(budget):
    ask_names(budget, 200, errors_left=11, errors_reset=30_000)
    ask_names(budget, 404, errors_left=10, errors_reset=29_000)
    assert refusal(budget, None)[0] == "the errors of this minute are spent"


def test_answer_of_the_minute_before_says_nothing_of_this_one(budget, clock):
    ask_names(budget, 404, errors_left=20, errors_reset=1_000)
    late = budget.reserve("/universe/names", None)
    clock.pass_by(2.5)
    ask_names(budget, 404, errors_left=99, errors_reset=59_000)
    budget.settle(late, Report(200, errors_left=15, errors_reset=0))
    assert left(budget, "errors") == 99


# Stops


def test_420_stops_every_route_until_the_reset(budget, clock):
    ask_names(budget, 420, errors_left=0, errors_reset=41_000)
    for limit, route in ((KILLMAIL, ROUTE), (None, "/universe/names")):
        assert refusal(budget, limit, route) == ("ESI has stopped us", 42.0)
    clock.pass_by(42)
    ask_names(budget)
    ask(budget)


def test_420_that_does_not_say_how_long_is_a_minute(budget):
    ask(budget, 420)
    assert refusal(budget) == ("ESI has stopped us", 60.0)


@pytest.mark.parametrize(("told", "seconds"), [(37_000, 37.0), (-1, 60.0), (0, None)])
def test_429_stops_its_bucket_for_as_long_as_it_says(budget, told, seconds):
    ask(budget, 429, retry_after=told)
    ask(budget, of=SMALL)
    if seconds:
        assert refusal(budget) == ("ESI has stopped killmail", seconds)
    else:
        ask(budget)


def test_429_of_a_route_without_a_bucket_stops_that_route(budget):
    ask(budget, 429, None, "/markets/{}/history", retry_after=9_000)
    assert refusal(budget, None, "/markets/{}/history") == ("ESI has stopped /markets/{}/history", 9.0)
    ask_names(budget)


def test_esi_that_fails_is_asked_by_one_at_a_time_and_ever_less_often(budget, clock):
    under_way = [budget.reserve(ROUTE, KILLMAIL) for _ in range(20)]
    for permit in under_way:  # all fail together, and that is five failures and not twenty
        budget.settle(permit, Report(503))
    for pause in (1, 2, 4, 8, 12, 12):
        assert refusal(budget) == ("ESI is down", float(pause))
        clock.pass_by(pause)
        probe = budget.reserve(ROUTE, KILLMAIL)
        assert refusal(budget, None, "/universe/names")[0] == "ESI is down"
        budget.settle(probe, Report(503))
    clock.pass_by(12)
    ask(budget)
    for _ in range(4):
        ask(budget, 503)
        ask(budget, 0)
        ask(budget, 404)


# All stores alike


def test_database_asks_for_both_rows_at_once_and_writes_what_changed(django_assert_num_queries):
    budget = Budget(DatabaseStore())
    ask(budget)
    with django_assert_num_queries(10):  # twice: savepoint, rows, clock, change, release
        ask(budget)
    assert sorted(EsiBudget.objects.values_list("name", flat=True)) == ["", "killmail"]


@pytest.mark.parametrize("kind", ["database", pytest.param("redis", marks=pytest.mark.services)])
def test_stores_agree_on_every_verdict(kind, request, monkeypatch):
    """Two thousand steps by chance, with all that ESI may answer."""
    dice, clock = random.Random(7), Clock()
    port = request.getfixturevalue("budget_redis").port if kind == "redis" else 0
    one, other = clocked("memory", clock, 0, monkeypatch), clocked(kind, clock, port, monkeypatch)
    under_way = []
    steps, why = 2_000 if kind == "redis" else 300, ""
    for _ in range(steps):
        clock.pass_by(599 if why == "ESI blocks us" else dice.choice((0, 0, 0, 0.001, 0.4, 1, 7)))
        if under_way and dice.random() < 0.5:
            mine, theirs, bucket = under_way.pop(dice.randrange(len(under_way)))
            report = random_report(dice, bucket)
            one.settle(mine, report)
            other.settle(theirs, report)
        else:
            bucket = dice.choice(("", "killmail", "char-killmail:1"))
            question = Ask(f"/route/{dice.randrange(3)}", bucket, 100 if bucket else 0, 60_000 if bucket else 0)
            mine, theirs = one.reserve(question), other.reserve(question)
            why = mine.why
            assert (mine.wait, why) == (theirs.wait, theirs.why)
            if mine.permit:
                assert (mine.permit.slot, mine.permit.probe) == (theirs.permit.slot, theirs.permit.probe)
                under_way.append((mine.permit, theirs.permit, bucket))
        assert one.told() == other.told()
    assert one.told()["answers"].keys() > {"0", "200", "403", "404", "420", "429", "503"}


def random_report(dice, bucket):
    rare = [420, 403] if dice.random() < 0.1 else []
    status = dice.choice((200, 200, 200, 200, 304, 404, 422, 429, 503, 0, *rare))
    told = {"retry_after": dice.choice((-1, 0, 3_000, 700_000 if status == 403 else 0)), "banned": status == 403}
    if bucket and dice.random() < 0.8:
        told |= {"bucket": bucket, "limit": 100, "window": 60_000, "remaining": dice.choice((-1, 20, 60, 90))}
    elif dice.random() < 0.7:
        told |= {"errors_left": dice.randrange(101), "errors_reset": dice.randrange(61) * 1000}
    return Report(status, **told)


def test_clock_of_the_tests_begins_with_a_slot():
    assert NOON % (SLOT * 1000) == 0
    assert MemoryStore(speed=60)._now() > NOON * 50
