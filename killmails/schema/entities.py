"""GraphQL types of those who fly, of places, and of things. A name is null until it is known."""

import graphene
from graphene_django import DjangoObjectType

from killmails import models


class Named:
    """The fields that all of EVE's entities have."""

    id = graphene.ID(required=True, description="EVE's id.")
    name = graphene.String(description="Null until it is known.")


class Alliance(Named, DjangoObjectType):
    ticker = graphene.String(description="`CONDI` and the like; null until it is known.")

    class Meta:
        model = models.Alliance
        fields = ()
        description = "An alliance of corporations."


class Corporation(Named, DjangoObjectType):
    ticker = graphene.String(description="`KILL` and the like; null until it is known.")
    current_alliance = graphene.Field(
        Alliance,
        source="alliance",
        description="Today's, not that of the killmail; null where there is none, or it is not known yet.",
    )

    class Meta:
        model = models.Corporation
        fields = ()
        description = "A corporation, of players or of the game."


class Character(Named, DjangoObjectType):
    current_corporation = graphene.Field(
        Corporation, source="corporation", description="Today's, not that of the killmail; null until it is known."
    )
    current_alliance = graphene.Field(
        Alliance, source="alliance", description="Today's, not that of the killmail; null where there is none."
    )

    class Meta:
        model = models.Character
        fields = ()
        description = "A pilot, of a player or of the game."


class Faction(Named, DjangoObjectType):
    class Meta:
        model = models.Faction
        fields = ()
        description = "An empire or a pirate faction."


class Region(Named, DjangoObjectType):
    class Meta:
        model = models.Region
        fields = ()
        description = "A region, the largest part of the map."


class Constellation(Named, DjangoObjectType):
    region = graphene.Field(Region, description="Null until it is known.")

    class Meta:
        model = models.Constellation
        fields = ()
        description = "A constellation, some systems of a region."


class SolarSystem(Named, DjangoObjectType):
    security_status = graphene.Float(description="True security, -1.0 to 1.0; null until it is known.")
    constellation = graphene.Field(Constellation, description="Null until it is known.")

    class Meta:
        model = models.SolarSystem
        fields = ()
        description = "A solar system."


class InventoryCategory(Named, DjangoObjectType):
    class Meta:
        model = models.InventoryCategory
        fields = ()
        description = "A category of things: ships, modules, structures."


class InventoryGroup(Named, DjangoObjectType):
    category = graphene.Field(InventoryCategory, description="Null until it is known.")

    class Meta:
        model = models.InventoryGroup
        fields = ()
        description = "A group of types: frigates, battleships."


class MarketGroup(Named, DjangoObjectType):
    class Meta:
        model = models.MarketGroup
        fields = ()
        description = "A branch of the market's tree: what is sold of one kind."


class InventoryType(Named, DjangoObjectType):
    group = graphene.Field(InventoryGroup, description="Null until it is known.")
    market_group = graphene.Field(
        MarketGroup, description="Where the market has it; null where it does not, or that is not known yet."
    )
    rig_size = graphene.Int(
        description="Of ships and rigs: 1 small, 2 medium, 3 large, 4 capital; null for others, or until it is known."
    )
    meta_level = graphene.Int(
        description="EVE's meta level, 0 for the plain one of its kind; null where it has none, or until it is known."
    )
    has_heat_damage = graphene.Boolean(description="Whether overheating damages it; null until it is known.")

    class Meta:
        model = models.InventoryType
        fields = ()
        description = "A type of thing: a Rifter, a Stasis Webifier I."
