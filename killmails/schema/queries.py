"""Queries: one killmail, the list of them, and where the feed stands."""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import graphene
from django.conf import settings
from django.db.models import Q
from graphql import GraphQLError

from killmails import models
from killmails.loading import load
from killmails.schema.explain import Explanation, explain
from killmails.schema.filters import KillmailFilter, read_filter
from killmails.schema.types import Killmail

MAX_FIRST = 100


class FeedMode(graphene.Enum):
    """Where killmails come from."""

    LIVE = "live"
    RECORDED = "recorded"
    OFF = "off"

    @property
    def description(self) -> str | None:
        texts = {
            FeedMode.LIVE: "zKillboard's feed.",
            FeedMode.RECORDED: "A recording of invented killmails: zKillboard was out of reach, or it is wanted.",
            FeedMode.OFF: "Nothing is taken in.",
        }
        return texts.get(self)


class Feed(graphene.ObjectType):
    """Where the board's killmails come from."""

    mode = graphene.Field(FeedMode, required=True, description="Live, recorded or off.")


class KillmailConnection(graphene.relay.Connection):
    """A page of killmails, newest first."""

    nodes = graphene.List(graphene.NonNull(Killmail), required=True, description="The killmails of this page.")

    class Meta:
        node = Killmail
        strict_types = True


class Query(graphene.ObjectType):
    """Read what is stored."""

    killmail = graphene.Field(
        Killmail,
        id=graphene.Argument(graphene.ID, required=True, description="EVE's id."),
        description="One killmail; null if the board does not have it.",
    )
    killmails = graphene.Field(
        KillmailConnection,
        required=True,
        filter=graphene.Argument(KillmailFilter, description="Which killmails; all of them where it is left out."),
        first=graphene.Argument(graphene.Int, default_value=25, description="How many, 1 to 100."),
        after=graphene.Argument(graphene.String, description="The cursor to go on from."),
        description="Killmails, newest first.",
    )
    explain_match = graphene.Field(
        Explanation,
        killmail_id=graphene.Argument(graphene.ID, required=True, description="EVE's id."),
        filter=graphene.Argument(KillmailFilter, required=True, description="What the killmail is held against."),
        description="Why a killmail passes a filter or does not; null if the board does not have the killmail.",
    )
    feed = graphene.Field(Feed, required=True, description="Where killmails come from.")

    @staticmethod
    def resolve_killmail(root: None, info: graphene.ResolveInfo, id: str) -> models.Killmail | None:  # noqa: A002
        query = models.Killmail.objects.filter(pk=_read_id("id", id))
        return next(iter(load(query, info.context.fields)), None)

    @staticmethod
    def resolve_killmails(
        root: None,
        info: graphene.ResolveInfo,
        first: int | None,
        after: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> KillmailConnection:
        if first is None or not 1 <= first <= MAX_FIRST:
            raise GraphQLError(f"first: must be from 1 to {MAX_FIRST}.", extensions={"code": "BAD_INPUT"})
        page = models.Killmail.objects.order_by("-time", "-id")
        if after is not None:
            time, killmail_id = _read_cursor(after)
            # The first half alone lets the index find the place; the second half is exact.
            page = page.filter(time__lte=time).filter(Q(time__lt=time) | Q(id__lt=killmail_id))
        killmails = load(read_filter(filter).first(page, first + 1), info.context.fields)
        return _connection(killmails, first, begun=after is not None)

    @staticmethod
    def resolve_explain_match(
        root: None,
        info: graphene.ResolveInfo,
        killmail_id: str,
        filter: Mapping[str, Any],  # noqa: A002
    ) -> Explanation | None:
        return explain(_read_id("killmailId", killmail_id), filter)

    @staticmethod
    def resolve_feed(root: None, info: graphene.ResolveInfo) -> Feed:
        return Feed(mode=settings.FEED)


def _read_id(argument: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20 and 0 < int(value) < 2**63):
        message = f"{argument}: {value[:40]!r} is not a killmail's id, a whole number."
        raise GraphQLError(message, extensions={"code": "BAD_INPUT"})
    return int(value)


def _connection(killmails: list[models.Killmail], first: int, begun: bool) -> KillmailConnection:
    """`killmails` holds one more than the page where there is a next page."""
    nodes = killmails[:first]
    cursors = [_write_cursor(killmail) for killmail in nodes]
    info = graphene.relay.PageInfo(
        has_next_page=len(killmails) > first,
        has_previous_page=begun,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )
    edges = [KillmailConnection.Edge(node=node, cursor=cursor) for node, cursor in zip(nodes, cursors, strict=True)]
    return KillmailConnection(nodes=nodes, edges=edges, page_info=info)


def _write_cursor(killmail: models.Killmail) -> str:
    """The place of a killmail in the list: seconds since 1970 (a killmail has no finer time), and its id."""
    text = f"k1:{killmail.time.timestamp():.0f}:{killmail.pk}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, int]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        series, seconds, killmail_id = text.split(":")
        if series != "k1" or not 0 < int(killmail_id) < 2**63:
            raise ValueError(text)
        return datetime.fromtimestamp(int(seconds), UTC), int(killmail_id)
    except (ValueError, binascii.Error, OverflowError, OSError) as error:
        message = "after: is not a cursor of this list; take one from pageInfo.endCursor."
        raise GraphQLError(message, extensions={"code": "BAD_CURSOR"}) from error
