"""Servers that stop say where to go on, and end whatever holds them. Nobody loses anything by it: test_restarts.py."""

import contextlib
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.crowd import Publisher, head_of
from tests.e2e.processes import BIN, Board, Process, new_board
from tests.e2e.sockets import EVENTS, Socket, wait_until, what
from tests.services import PostgreSQL

pytestmark = [pytest.mark.e2e, pytest.mark.services]


END_LIMIT = 20.0  # seconds, as in docs/operations.md
PATIENCE = 90.0  # more seconds, where the machine does other things at the same time


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


def test_a_server_that_is_asked_twice_ends(stopped: Board) -> None:
    process = stopped.uvicorn()
    with Socket(stopped) as socket:
        process.popen.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            socket.hear()
        process.popen.send_signal(signal.SIGTERM)
        # It may be past all handlers by then, and dies of the second one.
        assert process.popen.wait(END_LIMIT + PATIENCE) in (0, -signal.SIGTERM)


@contextlib.contextmanager
def frozen(folder: Path) -> Iterator[list[Process]]:
    """Two servers whose database hangs; a query in each of them waits for it."""
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(PostgreSQL())
        env = {"DATABASE_URL": postgresql.url, "FEED": "off"}
        folders = [folder / name for name in ("once", "twice")]
        for each in folders:
            each.mkdir()
        boards = [stack.enter_context(Board(each, env)) for each in folders]
        migrated = boards[0].manage("migrate")
        assert migrated.returncode == 0, migrated.stderr
        servers = [board.uvicorn() for board in boards]
        postgresql.pause()
        stack.callback(postgresql.resume)
        for board in boards:
            body = json.dumps({"query": "{ killmails(first: 1) { edges { node { id } } } }"}).encode()
            request = urllib.request.Request(f"{board.url}/graphql", body, {"Content-Type": "application/json"})
            with pytest.raises(urllib.error.HTTPError) as answered:  # what asks the database waits on
                urllib.request.urlopen(request, timeout=PATIENCE)
            assert answered.value.code == 503
        yield servers


def is_past_uvicorn(server: Process) -> bool:
    return server.popen.poll() is not None or "Finished server process" in server.log.read_text(errors="replace")


def test_a_server_that_a_database_holds_ends_with_1_after_20_s_or_when_it_is_asked_again(tmp_path: Path) -> None:
    with frozen(tmp_path) as (once, twice):
        begun = time.monotonic()
        for server in (once, twice):
            server.popen.send_signal(signal.SIGTERM)
        for server in (once, twice):
            # Then all is done that uvicorn does, and what holds them are threads.
            wait_until(lambda each=server: is_past_uvicorn(each), PATIENCE)
        twice.popen.send_signal(signal.SIGTERM)
        # As soon as uvicorn has given its handlers back, the signal is the end at once; before, the clock is.
        assert twice.popen.wait(END_LIMIT + PATIENCE) in (1, -signal.SIGTERM)
        assert once.popen.wait(END_LIMIT + PATIENCE) == 1
        assert time.monotonic() - begun >= END_LIMIT
