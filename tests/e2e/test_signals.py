"""Servers stop and start, and subscribers lose nothing: they are told where to go on, and go on by themselves."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.crowd import LONG, Crowd, Publisher, head_of, new_board
from tests.e2e.processes import BIN, Board, Process
from tests.e2e.sockets import EVENTS, Socket, what

pytestmark = [pytest.mark.e2e, pytest.mark.services]

RATE = 50
ROUNDS = 5 if LONG else 1  # each of the two servers is restarted so often


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Board]:
    """A board whose servers the test starts."""
    with new_board(tmp_path, "signals") as board:
        yield board


def daphne(board: Board) -> Process:
    command = (str(BIN / "daphne"), "-p", str(board.port), "killboard.asgi:application")
    return board._answering(board.start("daphne", *command))


@pytest.mark.parametrize(("server", "code"), [(Board.uvicorn, 1012), (daphne, 4499)])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_says_where_to_go_on(stopped: Board, server, code: int, signum: int) -> None:
    process = server(stopped)
    with Socket(stopped) as socket:
        socket.subscribe("1", EVENTS)
        assert what(socket.hear()) == "CHECKPOINT 0"
        Publisher(stopped, 0, 5).finish(all_of_it=True)
        assert [what(socket.hear()) for _ in range(5)] == [f"ADDED {position}" for position in range(1, 6)]
        begun = time.monotonic()
        process.popen.send_signal(signum)
        with pytest.raises(ConnectionClosed) as closed:
            socket.hear()
    assert closed.value.rcvd.code == code
    if code == 1012:  # daphne sends no reasons
        assert closed.value.rcvd.reason == f"service restart, resume after {head_of(stopped)[0]}:5"
    process.popen.wait(10)
    assert time.monotonic() - begun < 10


def restarted_in_turn(first: Board, second: Board, resume: bool) -> tuple[Crowd, int]:
    """Two servers of one board, each restarted while 50 events a second are stored; the last position."""
    boards, crowd = (first, second), Crowd()
    servers = [board.uvicorn() for board in boards]
    publisher = Publisher(first, RATE).begun()
    crowd.open(40, *boards, resume=resume, persistent=True)
    for _ in range(ROUNDS):
        for number, board in enumerate(boards):
            time.sleep(0.5)
            servers[number].stop()
            servers[number] = board.uvicorn()
    time.sleep(2.5)  # who was refused meanwhile comes back
    return crowd, max(publisher.finish())


@pytest.fixture
def pair(stopped: Board) -> Iterator[tuple[Board, Board]]:
    with Board(stopped.folder, stopped.env) as other:
        yield stopped, other


def test_a_rolling_restart_under_load_loses_and_doubles_nothing(pair: tuple[Board, Board]) -> None:
    crowd, last = restarted_in_turn(*pair, resume=True)
    with crowd:
        report = crowd.expect_everything(last)
    print(f"Rolling restart: {report['delivered']} events, none missing, none double; closed: {report['closed']}")
    told = [count for reason, count in report["closed"].items() if reason.startswith("1012 service restart, resume ")]
    assert sum(told) >= 10  # who has not subscribed again yet when the next one stops has no place to be told


def test_a_rolling_restart_is_not_blind_who_comes_back_without_a_position_misses_events(
    pair: tuple[Board, Board],
) -> None:
    crowd, last = restarted_in_turn(*pair, resume=False)
    with crowd:
        assert crowd.wait_for(last) == 0
        assert crowd.report()["missing"] > 0
