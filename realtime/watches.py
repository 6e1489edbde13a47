"""Subscriptions to something that is not in the log: told its state now, and again whenever that has changed.

One task looks for all of them, at most once in a second, however many there are.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from realtime.operations import Engine, Operation, as_json, is_away
from realtime.watch import Watch

logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds
ENDED = {
    "message": "Nothing more is told: the token that this was asked with has ended.",
    "extensions": {"code": "UNAUTHENTICATED"},
}

# The versions of what is behind the keys; a key that is left out is nobody's any more. Asks the database.
Probe = Callable[[set[Any]], Mapping[Any, Hashable]]
InThread = Callable[..., Awaitable[Any]]


class Watcher(Protocol):
    """One subscription of a socket."""

    operation: Operation

    def show(self, state: str) -> bool:
        """False where there was no room: it is shown the newest again later."""

    def fail(self, errors: list[dict[str, Any]]) -> None: ...


@dataclass(slots=True)
class _Watching:
    key: Hashable
    version: Hashable = None
    stale: bool = True


class Watches:
    """Those of a process. Belongs to one event loop, but for what it calls `in_thread`."""

    def __init__(self, engine: Engine, probe: Probe, in_thread: InThread) -> None:
        self._engine = engine
        self._probe = probe
        self._in_thread = in_thread
        self._all: dict[Watcher, _Watching] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def add(self, watcher: Watcher, watch: Watch) -> None:
        """It is shown the state with the next look: within a second."""
        self._all[watcher] = _Watching(watch.key)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, watcher: Watcher) -> None:
        """Twice does no harm."""
        self._all.pop(watcher, None)

    def __len__(self) -> int:
        return len(self._all)

    async def _run(self) -> None:
        while self._all:
            try:
                await self._look()
                self._failing = False
            except Exception:
                if not self._failing:  # once, and not each second until it works again
                    logger.exception("What is watched could not be looked at; trying each %.0f s.", LOOK)
                self._failing = True
            await asyncio.sleep(LOOK)

    async def _look(self) -> None:
        keys = {watching.key for watching in self._all.values()}
        versions = await self._in_thread(self._probe, keys)
        changed: dict[tuple[Hashable, Hashable], list[Watcher]] = {}
        for watcher, watching in list(self._all.items()):
            if watching.key not in keys:
                continue  # it came while we looked
            if watching.key not in versions:
                self.remove(watcher)
                watcher.fail([ENDED])
            elif watching.stale or watching.version != versions[watching.key]:
                changed.setdefault((watching.key, watcher.operation.selection), []).append(watcher)
        for (key, _), watchers in changed.items():
            state = await self._in_thread(self._state, watchers[0].operation)
            for watcher in watchers:
                self._show(watcher, versions[key], state)

    def _state(self, operation: Operation) -> str:
        """Raises while the database is away: nothing would say that there is an answer when it is back."""
        result = self._engine.result(operation)
        for error in result.errors or ():
            if error.original_error and is_away(error.original_error):
                raise error.original_error
        return as_json(result).decode()

    def _show(self, watcher: Watcher, version: Hashable, state: str) -> None:
        if watching := self._all.get(watcher):  # it has not left meanwhile
            watching.stale = not watcher.show(state)
            watching.version = version
