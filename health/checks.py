"""All parts of the board, each asked in its own way, all at the same time."""

import asyncio
from collections.abc import Callable
from typing import Any

from django.conf import settings

from health import database, feed, processes, rabbitmq
from health.part import Part, State, ok, overall
from health.probe import LIMIT, Probe, silent
from realtime import doorbell

REDIS_AWAY = (
    "The doorbell does not come back from Redis: run `python manage.py diagnose_redis`; new killmails show up within "
    "a second meanwhile."
)


class Checks:
    """Belongs to one event loop. Whoever asks twice within a second gets the same answer."""

    def __init__(self, limit: float = LIMIT) -> None:
        """`limit`: seconds after which a part that has not answered does not."""
        self._limit = limit
        unknown = silent(database.UNKNOWN)
        asked: list[tuple[str, Callable[[], Part], Part]] = [
            ("database", database.check, silent(database.AWAY, needed=True)),
            ("rabbitmq", rabbitmq.check, silent(rabbitmq.AWAY, needed=True)),
            ("workers", processes.check_workers, processes.WORKERS_UNKNOWN),
            ("beat", processes.check_beat, unknown),
            ("feed", feed.check, unknown),
            ("hub", processes.check_hubs, unknown),
        ]
        self._probes = [Probe(name, ask, answer, limit) for name, ask, answer in asked]

    async def all(self) -> dict[str, Part]:
        """Every part, in the order in which one depends on the other. Within a second and a bit."""
        return await self._ask([probe.name for probe in self._probes])

    async def ready(self) -> dict[str, Part]:
        """What a server needs to be of use to its clients."""
        return await self._ask(["database"])

    async def _ask(self, names: list[str]) -> dict[str, Part]:
        probes = [probe for probe in self._probes if probe.name in names]
        answers = await asyncio.gather(check_redis(self._limit), *(probe.answer() for probe in probes))
        parts = dict(zip(["redis", *(probe.name for probe in probes)], answers, strict=True))
        return {name: parts[name] for name in sorted(parts, key=ORDER.index)}


ORDER = ["database", "redis", "rabbitmq", "workers", "beat", "feed", "hub"]


async def check_redis(limit: float) -> Part:
    """By a heartbeat through the doorbell of this process; how often it is sent, the doorbell decides."""
    if settings.REDIS is None:
        return ok(note="not needed: one process only")
    status = await doorbell.check(limit)
    facts = {"publish": status.publish, "subscribe": status.subscribe}
    return ok(True, **facts) if status.connected else Part(State.DOWN, REDIS_AWAY, True, facts)


def report(parts: dict[str, Part]) -> dict[str, Any]:
    """As JSON has it."""
    return {"status": overall(parts), "parts": {name: part.as_dict() for name, part in parts.items()}}
