"""Asking one part: in a thread of its own, within a limit, once for all who want to know."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from health.part import Part, State

logger = logging.getLogger(__name__)

KEPT = 1.0  # seconds for which an answer holds
LIMIT = 0.8  # seconds; what takes longer does not answer. Less than a second, with what is kept less than two


class Probe:
    """Belongs to one event loop.

    `ask` runs in a thread. While it hangs, no other thread is begun: what is frozen costs one, however long and however
    many ask. `silent` is the answer then, and when `ask` raises.
    """

    def __init__(self, name: str, ask: Callable[[], Part], silent: Part, limit: float = LIMIT) -> None:
        self.name = name
        self._ask = ask
        self._silent = silent
        self._limit = limit
        self._last: tuple[float, Part] | None = None
        self._task: asyncio.Task[Part] | None = None
        self._asked: Future[Part] | None = None
        self._failing = False

    async def answer(self) -> Part:
        if self._last is not None and time.monotonic() - self._last[0] < KEPT:
            return self._last[1]
        if self._task is None:
            self._task = asyncio.create_task(self._wait())
        return await asyncio.shield(self._task)

    async def _wait(self) -> Part:
        try:
            if self._asked is None or self._asked.done():
                self._asked = _in_thread(self.name, self._ask)
            done, _ = await asyncio.wait([asyncio.wrap_future(self._asked)], timeout=self._limit)
            part = self._judge(done)
            self._last = time.monotonic(), part
            return part
        finally:
            self._task = None

    def _judge(self, done: set[asyncio.Future[Part]]) -> Part:
        cause = f"no answer within {self._limit} s"
        for future in done:
            error = future.exception()
            if error is None:
                self._failing = False
                return future.result()
            cause = type(error).__name__
        if not self._failing:  # once, and not with each question. The text of an error may hold what is secret
            logger.warning("Health of %s: %s.", self.name, cause)
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
