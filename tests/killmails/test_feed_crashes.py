"""A worker of the feed that is killed: nothing is lost, nothing is stored twice, positions have no holes.

Short: each point twice over a few hundred packages. LONG=1: 50 times each, over 3,000.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping

import pytest
from django.db import connection

from killmails.models import Attacker, FeedCursor, FeedGap, Killmail, KillmailEvent, KillmailPackage, RejectedKillmail
from tests.builders import ROOT, raw_package
from tests.fake_r2z2 import FakeR2Z2, Reply
from tests.feeding import cursor

# The children of the driver are processes of their own: what they see must be committed.
pytestmark = pytest.mark.django_db(transaction=True)

LONG = os.environ.get("LONG") == "1"
PACKAGES = 3000 if LONG else 150
KILLS = 50 if LONG else 2
IN_THE_TRANSACTION = ["transaction_begun", "after_cursor", "after_entities", "after_killmail", "after_attackers",
                      "after_package", "after_counter", "before_commit"]  # fmt: skip
POINTS = ["after_lease", "before_fetch", "after_headers", "mid_body", "after_parse", *IN_THE_TRANSACTION, "in_commit",
          "after_commit", "after_doorbell"]  # fmt: skip
FIRST = 100


class MeetingPoint(FakeR2Z2):
    """With `workers` 2 it answers a question when both of them have asked it: neither runs ahead of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = 1
        self._meetings: dict[str, threading.Barrier] = {}

    def reply_to(self, path: str, headers: Mapping[str, str]) -> Reply:
        reply = super().reply_to(path, headers)
        with contextlib.suppress(threading.BrokenBarrierError):
            self._meetings.setdefault(path, threading.Barrier(self.workers)).wait(10)
        return reply


@pytest.fixture
def fake():
    with MeetingPoint() as fake:
        for sequence in range(FIRST, FIRST + PACKAGES):
            fake.put(sequence, raw_package(sequence))
        yield fake


def drive(fake: FakeR2Z2, kills: list, clean: int = 1, wrong: bool = False, packages: int = PACKAGES) -> list:
    """How each child ended; then `clean` workers have brought the cursor to the end of the feed."""
    FeedCursor.objects.create(name="r2z2", next_sequence=FIRST)
    order = {
        "url": fake.url,
        "database": str(connection.settings_dict["NAME"]),
        "last": FIRST + packages - 1,
        "kills": kills,
        "clean": clean,
        "wrong": wrong,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.killmails.feed_driver"],
        input=json.dumps(order).encode(),
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "killboard.settings", "LOG_LEVEL": "error"},
        stdout=subprocess.PIPE,
        timeout=1800,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["clean"] == [0] * clean
    assert cursor().next_sequence == FIRST + packages
    return told["ends"]


def lost(packages: int = PACKAGES) -> set[int]:
    wanted = {1000 + sequence for sequence in range(FIRST, FIRST + packages)}
    return wanted - set(Killmail.objects.values_list("pk", flat=True))


def expect_exactly_once(packages: int = PACKAGES) -> None:
    assert lost(packages) == set()
    assert Killmail.objects.count() == packages
    assert KillmailPackage.objects.count() == packages
    assert Attacker.objects.count() == 2 * packages
    assert FeedGap.objects.count() == RejectedKillmail.objects.count() == 0
    log = list(KillmailEvent.objects.order_by("position").values_list("position", "kind", "killmail_id"))
    # One worker at a time, or the cursor's compare-and-set: in the feed's own order, too.
    assert log == [(number, "ADDED", 999 + FIRST + number) for number in range(1, packages + 1)]


def test_worker_that_is_killed_at_any_point_loses_nothing_and_stores_nothing_twice(fake):
    chance = random.Random(29)
    kills = [[point, chance.randint(1, 3)] for point in POINTS * KILLS]
    chance.shuffle(kills)
    ends = drive(fake, kills)
    assert ends == [[point, -signal.SIGKILL] for point, _ in kills], "a point was not met"
    expect_exactly_once()


def test_cursor_that_moves_before_the_store_is_seen_to_lose(fake):
    """The known-wrong variant: without it the test above might be blind."""
    points = [point for point in IN_THE_TRANSACTION if point != "transaction_begun"]
    ends = drive(fake, [[point, 2] for point in points], wrong=True, packages=50)
    assert {end for _, end in ends} == {-signal.SIGKILL}
    assert len(lost(50)) == len(points)


def test_two_workers_that_both_hold_the_lease_store_each_package_once(fake):
    fake.workers = 2
    drive(fake, [], clean=2)
    asked = [name for name in fake.asked if name != "sequence"]
    assert len(asked) - len(set(asked)) > PACKAGES / 2, "blind: they did not meet"
    expect_exactly_once()
