"""The filter: its terms, and the filters in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from killmails.filters.clauses import Key
from killmails.filters.terms import Finding, Narrowing, Term
from killmails.models import Killmail


@dataclass(frozen=True, slots=True)
class KillmailFilter:
    """What somebody wants of killmails. Without terms it wants all of them. Equal ones are equal, and hash."""

    terms: tuple[Term, ...] = ()

    def condition(self) -> Q:
        """For any query of killmails; joins no table that multiplies rows."""
        return _all(self.terms)

    def wants(self, killmail: Killmail) -> bool:
        """The same for one killmail, loaded with its victim, and with attackers if `needs_attackers`: no query."""
        return all(term.wants(killmail) for term in self.terms)

    @property
    def needs_attackers(self) -> bool:
        return any(term.needs_attackers for term in self.terms)

    @property
    def keys(self) -> frozenset[Key] | None:
        """A killmail that passes has at least one of these among `keys_of`; None: any killmail may pass."""
        found = self._narrowing()
        return found[1].keys if found else None

    @property
    def alternatives(self) -> tuple[Q, ...]:
        """The condition as "this or this": a database finds the newest of each by an index, which it can't for OR."""
        found = self._narrowing()
        if found is None:
            return (self.condition(),)
        term, narrowing = found
        others = _all(other for other in self.terms if other is not term)
        return tuple(alternative & others for alternative in narrowing.alternatives)

    def first(self, page: QuerySet[Killmail], count: int) -> QuerySet[Killmail]:
        """The first so many of an ordered queryset that pass."""
        alternatives = self.alternatives
        if len(alternatives) == 1:
            return page.filter(alternatives[0])[:count]
        # The inner queries take the first of each alternative; SQLite knows no LIMIT in a UNION, hence the outer ones.
        unordered = page.model.objects.order_by()
        firsts = (unordered.filter(pk__in=page.filter(each).values("pk")[:count]) for each in alternatives)
        one, *others = (each.values("pk") for each in firsts)
        return page.filter(pk__in=one.union(*others))[:count]

    def findings(self, killmail: Killmail, path: str = "filter") -> Iterator[Finding]:
        """Clause by clause, why it passes or does not; of sub-filters too, each under its own path."""
        for term in self.terms:
            yield from term.findings(killmail, path)

    def _narrowing(self) -> tuple[Term, Narrowing] | None:
        """The term by which a passing killmail is found at the least cost."""
        found = ((term, term.narrowing()) for term in self.terms)
        narrow = [(term, narrowing) for term, narrowing in found if narrowing]
        return min(narrow, key=lambda pair: pair[1].cost, default=None)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these filters passes."""

    filters: tuple[KillmailFilter, ...]

    @property
    def needs_attackers(self) -> bool:
        return any(one.needs_attackers for one in self.filters)

    def condition(self) -> Q:
        first, *others = (one.condition() for one in self.filters)
        for other in others:
            first |= other
        return first

    def wants(self, killmail: Killmail) -> bool:
        return any(one.wants(killmail) for one in self.filters)

    def narrowing(self) -> Narrowing | None:
        found = [one._narrowing() for one in self.filters]
        narrow = [pair[1] for pair in found if pair]
        if len(narrow) < len(found):
            return None
        return Narrowing(
            rank=max(each.rank for each in narrow),
            keys=frozenset[Key]().union(*(each.keys for each in narrow)),
            alternatives=tuple(alternative for one in self.filters for alternative in one.alternatives),
        )

    def findings(self, killmail: Killmail, path: str) -> Iterator[Finding]:
        passed = sum(one.wants(killmail) for one in self.filters)
        found = f"{passed} of {len(self.filters)}"
        yield Finding(f"{path}.any", "at least one of these filters passes", found, passed > 0)
        for number, one in enumerate(self.filters):
            yield from one.findings(killmail, f"{path}.any[{number}]")


@dataclass(frozen=True, slots=True)
class Not:
    """That filter does not pass."""

    filter: KillmailFilter

    @property
    def needs_attackers(self) -> bool:
        return self.filter.needs_attackers

    def condition(self) -> Q:
        return ~self.filter.condition()

    def wants(self, killmail: Killmail) -> bool:
        return not self.filter.wants(killmail)

    def narrowing(self) -> Narrowing | None:
        return None

    def findings(self, killmail: Killmail, path: str) -> Iterator[Finding]:
        passes = self.filter.wants(killmail)
        found = "it passes" if passes else "it does not pass"
        yield Finding(f"{path}.not", "this filter does not pass", found, not passes)
        yield from self.filter.findings(killmail, f"{path}.not")


def _all(terms: Iterator[Term] | tuple[Term, ...]) -> Q:
    condition = Q()
    for term in terms:
        condition &= term.condition()
    return condition
