"""The failure that nobody saw: a worker on another Redis than the server. diagnose_redis names it, on a whole board."""

import contextlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e.processes import Board, Process, new_board
from tests.e2e.sockets import EVENTS, Socket, wait_until
from tests.services import Redis
from tests.services.service import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.services]
NOBODY = "no server answered: is one running, and with this REDIS_URL?"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A server, and nothing else yet."""
    folder = tmp_path_factory.mktemp("diagnose")
    with Redis() as redis, new_board(folder, "diagnosed", FEED="live") as board:
        board.env |= {"REDIS_URL": redis.url, "FEED": "off"}
        board.uvicorn()
        yield board


def diagnose(board: Board, tries: int = 5, **env: str) -> tuple[int, list[str]]:
    """The exit code and the lines; of the first that heard its canary, which a machine that stalls may answer late."""
    for _ in range(tries):
        answer = board.manage("diagnose_redis", **env)
        assert "Traceback" not in answer.stderr
        lines = answer.stdout.splitlines()
        if lines[4].startswith("✔ "):
            break
    return answer.returncode, lines


def kinds(board: Board) -> list[str]:
    """Of the processes that have told of themselves."""
    with psycopg.connect(board.env["DATABASE_URL"]) as connection:
        return sorted(kind for (kind,) in connection.execute("SELECT kind FROM health_process"))


@contextlib.contextmanager
def worker(board: Board, name: str, **env: str) -> Iterator[Process]:
    own, board.env = board.env, board.env | env
    process = board.worker(name, "-Q", "bulk", "-P", "solo")
    board.env = own
    yield process
    process.stop()


def test_server_listens_and_tells_that_it_lives_before_its_first_client(board: Board) -> None:
    with urllib.request.urlopen(f"{board.url}/health/redis", timeout=60) as answer:
        assert json.load(answer)["connected"] is True
    wait_until(lambda: kinds(board) == ["server"])


def test_worker_on_another_redis_is_named_and_one_on_the_same_is_not(board: Board, tmp_path: Path) -> None:
    with Redis() as other, worker(board, "good", WORKER_ID="1"):
        with worker(board, "stray", WORKER_ID="2", REDIS_URL=other.url) as stray:
            wait_until(lambda: kinds(board) == ["server", "worker", "worker"], seconds=60)
            code, lines = diagnose(board)
            seen_from_there = diagnose(board, tries=1, REDIS_URL=other.url)
            pid = stray.popen.pid
        assert (code, lines[4][:2], lines[-2][:2]) == (1, "✔ ", "✘ ")
        assert lines[-2].endswith("1 of 3 processes of the board are not where this one is, or silent:")
        assert "stray@" in lines[-1]
        assert f"WORKER_ID 2 (pid {pid} on {os.uname().nodename}) is on another Redis" in lines[-1]
        code, lines = seen_from_there
        assert (code, lines[4]) == (1, f"✘ 5 Canary                 {NOBODY}")
        assert [line.split()[0] for line in lines[5:]] == ["server", "worker"]
        assert all("is on another Redis" in line for line in lines[5:])
        assert "good@" in lines[6]
        wait_until(lambda: kinds(board) == ["server", "worker"])
        code, lines = diagnose(board)
        assert (code, lines[-1]) == (0, "All of it works."), lines


def test_another_terminal_hears_all_of_it_until_ctrl_c_and_no_client_any(board: Board) -> None:
    listening = board.start("pubsub", sys.executable, "manage.py", "test_redis_pubsub")
    with Socket(board) as socket:
        socket.subscribe("1", EVENTS)
        assert socket.hear()["payload"]["data"]["killmailEvents"]["kind"] == "CHECKPOINT"
        listening.wait_for("heartbeat   from")
        assert diagnose(board)[0] == 0
        assert board.manage("test_redis_pubsub", "--publish").stdout == "Rung.\n"
        listening.wait_for("canary      of diagnose_redis")
        listening.wait_for("test        from")
        with pytest.raises(TimeoutError):
            socket.hear(0.5)
    assert listening.stop(signal.SIGINT) == 130
    lines = listening.log.read_text().splitlines()
    assert lines[0] == f"Listening at {board.env['REDIS_URL']}, until Ctrl-C."
    assert all(line[2] == ":" for line in lines[1:]), lines  # each is one message, with its time


def test_works_without_a_database_as_far_as_that_goes(board: Board) -> None:
    code, lines = diagnose(board, DATABASE_URL=f"postgresql://nobody:geheim@127.0.0.1:{free_port()}/nowhere")
    assert code == 1
    assert lines[4].startswith("✔ 5 Canary                 1 server answered")
    assert lines[-1].startswith("? 6 Same Redis             could not be asked: the database does not answer")
    assert "geheim" not in "".join(lines)


def test_listener_whose_reader_is_gone_ends_without_a_word(board: Board) -> None:
    pipe = f"{sys.executable} manage.py test_redis_pubsub | head -1; echo ended with ${{PIPESTATUS[0]}}"
    listening = board.start("unread", "bash", "-c", pipe)
    assert listening.popen.wait(60) == 0
    first, last = listening.log.read_text().splitlines()
    assert (first[:12], last) == ("Listening at", "ended with 141")


def test_server_that_is_stopped_takes_its_row_along(board: Board) -> None:
    board.processes[0].stop()
    wait_until(lambda: kinds(board) == [])
