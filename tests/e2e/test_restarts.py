"""Whoever is stopped finishes what is in hand and ends in time; a board is restarted, and nobody misses anything.

P22: 3 servers, 2 workers of each queue restarted in turn under 50 events/s, behind a proxy: missing 0, double 0, no
failed query, each gone within 25 s, 99 of 100 events with their subscribers within 10 s.
P23: exit code 0 after SIGTERM and SIGINT, 1 where a task was given back, which is at once after the same signal again.
"""

import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.builders import raw_package
from tests.e2e.crowd import LONG, Asking, Crowd, Publisher, ask, head_of
from tests.e2e.faulty_work import Work
from tests.e2e.processes import Board, new_board
from tests.e2e.proxy import Proxy
from tests.e2e.sockets import wait_until
from tests.fake_r2z2 import FakeR2Z2
from tests.services import RabbitMQ

pytestmark = [pytest.mark.e2e, pytest.mark.services]

RATE = 50
SERVERS, FEEDS, BULKS = (3, 2, 2) if LONG else (2, 2, 1)
ROUNDS = 3 if LONG else 1
SUBSCRIBERS, FORGETFUL = (40, 10) if LONG else (12, 4)
KILLMAILS = 600 if LONG else 100
ROOM = {"MAX_SOCKETS_PER_ADDRESS": "100"}  # the proxy has but one
SOFT = 2.0  # seconds that a task in hand has in the test of one that takes longer
GONE = 25.0 if LONG else 60.0  # seconds; a machine that stalls takes some of them
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def feed() -> Iterator[FakeR2Z2]:
    with FakeR2Z2() as feed:
        feed.point(1)
        for number in range(1, KILLMAILS + 1):
            feed.put(number, raw_package(number))
        yield feed


def next_sequence(board: Board) -> int:
    with psycopg.connect(board.env["DATABASE_URL"]) as connection:
        return connection.execute("SELECT next_sequence FROM killmails_feedcursor").fetchone()[0]


def stop(process, signum: int = signal.SIGTERM) -> float:
    """Seconds until it was gone, with exit code 0."""
    begun = time.monotonic()
    assert process.stop(signum) == 0, process.end_of_log()
    seconds = time.monotonic() - begun
    assert seconds <= GONE
    return seconds


class Site:
    """All processes of a board behind a proxy, each of which can be restarted."""

    def __init__(self, board: Board, stack: ExitStack) -> None:
        self.board, self.work = board, Work(board)
        self.work.waiting()  # of earlier tests
        names = [f"feed{number}" for number in range(FEEDS)] + [f"bulk{number}" for number in range(BULKS)]
        self.starts: Counter[str] = Counter()
        self.workers = {name: self._worker(name) for name in names}
        others = [stack.enter_context(Board(board.folder, board.env)) for _ in range(SERVERS - 1)]
        self.servers = {each: each.uvicorn() for each in (board, *others)}
        self.proxy = stack.enter_context(Proxy(*self.servers))
        self.wait_for_workers()

    def wait_for_workers(self) -> None:
        for name, worker in self.workers.items():
            # All starts of one name have one log.
            wait_until(lambda log=worker.log, name=name: log.read_text().count("ready.") >= self.starts[name], 120)

    def _worker(self, name: str):
        self.starts[name] += 1
        return self.work.worker(name, "-Q", name[:4], "-c", "1")

    def restart_in_turn(self) -> list[float]:
        """How long each took to end. Each worker of `bulk` has a task in hand then, which it does to its end."""
        seconds, signals = [], itertools.cycle(SIGNALS)
        for board in self.servers:
            seconds.append(stop(self.servers[board], next(signals)))
            self.servers[board] = board.uvicorn()
        for name in self.workers:
            self.wait_for_workers()
            in_hand = [self.work.send("work", 1.0) for _ in range(BULKS)] if name.startswith("bulk") else []
            for number in in_hand:
                self.work.wait_for("begun", number)
            seconds.append(stop(self.workers[name], next(signals)))
            self.workers[name] = self._worker(name)
            for number in in_hand:
                self.work.wait_for("done", number)
                assert self.work.times(number) == (1, 1)
        return seconds


def test_p22_a_whole_board_is_restarted_in_turn_and_nobody_misses_anything(tmp_path: Path, feed: FakeR2Z2) -> None:
    with ExitStack() as stack:
        board = stack.enter_context(new_board(tmp_path, "restarts", FEED="live", R2Z2_URL=feed.url, **ROOM))
        site = Site(board, stack)
        crowd, forgetful = stack.enter_context(Crowd()), stack.enter_context(Crowd())
        publisher = Publisher(board, RATE).begun()
        ask(site.proxy)  # the first answer takes longer
        crowd.open(SUBSCRIBERS, site.proxy, persistent=True)
        forgetful.open(FORGETFUL, site.proxy, persistent=True, resume=False)
        with Asking(site.proxy) as asking:
            seconds = [second for _ in range(ROUNDS) for second in site.restart_in_turn()]
            wait_until(lambda: next_sequence(board) == KILLMAILS + 1, 120)
        committed = publisher.finish()
        head = head_of(board)[1]
        report = crowd.expect_everything(head)
        late = crowd.ask("late", committed={str(position): when for position, when in committed.items()})
        behind, missing = forgetful.wait_for(head), forgetful.report()["missing"]
    # Not blind: who comes back without a position has missed events.
    assert (behind, missing > 0) == (0, True)
    assert head == len(committed) + KILLMAILS  # each stored once, also what the workers of the feed were stopped at
    assert asking.failures == []
    assert not LONG or late["p99"] <= 10
    print(f"P22: {len(asking.seconds)} queries, none failed; each process gone within {max(seconds):.1f} s; {late}; "
          f"closed: {report['closed']}")  # fmt: skip


def given_back(work: Work) -> list[tuple[str, int]]:
    """What is in the queue, once anything is."""
    found: list[tuple[str, int]] = []
    wait_until(lambda: found.extend(work.waiting()) or found)
    return found


def test_p23_what_is_not_done_in_time_goes_back_to_the_queue_and_all_end_as_documented(tmp_path: Path) -> None:
    with new_board(tmp_path, "ends", SOFT=str(SOFT)) as board:
        work = Work(board)
        work.waiting()  # of earlier tests
        worker = work.worker("worker", "-Q", "bulk", "-c", "2")
        beats = {signum: board.beat(f"beat{signum:d}") for signum in SIGNALS}
        back, lost = work.send("work", 600.0), work.send("frail_work", 600.0)
        work.wait_for("begun", back), work.wait_for("begun", lost)
        begun = time.monotonic()
        worker.popen.send_signal(signal.SIGTERM)
        worker.popen.send_signal(signal.SIGINT)  # as of a terminal beside a supervisor: it ends none the sooner
        assert worker.popen.wait(GONE) == 1
        assert SOFT - 0.5 <= time.monotonic() - begun <= GONE
        # Known to be wrong: what was acknowledged too early is in no queue any more.
        assert given_back(work) == [("work", back)]
        assert work.times(back) == (1, 0)
        for signum, beat in beats.items():
            beat.wait_for("beat: Starting")
            stop(beat, signum)


@pytest.mark.parametrize("signum", SIGNALS if LONG else [signal.SIGINT])
def test_p23_a_worker_that_is_asked_twice_ends_at_once(tmp_path: Path, signum: int) -> None:
    with new_board(tmp_path, "twice", SOFT="600") as board:
        work = Work(board)
        work.waiting()
        worker = work.worker("worker", "-Q", "bulk", "-c", "1")
        back = work.send("work", 600.0)
        work.wait_for("begun", back)
        worker.popen.send_signal(signum)
        worker.wait_for("worker: Warm shutdown")
        assert worker.popen.poll() is None
        worker.popen.send_signal(signum)
        assert worker.popen.wait(GONE) == 1
        assert given_back(work) == [("work", back)]


def test_p23_a_worker_without_work_ends_with_0_also_while_rabbitmq_is_frozen(tmp_path: Path) -> None:
    """It says goodbye to a broker that does not answer, and leaves when its time is over."""
    with contextlib.closing(RabbitMQ()) as broker:
        broker.launch()
        broker.wait_until_ready()
        with new_board(tmp_path, "frozen", SOFT=str(SOFT), RABBITMQ_URL=broker.url) as board:
            worker = Work(board).worker("worker", "-Q", "bulk", "-c", "1")
            worker.wait_for("ready.")
            broker.pause()
            try:
                stop(worker)
            finally:
                broker.resume()
