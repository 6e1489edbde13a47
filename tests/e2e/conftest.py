"""Boards for the tests that drive them from outside, by HTTP, websocket and browser alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.e2e.processes import Board


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board as `./run` starts it, replaying the recording."""
    nothing = {"DATABASE_URL": "", "REDIS_URL": "", "RABBITMQ_URL": "", "USE_REDIS_PUBSUB": "", "DEBUG": "true"}
    with Board(tmp_path_factory.mktemp("board"), nothing | {"FEED": "recorded"}) as board:
        board.serve()
        yield board


@pytest.fixture
def services_board(tmp_path: Path) -> Iterator[Board]:
    """A board on the real services, with an empty database of its own; nothing is started yet."""
    with board_on_services(tmp_path) as board:
        yield board


@pytest.fixture(scope="module")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """The same for all tests of a module: a database costs seconds."""
    with board_on_services(tmp_path_factory.mktemp("shared")) as board:
        yield board


@contextmanager
def board_on_services(folder: Path) -> Iterator[Board]:
    server, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    name = f"board_{os.getpid()}_{abs(hash(folder)) % 10**9}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        with Board(folder, {"DATABASE_URL": f"{server}/{name}", "FEED": "live"}) as board:
            migrated = board.manage("migrate")
            assert migrated.returncode == 0, migrated.stderr
            yield board
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
