"""A process that follows the feed and is killed at named points; for test_feed_crashes.py.

Reads one JSON object from stdin: `url`, `database` (name), `last` (sequence), `kills` ([point, n] each), `clean`
(number of workers at the end, all with the same lease), `wrong` (a variant that must lose). It makes a child for each
kill, which dies by SIGKILL when it comes to the point for the n-th time, and prints how each child ended.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

HOLDER = "driver"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """Counts how often a point was met; the n-th time is the last."""

    def __init__(self, left: int) -> None:
        self._left = left

    def meet(self) -> None:
        self._left -= 1
        if self.is_next(0):
            die()

    def is_next(self, left: int = 1) -> bool:
        return self._left == left


def before(owner: Any, name: str, deadly: Deadly) -> None:
    real = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        deadly.meet()
        return real(*arguments, **named)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, deadly: Deadly) -> None:
    real = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        deadly.meet()
        return result

    setattr(owner, name, wrapped)


def points() -> dict[str, Callable[[Deadly], None]]:
    """The points by name, in the order in which a package meets them; each installs its death."""
    from killmails import events
    from killmails.ingest import feed, store
    from killmails.models import Killmail, KillmailEvent, KillmailPackage
    from killmails.upstream.http import Client
    from killmails.upstream.zkillboard import Zkillboard
    from realtime import doorbell

    return {
        "after_lease": lambda deadly: after(feed, "take_lease", deadly),
        "before_fetch": lambda deadly: before(Zkillboard, "fetch_package", deadly),
        "after_headers": lambda deadly: before(Client, "_read", deadly),
        "mid_body": _in_body,
        "after_parse": lambda deadly: after(feed, "parse_package", deadly),
        "transaction_begun": lambda deadly: before(feed, "move_cursor", deadly),
        "after_cursor": lambda deadly: after(feed, "move_cursor", deadly),
        "after_entities": lambda deadly: after(store, "_insert_entities", deadly),
        "after_killmail": lambda deadly: after(Killmail, "save", deadly),
        "after_attackers": lambda deadly: before(KillmailPackage, "save", deadly),
        "after_package": lambda deadly: after(KillmailPackage, "save", deadly),
        "after_counter": lambda deadly: before(KillmailEvent, "save", deadly),
        "before_commit": lambda deadly: after(events, "append", deadly),
        "in_commit": _in_commit,
        "after_commit": lambda deadly: before(doorbell, "ring", deadly),
        "after_doorbell": lambda deadly: after(doorbell, "ring", deadly),
    }


def _in_body(deadly: Deadly) -> None:
    from killmails.upstream.http import Client

    real = Client._read

    def read(self: Any, response: Any) -> Any:
        if deadly.is_next():
            response.raw.read(100)
        deadly.meet()
        return real(self, response)

    Client._read = read


def _in_commit(deadly: Deadly) -> None:
    """A clock that strikes while the commit is on its way: sometimes before it is done, sometimes after."""
    from django.db import connection

    from killmails import events

    append, commit, stored = events.append, connection.commit, threading.local()

    def note(*arguments: Any) -> int:
        stored.now = True
        return append(*arguments)

    def strike() -> None:
        time.sleep(random.uniform(0, 0.002))
        deadly.meet()

    def committing() -> None:
        if getattr(stored, "now", False):
            stored.now = False
            threading.Thread(target=strike).start()
        commit()

    events.append, connection.commit = note, committing


def install_wrong_variant() -> None:
    """Known to be wrong: the cursor moves in a transaction of its own, before the package is stored."""
    from killmails.ingest import feed
    from killmails.ingest.store import store_killmail

    def take(self: Any, cursor: Any, record: Any) -> float:
        feed.move_cursor(record.sequence, record.sequence + 1)
        store_killmail(record)
        return 0.0

    feed.Feed._take = take


def follow(url: str, last: int) -> None:
    """The feed's own steps, without the waits, until the cursor is past `last`."""
    from killmails.ingest.feed import Feed
    from killmails.ingest.lease import next_sequence
    from killmails.upstream.zkillboard import Zkillboard

    feed = Feed(Zkillboard(url, "tests@example.com"), HOLDER)
    while (next_sequence() or 0) <= last:
        feed.step()


def in_a_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(1 if sys.exc_info()[0] else 0)


def killed(order: dict[str, Any], point: str, number: int) -> None:
    if order["wrong"]:
        install_wrong_variant()
    points()[point](Deadly(number))
    follow(order["url"], order["last"])


def main() -> None:
    order = json.load(sys.stdin)
    settings.DATABASES["default"]["NAME"] = order["database"]
    django.setup()
    from killmails.upstream import zkillboard

    zkillboard.PACE = 0.0
    points()  # imports, once for all children
    ends = []
    for point, number in order["kills"]:
        _, status = os.waitpid(in_a_child(lambda point=point, number=number: killed(order, point, number)), 0)
        ends.append([point, os.waitstatus_to_exitcode(status)])
    workers = [in_a_child(lambda: follow(order["url"], order["last"])) for _ in range(order["clean"])]
    clean = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    print(json.dumps({"ends": ends, "clean": clean}))


if __name__ == "__main__":
    main()
