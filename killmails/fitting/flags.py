"""EVE's inventory flags: where on a ship something was. They are not in CCP's static data.

Source: what CCP has published of them as invFlags, and a count over 83,000 real killmails.
"""

from enum import StrEnum


class Rack(StrEnum):
    """What holds modules, each in a slot of its own."""

    HIGH = "high"
    MID = "mid"
    LOW = "low"
    RIG = "rigs"
    SUBSYSTEM = "subsystems"
    SERVICE = "services"


# The first flag of each rack, and how many slots it may have. 99 was a rig's once.
RACKS = {
    Rack.LOW: (11, 8),
    Rack.MID: (19, 8),
    Rack.HIGH: (27, 8),
    Rack.RIG: (92, 8),
    Rack.SUBSYSTEM: (125, 8),
    Rack.SERVICE: (164, 8),
}
SLOTS = {first + number: (rack, number) for rack, (first, count) in RACKS.items() for number in range(count)}

CARGO, DRONE_BAY, BOOSTER, IMPLANT, FIGHTER_BAY = 5, 87, 88, 89, 158
FIGHTER_TUBES = range(159, 164)
# In killmails until about 2012 nothing tells where a thing was: all has the flag 0.
BAYS = {
    CARGO: "Cargo hold",
    DRONE_BAY: "Drone bay",
    BOOSTER: "Boosters",
    IMPLANT: "Implants",
    90: "Ship maintenance bay",
    133: "Fuel bay",
    134: "Ore hold",
    135: "Gas hold",
    136: "Mineral hold",
    137: "Salvage hold",
    138: "Ship hold",
    139: "Small ship hold",
    140: "Medium ship hold",
    141: "Large ship hold",
    142: "Industrial ship hold",
    143: "Ammo hold",
    148: "Command center hold",
    149: "Planetary commodities hold",
    151: "Material bay",
    155: "Fleet hangar",
    FIGHTER_BAY: "Fighter bay",
    **{flag: f"Fighter tube {number}" for number, flag in enumerate(FIGHTER_TUBES, 1)},
    172: "Structure fuel",
    176: "Booster hold",
    177: "Subsystem hold",
    179: "Frigate escape bay",
    180: "Structure core",
    181: "Ice hold",
    183: "Mobile depot hold",
    185: "Infrastructure hold",
    186: "Moon material bay",
    188: "Expedition hold",
}


def bay_name(flag: int) -> str:
    """For people; a flag that we do not know is told by its number."""
    return BAYS.get(flag) or ("Unknown" if flag == 0 else f"Flag {flag}")
