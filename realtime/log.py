"""What this app asks of the log and of its events. Whoever has events brings their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Event(Protocol):
    """One row of the log, with all that a selection may ask of it already loaded."""

    @property
    def position(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Head:
    """The last position of the log, and the name of the series that it belongs to."""

    epoch: str
    position: int


class Log(Protocol):
    """A log with dense positions. Synchronous: the hub calls it from a thread of its own."""

    def head(self) -> Head: ...

    def read(self, after: Head, limit: int, fields: frozenset[str]) -> Sequence[Event]:
        """At most `limit` events after that position, in order, without holes; loaded for selections of `fields`."""

    def checkpoint(self, head: Head) -> Event:
        """An event that only says where the log stands. Must not ask the database."""


class Stream(Protocol):
    """What one subscription wants; the schema's subscribe functions return one."""

    @property
    def checkpoints(self) -> bool:
        """Whether the first message is a checkpoint."""

    def wants(self, event: Event) -> bool: ...
