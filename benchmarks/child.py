"""A process of the benchmark that is asked and answers by lines of JSON, and both ends of that."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
STOP_SECONDS = 10
MAX_LINE = 16 * 1024 * 1024

Answer = dict[str, Any]


class Failure(Exception):
    """What was measured did not do its work, or the measuring itself broke; the message says what."""


class Child:
    """`python -m module` with its log in a file; ends when it is closed."""

    def __init__(self, module: str, env: dict[str, str], folder: Path) -> None:
        self._log = folder / f"{module}.log"
        self._name = module
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, **request: Any) -> Answer:
        """Its answer; raises Failure with its own words when it has an error, or when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            end = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise Failure(f"{self._name} ended:\n{end}")
        answer: Answer = json.loads(line)
        if "failure" in answer:
            raise Failure(answer["failure"])
        return answer

    def close(self) -> None:
        """Its end of the pipe is all that it waits for."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def answer_requests(answer: Callable[[Answer], Awaitable[Answer]]) -> None:
    """The other end, in an event loop: answers each line of the standard input, until there are no more."""
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            reply = await answer(json.loads(line))
        except Failure as failure:
            reply = {"failure": str(failure)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
