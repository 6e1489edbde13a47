"""The last events, in memory: for those who are a little behind, and executed once for all who ask the same."""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from realtime.groups import Group
from realtime.log import Event, Head, Log
from realtime.operations import Engine, Operation

KEPT = 256  # events
RESULTS = 32  # of each, kept for those who join later; a board with more selections executes again
RESULTS_SIZE = 65_536  # characters of them


@dataclass(eq=False, slots=True)
class Taken:
    """An event with the results of executing selections on it; `fields` is what was loaded for it."""

    event: Event
    fields: frozenset[str]
    results: dict[Hashable, str] = field(default_factory=dict)  # by selection

    def result(self, engine: Engine, operation: Operation) -> str:
        """The result as JSON. Executes at most once for each selection."""
        if operation.selection not in self.results:
            self.results[operation.selection] = engine.execute(operation, self.event).decode()
        return self.results[operation.selection]

    def trim(self) -> None:
        """Forgets results beyond those that are kept."""
        size, kept = 0, {}
        for selection, text in islice(self.results.items(), RESULTS):
            size += len(text)
            if size <= RESULTS_SIZE:
                kept[selection] = text
        self.results = kept


class Recent:
    """A part of the log without holes that ends at the head."""

    def __init__(self) -> None:
        self._taken: deque[Taken] = deque(maxlen=KEPT)

    def append(self, taken: Taken) -> None:
        if self._taken and taken.event.position != self._taken[-1].event.position + 1:
            self._taken.clear()
        self._taken.append(taken)
        taken.trim()

    def trim(self) -> None:
        for taken in self._taken:
            taken.trim()

    def clear(self) -> None:
        self._taken.clear()

    def reaches(self, position: int, head: int) -> bool:
        """Whether all events after that position, up to the head, are here."""
        if position >= head:
            return True
        kept = self._taken
        return bool(kept) and kept[0].event.position <= position + 1 and kept[-1].event.position == head

    def after(self, position: int) -> list[Taken]:
        return [taken for taken in self._taken if taken.event.position > position]

    def load(self, log: Log, epoch: str, position: int, fields: frozenset[str]) -> None:
        """Reads the events after that position again where they were loaded for less than `fields`."""
        poor = [taken for taken in self.after(position) if not fields <= taken.fields]
        if not poor:
            return
        fields = fields.union(*(taken.fields for taken in poor))
        first = poor[0].event.position
        wanted = self._taken[-1].event.position - first + 1
        events = {event.position: event for event in log.read(Head(epoch, first - 1), wanted, fields)}
        for taken in poor:
            if taken.event.position in events:
                taken.event, taken.fields = events[taken.event.position], fields


def results_for(engine: Engine, taken: Iterable[Taken], group: Group) -> list[tuple[int, str]]:
    """Position and result of each event that the group wants."""
    return [(one.event.position, one.result(engine, group.operation)) for one in taken if group.stream.wants(one.event)]


def check_dense(events: Sequence[Event], after: int, head: int) -> None:
    """Raises RuntimeError where a position is missing: positions are given out without holes."""
    for expected, event in enumerate(events, after + 1):
        if event.position != expected:
            raise RuntimeError(f"the log has a hole: position {event.position} follows {expected - 1}")
    if not events and head > after:
        raise RuntimeError(f"the log has a head at {head} and no events after {after}")
