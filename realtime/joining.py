"""Subscriptions on their way into the live ones: told where the log stands, and brought to its head from memory."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.groups import Group, Groups, State, Subscription, grouped, offer_all
from realtime.log import Head, Log, Refusal
from realtime.operations import Engine
from realtime.recent import Recent, Taken, results_for
from realtime.replay import Replay

ADMITTED = 500  # subscriptions taken in between two events
CATCH_UP = 0.05  # seconds that catching up may keep the live ones waiting
HOLD = 0.005  # seconds that the event loop is held at a time


class Turn:
    """Leaves the event loop to others now and then, in work that never waits."""

    def __init__(self) -> None:
        self._since = 0.0

    def begin(self) -> None:
        """We come from a wait: others have had their turn."""
        self._since = time.perf_counter()

    async def over(self) -> None:
        if time.perf_counter() - self._since > HOLD:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


class Joining:
    """Those who wait. `admit` is called by the hub's own task, so that the head stands still meanwhile."""

    def __init__(
        self,
        log: Log,
        engine: Engine,
        groups: Groups,
        in_thread: Callable[..., Awaitable[Any]],
        wake: Callable[[], None],
        refuse: Callable[[Subscription, Refusal, str], None],
    ) -> None:
        self._log = log
        self._engine = engine
        self._groups = groups
        self._in_thread = in_thread
        self._wake = wake
        self._waiting: deque[Subscription] = deque()
        self._checkpoint: tuple[Head, Taken] | None = None
        self._head: Head | None = None
        self.recent = Recent()
        self.replay = Replay(log, engine, self._near, self.add, refuse)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, subscription: Subscription) -> None:
        """Takes it in again from where it is, now that there is room."""
        if subscription.state is State.BLOCKED:
            subscription.state = State.JOINING
            self._waiting.append(subscription)
            self._wake()

    def tell(self, subscription: Subscription, head: Head) -> bool:
        """Where the log stands, if it wants to know. False where there was no room."""
        if subscription.stream.checkpoints:
            result = self.checkpoint(head).result(self._engine, subscription.operation)
            subscription.told = subscription.offer(subscription, head.position, result)
            return subscription.told
        return True

    def checkpoint(self, head: Head) -> Taken:
        """Kept with its results as long as the head has not moved."""
        if self._checkpoint is None or self._checkpoint[0] != head:
            self._checkpoint = head, Taken(self._log.checkpoint(head), frozenset())
        self._checkpoint[1].trim()
        return self._checkpoint[1]

    async def admit(self, head: Head) -> None:
        """Brings those who wait to the head, and takes them in."""
        self._head = head
        joining = self._next(head)
        if not joining:
            return
        try:
            caught_up = await self._in_thread(self._catch_up, grouped(joining), head)
        except Exception:
            for subscription in joining:  # the replay tries again, and tells those who would wait too long
                if subscription.state is State.JOINING:
                    self.replay.add(subscription, head.epoch)
            raise
        turn = Turn()
        for group, results in caught_up:
            for subscription in group.members:
                if results is None:
                    self._waiting.append(subscription)
                else:
                    self._take_in(subscription, results, head)
                await turn.over()

    def _near(self, position: int) -> bool:
        """Whether all after that position is in memory."""
        return self._head is not None and self.recent.reaches(position, self._head.position)

    def _next(self, head: Head) -> list[Subscription]:
        joining = []
        while self._waiting and len(joining) < ADMITTED:
            subscription = self._waiting.popleft()
            if subscription.state is not State.JOINING:
                continue
            if self._near(subscription.position):
                joining.append(subscription)
            else:
                self.replay.add(subscription, head.epoch)
        return joining

    def _catch_up(self, groups: list[Group], head: Head) -> list[tuple[Group, list[tuple[int, str]] | None]]:
        """In the hub's thread: for each group what its members have not had; None where time was up before."""
        members = [one for group in groups for one in group.members]
        fields = frozenset[str]().union(*{one.fields for one in members})
        self.recent.load(self._log, head.epoch, min(one.position for one in members), fields)
        until = time.perf_counter() + CATCH_UP
        caught_up: list[tuple[Group, list[tuple[int, str]] | None]] = []
        for number, group in enumerate(groups):
            if number and time.perf_counter() > until:
                caught_up.append((group, None))
                continue
            behind = min(one.position for one in group.members)
            caught_up.append((group, results_for(self._engine, self.recent.after(behind), group)))
        self.recent.trim()
        return caught_up

    def _take_in(self, subscription: Subscription, results: list[tuple[int, str]], head: Head) -> None:
        if subscription.state is not State.JOINING or not offer_all(subscription, results):
            return
        # It may be ahead of us: by a replay that was quicker, or since another process told it.
        subscription.position = max(head.position, subscription.position)
        room = subscription.told or self.tell(subscription, Head(head.epoch, subscription.position))
        if subscription.state is not State.JOINING:
            return  # sending found that its socket is gone
        subscription.state = State.LIVE if room else State.BLOCKED
        if room:
            self._groups.add(subscription)
