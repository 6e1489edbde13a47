"""What the tests of the feed share, and those of ESI."""

import pytest

from killmails.fake_eve import FakeEsi, World
from killmails.ingest import feed
from killmails.upstream import esi_questions, zkillboard
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.esi import Esi
from tests.builders import esi_body
from tests.fake_r2z2 import FakeR2Z2
from tests.feeding import stop_database_clock
from tests.killmails.budgets import Clock, clocked
from tests.killmails.eve import Eve, losses, world_of
from tests.services import Redis


@pytest.fixture
def still(monkeypatch):
    """The database's clock stands still."""
    stop_database_clock(monkeypatch)


@pytest.fixture
def fake(monkeypatch, still):
    """The upstream that misbehaves as it is told, in a time that passes only when the test says so."""
    # The test's own transaction lives on the connection that a step would give back.
    monkeypatch.setattr(feed, "close_old_connections", lambda: None)
    monkeypatch.setattr(zkillboard, "PACE", 0.0)  # test_zkillboard looks at the pace
    with FakeR2Z2() as fake:
        yield fake


@pytest.fixture
def fake_esi():
    """An ESI that knows everybody on one killmail."""
    world = World()
    world.add_killmails([esi_body(1)])
    with FakeEsi(world) as fake:
        yield fake


@pytest.fixture
def esi(fake_esi):
    """The client, with a budget for this test alone."""
    return Esi(fake_esi.url, "tests@example.com", Budget(MemoryStore()))


@pytest.fixture
def eve(settings, monkeypatch):
    """A fake EVE where somebody has lost three ships, and the board's ways to ask it."""
    monkeypatch.setattr(esi_questions, "PAUSE", 0.01)
    monkeypatch.setattr(zkillboard, "SITE_PACE", 0.0)
    with FakeEsi(world_of(losses(3))) as fake:
        yield Eve(fake, settings)


@pytest.fixture(scope="module")
def budget_redis():
    """Of its own: a test may stop it."""
    with Redis() as server:
        yield server


@pytest.fixture
def clock():
    """What each of the stores below goes by."""
    return Clock()


@pytest.fixture(params=["memory", "database", pytest.param("redis", marks=pytest.mark.services)])
def store(request, clock, monkeypatch):
    """Each kind in which the budget of ESI may be kept."""
    port = request.getfixturevalue("budget_redis").port if request.param == "redis" else 0
    return clocked(request.param, clock, port, monkeypatch)
