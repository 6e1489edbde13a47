"""RabbitMQ and its workers: no task is lost and none goes on without end, and the feed needs no broker.

P7: RabbitMQ killed, frozen, away: the feed goes on at 95 % of its pace, and what was queued is done within 60 s after.
P8: a task whose process is killed is done once more; one that kills its process ends among the dead letters.
"""

import contextlib
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from kombu.exceptions import OperationalError

from tests.builders import raw_package
from tests.e2e.crowd import LONG, Asking
from tests.e2e.faulty_work import Work
from tests.e2e.processes import Board, Process, new_board
from tests.e2e.sockets import wait_until
from tests.fake_r2z2 import FakeR2Z2
from tests.services import RabbitMQ

pytestmark = [pytest.mark.e2e, pytest.mark.services]

AWAY = 600.0 if LONG else 2.5  # seconds
BEFORE = 30.0 if LONG else 2.5
LEAST = 0.95  # of the pace before
WAIT = 5 if LONG else 60  # seconds
KILLMAILS = 30_000 if LONG else 3_000
REPLAYS = 20
LONG_WORK = 300.0  # seconds: whoever does it is killed in the middle
GOES_ON = 10  # killmails in which the feed shows that it goes on


class Running(NamedTuple):
    board: Board
    work: Work
    broker: RabbitMQ
    frail: Process
    worker: Process


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A board with a broker of its own, a server, and two workers; the one of the endless queue is to die."""
    with FakeR2Z2() as feed, contextlib.closing(RabbitMQ()) as broker:
        broker.launch()  # it takes its time
        feed.point(1)
        for number in range(1, KILLMAILS + 1):
            feed.put(number, raw_package(number))
        env = {"RABBITMQ_URL": broker.url, "R2Z2_URL": feed.url, "FEED": "live"}
        with new_board(tmp_path_factory.mktemp("broker"), "broker_faults", **env) as board:
            work = Work(board)
            broker.wait_until_ready()
            frail = work.worker("frail", "-Q", "endless", "-c", "1")
            worker = work.worker("worker", "-Q", "feed,publish,esi,bulk", "-c", "2")
            board.uvicorn()
            worker.wait_for("ready."), frail.wait_for("ready.")
            yield Running(board, work, broker, frail, worker)


def rows(board: Board, query: str, *values: object) -> list[tuple]:
    with psycopg.connect(board.env["DATABASE_URL"], autocommit=True) as connection:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []


def letters(running: Running) -> list[tuple]:
    return rows(running.board, "SELECT task, arguments, reason, deliveries, raw FROM killmails_deadletter ORDER BY id")


def collect(running: Running, count: int) -> list[tuple]:
    """The dead letters, once there are so many: what beat asks for four times a minute is asked for all the time."""

    def there() -> bool:
        running.work.send_task("killmails.tasks.collect_dead_letters")
        time.sleep(0.2)
        return len(letters(running)) >= count

    wait_until(there, 90)
    return letters(running)


def test_p8_a_task_whose_process_is_killed_is_done_once_more(running: Running) -> None:
    work = running.work
    survives, lost = work.send("work", LONG_WORK), work.send("frail_work", LONG_WORK)
    work.kill(survives), work.kill(lost)
    work.wait_for("done", survives)
    assert work.times(survives) == (2, 1)
    assert work.times(lost) == (1, 0)  # known to be wrong: it was acknowledged too early


def test_p8_a_task_that_kills_its_process_ends_among_the_dead_letters_and_holds_up_nobody(running: Running) -> None:
    work = running.work
    poison, endless = work.send("poison", 99), work.send("poison", 8, queue="endless")
    longest = 0.0
    while len(work.notes("poison", poison)) < 6:
        begun = time.monotonic()
        other = work.send("work", 0)
        work.wait_for("done", other)
        longest = max(longest, time.monotonic() - begun)
        time.sleep(0.05)
    found = collect(running, 1)
    assert [letter[:4] for letter in found] == [("tests.e2e.fault_tasks.poison", [poison, 99], "delivery_limit", 6)]
    assert len(work.notes("poison", poison)) == 6
    assert longest <= WAIT
    work.wait_for("poison", endless, times=8)  # known to be wrong: nothing ends it
    print(f"P8: six runs, one dead letter; other tasks waited {longest:.2f} s at most")


class Bomb:
    def __init__(self, file: Path) -> None:
        self._command = f"touch {file}"

    def __reduce__(self) -> tuple:
        return os.system, (self._command,)


REPLAY = "killmails.tasks.replay_rejected"
TASK = b"[[1], {}, {}]"
FOREIGN = [
    (TASK, "text/plain", {"task": REPLAY, "id": "1"}),
    (b'{"a": 1}', "application/json", {"task": REPLAY, "id": "2"}),
    (b"[5, 6, 7]", "application/json", {"task": REPLAY, "id": "3"}),
    (b"\xff\xfe", "application/json", {"task": REPLAY, "id": "4"}),
    (TASK, "application/json", {"task": "no.such", "id": "5"}),
    (TASK, "application/json", {"task": REPLAY}),
    (TASK, "application/json", {"task": REPLAY, "id": "6", "timelimit": "soon"}),
    (TASK, "application/json", {"task": REPLAY, "id": "7", "eta": "soon"}),
    (b"hello", "application/json", {}),
]


def test_t22_what_is_no_task_is_refused_and_never_executed(running: Running) -> None:
    file = running.board.folder / "executed"
    bomb = pickle.dumps(Bomb(file))
    before = len(letters(running))
    for headers in ({"task": REPLAY, "id": "bomb"}, {}):
        running.work.send_raw(bomb, "application/x-python-serialize", **headers)
    for body, content_type, headers in FOREIGN:
        running.work.send_raw(body, content_type, **headers)
    found = collect(running, before + 2 + len(FOREIGN))[before:]
    assert {reason for _, _, reason, *_ in found} == {"rejected"}
    assert sorted(bytes(raw) for *_, raw in found) == sorted([bomb, bomb, *(body for body, *_ in FOREIGN)])
    assert not file.exists()
    pickle.loads(bomb)
    assert file.exists()


def test_p8_the_tasks_of_a_worker_that_is_killed_are_done_by_another(running: Running) -> None:
    """The queue `endless` is served by nobody else, so that the next worker has to be one that is started."""
    work = running.work
    running.frail.kill()
    frail = work.worker("frail2", "-Q", "endless", "-c", "2")
    survives, lost = (work.send(task, LONG_WORK, queue="endless") for task in ("work", "frail_work"))
    work.wait_for("begun", survives), work.wait_for("begun", lost)
    # A worker of two processes is given a third task when RabbitMQ has the acknowledgement of one of the two.
    work.send("work", 0, queue="endless")
    wait_until(lambda: frail.log.read_text().count(" received") == 3)
    frail.kill()
    next_one = work.worker("next", "-Q", "endless", "-c", "2")
    work.wait_for("done", survives)
    assert work.times(survives) == (2, 1)
    assert work.times(lost) == (1, 0)  # known to be wrong
    next_one.kill()


def stored(board: Board) -> int:
    return rows(board, "SELECT count(*) FROM killmails_killmail")[0][0]


def pace(board: Board, seconds: float) -> float:
    """Killmails stored in a second. The feed has to go on; how fast, few seconds of a busy machine do not tell."""
    first, begun = stored(board), time.monotonic()
    time.sleep(seconds)
    wait_until(lambda: stored(board) >= first + GOES_ON)
    return (stored(board) - first) / (time.monotonic() - begun)


def want_replays(board: Board) -> None:
    """As the admin does while the queue is away."""
    for number in range(REPLAYS):
        rows(
            board,
            "INSERT INTO killmails_rejectedkillmail (sequence, reason, detail, raw, state, note, changed_at) "
            "VALUES (%s, 'BAD_FIELD', '', %s, 'QUEUED', '', now() - interval '1 minute')",
            10**6 + number,
            raw_package(10**6 + number),
        )


def replayed(board: Board) -> bool:
    query = "SELECT count(*) FROM killmails_rejectedkillmail WHERE state = 'STORED'"
    return rows(board, query) == [(REPLAYS,)]


def expect_nothing_lost(board: Board) -> None:
    """Of what the feed has passed, and of the replays; each has one event."""
    with psycopg.connect(board.env["DATABASE_URL"]) as connection:  # one snapshot: the feed goes on
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ((after,),) = connection.execute("SELECT next_sequence FROM killmails_feedcursor").fetchall()
        events = connection.execute("SELECT position, killmail_id FROM killmails_killmailevent").fetchall()
    numbers = [*range(1, after), *range(10**6, 10**6 + REPLAYS)]
    assert sorted(position for position, _ in events) == list(range(1, len(numbers) + 1))
    assert sorted(killmail for _, killmail in events) == [1000 + number for number in numbers]


def sweep(work: Work) -> bool:
    """Asks for what beat asks for, four times a minute. Whether the broker, which has begun just now, took it."""
    try:
        work.send_task("killmails.tasks.sweep_replays")
    except (OperationalError, OSError):
        return False
    return True


def test_p7_the_feed_and_queries_need_no_broker_and_its_return_brings_everything(running: Running) -> None:
    board, work, broker, *_ = running
    with Asking(board) as asking:
        before = pace(board, BEFORE)
        queued = [work.send("work", 0.5) for _ in range(10)]
        broker.kill()
        want_replays(board)
        with pytest.raises((OperationalError, OSError)):
            work.send("work", 0)  # it is away indeed
        killed = pace(board, AWAY)
        broker.start()
        back = time.monotonic()
        if LONG:
            board.beat()
        else:
            wait_until(lambda: sweep(work))
        done = lambda: all(work.notes("done", number) for number in queued) and replayed(board)  # noqa: E731
        wait_until(done, 60 if LONG else 120)
        took = time.monotonic() - back
        broker.pause()
        frozen = pace(board, AWAY / 10 if LONG else AWAY)
        broker.resume()
        after = work.send("work", 0)
        work.wait_for("done", after)
    if LONG:  # short of half a minute nobody can know that it is frozen
        assert "Too many heartbeats missed" in running.worker.log.read_text()
    assert asking.failures == []
    expect_nothing_lost(board)
    assert not LONG or min(killed, frozen) >= before * LEAST
    print(f"P7: {before:.1f} killmails/s, {killed:.1f} without RabbitMQ, {frozen:.1f} while it is frozen; "
          f"all work done {took:.1f} s after it was back")  # fmt: skip
