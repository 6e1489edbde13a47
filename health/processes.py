"""The processes of the board, as each tells of itself: workers, beat, and the hubs of the servers."""

import time
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from health import redis, registry
from health.database import UNKNOWN, asking
from health.models import ALIVE, MISSED, Process
from health.part import Part, State, ok, started_by
from health.probe import silent
from killmails.models import KillmailEvent, LogHead

SETTLED = 15.0  # seconds until all have told of a Redis that is another one now
LATE = 5.0  # seconds that a hub may take for an event; it looks each second

WORKERS_UNKNOWN = silent(UNKNOWN, needed=True)
START_FEED = f"No worker follows the feed: start one, {started_by('celery -A killboard worker -Q feed')}."
TASKS = ("publish", "esi", "bulk")
START_TASKS = (
    "No worker does the tasks of the queue {}: start one, "
    f"{started_by('celery -A killboard worker -Q publish,esi,bulk')}."
)
ESI_BLOCKS = "ESI blocks this board, and nobody asks it for a while: read a worker's log, and see that CONTACT is set."
START_BEAT = f"Beat does not run, so nothing is swept up: start it, {started_by('celery -A killboard beat')}."
START_SERVER = f"No server runs: start one, {started_by('uvicorn killboard.asgi:application')}."
SERVER_MISSED = "{} hangs, or ended without a word: read its log, and start it again."
RESTART_HUB = "{} does not read the log: look into its log, and restart it."


class Redises:
    """Which processes are on another Redis than this one; says nothing while that may still be settling."""

    def __init__(self) -> None:
        self._own = ""
        self._since = float("-inf")

    def look(self) -> None:
        own = redis.identity()
        if self._own and own != self._own:
            self._since = time.monotonic()
        self._own = own

    def where(self, row: dict[str, Any]) -> str:
        """In one word."""
        if row["redis"] in (redis.NONE, redis.AWAY):
            return {redis.NONE: "none", redis.AWAY: "away"}[row["redis"]]
        return "same" if row["redis"] == self._own else "other"

    def hint(self, rows: list[dict[str, Any]]) -> str:
        if not self._own or time.monotonic() - self._since < SETTLED:
            return ""
        for row in rows:
            if self.where(row) == "away" or row["redis"] == self._own:
                continue
            return f"{row['name']} is on another Redis than this process: run `python manage.py diagnose_redis`."
        return ""


redises = Redises()


def check_workers() -> Part:
    with asking():
        rows = _rows("worker")
        redises.look()
    alive = [row for row in rows if row["alive"]]
    facts = {"workers": [_worker(row) for row in rows if row["alive"] or _is_missed(row, alive)]}
    served = {queue for row in alive for queue in row["queues"]}
    if "feed" not in served and settings.FEED != "off":
        return Part(State.DOWN, START_FEED, True, facts)
    hint = next((START_TASKS.format(queue) for queue in TASKS if queue not in served), "")
    for row in rows:
        if not hint and _is_missed(row, alive):
            hint = f"{row['name']} ended without a word: read its log, and start it again."
    if not hint and any((row["facts"].get("esi") or {}).get("banned_for") for row in alive):
        hint = ESI_BLOCKS
    hint = hint or redises.hint(alive)
    return Part(State.DEGRADED if hint else State.OK, hint, True, facts)


def _rows(kind: str) -> list[dict[str, Any]]:
    """Those that live, and those that lived lately; each with `age`, the seconds since its last heartbeat."""
    rows = Process.objects.filter(kind=kind, seen_at__gte=Now() - MISSED).annotate(now=Now()).order_by("name", "pk")
    return [row | {"age": _age(row), "alive": _age(row) <= ALIVE.total_seconds()} for row in rows.values()]


def _age(row: dict[str, Any]) -> float:
    return max(0.0, round((row["now"] - row["seen_at"]).total_seconds(), 1))


def _is_missed(row: dict[str, Any], alive: list[dict[str, Any]]) -> bool:
    """One that came back has the same name."""
    return not row["alive"] and row["name"] not in {other["name"] for other in alive}


def _worker(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "worker_id": row["worker_id"],
        "name": row["name"],
        "queues": row["queues"],
        "alive": row["alive"],
        "last_heartbeat_seconds": row["age"],
        "redis": redises.where(row),
        "counted": row["facts"],
    }


def check_beat() -> Part:
    with asking():
        alive = [row for row in _rows("beat") if row["alive"]]
    facts: dict[str, Any] = {
        "running": len(alive),
        "last_heartbeat_seconds": min((row["age"] for row in alive), default=None),
    }
    return ok(**facts) if alive else Part(State.DEGRADED, START_BEAT, False, facts)


def check_hubs() -> Part:
    """Of this process as it is now; of the others as they last told."""
    with asking():
        head = LogHead.objects.get(pk=1)
        own, rows = registry.told("server"), _rows("server")
        others = [row for row in rows if row["id"] != registry.id_of("server") and row["alive"]]
        missed = [row for row in rows if not row["alive"] and row["id"] != registry.id_of("server")]
        redises.look()
        late = [row["name"] for row in others if _is_late(row["facts"], head, row["seen_at"])]
        if own is not None and _is_late(own, head, None):
            late.insert(0, "This server")
    facts: dict[str, Any] = {"epoch": head.epoch, "head": head.position, **_numbers(own or {})}
    facts["servers"] = [_server(row) for row in [*others, *missed]]
    facts["servers_alive"] = len(others) + (own is not None)
    if own is None and not others:
        hint = START_SERVER
    elif missed:
        hint = SERVER_MISSED.format(missed[0]["name"])
    else:
        hint = RESTART_HUB.format(late[0]) if late else redises.hint(others)
    return Part(State.DEGRADED if hint else State.OK, hint, False, facts)


def _server(row: dict[str, Any]) -> dict[str, Any]:
    told = {"name": row["name"], "alive": row["alive"], "last_heartbeat_seconds": row["age"]}
    return {**told, "redis": redises.where(row), **_numbers(row["facts"])}


def _numbers(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: facts.get(name) for name in ("position", "sockets", "groups", "subscriptions")}


def _is_late(facts: dict[str, Any], head: LogHead, told_at: datetime | None) -> bool:
    """Whether the next event after its place had been there for a while when it told; now, where `told_at` is None."""
    position = facts.get("position")
    if facts.get("epoch") != head.epoch or position is None or position >= head.position:
        return False
    event = KillmailEvent.objects.filter(position=position + 1).annotate(now=Now()).values("created_at", "now").first()
    return event is not None and ((told_at or event["now"]) - event["created_at"]).total_seconds() > LATE
