"""A second run for what failed beside other tests: it forgives an accident, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.again import FEW, Failures, once_more, stops_early
from tests.services.run import BROKEN

ACCIDENT = "tests/test_it.py::test_accident"


def test_what_passes_alone_is_named_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, list[str]]] = []

    def run(way: str, tests: list[str]) -> int:
        asked.append((way, tests))
        return 0

    assert once_more(1, {"services": [ACCIDENT, f"{ACCIDENT}[2]"], "embedded": []}, run) == 0
    assert asked == [("services", ["tests/test_it.py"])], "what it needs may be what other tests of its file left"
    assert f"unsteady (services): {ACCIDENT}" in capsys.readouterr().out


def test_what_fails_alone_too_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    ways = {"services": ["a.py::test_a"], "embedded": ["b.py::test_b"]}
    assert once_more(1, ways, lambda way, tests: int(way == "embedded")) == 1
    assert "unsteady" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "failed"),
    [
        (0, []),
        (1, []),
        (1, [f"a.py::test_{n}" for n in range(FEW + 1)]),
        (2, [ACCIDENT]),
        (137, [ACCIDENT]),
        (BROKEN, [ACCIDENT]),
    ],
    ids=["nothing failed", "nobody knows what failed", "too many", "not collected", "killed", "a lane was not run"],
)
def test_nothing_else_is_run_again(code: int, failed: list[str]) -> None:
    assert once_more(code, {"services": failed, "embedded": []}, lambda way, tests: pytest.fail("run again")) == code


@pytest.mark.parametrize(
    ("arguments", "stops"),
    [(["-x"], True), (["-q", "-vx"], True), (["--maxfail=2"], True), (["--exitfirst"], True),
     (["-v", "-k", "x"], False), ([], False)],
)  # fmt: skip
def test_who_stops_at_a_failure_has_no_second_run(arguments: list[str], stops: bool) -> None:
    assert stops_early(arguments) is stops


def test_failures_of_two_runs_are_read_from_what_pytest_wrote(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    failures = Failures(tmp_path / "kept")
    for name, body in [("one", "assert False"), ("two", "raise ValueError"), ("three", "pass")]:
        (tmp_path / f"test_{name}.py").write_text(f"def test_it(): {body}\n")
        command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={failures.cache('services')}"]
        subprocess.run([*command, f"test_{name}.py", "-p", "no:django"], cwd=tmp_path, capture_output=True)
    assert failures.of("services") == ["test_one.py::test_it", "test_two.py::test_it"]
    assert failures.of("embedded") == []
