"""Many subscribers in a process of their own, steady publishing, and a look at how the board bears it."""

import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.e2e.processes import ROOT, Board, Process

LONG = os.environ.get("LONG") == "1"
QUERY = """subscription ($after: String) { killmailEvents(after: $after) {
  position kind killmail { id time totalValue attackerCount solarSystem { name } victim { shipType { id name } } }
} }"""
LIST = "{ killmails(first: 25) { nodes { id time totalValue victim { shipType { name } } } } }"


def allow_open_files(count: int) -> None:
    """For this process and those that it starts. Says what to do where the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= count, f"OPEN FILES: {count} are needed, the system allows {hard}: raise `ulimit -Hn` and run again"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count)), hard))


class Crowd:
    """Subscribers who want every event. What is wrong with what they were told is in `report`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.crowd_process"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def open(
        self,
        count: int,
        *boards: Board,
        after: list[int] | None = None,
        epoch: str = "",
        resume: bool = True,
        persistent: bool = False,
        narrow: bool = False,
        journal: Path | None = None,
        query: str = QUERY,
        wait: bool = True,
        apart: float = 0.0,
        seconds: float = 120,
    ) -> dict[str, Any]:
        """`after`: the position that each has had. `resume` False: known to be wrong, it is never sent.

        `persistent`: comes back by itself. `narrow`: with little room for what it does not read.
        """
        order = {"urls": [board.websocket_url for board in boards], "after": after, "epoch": epoch, "resume": resume}
        order |= {"persistent": persistent, "narrow": narrow, "journal": journal and str(journal), "query": query}
        answer = self.ask("open", count=count, wait=wait, apart=apart, seconds=seconds, **order)
        assert not wait or answer["joined"] == count, f"{answer['joined']} of {count} have joined; {self.report()}"
        return answer

    def ask(self, do: str, **arguments: Any) -> Any:
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process with the sockets has ended"
        return json.loads(line)

    def report(self) -> dict[str, Any]:
        return self.ask("report")

    def wait_for(self, position: int, seconds: float = 90) -> int:
        """How many have not had everything up to there."""
        return self.ask("wait", position=position, seconds=seconds)["behind"]

    def expect_everything(self, position: int, seconds: float = 90) -> dict[str, Any]:
        """All have every event up to there, each once and in order."""
        behind, report = self.wait_for(position, seconds), self.report()
        wrong = {"behind": behind} | {name: report[name] for name in ("missing", "doubled", "refused")}
        assert wrong == {"behind": 0, "missing": 0, "doubled": 0, "refused": {}}, report
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Publisher:
    """A process that stores killmails at a steady rate (0: as fast as it can), until told to end or for so many.

    `padding`: kB of labels on each.
    """

    _first = 10_000_000  # ids of killmails, no two alike

    def __init__(self, board: Board, rate: float, count: int = 10**6, padding: int = 0) -> None:
        first = Publisher._first
        Publisher._first += 10**6
        self._result = board.folder / f"published-{first}"
        arguments = [str(self._result), str(first), str(rate), str(count), str(padding)]
        self.process: Process = board.start("publisher", sys.executable, "-m", "tests.e2e.publisher", *arguments)

    def begun(self) -> Self:
        while not self._result.exists():
            assert self.process.popen.poll() is None, self.process.end_of_log()
            time.sleep(0.02)
        return self

    def finish(self, all_of_it: bool = False) -> dict[int, int]:
        """When each position was committed (ns of CLOCK_MONOTONIC)."""
        if not all_of_it:
            self.process.popen.terminate()
        assert self.process.popen.wait(300) == 0, self.process.end_of_log()
        return {int(position): when for position, when in json.loads(self._result.read_text()).items()}


def head_of(board: Board) -> tuple[str, int]:
    """Epoch and position."""
    with psycopg.connect(board.env["DATABASE_URL"]) as connection:
        return connection.execute("SELECT epoch, position FROM killmails_loghead").fetchone()


def lengthen(board: Board, count: int) -> None:
    """So many more events at once, of killmails that are stored."""
    with psycopg.connect(board.env["DATABASE_URL"]) as connection:
        connection.execute(
            """WITH head AS (UPDATE killmails_loghead SET position = position + %s RETURNING position)
            INSERT INTO killmails_killmailevent (position, kind, killmail_id, created_at)
            SELECT head.position - %s + number, 'UPDATED', (SELECT min(id) FROM killmails_killmail), now()
            FROM head, generate_series(1, %s) AS number""",
            [count, count, count],
        )


def ask(board: Board, query: str = LIST, **variables: Any) -> Any:
    """The data of the answer; AssertionError for anything but data."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{board.url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = json.loads(answer.read())
    assert "errors" not in content, content["errors"]
    return content["data"]


class Asking:
    """Asks for the list of killmails all the time: `seconds` that each answer took, `failures`."""

    def __init__(self, board: Board, pause: float = 0.1) -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._board, self._pause = board, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        stopped = False
        while not stopped:  # once at least
            begun = time.monotonic()
            try:
                assert ask(self._board)["killmails"]["nodes"]
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            self.seconds.append(time.monotonic() - begun)
            stopped = self._stop.wait(self._pause)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(120)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * part) - 1)]


def memory_mb(process: Process) -> float:
    """Resident, of the one process."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
