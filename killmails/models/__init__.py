"""The tables. Models fetch nothing and publish nothing."""

from killmails.models.dead_letters import DeadLetter
from killmails.models.entities import Alliance, Character, Corporation, Entity, Faction
from killmails.models.esi import EsiAnswer, EsiBudget
from killmails.models.feed import FeedCursor, FeedGap, RejectedKillmail
from killmails.models.killmails import Attacker, Killmail, KillmailPackage, UnfilledKillmail
from killmails.models.log import KillmailEvent, LogHead
from killmails.models.prices import Price
from killmails.models.universe import (
    Blueprint,
    Celestial,
    Constellation,
    InventoryCategory,
    InventoryGroup,
    InventoryType,
    MarketGroup,
    Region,
    SolarSystem,
    StaticDataBuild,
)
from killmails.models.users import ApiToken, Publication, UnusedGrant, UserCharacter
from killmails.models.work import KillmailSync, PendingKillmail, PendingOwner, Priority

__all__ = [
    "Alliance",
    "ApiToken",
    "Attacker",
    "Blueprint",
    "Celestial",
    "Character",
    "Constellation",
    "Corporation",
    "DeadLetter",
    "Entity",
    "EsiAnswer",
    "EsiBudget",
    "Faction",
    "FeedCursor",
    "FeedGap",
    "InventoryCategory",
    "InventoryGroup",
    "InventoryType",
    "Killmail",
    "KillmailEvent",
    "KillmailPackage",
    "KillmailSync",
    "LogHead",
    "MarketGroup",
    "PendingKillmail",
    "PendingOwner",
    "Price",
    "Priority",
    "Publication",
    "Region",
    "RejectedKillmail",
    "SolarSystem",
    "StaticDataBuild",
    "UnfilledKillmail",
    "UnusedGrant",
    "UserCharacter",
]
