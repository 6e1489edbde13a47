"""Twenty workers at an ESI that enforces its limits: all is done, and no limit is met.

Short: small buckets that are filled in a few seconds. LONG=1: the real ones, for one and a half windows. In four
processes of five threads each; the short form with the database in one, since it takes each of them a second to begin.
"""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
import redis as redis_client
from django.db import connection

from killmails.fake_eve import FakeEsi, World
from killmails.models import EsiBudget
from killmails.recording.tape import killmail_hash
from tests.builders import ROOT, esi_body
from tests.services import Redis

# The workers are processes of their own: what they see must be committed. The embedded way has but one process.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.services]

LONG = os.environ.get("LONG") == "1"
WORKERS, PROCESSES = 20, 4
# Of ESI's clock: a window takes 30 s, or 4. On a machine that is too busy to spend so much in it, then in 8, 15 or 30.
SPEEDS = [30] if LONG else [15, 7.5, 4, 2]
BUCKET, WINDOW = (3600, 900) if LONG else (150, 60)
# The work is more than a window's: what may be spent is spent, as fast as the machine is, and a tenth is left.
SLACK = 20 if LONG else 45
RIGHT, WRONG, NOBODY, SOMEBODY = (2300, 50, 900, 300) if LONG else (70, 8, 100, 20)


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@contextlib.contextmanager
def fake_esi(speed):
    world = World()
    world.add_killmails(esi_body(number) for number in range(1, RIGHT + 1))
    world.corporations = {number: {"name": f"Corporation {number}", "ticker": "T"} for number in range(1, SOMEBODY + 1)}
    with FakeEsi(world, speed=speed, groups={"killmail": (BUCKET, WINDOW)}) as fake:
        yield fake


def all_work() -> list:
    right = [["fetch_killmail", [number, killmail_hash(esi_body(number))]] for number in range(1, RIGHT + 1)]
    wrong = [["fetch_killmail", [number, "0" * 40]] for number in range(1, WRONG + 1)]
    corporations = [["fetch_corporation", [number]] for number in range(1, SOMEBODY + NOBODY + 1)]
    return right + wrong + corporations


def start(fake: FakeEsi, store: str, port: int = 0) -> list:
    """The processes, when all of them have begun."""
    work, began = all_work(), []
    count = 1 if store == "database" and not LONG else PROCESSES
    for index in range(count):
        order = {
            "url": fake.url,
            "speed": fake.clock.speed,
            "threads": WORKERS // count,
            "store": store,
            "port": port,
            "database": str(connection.settings_dict["NAME"]),
            "work": work[index::count],
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.killmails.esi_workers"],
            cwd=ROOT,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "killboard.settings", "LOG_LEVEL": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        began.append(process)
    for process in began:
        assert process.stdout.readline() == b"ready\n"
    fake.clock._began = time.monotonic()  # a minute begins now
    for process in began:
        process.stdin.close()
    return began


@pytest.mark.parametrize("store", ["database", "redis"])
def test_twenty_workers_use_the_whole_budget_and_no_more(store, request):
    port = request.getfixturevalue("redis").port if store == "redis" else 0
    for speed in SPEEDS:
        EsiBudget.objects.all().delete()
        if port:
            redis_client.Redis(port=port).flushall()
        with fake_esi(speed) as fake:
            do_all_work(fake, store, port)
            lowest = fake.limits.lowest
        if lowest["killmail"] < BUCKET // 10 + SLACK and lowest["errors"] < 10 + SLACK:
            return
    raise AssertionError(f"of what may be spent too much is left: {lowest}")


def do_all_work(fake, store, port):
    """Whatever happens, all is done and no limit is met."""
    processes = start(fake, store, port)
    began = time.monotonic()
    ends = [json.loads(process.stdout.read()) for process in processes]
    assert [process.wait(300) for process in processes] == [0] * len(processes)
    took = time.monotonic() - began
    assert fake.violations == []
    assert sum(end.pop("done") for end in ends) == RIGHT + NOBODY + SOMEBODY
    assert sum(end.pop("unknown") for end in ends) == WRONG
    assert ends == [{}] * len(processes)  # nobody was refused
    assert fake.limits.lowest["killmail"] >= BUCKET // 10
    assert fake.limits.lowest["errors"] >= 10
    assert took > 60 / fake.clock.speed
    if LONG:  # killmails come first in all work: a window until the last of them, then ninety errors a minute
        assert took < 1.3 * (WINDOW + NOBODY / 90 * 60) / fake.clock.speed


def test_it_is_not_blind_a_budget_for_each_worker_breaks_the_limits():
    with fake_esi(SPEEDS[0]) as fake:
        fake.clock.now = lambda: 0.0  # nothing comes back, however slow the machine is: the work is more than there is
        processes = start(fake, "own")
        try:
            until = time.monotonic() + 120
            while not fake.violations and time.monotonic() < until:
                time.sleep(0.02)
            assert fake.violations
        finally:
            for process in processes:
                process.kill()
                process.wait()
                process.stdout.close()
