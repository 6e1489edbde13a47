"""Twenty workers at an ESI that enforces its limits: all is done, and no limit is met.

Short: small buckets that are filled in a few seconds. LONG=1: the real ones, for one and a half windows. In four
processes of five threads each; the short form with the database in one, since it takes each of them a second to begin.
"""

import json
import os
import subprocess
import sys
import time

import pytest
from django.db import connection

from killmails.fake_eve import FakeEsi, World
from killmails.recording.tape import killmail_hash
from tests.builders import ROOT, esi_body
from tests.services import Redis

# The workers are processes of their own: what they see must be committed. The embedded way has but one process.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.services]

LONG = os.environ.get("LONG") == "1"
WORKERS, PROCESSES = 20, 4
SPEED = 30 if LONG else 15  # of ESI's clock: a window takes 30 s, or 4
BUCKET, WINDOW = (3600, 900) if LONG else (150, 60)
RIGHT, WRONG, NOBODY, SOMEBODY = (2300, 50, 900, 300) if LONG else (70, 8, 100, 20)


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@pytest.fixture
def fake():
    world = World()
    world.add_killmails(esi_body(number) for number in range(1, RIGHT + 1))
    world.corporations = {number: {"name": f"Corporation {number}", "ticker": "T"} for number in range(1, SOMEBODY + 1)}
    with FakeEsi(world, speed=SPEED, groups={"killmail": (BUCKET, WINDOW)}) as fake:
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
            "speed": SPEED,
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
    fake.clock.__init__(SPEED)  # a minute begins now
    for process in began:
        process.stdin.close()
    return began


@pytest.mark.parametrize("store", ["database", "redis"])
def test_twenty_workers_use_the_whole_budget_and_no_more(fake, store, request):
    port = request.getfixturevalue("redis").port if store == "redis" else 0
    processes = start(fake, store, port)
    began = time.monotonic()
    ends = [json.loads(process.stdout.read()) for process in processes]
    assert [process.wait(60) for process in processes] == [0] * len(processes)
    took = time.monotonic() - began
    assert fake.violations == []
    assert sum(end.pop("done") for end in ends) == RIGHT + NOBODY + SOMEBODY
    assert sum(end.pop("unknown") for end in ends) == WRONG
    assert ends == [{}] * len(processes)  # nobody was refused
    # The work is more than a window's: what may be spent was spent, as fast as the machine is, and a tenth is left.
    slack = 20 if LONG else 45
    lowest = fake.limits.lowest
    assert BUCKET // 10 <= lowest["killmail"] < BUCKET // 10 + slack
    assert 10 <= lowest["errors"] < 10 + slack
    assert took > 60 / SPEED
    if LONG:  # killmails come first in all work: a window until the last of them, then ninety errors a minute
        assert took < 1.3 * (WINDOW + NOBODY / 90 * 60) / SPEED


def test_it_is_not_blind_a_budget_for_each_worker_breaks_the_limits(fake):
    processes = start(fake, "own")
    try:
        until = time.monotonic() + 60
        while not fake.violations and time.monotonic() < until:
            time.sleep(0.02)
        assert fake.violations
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
