"""The small universe that the project ships: names of what its recording mentions."""

import json
from pathlib import Path

from django.db import connection

from killmails import models
from killmails.models.places import fill_places

FILE = Path(__file__).parent.parent / "recording" / "universe.json"
MODELS: dict[str, type[models.Entity]] = {
    "regions": models.Region,
    "constellations": models.Constellation,
    "solar_systems": models.SolarSystem,
    "celestials": models.Celestial,
    "categories": models.InventoryCategory,
    "groups": models.InventoryGroup,
    "types": models.InventoryType,
    "factions": models.Faction,
    "characters": models.Character,
    "corporations": models.Corporation,
    "alliances": models.Alliance,
}


INVENTED = ("characters", "corporations", "alliances")


def provide_universe() -> None:
    """Loads the file, without invented pilots, into a database that knows no place yet.

    Any number of processes may at once; in a thread of its own, since it closes its connection.
    """
    try:
        if not models.SolarSystem.objects.filter(constellation__isnull=False).exists():
            load_small_universe(invented=False)
    finally:
        connection.close()  # of a thread that ends with this


def load_small_universe(invented: bool) -> int:
    """Writes the rows of the file, those of invented pilots only if asked to. Again changes nothing. How many rows.

    Killmails that were stored before their place was known get it.
    """
    tables = json.loads(FILE.read_text(encoding="utf-8"))
    wanted = {name: model for name, model in MODELS.items() if invented or name not in INVENTED}
    for name, model in wanted.items():
        rows = [model(**row) for row in tables[name]]
        columns = [column for column in tables[name][0] if column != "id"]
        fields = [column.removesuffix("_id") for column in columns]
        model.objects.bulk_create(rows, update_conflicts=True, update_fields=fields, unique_fields=["id"])
    fill_places()
    return sum(len(tables[name]) for name in wanted)
