"""The services that the tests start: they come back where they were, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.services import PostgreSQL, RabbitMQ, Redis
from tests.services.service import Service, claim

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.services


@pytest.mark.parametrize("kind", [PostgreSQL, Redis, RabbitMQ])
def test_a_service_is_killed_started_again_and_paused_at_one_address(kind: type[Service]) -> None:
    with kind() as service:
        url = service.url
        service.kill()
        assert not service.answers()
        service.start()
        service.pause()
        assert not service.answers()
        service.resume()
        service.wait_until_ready()
        assert service.url == url
    assert not service.folder.exists()


def test_a_port_that_another_process_has_chosen_is_not_chosen_again_while_it_runs() -> None:
    """Nothing listens there yet."""
    script = "from tests.services.service import free_port; print(free_port(), flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert not claim(port)
        other.communicate("\n")
    assert [claim(port), claim(port)] == [True, False]


def test_postgresql_keeps_its_rows_when_it_is_killed() -> None:
    with PostgreSQL() as service:
        with psycopg.connect(service.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        service.kill()
        service.start()
        with psycopg.connect(service.url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_a_killed_parent_leaves_no_service_and_no_folder() -> None:
    script = "\n".join(
        [
            "import sys, time",
            "from tests.services import PostgreSQL, RabbitMQ",
            "for service in (RabbitMQ().start(), PostgreSQL().start()): print(service.folder, flush=True)",
            "time.sleep(600)",
        ]
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    folders = [Path(parent.stdout.readline().strip()) for _ in range(2)]
    assert [len(processes_in(folder)) > 0 for folder in folders] == [True, True]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    # The guard itself ends a moment after it has removed the folder.
    while time.monotonic() < deadline and any(folder.exists() or processes_in(folder) for folder in folders):
        time.sleep(0.1)
    assert [folder.exists() for folder in folders] == [False, False]
    assert [processes_in(folder) for folder in folders] == [[], []]


def processes_in(folder: Path) -> list[str]:
    """The processes, by their command lines, that work in this folder or were given its name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in words or place.startswith(str(folder)):
            found.append(words)
    return found
