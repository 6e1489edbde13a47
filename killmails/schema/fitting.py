"""GraphQL: what a ship was fitted with, computed from the killmail's items."""

from collections.abc import Callable
from typing import Any

import graphene

from killmails import fitting, models
from killmails.fitting.flags import Rack
from killmails.schema.items import Item


class FittedModule(graphene.ObjectType):
    """What was in one slot."""

    slot = graphene.Int(required=True, description="Its number in the rack, from 0.")
    module = graphene.Field(Item, description="Null where only a charge is on the killmail.")
    charges = graphene.List(
        graphene.NonNull(Item), required=True, description="What was loaded: two rows where some of it dropped."
    )


class Bay(graphene.ObjectType):
    """What was in one hold."""

    flag = graphene.Int(required=True, description="EVE's inventory flag; 0 in killmails until about 2012.")
    name = graphene.String(required=True, description="`Drone bay`, `Fleet hangar` and so on, for people.")
    items = graphene.List(graphene.NonNull(Item), required=True, description="In the killmail's order.")


def _rack(rack: Rack, description: str) -> graphene.List:
    return graphene.List(
        graphene.NonNull(FittedModule),
        required=True,
        description=description,
        resolver=lambda fitted, info: fitted.arranged.racks[rack],
    )


def _held(read: Callable[[fitting.Fitting], list[Any]], of: type, description: str) -> graphene.List:
    return graphene.List(
        graphene.NonNull(of),
        required=True,
        description=description,
        resolver=lambda fitted, info: read(fitted.arranged),
    )


class Fitting(graphene.ObjectType):
    """Each item of the killmail is in one rack or in one of `bays`; the other lists are some of the bays."""

    high = _rack(Rack.HIGH, "High slots, in order; empty ones are not on a killmail.")
    mid = _rack(Rack.MID, "Mid slots.")
    low = _rack(Rack.LOW, "Low slots.")
    rigs = _rack(Rack.RIG, "Rigs.")
    subsystems = _rack(Rack.SUBSYSTEM, "Subsystems of a strategic cruiser.")
    services = _rack(Rack.SERVICE, "Service modules of a structure.")
    fighter_tubes = _held(lambda arranged: arranged.fighter_tubes, Item, "Fighters that were in their tubes.")
    cargo = _held(lambda arranged: arranged.cargo, Item, "The cargo hold.")
    implants = _held(lambda arranged: arranged.implants, Item, "Implants, on the killmail of a capsule.")
    boosters = _held(lambda arranged: arranged.boosters, Item, "Boosters, on the killmail of a capsule.")
    bays = _held(
        lambda arranged: arranged.bays, Bay, "All holds, the cargo hold among them, in the order of EVE's flags."
    )
    eft = graphene.String(
        required=True, description="In EFT's format, for the game's and other tools' import; empty slots are left out."
    )
    dna = graphene.String(required=True, description="As the game's links have it: `587:2048;1:...::`.")

    @staticmethod
    def resolve_eft(fitted: "Fitted", info: graphene.ResolveInfo) -> str:
        return fitting.eft(fitted.killmail.victim_ship_type, f"Killmail {fitted.killmail.pk}", fitted.arranged)

    @staticmethod
    def resolve_dna(fitted: "Fitted", info: graphene.ResolveInfo) -> str:
        return fitting.dna(fitted.killmail.victim_ship_type_id, fitted.arranged)


class Fitted:
    """What the fields of a fitting read."""

    def __init__(self, killmail: models.Killmail) -> None:
        self.killmail = killmail
        self.arranged = fitting.arrange(killmail.loaded_items)


def resolve_fitting(killmail: models.Killmail, info: graphene.ResolveInfo) -> Fitted:
    return Fitted(killmail)
