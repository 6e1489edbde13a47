"""The hub: one in each server process. Reads the log once and feeds every socket of the process.

Subscriptions of equal operations and variables are a group; a selection is executed once for each group and
event, not once for each subscriber. Positions are checked to be dense, and each subscriber gets each at most once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from realtime.doorbell import Listener
from realtime.log import Event, Head, Log, Stream
from realtime.operations import Engine, Operation

logger = logging.getLogger(__name__)

POLL = 1.0  # seconds between two looks at the log when nobody rings
PAGE = 100  # events read at once
START_LIMIT = 5.0  # seconds that a new subscriber waits for a log that cannot be read

T = TypeVar("T")
Deliver = Callable[[int, str], None]  # position, result as JSON


class HubUnavailable(Exception):
    """The log cannot be read at the moment; try again later."""


@dataclass(eq=False, slots=True)
class Subscription:
    """One subscriber of a group, and the last position that it has had."""

    group: "_Group"
    deliver: Deliver
    position: int


@dataclass(eq=False, slots=True)
class _Group:
    operation: Operation
    stream: Stream
    members: set[Subscription] = field(default_factory=set)


class Hub:
    """Belongs to one event loop, and starts with its first subscriber."""

    def __init__(self, log: Log, engine: Engine) -> None:
        self._log = log
        self._engine = engine
        self._groups: dict[object, _Group] = {}
        self._head: Head | None = None
        self._bell = asyncio.Event()
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # One thread of our own: the log is read in order, and the database connection stays.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub")

    async def subscribe(self, operation: Operation, stream: Stream, deliver: Deliver) -> Subscription:
        """Every event after now goes to `deliver`, in order. Raises HubUnavailable."""
        self._start()
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._ready.wait()
        except TimeoutError as error:
            raise HubUnavailable("The log of killmails cannot be read at the moment; try again later.") from error
        # Nothing may be awaited from here on: the position and the membership must fit together.
        if self._head is None:
            raise HubUnavailable("The log of killmails has been reset; subscribe again.")
        group = self._groups.setdefault(operation.key, _Group(operation, stream))
        subscription = Subscription(group, deliver, self._head.position)
        if stream.checkpoints:
            checkpoint = self._engine.execute(operation, self._log.checkpoint(self._head))
            deliver(self._head.position, checkpoint.decode())
        group.members.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Twice does no harm."""
        group = subscription.group
        group.members.discard(subscription)
        if not group.members and self._groups.get(group.operation.key) is group:
            del self._groups[group.operation.key]

    def _start(self) -> None:
        if not self._tasks:
            listener = Listener(self._woken, lambda: self._head.position if self._head else 0)
            self._tasks = [asyncio.create_task(listener.run()), asyncio.create_task(self._run())]

    def _woken(self, head: int) -> None:
        if self._head is None or head > self._head.position:
            self._bell.set()

    async def _run(self) -> None:
        while True:
            self._bell.clear()
            try:
                more = await self._advance()
            except Exception:
                logger.exception("The log could not be read; trying again in %.0f s.", POLL)
                more = False
            if not more:
                await self._wait_for_bell()

    async def _wait_for_bell(self) -> None:
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the bell.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL):
                await self._bell.wait()

    async def _advance(self) -> bool:
        """Takes one page of the log to the sockets. True when there may be more."""
        head = await self._in_thread(self._log.head)
        if self._head is None or self._head.epoch != head.epoch or head.position < self._head.position:
            self._begin(head)
            return False
        if head.position == self._head.position:
            return False
        if not self._groups:
            self._head = head
            return False
        for event in await self._read(self._head):
            await self._take_to_sockets(event, head.epoch)
        return self._head.position < head.position

    async def _take_to_sockets(self, event: Event, epoch: str) -> None:
        # From here on a new subscriber begins after this event, and those who are there now get it.
        before, self._head = self._head, Head(epoch, event.position)
        try:
            results = await self._in_thread(self._execute, event, list(self._groups.values()))
        except Exception:
            self._head = before  # once more, rather than lost; nobody gets an event twice
            raise
        for group, result in results:
            _deliver(event.position, group, result)

    async def _read(self, after: Head) -> Sequence[Event]:
        """The next events, loaded for every group, those that came while we read included."""
        fields: frozenset[str] | None = None
        while fields is None or not self._fields() <= fields:
            fields = self._fields()
            events = await self._in_thread(self._log.read, after, PAGE, fields)
        _check_dense(events, after.position)
        return events

    def _fields(self) -> frozenset[str]:
        return frozenset().union(*(group.operation.fields for group in self._groups.values()))

    def _begin(self, head: Head) -> None:
        if self._head is not None:
            what = "has a new epoch" if self._head.epoch != head.epoch else "went back: was the database restored?"
            logger.error("The log %s (%s:%d); live subscriptions go on there.", what, head.epoch, head.position)
            for group in self._groups.values():
                for subscription in group.members:
                    subscription.position = head.position
        logger.info("Following the log from %s:%d.", head.epoch, head.position)
        self._head = head
        self._ready.set()

    def _execute(self, event: Event, groups: list[_Group]) -> list[tuple[_Group, str]]:
        """In the hub's thread: one execution for each group."""
        return [
            (group, self._engine.execute(group.operation, event).decode())
            for group in groups
            if group.stream.wants(event)
        ]

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _check_dense(events: Sequence[Event], after: int) -> None:
    for expected, event in enumerate(events, after + 1):
        if event.position != expected:
            raise RuntimeError(f"the log has a hole: position {event.position} follows {expected - 1}")
    if not events:
        raise RuntimeError(f"the log has a head beyond {after} and no events there")


def _deliver(position: int, group: _Group, result: str) -> None:
    for subscription in tuple(group.members):
        if subscription.position < position:
            subscription.position = position
            subscription.deliver(position, result)
