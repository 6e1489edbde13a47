"""GraphQL: our own reckoning of a killmail, and what each price is from."""

from collections.abc import Mapping
from typing import Any

import graphene

from killmails import models
from killmails.models.killmails import ValuesBy as By
from killmails.schema.entities import InventoryType
from killmails.values.prices import Basis
from killmails.values.sums import Line


class ValuesBy(graphene.Enum):
    """Who reckoned the values, points, flags and labels of a killmail."""

    ZKILLBOARD = By.ZKILLBOARD.value
    BOARD = By.BOARD.value

    @property
    def description(self) -> str | None:
        return {"ZKILLBOARD": "zKillboard.", "BOARD": "This board, by the same rules."}[self.value] if self else None


class PriceBasis(graphene.Enum):
    """Where a price is from."""

    HISTORY = Basis.HISTORY.value
    DAY = Basis.DAY.value
    AVERAGE = Basis.AVERAGE.value
    FIXED = Basis.FIXED.value
    BUILD = Basis.BUILD.value
    PARTS = Basis.PARTS.value
    WORTHLESS = Basis.WORTHLESS.value
    UNKNOWN = Basis.UNKNOWN.value

    @property
    def description(self) -> str | None:
        texts = {
            "HISTORY": "The mean of up to 34 days of The Forge's market, without its extremes.",
            "DAY": "The day's own average, which was lower than that mean.",
            "AVERAGE": "ESI's own average of a day, of what has no market's history.",
            "FIXED": "A fixed price: what is hardly ever sold.",
            "BUILD": "What the materials cost.",
            "PARTS": "What the parts of a customs office gantry cost.",
            "WORTHLESS": "0.01 ISK by rule: a blueprint copy, a skin, a frigate in its escape bay.",
            "UNKNOWN": "0.01 ISK: it was not sold, and cannot be built.",
        }
        return texts[self.value] if self else None


class ValueLine(graphene.ObjectType):
    """One row of the killmail with its price; the first is the hull."""

    item_type = graphene.Field(InventoryType, required=True, description="What it was.")
    flag = graphene.Int(description="Where it was: EVE's inventory flag; null for the hull.")
    quantity = graphene.BigInt(required=True, description="How many, dropped or destroyed.")
    unit_price = graphene.Float(required=True, description="ISK for one.")
    basis = graphene.Field(PriceBasis, required=True, description="Where that is from.")
    day = graphene.Date(description="The newest day of the market that it is from; null for other sources.")
    days = graphene.Int(required=True, description="Of how many days it is the mean; 0 for other sources.")
    value = graphene.Float(required=True, description="ISK for all.")


class ValueBasis(graphene.ObjectType):
    """A killmail as we reckon it, by zKillboard's rules and our own prices, whoever reckoned what stands beside."""

    total_value = graphene.Float(description="ISK; null, as the next three, where no price of its time is loaded.")
    dropped_value = graphene.Float(description="ISK.")
    destroyed_value = graphene.Float(description="ISK, the hull included.")
    fitted_value = graphene.Float(description="ISK, the hull included.")
    difference = graphene.Float(
        description="Our total less zKillboard's, in ISK; null where one of the two is not there."
    )
    points = graphene.Int(description="Null where a ship that it names, or what was fitted, is not known yet.")
    is_solo = graphene.Boolean(description="One pilot alone did it; null where a ship that it names is not known yet.")
    is_awox = graphene.Boolean(
        description="The victim's own corporation had the final blow; null where the victim's ship is not known yet."
    )
    is_npc = graphene.Boolean(required=True, description="Only NPCs were involved.")
    labels = graphene.List(
        graphene.NonNull(graphene.String), required=True, description="Without `padding` and `ganked`."
    )
    lines = graphene.List(
        graphene.NonNull(ValueLine),
        required=True,
        description="The hull, then all items, nested ones after their container.",
    )


def resolve_value_basis(killmail: models.Killmail, info: graphene.ResolveInfo) -> dict[str, Any]:
    """By the fields' names."""
    valuation = killmail.loaded_valuation
    values = {name: getattr(valuation, name) for name in ("points", "is_solo", "is_awox", "is_npc", "labels")}
    sums = valuation.sums
    if sums is None:
        return {**values, "lines": []}
    theirs = killmail.total_value if killmail.values_by == By.ZKILLBOARD else None
    return {
        **values,
        "total_value": sums.total,
        "dropped_value": sums.dropped,
        "destroyed_value": sums.destroyed,
        "fitted_value": sums.fitted,
        "difference": None if theirs is None else sums.total - theirs,
        "lines": [_line(line, killmail.loaded_types) for line in sums.lines],
    }


def _line(line: Line, types: Mapping[int, models.InventoryType]) -> dict[str, Any]:
    price = line.price
    return {
        "item_type": types[line.type_id],
        "flag": line.flag,
        "quantity": line.quantity,
        "unit_price": price.isk,
        "basis": price.basis.value,
        "day": price.day,
        "days": price.days,
        "value": line.isk,
    }
