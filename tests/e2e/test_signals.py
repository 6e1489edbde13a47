"""Servers that stop say where to go on. That nobody loses anything by it: test_restarts.py."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.crowd import Publisher, head_of
from tests.e2e.processes import BIN, Board, Process, new_board
from tests.e2e.sockets import EVENTS, Socket, what

pytestmark = [pytest.mark.e2e, pytest.mark.services]


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
        process.popen.send_signal(signum)
        with pytest.raises(ConnectionClosed) as closed:
            socket.hear()
    assert closed.value.rcvd.code == code
    if code == 1012:  # daphne sends no reasons
        assert closed.value.rcvd.reason == f"service restart, resume after {head_of(stopped)[0]}:5"
    ended = process.popen.wait(60)
    assert ended == 0 or (server is daphne and ended == -signum)  # that one dies of its signal
