"""The tables. Models fetch nothing and publish nothing."""

from killmails.models.dead_letters import DeadLetter
from killmails.models.entities import Alliance, Character, Corporation, Entity, Faction
from killmails.models.feed import FeedCursor, FeedGap, RejectedKillmail
from killmails.models.killmails import Attacker, Killmail, KillmailPackage
from killmails.models.log import KillmailEvent, LogHead
from killmails.models.universe import (
    Constellation,
    InventoryCategory,
    InventoryGroup,
    InventoryType,
    Region,
    SolarSystem,
)

__all__ = [
    "Alliance",
    "Attacker",
    "Character",
    "Constellation",
    "Corporation",
    "DeadLetter",
    "Entity",
    "Faction",
    "FeedCursor",
    "FeedGap",
    "InventoryCategory",
    "InventoryGroup",
    "InventoryType",
    "Killmail",
    "KillmailEvent",
    "KillmailPackage",
    "LogHead",
    "Region",
    "RejectedKillmail",
    "SolarSystem",
]
