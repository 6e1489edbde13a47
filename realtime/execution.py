"""Executing selections for the live subscriptions: once for each event and selection, a few milliseconds at a time."""

import time
from collections.abc import Iterator, Sequence

from realtime.groups import Group, Groups
from realtime.operations import Engine
from realtime.recent import Taken

SLICE = 0.005  # seconds of executing, after which what there is, is sent

# An event, and a group that wants it with its result; None: that was the last group.
Executed = tuple[Taken, tuple[Group, str] | None]
Work = Iterator[tuple[Taken, Group | None]]


class Execution:
    """In the hub's thread. Nobody joins the groups meanwhile, since only the hub's task lets them."""

    def __init__(self, engine: Engine, groups: Groups) -> None:
        self._engine = engine
        self._groups = groups

    def wanted(self, events: Sequence[Taken]) -> Work:
        """Who wants which event. What was quick before comes first: it must not wait for what is not."""
        for taken in events:
            groups = self._groups.candidates(taken.event)
            wanted = [group for group in groups if group.stream.wants(taken.event)]
            yield from ((taken, group) for group in sorted(wanted, key=lambda group: group.seconds))
            yield taken, None

    def some(self, work: Work) -> tuple[list[Executed], Work | None]:
        """As much as a few milliseconds allow; and what is left, None where that was all."""
        executed: list[Executed] = []
        now = time.perf_counter()
        until = now + SLICE
        for taken, group in work:
            if group is None:
                executed.append((taken, None))
                continue
            executed.append((taken, (group, taken.result(self._engine, group.operation))))
            begun, now = now, time.perf_counter()
            group.seconds = now - begun
            if now > until:
                return executed, work
        return executed, None
