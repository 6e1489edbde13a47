"""What a killmail has, found once for all filters that are held against it, and kept with the killmail.

Of attackers: by value, the places of those who have it, as bits of a number. Who meets two clauses is in both numbers,
so that a filter costs as much as it has values, however many attackers there are. Two threads may both find the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from killmails.filters.clauses import ATTACKER, IS, KILLMAIL, VICTIM, Clause, Key, Kind
from killmails.models import Killmail

FINAL_BLOW = Clause("final_blow", "final_blow", IS, Kind.FLAG, "Who had the final blow.")

_KEYS = [clause for clause in (*KILLMAIL, *VICTIM) if clause.key]


def own_value(killmail: Killmail, clause: Clause) -> Any:
    """Of the killmail's own row; None where it has none."""
    kept = killmail.values_found
    if clause not in kept:
        kept[clause] = clause.found(killmail)
    return kept[clause]


def own_values(killmail: Killmail, clause: Clause) -> Iterable[Any]:
    """The same as a list, which is empty where there is no value."""
    value = own_value(killmail, clause)
    if clause.kind is Kind.LABELS:
        return value
    return () if value is None else (value,)


def attackers_by(killmail: Killmail, clause: Clause) -> Mapping[Any, int]:
    """Each value that attackers have, the first attacker's first. Asks the database if they are not loaded."""
    kept = killmail.values_found
    if clause not in kept:
        found: dict[Any, int] = {}
        for place, attacker in enumerate(killmail.attackers.all()):
            value = clause.found(attacker)
            if value is not None:
                found[value] = found.get(value, 0) | 1 << place
        kept[clause] = found
    return kept[clause]


def keys_of(killmail: Killmail) -> frozenset[Key]:
    """Every key that the killmail has. Load it with victim and attackers, else this asks the database."""
    keys = {(clause.key, value) for clause in _KEYS for value in own_values(killmail, clause)}
    return frozenset(keys.union((clause.key, value) for clause in ATTACKER for value in attackers_by(killmail, clause)))
