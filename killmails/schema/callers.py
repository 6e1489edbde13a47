"""Who asks: the user behind an API token, or nobody."""

import graphene
from graphql import GraphQLError

LOG_IN = (
    "Log in at /auth/login, and bring an API token from /account: `Authorization: Bearer …`, or in connection_init."
)


def user_of(info: graphene.ResolveInfo) -> int | None:
    """The user's id; None for whoever brought no token."""
    viewer = info.context.caller.viewer
    return None if viewer is None else viewer.user_id


def required_user(info: graphene.ResolveInfo) -> int:
    """Raises GraphQLError (UNAUTHENTICATED) for nobody."""
    user_id = user_of(info)
    if user_id is None:
        raise unauthenticated()
    return user_id


def unauthenticated() -> GraphQLError:
    return GraphQLError(LOG_IN, extensions={"code": "UNAUTHENTICATED"})


def bad_input(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_INPUT"})
