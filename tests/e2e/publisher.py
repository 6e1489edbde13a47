"""A worker process that stores killmails as the feed's worker does, at a steady rate, until SIGTERM."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from time import monotonic, monotonic_ns

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")
django.setup()  # first: the imports below need it

from killmails.ingest.store import Stored, store_killmail  # noqa: E402
from killmails.models import KillmailEvent  # noqa: E402
from killmails.records import parse_package  # noqa: E402
from tests.builders import NOW, esi_body, raw_package, zkb_block  # noqa: E402


def publish(number: int, padding: int) -> int:
    """When the commit had returned."""
    zkb = zkb_block(labels=["x" * 1000] * padding)
    record = parse_package(raw_package(number, esi_body(number), zkb=zkb), number, NOW)
    assert store_killmail(record) is Stored.ADDED
    return monotonic_ns()


def main(result: Path, first: int, rate: float, count: int, padding: int) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    committed: dict[int, int] = {}
    begun = monotonic()
    for number in range(first, first + count):
        committed[number] = publish(number, padding)
        result.touch()
        ahead = begun + len(committed) / rate - monotonic() if rate else 0.0
        if stop.wait(max(0.0, ahead)):
            break
    events = KillmailEvent.objects.filter(killmail_id__in=committed, kind="ADDED")
    positions = {event.position: committed[event.killmail_id] for event in events}
    result.write_text(json.dumps(positions))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
