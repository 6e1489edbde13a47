"""Load CCP's static data: names, places and what else a killmail only has the number of."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from killmails.errors import BadStaticData, LoadUnderWay, Unacceptable, UpstreamError
from killmails.ingest.prices import revalue_newly_known
from killmails.universe.archive import Archive
from killmails.universe.builds import loaded_build, notice_build, static_data
from killmails.universe.load import Loaded, fill_places, load
from killmails.universe.lock import one_load

WIDTH = 40  # characters of the bar
STEP = 0.1  # seconds between two looks of it


class Command(BaseCommand):
    help = (
        "Loads CCP's static data (regions, systems, types, stations and so on): from CCP, when there is a newer build "
        "than the one that is loaded, or from a file. All of it or nothing; servers and workers go on meanwhile."
    )
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--file", type=Path, metavar="PATH", help="eve-online-static-data-…-jsonl.zip, or the folder it unpacks to"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with one_load(settings.DATA_DIR):
                loaded = load(Archive(options["file"])) if options["file"] else self._load_newest()
        except LoadUnderWay as error:
            raise CommandError(str(error), returncode=1) from error
        except (BadStaticData, UpstreamError, Unacceptable) as error:
            raise CommandError(f"{error}; nothing was loaded", returncode=2) from error
        if loaded:
            self._tell(loaded)
        if revalued := revalue_newly_known():
            self.stdout.write(f"{revalued} killmails of ships that were not known have points and values now.")

    def _load_newest(self) -> Loaded | None:
        upstream = static_data()
        newest = notice_build(upstream)
        if newest == loaded_build():
            fill_places()  # a load that was ended after its commit did not
            self.stdout.write(f"Build {newest} is the newest, and it is loaded.")
            return None
        # It has no name in the folder, so nothing is left of it, whatever happens.
        with tempfile.TemporaryFile(dir=settings.DATA_DIR) as file:
            progress = Progress(sys.stderr)
            name = upstream.download(newest, file, progress.tell)
            progress.end()
            self.stdout.write(f"{name}: {file.tell() / 1e6:.1f} MB, now being read")
            return load(Archive(file, name), announced=newest)

    def _tell(self, loaded: Loaded) -> None:
        self.stdout.write(f"Build {loaded.build} is loaded.")
        for name, changes in loaded.changes.items():
            self.stdout.write(
                f"  {name:22}{changes.added:8} added {changes.changed:8} changed {changes.unchanged:8} unchanged"
            )
        self.stdout.write(f"{loaded.filled} killmails that were stored before now have their place.")


class Progress:
    """A bar on a terminal, a line for each tenth elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar = out.isatty()
        self._told_at = 0.0  # by time.monotonic()
        self._tenths = 0

    def tell(self, written: int, total: int | None) -> None:
        """`total`: None where the server does not say; then there is a bar only."""
        size = f"{written / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
        if self._bar and time.monotonic() - self._told_at >= STEP:
            done = "#" * (WIDTH * written // total) if total else ""
            self._out.write(f"\r[{done:{WIDTH}}] {size} ")
            self._out.flush()
            self._told_at = time.monotonic()
        if not self._bar and total and written * 10 // total > self._tenths:
            self._tenths = written * 10 // total
            self._out.write(f"{self._tenths * 10}% {size}\n")
            self._out.flush()

    def end(self) -> None:
        if self._bar:
            self._out.write("\n")
