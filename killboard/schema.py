"""The GraphQL schema of the board: the parts that the apps bring, put together."""

import graphene

from killmails.schema import log, queries
from killmails.schema.subscriptions import Subscription


class Query(queries.Query, log.Query):
    """Read what is stored."""


schema = graphene.Schema(query=Query, subscription=Subscription)
