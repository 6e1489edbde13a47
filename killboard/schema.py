"""The GraphQL schema of the board: the parts that the apps bring, put together."""

import graphene

from killmails.schema.queries import Query
from killmails.schema.subscriptions import Subscription

schema = graphene.Schema(query=Query, subscription=Subscription)
