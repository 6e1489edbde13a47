"""A restored backup is noticed: no position from after the backup is taken for one of the log that goes on.

P30: after `manage.py new_epoch` 100 % of the old positions are refused with STREAM_EPOCH_CHANGED.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e.crowd import LONG, Publisher, head_of
from tests.e2e.processes import Board, new_board
from tests.e2e.sockets import EVENTS, PATIENCE, Socket, first_answer, wait_until, what
from tests.services.postgresql import _programs

pytestmark = [pytest.mark.e2e, pytest.mark.services]

BACKUP = 20  # events in the backup
LOST = 20  # events after it
SOON = 2.0 if LONG else PATIENCE  # seconds; the command says one
NEW_KILLMAILS = "subscription { newKillmail { id } }"


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Board]:
    with new_board(tmp_path, "restored") as board:
        board.uvicorn()
        yield board


def publish(board: Board, count: int) -> None:
    Publisher(board, 0, count).finish(all_of_it=True)


def dump(board: Board) -> Path:
    backup = board.folder / "backup.sql"
    _postgresql("pg_dump", "-d", board.env["DATABASE_URL"], "-f", str(backup))
    return backup


def restore(board: Board, backup: Path) -> None:
    """As an operator does it in a hurry: under the servers, which run on."""
    name = board.env["DATABASE_URL"].rpartition("/")[2]
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    _postgresql("psql", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", board.env["DATABASE_URL"], "-f", str(backup))


def _postgresql(program: str, *arguments: str) -> None:
    subprocess.run([_programs() / program, *arguments], check=True, capture_output=True, timeout=180)


def answers(board: Board, epoch: str, positions: range) -> Counter[str]:
    """What those are told who go on from each of these positions; "on" to whom the stream goes on."""
    told = (first_answer(board, f"{epoch}:{position}") for position in positions)
    return Counter(answer if answer.startswith("STREAM_") else "on" for answer in told)


def test_p30_no_position_from_before_a_restore_is_taken_for_one_after_it(restored: Board) -> None:
    publish(restored, BACKUP)
    backup = dump(restored)
    publish(restored, LOST)
    epoch, head = head_of(restored)
    every = range(1, head + 1)
    assert answers(restored, epoch, every) == {"on": head}
    with Socket(restored) as live:
        live.subscribe("1", EVENTS)
        assert what(live.hear()) == f"CHECKPOINT {head}"
        restore(restored, backup)
        assert what(live.hear()) == "STREAM_EPOCH_CHANGED"
    wait_until(lambda: first_answer(restored, None) == f"CHECKPOINT {BACKUP}")
    assert answers(restored, epoch, every) == {"on": BACKUP, "STREAM_TOKEN_AHEAD": LOST}
    publish(restored, LOST + 5)
    # Not blind: without the command old positions mean other killmails now, and nobody is told.
    assert answers(restored, epoch, every) == {"on": head}
    assert restored.manage("new_epoch").returncode == 0
    assert answers(restored, epoch, every) == {"STREAM_EPOCH_CHANGED": head}
    assert head_of(restored)[1] == head + 5


def test_p30_live_streams_end_when_the_epoch_changes_and_those_without_positions_go_on(restored: Board) -> None:
    publish(restored, 3)
    with Socket(restored) as live:
        live.subscribe("events", EVENTS)
        live.subscribe("new", NEW_KILLMAILS)
        assert what(live.hear()) == "CHECKPOINT 3"
        publish(restored, 1)
        assert {live.hear()["id"] for _ in range(2)} == {"events", "new"}
        changed = restored.manage("new_epoch")
        (epoch, head) = head_of(restored)
        assert changed.stdout.endswith(f"goes on at {epoch}:4. Live streams end within a second.\n")
        refusal = live.hear(SOON)
        assert (refusal["id"], what(refusal)) == ("events", "STREAM_EPOCH_CHANGED")
        live.subscribe("events", EVENTS, after=f"{epoch}:{head}")
        assert what(live.hear()) == "CHECKPOINT 4"
        publish(restored, 1)
        heard = {message["id"]: message for message in (live.hear(), live.hear())}
    assert heard["events"]["payload"]["data"]["killmailEvents"] == {"position": f"{epoch}:5", "kind": "ADDED"}
    assert heard["new"]["payload"]["data"]["newKillmail"]["id"].isdigit()


def test_p30_a_database_that_lost_its_newest_rows_ends_live_streams_at_once(restored: Board) -> None:
    publish(restored, 10)
    epoch, _ = head_of(restored)
    with Socket(restored) as live, psycopg.connect(restored.env["DATABASE_URL"]) as connection:
        live.subscribe("1", EVENTS, after=f"{epoch}:9")
        assert [what(live.hear()), what(live.hear())] == ["ADDED 10", "CHECKPOINT 10"]
        connection.execute("DELETE FROM killmails_killmailevent WHERE position > 6")
        connection.execute("UPDATE killmails_loghead SET position = 6")
        connection.commit()
        assert what(live.hear(SOON)) == "STREAM_EPOCH_CHANGED"
        live.subscribe("1", EVENTS, after=f"{epoch}:10")
        assert what(live.hear()) == "STREAM_TOKEN_AHEAD"
