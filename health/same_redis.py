"""Whether every living process of the board is on this process' Redis. Asks the database, where each tells its own."""

import threading
import time
from collections.abc import Callable, Iterable

from django.conf import settings
from django.db import Error, connections

from health import redis
from health.connection import use_own_connection
from health.models import Process
from health.registry import BEAT

DATABASE_LIMIT = 5.0  # seconds
LOOK_AGAIN = 0.5  # seconds
PATIENCE = 3 * BEAT + 1  # seconds; who has not told of itself by then does not count as living any more

SILENT = "has not told for a while that it lives: it hangs, or ended without a word; look into its log, and restart it."

Faults = dict[str, str]  # by process: host:pid, with its token where there is a row


class Unasked(Exception):
    """It cannot be known; in words."""


def strangers(answered: Callable[[], Iterable[str]], ask_again: Callable[[], None]) -> tuple[int, list[str]]:
    """How many processes there are, and a line for each that is elsewhere, deaf or silent, with what to do.

    Who is found counts only when its next heartbeat says the same: Redis may have lost its data, the process may have
    just begun. `answered`: the servers (host:pid:token) that have answered the canary; `ask_again` sends another one.
    Who hangs tells nothing any more, and drops out of those that live: so it is named by its silence. Raises Unasked.
    """
    rows, _ = _ask_for_processes()
    first = _faults(rows, answered())
    faults, seen, begun = first, {row.pk: row.seen_at for row in rows}, time.monotonic()
    while faults and time.monotonic() - begun < PATIENCE:
        time.sleep(LOOK_AGAIN)
        rows, _ = _ask_for_processes()
        faults = {key: line for key, line in _faults(rows, answered()).items() if key in first}
        told = all(row.seen_at > seen[row.pk] for row in rows if row.pk in faults)
        if told and time.monotonic() - begun > BEAT + LOOK_AGAIN:
            break
    if faults:
        ask_again()
        last = _faults(rows, answered())
        faults = {key: last[key] for key in faults if key in last}
    rows, silent = _ask_for_processes()
    faults |= {row.pk: f"{_described(row)} {SILENT}" for row in silent}
    return len({row.pk for row in rows} | faults.keys()), [line for _, line in sorted(faults.items())]


def elsewhere() -> list[str]:
    """For who hears no server at all: a line for each living process that is elsewhere, or a server here that is deaf.

    What one look tells, or none.
    """
    try:
        rows, _ = _ask_for_processes()
        return [line for _, line in sorted(_faults(rows, answered=()).items())]
    except Unasked:
        return []


def _faults(rows: list[Process], answered: Iterable[str]) -> Faults:
    own = redis.identity()
    if not own:
        raise Unasked("it cannot be told which Redis this is: may this user GET and SET the keys of the board?")
    heard = {_host_and_pid(process) for process in answered}
    known = {_host_and_pid(row.pk) for row in rows}
    faults = {process: _without_a_row(process) for process in heard - known}
    for row in rows:
        what = _fault(row, own, heard)
        if what:
            faults[row.pk] = f"{_described(row)} {what}, and restart it."
    return faults


def _described(row: Process) -> str:
    host, _, pid = _host_and_pid(row.pk).rpartition(":")
    number = f", WORKER_ID {row.worker_id}" if row.worker_id else ""
    return f"{row.name}{number} (pid {pid} on {host})"


def _fault(row: Process, own: str, heard: set[str]) -> str:
    if row.redis == redis.NONE:
        return "uses no Redis: set REDIS_URL and USE_REDIS_PUBSUB=true for it"
    if row.redis == redis.AWAY:
        return "cannot reach its Redis: compare its REDIS_URL with that of this process"
    if row.redis != own:
        return f"is on another Redis or database: set its REDIS_URL to that of this process, {settings.REDIS_MASKED}"
    if row.kind == Process.Kind.SERVER and _host_and_pid(row.pk) not in heard:
        return "is on this Redis, and did not answer the canary: look into its log"
    return ""


def _without_a_row(process: str) -> str:
    host, _, pid = process.rpartition(":")
    return (
        f"server (pid {pid} on {host}) answered the canary, and is not in this database: set its DATABASE_URL to that "
        "of this process, and restart it."
    )


def _host_and_pid(process: str) -> str:
    """Of `host:pid:token`, each in its own spelling of the token."""
    return process.rpartition(":")[0]


def _is_back(row: Process, alive: list[Process]) -> bool:
    """Started again: a worker under its name, beat under any. (A server takes the row of its forerunner away.)"""
    others = {other.name for other in alive if other.kind == row.kind}
    return row.name in others or (row.kind == Process.Kind.BEAT and bool(others))


def _ask_for_processes() -> tuple[list[Process], list[Process]]:
    """Those that live, and those that fell silent. Within a time that holds for a database that hangs, too."""
    found: list[tuple[list[Process], list[Process]]] = []
    failed: list[str] = []
    thread = threading.Thread(target=_ask_database, args=[found, failed], daemon=True)
    thread.start()
    thread.join(DATABASE_LIMIT)
    if not found:
        why = failed[0] if failed else f"the database did not answer within {DATABASE_LIMIT:.0f} s"
        raise Unasked(f"could not be asked: {why}. What the servers answered stands.")
    return found[0]


def _ask_database(found: list[tuple[list[Process], list[Process]]], failed: list[str]) -> None:
    use_own_connection()
    try:
        alive = list(Process.objects.alive())
        found.append((alive, [row for row in Process.objects.silent() if not _is_back(row, alive)]))
    except Error as error:
        text = str(error).lower()
        lacks = "does not exist" in text or "no such table" in text
        away = f"the database does not answer ({type(error).__name__})"
        failed.append("the database lacks the board's tables (manage.py migrate makes them)" if lacks else away)
    finally:
        connections["default"].close()
