"""Stars, planets, moons, belts, stargates and stations, with the names that the game gives them.

The static data leaves most of these names out, since they follow from the others.
Source: https://developers.eveonline.com/docs/guides/staticdata/ (celestial names)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from killmails.errors import Reason, Unacceptable
from killmails.fields import Fields
from killmails.universe.archive import Archive

Row = tuple[Any, ...]
Names = Mapping[int, str | None]  # by id
ROMAN = ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


class _Station(NamedTuple):
    row: Row
    orbit_id: int | None
    owner_id: int | None
    operation_id: int | None  # None where its name does not tell it


def roman(number: int) -> str:
    """From 1 to 89: no system has as many planets."""
    text = ""
    for value, letters in ROMAN:
        count, number = divmod(number, value)
        text += letters * count
    return text


def read_celestials(archive: Archive, systems: Names, corporations: Names) -> Iterator[Row]:
    """id, name, system, type, x, y, z of each. Names of moons are not kept, but for those with a station."""
    stations = list(archive.read("npcStations.jsonl", _station))
    harbours = {station.orbit_id for station in stations}
    orbits: dict[int, str | None] = {}
    for file, namer in NAMERS.items():
        for row in archive.read(f"{file}.jsonl", _maker(namer, systems, orbits, has_place=file != "mapStars")):
            if file in ("mapStars", "mapPlanets") or row[0] in harbours:
                orbits[row[0]] = row[1]
            yield row
    operations = dict(archive.read("stationOperations.jsonl", _operation))
    yield from _name_stations(stations, orbits, corporations, operations)


def _star(line: Fields, systems: Names, orbits: Names) -> str | None:
    return systems.get(line.id("solarSystemID"))


def _planet(line: Fields, systems: Names, orbits: Names) -> str | None:
    return _join(systems.get(line.id("solarSystemID")), " ", roman(line.integer("celestialIndex", 1, 89)))


def _moon(line: Fields, systems: Names, orbits: Names) -> str | None:
    return _join(orbits.get(line.id("orbitID")), " - Moon ", str(line.id("orbitIndex")))


def _belt(line: Fields, systems: Names, orbits: Names) -> str | None:
    return _join(orbits.get(line.id("orbitID")), " - Asteroid Belt ", str(line.id("orbitIndex")))


def _stargate(line: Fields, systems: Names, orbits: Names) -> str | None:
    return _join("Stargate (", systems.get(line.object("destination").id("solarSystemID")), ")")


# In an order in which what is orbited comes first.
Namer = Callable[[Fields, Names, Names], str | None]
NAMERS: dict[str, Namer] = {
    "mapStars": _star,
    "mapPlanets": _planet,
    "mapMoons": _moon,
    "mapAsteroidBelts": _belt,
    "mapStargates": _stargate,
}


def _maker(namer: Namer, systems: Names, orbits: Names, has_place: bool) -> Callable[[Fields], Row]:
    return lambda line: _row(line, _own_name(line) or namer(line, systems, orbits), has_place)


def _row(line: Fields, name: str | None, has_place: bool = True) -> Row:
    """A star is its system's centre."""
    place: tuple[float, ...] = (0.0, 0.0, 0.0)
    if has_place:
        position = line.object("position")
        place = tuple(position.real(axis) for axis in "xyz")
    return line.id("_key"), name, line.id("solarSystemID"), line.id_or_none("typeID"), *place


def _own_name(line: Fields) -> str | None:
    """A few have a name of their own."""
    value = line.value("name") if line.has("name") else None
    name = value.get("en") if isinstance(value, dict) else value
    if name is not None and (type(name) is not str or len(name) > 255 or "\0" in name):
        raise Unacceptable(Reason.BAD_FIELD, f"name: holds no name in English: {repr(value)[:60]}")
    return name or None


def _station(line: Fields) -> _Station:
    named = line.has("useOperationName") and line.boolean("useOperationName")
    operation = line.id_or_none("operationID") if named else None
    row = _row(line, _own_name(line))
    return _Station(row, line.id_or_none("orbitID"), line.id_or_none("ownerID"), operation)


def _operation(line: Fields) -> tuple[int, str | None]:
    value = line.value("operationName")
    return line.integer("_key"), value.get("en") if isinstance(value, dict) else value


def _name_stations(
    stations: Iterable[_Station], orbits: Names, corporations: Names, operations: Names
) -> Iterator[Row]:
    for station in stations:
        id_, name, *rest = station.row
        built = _join(orbits.get(station.orbit_id or 0), " - ", corporations.get(station.owner_id or 0))
        if station.operation_id is not None:
            built = _join(built, " ", operations.get(station.operation_id))
        yield id_, name or built, *rest


def _join(*parts: str | None) -> str | None:
    """None where a part is not known: half a name is none."""
    known = [part for part in parts if part is not None]
    return "".join(known)[:255] if len(known) == len(parts) else None
