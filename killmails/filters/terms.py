"""What a filter is made of: terms, all of which must hold. Here are those that look at a killmail themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from django.db.models import Exists, OuterRef, Q, QuerySet

from killmails.filters.clauses import KEY_ORDER, Clause, Key, show
from killmails.filters.found import FINAL_BLOW, attackers_by, own_value, own_values
from killmails.models import Attacker, Killmail

INDEXED = ("character", "corporation", "alliance")  # whose attackers an index of the database finds
EVERYBODY = -1  # all bits


class Finding(NamedTuple):
    """One line of an explanation; `path` in GraphQL's names."""

    path: str
    wanted: str
    found: str
    matches: bool


@dataclass(frozen=True, slots=True)
class Narrowing:
    """How to find the few killmails that may pass: each has one of the keys, and meets one of the alternatives.

    `rank` is the key's place in KEY_ORDER. The alternatives together are exactly the term.
    """

    rank: int
    keys: frozenset[Key]
    alternatives: tuple[Q, ...]

    @property
    def cost(self) -> tuple[int, int, int]:
        return self.rank, len(self.alternatives), len(self.keys)


class Term(Protocol):
    """What every term can do."""

    @property
    def needs_attackers(self) -> bool: ...

    def condition(self) -> Q:
        """For a query. NULL only outside of `~`: there Django asks for IS NOT NULL as well, and so it is false."""

    def wants(self, killmail: Killmail) -> bool:
        """For a killmail with victim, and with attackers where they are needed; asks no database."""

    def narrowing(self) -> Narrowing | None:
        """None where the term leaves too much for an index to be of use."""

    def findings(self, killmail: Killmail, path: str) -> Iterator[Finding]:
        """The term clause by clause; the one that decides comes first."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A clause, and what is wanted of it: a frozenset for a list, else the value."""

    clause: Clause
    wanted: Any

    def narrowing(self, *alternatives: Q) -> Narrowing:
        return Narrowing(KEY_ORDER.index(self.clause.key), self.clause.keys(self.wanted), alternatives)

    def finding(self, path: str, found: str, matches: bool) -> Finding:
        return Finding(f"{path}.{camel_case(self.clause.name)}", self.clause.wish(self.wanted), found, matches)


@dataclass(frozen=True, slots=True)
class Own:
    """A clause of the killmail's own row; `part` is "victim" where it stands in there."""

    wish: Wish
    part: str = ""

    needs_attackers = False

    def condition(self) -> Q:
        return self.wish.clause.condition(self.wish.wanted)

    def wants(self, killmail: Killmail) -> bool:
        return self.wish.clause.holds(own_value(killmail, self.wish.clause), self.wish.wanted)

    def narrowing(self) -> Narrowing | None:
        return self.wish.narrowing(self.condition()) if self.wish.clause.key else None

    def findings(self, killmail: Killmail, path: str) -> Iterator[Finding]:
        path = f"{path}.{self.part}" if self.part else path
        yield self.wish.finding(path, show(list(own_values(killmail, self.wish.clause))), self.wants(killmail))


@dataclass(frozen=True, slots=True)
class Attackers:
    """One and the same attacker meets all clauses; `part` is "attacker", "finalBlow", or "" for one clause alone."""

    wishes: tuple[Wish, ...]
    part: str = ""

    needs_attackers = True

    def condition(self) -> Q:
        return Q(Exists(self._rows().filter(killmail=OuterRef("pk"))))

    def wants(self, killmail: Killmail) -> bool:
        return self._who_meet(killmail, *self.wishes) != 0

    def narrowing(self) -> Narrowing:
        # Where an index finds the rows, they come first, and the killmails after them; EXISTS says the same, but
        # some databases then go through the killmails instead.
        indexed = any(wish.clause.key in INDEXED for wish in self.wishes)
        condition = Q(pk__in=self._rows().values("killmail")) if indexed else self.condition()
        return min((wish.narrowing(condition) for wish in self.wishes), key=lambda found: found.cost)

    def findings(self, killmail: Killmail, path: str) -> Iterator[Finding]:
        path = f"{path}.{self.part}" if self.part else path
        if len(self.wishes) > 1:
            met = self._who_meet(killmail, *self.wishes)
            first = (met & -met).bit_length()
            found = f"the one at place {first} does" if met else "none does"
            yield Finding(path, "one attacker who meets all of this", found, met != 0)
        asked = self._asked(killmail)
        for wish in self.wishes:
            seen = [value for value, who in attackers_by(killmail, wish.clause).items() if who & asked]
            yield wish.finding(path, show(seen), self._who_meet(killmail, wish) != 0)

    def _rows(self) -> QuerySet[Attacker]:
        rows = Attacker.objects.order_by()
        rows = rows.filter(final_blow=True) if self.part == "finalBlow" else rows
        return rows.filter(*(wish.clause.condition(wish.wanted) for wish in self.wishes))

    def _who_meet(self, killmail: Killmail, *wishes: Wish) -> int:
        """The places of those who meet all of these."""
        met = self._asked(killmail)
        for wish in wishes:
            found = attackers_by(killmail, wish.clause)
            who = 0
            for value in found.keys() & wish.wanted:
                who |= found[value]
            met &= who
        return met

    def _asked(self, killmail: Killmail) -> int:
        return attackers_by(killmail, FINAL_BLOW).get(True, 0) if self.part == "finalBlow" else EVERYBODY


@dataclass(frozen=True, slots=True)
class Anyone:
    """A clause that the victim meets, or any attacker."""

    victim: Own
    attackers: Attackers

    needs_attackers = True

    def condition(self) -> Q:
        return self.victim.condition() | self.attackers.condition()

    def wants(self, killmail: Killmail) -> bool:
        return self.victim.wants(killmail) or self.attackers.wants(killmail)

    def narrowing(self) -> Narrowing:
        return self.victim.wish.narrowing(self.victim.condition(), *self.attackers.narrowing().alternatives)

    def findings(self, killmail: Killmail, path: str) -> Iterator[Finding]:
        (victim,), (attackers,) = (part.findings(killmail, path) for part in (self.victim, self.attackers))
        found = f"victim: {victim.found}; attackers: {attackers.found}"
        yield Finding(victim.path, victim.wanted, found, victim.matches or attackers.matches)


def camel_case(name: str) -> str:
    """A name as GraphQL spells it."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
