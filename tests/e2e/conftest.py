"""Boards for the tests that drive them from outside, by HTTP, websocket and browser alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Board, new_board


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board as `./run` starts it, replaying the recording."""
    nothing = {"DATABASE_URL": "", "REDIS_URL": "", "RABBITMQ_URL": "", "USE_REDIS_PUBSUB": "", "DEBUG": "true"}
    with Board(tmp_path_factory.mktemp("board"), nothing | {"FEED": "recorded"}) as board:
        board.serve()
        yield board


@pytest.fixture
def services_board(tmp_path: Path) -> Iterator[Board]:
    with new_board(tmp_path, "services", FEED="live") as board:
        yield board


@pytest.fixture(scope="module")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """The same for all tests of a module."""
    with new_board(tmp_path_factory.mktemp("shared"), "shared", FEED="live") as board:
        yield board
