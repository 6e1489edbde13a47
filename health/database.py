"""The database: does it answer, has it this version's tables; and how to ask it from a thread that may hang."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.conf import settings
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from health.connection import use_own_connection
from health.part import Part, State
from killmails.models import StaticDataBuild

WHERE = "DATABASE_URL" if settings.DATABASE_URL else "DATA_DIR"
AWAY = f"The database does not answer, or refuses us: start it, or correct {WHERE}."
UNKNOWN = "This cannot be told until the database is there, with its tables."
MIGRATE = "Run `python manage.py migrate`, then restart what still runs an older version."
LOAD = "Build {newest} of CCP's static data is there, and is not loaded: run `python manage.py load_universe`."


@contextmanager
def asking() -> Iterator[None]:
    """A connection for one question: that there is one to be had is a part of the answer."""
    use_own_connection()
    try:
        yield
    finally:
        connections["default"].close()


def check() -> Part:
    with asking():
        missing = missing_migrations()
        loaded, newest = (None, None) if missing else _builds()
    engine = "PostgreSQL" if settings.DATABASE_URL else "SQLite"
    facts = {"engine": engine, "missing_migrations": missing, "static_data": loaded}
    if missing:
        return Part(State.DOWN, MIGRATE, True, facts)
    # All goes on with the older one, so that this is no reason for an alarm.
    return Part(State.OK, LOAD.format(newest=newest) if newest and newest > (loaded or 0) else "", True, facts)


def _builds() -> tuple[int | None, int | None]:
    """Of CCP's static data: the one that is loaded, and the newest that we heard of."""
    builds = StaticDataBuild.objects
    loaded = builds.filter(loaded_at__isnull=False).order_by("-loaded_at").values_list("build", flat=True).first()
    return loaded, builds.order_by("-build").values_list("build", flat=True).first()


def missing_migrations() -> int:
    applied = set(MigrationRecorder(connections["default"]).applied_migrations())
    return len(_all_migrations() - applied)


@cache
def _all_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None).disk_migrations)
