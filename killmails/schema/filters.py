"""The filter as GraphQL input types, made from the table of clauses."""

from collections.abc import Iterable, Mapping
from typing import Any

import graphene
from django.db import OperationalError
from graphql import GraphQLError

from killmails import filters
from killmails.errors import BadFilter
from killmails.filters import MAX_DEPTH, MAX_FILTERS, MAX_VALUES
from killmails.filters.clauses import ATTACKER, KILLMAIL, VICTIM, Clause, Kind
from killmails.models.places import SecurityBand as Band

BY_ANYONE = "The victim, or any attacker: "
BY_ATTACKER = "Any attacker: "


class SecurityBand(graphene.Enum):
    """How EVE's players divide space."""

    HIGH = Band.HIGH.value
    LOW = Band.LOW.value
    NULL = Band.NULL.value
    WORMHOLE = Band.WORMHOLE.value
    ABYSSAL = Band.ABYSSAL.value
    POCHVEN = Band.POCHVEN.value

    @property
    def description(self) -> str | None:
        texts = {
            SecurityBand.HIGH: "High security: 0.45, which EVE shows as 0.5, and above.",
            SecurityBand.LOW: "Low security: above 0.0, below 0.45.",
            SecurityBand.NULL: "Null security: 0.0 and below, but not Pochven.",
            SecurityBand.WORMHOLE: "Wormhole space.",
            SecurityBand.ABYSSAL: "Abyssal deadspace.",
            SecurityBand.POCHVEN: "Pochven, the Triglavians' region.",
        }
        return texts.get(self)


TYPES = {
    Kind.IDS: graphene.List(graphene.NonNull(graphene.ID)),
    Kind.BANDS: graphene.List(graphene.NonNull(SecurityBand)),
    Kind.LABELS: graphene.List(graphene.NonNull(graphene.String)),
    Kind.ISK: graphene.Float(),
    Kind.COUNT: graphene.Int(),
    Kind.TIME: graphene.DateTime(),
    Kind.FLAG: graphene.Boolean(),
}


def _fields(clauses: Iterable[Clause], whose: str = "") -> dict[str, Any]:
    def text(clause: Clause) -> str:
        return whose + clause.text[0].lower() + clause.text[1:] if whose else clause.text

    return {clause.name: graphene.InputField(TYPES[clause.kind], description=text(clause)) for clause in clauses}


def _input(name: str, description: str, fields: dict[str, Any]) -> type[graphene.InputObjectType]:
    return type(name, (graphene.InputObjectType,), {"__doc__": description, **fields})


VictimFilter = _input("VictimFilter", "The victim meets all of these.", _fields(VICTIM))
AttackerFilter = _input("AttackerFilter", "One and the same attacker meets all of these.", _fields(ATTACKER))
KillmailFilter: type[graphene.InputObjectType] = _input(
    "KillmailFilter",
    "What is wanted of a killmail: all of these fields, and of a list any. Without a field it wants every killmail; "
    "null is the same as no field. Where a killmail lacks the value that a field asks for, the field is not met. "
    f"Filters may nest {MAX_DEPTH} deep, {MAX_FILTERS} of them in all, with {MAX_VALUES} ids, labels and bands in all. "
    "One that can be seen never to match is refused, with the code BAD_FILTER.",
    {
        **_fields(VICTIM, BY_ANYONE),
        **_fields(ATTACKER[len(VICTIM) :], BY_ATTACKER),
        "victim": graphene.InputField(VictimFilter, description="The victim meets all of these."),
        "attacker": graphene.InputField(AttackerFilter, description="One and the same attacker meets all of these."),
        "final_blow": graphene.InputField(
            AttackerFilter, description="The attacker with the final blow meets all of these."
        ),
        **_fields(KILLMAIL),
        "any": graphene.List(
            graphene.NonNull(lambda: KillmailFilter), description="At least one of these filters passes."
        ),
        "not": graphene.InputField(lambda: KillmailFilter, description="This filter does not pass."),
    },
)


def read_filter(value: Mapping[str, Any] | None) -> filters.KillmailFilter:
    """As `killmails.filters.read_filter`, but for the client: raises GraphQLError, BAD_FILTER or UNAVAILABLE."""
    try:
        return filters.read_filter(value)
    except BadFilter as error:
        raise GraphQLError(error.message, extensions={"code": "BAD_FILTER"}) from error
    except OperationalError as error:
        text = "The database does not answer at the moment; try again later."
        raise GraphQLError(text, extensions={"code": "UNAVAILABLE"}) from error
