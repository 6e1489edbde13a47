"""One load at a time: on PostgreSQL in the whole board, on SQLite on this machine, where the database is."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from killmails.errors import LoadUnderWay

LOCK = (0x4B42, 1)  # two numbers that only this uses
HOLDER = """
    SELECT activity.pid, coalesce(host(activity.client_addr), 'its own machine'), activity.backend_start
    FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND granted"""


@contextmanager
def one_load(data_dir: Path) -> Iterator[None]:
    """Raises LoadUnderWay. A process that dies holds nothing."""
    with _in_postgresql() if connection.vendor == "postgresql" else _in_file(data_dir / "load_universe.lock"):
        yield


@contextmanager
def _in_postgresql() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", LOCK)
        if not cursor.fetchone()[0]:
            cursor.execute(HOLDER, LOCK)
            holder = cursor.fetchone()
            whom = f": backend {holder[0]} of {holder[1]}, since {holder[2]:%Y-%m-%d %H:%M:%S %Z}" if holder else ""
            raise LoadUnderWay(f"another load_universe is under way{whom}; wait for it, or end it")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", LOCK)


@contextmanager
def _in_file(path: Path) -> Iterator[None]:
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            process = file.read(20)
            raise LoadUnderWay(
                f"another load_universe is under way: process {process}; wait for it, or end it"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
