"""Rows wait in tables that only this connection sees, until one short transaction takes over what is new in them.

While a file is read, which takes a minute, nobody waits for a lock, and no more than one batch is in memory.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from django.db import connection, transaction

from killmails.errors import BadStaticData
from killmails.universe.tables import TABLES, Row, Table

BATCH = 5000  # rows


class Changes(NamedTuple):
    """Of one table; rows that a newer build no longer has are left alone, since killmails may name them."""

    added: int
    changed: int
    unchanged: int


def stage(table: Table, rows: Iterable[Row]) -> None:
    """Keeps the rows for `settle`. Raises BadStaticData when two have the same id."""
    into, key, columns = _into(table), table.columns[0], ", ".join(table.columns)
    source = table.model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {into}")
        cursor.execute(f"CREATE TEMPORARY TABLE {into} AS SELECT {columns} FROM {source} WHERE 1 = 0")  # noqa: S608
    for batch in _batches(rows):
        _write(into, columns, batch)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {key} FROM {into} GROUP BY {key} HAVING COUNT(*) > 1 LIMIT 1")  # noqa: S608
        twice = cursor.fetchone()
        if twice:
            raise BadStaticData(f"{table.model._meta.verbose_name_plural}: {twice[0]} is there twice")
        if connection.vendor == "postgresql":
            cursor.execute(f"ANALYZE {into}")


def _write(into: str, columns: str, rows: list[Row]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {into} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"INSERT INTO {into} ({columns}) VALUES ({marks})", rows)  # noqa: S608


def settle(table: Table) -> Changes:
    """Writes what was staged and differs from what is there. A name is replaced by a name only. In a transaction."""
    into, target = _into(table), table.model._meta.db_table
    key, *columns = table.columns
    is_not = "IS DISTINCT FROM" if connection.vendor == "postgresql" else "IS NOT"

    def assignments(new: str) -> str:
        return ", ".join(
            f"{column} = COALESCE({new}.{column}, old.{column})" if column == "name" else f"{column} = {new}.{column}"
            for column in columns
        )

    differs = " OR ".join(
        f"(new.{column} IS NOT NULL AND old.{column} {is_not} new.{column})"
        if column == "name"
        else f"old.{column} {is_not} new.{column}"
        for column in columns
    )
    names = ", ".join(table.columns)
    # New rows first: what a killmail inserts meanwhile is a conflict here, and would be overlooked after an update.
    insert = f"""INSERT INTO {target} AS old ({names})
        SELECT {names} FROM {into} AS new
        WHERE NOT EXISTS (SELECT 1 FROM {target} AS known WHERE known.{key} = new.{key})
        ON CONFLICT ({key}) DO UPDATE SET {assignments("excluded")}"""  # noqa: S608
    update = f"""UPDATE {target} AS old SET {assignments("new")} FROM {into} AS new
        WHERE new.{key} = old.{key} AND ({differs})"""  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {into}")  # noqa: S608
        total = cursor.fetchone()[0]
        cursor.execute(insert)
        added = cursor.rowcount
        cursor.execute(update)
        changed = cursor.rowcount
    return Changes(added, changed, total - added - changed)


def clear() -> None:
    """Drops what was staged."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS {_into(table)}")


def _into(table: Table) -> str:
    return f"new_{table.model._meta.db_table}"


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        yield batch
