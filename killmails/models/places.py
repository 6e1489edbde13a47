"""Where a solar system lies: constellation, region, and kind of space. In SQL, for one system and for all killmails."""

from collections.abc import Collection
from typing import NamedTuple

from django.db import connection, models


class SecurityBand(models.TextChoices):
    """How EVE's players divide space."""

    HIGH = "HIGH", "high security"
    LOW = "LOW", "low security"
    NULL = "NULL", "null security"
    WORMHOLE = "WORMHOLE", "wormhole space"
    ABYSSAL = "ABYSSAL", "abyssal deadspace"
    POCHVEN = "POCHVEN", "Pochven"


class Place(NamedTuple):
    """Of a solar system; None is what the static data does not know."""

    solar_system_id: int
    constellation_id: int | None
    region_id: int | None
    security_band: str | None


# EVE shows security rounded: 0.45 is 0.5, which is high, and any trace above 0.0 is 0.1. Wormholes and the abyss are
# known by their ids alone; elsewhere there is no band until region and security are known. 10000070 is Pochven.
PLACES = """
    SELECT system.id AS solar_system_id, system.constellation_id, constellation.region_id, CASE
        WHEN system.id BETWEEN 31000000 AND 31999999 THEN 'WORMHOLE'
        WHEN system.id BETWEEN 32000000 AND 32999999 THEN 'ABYSSAL'
        WHEN constellation.region_id IS NULL THEN NULL
        WHEN constellation.region_id = 10000070 THEN 'POCHVEN'
        WHEN system.security_status >= 0.45 THEN 'HIGH'
        WHEN system.security_status > 0.0 THEN 'LOW'
        WHEN system.security_status <= 0.0 THEN 'NULL'
    END AS security_band
    FROM killmails_solarsystem AS system
    LEFT JOIN killmails_constellation AS constellation ON constellation.id = system.constellation_id"""

FILL = f"""
    UPDATE killmails_killmail
    SET constellation_id = place.constellation_id, region_id = place.region_id, security_band = place.security_band
    FROM ({PLACES}) AS place
    WHERE place.solar_system_id = killmails_killmail.solar_system_id
        AND (killmails_killmail.region_id IS NULL OR killmails_killmail.security_band IS NULL)
        AND place.region_id IS NOT NULL AND place.security_band IS NOT NULL"""  # noqa: S608


def read_places(solar_system_ids: Collection[int]) -> list[Place]:
    """Those that have a row."""
    marks = ", ".join(["%s"] * len(solar_system_ids))
    with connection.cursor() as cursor:
        cursor.execute(f"{PLACES} WHERE system.id IN ({marks})", list(solar_system_ids))
        return [Place(*row) for row in cursor.fetchall()]


def fill_places() -> int:
    """Writes the place beside those killmails that were stored before it was known. How many. Safe to run again."""
    with connection.cursor() as cursor:
        cursor.execute(FILL)
        return cursor.rowcount
