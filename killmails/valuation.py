"""Our own reckoning of killmails: reads what the rules of `killmails.values` need, for many killmails at once."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from killmails.values.facts import Esi, Facts, PlaceFacts, TypeFacts, goods_of, id_of, type_ids
from killmails.values.flags import is_awox, is_npc, is_solo
from killmails.values.labels import labels
from killmails.values.points import attributes_are_known, points
from killmails.values.prices import GANTRY, GANTRY_PARTS, MOST_DAYS, Basis, History, Prices, Recipe, price_day
from killmails.values.sums import Sums, reckon

MOST = 10**18  # ISK; columns hold no more
# Days. zKillboard looks back as many as it has days with trade of the type. Those that are loaded here, 40 perhaps,
# would be far fewer, so there is a fixed number in their place; docs/values.md names where that makes a difference.
LOOK_BACK = 365

TYPES = """
    SELECT type.id, type.group_id, inventory_group.category_id, type.market_group_id, type.rig_size, type.meta_level,
        type.has_heat_damage
    FROM killmails_inventorytype AS type
    LEFT JOIN killmails_inventorygroup AS inventory_group ON inventory_group.id = type.group_id
    WHERE type.id IN ({marks})"""

MARKET_GROUPS = """
    WITH RECURSIVE above(start, id) AS (
        SELECT id, id FROM killmails_marketgroup WHERE id IN ({marks})
        UNION SELECT above.start, market_group.parent_id FROM above
        JOIN killmails_marketgroup AS market_group ON market_group.id = above.id
        WHERE market_group.parent_id IS NOT NULL
    ) SELECT start, id FROM above"""

PLACES = """
    SELECT solar_system.id, constellation.region_id, solar_system.security_status
    FROM killmails_solarsystem AS solar_system
    LEFT JOIN killmails_constellation AS constellation ON constellation.id = solar_system.constellation_id
    WHERE solar_system.id IN ({marks})"""

RECIPES = "SELECT product_id, quantity, materials FROM killmails_blueprint WHERE product_id IN ({marks})"

# What no market knows; ESI tells it for today alone.
AVERAGES = """
    SELECT item_type_id, day, average FROM killmails_price
    WHERE source = 'AVERAGE' AND item_type_id IN ({marks}) ORDER BY day"""

# The newest days of each type up to a day, by the table's index.
HISTORIES = {
    "postgresql": """
        SELECT asked.item_type_id, asked.day, known.day, known.average
        FROM (SELECT (one->>0)::bigint AS item_type_id, (one->>1)::date AS day
            FROM jsonb_array_elements(%s::jsonb) AS one) AS asked
        CROSS JOIN LATERAL (SELECT day, average FROM killmails_price AS price
            WHERE price.item_type_id = asked.item_type_id AND price.day <= asked.day AND price.day >= asked.day - %s
                AND price.source <> 'AVERAGE'
            ORDER BY price.day DESC LIMIT %s) AS known
        ORDER BY 1, 2, 3 DESC""",
    "sqlite": """
        SELECT item_type_id, asked_day, day, average FROM (
            SELECT price.item_type_id, asked.day AS asked_day, price.day, price.average, row_number()
                OVER (PARTITION BY price.item_type_id, asked.day ORDER BY price.day DESC) AS number
            FROM (SELECT json_extract(value, '$[0]') AS item_type_id, json_extract(value, '$[1]') AS day
                FROM json_each(%s)) AS asked
            JOIN killmails_price AS price ON price.item_type_id = asked.item_type_id AND price.day <= asked.day
                AND price.day >= date(asked.day, '-' || %s || ' days') AND price.source <> 'AVERAGE')
        WHERE number <= %s ORDER BY 1, 2, 3 DESC""",
}


@dataclass(frozen=True, slots=True)
class Valuation:
    """`sums` is None where no price of its time is loaded; points, solo and labels want all its ships to be known,
    points what was fitted, too, and awox the victim's ship alone.
    """

    sums: Sums | None
    points: int | None
    is_npc: bool
    is_solo: bool | None
    is_awox: bool | None
    labels: list[str]


def valuate(killmails: Mapping[int, Esi], padding: Collection[int] = ()) -> dict[int, Valuation]:
    """Of killmails in ESI's shape, by id. Some queries, however many they are. `padding`: the ids of those that are."""
    days = {id_: price_day(datetime.fromisoformat(esi["killmail_time"])) for id_, esi in killmails.items()}
    wanted = {id_: type_ids(esi) for id_, esi in killmails.items()}
    recipes = _read_recipes(set().union(*wanted.values()))
    priced = {id_: _with_materials(goods_of(esi), recipes) for id_, esi in killmails.items()}
    for id_, types in wanted.items():
        types |= priced[id_]  # noqa: PLW2901
    facts = _read_facts(set().union(*wanted.values()))
    places = _read_places({esi["solar_system_id"] for esi in killmails.values()})
    histories = _read_histories({(type_id, days[id_]) for id_, types in priced.items() for type_id in types})
    averages = _read_averages(set().union(*priced.values()))
    result = {}
    for id_, esi in killmails.items():
        known = {type_id: histories[type_id, days[id_]] for type_id in priced[id_] if (type_id, days[id_]) in histories}
        sums = _believable(reckon(esi, Prices(days[id_], known, recipes, facts, averages)), bool(known))
        place = places.get(esi["solar_system_id"], PlaceFacts())
        result[id_] = _valuation(esi, facts, place, sums, id_ in padding)
    return result


def types_to_price(goods: Collection[int]) -> set[int]:
    """What has to have a price so that these have one: they themselves, what they are built from, and so on."""
    return _with_materials(set(goods), _read_recipes(goods))


def _believable(sums: Sums, sold: bool) -> Sums | None:
    """Not where nothing on it was sold or has a fixed price, nor beyond all that there is in EVE.

    ESI's averages, which are of no time, do only where they tell of all of it: the rest would count as worthless.
    """
    bases = {line.price.basis for line in sums.lines}
    estimated = Basis.AVERAGE in bases and bases <= {Basis.AVERAGE, Basis.WORTHLESS}
    priced = sold or estimated or Basis.FIXED in bases
    return sums if priced and sums.total + sums.fitted < MOST else None


def _with_materials(types: set[int], recipes: Mapping[int, Recipe]) -> set[int]:
    """What has to have a price so that these have one."""
    found, new = set(), types | (GANTRY_PARTS.keys() if GANTRY in types else set())
    while new:
        found |= new
        new = {material for id_ in new & recipes.keys() for material, _ in recipes[id_].materials} - found
    return found


def _valuation(esi: Esi, facts: Facts, place: PlaceFacts, sums: Sums | None, padding: bool) -> Valuation:
    ship_known = facts[esi["victim"]["ship_type_id"]].category_id is not None
    attackers = {id_of(attacker, "ship_type_id") for attacker in esi["attackers"]} - {0}
    known = ship_known and all(facts[type_id].category_id is not None for type_id in attackers)
    return Valuation(
        sums=sums,
        points=points(esi, facts) if known and attributes_are_known(esi, facts) else None,
        is_npc=is_npc(esi),
        is_solo=is_solo(esi, facts) if known else None,
        is_awox=is_awox(esi, facts) if ship_known else None,
        labels=labels(esi, facts, place, sums.total if sums else None, padding) if known else [],
    )


def _ask(query: str, ids: Collection[int]) -> list[tuple[Any, ...]]:
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(query.format(marks=", ".join(["%s"] * len(ids))), list(ids))
        return cursor.fetchall()


def _read_facts(ids: Collection[int]) -> Facts:
    rows = _ask(TYPES, ids)
    above: dict[int, set[int]] = {}
    for start, id_ in _ask(MARKET_GROUPS, {row[3] for row in rows if row[3] is not None}):
        above.setdefault(start, set()).add(id_)
    facts = Facts()
    for id_, group, category, market_group, rig_size, meta_level, heat in rows:
        market_groups = frozenset(above.get(market_group, ()))
        facts[id_] = TypeFacts(
            group, category, market_groups, rig_size, meta_level, None if heat is None else bool(heat)
        )
    return facts


def _read_places(ids: Collection[int]) -> dict[int, PlaceFacts]:
    return {id_: PlaceFacts(region, security) for id_, region, security in _ask(PLACES, ids)}


def _read_recipes(ids: Collection[int]) -> dict[int, Recipe]:
    """Of these, and of what they are built from, and so on."""
    found: dict[int, Recipe] = {}
    asked: set[int] = set()
    while new := set(ids) - asked:
        asked |= new
        rows = _ask(RECIPES, new)
        found |= {id_: Recipe(quantity, _materials(materials)) for id_, quantity, materials in rows}
        ids = {material for id_, _, _ in rows for material, _ in found[id_].materials}
    return found


def _materials(value: Any) -> list[tuple[int, int]]:
    return json.loads(value) if isinstance(value, str) else value


def _read_histories(pairs: Collection[tuple[int, date]]) -> dict[tuple[int, date], History]:
    """The newest days with their averages, by type and day asked for."""
    found: dict[tuple[int, date], list[tuple[date, Decimal]]] = {}
    if not pairs:
        return {}
    asked = json.dumps([[type_id, day.isoformat()] for type_id, day in pairs])
    with connection.cursor() as cursor:
        cursor.execute(HISTORIES[connection.vendor], [asked, LOOK_BACK, MOST_DAYS])
        for type_id, asked_day, day, average in cursor.fetchall():
            found.setdefault((type_id, _date(asked_day)), []).append((_date(day), Decimal(str(average))))
    return dict(found)


def _read_averages(ids: Collection[int]) -> dict[int, list[tuple[date, Decimal]]]:
    found: dict[int, list[tuple[date, Decimal]]] = {}
    for type_id, day, average in _ask(AVERAGES, ids):
        found.setdefault(type_id, []).append((_date(day), Decimal(str(average))))
    return found


def _date(value: date | str) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
