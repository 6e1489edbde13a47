"""A board as its operators run it: real processes, each with a log of its own."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import psycopg

from tests.services.service import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_SECONDS = 120
STOP_SECONDS = 60
# As in docs/operations.md.
UVICORN_OPTIONS = [
    *("--no-proxy-headers", "--ws", "websockets-sansio", "--ws-max-size", "65536"),
    *("--ws-per-message-deflate", "false", "--ws-ping-interval", "35", "--ws-ping-timeout", "10"),
]


class Process:
    """One process with its children, in a process group of its own."""

    def __init__(self, name: str, arguments: list[str], env: dict[str, str], folder: Path) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                arguments, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def kill(self) -> None:
        """SIGKILL for all of it: nothing gets to clean up."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Asks it to end; the exit code. Kills what does not end in time."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(signum)
        try:
            return self.popen.wait(STOP_SECONDS)
        finally:
            self.kill()

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log.read_text(errors="replace"):
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}:\n{self.end_of_log()}"
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.end_of_log()}"
            time.sleep(0.05)

    def end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class Board:
    """The processes of one board; `env` is what an operator would write into .env."""

    serve_command = (sys.executable, "manage.py", "serve")

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        # No board of a test asks the real ESI; nobody answers there.
        own = {"DATA_DIR": str(folder), "PORT": str(self.port), "ESI_URL": "http://127.0.0.1:1"}
        self.env = os.environ | own | env
        self.processes: list[Process] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/graphql"

    def manage(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """One `manage.py` command, to its end."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.env | env, capture_output=True, text=True, timeout=180)

    def start(self, name: str, *arguments: str) -> Process:
        process = Process(name, list(arguments), self.env, self.folder)
        self.processes.append(process)
        return process

    def serve(self) -> Process:
        """All in one process, as `./run` does."""
        return self._answering(self.start("serve", *self.serve_command))

    def uvicorn(self, *more: str, module: str = "killboard.asgi") -> Process:
        options = ["--port", str(self.port), *UVICORN_OPTIONS, *more]
        return self._answering(self.start("uvicorn", str(BIN / "uvicorn"), f"{module}:application", *options))

    def runserver(self) -> Process:
        arguments = ["manage.py", "runserver", "--noreload", str(self.port)]
        return self._answering(self.start("runserver", sys.executable, *arguments))

    def worker(self, name: str, *options: str, within: Sequence[str] = ()) -> Process:
        """`within`: the command that starts it, where that is not the shell."""
        celery = [str(BIN / "celery"), "-A", "killboard", "worker", "-n", f"{name}@%h", "-l", "info", *options]
        return self.start(name, *within, *celery)

    def beat(self, name: str = "beat") -> Process:
        return self.start(name, str(BIN / "celery"), "-A", "killboard", "beat", "-l", "info")

    def _answering(self, process: Process) -> Process:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert process.popen.poll() is None, f"ended with {process.popen.returncode}:\n{process.end_of_log()}"
            assert time.monotonic() < deadline, f"no answer at {self.url}:\n{process.end_of_log()}"
            time.sleep(0.1)
        return process

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/", timeout=20):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.kill()


@contextlib.contextmanager
def new_board(folder: Path, name: str, **env: str) -> Iterator[Board]:
    """A board on the real services, with an empty database of its own; nothing is started yet."""
    folder.mkdir(exist_ok=True)
    database = f"{name}_{os.getpid()}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} TEMPLATE {_migrated_database()}")
        try:
            with Board(folder, {"DATABASE_URL": _address_of(database), "FEED": "off"} | env) as board:
                with psycopg.connect(board.env["DATABASE_URL"]) as own:
                    own.execute("UPDATE killmails_loghead SET epoch = left(md5(random()::text), 8)")
                yield board
        finally:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")


@functools.cache
def _migrated_database() -> str:
    """Its name. To migrate takes seconds, to copy it tenths of one."""
    name = f"migrated_{os.getpid()}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with TemporaryDirectory() as folder, Board(Path(folder), {"DATABASE_URL": _address_of(name)}) as board:
        migrated = board.manage("migrate")
        assert migrated.returncode == 0, migrated.stderr
    return name


def _address_of(database: str) -> str:
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{database}"
