"""Which line of CCP's static data becomes which row, as the official format has them.

Source: https://developers.eveonline.com/docs/services/static-data/
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.db.models import Model

from killmails import models
from killmails.errors import Reason, Unacceptable
from killmails.fields import Fields
from killmails.universe.archive import Archive
from killmails.universe.celestials import read_celestials

Row = tuple[Any, ...]
RIG_SIZE, META_LEVEL, HEAT_DAMAGE = 1547, 633, 1211  # attributes of types
MOST = 32767  # of a small whole number


class Table(NamedTuple):
    """A model, and its columns that the static data fills, the key first."""

    model: type[Model]
    columns: tuple[str, ...]


REGIONS = Table(models.Region, ("id", "name"))
CONSTELLATIONS = Table(models.Constellation, ("id", "name", "region_id"))
SYSTEMS = Table(models.SolarSystem, ("id", "name", "constellation_id", "security_status"))
CATEGORIES = Table(models.InventoryCategory, ("id", "name"))
GROUPS = Table(models.InventoryGroup, ("id", "name", "category_id"))
MARKET_GROUPS = Table(models.MarketGroup, ("id", "name", "parent_id"))
TYPES = Table(
    models.InventoryType,
    ("id", "name", "group_id", "market_group_id", "rig_size", "meta_level", "has_heat_damage"),
)
FACTIONS = Table(models.Faction, ("id", "name"))
CORPORATIONS = Table(models.Corporation, ("id", "name", "ticker", "faction_id"))
CELESTIALS = Table(models.Celestial, ("id", "name", "solar_system_id", "item_type_id", "x", "y", "z"))
BLUEPRINTS = Table(models.Blueprint, ("product_id", "quantity", "materials"))
# As they are written: the small ones, in which storing killmails insert what they name, at the end.
TABLES = (
    CELESTIALS, BLUEPRINTS, MARKET_GROUPS, CATEGORIES, REGIONS, CONSTELLATIONS,
    GROUPS, CORPORATIONS, FACTIONS, TYPES, SYSTEMS,
)  # fmt: skip


def read_tables(archive: Archive, stage: Callable[[Table, Iterable[Row]], None]) -> None:
    """Hands over the rows of every table, in no order. Raises BadStaticData."""
    stage(REGIONS, archive.read("mapRegions.jsonl", lambda line: (key(line), english(line))))
    stage(CONSTELLATIONS, archive.read("mapConstellations.jsonl", _referring("regionID")))
    systems = list(archive.read("mapSolarSystems.jsonl", _system))
    stage(SYSTEMS, systems)
    stage(CATEGORIES, archive.read("categories.jsonl", lambda line: (key(line), english(line))))
    stage(GROUPS, archive.read("groups.jsonl", _referring("categoryID", least=0)))
    stage(MARKET_GROUPS, archive.read("marketGroups.jsonl", _market_group))
    published = _stage_types(archive, stage)
    stage(FACTIONS, archive.read("factions.jsonl", lambda line: (key(line), english(line))))
    corporations = list(archive.read("npcCorporations.jsonl", _corporation))
    stage(CORPORATIONS, corporations)
    names = {row[0]: row[1] for row in systems}
    stage(CELESTIALS, read_celestials(archive, names, {row[0]: row[1] for row in corporations}))
    stage(BLUEPRINTS, _read_blueprints(archive, published))


def key(line: Fields) -> int:
    return line.integer("_key")


def english(line: Fields, field: str = "name") -> str | None:
    """A name in English; None where it is there and empty."""
    value = line.value(field)
    name = value.get("en", "") if isinstance(value, dict) else value
    if type(name) is not str or len(name) > 255 or "\0" in name:
        raise Unacceptable(Reason.BAD_FIELD, f"{field}: holds no name in English: {repr(value)[:60]}")
    return name.strip() or None


def _referring(field: str, least: int = 1) -> Callable[[Fields], Row]:
    return lambda line: (key(line), english(line), line.integer(field, least))


def _system(line: Fields) -> Row:
    security = line.real("securityStatus") if line.has("securityStatus") else None
    return key(line), english(line), line.id("constellationID"), security


def _market_group(line: Fields) -> Row:
    return key(line), english(line), line.integer("parentGroupID") or None if line.has("parentGroupID") else None


def _corporation(line: Fields) -> Row:
    ticker = line.text("tickerName").strip()[:10] or None if line.has("tickerName") else None
    return key(line), english(line), ticker, line.id_or_none("factionID")


def _stage_types(archive: Archive, stage: Callable[[Table, Iterable[Row]], None]) -> set[int]:
    """The ids of published types."""
    attributes = dict(archive.read("typeDogma.jsonl", _attributes))
    published: set[int] = set()

    def row(line: Fields) -> Row:
        found = attributes.get(key(line), {})
        if line.has("published") and line.boolean("published"):
            published.add(key(line))
        meta_level = line.integer("metaLevel", 0, MOST) if line.has("metaLevel") else found.get(META_LEVEL)
        market_group = line.id_or_none("marketGroupID")
        references = line.integer("groupID"), market_group
        return key(line), english(line), *references, found.get(RIG_SIZE), meta_level, HEAT_DAMAGE in found

    stage(TYPES, archive.read("types.jsonl", row))
    return published


def _attributes(line: Fields) -> tuple[int, dict[int, int]]:
    """Of a type, the attributes that count for points; those of heat have any value."""
    found: dict[int, int] = {}
    for attribute in line.objects("dogmaAttributes") if line.has("dogmaAttributes") else []:
        number = attribute.integer("attributeID")
        if number in (RIG_SIZE, META_LEVEL):
            value = attribute.real("value")
            if not 0 <= value <= MOST:
                raise Unacceptable(Reason.BAD_FIELD, f"{attribute.at('value')}: is {value}, not from 0 to {MOST}")
            found[number] = int(value)
        elif number == HEAT_DAMAGE:
            found[number] = 1
    return key(line), found


def _read_blueprints(archive: Archive, published: set[int]) -> Iterable[Row]:
    """One for each product: a blueprint that players can have before one that they cannot, then the oldest."""
    best: dict[int, tuple[tuple[bool, int], Row]] = {}
    for rank_id, made in archive.read("blueprints.jsonl", _manufacturing):
        rank = (rank_id not in published, rank_id)
        for row in made:
            if row[0] not in best or rank < best[row[0]][0]:
                best[row[0]] = (rank, row)
    return [row for _, row in best.values()]


def _manufacturing(line: Fields) -> tuple[int, list[Row]]:
    blueprint = key(line)
    activities = line.object("activities") if line.has("activities") else None
    if activities is None or not activities.has("manufacturing"):
        return blueprint, []
    work = activities.object("manufacturing")
    entries = work.objects("materials") if work.has("materials") else []
    materials = json.dumps([[one.id("typeID"), one.id("quantity")] for one in entries])
    products = work.objects("products") if work.has("products") else []
    return blueprint, [(one.id("typeID"), one.integer("quantity", 1, 2**31 - 1), materials) for one in products]
