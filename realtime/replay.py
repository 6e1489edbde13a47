"""Subscriptions that are far behind: brought near the head page by page, from the log.

Those who need the same page share it: it is read once, and executed once for each selection. The lowest page is
served first, so that everybody above is overtaken by one sweep and joins it; every second time it is the one that
has waited longest, so that nobody waits for all who come from further back.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from realtime.groups import Group, State, Subscription, grouped, offer_all
from realtime.log import Head, Log, Refusal
from realtime.operations import Engine
from realtime.recent import Taken, results_for

logger = logging.getLogger(__name__)

PAGE = 100  # events; pages begin at multiples of it, so that many share them
SLICE = 20  # of them, executed before they are sent
RETRY = 1.0  # seconds after which a log that could not be read is asked again
PATIENCE = 5.0  # seconds of that until those who have just come are told to come again


class Replay:
    """Belongs to the hub.

    `near` says whether the hub can go on after a position; `hand_over` gives it back a subscription for which it can,
    and `refuse` one for which nobody can.
    """

    def __init__(
        self,
        log: Log,
        engine: Engine,
        near: Callable[[int], bool],
        hand_over: Callable[[Subscription], None],
        refuse: Callable[[Subscription, Refusal, str], None],
    ) -> None:
        self._log = log
        self._engine = engine
        self._near = near
        self._hand_over = hand_over
        self._refuse = refuse
        self._epoch = ""
        self._pages: dict[int, dict[Subscription, None]] = {}  # by number of the page, both in the order of arrival
        self._task: asyncio.Task[None] | None = None
        self._lowest_first = True
        self._failing_since: float | None = None
        # Another thread than the hub's: who is behind must not hold up who is not.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="replay")

    def add(self, subscription: Subscription, epoch: str) -> None:
        subscription.state = State.REPLAYING
        self._epoch = epoch
        self._put(subscription)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def forget(self) -> None:
        """The log has begun anew: nothing that was read of it counts any more."""
        self._pages = {}

    def _put(self, subscription: Subscription) -> None:
        self._pages.setdefault(subscription.position // PAGE, {})[subscription] = None

    async def _run(self) -> None:
        while self._pages:
            number = min(self._pages) if self._lowest_first else next(iter(self._pages))
            self._lowest_first = not self._lowest_first
            waiting = [one for one in self._pages.pop(number) if one.state is State.REPLAYING]
            if not waiting:
                continue
            pages = self._pages
            try:
                await self._serve(waiting, pages)
            except Exception:
                logger.exception("The log could not be read for a replay; trying again in %.0f s.", RETRY)
                self._give_up(waiting)
                await asyncio.sleep(RETRY)
            else:
                self._failing_since = None
            if pages is self._pages:
                for subscription in waiting:
                    self._go_on(subscription)

    def _give_up(self, waiting: list[Subscription]) -> None:
        """Those who wait for their first event would think that all is well."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since >= PATIENCE:
            everybody = [*waiting, *(one for page in self._pages.values() for one in page)]
            for subscription in everybody:
                if subscription.state is State.REPLAYING and not subscription.told:
                    text = "The log cannot be read at the moment; try again later, with the last position that you had."
                    self._refuse(subscription, Refusal.UNAVAILABLE, text)

    def _go_on(self, subscription: Subscription) -> None:
        if subscription.state is not State.REPLAYING:
            return
        if self._near(subscription.position):
            subscription.state = State.BLOCKED
            self._hand_over(subscription)
        else:
            self._put(subscription)

    async def _serve(self, waiting: list[Subscription], pages: object) -> None:
        """One page to all who need it; moves their positions on. Stops when the log begins anew: `pages` are others."""
        after = min(subscription.position for subscription in waiting)
        loop = asyncio.get_running_loop()
        fields = frozenset[str]().union(*(subscription.fields for subscription in waiting))
        page = await loop.run_in_executor(self._thread, self._read, Head(self._epoch, after), fields)
        if not page:  # the log has begun anew, and the hub has not noticed yet
            return await asyncio.sleep(RETRY)
        begins = page[0].event.position
        for group in grouped(one for one in waiting if one.position + 1 >= begins):
            for first in range(0, len(page), SLICE):
                # Who has left, or does not read, must not keep the others waiting for what nobody wants.
                if all(one.state is not State.REPLAYING for one in group.members):
                    break
                part = page[first : first + SLICE]
                results = await loop.run_in_executor(self._thread, results_for, self._engine, part, group)
                if pages is not self._pages:
                    return
                await self._offer(group, results, part)
        for subscription in waiting:
            if subscription.state is State.REPLAYING and subscription.position + 1 < begins:
                # Somebody has deleted events from the log itself.
                text = f"The log holds nothing before {self._epoch}:{begins}; read what is stored, and subscribe again."
                self._refuse(subscription, Refusal.TOO_OLD, text)

    async def _offer(self, group: Group, results: list[tuple[int, str]], part: list[Taken]) -> None:
        begins, ends = part[0].event.position, part[-1].event.position
        for subscription in list(group.members):
            # One that was blocked and came back since has not had the part before: it waits for the next page.
            here = subscription.state is State.REPLAYING and subscription.position + 1 >= begins
            if here and offer_all(subscription, results):
                subscription.position = max(subscription.position, ends)
            await asyncio.sleep(0)  # many messages; others have their turn between two sockets

    def _read(self, after: Head, fields: frozenset[str]) -> list[Taken]:
        """The rest of the page, up to the first hole in it: what follows the hole is another page's beginning."""
        events = self._log.read(after, PAGE - after.position % PAGE, fields)
        dense = [event for number, event in enumerate(events) if event.position == events[0].position + number]
        return [Taken(event, fields) for event in dense]
