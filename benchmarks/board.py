"""The board that is measured: PostgreSQL, Redis, and a server process on a free port."""

import secrets
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.child import Failure
from tests.e2e.processes import BIN, UVICORN_OPTIONS, Board, Process
from tests.services import PostgreSQL, Redis
from tests.services.guard import Guard


class MeasuredBoard(Board):
    """Services of its own for as long as it is open; server processes come and go, each on a new port."""

    def __init__(self, loop: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="killboard-benchmark-"))
        self.loop = loop
        self._stack = ExitStack()
        self._guard = Guard(folder)
        super().__init__(folder, {})

    def __enter__(self) -> Self:
        self._stack.callback(self._guard.close)
        try:
            postgresql = self._stack.enter_context(PostgreSQL())
            redis = self._stack.enter_context(Redis())
            self.env |= _environment(postgresql.url, redis.url)
            migrated = self.manage("migrate", "-v", "0")
            if migrated.returncode:
                raise Failure(f"the tables could not be made:\n{migrated.stderr}")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._stack.close()

    def serve_with(self, server: str) -> Process:
        """A new uvicorn or daphne, with the options that docs/operations.md gives, when it answers."""
        command = [str(BIN / "uvicorn"), "killboard.asgi:application", "--port", str(self.port), *UVICORN_OPTIONS]
        command += ["--log-level", "warning", "--loop", self.loop]
        if server == "daphne":
            command = [str(BIN / "daphne"), "-b", "127.0.0.1", "-p", str(self.port), "-v", "0"]
            command += ["killboard.asgi:application"]
        process = self.start(server, *command)
        self._guard.watch(process.popen.pid)
        return self._answering(process)

    def end(self, process: Process) -> None:
        """At once: ten thousand goodbyes are not what is measured."""
        process.kill()
        self._guard.forget(process.popen.pid)
        self.processes.remove(process)


def _environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "USE_REDIS_PUBSUB": "true",
        "RABBITMQ_URL": "",
        "FEED": "off",
        "DEBUG": "false",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "LOG_LEVEL": "warning",
        "MAX_SOCKETS": "0",
        "MAX_SOCKETS_PER_ADDRESS": "0",
    }
