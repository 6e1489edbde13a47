"""Loading CCP's static data: all of a build, or nothing of it."""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from django.db import OperationalError, transaction
from django.db.models.functions import Now

from killmails.errors import BadStaticData
from killmails.models import StaticDataBuild
from killmails.models.locations import fill_locations
from killmails.models.places import fill_places
from killmails.universe.archive import Archive, Build
from killmails.universe.staging import Changes, clear, settle, stage
from killmails.universe.tables import TABLES, read_tables

logger = logging.getLogger(__name__)

TRIES = 3
DEADLOCK = "40P01"  # PostgreSQL's code


class Loaded(NamedTuple):
    """`changes` by the tables' names. `filled`: killmails."""

    build: int
    changes: dict[str, Changes]
    filled: int


def load(archive: Archive, announced: int | None = None) -> Loaded:
    """Writes what differs from what is there; again changes nothing. Killmails stored before get their place.

    Raises BadStaticData, also for a build that is not the one announced; nothing is changed then.
    """
    begun = time.monotonic()
    build = archive.build()
    if announced is not None and build.number != announced:
        raise BadStaticData(f"{archive.name}: holds build {build.number}, not {announced}")
    try:
        read_tables(archive, stage)
        changes = _again_after_deadlock(lambda: _settle(build))
    finally:
        clear()
    # After the commit: killmails that were stored meanwhile are seen, too.
    filled = fill_places()
    fill_locations()
    logger.info(
        "Static data of build %d loaded: %d rows added, %d changed, %d killmails got their place, %.1f s",
        build.number,
        sum(one.added for one in changes.values()),
        sum(one.changed for one in changes.values()),
        filled,
        time.monotonic() - begun,
    )
    return Loaded(build.number, changes, filled)


def _settle(build: Build) -> dict[str, Changes]:
    with transaction.atomic():
        changes = {str(table.model._meta.verbose_name_plural): settle(table) for table in TABLES}
        told = {"loaded_at": Now(), "released_at": build.released_at}
        StaticDataBuild.objects.update_or_create(build=build.number, defaults=told)
        return changes


def _again_after_deadlock(settle_all: Callable[[], dict[str, Changes]]) -> dict[str, Changes]:
    """Killmails that are being stored insert some of the same new rows, in an order of their own."""
    for _ in range(TRIES - 1):
        try:
            return settle_all()
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != DEADLOCK:
                raise
    return settle_all()
