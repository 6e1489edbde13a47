"""Thousands of sockets on one server: who does not read harms nobody, idle ones cost little, all can come back at once.

P19: 1 of 1,000 stops reading. P20: 10,000 idle. P21: 10,000 are cut at once. In the short form: 1,000 and 500.
"""

import statistics
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.e2e.crowd import (
    LONG,
    Asking,
    Crowd,
    Publisher,
    allow_open_files,
    ask,
    cpu_seconds,
    head_of,
    memory_mb,
    percentile,
)
from tests.e2e.processes import Board, Process, new_board
from tests.e2e.sockets import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services]

READERS = 1_000 if LONG else 100
IDLE = 10_000 if LONG else 1_000
STORM = 10_000 if LONG else 500
WINDOW = 20.0 if LONG else 2.0  # seconds of steady publishing before, and while, somebody does not read
RATE = 10  # events a second

# Fills what lies between a server and a client that does not read: about 200 kB for each event.
LABELS = " ".join(f"a{number}: labels" for number in range(10))
HEAVY = f"subscription ($after: String) {{ killmailEvents(after: $after) {{ position kind killmail {{ {LABELS} }} }} }}"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    allow_open_files(max(IDLE, STORM) + 500)
    with new_board(tmp_path_factory.mktemp("crowd"), "crowd", MAX_SOCKETS="0") as board:
        Publisher(board, 0, 30).finish(all_of_it=True)
        yield board


@pytest.fixture
def server(crowded: Board, request: pytest.FixtureRequest) -> Iterator[Process]:
    """A server that has held no socket yet; `request.param`: its module."""
    process = crowded.uvicorn(module=getattr(request, "param", "killboard.asgi"))
    ask(crowded)
    yield process
    for started in crowded.processes:
        started.kill()


@pytest.mark.parametrize("server", ["killboard.asgi" if LONG else "tests.e2e.patient_board"], indirect=True)
def test_p19_who_does_not_read_harms_nobody_is_told_where_to_go_on_and_loses_nothing(
    crowded: Board, server: Process
) -> None:
    with Crowd() as readers, Crowd() as slow, Crowd() as forgetful:
        readers.open(READERS, crowded)
        readers.open(1, crowded, query=HEAVY)  # the same as the slow ones, but it reads
        slow.open(1, crowded, query=HEAVY, narrow=True)
        forgetful.open(1, crowded, query=HEAVY, narrow=True, resume=False)
        kept = Publisher(crowded, 0, 260, padding=20).finish(all_of_it=True)  # as many as the hub keeps in memory
        readers.expect_everything(max(kept))
        publisher = Publisher(crowded, RATE, padding=20).begun()
        time.sleep(WINDOW)
        memory, stalled = memory_mb(server), time.monotonic_ns()
        slow.ask("stall", number=0)
        wait_until(lambda: closings(server) == 1)
        closed, growth = time.monotonic_ns(), memory_mb(server) - memory
        (reason,) = came_back(slow)
        slow.wait_for(head_of(crowded)[1])  # what it is sent again disturbs the others no more
        quiet = time.monotonic_ns()
        time.sleep(WINDOW)
        over = time.monotonic_ns()
        # One after the other: whoever is closed has five seconds to take the word that tells it so.
        forgetful.ask("stall", number=0)
        wait_until(lambda: closings(server) == 2)
        came_back(forgetful)
        committed = publisher.finish()
        for one in (readers, slow):
            one.expect_everything(max(committed))
        # Not blind: who comes back without a position has lost events.
        assert forgetful.report()["missing"] > 0
        before, meanwhile, _, after, _ = late_around(readers, committed, [stalled, closed, quiet, over])
    taken = (closed - stalled) / 1e9
    print(f"P19: closed after {taken:.1f} s ({reason}); memory {growth:+.1f} MB; p99 {before=} {meanwhile=} {after=}")
    assert reason.startswith(f"4290 slow consumer, resume after {head_of(crowded)[0]}:")
    assert not LONG or taken < 15
    assert growth < 4
    if LONG:
        assert meanwhile < max(before, after) * 1.1


def closings(server: Process) -> int:
    return server.log.read_text().count("A websocket has not read for some seconds; closing it.")


def came_back(slow: Crowd) -> list[str]:
    """Reads on, sees that it was closed, and comes back. With which code and reason."""
    slow.ask("read_on", number=0)
    wait_until(lambda: slow.report()["closed"])
    closed = list(slow.report()["closed"])
    slow.ask("back", seconds=60)
    return closed


def late_around(readers: Crowd, committed: dict[int, int], moments: list[int]) -> list[float]:
    """The p99 from commit to arrival before, between and after these moments: what comes and goes with the machine's
    other work shows before or after as well.
    """
    parts: list[dict[str, int]] = [{} for _ in range(len(moments) + 1)]
    for position, when in committed.items():
        parts[sum(when >= moment for moment in moments)][str(position)] = when
    return [round(readers.ask("late", committed=part)["p99"], 4) if part else 0.0 for part in parts]


def test_p20_ten_thousand_idle_sockets_cost_little_and_all_hear_of_an_event(crowded: Board, server: Process) -> None:
    empty = memory_mb(server)
    with Crowd() as crowd:
        took = crowd.open(IDLE, crowded, seconds=120)["seconds"]
        time.sleep(2)
        full, used, begun = memory_mb(server), cpu_seconds(server), time.monotonic()
        time.sleep(WINDOW)
        cpu = (cpu_seconds(server) - used) / (time.monotonic() - begun)
        committed = Publisher(crowded, 1, 5).finish(all_of_it=True)
        report = crowd.expect_everything(max(committed))
        late = [crowd.ask("late", committed={str(at): when})["max"] for at, when in committed.items()]
    each = (full - empty) / IDLE * 1024
    print(f"P20: {IDLE} in {took:.1f} s; {full:.0f} MB, {each:.1f} kB each; {cpu:.1%} of a core; events {late} s")
    assert report["delivered"] == IDLE * len(committed)
    assert full <= 450
    assert each <= 32
    if LONG:
        assert cpu <= 0.1
        assert statistics.median(late) <= 1.5


def test_p20_is_not_blind_one_socket_that_hears_nothing_is_noticed(crowded: Board, server: Process) -> None:
    with Crowd() as crowd:
        crowd.open(20, crowded)
        crowd.ask("stall", number=7)
        committed = Publisher(crowded, 0, 1).finish(all_of_it=True)
        wait_until(lambda: crowd.wait_for(max(committed), seconds=0) == 1)
        assert crowd.wait_for(max(committed), seconds=2) == 1


def storm(board: Board, server: Process, resume: bool) -> tuple[float, dict[str, int], int, list[float]]:
    """All are cut at once, miss ten events, and come back together. Seconds until all are back, what came, database
    connections, and seconds of the queries meanwhile.
    """
    with Crowd() as crowd, psycopg.connect(board.env["DATABASE_URL"]) as connection:
        crowd.open(STORM, board, resume=resume, seconds=120)
        crowd.ask("cut")
        Publisher(board, 0, 10).finish(all_of_it=True)
        publisher = Publisher(board, 1).begun()
        with Asking(board) as asking:
            back = crowd.ask("back", seconds=60 if LONG else 120)
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        (connections,) = connection.execute(count).fetchone()
        last = max(publisher.finish())
        assert (back["joined"], asking.failures) == (STORM, []), crowd.report()
        behind = crowd.wait_for(last)
        report = crowd.report()
    return (
        back["seconds"],
        {name: report[name] for name in ("missing", "doubled")} | {"behind": behind},
        connections,
        asking.seconds,
    )


def test_p21_all_that_are_cut_at_once_are_back_soon_and_have_lost_nothing(crowded: Board, server: Process) -> None:
    seconds, came, connections, asked = storm(crowded, server, resume=True)
    print(
        f"P21: {STORM} back in {seconds:.1f} s; {connections} connections; queries' p95 {percentile(asked, 0.95):.2f} s"
    )
    assert came == {"missing": 0, "doubled": 0, "behind": 0}
    assert connections <= 20
    if LONG:
        assert seconds <= 30
        assert percentile(asked, 0.95) < 1


def test_p21_is_not_blind_who_comes_back_without_a_position_has_lost_events(crowded: Board, server: Process) -> None:
    _, came, _, _ = storm(crowded, server, resume=False)
    assert came["missing"] >= 10 * STORM
