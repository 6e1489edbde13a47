"""What types have besides name and group: their market group, and the attributes that points and labels go by."""

from collections.abc import Mapping

from django.db import connection

from killmails.loading.entities import among
from killmails.models import InventoryType, MarketGroup

FIELDS = frozenset({"marketGroup", "rigSize", "metaLevel", "hasHeatDamage"})  # GraphQL's names

SELECT = """
    SELECT type.id, type.rig_size, type.meta_level, type.has_heat_damage, type.market_group_id, market_group.name
    FROM killmails_inventorytype AS type
    LEFT JOIN killmails_marketgroup AS market_group ON market_group.id = type.market_group_id WHERE type.id"""


def load_type_details(types: Mapping[int, InventoryType], asked: frozenset[str]) -> None:
    """Writes them into the types, by id. One query where one of them is asked for.

    They are not kept with the types' names: hardly anybody asks for them, and None may be all that there is to know.
    """
    if not asked & FIELDS or not types:
        return
    condition, parameter = among(types)
    groups: dict[int, MarketGroup] = {}
    with connection.cursor() as cursor:
        cursor.execute(f"{SELECT} {condition}", [parameter])
        for id_, rig_size, meta_level, heat, group_id, group_name in cursor.fetchall():
            found = types[id_]
            found.rig_size, found.meta_level = rig_size, meta_level
            found.has_heat_damage = None if heat is None else bool(heat)  # SQLite's are numbers
            known = group_id is not None
            found.market_group = groups.setdefault(group_id, MarketGroup(group_id, group_name)) if known else None
