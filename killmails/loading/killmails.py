"""Killmails with all that was asked for of them: whom and what they name, attackers, items, locations, valuations."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import models
from django.db.models import prefetch_related_objects

from killmails.loading.entities import Reference, StaticRows, among, follow, references_of
from killmails.loading.memberships import load_memberships
from killmails.loading.type_details import load_type_details
from killmails.models import Attacker, InventoryType, Killmail, KillmailPackage
from killmails.models.locations import read_locations
from killmails.valuation import valuate

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
OF_VICTIM = {name: f"victim_{key}" for name, key in OF_ATTACKER.items() if name != "weaponType"}

M = TypeVar("M", bound=models.Model)
Bodies = dict[int, dict[str, Any]]  # killmails in ESI's shape, by id


@dataclass(frozen=True, slots=True)
class Item:
    """One row of what the victim carried; `items` is what was in it."""

    item_type: InventoryType
    flag: int
    quantity_dropped: int | None
    quantity_destroyed: int | None
    singleton: int
    items: list["Item"]


def load(
    query: Iterable[Killmail], fields: Iterable[str], static: StaticRows | None = None, bodies: Bodies | None = None
) -> list[Killmail]:
    """The killmails, with what `fields` ask for: GraphQL's names, wherever they stand; `bodies` where they are known.

    At most 8 queries, and 6 for `valueBasis`. Items come as `loaded_items`, the location as `loaded_location`, and so
    on; ships always with their types. What is not asked for costs whoever reads it a query for each row.
    """
    asked = frozenset(fields) | FOR_FILTERS
    killmails = list(query)
    if not killmails:
        return killmails
    references = references_of(killmails, OF_KILLMAIL, asked)
    references += references_of(killmails, OF_VICTIM, asked if "victim" in asked else FOR_FILTERS)
    references += _load_attackers(killmails, asked)
    if bodies is None:
        bodies = _read_bodies(killmails) if asked & BODY_FIELDS else {}
    items = {id_: esi["victim"].get("items") or [] for id_, esi in bodies.items()}
    type_ids = {type_id for of_one in items.values() for type_id in _type_ids(of_one)}
    entities = follow(references, static or StaticRows(), type_ids)
    load_memberships(entities, asked)
    load_type_details(entities[InventoryType], asked)
    for killmail in killmails:
        if killmail.pk in items:
            killmail.loaded_items = _items(items[killmail.pk], entities[InventoryType])
    if "location" in asked:
        _load_locations(killmails)
    if "valueBasis" in asked:
        _load_valuations(killmails, bodies, entities[InventoryType])
    return killmails


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
    condition, parameter = among(ids)
    return model.objects.raw(f"SELECT * FROM {model._meta.db_table} WHERE {column} {condition} {rest}", [parameter])  # noqa: S608


def _load_attackers(killmails: list[Killmail], asked: frozenset[str]) -> list[Reference]:
    """Their rows; the references to follow from there."""
    references: list[Reference] = []
    if asked & {"attackers", ATTACKER_ROWS}:
        prefetch_related_objects(killmails, "attackers")
        everybody = [attacker for killmail in killmails for attacker in killmail.attackers.all()]
        if "attackers" in asked:
            return references_of(everybody, OF_ATTACKER, asked)
        references = references_of(everybody, OF_ATTACKER, FOR_FILTERS)
    elif "finalBlow" in asked:
        # The last to be put there is the first in ESI's order.
        rest = "AND final_blow ORDER BY ordinal DESC"
        found = rows_by(Attacker, "killmail_id", [killmail.pk for killmail in killmails], rest)
        by_killmail = {attacker.killmail_id: attacker for attacker in found}
        for killmail in killmails:
            killmail.final_blow = by_killmail.get(killmail.pk)
    if "finalBlow" in asked:
        finals = [killmail.final_blow for killmail in killmails if killmail.final_blow]
        references += references_of(finals, OF_ATTACKER, asked)
    return references


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
