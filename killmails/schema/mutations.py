"""Mutations: what users ask for, and the one thing that anybody may."""

import re
import time

import graphene
from django.db.models import Q
from graphql import GraphQLError

from killmails import accounts, models, queueing
from killmails.loading import load
from killmails.models.users import DELAYS
from killmails.schema.callers import bad_input, required_user
from killmails.schema.sync import SyncStatus, statuses
from killmails.schema.types import Killmail
from killmails.schema.viewer import Publication
from realtime.limits import Rates

HASH = re.compile(r"[0-9a-f]{40}")
# Never opened: id and hash are taken from it, and nothing else.
LINKS = (
    re.compile(r"(?:https?://)?(?:www\.)?zkillboard\.com/kill/([0-9]{1,18})/?"),
    re.compile(r"(?:https?://)?esi\.evetech\.net/(?:[a-z0-9]+/)?killmails/([0-9]{1,18})/([0-9a-f]{40})/?(?:\?.*)?"),
    re.compile(r"(?:<url=)?killReport:([0-9]{1,18}):([0-9a-f]{40})>?.*"),
)
MOST_ADDED, WINDOW = 10, 60.0  # from one address, in so many seconds
MOST_WAITING = 1000  # that anybody has added and that are not fetched yet

rates = Rates(MOST_ADDED, WINDOW)


class AddedState(graphene.Enum):
    """What became of a killmail that was added."""

    STORED = queueing.STORED
    QUEUED = queueing.QUEUED
    REFUSED = queueing.REFUSED

    @property
    def description(self) -> str | None:
        texts = {
            "STORED": "The board has it.",
            "QUEUED": "ESI is asked for it; an event tells when it is there.",
            "REFUSED": "ESI, or zKillboard, says that there is no such killmail.",
        }
        return texts[self.value] if self else None


class AddedKillmail(graphene.ObjectType):
    """What became of a killmail that was added."""

    id = graphene.ID(required=True, description="EVE's id of the killmail.")
    state = graphene.Field(AddedState, required=True, description="What became of it.")
    killmail = graphene.Field(Killmail, description="The killmail, where it is STORED.")
    reason = graphene.String(description="Why it is REFUSED.")


class Mutation(graphene.ObjectType):
    """Change what is yours; add what is public."""

    add_killmail = graphene.Field(
        AddedKillmail,
        required=True,
        id=graphene.Argument(graphene.ID, description="EVE's id; with `hash`."),
        hash=graphene.Argument(graphene.String, description="40 hex digits."),
        link=graphene.Argument(
            graphene.String,
            description="Instead of both: its page at zKillboard, its address at ESI, or EVE's own link.",
        ),
        description="Have a killmail fetched that the board does not have. For anybody; 10 in a minute.",
    )
    sync_my_killmails = graphene.List(
        graphene.NonNull(SyncStatus),
        required=True,
        character=graphene.Argument(graphene.ID, description="Only this character's list."),
        full=graphene.Argument(graphene.Boolean, default_value=False, description="Read it all, whatever is known."),
        description="Have your lists read now; at the soonest 5 minutes after the last time: then ESI has new answers.",
    )
    set_publication_delay = graphene.Field(
        Publication,
        required=True,
        hours=graphene.Argument(graphene.Int, required=True, description="After the loss: 0, 1, 3, 8, 24 or 72."),
        publish=graphene.Argument(
            graphene.Boolean,
            default_value=True,
            description="false: not at all; only those see them in whose lists they stand.",
        ),
        description="What becomes of the killmails that you bring, and of those that are still withheld.",
    )
    remove_character = graphene.Boolean(
        required=True,
        id=graphene.Argument(graphene.ID, required=True, description="EVE's id of the character."),
        description="Ends its grant at EVE and forgets its tokens. False where it is none of yours.",
    )
    logout = graphene.Boolean(
        required=True,
        everywhere=graphene.Argument(
            graphene.Boolean,
            default_value=False,
            description="All your API tokens, and the grants of all your characters; browsers stay logged in.",
        ),
        description="Ends this API token.",
    )

    @staticmethod
    def resolve_add_killmail(
        root: None,
        info: graphene.ResolveInfo,
        id: str | None = None,  # noqa: A002
        hash: str | None = None,  # noqa: A002
        link: str | None = None,
    ) -> AddedKillmail:
        if link is not None and (id is not None or hash is not None):
            raise bad_input("link: takes the place of id and hash; give one or the other.")
        killmail_id, killmail_hash = _read_link(link) if link is not None else _read_pair(id, hash)
        _limit(info)
        state = queueing.queue_killmail(killmail_id, killmail_hash, models.Priority.ANYBODY)
        query = models.Killmail.objects.filter(pk=killmail_id)
        killmail = next(iter(load(query, info.context.fields)), None) if state == queueing.STORED else None
        reason = queueing.why_refused(killmail_id, killmail_hash) if state == queueing.REFUSED else None
        return AddedKillmail(id=killmail_id, state=state, killmail=killmail, reason=reason)

    @staticmethod
    def resolve_sync_my_killmails(
        root: None, info: graphene.ResolveInfo, full: bool, character: str | None = None
    ) -> list[models.KillmailSync]:
        user_id = required_user(info)
        wanted = [
            row.pk
            for row in statuses(user_id)
            if character is None or (row.kind == models.KillmailSync.Kind.CHARACTER and str(row.eve_id) == character)
        ]
        if character is not None and not wanted:
            raise bad_input(f"character: {character[:20]!r} is none of yours.")
        queueing.queue_lists(Q(pk__in=wanted), models.Priority.COMMAND, full=full)
        return statuses(user_id)

    @staticmethod
    def resolve_set_publication_delay(
        root: None, info: graphene.ResolveInfo, hours: int, publish: bool | None
    ) -> models.Publication:
        user_id = required_user(info)
        if hours not in DELAYS:
            raise bad_input(f"hours: must be one of {', '.join(map(str, DELAYS))}.")
        if publish is None:
            raise bad_input("publish: must be true or false.")
        return accounts.set_publication(user_id, publish, hours)

    @staticmethod
    def resolve_remove_character(root: None, info: graphene.ResolveInfo, id: str) -> bool:  # noqa: A002
        user_id = required_user(info)
        return id.isascii() and id.isdigit() and len(id) < 19 and accounts.remove_character(user_id, int(id))

    @staticmethod
    def resolve_logout(root: None, info: graphene.ResolveInfo, everywhere: bool) -> bool:
        required_user(info)
        accounts.log_out(info.context.caller.viewer, everywhere)
        return True


def _read_link(link: str) -> tuple[int, str]:
    for pattern in LINKS:
        if found := pattern.fullmatch(link.strip()[:500]):
            killmail_id, killmail_hash = _read_pair(found[1], found[2] if pattern.groups > 1 else "0" * 40)
            return killmail_id, killmail_hash if pattern.groups > 1 else ""  # zKillboard is asked for it
    raise bad_input("link: is neither https://zkillboard.com/kill/…/ nor https://esi.evetech.net/killmails/…/…/.")


def _read_pair(id_: str | None, hash_: str | None) -> tuple[int, str]:
    if id_ is None or hash_ is None:
        raise bad_input("id and hash: give both, or a link.")
    if not (id_.isascii() and id_.isdigit() and len(id_) < 20 and 0 < int(id_) < 2**63):
        raise bad_input(f"id: {id_[:40]!r} is not a killmail's id, a whole number.")
    if not HASH.fullmatch(hash_):
        raise bad_input(f"hash: {hash_[:50]!r} is not 40 hex digits in lower case.")
    return int(id_), hash_


def _limit(info: graphene.ResolveInfo) -> None:
    if not rates.allow(info.context.caller.address, time.monotonic()):
        raise GraphQLError(f"{MOST_ADDED} killmails in a minute, and no more.", extensions={"code": "RATE_LIMITED"})
    waiting = models.PendingKillmail.objects.filter(
        state=models.PendingKillmail.State.TO_FETCH, priority=models.Priority.ANYBODY, due_at__isnull=False
    )
    if waiting[:MOST_WAITING].count() >= MOST_WAITING:
        raise GraphQLError(
            "Too many killmails wait to be fetched; try again later.", extensions={"code": "UNAVAILABLE"}
        )
