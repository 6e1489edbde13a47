"""PostgreSQL is restarted, loses its backends, is frozen, is away: nothing is lost or doubled, and nobody hangs.

P13: 0 lost, 0 twice; HTTP answers 503 with Retry-After within 3 s, and 200 again when the database is back.
"""

import contextlib
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.builders import raw_package
from tests.e2e.crowd import LIST, LONG
from tests.e2e.processes import Board
from tests.e2e.sockets import wait_until
from tests.e2e.users import KEY
from tests.fake_r2z2 import FakeR2Z2
from tests.services import PostgreSQL

pytestmark = [pytest.mark.e2e, pytest.mark.services]

RESTARTS, APART = (12, 10.0) if LONG else (1, 0.0)  # seconds
AWAY = 60.0 if LONG else 1.0
KILLMAILS = 3_000 if LONG else 40
AT_ONCE = 20  # requests
LIMIT = 3.0  # seconds for an answer
BUSY = 1.0 if LONG else 40.0  # seconds more that a busy machine may take


class Answer(NamedTuple):
    status: int
    retry_after: str | None
    seconds: float
    text: str


def ask(board: Board, path: str, body: bytes | None = None) -> Answer:
    # Whoever has a session is looked up.
    headers = {"Content-Type": "application/json", "Cookie": f"sessionid={'x' * 32}"}
    request = urllib.request.Request(f"{board.url}{path}", body, headers)
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=LIMIT + BUSY + 5) as answer:
            return Answer(answer.status, None, time.monotonic() - begun, answer.read().decode())
    except urllib.error.HTTPError as error:
        retry_after = error.headers["Retry-After"]
        return Answer(error.code, retry_after, time.monotonic() - begun, error.read().decode())
    except TimeoutError:
        return Answer(0, None, time.monotonic() - begun, f"no answer at {path}")


def ask_all(board: Board) -> list[Answer]:
    """Many queries at once, a page of the admin, and what users see."""
    query = json.dumps({"query": LIST}).encode()
    asked = [("/graphql", query)] * AT_ONCE + [(path, None) for path in ("/admin/", "/account", "/auth/login")]
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda what=what: answers.append(ask(board, *what))) for what in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def expect_503(board: Board) -> float:
    """From all that needs the database. The longest that anybody waited."""
    answers = ask_all(board)
    assert [answer for answer in answers if (answer.status, answer.retry_after) != (503, "5")] == []
    assert sum("UNAVAILABLE" in answer.text for answer in answers) == AT_ONCE
    assert max(answer.seconds for answer in answers) < LIMIT + BUSY
    assert ask(board, "/").status == 200  # the first page has nothing of the database in it
    return max(answer.seconds for answer in answers)


def expect_200(board: Board, seconds: float = 5.0) -> None:
    """From all of them at once: where the machine is busy, the first one may have its answer before the others can."""
    query = json.dumps({"query": LIST}).encode()
    wait_until(lambda: ask(board, "/graphql", query).status == 200, seconds + BUSY)
    wait_until(lambda: {answer.status for answer in ask_all(board)} == {200}, seconds + BUSY)


@contextlib.contextmanager
def own_board(folder: Path, feed: FakeR2Z2) -> Iterator[tuple[Board, PostgreSQL]]:
    with PostgreSQL() as database:
        env = {"DATABASE_URL": database.url, "FEED": "live", "R2Z2_URL": feed.url}
        with Board(folder, env) as board:
            board.env |= {"EVE_CLIENT_ID": "x", "EVE_CALLBACK_URL": f"{board.url}/auth/callback", "TOKEN_KEYS": KEY}
            migrated = board.manage("migrate")
            assert migrated.returncode == 0, migrated.stderr
            yield board, database


def rows(database: PostgreSQL, query: str) -> list[tuple]:
    with psycopg.connect(database.url, connect_timeout=5, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def killed_and_started(database: PostgreSQL) -> None:
    database.kill()
    database.start()


def backends_ended(database: PostgreSQL) -> None:
    """Each of the board's own, wherever it is in its work."""
    rows(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                   "AND datname IS NOT NULL")  # fmt: skip


@contextlib.contextmanager
def frozen_for_others(database: PostgreSQL) -> Iterator[None]:
    """A client without limits hangs for all that time: else this were no fault, and every 503 easy."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        database.pause()
        answered = threading.Event()
        thread = threading.Thread(target=lambda: (connection.execute("SELECT 1"), answered.set()))
        thread.start()
        try:
            yield
            assert not answered.is_set()
        finally:
            database.resume()
            thread.join()


def expect_everything(database: PostgreSQL, count: int) -> None:
    """Of the packages 1 to `count`: all are stored, once, each with one event."""
    wait_until(
        lambda: rows(database, "SELECT next_sequence FROM killmails_feedcursor") == [(count + 1,)], 600 if LONG else 120
    )
    stored = [id_ for (id_,) in rows(database, "SELECT id FROM killmails_killmail ORDER BY id")]
    assert stored == [1000 + number for number in range(1, count + 1)]
    events = rows(database, "SELECT position, kind, killmail_id FROM killmails_killmailevent ORDER BY position")
    assert events == [(number, "ADDED", 1000 + number) for number in range(1, count + 1)]


def publish(feed: FakeR2Z2, count: int) -> None:
    feed.point(1)
    for number in range(1, count + 1):
        feed.put(number, raw_package(number))


def test_p13_nothing_is_lost_and_nobody_hangs_whatever_becomes_of_postgresql(tmp_path: Path) -> None:
    with FakeR2Z2() as feed, own_board(tmp_path, feed) as (board, database):
        publish(feed, KILLMAILS)
        worker = board.worker("feed", "-Q", "feed", "-c", "1")
        board.uvicorn()
        worker.wait_for("Sequence 3: killmail")
        expect_200(board)
        for fault in [killed_and_started, backends_ended] * RESTARTS:
            fault(database)
            expect_200(board)
            time.sleep(APART)
        with frozen_for_others(database):
            frozen = expect_503(board)
            again = expect_503(board)
        expect_200(board)
        database.kill()
        away = expect_503(board)
        time.sleep(AWAY)
        database.start()
        expect_200(board)
        expect_everything(database, KILLMAILS)
        assert worker.popen.poll() is None
    print(f"P13: {KILLMAILS} killmails; 503 after {frozen:.1f}, {again:.1f} (frozen) and {away:.1f} s (away)")


def test_p13_is_not_blind_a_feed_that_moves_its_cursor_first_loses(tmp_path: Path) -> None:
    with FakeR2Z2() as feed, own_board(tmp_path, feed) as (board, database):
        publish(feed, 8)
        process = board.start("careless", sys.executable, "-m", "tests.e2e.careless_feed")
        wait_until(lambda: rows(database, "SELECT 1 FROM killmails_feedcursor WHERE next_sequence = 4"))
        killed_and_started(database)
        wait_until(lambda: rows(database, "SELECT 1 FROM killmails_feedcursor WHERE next_sequence = 9"))
        process.stop()
        assert rows(database, "SELECT id FROM killmails_killmail WHERE id = 1003") == []
