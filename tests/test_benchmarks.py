"""The benchmark runs and says what it measured. How fast is its own business: no number is compared here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.child import Child, Failure

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.services
def test_the_benchmark_measures_the_rows_that_it_is_asked_for(tmp_path):
    command = [sys.executable, "-m", "benchmarks.fanout", "--quick", "--no-plot", "--out", str(tmp_path)]
    command += ["--server", "uvicorn", "--only", "latency,burst"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    body = json.loads((tmp_path / "fanout.json").read_text())
    latency, burst = body["results"]
    assert (latency["row"], latency["unit"], latency["sockets"]) == ("latency", "ms", 1)
    assert (burst["row"], burst["unit"], burst["sockets"]) == ("burst", "s", 100)
    for result in (latency, burst):
        assert result["server"] == "uvicorn"
        assert result["failed"] == ""
        assert min(result["values"]) <= result["value"] <= max(result["values"])
        assert result["ratio"] == result["value"] / result["limit"]
        assert result["reached"] in ("aim", "must", "missed")
    assert body["settings"]["quick"] is True
    assert body["machine"]["cores"] >= 1


def test_the_benchmark_of_the_doorbell_counts_what_arrived_and_says_how_long_it_took():
    command = [sys.executable, "-m", "benchmarks.doorbell", "50"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    # On a busy machine late rings become one: then it says, by its exit code, that it measured nothing.
    assert run.returncode in (0, 1), run.stdout + run.stderr
    times = r"p50 \d+\.\d\d ms, p99 \d+\.\d\d ms, longest \d+\.\d\d ms"
    for way in ("bare", "doorbell"):
        assert re.search(rf"^{way}: [1-5]?\d of 50 arrived, {times}$", run.stdout, re.MULTILINE), run.stdout


def test_the_benchmark_refuses_a_row_that_it_does_not_have():
    command = [sys.executable, "-m", "benchmarks.fanout", "--only", "latency,lunch"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert "there is no lunch; there are latency," in run.stderr


def broadcast(limit: Child, first: int, last: int, receivers: int = 3) -> None:
    frame = {"before": '{"position":"epoch:', "after": '"}'}
    limit.ask("broadcast", **frame, first=first, last=last, receivers=receivers)


@pytest.mark.parametrize(
    ("then", "what"),
    [
        ((3, 3, 3), "with a hole before it"),
        ((1, 1, 3), "again or out of order"),
        ((2, 2, 2), "position 2 reached 2 of 3 sockets"),
        ((2, 2, 3), None),
    ],
)
def test_a_lost_or_doubled_event_fails_the_run(tmp_path, then, what):
    env = dict(os.environ)
    with Child("benchmarks.limit", env, tmp_path) as limit, Child("benchmarks.sockets", env, tmp_path) as sockets:
        port = limit.ask("listen")["port"]
        sockets.ask("connect", url=f"ws://127.0.0.1:{port}/", kind="bare", sockets=3)
        broadcast(limit, 1, 1)
        sockets.ask("wait", first=1, last=1, receivers=3, seconds=60)
        broadcast(limit, *then)
        if what is None:
            sockets.ask("wait", first=2, last=2, receivers=3, seconds=60)
            assert sockets.ask("finish") == {"delivered": 6}
        else:
            with pytest.raises(Failure, match=what):
                sockets.ask("wait", first=2, last=2, receivers=3, seconds=5)  # as long as the wrong frames may take
