"""Processes that tell that they live: rows that come, move on, and go."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import DatabaseError, connections
from django.db.models.functions import Now

from health import registry
from health.models import Process
from tests.feeding import stop_database_clock

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nobody_left(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "STOP_LIMIT", 60.0)
    yield
    for kind in Process.Kind:
        registry.stop(kind)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, list(Process.objects.values())
        time.sleep(0.02)


def start_worker() -> None:
    registry.start("worker", "worker 2 at host", ["feed", "bulk"], lambda: {"answers": {"200": 3}})
    wait_until(Process.objects.exists)


def test_a_process_tells_who_it_is_and_what_it_knows(settings) -> None:
    settings.WORKER_ID = "2"
    start_worker()
    process = Process.objects.alive().get()
    assert (process.kind, process.name, process.worker_id) == ("worker", "worker 2 at host", "2")
    assert (process.queues, process.facts) == (["bulk", "feed"], {"answers": {"200": 3}})
    assert f":{os.getpid()}:" in process.id


def test_starting_twice_makes_one_row_and_each_kind_has_its_own() -> None:
    start_worker()
    start_worker()
    registry.start("server", "server host:1")
    wait_until(lambda: Process.objects.count() == 2)
    assert Process.objects.filter(kind="worker").count() == 1
    assert Process.objects.get(kind="server").worker_id == ""


def test_the_heart_goes_on_beating_with_new_facts(monkeypatch) -> None:
    monkeypatch.setattr(registry, "BEAT", 0.05)
    facts = {"position": 1}
    registry.start("server", "server", facts=lambda: dict(facts))
    wait_until(Process.objects.exists)
    before = Process.objects.get()
    facts["position"] = 2
    wait_until(lambda: Process.objects.get().facts == {"position": 2})
    after = Process.objects.get()
    assert after.seen_at > before.seen_at
    assert after.started_at == before.started_at


def test_a_clean_stop_leaves_no_row() -> None:
    start_worker()
    registry.stop("worker")
    registry.stop("worker")
    assert not Process.objects.exists()


def test_who_was_not_seen_for_longer_than_three_heartbeats_does_not_live(monkeypatch) -> None:
    stop_database_clock(monkeypatch)
    for name, ago in (("lives", 14.9), ("gone", 15.1)):
        Process.objects.create(pk=name, name=name, kind="server", seen_at=Now() - timedelta(seconds=ago))
    assert [process.name for process in Process.objects.alive()] == ["lives"]


def test_rows_of_processes_that_were_killed_go_after_a_day() -> None:
    for name, ago in (("yesterday", 25), ("today", 23)):
        Process.objects.create(pk=name, name=name, kind="server", seen_at=Now() - timedelta(hours=ago))
    start_worker()
    wait_until(lambda: not Process.objects.filter(name="yesterday").exists())
    assert Process.objects.filter(name="today").exists()


def leave_row(pk: str, name: str, kind: str, ago: float) -> None:
    Process.objects.create(pk=pk, name=name, kind=kind, seen_at=Now() - timedelta(seconds=ago))


def test_who_takes_the_place_of_one_that_was_killed_takes_its_row_away() -> None:
    """So that a clean end of the successor does not bring back the alarm about the one before."""
    here = socket.gethostname()[:60]
    leave_row("elsewhere:1:a", "worker 2 at host", "worker", 20)
    leave_row(f"{here}:2:b", "another worker", "worker", 20)
    leave_row(f"{here}:3:c", "server host:3", "server", 20)
    leave_row("elsewhere:4:d", "server elsewhere:4", "server", 20)
    leave_row(f"{here}:5:e", "server host:5", "server", 1)
    start_worker()
    registry.start("server", "server host:9")
    wait_until(lambda: not Process.objects.filter(pk__in=["elsewhere:1:a", f"{here}:3:c"]).exists())
    left = [f"{here}:2:b", "elsewhere:4:d", f"{here}:5:e"]
    assert Process.objects.filter(pk__in=left).count() == 3


def test_facts_that_cannot_be_told_stop_no_heart() -> None:
    def facts() -> dict[str, object]:
        raise ValueError("no facts")

    registry.start("server", "server", facts=facts)
    wait_until(Process.objects.exists)
    assert Process.objects.get().facts == {}


def test_a_database_that_is_away_is_told_once_and_the_heart_beats_when_it_is_back(monkeypatch, caplog) -> None:
    tries = []

    def away() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise DatabaseError("away")
        own()

    own = registry.use_own_connection
    monkeypatch.setattr(registry, "AGAIN", 0.01)
    beat = registry._Heart._beat
    monkeypatch.setattr(registry._Heart, "_beat", lambda heart: (away(), beat(heart)))
    registry.start("server", "server at host")
    wait_until(Process.objects.exists)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["server at host cannot tell that it lives (DatabaseError)."]


def test_a_forked_child_does_not_count_as_its_parent() -> None:
    start_worker()
    child = os.fork()
    if child == 0:
        os._exit(0 if not registry._hearts else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.services
def test_the_heart_does_not_wait_for_a_place_in_the_pool() -> None:
    assert "pool" in connections["default"].settings_dict["OPTIONS"], "else this test says nothing"
    registry.start(
        "server", "server", facts=lambda: {"pool": "pool" in connections["default"].settings_dict["OPTIONS"]}
    )
    wait_until(Process.objects.exists)
    assert Process.objects.get().facts == {"pool": False}
