"""The budget's stores for tests: each with a clock that the test moves, or with one that runs faster."""

import redis

from killmails.ingest.esi_store import DatabaseStore
from killmails.upstream import budget_redis
from killmails.upstream.budget import MemoryStore
from killmails.upstream.budget_redis import RedisStore

NOON = 1_800_000_000_000  # ms; the first one of a slot of every width that the tests use
CLOCK = "clock-of-the-test"


class Clock:
    """Milliseconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


def redis_store(port: int, speed: float = 1.0, limit: float = 5.0) -> RedisStore:
    options = {"socket_timeout": limit, "socket_connect_timeout": limit, "retry": None}
    return RedisStore(lambda cluster: redis.Redis(port=port, **options), "test:", speed)


class ClockedRedisStore(RedisStore):
    """Its script reads the time from a key."""

    def __init__(self, port: int, clock: Clock, monkeypatch) -> None:
        self._asked_clock = clock
        text = budget_redis._script().replace("redis.call('TIME')", f"cjson.decode(redis.call('GET', '{CLOCK}'))")
        monkeypatch.setattr(budget_redis, "_script", lambda: text)
        super().__init__(lambda cluster: ClockedRedis(clock, port=port), "test:")
        redis.Redis(port=port).flushall()


class ClockedRedis(redis.Redis):
    def __init__(self, clock: Clock, **options) -> None:
        super().__init__(**options)
        self._clock = clock

    def time(self):
        return self._clock() // 1000, self._clock() % 1000 * 1000

    def evalsha(self, *arguments):
        self.set(CLOCK, f"[{self._clock() // 1000}, {self._clock() % 1000 * 1000}]")
        return super().evalsha(*arguments)


def clocked(kind: str, clock: Clock, port: int, monkeypatch):
    if kind == "redis":
        return ClockedRedisStore(port, clock, monkeypatch)
    store = MemoryStore() if kind == "memory" else DatabaseStore()
    store._now = clock
    return store
