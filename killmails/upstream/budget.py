"""How much ESI may still be asked, counted by all workers of the board together.

A question is paid for before it is asked, at its worst price, and settled when the answer is there; so workers that
ask at the same time cannot overdraw together. The rules are in `budget_rules`, and once more in `budget.lua`.
Source: https://developers.eveonline.com/docs/services/esi/rate-limiting/
"""

import logging
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from killmails.errors import BudgetAway, BudgetSpent
from killmails.upstream.budget_rules import BANNED, Ask, Board, Permit, Report, Verdict, reserve, settle, told

logger = logging.getLogger(__name__)

AGAIN = 1.0  # seconds until it is worth to look for a store that is away


class StoreAway(Exception):
    """The store of the budget cannot be reached."""


class Store(Protocol):
    """Where the counts are. Each method raises StoreAway, within a second."""

    def reserve(self, ask: Ask) -> Verdict:
        """A permit, or how long to wait."""

    def settle(self, permit: Permit, report: Report) -> None:
        """Gives back what the permit holds, and books what the answer cost."""

    def told(self) -> dict[str, Any]:
        """`left`: what is left by group; `answers`: how many by status; `banned_for`: seconds."""


class MemoryStore:
    """For one process that is alone. `speed`: ESI's seconds in one of ours, for tests."""

    def __init__(self, speed: float = 1.0) -> None:
        self._board = Board({}, {})
        self._speed = speed
        self._lock = threading.Lock()

    def reserve(self, ask: Ask) -> Verdict:
        with self._lock:
            return reserve(self._board, ask, secrets.token_hex(8), self._now())

    def settle(self, permit: Permit, report: Report) -> None:
        with self._lock:
            settle(self._board, permit, report, self._now())

    def told(self) -> dict[str, Any]:
        with self._lock:
            return told(self._board, self._now())

    def _now(self) -> int:
        return int(time.time() * 1000 * self._speed)


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket as ESI announces it: `tokens` in each `window` (seconds)."""

    group: str
    tokens: int
    window: int


class Budget:
    """Permits to ask. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stopped_until = 0.0  # monotonic; what this process knows, should the store forget it
        self._away_until = float("-inf")  # monotonic
        self._complained_at = float("-inf")

    def reserve(self, route: str, limit: Limit | None, user: str = "") -> Permit:
        """For one question to `route`. Raises BudgetSpent, BudgetAway; the permit has to be settled.

        `limit`: None for a route without a token bucket, which has the limit on errors instead.
        """
        left = self._stopped_until - time.monotonic()
        if left > 0:
            raise BudgetSpent(left, "ESI has stopped us")
        if time.monotonic() < self._away_until:  # another thread has just found out
            raise BudgetAway(AGAIN, "the budget cannot be reached")
        try:
            verdict = self._store.reserve(_ask(route, limit, user))
        except StoreAway as error:
            self._away_until = time.monotonic() + AGAIN / 2
            raise BudgetAway(AGAIN, f"the budget cannot be reached ({error})") from error
        if verdict.permit is None:
            raise BudgetSpent(verdict.wait / 1000, verdict.why)
        return verdict.permit

    def settle(self, permit: Permit, report: Report) -> None:
        """What the question came to. Raises nothing: an answer that is there is not lost for it."""
        try:
            self._store.settle(permit, report)
        except StoreAway as error:
            if report.banned or report.status in (420, 429):
                least = BANNED if report.banned else 1_000
                self._stopped_until = time.monotonic() + max(report.errors_reset, report.retry_after, least) / 1000
            if time.monotonic() - self._complained_at > 60:  # once, and not with each answer
                self._complained_at = time.monotonic()
                logger.warning("What an answer of ESI cost cannot be written down (%s); it counts at its worst.", error)

    def told(self) -> dict[str, Any]:
        """`left`: what is left by group; `answers`: how many by status; `banned_for`: seconds until ESI is asked again
        after a ban. Empty where the store is away.
        """
        try:
            return self._store.told()
        except StoreAway:
            return {}


def _ask(route: str, limit: Limit | None, user: str) -> Ask:
    if limit is None:
        return Ask(route)
    return Ask(route, f"{limit.group}:{user}" if user else limit.group, limit.tokens, limit.window * 1000)
