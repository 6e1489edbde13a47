"""Server, worker, its children and beat write the same lines: one for each event, and no secret in any of them."""

import json
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.crowd import LONG
from tests.e2e.processes import BIN, UVICORN_OPTIONS, Board, Process
from tests.e2e.sockets import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services]

PASSWORD = "p@ss/wörd#1?"
QUOTED = "p%40ss%2Fw%C3%B6rd%231%3F"
SECRETS = {"SECRET_KEY": "signs-every-session-" + "k" * 40, "METRICS_TOKEN": "for-prometheus-only"}
ON_STDOUT = {"", "worker: Warm shutdown (MainProcess)"}  # Celery's own word, past every log
LAST = {"server": "Uvicorn running on", "worker": "Task tests.e2e.loud.shout_and_fail", "beat": "beat: Starting..."}


def start_loud(board: Board, form: str) -> dict[str, Process]:
    """Three processes that say what is secret."""
    scheme, _, rest = board.env["DATABASE_URL"].partition("://")
    board.env["DATABASE_URL"] = (
        f"{scheme}://postgres:{QUOTED}@{rest.rpartition('@')[2]}"  # trusted: any password will do
    )
    board.env |= SECRETS | {"LOG_FORMAT": form, "CELERY_QUIET": "true"}
    celery = [str(BIN / "celery"), "-A", "tests.e2e.loud"]
    uvicorn = [str(BIN / "uvicorn"), "tests.e2e.loud:application", "--port", str(board.port), *UVICORN_OPTIONS]
    return {
        "server": board.start(f"server-{form}", *uvicorn),
        "worker": board.start(f"worker-{form}", *celery, "worker", "-Q", "bulk", "-c", "1", "-l", "info"),
        "beat": board.start(f"beat-{form}", *celery, "beat", "-l", "info"),
    }


@pytest.mark.parametrize("form", ["json", "text"] if LONG else ["json"])
def test_every_process_writes_one_line_for_an_event_and_no_secret(services_board: Board, form: str) -> None:
    processes = start_loud(services_board, form)
    for name, process in processes.items():
        process.wait_for(LAST[name])
    with urllib.request.urlopen(f"{services_board.url}/?password={QUOTED}"):
        wait_until(lambda: "?password=****" in processes["server"].log.read_text(), seconds=20)
    for process in processes.values():
        process.stop()
        lines = [line for line in process.log.read_text().splitlines() if line not in ON_STDOUT]
        expect_no_secret(process.log)
        assert sum("shout" in line for line in lines) > 80
        if form == "json":
            events = [json.loads(line) for line in lines]
            assert {"time", "level", "logger", "message", "process"} <= set(events[0])
            assert {"celery", "kombu", "uvicorn", "django.server", "py.warnings"} <= {
                event["logger"] for event in events
            }
        else:
            # Each begins with its date or stands below one that does; what was said begins no line.
            assert [line for line in lines if not line.startswith(("20", "    "))] == []
            assert [line for line in lines if line.startswith("2026-01-01")] == []


def expect_no_secret(log: Path) -> None:
    text = log.read_text()
    found = [secret for secret in (PASSWORD, QUOTED, "ss/w", "p@/#", *SECRETS.values()) if secret in text]
    assert found == [], log.name
