"""The GraphQL schema of the board: the parts that the apps bring, put together."""

import graphene

from killmails.schema import log, queries, subscriptions, sync, viewer
from killmails.schema.mutations import Mutation


class Query(queries.Query, log.Query, viewer.Query, sync.Query):
    """Read what is stored."""


class Subscription(subscriptions.Subscription, sync.Subscription):
    """Be told what happens, the moment it is stored."""


schema = graphene.Schema(query=Query, mutation=Mutation, subscription=Subscription)
