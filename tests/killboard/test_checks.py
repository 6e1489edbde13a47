"""A board without Redis is one process on its owner's machine: anything else is refused, and commands go on working."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from killboard import alone

ROOT = Path(__file__).resolve().parents[2]
NOTHING = {"DATABASE_URL": "", "REDIS_URL": "", "RABBITMQ_URL": "", "USE_REDIS_PUBSUB": "", "FEED": "off"}
LIMIT = 120  # seconds


def found() -> dict[str, str]:
    return {str(message.id): message.msg for message in run_checks(tags=["killboard"], include_deployment_checks=True)}


@pytest.fixture
def in_memory(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.USE_REDIS_PUBSUB, settings.DEBUG, settings.DATA_DIR = False, True, tmp_path
    monkeypatch.setattr(alone, "_held", None)
    return tmp_path


def test_memory_is_enough_for_ones_own_machine_only(in_memory: Path, settings: Any) -> None:
    assert found() == {}
    settings.DEBUG = False
    assert found() == {"killboard.E001": "PubSub is In-memory (single process only), and DEBUG is off."}
    settings.USE_REDIS_PUBSUB = True
    assert found() == {}


# Says what it found, then stays until it is told to end; `fork` has a child stay instead.
PROCESS = """
import os, sys
import django
django.setup()
from killboard import alone
alone.claim(sys.argv[1])
print(alone.other() or "alone", flush=True)
if "fork" in sys.argv and os.fork():
    os._exit(0)
sys.stdin.read()
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    processes = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        environment = os.environ | NOTHING | {"DEBUG": "true", "DATA_DIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments],
            cwd=ROOT,
            env=environment | {"DJANGO_SETTINGS_MODULE": "killboard.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()


def test_a_second_process_finds_the_first_until_that_is_gone(started: Any, in_memory: Path) -> None:
    first, answer = started("worker")
    assert answer == "alone"
    _, answer = started("server")
    assert answer == alone.other() == f"worker, process {first.pid}"
    assert found() == {
        "killboard.E002": "PubSub is In-memory (single process only), and another one of this board runs "
        f"(worker, process {first.pid}): neither would hear the other."
    }
    first.kill()
    first.wait()
    assert alone.other() == ""
    third, answer = started("beat")
    assert answer == "alone"
    assert alone.other() == f"beat, process {third.pid}"


def test_children_are_the_same_process(started: Any, in_memory: Path) -> None:
    first, answer = started("server", "fork")
    assert answer == "alone"
    first.wait()
    assert alone.other() == f"server, process {first.pid}"  # as long as a child of it lives
    first.stdin.close()
    deadline = time.monotonic() + LIMIT
    while alone.other():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    alone.claim("server")
    assert alone._held is not None
    assert started("server")[1] == "alone"  # started anew by us, as runserver does after a change
    alone._held.close()


def manage(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | NOTHING | {"DEBUG": "false", "SECRET_KEY": "k" * 50, "DATA_DIR": str(folder)} | env
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_check_shows_what_processes_refuse_and_commands_work(tmp_path: Path) -> None:
    shown = manage(tmp_path, "check", "--deploy", "--tag", "killboard")
    assert shown.returncode == 1
    assert "(killboard.E001) PubSub is In-memory (single process only), and DEBUG is off." in shown.stderr
    assert "HINT: Set REDIS_URL; or DEBUG=true, for a board on your own machine." in shown.stderr
    refused = manage(tmp_path, "serve")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "killboard does not start: killboard.E001: PubSub is In-memory (single process only), and DEBUG is off. "
        "Set REDIS_URL; or DEBUG=true, for a board on your own machine.\n"
    )
    assert manage(tmp_path, "migrate", "-v", "0").stderr == ""


PROGRAMS = {
    "server": ["uvicorn", "killboard.asgi:application", "--port", "0"],
    "worker": ["celery", "-A", "killboard", "worker"],
    "beat": ["celery", "-A", "killboard", "beat"],
}


@pytest.mark.services
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_process_says_at_its_start_what_the_doorbell_goes_through(
    transactional_db: None, tmp_path: Path, program: str
) -> None:
    from django.db import connection

    server, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    environment = os.environ | {"DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}", "LOG_LEVEL": "info"}
    binary, *arguments = PROGRAMS[program]
    command = [str(Path(sys.executable).parent / binary), *arguments]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while "PubSub: Redis (distributed)" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        process.wait(120)
