"""What failed while four lanes shared two cores is run once more when they are done, and named if it passes then.

With all of its file: boards end to end are told a story, in which one test begins where another one ended.

A stalled machine and a broken board look alike in a test that starts real processes. What fails alone, too, has failed.
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

TESTS_FAILED = 1  # pytest's exit code; worse ones tell of a run that is broken as a whole
FEW = 5  # more at once are no accident
STOPS = re.compile(r"-[a-z]*x|--(exitfirst|maxfail|stepwise|sw)")


class Failures:
    """The tests that failed in all lanes, by the way they were run; lanes are processes and share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cache(self, way: str) -> Path:
        """A new folder for pytest's cache in one run."""
        return Path(tempfile.mkdtemp(prefix=f"{way}-", dir=self._folder))

    def of(self, way: str) -> list[str]:
        """Node ids, sorted."""
        found: set[str] = set()
        for file in self._folder.glob(f"{way}-*/v/cache/lastfailed"):
            found.update(json.loads(file.read_text()))
        return sorted(found)


def stops_early(arguments: list[str]) -> bool:
    """Whether pytest leaves tests out after a failure: then that one's second run would tell nothing of them."""
    return any(STOPS.match(argument) for argument in arguments)


def once_more(code: int, failed: dict[str, list[str]], run: Callable[[str, list[str]], int]) -> int:
    """The exit code after what failed has been run alone: `run` gets a way and its files, and returns pytest's code.

    Without a second run: when nothing failed, when more than a few tests did, or when the first run did not end.
    """
    if code != TESTS_FAILED or not 0 < sum(map(len, failed.values())) <= FEW:
        return code
    print("\n./test: what failed, once more, and alone", flush=True)
    codes = [run(way, sorted({test.split("::")[0] for test in tests})) for way, tests in failed.items() if tests]
    if any(codes):
        return max(codes)
    for way, tests in failed.items():
        for test in tests:
            print(f"./test: unsteady ({way}): {test} failed beside other tests, and passed alone", flush=True)
    return 0
