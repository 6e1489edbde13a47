"""The log: positions without holes, in the order of the commits."""

import contextlib
import os
import random
import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from killmails import events
from killmails.events import KillmailLog, read_filtered
from killmails.filters import read_filter
from killmails.models import InventoryType, Killmail, KillmailEvent, LogHead, SolarSystem
from realtime.log import Head
from tests.builders import package

pytestmark = pytest.mark.django_db
LONG = os.environ.get("LONG") == "1"
EVENTS = 20_000 if LONG else 1_600
WRITERS = 8


@pytest.fixture
def killmail():
    SolarSystem.objects.create(pk=1)
    InventoryType.objects.create(pk=1)
    columns = {"hash": package(1)["hash"], "time": "2026-11-20T12:34:56Z", "solar_system_id": 1}
    return Killmail.objects.create(pk=1, victim_ship_type_id=1, damage_taken=0, attacker_count=0, **columns)


def append(kind: str = events.ADDED) -> int:
    with transaction.atomic():
        return events.append(kind, 1)


def test_positions_are_dense_from_one(killmail):
    assert [append(), append(events.UPDATED), append()] == [1, 2, 3]
    rows = KillmailEvent.objects.order_by("position").values_list("position", "kind", "killmail_id")
    assert list(rows) == [(1, "ADDED", 1), (2, "UPDATED", 1), (3, "ADDED", 1)]
    assert LogHead.objects.get().position == 3


def test_position_of_a_transaction_that_failed_is_given_out_again(killmail):
    append()
    taken = []
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        taken.append(events.append(events.ADDED, 1))
        raise ZeroDivisionError
    assert taken == [2]
    assert append() == 2


def test_log_is_read_in_pages_and_in_order(killmail):
    for _ in range(5):
        append()
    epoch = LogHead.objects.get().epoch
    entries = KillmailLog().read(Head(epoch, 1), 3, frozenset())
    assert [(entry.position, entry.kind, entry.killmail.pk) for entry in entries] == [
        (2, "ADDED", 1), (3, "ADDED", 1), (4, "ADDED", 1),
    ]  # fmt: skip
    assert entries[0].token == f"{epoch}:2"
    assert [entry.position for entry in KillmailLog().read(Head(epoch, 4), 3, frozenset())] == [5]
    assert KillmailLog().read(Head(epoch, 5), 3, frozenset()) == []


def test_head_and_checkpoint_say_where_the_log_stands(killmail):
    log = KillmailLog()
    epoch = LogHead.objects.get().epoch
    assert log.head() == Head(epoch, 0)
    append()
    assert log.head() == Head(epoch, 1)
    checkpoint = log.checkpoint(log.head())
    assert (checkpoint.kind, checkpoint.killmail, checkpoint.token) == ("CHECKPOINT", None, f"{epoch}:1")
    assert checkpoint.created_at is None
    assert [event.position for event in log.read(Head(epoch, 0), 10, frozenset())] == [1]


def test_new_events_come_with_the_head_in_two_queries(killmail):
    log = KillmailLog()
    epoch = LogHead.objects.get().epoch
    assert log.read_new(Head(epoch, 0), 10, frozenset()) == (Head(epoch, 0), [])
    for _ in range(5):
        append()
    with CaptureQueriesContext(connection) as captured:
        head, entries = log.read_new(Head(epoch, 1), 3, frozenset())
    assert head == Head(epoch, 5)
    assert [(entry.epoch, entry.position, entry.killmail.pk) for entry in entries] == [
        (epoch, 2, 1), (epoch, 3, 1), (epoch, 4, 1),
    ]  # fmt: skip
    assert len(captured) == 2
    assert log.read_new(Head(epoch, 5), 3, frozenset()) == (Head(epoch, 5), [])
    assert log.read_new(Head(epoch, 9), 3, frozenset()) == (Head(epoch, 5), [])


def test_place_in_another_epoch_has_no_new_events(killmail):
    append()
    head = Head(LogHead.objects.get().epoch, 1)
    assert KillmailLog().read_new(Head("another", 0), 10, frozenset()) == (head, [])


def test_events_after_a_hole_are_read_all_the_same(killmail):
    epoch = LogHead.objects.get().epoch
    for _ in range(9):
        append()
    KillmailEvent.objects.filter(position__lt=8).delete()
    assert [entry.position for entry in KillmailLog().read(Head(epoch, 0), 3, frozenset())] == [8, 9]


def test_time_of_an_event_is_that_of_the_database(killmail):
    append()
    (entry,) = KillmailLog().read(Head(LogHead.objects.get().epoch, 0), 1, frozenset())
    assert entry.created_at == KillmailEvent.objects.get().created_at
    assert entry.created_at.utcoffset() == timedelta(0)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="on so few rows PostgreSQL's plan tells nothing")
@pytest.mark.parametrize(
    "value",
    [
        *({"labels": ["rare"]}, {"is_solo": True}, {"weapon_type_ids": [5]}, {"character_ids": [5]}),
        *({"ship_group_ids": [3]}, {"not": {"character_ids": [5]}}, {"any": [{"war_ids": [5]}, {"labels": ["rare"]}]}),
    ],
    ids=str,
)
def test_filtered_page_of_the_log_looks_at_the_killmails_of_its_events_alone(killmail, value):
    append()
    head = KillmailLog().head()
    with CaptureQueriesContext(connection) as captured:
        read_filtered(Head(head.epoch, 0), head, 25, frozenset(), read_filter(value))
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {captured.captured_queries[0]['sql']}")
        steps = [step for *_, step in cursor.fetchall()]
    assert steps[0].startswith("SEARCH killmails_killmailevent ")
    assert [step for step in steps if step.startswith("SCAN") and "json_each" not in step] == []


# P14


@pytest.fixture
def sequence_numbered_table():
    """What others use for a log: numbers from a sequence of the database."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE naive_log (id bigserial PRIMARY KEY)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE naive_log")


def write(count: int, seed: int, delay: float = 0.005) -> None:
    """Writes so many events, each with up to `delay` seconds between its number and its commit."""
    chance = random.Random(seed)
    # A connection of its own for each writer: the pool has ten, and would let no more write at once.
    options = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"}
    connection.settings_dict = connection.settings_dict | {"OPTIONS": options}
    try:
        for _ in range(count):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("INSERT INTO naive_log DEFAULT VALUES")
                time.sleep(chance.uniform(0, delay))
                events.append(events.UPDATED, 1)
            time.sleep(chance.uniform(0, 0.002))
    finally:
        connection.close()


def write_late(numbered: threading.Event, seen: threading.Event) -> None:
    """One event with the first number of all, whose commit waits until others were seen: nothing is left to chance."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO naive_log DEFAULT VALUES")
            numbered.set()
            assert seen.wait(60)
            events.append(events.UPDATED, 1)
    finally:
        connection.close()


def new_rows(query: str, after: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(query, [after])
        return [number for (number,) in cursor.fetchall()]


def is_of_one_moment(after: Head, head: Head, positions: list[int]) -> bool:
    """All there is up to the head, a hundred at most, and nothing beyond."""
    return positions == list(range(after.position + 1, min(head.position, after.position + 100) + 1))


def test_head_that_was_read_first_is_seen_to_be_passed(killmail):
    """Known to be wrong: what comes between the two is beyond the head. Else the test below might be blind."""
    after, head = Head(LogHead.objects.get().epoch, 0), KillmailLog().head()
    append()
    positions = [entry.position for entry in KillmailLog().read(after, 100, frozenset())]
    assert not is_of_one_moment(after, head, positions)


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_head_and_new_events_are_of_one_moment(killmail, sequence_numbered_table):
    threads = [threading.Thread(target=write, args=[100, seed]) for seed in range(WRITERS)]
    for thread in threads:
        thread.start()
    after, wrong = Head(LogHead.objects.get().epoch, 0), 0
    while after.position < 100 * WRITERS:
        head, entries = KillmailLog().read_new(after, 100, frozenset())
        positions = [entry.position for entry in entries]
        wrong += not is_of_one_moment(after, head, positions)
        after = Head(head.epoch, positions[-1] if positions else after.position)
    for thread in threads:
        thread.join()
    assert wrong == 0


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("writers", [8, 32])
def test_reader_that_trusts_last_plus_one_sees_all_and_a_reader_of_a_sequence_does_not(
    killmail, sequence_numbered_table, writers
):
    delay = 0.05 if LONG else 0.005
    threads = [threading.Thread(target=write, args=[EVENTS // writers, seed, delay]) for seed in range(writers)]
    numbered, seen = threading.Event(), threading.Event()
    threads.append(threading.Thread(target=write_late, args=[numbered, seen]))
    threads[-1].start()
    assert numbered.wait(60)
    for thread in threads[:-1]:
        thread.start()
    positions: list[int] = []
    ids: list[int] = []
    going_on = True
    while going_on:
        going_on = any(thread.is_alive() for thread in threads)
        positions += new_rows(
            "SELECT position FROM killmails_killmailevent WHERE position > %s ORDER BY position",
            positions[-1] if positions else 0,
        )
        ids += new_rows("SELECT id FROM naive_log WHERE id > %s ORDER BY id", ids[-1] if ids else 0)
        if ids:
            seen.set()
    assert positions == list(range(1, EVENTS + 2))
    assert LogHead.objects.get().position == EVENTS + 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM naive_log")
        assert cursor.fetchone() == (EVENTS + 1,)
    assert len(ids) <= EVENTS, "blind: the reader that is known to be wrong lost nothing either"
