"""GraphQL types of killmails. Ids travel as strings, ISK as Float, 64-bit numbers as BigInt."""

import graphene
from graphene_django import DjangoObjectType

from killmails import models
from killmails.schema.entities import (
    Alliance,
    Character,
    Corporation,
    Faction,
    InventoryType,
    SolarSystem,
)
from killmails.schema.filters import SecurityBand
from killmails.schema.fitting import Fitting, resolve_fitting
from killmails.schema.items import Item
from killmails.schema.location import Location, resolve_location
from killmails.schema.values import ValueBasis, ValuesBy, resolve_value_basis


class Position(graphene.ObjectType):
    """A place in space, in metres from the centre of the solar system."""

    x = graphene.Float(required=True, description="Metres.")
    y = graphene.Float(required=True, description="Metres.")
    z = graphene.Float(required=True, description="Metres.")


class Victim(graphene.ObjectType):
    """Who lost what. A structure or a drone has no character."""

    character = graphene.Field(Character, source="victim_character", description="Null where nobody was aboard.")
    corporation = graphene.Field(Corporation, source="victim_corporation", description="The owner's corporation.")
    alliance = graphene.Field(Alliance, source="victim_alliance", description="Null where the corporation was in none.")
    faction = graphene.Field(Faction, source="victim_faction", description="In factional warfare.")
    ship_type = graphene.Field(InventoryType, required=True, source="victim_ship_type", description="What was lost.")
    damage_taken = graphene.BigInt(required=True, description="Hit points.")
    position = graphene.Field(Position, description="Null before November 2015.")

    @staticmethod
    def resolve_position(killmail: models.Killmail, info: graphene.ResolveInfo) -> dict[str, float] | None:
        return dict(zip("xyz", killmail.position, strict=True)) if killmail.position else None


class Attacker(DjangoObjectType):
    character = graphene.Field(Character, description="Null for NPCs and structures.")
    corporation = graphene.Field(Corporation, description="Null for some NPCs.")
    alliance = graphene.Field(Alliance, description="Null where the corporation was in none.")
    faction = graphene.Field(Faction, description="Of an NPC, or in factional warfare.")
    ship_type = graphene.Field(InventoryType, description="Null where it is not known.")
    weapon_type = graphene.Field(InventoryType, description="Null for NPCs.")
    damage_done = graphene.BigInt(required=True, description="Hit points.")
    final_blow = graphene.Boolean(required=True, description="Whether this one had the final blow.")
    security_status = graphene.Float(required=True, description="The attacker's own, -10 to 10.")

    class Meta:
        model = models.Attacker
        fields = ()
        description = "One of those on the mail."


class Killmail(DjangoObjectType):
    id = graphene.ID(required=True, description="EVE's id.")
    hash = graphene.String(required=True, description="40 hex digits; with the id it is what ESI asks for.")
    time = graphene.DateTime(required=True, description="When the ship was lost.")
    solar_system = graphene.Field(SolarSystem, required=True, description="Where.")
    security_band = graphene.Field(SecurityBand, description="The kind of space; null until the system is known.")
    victim = graphene.Field(Victim, required=True, description="Who lost what.")
    attackers = graphene.List(graphene.NonNull(Attacker), required=True, description="All of them, in ESI's order.")
    final_blow = graphene.Field(Attacker, description="The attacker with the final blow; nearly always there is one.")
    attacker_count = graphene.Int(required=True, description="How many attackers, NPCs included.")
    items = graphene.List(
        graphene.NonNull(Item), required=True, source="loaded_items", description="What the victim carried."
    )
    fitting = graphene.Field(
        Fitting, required=True, resolver=resolve_fitting, description="The items by where they were."
    )
    war_id = graphene.ID(description="The war that it belongs to.")
    moon_id = graphene.ID(description="The moon of a starbase or a customs office.")
    values_by = graphene.Field(ValuesBy, description="Who reckoned the next nine fields; null where nobody could yet.")
    value_basis = graphene.Field(
        ValueBasis, required=True, resolver=resolve_value_basis, description="Our own reckoning, with every price."
    )
    total_value = graphene.Float(description="ISK.")
    dropped_value = graphene.Float(description="ISK.")
    destroyed_value = graphene.Float(description="ISK, the hull included.")
    fitted_value = graphene.Float(description="ISK, the hull included.")
    points = graphene.Int(description="By zKillboard's rules.")
    is_npc = graphene.Boolean(description="Only NPCs were involved.")
    is_solo = graphene.Boolean(description="One pilot alone did it.")
    is_awox = graphene.Boolean(description="A member of the victim's own corporation had the final blow.")
    labels = graphene.List(graphene.NonNull(graphene.String), required=True, description="By zKillboard's rules.")
    location_id = graphene.ID(description="The nearest celestial, stargate or station.")
    location = graphene.Field(
        Location, resolver=resolve_location, description="The same, with its name; null where there is none."
    )
    position = graphene.Field(Position, description="Where exactly; the same as the victim's.")

    class Meta:
        model = models.Killmail
        fields = ()
        description = "One loss."

    @staticmethod
    def resolve_victim(killmail: models.Killmail, info: graphene.ResolveInfo) -> models.Killmail:
        return killmail  # the victim's columns stand in the killmail's row

    @staticmethod
    def resolve_attackers(killmail: models.Killmail, info: graphene.ResolveInfo) -> list[models.Attacker]:
        return list(killmail.attackers.all())

    @staticmethod
    def resolve_position(killmail: models.Killmail, info: graphene.ResolveInfo) -> dict[str, float] | None:
        return dict(zip("xyz", killmail.position, strict=True)) if killmail.position else None
