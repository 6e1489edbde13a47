"""Asking one part: in a thread of its own, within a limit, once for all who want to know."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from health.part import Part, State

logger = logging.getLogger(__name__)

KEPT = 1.0  # seconds for which an answer holds
LIMIT = 0.8  # seconds; what takes longer does not answer. Less than a second, with what is kept less than two


class Probe:
    """One question at a time to one part, and the answer for all who ask within a second. Belongs to one event loop."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[Part]]) -> None:
        self.name = name
        self._ask = ask
        self._last: tuple[float, Part] | None = None
        self._task: asyncio.Task[Part] | None = None

    def known(self) -> Part | None:
        """What was answered within the last second."""
        fresh = self._last is not None and time.monotonic() - self._last[0] < KEPT
        return self._last[1] if self._last is not None and fresh else None

    async def answer(self) -> Part:
        known = self.known()
        if known is not None:
            return known
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        return await asyncio.shield(self._task)

    async def _look(self) -> Part:
        try:
            part = await self._ask()
            self._last = time.monotonic(), part
            return part
        finally:
            self._task = None


class InThread:
    """Asks in a thread, and waits for `limit` seconds; while it hangs no other one is begun: what is frozen costs one.

    `silent` is the answer then, and when `ask` raises.
    """

    def __init__(self, name: str, ask: Callable[[], Part], silent: Part, limit: float = LIMIT) -> None:
        self._name = name
        self._ask = ask
        self._silent = silent
        self._limit = limit
        self._asked: Future[Part] | None = None
        self._failing = False

    async def __call__(self) -> Part:
        if self._asked is None or self._asked.done():
            self._asked = _in_thread(self._name, self._ask)
        done, _ = await asyncio.wait([asyncio.wrap_future(self._asked)], timeout=self._limit)
        return self._judge(done)

    def _judge(self, done: set[asyncio.Future[Part]]) -> Part:
        cause = f"no answer within {self._limit} s"
        for future in done:
            error = future.exception()
            if error is None:
                self._failing = False
                return future.result()
            cause = type(error).__name__
        if not self._failing:  # once, and not with each question. The text of an error may hold what is secret
            logger.warning("Health of %s: %s.", self._name, cause)
        self._failing = True
        return self._silent


def _in_thread(name: str, ask: Callable[[], Part]) -> Future[Part]:
    """A daemon: the end of the process does not wait for what hangs."""
    future: Future[Part] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except Exception as error:  # noqa: BLE001  (whoever waits judges)
            future.set_exception(error)

    threading.Thread(target=run, name=f"health-{name}", daemon=True).start()
    return future


def silent(hint: str, needed: bool = False) -> Part:
    """The answer of what does not answer."""
    return Part(State.DOWN if needed else State.DEGRADED, hint, needed)
