"""ESI that blocks the board: whichever store counts the budget, no worker asks anything for ten minutes."""

import pytest

from killmails.errors import BudgetSpent, EsiForbidden, UpstreamRefused
from killmails.fake_eve import Fault
from killmails.ingest import names
from killmails.models import Character
from killmails.recording.tape import killmail_hash
from killmails.upstream import budget as budgets
from killmails.upstream.budget import Budget, Limit, StoreAway
from killmails.upstream.budget_rules import Report
from killmails.upstream.esi import AllianceRecord, Esi
from tests.builders import esi_body
from tests.killmails.eve import VICTIM

pytestmark = pytest.mark.django_db

PILOT, ALLIANCE = 2100000001, 99000001
WORDS = b'{"error": "You have been banned from using ESI. Please contact EVE support."}'


@pytest.fixture
def workers(fake_esi, store):
    """Two that share nothing but the budget's store."""
    return [Esi(fake_esi.url, "tests@example.com", Budget(store)) for _ in range(2)]


def test_403_silences_all_workers_for_at_least_ten_minutes(fake_esi, workers, clock, caplog):
    fake_esi.fail("/alliances", Fault(403, WORDS))
    one, other = workers
    with pytest.raises(UpstreamRefused, match="403") as refused:
        one.fetch_alliance(ALLIANCE)
    assert refused.value.retry_after == 600.0
    for passed, left in ((0, 600.0), (599, 1.0)):
        clock.pass_by(passed)
        for ask in (
            lambda: one.fetch_names([PILOT]),
            lambda: other.fetch_killmail(1, killmail_hash(esi_body(1))),
            lambda: other.fetch_recent_killmails("character", VICTIM, VICTIM, "a token"),
        ):
            with pytest.raises(BudgetSpent, match="ESI blocks us") as silent:
                ask()
            assert silent.value.retry_after == left
        assert other.budget.told()["banned_for"] == left
    clock.pass_by(1)
    assert other.fetch_alliance(ALLIANCE) == AllianceRecord("Alliance 99000001", "A0001")
    assert (len(fake_esi.asked), one.budget.told()["banned_for"]) == (2, 0)
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith("ESI blocks us (403 for /alliances/99000001: You have been banned from using ESI.")
    assert "nobody asks it for 600 s. Is CONTACT set?" in error


@pytest.mark.parametrize(("told", "seconds"), [("3600", 3600.0), ("5", 600.0), ("nonsense", 600.0)])
def test_longer_ban_is_kept_for_as_long_as_esi_says(fake_esi, workers, told, seconds):
    fake_esi.fail("/alliances", Fault(403, b"<html>", headers={"Retry-After": told}))
    with pytest.raises(UpstreamRefused):
        workers[0].fetch_alliance(ALLIANCE)
    with pytest.raises(BudgetSpent) as silent:
        workers[1].fetch_alliance(ALLIANCE)
    assert silent.value.retry_after == seconds


def test_answer_that_was_under_way_does_not_end_the_silence(store):
    budget = Budget(store)
    late, banned = budget.reserve("/alliances/{}", None), budget.reserve("/alliances/{}", None)
    budget.settle(banned, Report(403, banned=True))
    budget.settle(late, Report(200))
    with pytest.raises(BudgetSpent, match="ESI blocks us"):
        budget.reserve("/killmails/{}/{}", Limit("killmail", 3600, 900))


def test_refusal_of_a_user_silences_nobody(fake_esi, workers):
    fake_esi.fail("/characters/.*/killmails", Fault(403, WORDS))
    with pytest.raises(EsiForbidden):
        workers[0].fetch_recent_killmails("character", VICTIM, VICTIM, "a token")
    assert workers[0].fetch_alliance(ALLIANCE) == workers[1].fetch_alliance(ALLIANCE)
    assert workers[0].budget.told()["banned_for"] == 0


def test_filler_asks_once_and_no_more_with_each_turn(fake_esi, workers):
    Character.objects.create(pk=PILOT)
    fake_esi.fail("/", Fault(403, WORDS), times=0)
    for worker in (*workers, *workers):
        assert names.fill_names(worker) == 0
    assert len(fake_esi.asked) == 1


def test_ban_is_remembered_by_who_cannot_write_it_down(store, monkeypatch):
    budget = Budget(store)
    permit = budget.reserve("/alliances/{}", None)

    def away(*_):
        raise StoreAway

    now = budgets.time.monotonic()
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now)
    with monkeypatch.context() as patched:
        patched.setattr(store, "settle", away)
        budget.settle(permit, Report(403, banned=True))
    with pytest.raises(BudgetSpent) as silent:
        budget.reserve("/alliances/{}", None)
    assert silent.value.retry_after == pytest.approx(600)
