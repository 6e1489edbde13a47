"""Reading a filter that a client sent: each value checked, and what can never match refused with the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from killmails.errors import BadFilter
from killmails.filters.clauses import ATTACKER, KILLMAIL, VICTIM, Clause, Kind
from killmails.filters.contradictions import refuse_contradictions
from killmails.filters.filter import AnyOf, KillmailFilter, Not
from killmails.filters.terms import Anyone, Attackers, Own, Term, Wish, camel_case
from killmails.models.places import SecurityBand

MAX_DEPTH = 3  # filters in filters
MAX_FILTERS = 20  # of them in all
MAX_VALUES = 500  # ids, labels and bands in all
MAX_ISK = Decimal(10) ** 18  # what a column holds

_ATTACKER = {clause.name: clause for clause in ATTACKER}
_KILLMAIL = {clause.name: clause for clause in KILLMAIL}
_VICTIM = {clause.name: clause for clause in VICTIM}
_ANYWHERE = _KILLMAIL | _ATTACKER
_PARTS = {"victim": _VICTIM, "attacker": _ATTACKER, "final_blow": _ATTACKER}


def read_filter(value: Mapping[str, Any] | None) -> KillmailFilter:
    """The filter in these snake_case names, as graphene hands them over; None, or one without clauses, wants all.

    None as a value is the same as no value. Ids are whole numbers or their texts, times datetimes or ISO 8601
    (UTC where nothing is said), ISK any number. Raises BadFilter. May ask the database for places and ship groups.
    """
    return _Reader().filter(value or {}, "filter", 0)


@dataclass
class _Reader:
    """Counts through a whole filter."""

    filters: int = 0
    values: int = 0

    def filter(self, value: Any, path: str, depth: int) -> KillmailFilter:
        given = _given(value, path, {*_ANYWHERE, *_PARTS, "any", "not"})
        wishes = self._wishes({name: given[name] for name in given if name in _ANYWHERE}, _ANYWHERE, path)
        terms: list[Term] = [_term(wish) for wish in wishes]
        for name in (name for name in _PARTS if name in given):
            terms += self._part(name, given[name], f"{path}.{camel_case(name)}")
        # Ship types and groups may be met by different ships.
        refuse_contradictions((wish for wish in wishes if wish.clause.name in _KILLMAIL), path)
        if "any" in given:
            terms += self._any(given["any"], f"{path}.any", depth + 1)
        if "not" in given:
            inner = self._inner(given["not"], f"{path}.not", depth + 1)
            if not inner.terms:
                raise BadFilter(f"{path}.not", "matches everything, so this can never match.")
            terms.append(Not(inner))
        return KillmailFilter(tuple(terms))

    def _any(self, value: Any, path: str, depth: int) -> list[Term]:
        if not isinstance(value, list | tuple):
            raise BadFilter(path, "must be a list.")
        if not value:
            raise BadFilter(path, "is empty, so it can never match.")
        inner = tuple(self._inner(each, f"{path}[{number}]", depth) for number, each in enumerate(value))
        # One that wants everything makes the rest idle.
        return [AnyOf(inner)] if all(each.terms for each in inner) else []

    def _inner(self, value: Any, path: str, depth: int) -> KillmailFilter:
        self.filters += 1
        if depth > MAX_DEPTH:
            raise BadFilter(path, f"lies too deep: filters may nest {MAX_DEPTH} deep.")
        if self.filters > MAX_FILTERS:
            raise BadFilter(path, f"is one too many: there may be {MAX_FILTERS} filters in a filter.")
        return self.filter(value, path, depth)

    def _part(self, name: str, value: Any, path: str) -> list[Term]:
        """The terms of `victim`, `attacker` or `final_blow`."""
        given = _given(value, path, set(_PARTS[name]))
        wishes = self._wishes(given, _PARTS[name], path)
        refuse_contradictions(wishes, path)
        if name == "victim":
            return [Own(wish, name) for wish in wishes]
        return [Attackers(wishes, camel_case(name))] if wishes else []

    def _wishes(self, given: Mapping[str, Any], clauses: Mapping[str, Clause], path: str) -> tuple[Wish, ...]:
        """In the order of the table, so that equal filters are equal."""
        return tuple(
            Wish(clause, self._value(clause, given[name], f"{path}.{camel_case(name)}"))
            for name, clause in clauses.items()
            if name in given
        )

    def _value(self, clause: Clause, value: Any, path: str) -> Any:
        if not clause.is_list:
            return _READ[clause.kind](value, path)
        if not isinstance(value, list | tuple):
            raise BadFilter(path, "must be a list.")
        if not value:
            raise BadFilter(path, "is empty, so it can never match.")
        self.values += len(value)
        if self.values > MAX_VALUES:
            raise BadFilter(path, f"holds one too many: there may be {MAX_VALUES} ids, labels and bands in a filter.")
        return frozenset(_READ[clause.kind](each, f"{path}[{number}]") for number, each in enumerate(value))


def _given(value: Any, path: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadFilter(path, "must be an object.")
    given = {name: each for name, each in value.items() if each is not None}
    unknown = sorted(str(name) for name in given if name not in names)
    if unknown:
        raise BadFilter(f"{path}.{camel_case(unknown[0])[:40]}", "is no clause of a filter.")
    return given


def _term(wish: Wish) -> Term:
    """At the top, what can be asked of victim and attackers is asked of both."""
    if wish.clause.name in _KILLMAIL:
        return Own(wish)
    if wish.clause.name not in _VICTIM:
        return Attackers((wish,))
    return Anyone(Own(Wish(_VICTIM[wish.clause.name], wish.wanted)), Attackers((wish,)))


def _id(value: Any, path: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 < value < 2**63:
        raise BadFilter(path, "must be an id, a whole number from 1 to 9223372036854775807.")
    return value


def _band(value: Any, path: str) -> str:
    name = getattr(value, "value", value)
    if name not in SecurityBand.values:
        raise BadFilter(path, f"must be one of {', '.join(SecurityBand.values)}.")
    return str(name)


def _label(value: Any, path: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise BadFilter(path, "must be a label, a printable text.")
    return value


def _isk(value: Any, path: str) -> Decimal:
    try:
        isk = Decimal(str(value)).quantize(Decimal("0.01"))
        if not 0 <= isk < MAX_ISK:
            raise InvalidOperation
        return isk
    except InvalidOperation as error:
        raise BadFilter(path, "must be an amount of ISK, from 0 to less than 1e18.") from error


def _count(value: Any, path: str) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise BadFilter(path, "must be a whole number from 0 to 2147483647.")
    return value


def _time(value: Any, path: str) -> datetime:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadFilter(path, "must be a time, like 2026-11-23T12:00:00Z.") from error


def _flag(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise BadFilter(path, "must be true or false.")
    return value


_READ: dict[Kind, Callable[[Any, str], Any]] = {
    Kind.IDS: _id,
    Kind.BANDS: _band,
    Kind.LABELS: _label,
    Kind.ISK: _isk,
    Kind.COUNT: _count,
    Kind.TIME: _time,
    Kind.FLAG: _flag,
}
