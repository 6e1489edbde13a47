"""What rows refer to: an object for each id, in one statement for all tables.

Rows are asked for in SQL and table by table: a join of a dozen tables takes PostgreSQL longer to plan than to execute,
a queryset takes Django longer to write than both.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection, models

from killmails.models import (
    Alliance,
    Character,
    Constellation,
    Corporation,
    Entity,
    Faction,
    InventoryGroup,
    InventoryType,
    SolarSystem,
)

STATIC_SECONDS = 60.0  # after which static rows are read again

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
    Corporation: """SELECT 4, id, name, CAST(NULL AS bigint), NULL, ticker, alliance_id, NULL
        FROM killmails_corporation WHERE id""",
    Character: "SELECT 5, id, name, corporation_id, NULL, NULL, alliance_id, NULL FROM killmails_character WHERE id",
}
MODELS = [(model, {SolarSystem: 4, InventoryType: 3}.get(model, 2)) for model in SELECTS]  # and its columns there
STATIC = (SolarSystem, InventoryType, Faction)
PARENTS: dict[type[Entity], list[Any]] = {  # the key to what it belongs to, and the key from there
    SolarSystem: [SolarSystem._meta.get_field("constellation"), Constellation._meta.get_field("region")],
    InventoryType: [InventoryType._meta.get_field("group"), InventoryGroup._meta.get_field("category")],
}

Entities = dict[type[Entity], dict[int, Any]]  # by model and id
Reference = tuple[Any, Sequence[models.Model]]  # a key, and the rows in which it is followed


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


def references_of(rows: Sequence[models.Model], keys: Mapping[str, str], asked: Iterable[str]) -> list[Reference]:
    """`keys`: GraphQL's names, and the keys that they follow; those of them that are asked for."""
    return [(rows[0]._meta.get_field(keys[name]), rows) for name in keys if name in asked and rows]


def follow(references: Iterable[Reference], static: StaticRows, type_ids: Iterable[int] = ()) -> Entities:
    """Gives the rows what they refer to. All of that, and these types besides; one query at most."""
    references = list(references)
    wanted: dict[type[Entity], set[int]] = defaultdict(set)
    wanted[InventoryType].update(type_ids)
    for key, rows in references:
        wanted[key.related_model].update(id_ for row in rows if (id_ := getattr(row, key.attname)) is not None)
    entities = _entities(wanted, static)
    for key, rows in references:
        for row in rows:
            entity_id = getattr(row, key.attname)
            if entity_id is not None:
                key.set_cached_value(row, entities[key.related_model][entity_id])
    return entities


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
            entity.corporation_id = row[3]
        if model in (Character, Corporation):
            entity.alliance_id = row[6]
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
            condition, parameter = among(ids[model])
            selects.append(f"{select} {condition}")
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


def among(ids: Iterable[int]) -> tuple[str, Any]:
    """A condition, with one parameter however many ids there are."""
    if connection.vendor == "postgresql":
        return "= ANY(%s)", list(ids)
    return "IN (SELECT value FROM json_each(%s))", json.dumps(list(ids))
