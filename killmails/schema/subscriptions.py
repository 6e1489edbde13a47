"""Subscriptions. Their subscribe functions say what is wanted; the hub does the rest, and resolves each event."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import graphene
from graphql import GraphQLError

from killmails import events, models
from killmails.events import LogEntry
from killmails.filters import KillmailFilter
from killmails.loading import ATTACKER_ROWS
from killmails.schema import filters
from killmails.schema.log import KillmailEvent
from killmails.schema.types import Killmail

EVERYTHING = KillmailFilter()
ATTACKERS = frozenset({ATTACKER_ROWS})
OLDEST = 10 * 366 * 24 * 3600  # seconds; there were no killmails in ESI's form before


@dataclass(frozen=True, slots=True)
class KillmailStream:
    """What one subscription wants of the log. Equal ones want the same, wherever they begin."""

    kinds: frozenset[str]
    checkpoints: bool
    filter: KillmailFilter
    max_age: timedelta | None
    after: str | None = field(default=None, compare=False)

    @property
    def fields(self) -> frozenset[str]:
        """Attackers are among an event's keys, and nearly every filter has keys."""
        return frozenset() if self.filter == EVERYTHING else ATTACKERS

    @property
    def keys(self) -> frozenset[tuple[str, int | str]] | None:
        return self.filter.keys

    def wants(self, event: LogEntry) -> bool:
        return event.kind in self.kinds and self._young(event) and self.filter.wants(event.loaded)

    def _young(self, event: LogEntry) -> bool:
        """By the age that it had when it came in: who resumes hours later gets what they would have got."""
        return self.max_age is None or event.created_at - event.loaded.time <= self.max_age


def _read_age(seconds: int | None) -> timedelta | None:
    if seconds is None:
        return None
    if not 0 < seconds <= OLDEST:
        raise GraphQLError(f"maxAge: must be from 1 to {OLDEST} seconds.", extensions={"code": "BAD_INPUT"})
    return timedelta(seconds=seconds)


FILTER = graphene.Argument(filters.KillmailFilter, description="Only killmails that pass; all where it is left out.")
MAX_AGE = graphene.Argument(
    graphene.Int,
    description="Leave out killmails that were older than so many seconds when they came in. Some come hours late.",
)


class Subscription(graphene.ObjectType):
    """Be told what happens, the moment it is stored."""

    new_killmail = graphene.Field(
        Killmail,
        required=True,
        filter=FILTER,
        max_age=MAX_AGE,
        description="Each killmail that is stored from now on. To miss none when the connection breaks, "
        "take killmailEvents.",
    )
    killmail_events = graphene.Field(
        KillmailEvent,
        required=True,
        filter=FILTER,
        max_age=MAX_AGE,
        after=graphene.Argument(
            graphene.String,
            description="The `position` of the last event that you have had: everything since then is sent first. "
            "Left out: from now on.",
        ),
        description="Everything that happens to killmails, in the order of the log, each at most once on a connection. "
        "A CHECKPOINT says where the log stands: first of all, or when everything since `after` has been sent; and "
        "when nothing passed the filter for a while.",
    )

    @staticmethod
    def subscribe_new_killmail(
        root: None,
        info: None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        max_age: int | None = None,
    ) -> KillmailStream:
        return KillmailStream(frozenset({events.ADDED}), False, filters.read_filter(filter), _read_age(max_age))

    @staticmethod
    def resolve_new_killmail(event: LogEntry, info: graphene.ResolveInfo, **arguments: Any) -> models.Killmail | None:
        return event.killmail

    @staticmethod
    def subscribe_killmail_events(
        root: None,
        info: None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        max_age: int | None = None,
        after: str | None = None,
    ) -> KillmailStream:
        kinds = frozenset({events.ADDED, events.UPDATED})
        return KillmailStream(kinds, True, filters.read_filter(filter), _read_age(max_age), after)

    @staticmethod
    def resolve_killmail_events(event: LogEntry, info: graphene.ResolveInfo, **arguments: Any) -> LogEntry:
        return event
