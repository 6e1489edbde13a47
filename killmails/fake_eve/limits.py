"""ESI's limits, as it enforces them: token buckets by group and user, and a hundred errors in a minute.

Source: https://developers.eveonline.com/docs/services/esi/rate-limiting/
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

PRICES = {2: 2, 3: 1, 4: 5, 5: 0}  # tokens, by the first digit of the status; 429 is free
GROUPS = {
    "killmail": (3600, 900),
    "char-killmail": (30, 900),
    "corp-killmail": (30, 900),
    "status": (600, 900),
}  # tokens, and seconds of the floating window
ERRORS = 100  # in each fixed minute, over all routes without a group
MINUTE = 60.0


class Clock:
    """Seconds of ESI's since it began; `speed` of them in one of ours."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._began = time.monotonic()

    def unix(self) -> float:
        """Of everybody's seconds, since 1970."""
        return time.time()

    def now(self) -> float:
        return (time.monotonic() - self._began) * self.speed


@dataclass
class _Bucket:
    tokens: int
    window: int
    spent: deque[tuple[float, int]] = field(default_factory=deque)

    def left(self, now: float) -> int:
        while self.spent and self.spent[0][0] + self.window <= now:
            self.spent.popleft()
        return self.tokens - sum(price for _, price in self.spent)

    def headers(self, group: str, now: float) -> dict[str, str]:
        minutes, rest = divmod(self.window, 60)
        left = max(0, self.left(now))
        return {
            "X-Ratelimit-Group": group,
            "X-Ratelimit-Limit": f"{self.tokens}/{self.window if rest else minutes}{'s' if rest else 'm'}",
            "X-Ratelimit-Remaining": str(left),
            "X-Ratelimit-Used": str(self.tokens - left),
        }


@dataclass(frozen=True)
class Refusal:
    """420 or 429, with the headers that say until when."""

    status: int
    headers: Mapping[str, str]


class Limits:
    """Counts what is asked. `violations` tells of each question that broke a limit, `lowest` what was ever left."""

    def __init__(self, clock: Clock, groups: Mapping[str, tuple[int, int]], errors: int = ERRORS) -> None:
        self._clock = clock
        self._groups = dict(groups)
        self._errors_allowed = errors
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._minute = -1
        self._errors = 0
        self.violations: list[str] = []
        self.lowest: dict[str, int] = {}

    def refill(self) -> None:
        """As if the longest window had passed."""
        self._buckets.clear()

    def refuse(self, group: str, user: str) -> Refusal | None:
        """For a question that may not be asked now; None: it may."""
        now = self._clock.now()
        self._turn_minute(now)
        if self._errors >= self._errors_allowed:
            self.violations.append("420: asked after 100 errors in this minute")
            return Refusal(420, self._error_headers(now))
        bucket = self._bucket(group, user)
        if bucket is None or bucket.left(now) > 0:
            return None
        self.violations.append(f"429: the bucket of {group} is empty")
        wait = math.ceil(bucket.spent[0][0] + bucket.window - now)
        return Refusal(429, bucket.headers(group, now) | {"Retry-After": str(max(1, wait))})

    def charge(self, group: str, user: str, status: int) -> dict[str, str]:
        """Books an answer; the headers that tell of it."""
        now = self._clock.now()
        self._turn_minute(now)
        bucket = self._bucket(group, user)
        if bucket is None:
            if not 200 <= status < 400:
                self._errors += 1
            self._note("errors", self._errors_allowed - self._errors)
            return self._error_headers(now)
        price = 0 if status == 429 else PRICES.get(status // 100, 0)
        if price:
            bucket.spent.append((now, price))
        self._note(group, bucket.left(now))
        return bucket.headers(group, now)

    def _bucket(self, group: str, user: str) -> _Bucket | None:
        if group not in self._groups:
            return None
        return self._buckets.setdefault((group, user), _Bucket(*self._groups[group]))

    def _note(self, name: str, left: int) -> None:
        self.lowest[name] = min(left, self.lowest.get(name, left))

    def _error_headers(self, now: float) -> dict[str, str]:
        left = max(0, self._errors_allowed - self._errors)
        reset = math.ceil((self._minute + 1) * MINUTE - now)
        return {"X-Esi-Error-Limit-Remain": str(left), "X-Esi-Error-Limit-Reset": str(reset)}

    def _turn_minute(self, now: float) -> None:
        minute = int(now // MINUTE)
        if minute != self._minute:
            self._minute, self._errors = minute, 0
