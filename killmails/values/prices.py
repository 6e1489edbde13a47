"""What one of a type cost on the day of a killmail, and how we know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from killmails.values.facts import CAPSULE, SKIN, STRUCTURE_MODULE, Facts

CENT = Decimal("0.01")
MOST_DAYS = 34  # of which as many lie in five weeks of trade
TITAN, SUPERCARRIER = 30, 659
GROUPS = {CAPSULE: Decimal(10_000), 4513: Decimal(200), 4759: Decimal(200)}
GANTRY, GANTRY_PARTS = 2233, {3962: 1, 2867: 8, 2871: 8, 2876: 8, 2872: 8}
DEPTH = 8  # of things that are built from things that are built

_BILLIONS = {
    35: (45645,),
    60: (45647, 47512, 47514),
    70: (42243,),
    80: (2834, 3516, 11375),
    100: (3518, 32788, 32790, 32209, 11942, 33673),
    120: (35779, 42125, 42246, 74141),
    150: (2836, 33675, 35781, 45530, 48636, 60765, 74316, 78414),
    200: (33397, 42245, 45649),
    230: (45531, 48635, 60764, 77726),
    250: (3514,),
    500: (635, 11011, 25560, 33395),
    650: (42126, 42241),
    750: (13202, 11936, 11938, 26842),
    1000: (9860, 11019),
    2500: (26840,),
    3400: (11940,),
}
_ABUSED = (12478, 34556, 34557, 34558, 34559, 34560, 36902, 44264, 44265)
# Things that are never, or hardly ever, sold on the market; and some whose market was abused.
FIXED: dict[int, Decimal] = {
    **{type_id: Decimal(billions) * 10**9 for billions, type_ids in _BILLIONS.items() for type_id in type_ids},
    **dict.fromkeys(_ABUSED, CENT),
    55511: Decimal(30_000_000),
}
# Before a day they had another fixed price: Revenant, Molok, Gold Magnate (0.5 billion, as zKillboard has it).
BEFORE: dict[int, tuple[date, Decimal]] = {
    3514: (date(2023, 12, 1), Decimal(100) * 10**9),
    42241: (date(2019, 7, 1), Decimal(350) * 10**9),
    11940: (date(2020, 1, 25), Decimal(500_000_000)),
}


class Basis(StrEnum):
    """Where a price is from."""

    HISTORY = "HISTORY"
    DAY = "DAY"
    AVERAGE = "AVERAGE"
    FIXED = "FIXED"
    BUILD = "BUILD"
    PARTS = "PARTS"
    WORTHLESS = "WORTHLESS"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """ISK for one. `day` and `days`: the newest day of the market's history that it is from, and of how many."""

    isk: Decimal
    basis: Basis
    day: date | None = None
    days: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run of a blueprint: how many come out, and what goes in, type ids with quantities."""

    quantity: int
    materials: Sequence[tuple[int, int]]


History = Sequence[tuple[date, Decimal]]  # averages of one type, newest first
WORTHLESS = UnitPrice(CENT, Basis.WORTHLESS)


def price_day(time: datetime) -> date:
    """The day of which a killmail takes its prices: an hour behind, since the market's history comes late."""
    return (time - timedelta(seconds=3601)).date()


def rounded(isk: Decimal) -> Decimal:
    """To 2 decimals, half away from zero, as PHP does."""
    return isk.quantize(CENT, ROUND_HALF_UP)


class Prices:
    """Of one day. `histories`: of each type, nothing after that day. `averages`: ESI's own, oldest first."""

    def __init__(
        self,
        day: date,
        histories: Mapping[int, History],
        recipes: Mapping[int, Recipe],
        facts: Facts,
        averages: Mapping[int, History] | None = None,
    ) -> None:
        self._day = day
        self._histories = histories
        self._recipes = recipes
        self._facts = facts
        self._averages = averages or {}
        self._known: dict[int, UnitPrice] = {}

    def of(self, type_id: int, depth: int = 0) -> UnitPrice:
        """The first rule that applies: skins, fixed prices, groups, what is only built, then the market."""
        if type_id not in self._known:
            self._known[type_id] = self._find(type_id, depth)
        return self._known[type_id]

    def category(self, type_id: int) -> int | None:
        return self._facts[type_id].category_id

    def _find(self, type_id: int, depth: int) -> UnitPrice:
        facts = self._facts[type_id]
        if facts.category_id == SKIN:
            return WORTHLESS
        if type_id in FIXED:
            until, earlier = BEFORE.get(type_id, (date.min, CENT))
            return UnitPrice(earlier if self._day < until else FIXED[type_id], Basis.FIXED)
        if facts.group_id in GROUPS:
            return UnitPrice(GROUPS[facts.group_id], Basis.FIXED)
        if type_id == GANTRY:
            parts = sum((self.of(part, depth).isk * count for part, count in GANTRY_PARTS.items()), Decimal(0))
            return UnitPrice(rounded(parts), Basis.PARTS)
        only_built = facts.group_id in (TITAN, SUPERCARRIER) or facts.category_id == STRUCTURE_MODULE
        built = self._built(type_id, depth) if only_built else None
        sold = self._market(type_id) if self._histories.get(type_id) else self._average(type_id)
        return built or sold or self._built(type_id, depth) or UnitPrice(CENT, Basis.UNKNOWN)

    def _market(self, type_id: int) -> UnitPrice | None:
        """The mean of five weeks without its extremes, or the day's own average where that is lower; None: no price."""
        history = list(self._histories[type_id])[:MOST_DAYS]
        averages = sorted(average for _, average in history)
        if len(averages) == MOST_DAYS:
            averages = averages[2:-2]
        elif len(averages) > 6:
            averages = averages[:-2]
        mean = rounded(sum(averages, Decimal(0)) / len(averages))
        day, newest = history[0]
        if day == self._day and newest < mean:
            return UnitPrice(rounded(newest), Basis.DAY, day, 1) if newest > CENT else None
        return UnitPrice(mean, Basis.HISTORY, day, len(averages)) if mean > CENT else None

    def _average(self, type_id: int) -> UnitPrice | None:
        """ESI's own estimate, which it has of today only: the newest up to the day, else the first that came after."""
        rows = self._averages.get(type_id, ())
        row = next((row for row in reversed(rows) if row[0] <= self._day), rows[0] if rows else None)
        return UnitPrice(rounded(row[1]), Basis.AVERAGE, row[0], 1) if row and row[1] > CENT else None

    def _built(self, type_id: int, depth: int) -> UnitPrice | None:
        """What its materials cost, by a blueprint that saves a tenth of them; None where nobody can build it."""
        recipe = self._recipes.get(type_id)
        if recipe is None or not recipe.materials or depth >= DEPTH:
            return None
        materials = ((id_, -(-count * 9 // 10)) for id_, count in recipe.materials)  # rounded up
        cost = sum((self.of(id_, depth + 1).isk * count for id_, count in materials), Decimal(0))
        each = rounded(cost / recipe.quantity)
        return UnitPrice(each, Basis.BUILD) if each > CENT else None
