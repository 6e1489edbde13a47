"""Who is to be told of which event: subscriptions in groups, found through an index of what they want."""

import enum
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from realtime.log import Event, Stream
from realtime.operations import Operation

Offer = Callable[["Subscription", int, str], bool]  # position, result as JSON; False: no room, ask again when there is
Fail = Callable[[list[dict[str, Any]]], None]  # ends the operation with these errors


class State(enum.Enum):
    """Where a subscription gets its next event from."""

    JOINING = enum.auto()  # waits for the hub to take it in
    REPLAYING = enum.auto()  # is far behind: from the log
    LIVE = enum.auto()  # from the hub, with everybody else
    BLOCKED = enum.auto()  # from nowhere: its socket has no room
    ENDED = enum.auto()


@dataclass(eq=False, slots=True)
class Subscription:
    """One operation of one socket.

    `position` is the last one that it was offered or that was not for it; `told`: whether it has been told where
    the log stands.
    """

    operation: Operation
    stream: Stream
    offer: Offer
    fail: Fail
    position: int
    state: State = State.BLOCKED
    told: bool = False

    @property
    def fields(self) -> frozenset[str]:
        return self.operation.fields | self.stream.fields

    @property
    def key(self) -> tuple[Stream, Hashable]:
        """Subscriptions with equal keys are told the same, word by word."""
        return self.stream, self.operation.selection


def offer_all(subscription: Subscription, results: Iterable[tuple[int, str]]) -> bool:
    """Offers what it has not had yet. False where it has no room for all; it is blocked then, before the rest."""
    for position, result in results:
        if subscription.position < position:
            if not subscription.offer(subscription, position, result):
                # What lies between was not for it: all up to here has been considered.
                subscription.position, subscription.state = position - 1, State.BLOCKED
                return False
            subscription.position = position
    return True


@dataclass(eq=False, slots=True)
class Group:
    """Subscriptions that are told the same of the same events."""

    stream: Stream
    operation: Operation  # of any of them
    seconds: float = 0.0  # what its last execution took
    # In the order in which they came, mostly that of their places in memory: quicker to go through than a set.
    members: dict[Subscription, None] = field(default_factory=dict)


def grouped(subscriptions: Iterable[Subscription]) -> list[Group]:
    """Those that are told the same, together."""
    groups: dict[Hashable, Group] = {}
    for subscription in subscriptions:
        group = groups.setdefault(subscription.key, Group(subscription.stream, subscription.operation))
        group.members[subscription] = None
    return list(groups.values())


class Groups:
    """The live subscriptions. An event finds its groups through the keys that they share with it."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, Group] = {}
        self._by_key: dict[Hashable, set[Group]] = {}
        self._without_keys: set[Group] = set()

    def add(self, subscription: Subscription) -> None:
        group = self._groups.get(subscription.key)
        if group is None:
            group = self._groups[subscription.key] = Group(subscription.stream, subscription.operation)
            for groups in self._places(group):
                groups.add(group)
        group.members[subscription] = None
        # Equal to its own, for all that follows; so those of ten thousand sockets are one.
        subscription.stream, subscription.operation = group.stream, group.operation

    def remove(self, subscription: Subscription) -> None:
        """Twice does no harm."""
        group = self._groups.get(subscription.key)
        if group is None:
            return
        group.members.pop(subscription, None)
        if not group.members:
            del self._groups[subscription.key]
            for groups in self._places(group):
                groups.discard(group)
            for key in group.stream.keys or ():
                if not self._by_key[key]:
                    del self._by_key[key]

    def _places(self, group: Group) -> list[set[Group]]:
        if group.stream.keys is None:
            return [self._without_keys]
        return [self._by_key.setdefault(key, set()) for key in group.stream.keys]

    def candidates(self, event: Event) -> list[Group]:
        """All groups that may want the event, and few others. From any thread: nothing here can be interrupted."""
        found = set(self._without_keys)
        if self._by_key:
            for key in event.keys:
                found |= self._by_key.get(key, frozenset())
        return list(found)

    def __len__(self) -> int:
        """How many are told different things."""
        return len(self._groups)

    def __iter__(self) -> Iterator[Subscription]:
        for group in list(self._groups.values()):
            yield from list(group.members)


class Fields:
    """What must be loaded for everybody: the union of all fields, without asking everybody for each event."""

    def __init__(self) -> None:
        self._counts: Counter[frozenset[str]] = Counter()

    def add(self, fields: frozenset[str]) -> None:
        self._counts[fields] += 1

    def remove(self, fields: frozenset[str]) -> None:
        self._counts[fields] -= 1
        if not self._counts[fields]:
            del self._counts[fields]

    def union(self) -> frozenset[str]:
        return frozenset().union(*self._counts)
