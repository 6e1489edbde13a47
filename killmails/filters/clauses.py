"""The table of clauses: what can be asked of a killmail, of its victim, and of an attacker.

A clause looks at one value of one row, and at nothing else. Where the row has no value, the clause is false.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from django.db.models import JSONField, Lookup, Q
from django.db.models.sql.compiler import SQLCompiler

from killmails.models import Attacker, Killmail

Key = tuple[str, int | str]
Row = Killmail | Attacker
SHOWN = 10  # values that a text lists before it says how many more there are

# What a value may be a key of, the most selective first: an index asks for as few killmails as it can.
KEY_ORDER = (
    "character", "war", "corporation", "alliance", "solar_system", "constellation", "ship_type", "weapon_type",
    "ship_group", "region", "faction", "security_band", "label",
)  # fmt: skip


class Kind(Enum):
    """What a clause wants: lists of these, or one of these."""

    IDS = "ids"
    BANDS = "bands"
    LABELS = "labels"
    ISK = "isk"
    COUNT = "count"
    TIME = "time"
    FLAG = "flag"


@JSONField.register_lookup
class HasOneOf(Lookup):
    """Whether a JSON list of texts has one of these."""

    lookup_name = "has_one_of"

    def get_prep_lookup(self) -> list[str]:
        return list(self.rhs)

    def as_postgresql(self, compiler: SQLCompiler, connection: Any) -> tuple[str, list[Any]]:
        column, params = self.process_lhs(compiler, connection)
        return f"{column} ?| %s", [*params, self.rhs]

    def as_sqlite(self, compiler: SQLCompiler, connection: Any) -> tuple[str, list[Any]]:
        column, params = self.process_lhs(compiler, connection)
        marks = ", ".join(["%s"] * len(self.rhs))
        return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value IN ({marks}))", [*params, *self.rhs]  # noqa: S608


@dataclass(frozen=True, slots=True)
class Comparison:
    """How what a row has (`found`, never None) is compared with what is wanted: by the database, and by us."""

    lookup: str
    holds: Callable[[Any, Any], bool]
    words: str


ONE_OF = Comparison("in", lambda found, wanted: found in wanted, "one of {}")
HAS_ONE_OF = Comparison("has_one_of", lambda found, wanted: not wanted.isdisjoint(found), "one of {}")
AT_LEAST = Comparison("gte", operator.ge, "at least {}")
AT_MOST = Comparison("lte", operator.le, "at most {}")
BEFORE = Comparison("lt", operator.lt, "before {}")
IS = Comparison("exact", operator.eq, "{}")


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One row of the table. `column` is a path in Django's spelling; `key` is "" where an index is of no use."""

    name: str
    column: str
    comparison: Comparison
    kind: Kind
    text: str
    key: str = ""

    def condition(self, wanted: Any) -> Q:
        return Q((f"{self.column}__{self.comparison.lookup}", sorted(wanted) if self.is_list else wanted))

    def holds(self, found: Any, wanted: Any) -> bool:
        return found is not None and self.comparison.holds(found, wanted)

    def found(self, row: Row) -> Any:
        """The row's own value; asks no database where the row was loaded with what the column leads through."""
        value: Any = row
        for name in self.column.split("__"):
            value = getattr(value, name)
            if value is None:
                return None
        return value

    @property
    def is_list(self) -> bool:
        return self.kind in (Kind.IDS, Kind.BANDS, Kind.LABELS)

    def keys(self, values: frozenset[Any]) -> frozenset[Key]:
        return frozenset((self.key, value) for value in values)

    def wish(self, wanted: Any) -> str:
        """What is wanted, in words."""
        return self.comparison.words.format(show(sorted(wanted)) if self.is_list else show([wanted]))


def show(values: list[Any]) -> str:
    """Values for people; "none" where there are none."""
    texts = [_show(value) for value in values[:SHOWN]]
    more = [f"{len(values) - SHOWN} more"] if len(values) > SHOWN else []
    return ", ".join(texts + more) or "none"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{value:,.2f} ISK" if isinstance(value, Decimal) else str(value)


def _ids(name: str, column: str, key: str, text: str) -> Clause:
    return Clause(name, column, ONE_OF, Kind.IDS, text, key)


# Of the killmail itself.
KILLMAIL = (
    _ids("solar_system_ids", "solar_system_id", "solar_system", "Where: one of these solar systems."),
    _ids("constellation_ids", "constellation_id", "constellation", "Where: in one of these constellations."),
    _ids("region_ids", "region_id", "region", "Where: in one of these regions."),
    Clause("security_bands", "security_band", ONE_OF, Kind.BANDS, "Where: in such space.", "security_band"),
    Clause("min_value", "total_value", AT_LEAST, Kind.ISK, "The total value is known and at least this, in ISK."),
    Clause("max_value", "total_value", AT_MOST, Kind.ISK, "The total value is known and at most this, in ISK."),
    Clause("min_attackers", "attacker_count", AT_LEAST, Kind.COUNT, "At least so many attackers, NPCs included."),
    Clause("max_attackers", "attacker_count", AT_MOST, Kind.COUNT, "At most so many attackers, NPCs included."),
    Clause("since", "time", AT_LEAST, Kind.TIME, "The ship was lost at this time or later."),
    Clause("until", "time", BEFORE, Kind.TIME, "The ship was lost before this time."),
    Clause("is_npc", "is_npc", IS, Kind.FLAG, "Whether only NPCs were involved, as zKillboard says."),
    Clause("is_solo", "is_solo", IS, Kind.FLAG, "Whether one pilot alone did it, as zKillboard says."),
    Clause("is_awox", "is_awox", IS, Kind.FLAG, "Whether the final blow was friendly, as zKillboard says."),
    Clause("labels", "labels", HAS_ONE_OF, Kind.LABELS, "At least one of these labels of zKillboard's.", "label"),
    _ids("war_ids", "war_id", "war", "One of these wars."),
)
# Of one attacker: lists of ids, looked up by value. The first six can be asked of the victim too.
ATTACKER = (
    _ids("character_ids", "character_id", "character", "One of these characters."),
    _ids("corporation_ids", "corporation_id", "corporation", "Of one of these corporations."),
    _ids("alliance_ids", "alliance_id", "alliance", "Of one of these alliances."),
    _ids("faction_ids", "faction_id", "faction", "Of one of these factions."),
    _ids("ship_type_ids", "ship_type_id", "ship_type", "In one of these types of ship."),
    _ids("ship_group_ids", "ship_type__group_id", "ship_group", "In a ship of one of these groups."),
    _ids("weapon_type_ids", "weapon_type_id", "weapon_type", "With one of these types of weapon."),
)
VICTIM = tuple(replace(clause, column=f"victim_{clause.column}") for clause in ATTACKER[:6])
