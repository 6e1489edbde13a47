"""The budget's store in trouble: nothing is asked without it, nobody hangs, and what it forgets comes back."""

import contextlib
import threading
import time

import pytest
from django.db import connections
from redis.connection import Connection

from killmails.errors import BudgetAway, BudgetSpent
from killmails.fake_eve import FakeEsi, World
from killmails.ingest.esi_store import DatabaseStore
from killmails.recording.tape import killmail_hash
from killmails.upstream.budget import Budget, Limit, MemoryStore
from killmails.upstream.budget_rules import Report
from killmails.upstream.esi import AllianceRecord, Esi
from tests.builders import esi_body
from tests.killmails.budgets import redis_store
from tests.services import Redis

KILLMAIL = Limit("killmail", 3600, 900)
STEP = 0.4  # seconds; as in killmails.ingest.esi
ALLIANCE = AllianceRecord("Alliance 99000001", "A0001")


@pytest.fixture
def redis():
    with Redis() as server:
        yield server


@pytest.fixture
def fake():
    world = World()
    world.add_killmails(esi_body(number) for number in range(1, 61))
    with FakeEsi(world, groups={"killmail": (100, 900)}) as fake:
        yield fake


@pytest.fixture
def esi(fake, redis):
    """Patient with Redis: that a machine is busy is no trouble of it."""
    return esi_with(fake, redis, 30.0)


def esi_with(fake, redis, limit):
    return Esi(fake.url, "tests", Budget(redis_store(redis.port, limit=limit)))


def ask_until_answered(esi):
    """What is asked when Redis is well; a machine that is busy may keep it from an answer for a while."""
    for _ in range(60):
        with contextlib.suppress(BudgetAway):
            return esi.fetch_alliance(99000001)
        time.sleep(1.0)
    raise AssertionError("Redis does not come back")


@pytest.fixture
def waits(monkeypatch):
    """Grows with each wait for Redis, which lasts for STEP at most: a number is the same on every machine."""
    waits = []

    def counted(real):
        return lambda *arguments, **named: waits.append(real.__name__) or real(*arguments, **named)

    for name in ("_connect", "read_response"):
        monkeypatch.setattr(Connection, name, counted(getattr(Connection, name)))
    return waits


@pytest.mark.services
@pytest.mark.parametrize("trouble", ["kill", "pause"])
def test_nothing_is_asked_while_redis_is_away_and_that_is_said_within_a_second(fake, redis, waits, trouble):
    esi = esi_with(fake, redis, STEP)
    assert ask_until_answered(esi) == ALLIANCE
    getattr(redis, trouble)()
    for _ in range(3):
        waits.clear()
        with pytest.raises(BudgetAway, match="the budget cannot be reached") as caught:
            esi.fetch_alliance(99000001)
        assert len(waits) * STEP < 1, waits
        assert caught.value.retry_after == 1.0
    assert len(fake.asked) == 1
    redis.resume() if trouble == "pause" else redis.start()
    assert ask_until_answered(esi) == ALLIANCE


@pytest.mark.services
def test_many_who_ask_while_redis_hangs_wait_no_longer_than_one(fake, redis):
    esi = esi_with(fake, redis, 1.0)
    ask_until_answered(esi)
    redis.pause()
    told, began = [], time.monotonic()

    def ask():
        with pytest.raises(BudgetAway):
            esi.fetch_alliance(99000001)
        told.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 20
    assert max(told) < 12  # one after the other it would be twenty seconds
    redis.resume()


@pytest.mark.services
def test_answer_that_cannot_be_booked_is_returned_and_a_stop_is_remembered(fake, redis, caplog):
    budget = Budget(redis_store(redis.port, limit=30.0))
    permit, other = budget.reserve("/alliances/{}", None), budget.reserve("/alliances/{}", None)
    redis.kill()
    budget.settle(permit, Report(200))
    budget.settle(other, Report(420, errors_reset=30_000))
    assert caplog.text.count("cannot be written down") == 1
    redis.start()
    with pytest.raises(BudgetSpent, match="ESI has stopped us") as caught:
        budget.reserve("/alliances/{}", None)
    assert 10 < caught.value.retry_after <= 30


@pytest.mark.services
def test_redis_that_has_forgotten_all_is_told_by_the_next_answer(fake, esi, redis):
    """Its script, too, is gone."""
    fetch_killmails(esi, range(1, 17))
    redis.kill()
    redis.start()
    with pytest.raises(BudgetSpent, match="the budget of killmail is spent"):
        fetch_killmails(esi, range(17, 61))
    assert len(fake.asked) == 43  # 86 tokens of 90: one more might cost five
    assert (fake.violations, fake.limits.lowest["killmail"]) == ([], 14)


def fetch_killmails(esi, numbers):
    for number in numbers:
        esi.fetch_killmail(number, killmail_hash(esi_body(number)))


def test_it_is_not_blind_a_budget_that_lets_through_would_ask(fake):
    """Known to be wrong: who counts for himself alone asks whatever others do."""
    esi = Esi(fake.url, "tests", Budget(MemoryStore()))
    assert esi.fetch_alliance(99000001) == ALLIANCE


@pytest.mark.django_db(transaction=True)
def test_threads_of_one_process_cannot_overdraw_in_the_database():
    budget, granted = Budget(DatabaseStore()), []

    def ask():
        try:
            while True:
                granted.append(budget.reserve("/killmails/{}/{}", Limit("killmail", 100, 900)))
        except BudgetSpent:
            pass
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 18  # 90 of 100 at five each
