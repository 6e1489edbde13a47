"""`manage.py diagnose`: all parts of the board, as `/health` has them, for who sits at the machine."""

import argparse
import asyncio
import sys
import time
from typing import Any

import orjson
from django.conf import settings
from django.core.management import BaseCommand

from health.checks import Checks, report
from health.part import Part, State, overall
from realtime import doorbell

MARKS = {State.OK: "✔", State.DEGRADED: "!", State.DOWN: "✘"}
PLAIN_MARKS = {State.OK: "ok", State.DEGRADED: "!", State.DOWN: "FAILED"}  # for a terminal that has no others
LIMIT = 3.0  # seconds; a cold process is slower than a server
WORST_LAST = list(State)


class Command(BaseCommand):
    help = (
        "Tells of every part of the board whether it works, and what to do where it does not. Exit code 0: all is ok."
    )
    # It is there for boards on which something is wrong.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object, that of /health, instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        parts = asyncio.run(_ask())
        if options["json"]:
            self.stdout.write(orjson.dumps(report(parts)).decode())
        else:
            for name, part in sorted(parts.items(), key=lambda item: WORST_LAST.index(item[1].status)):
                self._tell(name, part)
        if overall(parts) is not State.OK:
            sys.exit(1)

    def _tell(self, name: str, part: Part) -> None:
        try:
            MARKS[part.status].encode(sys.stdout.encoding or "ascii")
            marks = MARKS
        except UnicodeEncodeError:
            marks = PLAIN_MARKS
        self.stdout.write(f"{marks[part.status]} {name:10}{part.status:10}{in_words(part.facts)}".rstrip())
        if part.hint:
            self.stdout.write(f"    {part.hint}")


async def _ask() -> dict[str, Part]:
    """With an ear of our own at the doorbell, as a server has one; it answers no canary, and wakes nobody."""
    listener = doorbell.Listener(lambda head: None, lambda: 0, overheard=lambda message: None)
    listening = asyncio.create_task(listener.run())
    if settings.REDIS:
        await _until_it_rings()
    try:
        return await Checks(LIMIT).all()
    finally:
        listening.cancel()


async def _until_it_rings() -> None:
    """It takes a moment until Redis has taken us in. Asks without a listener answer at once."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        if (await doorbell.check(LIMIT / 2)).connected:
            break
        await asyncio.sleep(0.05)


def in_words(value: Any) -> str:
    """One line; what is not known is left out."""
    if isinstance(value, dict):
        known = {name: one for name, one in value.items() if one not in (None, "", [], {})}
        return ", ".join(f"{name.replace('_', ' ')} {_inner(one)}" for name, one in known.items())
    return "; ".join(map(_inner, value)) if isinstance(value, list) else str(value)


def _inner(value: Any) -> str:
    return f"({in_words(value)})" if isinstance(value, dict | list) else str(value)
