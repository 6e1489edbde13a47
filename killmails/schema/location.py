"""GraphQL: where in its system a killmail happened."""

import graphene

from killmails import models
from killmails.models.locations import LocationKind as Kinds


class LocationKind(graphene.Enum):
    """What there is to be near to."""

    STAR = Kinds.STAR.value
    PLANET = Kinds.PLANET.value
    MOON = Kinds.MOON.value
    BELT = Kinds.BELT.value
    STARGATE = Kinds.STARGATE.value
    STATION = Kinds.STATION.value
    STRUCTURE = Kinds.STRUCTURE.value

    @property
    def description(self) -> str | None:
        return f"{Kinds(self.value).label.capitalize()}." if self else None


class Location(graphene.ObjectType):
    """What is near: as zKillboard says, or else the nearest that the static data has."""

    id = graphene.ID(required=True, description="EVE's id.")
    name = graphene.String(description="Null where the static data does not know it.")
    kind = graphene.Field(LocationKind, description="What it is; null where that is not known.")
    distance = graphene.Float(
        description="Metres from its centre to the victim; null where one of the two is not known."
    )

    @staticmethod
    def resolve_distance(killmail: models.Killmail, info: graphene.ResolveInfo) -> float | None:
        return killmail.loaded_location.distance(killmail.position)

    @staticmethod
    def resolve_id(killmail: models.Killmail, info: graphene.ResolveInfo) -> int:
        return killmail.loaded_location.id

    @staticmethod
    def resolve_name(killmail: models.Killmail, info: graphene.ResolveInfo) -> str | None:
        return killmail.loaded_location.name

    @staticmethod
    def resolve_kind(killmail: models.Killmail, info: graphene.ResolveInfo) -> str | None:
        kind = killmail.loaded_location.kind
        return kind and kind.value


def resolve_location(killmail: models.Killmail, info: graphene.ResolveInfo) -> models.Killmail | None:
    """The killmail itself, which the fields above read."""
    return killmail if killmail.loaded_location else None
