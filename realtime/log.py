"""What this app asks of the log and of its events, and the tokens by which clients name a place in it.

Whoever has events brings their own.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Event(Protocol):
    """One row of the log, with all that a selection may ask of it already loaded."""

    @property
    def position(self) -> int: ...

    @property
    def keys(self) -> frozenset[Hashable]:
        """What this event is about: a stream with keys of its own wants only events that share one of them."""


@dataclass(frozen=True, slots=True)
class Head:
    """A place in the log: a position (0: before the first event), and the name of the series that it belongs to."""

    epoch: str
    position: int

    @property
    def token(self) -> str:
        """The place as clients see it; it is worth nothing in another epoch."""
        return f"{self.epoch}:{self.position}"

    def before(self, position: int) -> "Head":
        """The place just before a position."""
        return Head(self.epoch, position - 1)


class Log(Protocol):
    """A log with dense positions. Synchronous; called from two threads that live as long as the hub."""

    def head(self) -> Head: ...

    def read_new(self, after: Head, limit: int, fields: frozenset[str]) -> tuple[Head, Sequence[Event]]:
        """The head, and at most `limit` events after that place; none where the epoch is another one."""

    def read(self, after: Head, limit: int, fields: frozenset[str]) -> Sequence[Event]:
        """At most `limit` events after that place, in order, without holes; loaded for selections of `fields`."""

    def checkpoint(self, head: Head) -> Event:
        """An event that only says where the log stands. Must not ask the database."""


class Stream(Protocol):
    """What one subscription wants; the schema's subscribe functions return one.

    Streams that want the same are equal, wherever they begin.
    """

    @property
    def after(self) -> str | None:
        """The token to go on from; None: from now on."""

    @property
    def checkpoints(self) -> bool:
        """Whether it is told where the log stands: at the beginning, and when nothing else was said for a while."""

    @property
    def fields(self) -> frozenset[str]:
        """What `wants` and an event's keys must find loaded, beside what the selection asks for."""

    @property
    def keys(self) -> frozenset[Hashable] | None:
        """An event that it wants has at least one of these; None: any event may be wanted."""

    def wants(self, event: Event) -> bool: ...


class Refusal(StrEnum):
    """Why a stream cannot go on from a token."""

    INVALID = "STREAM_TOKEN_INVALID"
    AHEAD = "STREAM_TOKEN_AHEAD"
    TOO_OLD = "STREAM_TOKEN_TOO_OLD"
    EPOCH_CHANGED = "STREAM_EPOCH_CHANGED"
    UNAVAILABLE = "UNAVAILABLE"  # for the moment


class Refused(Exception):
    """The stream does not begin, or ends here; the text says what to do. It never begins elsewhere instead."""

    def __init__(self, code: Refusal, text: str) -> None:
        super().__init__(text)
        self.code = code


def read_token(token: str) -> Head:
    """Raises Refused for what is no token, whatever its length."""
    match = re.fullmatch(r"([0-9a-z]{1,16}):(0|[1-9][0-9]{0,18})", token[:64])
    if match is None or len(token) > 64 or int(match[2]) >= 2**63:
        text = f"after: {token[:40]!r} is no position of this log; take the `position` of an event that you have had."
        raise Refused(Refusal.INVALID, text)
    return Head(match[1], int(match[2]))


def check_token(token: Head, head: Head, furthest: int) -> None:
    """Raises Refused where a stream cannot go on from `token` in a log that stands at `head`.

    `furthest`: how many events are sent again at most.
    """
    if token.epoch != head.epoch:
        text = (
            f"after: {token.token} is of another log: this one has begun anew since, or it is from another board. "
            "Read what is stored, and subscribe without `after`."
        )
        raise Refused(Refusal.EPOCH_CHANGED, text)
    if token.position > head.position:
        text = (
            f"after: {token.token} is ahead of the log, which stands at {head.token}; it was set back, it seems. "
            "Read what is stored, and subscribe without `after`."
        )
        raise Refused(Refusal.AHEAD, text)
    if head.position - token.position > furthest:
        text = (
            f"after: {token.token} is {head.position - token.position} events behind, and at most {furthest} are sent "
            "again; page through what is missing with a query, then subscribe."
        )
        raise Refused(Refusal.TOO_OLD, text)
