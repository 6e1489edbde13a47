"""Items, sorted by where they were. Nothing is left out: each row of the killmail is in exactly one place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from killmails.fitting.flags import BOOSTER, CARGO, FIGHTER_TUBES, IMPLANT, SLOTS, Rack, bay_name
from killmails.loading import Item

CHARGE = 8  # the category of ammunition, scripts and the like


@dataclass(slots=True)
class FittedModule:
    """What was in one slot, numbered from 0. `module` is None where only a charge is on the killmail."""

    slot: int
    module: Item | None
    charges: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bay:
    """What was in one hold, whose name is for people."""

    flag: int
    name: str
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Fitting:
    """Modules by rack, in the order of their slots; all else by hold, in the order of EVE's flags."""

    racks: dict[Rack, list[FittedModule]]
    bays: list[Bay]  # those that follow among them

    def holding(self, *flags: int) -> list[Item]:
        return [item for bay in self.bays if bay.flag in flags for item in bay.items]

    @property
    def cargo(self) -> list[Item]:
        return self.holding(CARGO)

    @property
    def implants(self) -> list[Item]:
        return self.holding(IMPLANT)

    @property
    def boosters(self) -> list[Item]:
        return self.holding(BOOSTER)

    @property
    def fighter_tubes(self) -> list[Item]:
        return self.holding(*FIGHTER_TUBES)


def arrange(items: Iterable[Item]) -> Fitting:
    """A charge and the module that it is loaded in have the same flag; the category tells them apart."""
    by_flag: dict[int, list[Item]] = {}
    for item in items:
        by_flag.setdefault(item.flag, []).append(item)
    racks: dict[Rack, list[FittedModule]] = {rack: [] for rack in Rack}
    for flag in sorted(by_flag.keys() & SLOTS.keys()):
        rack, slot = SLOTS[flag]
        racks[rack] += _modules(slot, by_flag[flag])
    bays = [Bay(flag, bay_name(flag), by_flag[flag]) for flag in sorted(by_flag.keys() - SLOTS.keys())]
    return Fitting(racks, bays)


def _modules(slot: int, items: Sequence[Item]) -> list[FittedModule]:
    """Nearly always one. What the static data does not know (yet) is a charge beside a known module, else a module."""
    categories = [item.item_type.group and item.item_type.group.category_id for item in items]
    known = any(category not in (None, CHARGE) for category in categories)
    is_charge = [category == CHARGE or (category is None and known) for category in categories]
    modules = [FittedModule(slot, item) for item, charge in zip(items, is_charge, strict=True) if not charge]
    modules = modules or [FittedModule(slot, None)]
    modules[0].charges = [item for item, charge in zip(items, is_charge, strict=True) if charge]
    return modules


def quantity(item: Item) -> int:
    """How many there were: a row is either dropped or destroyed; one that is neither told counts as one."""
    return (item.quantity_dropped or 0) + (item.quantity_destroyed or 0) or 1
