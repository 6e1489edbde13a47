"""What a killmail happened near: a star, planet, moon, belt, stargate or station. In SQL, for many at once."""

from collections.abc import Collection
from dataclasses import dataclass
from math import dist

from django.db import connection, models


class LocationKind(models.TextChoices):
    """What there is to be near to."""

    STAR = "STAR", "star"
    PLANET = "PLANET", "planet"
    MOON = "MOON", "moon"
    BELT = "BELT", "asteroid belt"
    STARGATE = "STARGATE", "stargate"
    STATION = "STATION", "station"
    STRUCTURE = "STRUCTURE", "structure of players"


Place = tuple[float, float, float]  # metres from the system's centre

# The static data's groups; where it is not loaded, EVE's ranges of ids tell some.
GROUPS = {6: "STAR", 7: "PLANET", 8: "MOON", 9: "BELT", 10: "STARGATE", 15: "STATION"}
RANGES = {
    "STARGATE": range(50_000_000, 60_000_000),
    "STATION": range(60_000_000, 70_000_000),
    "STRUCTURE": range(1_000_000_000_000, 2**63),
}
ABYSS = range(32_000_000, 33_000_000)  # systems

CELESTIALS = """
    SELECT celestial.id, celestial.name, celestial.x, celestial.y, celestial.z, type.group_id
    FROM killmails_celestial AS celestial
    LEFT JOIN killmails_inventorytype AS type ON type.id = celestial.item_type_id"""

# A universe that is not CCP's has few of them, and the nearest of these would be the wrong one.
OF_SYSTEM = """
    SELECT id, x, y, z FROM killmails_celestial WHERE solar_system_id = %s
    AND EXISTS (SELECT 1 FROM killmails_staticdatabuild WHERE loaded_at IS NOT NULL)"""

UNKNOWN = """
    SELECT id, solar_system_id, position_x, position_y, position_z FROM killmails_killmail
    WHERE location_id IS NULL AND position_x IS NOT NULL AND id > %s
    AND (values_by IS NULL OR values_by <> 'ZKILLBOARD') ORDER BY id LIMIT 1000"""


@dataclass(frozen=True, slots=True)
class Location:
    """`name` and `kind` are None where the static data does not know it; so is `place`."""

    id: int
    name: str | None
    kind: LocationKind | None
    place: Place | None

    def distance(self, position: Place | None) -> float | None:
        """Metres from its centre; None where one of the two is not known."""
        return None if self.place is None or position is None else dist(self.place, position)


def read_locations(ids: Collection[int]) -> dict[int, Location]:
    """One for each id, known or not. One query."""
    if not ids:
        return {}
    marks = ", ".join(["%s"] * len(ids))
    with connection.cursor() as cursor:
        cursor.execute(f"{CELESTIALS} WHERE celestial.id IN ({marks})", list(ids))
        rows = {row[0]: row for row in cursor.fetchall()}
    return {id_: _location(id_, rows.get(id_)) for id_ in ids}


def _location(id_: int, row: tuple[int, str | None, float, float, float, int | None] | None) -> Location:
    by_range = next((kind for kind, ids in RANGES.items() if id_ in ids), None)
    if row is None:
        return Location(id_, None, LocationKind(by_range) if by_range else None, None)
    kind = GROUPS.get(row[5] or 0, by_range)
    return Location(id_, row[1], LocationKind(kind) if kind else None, (row[2], row[3], row[4]))


def nearest_celestial(solar_system_id: int, position: Place) -> int | None:
    """The id of what is nearest there; None unless CCP's static data is loaded, with celestials of that system.

    None in the abyss, whatever the static data has there, since zKillboard knows no place there either.
    """
    if solar_system_id in ABYSS:
        return None
    # Not in SQL: a position that is nonsense would overflow there, and its killmail could never be stored.
    with connection.cursor() as cursor:
        cursor.execute(OF_SYSTEM, [solar_system_id])
        near = min(cursor.fetchall(), key=lambda row: (dist(row[1:], position), row[0]), default=None)
    return near[0] if near else None


def fill_locations() -> int:
    """Writes down what is near those killmails without zKillboard's block that lack it. How many. Safe to run again."""
    filled, last = 0, 0
    with connection.cursor() as cursor:
        while True:
            cursor.execute(UNKNOWN, [last])
            rows = cursor.fetchall()
            if not rows:
                return filled
            found = [(nearest_celestial(system, (x, y, z)), id_) for id_, system, x, y, z in rows]
            changes = [change for change in found if change[0] is not None]
            cursor.executemany("UPDATE killmails_killmail SET location_id = %s WHERE id = %s", changes)
            filled, last = filled + len(changes), rows[-1][0]
