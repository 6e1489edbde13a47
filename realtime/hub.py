"""The hub: one in each server process. Reads the log once and feeds every socket of the process.

One task takes events to the live subscriptions, and between two events takes in those that join: nothing can fall
between. Whoever is far behind is brought near by `replay`; whoever has no room for more waits, and joins again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from realtime.doorbell import Listener
from realtime.execution import Executed, Execution, Work
from realtime.groups import Fail, Fields, Group, Groups, Offer, State, Subscription, offer_all
from realtime.joining import Joining, Turn
from realtime.log import Event, Head, Log, Refusal, Stream, check_token, read_token
from realtime.operations import Engine, Operation
from realtime.recent import Taken, check_dense

logger = logging.getLogger(__name__)

POLL = 1.0  # seconds between two looks at the log when nobody rings
PAGE = 100  # events read at once
START_LIMIT = 5.0  # seconds that a new subscriber waits for a log that cannot be read
CHECKPOINTS = 30.0  # seconds after which a subscription that was told nothing is told where the log stands

T = TypeVar("T")


class HubUnavailable(Exception):
    """The log cannot be read at the moment; try again later."""


class Hub:
    """Belongs to one event loop. Starts with `start`, with the first subscriber at the latest.

    `furthest`: how many events a subscription may be behind.
    """

    def __init__(self, log: Log, engine: Engine, furthest: int = 100_000) -> None:
        self._log = log
        self._engine = engine
        self._furthest = furthest
        self._head: Head | None = None  # all live subscriptions have had everything up to here
        self._groups = Groups()
        self._execution = Execution(engine, self._groups)
        self._fields = Fields()
        self._all: set[Subscription] = set()
        self._bell = asyncio.Event()
        self._failing = False
        self._rung = True
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = Turn()
        # One thread of our own: the log is read in order, and the database connection stays.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub")
        self._joining = Joining(log, engine, self._groups, self._in_thread, self._bell.set, self._refuse)
        # For whoever watches: called in the loop with an event that somebody wanted, once all of them were offered it.
        self.delivered: Callable[[Event], None] = lambda event: None

    # For sockets

    async def subscribe(self, operation: Operation, stream: Stream, offer: Offer, fail: Fail) -> Subscription:
        """Every event after now, or after the stream's token, is offered in order, each at most once.

        `offer` says whether there was room; where there was none, `rejoin` goes on from there. Raises HubUnavailable,
        and Refused for a token from which the stream cannot go on.
        """
        self.start()
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._ready.wait()
                resumed = None if stream.after is None else await self._position(read_token(stream.after))
        except TimeoutError as error:
            raise HubUnavailable("The log cannot be read at the moment; try again later.") from error
        # Nothing may be awaited from here on: the place and the membership must fit together.
        head = self._head
        if head is None:
            raise HubUnavailable("The log has begun anew; subscribe again.")
        subscription = Subscription(operation, stream, offer, fail, head.position if resumed is None else resumed)
        self._all.add(subscription)
        self._fields.add(subscription.fields)
        if resumed is None:
            self._joining.tell(subscription, head)
        self.rejoin(subscription)
        return subscription

    async def _position(self, token: Head) -> int:
        head = self._head
        if head is None or token.epoch != head.epoch or token.position > head.position:
            # Another process may have been quicker than this one; the log itself knows.
            try:
                head = await self._in_thread(self._log.head)
            except Exception as error:
                raise HubUnavailable("The log cannot be read at the moment; try again later.") from error
        check_token(token, head, self._furthest)
        while self._head is None or self._head.epoch != head.epoch:  # we have not noticed yet that it began anew
            self._rung = True
            self._bell.set()
            await asyncio.sleep(0.01)
        return token.position

    def rejoin(self, subscription: Subscription) -> None:
        """For a subscription that had no room, and now has: goes on from where it is."""
        self._joining.add(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Twice does no harm."""
        if subscription in self._all:
            subscription.state = State.ENDED
            self._all.discard(subscription)
            self._groups.remove(subscription)
            self._fields.remove(subscription.fields)

    def place(self, subscription: Subscription) -> Head | None:
        """Up to where it has been offered everything; None where the log is not known."""
        if self._head is None:
            return None
        live = subscription.state is State.LIVE
        return Head(self._head.epoch, max(subscription.position, self._head.position if live else 0))

    def facts(self) -> dict[str, Any]:
        """Where it is in the log, and how many it feeds. From any thread."""
        head = self._head
        return {
            "epoch": head.epoch if head else None,
            "position": head.position if head else None,
            "subscriptions": len(self._all),
            "groups": len(self._groups),
        }

    # The one task

    def start(self) -> None:
        """In the hub's loop; twice does no harm."""
        if not self._tasks:
            listener = Listener(self._woken, lambda: self._head.position if self._head else 0)
            self._tasks = [asyncio.create_task(one) for one in (listener.run(), self._run(), self._tell_places())]

    def _woken(self, head: int) -> None:
        if self._head is None or head > self._head.position:
            self._rung = True
            self._bell.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        looked = -POLL
        while True:
            self._bell.clear()
            read = admitted = True
            if self._rung or loop.time() - looked >= POLL:
                looked = loop.time()
                read = await self._tried(self._advance())
            if self._joining and self._head:
                # Also when the log cannot be read: who is near is served from memory, the others are told.
                admitted = await self._tried(self._joining.admit(self._head))
            if self._failing and read and admitted:
                self._failing = False
                logger.warning("The log can be read again.")
            if not (read and admitted):
                await asyncio.sleep(POLL)
                self._rung = True
            elif not self._rung and not (self._joining and self._head):
                await self._wait_for_bell()

    async def _tried(self, step: Awaitable[None]) -> bool:
        try:
            await step
        except Exception:
            if not self._failing:  # once, and not each second until it works again
                logger.exception("The log could not be read; trying each %.0f s.", POLL)
            self._failing = True
            return False
        return True

    async def _wait_for_bell(self) -> None:
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the bell.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL):
                await self._bell.wait()

    async def _advance(self) -> None:
        """Takes one page of the log to the sockets."""
        self._rung = False  # somebody may ring meanwhile
        before, fields = self._head, self._fields.union()
        if before is None or not self._all:
            head = await self._in_thread(self._log.head)
            if before is None or is_another(before, head):
                await self._begin(head)
            self._head = head
            return
        head, events, work = await self._in_thread(self._look, before, fields)
        if is_another(before, head):
            return await self._begin(head)
        executed, more = work
        while True:
            await self._take(executed, head.epoch)
            if not more:
                break
            executed, more = await self._in_thread(self._execution.some, more)
        self._rung = self._rung or before.position + len(events) < head.position

    def _look(
        self, before: Head, fields: frozenset[str]
    ) -> tuple[Head, Sequence[Event], tuple[list[Executed], Work | None]]:
        """In the hub's thread: what is new, and the first of it executed."""
        head, events = self._log.read_new(before, PAGE, fields)
        if is_another(before, head):
            return head, [], ([], None)
        check_dense(events, before.position, head.position)
        taken = [Taken(event, fields) for event in events]
        return head, events, self._execution.some(self._execution.wanted(taken))

    async def _take(self, executed: list[Executed], epoch: str) -> None:
        """Sends what was executed; an event that all have had is behind us."""
        self._turn.begin()
        for taken, result in executed:
            if result is not None:
                await self._deliver(result[0], taken.event.position, result[1])
            else:
                if taken.results:
                    self.delivered(taken.event)
                self._joining.recent.append(taken)
                self._head = Head(epoch, taken.event.position)

    async def _deliver(self, group: Group, position: int, result: str) -> None:
        for number, subscription in enumerate(list(group.members)):
            if subscription.state is State.LIVE and not offer_all(subscription, [(position, result)]):
                self._groups.remove(subscription)
            if number % 16 == 0:
                await self._turn.over()

    async def _begin(self, head: Head) -> None:
        """At the start; and when the log is another one than it was, where no stream with a place can go on.

        One without goes on where it was, if the new log does so too: what it has had since is for everybody.
        """
        before, self._head = self._head, head
        self._joining.recent.clear()
        self._ready.set()
        if before is None:
            return logger.info("Following the log from %s.", head.token)
        if goes_on := 0 <= head.position - before.position <= PAGE:
            self._head, self._rung = Head(head.epoch, before.position), True
        what = "has a new epoch" if before.epoch != head.epoch else "went back: was the database restored?"
        logger.error("The log %s (it was at %s, and is at %s); live streams end there.", what, before.token, head.token)
        self._joining.replay.forget()
        for subscription in list(self._all):
            await self._turn.over()
            if subscription.state is State.ENDED:
                continue  # it left meanwhile
            if subscription.stream.checkpoints:
                text = f"The log has begun anew after {before.token}: read what is stored, and subscribe again."
                self._refuse(subscription, Refusal.EPOCH_CHANGED, text)
                continue
            if not goes_on or subscription.position > before.position:
                subscription.position = self._head.position
            if subscription.state is State.REPLAYING:
                subscription.state = State.BLOCKED
                self.rejoin(subscription)

    def _refuse(self, subscription: Subscription, code: Refusal, text: str) -> None:
        """Ends a subscription that cannot go on."""
        self.unsubscribe(subscription)
        subscription.fail([{"message": text, "extensions": {"code": code.value}}])

    async def _tell_places(self) -> None:
        """A checkpoint for those who were told nothing of the last events, so that their place moves on."""
        while True:
            await asyncio.sleep(CHECKPOINTS)
            if self._head is not None:
                await self._tried(self._tell_place(self._head))

    async def _tell_place(self, head: Head) -> None:
        turn = Turn()
        turn.begin()
        checkpoint = self._joining.checkpoint(head)
        for subscription in self._groups:
            if subscription.stream.checkpoints and subscription.position < head.position:
                result = checkpoint.result(self._engine, subscription.operation)
                if subscription.state is State.LIVE and not offer_all(subscription, [(head.position, result)]):
                    self._groups.remove(subscription)
            await turn.over()

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def is_another(before: Head, now: Head) -> bool:
    """Whether the log is not the one that it was: begun anew, or set back by a restored backup."""
    return before.epoch != now.epoch or now.position < before.position
