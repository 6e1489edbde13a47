"""The log in GraphQL: its events, and the query that pages through them."""

from collections.abc import Mapping, Sequence
from typing import Any

import graphene
from graphql import GraphQLError

from killmails import events
from killmails.events import LogEntry
from killmails.schema import filters
from killmails.schema.types import Killmail
from realtime.log import Head, Refused, check_token, read_token

MAX_FIRST = 100
ANY_DISTANCE = 2**63


class EventKind(graphene.Enum):
    """What happened."""

    ADDED = events.ADDED
    UPDATED = events.UPDATED
    CHECKPOINT = events.CHECKPOINT

    @property
    def description(self) -> str | None:
        texts = {
            EventKind.ADDED: "A killmail was stored.",
            EventKind.UPDATED: "A stored killmail has changed: names came, or other values or labels.",
            EventKind.CHECKPOINT: "Nothing happened; only says where the log stands.",
        }
        return texts.get(self)


class KillmailEvent(graphene.ObjectType):
    """One event of the board's log."""

    position = graphene.String(
        required=True,
        source="token",
        description="Where in the log this is: `epoch:number`; numbers grow by one from event to event.",
    )
    kind = graphene.Field(EventKind, required=True, description="What happened.")
    killmail = graphene.Field(Killmail, description="The killmail as it is now; null at a CHECKPOINT.")


class KillmailEventPage(graphene.ObjectType):
    """Some events of the log, oldest first."""

    nodes = graphene.List(graphene.NonNull(KillmailEvent), required=True, description="The events of this page.")
    position = graphene.String(
        required=True,
        description="How far this page looked: the `after` of the next page, or of a subscription that goes on here.",
    )
    has_next_page = graphene.Boolean(
        required=True, description="Whether the log goes on. With a filter, a page may be empty and the log go on."
    )


class Query(graphene.ObjectType):
    """Read the log."""

    killmail_events = graphene.Field(
        KillmailEventPage,
        required=True,
        filter=graphene.Argument(filters.KillmailFilter, description="Only events of killmails that pass."),
        first=graphene.Argument(graphene.Int, default_value=25, description="How many at most, 1 to 100."),
        after=graphene.Argument(
            graphene.String, description="The position to go on from. Left out: from the beginning of the log."
        ),
        description="The log that subscriptions are fed from: the same events, in the same order.",
    )

    @staticmethod
    def resolve_killmail_events(
        root: None,
        info: graphene.ResolveInfo,
        first: int | None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        after: str | None = None,
    ) -> KillmailEventPage:
        if first is None or not 1 <= first <= MAX_FIRST:
            raise GraphQLError(f"first: must be from 1 to {MAX_FIRST}.", extensions={"code": "BAD_INPUT"})
        wanted = filters.read_filter(filter)
        head = events.KillmailLog().head()
        try:
            begin = read_token(after) if after is not None else Head(head.epoch, 0)
            check_token(begin, head, ANY_DISTANCE)
        except Refused as error:
            raise GraphQLError(str(error), extensions={"code": error.code.value}) from error
        page, reached = events.read_filtered(begin, head, first, info.context.fields, wanted)
        return _page(page, Head(head.epoch, reached), head)


def _page(page: Sequence[LogEntry], reached: Head, head: Head) -> KillmailEventPage:
    return KillmailEventPage(nodes=page, position=reached.token, has_next_page=reached.position < head.position)
