"""A fitting as the game's links have it: `ship:subsystem;1:module;4:charge;800::`.

Subsystems, then high, mid and low slots, rigs, services; then loaded charges, drones and fighters.
Cargo and implants are no part of it. Source: https://developers.eveonline.com/docs/guides/fitting/
"""

from collections import Counter

from killmails.fitting.arrange import Fitting, quantity
from killmails.fitting.flags import DRONE_BAY, FIGHTER_BAY, FIGHTER_TUBES, Rack

RACKS = (Rack.SUBSYSTEM, Rack.HIGH, Rack.MID, Rack.LOW, Rack.RIG, Rack.SERVICE)


def dna(ship_type_id: int, fitting: Fitting) -> str:
    """Each type once, with how many there were."""
    modules: Counter[int] = Counter()
    used: Counter[int] = Counter()
    for rack in RACKS:
        for fitted in fitting.racks[rack]:
            if fitted.module is not None:
                modules[fitted.module.item_type.pk] += quantity(fitted.module)
            for charge in fitted.charges:
                used[charge.item_type.pk] += quantity(charge)
    for item in fitting.holding(DRONE_BAY, FIGHTER_BAY, *FIGHTER_TUBES):
        used[item.item_type.pk] += quantity(item)
    parts = [str(ship_type_id)]
    parts += [f"{type_id};{count}" for counts in (modules, used) for type_id, count in counts.items()]
    return ":".join(parts) + "::"
