"""Counts that all processes of a worker share: those of its pool ask and store, and the first one tells of it."""

import mmap
import os
from collections.abc import Iterable

SLOTS = 64  # more than a worker has processes; two that met in one might lose a count, and nothing else


class SharedCounts:
    """Made before a fork, added to in any child. Without a lock: who is killed cannot leave one behind."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = [str(name) for name in names]
        # Anonymous memory is shared with children. Each process adds at a place of its own.
        self._counts = memoryview(mmap.mmap(-1, SLOTS * len(self._names) * 8)).cast("q")

    def add(self, name: str) -> None:
        self._counts[os.getpid() % SLOTS * len(self._names) + self._names.index(name)] += 1

    def told(self) -> dict[str, int]:
        """Of all processes together, by name; what was never counted is left out."""
        totals = {name: sum(self._counts[at :: len(self._names)]) for at, name in enumerate(self._names)}
        return {name: total for name, total in totals.items() if total}
