"""GraphQL: what the victim carried."""

import graphene

from killmails.schema.entities import InventoryType


class Item(graphene.ObjectType):
    """Something that was fitted or carried. One row is either dropped or destroyed."""

    item_type = graphene.Field(InventoryType, required=True, description="What it was.")
    flag = graphene.Int(required=True, description="Where it was: EVE's inventory flag, 5 is cargo.")
    quantity_dropped = graphene.BigInt(description="How many remained; null where none did.")
    quantity_destroyed = graphene.BigInt(description="How many were destroyed; null where none were.")
    singleton = graphene.Int(required=True, description="2 is a blueprint copy, else 0.")
    items = graphene.List(
        graphene.NonNull(lambda: Item), required=True, description="What was in it, if it was a container."
    )
