"""Static data in CCP's official format: a small one by hand, and one made of the data beside this checkout."""

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.builders import static_rows

BUILD = 3650286


def names(name: str) -> dict[str, str]:
    return {"en": name, "de": f"{name} (de)", "fr": f"{name} (fr)"}


def place(x: float) -> dict[str, float]:
    return {"x": x, "y": -2.5e9, "z": 3.0}


def system(id_: int, name: str, constellation_id: int, region_id: int, security: float) -> dict[str, Any]:
    return {
        "_key": id_, "constellationID": constellation_id, "name": names(name), "position": place(-1.29e17),
        "regionID": region_id, "securityStatus": security, "stargateIDs": [50001249],
    }  # fmt: skip


def small_sde() -> dict[str, list[dict[str, Any]]]:
    """Everything that is read, a few of each, and one file that nobody asks for."""
    return {
        "_sde": [{"_key": "sde", "buildNumber": BUILD, "releaseDate": "2026-10-26T11:00:00Z"}],
        "agentTypes": [{"_key": 1, "name": "NonAgent"}],
        "mapRegions": [
            {"_key": 10000002, "name": names("The Forge"), "constellationIDs": [20000020], "nebulaID": 11806},
            {"_key": 10000070, "name": names("Pochven")},
            {"_key": 10001000, "name": names("Yasna Zakh")},
            {"_key": 11000001, "name": names("A-R00001")},
            {"_key": 12000001, "name": names("ADR01")},
            {"_key": 14000001, "name": names("VR-01")},
        ],
        "mapConstellations": [
            {"_key": 20000020, "name": names("Kimotoro"), "regionID": 10000002},
            {"_key": 20000788, "name": names("Krai Svarog"), "regionID": 10000070},
            {"_key": 20010000, "name": names("Yasna Zakh"), "regionID": 10001000},
            {"_key": 21000001, "name": names("A-C00001"), "regionID": 11000001},
            {"_key": 22000001, "name": names("ADC01"), "regionID": 12000001},
            {"_key": 24000001, "name": names("VC-01"), "regionID": 14000001},
        ],
        "mapSolarSystems": [
            system(30000142, "Jita", 20000020, 10000002, 0.945913),
            system(30000144, "Perimeter", 20000020, 10000002, 0.953123),
            system(30002225, "Harva", 20000788, 10000070, 0.6),
            system(30100000, "Zarzakh", 20010000, 10001000, -1.0),
            system(31000001, "J055520", 21000001, 11000001, -0.99),
            system(32000001, "AD001", 22000001, 12000001, -0.99),
            system(34000001, "V-001", 24000001, 14000001, -0.99),
        ],
        "categories": [
            {"_key": 0, "name": names("#System"), "published": False},
            {"_key": 6, "name": names("Ship"), "published": True},
        ],
        "groups": [
            {"_key": 0, "categoryID": 0, "name": names("#System"), "published": False},
            {"_key": 25, "categoryID": 6, "name": names("Frigate"), "published": True},
        ],
        "marketGroups": [
            {"_key": 4, "name": names("Ships"), "hasTypes": False},
            {"_key": 64, "name": names("Minmatar"), "parentGroupID": 4, "hasTypes": True},
        ],
        "typeDogma": [
            {"_key": 587, "dogmaAttributes": [{"attributeID": 1547, "value": 1.0}, {"attributeID": 633, "value": 2.0}],
             "dogmaEffects": [{"effectID": 11, "isDefault": False}]},
            {"_key": 3178,
             "dogmaAttributes": [{"attributeID": 1211, "value": 2.3}, {"attributeID": 633, "value": 5.0}]},
        ],
        "types": [
            {"_key": 0, "groupID": 0, "name": names("#System"), "published": False},
            {"_key": 34, "groupID": 18, "name": {"en": ""}, "published": True},
            {"_key": 587, "groupID": 25, "name": names("Rifter"), "published": True, "marketGroupID": 64},
            {"_key": 691, "groupID": 105, "name": names("Rifter Blueprint"), "published": True},
            {"_key": 3178, "groupID": 55, "name": names("150mm Light AutoCannon II"), "metaLevel": 6},
        ],
        "factions": [{"_key": 500001, "name": names("Caldari State")}],
        "npcCorporations": [
            {"_key": 1000035, "name": names("Caldari Navy"), "tickerName": "CN", "factionID": 500001},
        ],
        "stationOperations": [{"_key": 26, "operationName": names("Assembly Plant")}],
        "npcStations": [
            {"_key": 60003760, "celestialIndex": 4, "operationID": 26, "orbitID": 40009082, "orbitIndex": 4,
             "ownerID": 1000035, "position": place(1.0), "solarSystemID": 30000142, "typeID": 52678,
             "useOperationName": True},
            {"_key": 60003761, "operationID": 26, "orbitID": 40009081, "ownerID": 1000035, "position": place(2.0),
             "solarSystemID": 30000142, "typeID": 52678, "useOperationName": False},
        ],
        "mapStars": [{"_key": 40009076, "solarSystemID": 30000142, "typeID": 45041, "radius": 346600000}],
        "mapPlanets": [
            {"_key": 40009081, "celestialIndex": 4, "orbitID": 40009076, "position": place(3.0),
             "solarSystemID": 30000142, "typeID": 13},
            {"_key": 40009090, "celestialIndex": 9, "orbitID": 40009076, "position": place(4.0),
             "solarSystemID": 30000142, "typeID": 13, "name": names("Jita's Own")},
        ],
        "mapMoons": [
            {"_key": 40009082, "celestialIndex": 4, "orbitID": 40009081, "orbitIndex": 4, "position": place(5.5),
             "solarSystemID": 30000142, "typeID": 14},
        ],
        "mapAsteroidBelts": [
            {"_key": 40009083, "celestialIndex": 4, "orbitID": 40009081, "orbitIndex": 1, "position": place(6.0),
             "solarSystemID": 30000142, "typeID": 15},
        ],
        "mapStargates": [
            {"_key": 50001249, "destination": {"solarSystemID": 30000144, "stargateID": 50001253},
             "position": place(7.0), "solarSystemID": 30000142, "typeID": 29624},
        ],
        "blueprints": [
            {"_key": 681, "blueprintTypeID": 681, "activities": {"manufacturing": {
                "materials": [{"quantity": 1, "typeID": 34}], "products": [{"quantity": 1, "typeID": 587}]}}},
            {"_key": 691, "blueprintTypeID": 691, "activities": {"copying": {"time": 4800}, "manufacturing": {
                "materials": [{"quantity": 32000, "typeID": 34}, {"quantity": 6000, "typeID": 35}],
                "products": [{"quantity": 1, "typeID": 587}], "time": 6000}}},
            {"_key": 692, "blueprintTypeID": 692, "activities": {"copying": {"time": 4800}}},
        ],
    }  # fmt: skip


def write_sde(path: Path, files: Mapping[str, Iterable[Any]]) -> Path:
    """A zip; a line that is text already stays as it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, rows in files.items():
            lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
            archive.writestr(f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    return path


def real_sde() -> dict[str, list[dict[str, Any]]]:
    """The data beside this checkout as CCP would write it; celestials and corporations are those of the small one."""
    systems = static_rows("solar_systems")
    types = static_rows("types")
    made = {
        "mapRegions": [{"_key": row["region_id"], "name": names(row["name"])} for row in static_rows("regions")],
        "mapConstellations": [
            {"_key": row["constellation_id"], "name": names(row["name"]), "regionID": row["region_id"]}
            for row in static_rows("constellations")
        ],
        "mapSolarSystems": [
            {"_key": row["solar_system_id"], "name": names(row["name"]), "constellationID": row["constellation_id"],
             "regionID": row["region_id"], "securityStatus": row["security_status"], "position": row["position"]}
            for row in systems
        ],
        "categories": [{"_key": row["category_id"], "name": names(row["name"])} for row in static_rows("categories")],
        "groups": [
            {"_key": row["group_id"], "name": names(row["name"]), "categoryID": row["category_id"]}
            for row in static_rows("groups")
        ],
        "marketGroups": [
            {"_key": row["market_group_id"], "name": names(row["name"]), "parentGroupID": row["parent_group_id"]}
            for row in static_rows("market_groups")
        ],
        "types": [_type(row) for row in types],
        "typeDogma": [{"_key": row["type_id"], "dogmaAttributes": _attributes(row)} for row in types],
    }  # fmt: skip
    return small_sde() | made


def _type(row: Mapping[str, Any]) -> dict[str, Any]:
    made = {"_key": row["type_id"], "groupID": row["group_id"], "name": names(row["name"])}
    return made | {"published": row["published"], "marketGroupID": row["market_group_id"]}


def _attributes(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = {1547: row["rig_size"], 633: row["meta_level"], 1211: 1.0 if row["has_heat_damage"] else None}
    return [{"attributeID": number, "value": value} for number, value in known.items() if value is not None]
