"""Loading killmails for readers: few queries, the same number for one killmail as for a hundred.

What many killmails name is one object for all of them. Rows are asked for in SQL and table by table: a join of a dozen
tables takes PostgreSQL longer to plan than to execute, a queryset takes Django longer to write than both.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import connection, models
from django.db.models import prefetch_related_objects

from killmails.models import (
    Alliance,
    Attacker,
    Character,
    Constellation,
    Corporation,
    Entity,
    Faction,
    InventoryGroup,
    InventoryType,
    Killmail,
    KillmailPackage,
    SolarSystem,
)
from killmails.models.locations import read_locations
from killmails.valuation import valuate

STATIC_SECONDS = 60.0  # after which static rows are read again

# Filters ask for groups of ships.
FOR_FILTERS = frozenset({"shipType"})
# Besides GraphQL's names: all attackers, but whatever else is asked for only of the final blow. For filters, too.
ATTACKER_ROWS = "attackerRows"
BODY_FIELDS = frozenset({"items", "fitting", "valueBasis"})  # what is read from the package
# GraphQL's names, and the keys that they follow.
OF_KILLMAIL = {"solarSystem": "solar_system"}
OF_ATTACKER = {
    "character": "character",
    "corporation": "corporation",
    "alliance": "alliance",
    "faction": "faction",
    "shipType": "ship_type",
    "weaponType": "weapon_type",
}
OF_CHARACTER = {"currentCorporation": "corporation", "currentAlliance": "alliance"}
OF_VICTIM = {name: f"victim_{key}" for name, key in OF_ATTACKER.items() if name != "weaponType"}

# Rows by their ids: the first of the model's own columns, at most four, then the name of what it belongs to, and id and
# name of what that belongs to. Systems and types come first: a union has the types of its beginning.
SELECTS: dict[type[Entity], str] = {
    SolarSystem: """SELECT 0, s.id, s.name, s.constellation_id, s.security_status, c.name, c.region_id, r.name
        FROM killmails_solarsystem s
        LEFT JOIN killmails_constellation c ON c.id = s.constellation_id
        LEFT JOIN killmails_region r ON r.id = c.region_id WHERE s.id""",
    InventoryType: """SELECT 1, t.id, t.name, t.group_id, NULL, g.name, g.category_id, c.name
        FROM killmails_inventorytype t
        LEFT JOIN killmails_inventorygroup g ON g.id = t.group_id
        LEFT JOIN killmails_inventorycategory c ON c.id = g.category_id WHERE t.id""",
    # PostgreSQL takes a bare NULL for text, and finds no number in the next table then.
    Faction: """SELECT 2, id, name, CAST(NULL AS bigint), NULL, NULL, CAST(NULL AS bigint), NULL
        FROM killmails_faction WHERE id""",
    Alliance: """SELECT 3, id, name, CAST(NULL AS bigint), NULL, ticker, CAST(NULL AS bigint), NULL
        FROM killmails_alliance WHERE id""",
    Corporation: """SELECT 4, id, name, CAST(NULL AS bigint), NULL, ticker, CAST(NULL AS bigint), NULL
        FROM killmails_corporation WHERE id""",
    Character: "SELECT 5, id, name, corporation_id, NULL, NULL, alliance_id, NULL FROM killmails_character WHERE id",
}
MODELS = [(model, {SolarSystem: 4, InventoryType: 3}.get(model, 2)) for model in SELECTS]  # and its columns there
STATIC = (SolarSystem, InventoryType, Faction)
PARENTS: dict[type[Entity], list[Any]] = {  # the key to what it belongs to, and the key from there
    SolarSystem: [SolarSystem._meta.get_field("constellation"), Constellation._meta.get_field("region")],
    InventoryType: [InventoryType._meta.get_field("group"), InventoryGroup._meta.get_field("category")],
}

M = TypeVar("M", bound=models.Model)
Entities = dict[type[Entity], dict[int, Any]]  # by model and id
Bodies = dict[int, dict[str, Any]]  # killmails in ESI's shape, by id
Reference = tuple[Any, Sequence[models.Model]]  # a key, and the rows in which it is followed


@dataclass(frozen=True, slots=True)
class Item:
    """One row of what the victim carried; `items` is what was in it."""

    item_type: InventoryType
    flag: int
    quantity_dropped: int | None
    quantity_destroyed: int | None
    singleton: int
    items: list["Item"]


class StaticRows:
    """Systems, types and factions that were read lately, for whoever loads again and again. For any thread."""

    def __init__(self) -> None:
        self._rows: Entities = defaultdict(dict)
        self._until = time.monotonic() + STATIC_SECONDS

    def rows(self) -> Entities:
        """To be read, and to be added to."""
        if time.monotonic() >= self._until:
            self._rows, self._until = defaultdict(dict), time.monotonic() + STATIC_SECONDS
        return self._rows


def load(
    query: Iterable[Killmail], fields: Iterable[str], static: StaticRows | None = None, bodies: Bodies | None = None
) -> list[Killmail]:
    """The killmails, with what `fields` ask for: GraphQL's names, wherever they stand; `bodies` where they are known.

    At most 6 queries, and 6 for `valueBasis`. Items come as `loaded_items`, the location as `loaded_location`, and so
    on; ships always with their types. What is not asked for costs whoever reads it a query for each row.
    """
    asked = frozenset(fields) | FOR_FILTERS
    killmails = list(query)
    if not killmails:
        return killmails
    references = _references(killmails, OF_KILLMAIL, asked)
    references += _references(killmails, OF_VICTIM, asked if "victim" in asked else FOR_FILTERS)
    references += _load_attackers(killmails, asked)
    if bodies is None:
        bodies = _read_bodies(killmails) if asked & BODY_FIELDS else {}
    items = {id_: esi["victim"].get("items") or [] for id_, esi in bodies.items()}
    entities = _entities(_wanted(references, items.values()), static or StaticRows())
    for key, rows in references:
        _follow(key, rows, entities[key.related_model])
    _load_memberships(list(entities.get(Character, {}).values()), asked)
    for killmail in killmails:
        if killmail.pk in items:
            killmail.loaded_items = _items(items[killmail.pk], entities[InventoryType])
    if "location" in asked:
        _load_locations(killmails)
    if "valueBasis" in asked:
        _load_valuations(killmails, bodies, entities[InventoryType])
    return killmails


def _load_memberships(characters: list[Character], asked: frozenset[str]) -> None:
    """Of today."""
    references = _references(characters, OF_CHARACTER, asked)
    if references:
        entities = _entities(_wanted(references, []), StaticRows())
        for key, rows in references:
            _follow(key, rows, entities[key.related_model])


def _load_valuations(killmails: list[Killmail], bodies: Bodies, types: Mapping[int, Any]) -> None:
    valuations = valuate(bodies)
    for killmail in killmails:
        killmail.loaded_valuation, killmail.loaded_types = valuations[killmail.pk], types


def _load_locations(killmails: list[Killmail]) -> None:
    locations = read_locations({killmail.location_id for killmail in killmails if killmail.location_id is not None})
    for killmail in killmails:
        killmail.loaded_location = locations.get(killmail.location_id)


def rows_by(model: type[M], column: str, ids: Iterable[int], rest: str = "") -> Iterable[M]:
    """The rows where this column is one of the ids."""
    among, parameter = _among(ids)
    return model.objects.raw(f"SELECT * FROM {model._meta.db_table} WHERE {column} {among} {rest}", [parameter])  # noqa: S608


def _among(ids: Iterable[int]) -> tuple[str, Any]:
    """A condition, with one parameter however many ids there are."""
    if connection.vendor == "postgresql":
        return "= ANY(%s)", list(ids)
    return "IN (SELECT value FROM json_each(%s))", json.dumps(list(ids))


def _references(rows: Sequence[models.Model], keys: Mapping[str, str], asked: Iterable[str]) -> list[Reference]:
    return [(rows[0]._meta.get_field(keys[name]), rows) for name in keys if name in asked and rows]


def _wanted(references: Iterable[Reference], items: Iterable[list[dict[str, Any]]]) -> dict[type[Entity], set[int]]:
    """The ids of all that is referred to."""
    wanted: dict[type[Entity], set[int]] = defaultdict(set)
    for key, rows in references:
        wanted[key.related_model].update(id_ for row in rows if (id_ := getattr(row, key.attname)) is not None)
    for one in items:
        wanted[InventoryType].update(_type_ids(one))
    return wanted


def _follow(key: Any, rows: Iterable[models.Model], entities: Mapping[int, Entity]) -> None:
    for row in rows:
        entity_id = getattr(row, key.attname)
        if entity_id is not None:
            key.set_cached_value(row, entities[entity_id])


def _load_attackers(killmails: list[Killmail], asked: frozenset[str]) -> list[Reference]:
    """Their rows; the references to follow from there."""
    references: list[Reference] = []
    if asked & {"attackers", ATTACKER_ROWS}:
        prefetch_related_objects(killmails, "attackers")
        everybody = [attacker for killmail in killmails for attacker in killmail.attackers.all()]
        if "attackers" in asked:
            return _references(everybody, OF_ATTACKER, asked)
        references = _references(everybody, OF_ATTACKER, FOR_FILTERS)
    elif "finalBlow" in asked:
        # The last to be put there is the first in ESI's order.
        rest = "AND final_blow ORDER BY ordinal DESC"
        found = rows_by(Attacker, "killmail_id", [killmail.pk for killmail in killmails], rest)
        by_killmail = {attacker.killmail_id: attacker for attacker in found}
        for killmail in killmails:
            killmail.final_blow = by_killmail.get(killmail.pk)
    if "finalBlow" in asked:
        finals = [killmail.final_blow for killmail in killmails if killmail.final_blow]
        references += _references(finals, OF_ATTACKER, asked)
    return references


def _entities(wanted: Mapping[type[Entity], set[int]], static: StaticRows) -> Entities:
    """An object for each id; one that has nothing else where there is no row."""
    known = static.rows()
    found: Entities = {
        model: {id_: known[model][id_] for id_ in ids & known[model].keys()} for model, ids in wanted.items()
    }
    missing = {model: ids - found[model].keys() for model, ids in wanted.items()}
    unfinished: Entities = defaultdict(dict)  # what is about to become known may not be kept
    for row in _read_rows(missing):
        model, columns = MODELS[row[0]]
        own, parents = row[1 : columns + 1], row[5:]
        keep = model in STATIC and None not in own and (model not in PARENTS or None not in parents)
        entity = _entity(model, own, parents, known if keep else unfinished)
        if model is Character:
            entity.corporation_id, entity.alliance_id = row[3], row[6]
        found[model][entity.pk] = entity
        if keep:
            known[model][entity.pk] = entity
    for model, ids in missing.items():
        found[model].update((id_, model(id_)) for id_ in ids - found[model].keys())
    return found


def _read_rows(ids: Mapping[type[Entity], set[int]]) -> list[tuple[Any, ...]]:
    selects, parameters = [], []
    for model, select in SELECTS.items():
        if ids.get(model):
            among, parameter = _among(ids[model])
            selects.append(f"{select} {among}")
            parameters.append(parameter)
    if not selects:
        return []
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(selects), parameters)
        return cursor.fetchall()


def _entity(model: type[Entity], own: Sequence[Any], parents: Sequence[Any], shared: Entities) -> Entity:
    """With what it belongs to, which others share."""
    entity = model(*own)
    if model in (Alliance, Corporation):
        entity.ticker = parents[0]
    if model in PARENTS and own[2] is not None:
        key, top_key = PARENTS[model]
        parent_model, top_model = key.related_model, top_key.related_model
        parent = shared[parent_model].get(own[2])
        if parent is None:
            name, top_id, top_name = parents
            parent = shared[parent_model][own[2]] = parent_model(own[2], name, top_id)
            if top_id is not None:
                top = shared[top_model].get(top_id) or shared[top_model].setdefault(top_id, top_model(top_id, top_name))
                top_key.set_cached_value(parent, top)
        key.set_cached_value(entity, parent)
    return entity


def _read_bodies(killmails: list[Killmail]) -> Bodies:
    ids = [killmail.pk for killmail in killmails]
    return {package.pk: package.esi() for package in rows_by(KillmailPackage, "killmail_id", ids)}


def _type_ids(items: list[dict[str, Any]]) -> Iterator[int]:
    for item in items:
        yield item["item_type_id"]
        yield from _type_ids(item.get("items") or [])


def _items(items: list[dict[str, Any]], types: Mapping[int, InventoryType]) -> list[Item]:
    return [
        Item(
            item_type=types[item["item_type_id"]],
            flag=item["flag"],
            quantity_dropped=item.get("quantity_dropped"),
            quantity_destroyed=item.get("quantity_destroyed"),
            singleton=item["singleton"],
            items=_items(item.get("items") or [], types),
        )
        for item in items
    ]
