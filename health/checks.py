"""All parts of the board, each asked in its own way, all at the same time."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from django.conf import settings

from health import database, feed, lists, processes, rabbitmq
from health.part import Part, State, ok, overall
from health.probe import LIMIT, InThread, Probe, silent
from realtime import doorbell

REDIS_AWAY = (
    "The doorbell does not come back from Redis: run `python manage.py diagnose_redis`; new killmails show up within "
    "a second meanwhile."
)
NOT_TOLD = ("esi", "others")  # of what a worker counts

Parts = dict[str, Part]  # by name


class Checks:
    """Belongs to one event loop. Whoever asks twice within a second gets the same answer."""

    def __init__(self, limit: float = LIMIT) -> None:
        """`limit`: seconds after which a part that has not answered does not."""
        unknown = silent(database.UNKNOWN)
        asked: list[tuple[str, Callable[[], Part], Part]] = [
            ("database", database.check, silent(database.AWAY, needed=True)),
            ("rabbitmq", rabbitmq.check, silent(rabbitmq.AWAY, needed=True)),
            ("workers", processes.check_workers, processes.WORKERS_UNKNOWN),
            ("beat", processes.check_beat, unknown),
            ("feed", feed.check, unknown),
            ("hub", processes.check_hubs, unknown),
            ("lists", lists.check, unknown),
        ]
        self._probes = [Probe(name, InThread(name, ask, answer, limit)) for name, ask, answer in asked]
        self._probes.insert(1, Probe("redis", partial(check_redis, limit)))

    async def all(self) -> Parts:
        """Every part, in the order in which one depends on the other. Within a second and a bit."""
        return await _ask(self._probes)

    async def ready(self) -> Parts:
        """What a server needs to be of use to clients: without Redis it answers queries, and events come by the log.

        A proxy that took all servers out while Redis is away would make an outage of a delay.
        """
        parts = await _ask(self._probes[:2])
        return parts | {"redis": replace(parts["redis"], needed=False)}


async def _ask(probes: list[Probe]) -> Parts:
    known = {probe.name: probe.known() for probe in probes}
    if None in known.values():  # else nobody need wait, however many ask
        answers = await asyncio.gather(*(probe.answer() for probe in probes))
        known = {probe.name: answer for probe, answer in zip(probes, answers, strict=True)}
    return {name: part for name, part in known.items() if part is not None}


async def check_redis(limit: float) -> Part:
    """By a heartbeat through the doorbell of this process; how often it is sent, the doorbell decides."""
    if settings.REDIS is None:
        return ok(note="not needed: one process only")
    status = await doorbell.check(limit)
    facts = {"publish": status.publish, "subscribe": status.subscribe}
    return ok(True, **facts) if status.connected else Part(State.DOWN, REDIS_AWAY, True, facts)


def report(parts: Parts) -> dict[str, Any]:
    """As JSON has it, for anybody: what was asked for users is not told, since by it one might see what is withheld."""
    told = {name: part.as_dict() for name, part in parts.items()}
    if workers := told.get("workers", {}).get("workers"):
        told["workers"]["workers"] = [
            {**one, "counted": {name: count for name, count in one["counted"].items() if name not in NOT_TOLD}}
            for one in workers
        ]
    return {"status": overall(parts), "parts": told}
