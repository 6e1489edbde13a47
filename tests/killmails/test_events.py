"""The log: positions without holes, in the order of the commits."""

import contextlib
import os
import random
import threading
import time

import pytest
from django.db import connection, transaction

from killmails import events
from killmails.events import KillmailLog, read_log
from killmails.models import InventoryType, Killmail, KillmailEvent, LogHead, SolarSystem
from realtime.log import Head
from tests.builders import package

pytestmark = pytest.mark.django_db
EVENTS = 20_000 if os.environ.get("LONG") == "1" else 2_000
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
    entries = read_log(Head(epoch, 1), 3, frozenset())
    assert [(entry.position, entry.kind, entry.killmail.pk) for entry in entries] == [
        (2, "ADDED", 1), (3, "ADDED", 1), (4, "ADDED", 1),
    ]  # fmt: skip
    assert entries[0].token == f"{epoch}:2"
    assert [entry.position for entry in read_log(Head(epoch, 4), 3, frozenset())] == [5]
    assert read_log(Head(epoch, 5), 3, frozenset()) == []


def test_head_and_checkpoint_say_where_the_log_stands(killmail):
    log = KillmailLog()
    epoch = LogHead.objects.get().epoch
    assert log.head() == Head(epoch, 0)
    append()
    assert log.head() == Head(epoch, 1)
    checkpoint = log.checkpoint(log.head())
    assert (checkpoint.kind, checkpoint.killmail, checkpoint.token) == ("CHECKPOINT", None, f"{epoch}:1")
    assert [event.position for event in log.read(Head(epoch, 0), 10, frozenset())] == [1]


# P14


@pytest.fixture
def sequence_numbered_table():
    """What others use for a log: numbers from a sequence of the database."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE naive_log (id bigserial PRIMARY KEY)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE naive_log")


def write(count: int, seed: int) -> None:
    chance = random.Random(seed)
    try:
        for _ in range(count):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("INSERT INTO naive_log DEFAULT VALUES")
                time.sleep(chance.uniform(0, 0.005))
                events.append(events.UPDATED, 1)
            time.sleep(chance.uniform(0, 0.002))
    finally:
        connection.close()


def new_rows(query: str, after: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(query, [after])
        return [number for (number,) in cursor.fetchall()]


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("writers", [WRITERS])
def test_reader_that_trusts_last_plus_one_sees_all_and_a_reader_of_a_sequence_does_not(
    killmail, sequence_numbered_table, writers
):
    threads = [threading.Thread(target=write, args=[EVENTS // writers, seed]) for seed in range(writers)]
    for thread in threads:
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
    assert positions == list(range(1, EVENTS + 1))
    assert LogHead.objects.get().position == EVENTS
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM naive_log")
        assert cursor.fetchone() == (EVENTS,)
    assert len(ids) < EVENTS, "blind: the reader that is known to be wrong lost nothing either"
