"""Subscriptions. Their subscribe functions say what is wanted; the hub does the rest, and resolves each event."""

from dataclasses import dataclass

import graphene

from killmails import events, models
from killmails.events import LogEntry
from killmails.schema.types import Killmail


class EventKind(graphene.Enum):
    """What happened."""

    ADDED = events.ADDED
    UPDATED = events.UPDATED
    CHECKPOINT = events.CHECKPOINT

    @property
    def description(self) -> str | None:
        texts = {
            EventKind.ADDED: "A killmail was stored.",
            EventKind.UPDATED: "A stored killmail has changed, in zKillboard's values or labels for example.",
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


@dataclass(frozen=True, slots=True)
class KillmailStream:
    """What one subscription wants of the log."""

    kinds: frozenset[str]
    checkpoints: bool

    def wants(self, event: LogEntry) -> bool:
        return event.kind in self.kinds


class Subscription(graphene.ObjectType):
    """Be told what happens, the moment it is stored."""

    new_killmail = graphene.Field(Killmail, required=True, description="Each killmail that is stored from now on.")
    killmail_events = graphene.Field(
        KillmailEvent,
        required=True,
        description="Everything that happens to killmails from now on, with its position in the log. "
        "The first event is a CHECKPOINT.",
    )

    @staticmethod
    def subscribe_new_killmail(root: None, info: None) -> KillmailStream:
        return KillmailStream(frozenset({events.ADDED}), checkpoints=False)

    @staticmethod
    def resolve_new_killmail(event: LogEntry, info: graphene.ResolveInfo) -> models.Killmail | None:
        return event.killmail

    @staticmethod
    def subscribe_killmail_events(root: None, info: None) -> KillmailStream:
        return KillmailStream(frozenset({events.ADDED, events.UPDATED}), checkpoints=True)

    @staticmethod
    def resolve_killmail_events(event: LogEntry, info: graphene.ResolveInfo) -> LogEntry:
        return event
