"""A fitting in EFT's format, which the game, Pyfa and others import.

Racks in the game's order (low, mid, high, rigs, subsystems, services), a line for each module, with the charge that is
loaded; then drones and fighters, implants and boosters, and all that was carried, with quantities. Empty slots have no
line: how many there were is on no killmail. Source: https://developers.eveonline.com/docs/guides/fitting/
"""

from collections import Counter
from collections.abc import Iterable

from killmails.fitting.arrange import FittedModule, Fitting, quantity
from killmails.fitting.flags import BOOSTER, DRONE_BAY, FIGHTER_BAY, FIGHTER_TUBES, IMPLANT, Rack
from killmails.loading import Item
from killmails.models import InventoryType

RACKS = (Rack.LOW, Rack.MID, Rack.HIGH, Rack.RIG, Rack.SUBSYSTEM, Rack.SERVICE)
MOST = 8  # lines for one row: what is not known to be a charge may be thousands
FLYING, IN_HEAD = (DRONE_BAY, FIGHTER_BAY, *FIGHTER_TUBES), (IMPLANT, BOOSTER)


def eft(ship_type: InventoryType, name: str, fitting: Fitting) -> str:
    """The text; `name` is that of the fitting. A type whose name is not known yet stands there as `typeID 587`."""
    carried = [item for bay in fitting.bays if bay.flag not in FLYING + IN_HEAD for item in bay.items]
    # A line has room for one kind of charge, and none without a module.
    fitted_modules = [one for rack in RACKS for one in fitting.racks[rack]]
    carried += [charge for one in fitted_modules for charge in one.charges if _name(charge) != _loaded(one)]
    racks = [_rack(fitting.racks[rack]) for rack in RACKS]
    loads = [_lines(fitting.holding(*FLYING)), _lines(fitting.holding(*IN_HEAD)), _lines(carried)]
    # A line between two racks is blank, and two before what is not fitted: importers go by them.
    fitted = "\n\n".join("\n".join(rack) for rack in racks if rack)
    title = f"[{_type_name(ship_type)}, {name}]"
    return "\n\n\n".join([f"{title}\n{fitted}".rstrip(), *("\n".join(load) for load in loads if load)])


def _rack(modules: Iterable[FittedModule]) -> list[str]:
    lines = []
    for fitted in modules:
        loaded = _loaded(fitted)
        if fitted.module is not None:
            line = _name(fitted.module)
            lines += [f"{line}, {loaded}" if loaded else line] * min(quantity(fitted.module), MOST)
    return lines


def _loaded(fitted: FittedModule) -> str | None:
    return _name(fitted.charges[0]) if fitted.charges and fitted.module else None


def _lines(items: Iterable[Item]) -> list[str]:
    """Of the same type one line, in the order of their first. What was in a container was carried as well."""
    counts: Counter[str] = Counter()
    for item in _with_contents(items):
        counts[_name(item)] += quantity(item)
    return [f"{name} x{count}" for name, count in counts.items()]


def _with_contents(items: Iterable[Item]) -> Iterable[Item]:
    for item in items:
        yield item
        yield from _with_contents(item.items)


def _name(item: Item) -> str:
    return _type_name(item.item_type)


def _type_name(type_: InventoryType) -> str:
    return type_.name or f"typeID {type_.pk}"
